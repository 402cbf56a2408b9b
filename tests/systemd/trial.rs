//! The whole promise at once: whatever happens to the control plane, no connect
//! fails, no session ends, no statement fails.

use crate::handshakes::kill;
use crate::lives::{booted, under_load};
use crate::machine::{Machine, on_each_release};

on_each_release!(nothing_that_happens_to_the_control_plane_is_felt_by_a_client);

fn nothing_that_happens_to_the_control_plane_is_felt_by_a_client(mut machine: Machine) {
    booted(&mut machine, &[1, 2, 3]);
    drop(machine.connect("u0"));
    let systemctl = |words: &[&str]| drop(machine.systemctl(words));
    let events: [(&str, u32, &dyn Fn()); 5] = [
        ("reload", 20, &|| systemctl(&["reload", "duckgres"])),
        ("restart", 10, &|| systemctl(&["restart", "duckgres"])),
        ("SIGKILL", 10, &|| kill(&machine)),
        ("daemon-reload", 2, &|| systemctl(&["daemon-reload"])),
        ("daemon-reexec", 2, &|| systemctl(&["daemon-reexec"])),
    ];
    let workers = || [1, 2, 3].map(|id| machine.main_process(&format!("duckgres-worker@{id}.service")));
    let before = workers();
    for (name, times, event) in events {
        print!("{times} x {name}: ");
        under_load(&machine, || (0..times).for_each(|_| event()));
    }
    assert_eq!(workers(), before, "the workers were left alone");
}
