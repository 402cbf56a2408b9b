//! A reload that fails: the reason on the terminal, and the old process serves.

use std::fs;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::against_postgres;
use crate::support::processes::is_running;
use crate::support::programs::{Output, run};
use crate::support::{Server, Session, Transport, eventually};

/// Tries; gives what the tool has said.
#[track_caller]
fn failed_reload(server: &Server) -> String {
    let Output { status, out, err } = run(&mut server.reload_command(), "");
    assert_eq!((status.code(), out.as_str()), (Some(1), ""), "{err}");
    let why = err.strip_prefix("duckgres: the reload has failed, and the server goes on as before: ");
    why.unwrap_or_else(|| panic!("{err}")).to_owned()
}

/// A program that notes its process and goes on with `body`.
fn script(server: &Server, body: &str) -> String {
    format!(
        "#!/bin/sh\necho $$ > {}\n{body}\n",
        server.scratch("pid").display()
    )
}

/// The process of the last such program.
fn noted(server: &Server) -> u32 {
    eventually("the program runs", || {
        fs::read_to_string(server.scratch("pid"))
            .ok()?
            .trim()
            .parse()
            .ok()
    })
}

fn ask(server: &Server) -> Child {
    let mut command: Command = server.reload_command();
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_broken_program_is_reported_and_the_old_process_serves_on() {
    if against_postgres() {
        return;
    }
    let server = Server::with_workers(1, &["--reload-timeout", "2s"]);
    let mut session = Session::of(&server, "u0", Transport::Tls13);
    let mut serves = || {
        assert_eq!(server.owner(), server.pid());
        assert_eq!(session.rows("select 1 as a"), ["1"]);
        server.assert_serving_to("u1");
    };
    for (body, reason) in [
        (
            "exit 3",
            "ended before it was ready (exit status: 3); what it said stands in the log",
        ),
        ("kill -SEGV $$", "ended before it was ready (signal: 11"),
        // A program from before there were reloads.
        (
            "unset DUCKGRES_PREDECESSOR_FD; exec REAL \"$@\"",
            "ended before it was ready",
        ),
        (
            "exec REAL --no-such-flag",
            "unexpected argument '--no-such-flag' found",
        ),
        (
            "exec sleep 1000",
            "the new process was not ready within 2s (reload_timeout)",
        ),
    ] {
        let body = body.replace("REAL", env!("CARGO_BIN_EXE_duckgres"));
        server.install(&script(&server, &body));
        let why = failed_reload(&server);
        assert!(why.contains(reason), "{body}: {why}");
        let process = noted(&server);
        eventually("it does not live on", || (!is_running(process)).then_some(()));
        serves();
    }
    fs::remove_file(server.program()).unwrap();
    assert!(failed_reload(&server).starts_with("cannot start "));
    serves();
    server.install_ours();
    server.reload();
    server.assert_serving_to("u2");
}

#[test]
fn a_broken_configuration_is_reported_without_its_secrets() {
    if against_postgres() {
        return;
    }
    let server = Server::with_workers(1, &[]);
    let file = server.scratch("duckgres.yaml");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{good}prot: 5432\nmax_connections: many\n")).unwrap();
    let why = failed_reload(&server);
    assert!(
        why.contains("unknown key \"prot\"; did you mean \"port\"?"),
        "{why}"
    );
    assert!(why.contains("max_connections: "), "{why}");
    assert!(!why.contains(&server.password), "{why}");
    server.assert_serving_to("u0");

    fs::write(&file, good).unwrap();
    let key = fs::read(server.scratch("server.key")).unwrap();
    fs::write(server.scratch("server.key"), "no key").unwrap();
    let why = failed_reload(&server);
    assert!(why.contains("server.key") || why.contains("server.crt"), "{why}");
    server.assert_serving_to("u0");
    fs::write(server.scratch("server.key"), key).unwrap();
    server.reload();
    server.assert_serving_to("u0");
}

#[test]
fn one_reload_at_a_time_and_one_that_nobody_waits_for_is_given_up() {
    if against_postgres() {
        return;
    }
    let server = Server::with_workers(1, &[]);
    server.install(&script(&server, "exec sleep 1000"));
    let mut first = ask(&server);
    let hanging = noted(&server);
    assert_eq!(failed_reload(&server), "another reload is under way\n");
    first.kill().unwrap();
    first.wait().unwrap();
    eventually("it is given up", || (!is_running(hanging)).then_some(()));
    server.assert_serving_to("u0");
    server.install_ours();
    server.reload();
    server.assert_serving_to("u0");
}

#[test]
fn a_server_that_is_told_to_stop_during_a_reload_stops() {
    if against_postgres() {
        return;
    }
    let mut server = Server::with_workers(1, &[]);
    server.install(&script(&server, "exec sleep 1000"));
    let mut asking = ask(&server);
    let hanging = noted(&server);
    assert!(server.stop().success());
    assert!(!asking.wait().unwrap().success());
    assert!(!is_running(hanging));
}

#[test]
fn a_new_process_whose_predecessor_is_killed_does_not_serve() {
    if against_postgres() {
        return;
    }
    let mut server = Server::with_workers(1, &[]);
    let mut session = Session::of(&server, "u0", Transport::Tcp);
    let (go_on, status) = (server.scratch("go-on"), server.scratch("status"));
    let body = format!(
        "while [ ! -e {} ]; do sleep 0.05; done\n{} \"$@\"\necho $? > {}",
        go_on.display(),
        env!("CARGO_BIN_EXE_duckgres"),
        status.display()
    );
    server.install(&script(&server, &body));
    let mut asking = ask(&server);
    noted(&server);
    server.die();
    fs::write(go_on, "").unwrap();
    let ended = eventually("it ends", || {
        fs::read_to_string(&status)
            .ok()
            .filter(|text| text.ends_with('\n'))
    });
    assert_eq!(ended, "1\n");
    assert!(!asking.wait().unwrap().success());
    assert_eq!(session.rows("select 1 as a"), ["1"]);
    server.install_ours();
    let server = server.start_again();
    server.assert_serving_to("u0");
    assert_eq!(session.rows("select 1 as a"), ["1"]);
}

/// A program that takes part in the conversation up to a point.
fn impostor(server: &Server, then: &str) -> String {
    let python = crate::support::programs::python();
    format!(
        r#"#!{python}
import os, socket, sys, time
open("{pid}", "w").write(str(os.getpid()) + "\n")
channel = socket.socket(fileno=int(os.environ["DUCKGRES_PREDECESSOR_FD"]))
def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])
hello = b"\x08" + varint(os.getpid())
hello = b"\x0a" + bytes([len(hello)]) + hello
socket.send_fds(channel, [hello], [os.pidfd_open(os.getpid())])
channel.recv(1 << 20)
{then}
"#,
        python = python.get_program().display(),
        pid = server.scratch("pid").display(),
    )
}

