//! A handshake that one control plane has begun and the next one ends.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustls::{SupportedProtocolVersion, version};

use crate::lives::{another_process, booted, under_load};
use crate::machine::{Machine, on_each_release};
use crate::support::{Session, eventually};

on_each_release!(
    a_handshake_goes_on_in_the_next_control_plane_wherever_it_was,
    a_handshake_goes_on_in_the_middle_of_a_message,
    a_client_that_hung_up_meanwhile_is_forgotten,
    a_kept_connection_is_forgotten_when_it_is_handed_over_or_closed,
    a_control_plane_that_is_killed_again_and_again_is_felt_by_nobody,
    who_comes_while_the_control_plane_fails_to_start_waits,
);

/// Logs in. Before what the client sends for the `step`th time goes on to the
/// server, or when a half of it has, `event` happens. False if the client was
/// done before.
fn interrupted(
    machine: &Machine,
    version: &'static SupportedProtocolVersion,
    (step, half): (usize, bool),
    event: impl Fn() + Sync,
) -> bool {
    let network = machine.network();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    near.set_nodelay(true).unwrap();
    let (mut client, _) = listener.accept().unwrap();
    client.set_nodelay(true).unwrap();
    let mut server = network.tcp().unwrap();
    server.set_read_timeout(None).unwrap();
    let steps = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        scope.spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
        scope.spawn(|| {
            let mut buffer = [0; 16 * 1024];
            while let Ok(count @ 1..) = client.read(&mut buffer) {
                let said = &buffer[..count];
                let now = steps.fetch_add(1, Ordering::Relaxed) == step;
                let (first, rest) = said.split_at(if half { count / 2 } else { 0 });
                if now {
                    server.write_all(first).unwrap();
                    event();
                    server.write_all(rest).unwrap();
                } else {
                    server.write_all(said).unwrap();
                }
            }
            let _ = server.shutdown(Shutdown::Both);
        });
        let mut session = network.log_in_over(near, version, "u0");
        let during = steps.load(Ordering::Relaxed) > step;
        assert_eq!(session.rows("select 40 + 2"), ["42"]);
        drop(session);
        during
    })
}

pub fn kill(machine: &Machine) {
    let unit = "duckgres.service";
    let before = machine.main_process(unit);
    machine.signal(unit, "KILL");
    another_process(machine, unit, before);
}

fn at_every_step(machine: &mut Machine, half: bool) {
    booted(machine, &[1]);
    drop(machine.connect("u0"));
    for version in [&version::TLS13, &version::TLS12] {
        let mut step = 0;
        while interrupted(machine, version, (step, half), || kill(machine)) {
            step += 1;
        }
        // SSLRequest, ClientHello, Finished (perhaps with the startup message), SCRAM twice.
        assert!(step >= 5, "{version:?}: the login had {step} steps");
    }
}

fn a_handshake_goes_on_in_the_next_control_plane_wherever_it_was(mut machine: Machine) {
    at_every_step(&mut machine, false);
}

fn a_handshake_goes_on_in_the_middle_of_a_message(mut machine: Machine) {
    at_every_step(&mut machine, true);
}

/// How many descriptors systemd keeps for the control plane.
fn kept(machine: &Machine) -> String {
    machine.property("duckgres.service", "NFileDescriptorStore")
}

/// But for the listener for metrics.
fn nothing_is_kept(machine: &Machine) {
    eventually("nothing is kept", || (kept(machine) == "1").then_some(()));
}

fn a_client_that_hung_up_meanwhile_is_forgotten(mut machine: Machine) {
    booted(&mut machine, &[1]);
    drop(machine.connect("u0"));
    nothing_is_kept(&machine);
    let mut client = machine.network().tcp().unwrap();
    // Half a startup packet.
    client.write_all(&[0, 0, 0, 100, 0, 3]).unwrap();
    eventually("the connection is kept", || (kept(&machine) == "3").then_some(()));
    machine.signal("duckgres.service", "STOP");
    drop(client);
    kill(&machine);
    nothing_is_kept(&machine);
}

fn a_kept_connection_is_forgotten_when_it_is_handed_over_or_closed(mut machine: Machine) {
    booted(&mut machine, &[1]);
    let mut sessions: Vec<Session> = (0..5).map(|_| machine.connect("u0")).collect();
    nothing_is_kept(&machine);
    sessions
        .iter_mut()
        .for_each(|session| assert_eq!(session.rows("select 1"), ["1"]));
    let mut stranger = machine.network().tcp().unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = stranger.read_to_end(&mut answer);
    nothing_is_kept(&machine);
}

fn a_control_plane_that_is_killed_again_and_again_is_felt_by_nobody(mut machine: Machine) {
    booted(&mut machine, &[1, 2]);
    drop(machine.connect("u0"));
    under_load(&machine, || (0..10).for_each(|_| kill(&machine)));
    nothing_is_kept(&machine);
}

fn who_comes_while_the_control_plane_fails_to_start_waits(mut machine: Machine) {
    booted(&mut machine, &[1]);
    let mut session = machine.connect("u0");
    machine.replace_program("duckgres", "#!/bin/sh\nexit 3\n");
    machine.signal("duckgres.service", "KILL");
    let network = machine.network();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| network.connect("u0").rows("select 40 + 2"));
        eventually("it fails, again and again", || {
            let restarts = machine.property("duckgres.service", "NRestarts");
            (restarts.parse::<u32>().unwrap() >= 5).then_some(())
        });
        assert_eq!(session.rows("select 1"), ["1"]);
        assert!(!waiting.is_finished());
        machine.restore_program("duckgres");
        assert_eq!(waiting.join().unwrap(), ["42"]);
    });
    assert_eq!(session.rows("select 1"), ["1"]);
    nothing_is_kept(&machine);
}