#[test]
fn a_new_process_that_is_lost_at_any_step_is_replaced_by_the_old_one() {
    if against_postgres() {
        return;
    }
    let server = Server::with_workers(2, &[]);
    let mut session = Session::of(&server, "u0", Transport::Tls13);
    let die = "os.kill(os.getpid(), 9)";
    let ready = "channel.send(b\"\\x12\\x00\")";
    for (then, reason) in [
        (die.to_owned(), "ended before it was ready (signal: 9"),
        (
            format!("{ready}\n{die}"),
            "the new process was lost when it was to take over",
        ),
        (
            format!("{ready}\nchannel.recv(1 << 20)\n{die}"),
            "the new process was lost when it was to take over",
        ),
        // It has been told to serve, and does nothing.
        (
            format!("{ready}\ntime.sleep(1000)"),
            "the new process was lost when it was to take over",
        ),
    ] {
        server.install(&impostor(&server, &then));
        let why = failed_reload(&server);
        assert!(why.contains(reason), "{then}: {why}");
        let process = noted(&server);
        assert!(!is_running(process));
        server.assert_serving_to("u1");
        assert_eq!(session.rows("select 1 as a"), ["1"]);
        assert_eq!(server.owner(), server.pid());
    }
    // It looks after its workers again.
    let worker = server.worker_process(session.worker());
    kill(Pid::from_raw(worker as i32), Signal::SIGKILL).unwrap();
    assert_eq!(session.last_words(), [] as [&str; 0]);
    server.assert_serving_to("u0");
    server.install_ours();
    server.reload();
    server.assert_serving_to("u0");
}
