//! The whole promise at once: whatever happens to the control plane, no connect
//! fails, no session ends, no statement fails.

use crate::handshakes::kill;
use crate::lives::{booted, under_load};
use crate::machine::{Machine, on_each_release};

on_each_release!(
    nothing_that_happens_to_the_control_plane_is_felt_by_a_client,
    a_reload_that_fails_is_felt_by_nobody,
);

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

fn a_reload_that_fails_is_felt_by_nobody(mut machine: Machine) {
    // systemd's patience with a reload is that of a start.
    let patience = "[Service]\nTimeoutStartSec=3s\n";
    machine.write("systemd/system/duckgres.service.d/test.conf", patience);
    booted(&mut machine, &[1, 2]);
    drop(machine.connect("u0"));
    let before = machine.main_process("duckgres.service");
    let fails = || {
        let reload = machine.run(&["systemctl", "reload", "duckgres"]);
        assert!(!reload.status.success(), "{reload:?}");
    };
    let configuration = machine.etc("duckgres/duckgres.yaml");
    let good = std::fs::read_to_string(&configuration).unwrap();
    under_load(&machine, || {
        for script in ["exit 3", "kill -SEGV $$", "exec sleep infinity"] {
            machine.replace_program("duckgres", format!("#!/bin/sh\n{script}\n"));
            fails();
            machine.restore_program("duckgres");
        }
        std::fs::write(&configuration, format!("{good}\nport: none\n")).unwrap();
        fails();
        std::fs::write(&configuration, &good).unwrap();
    });
    assert_eq!(
        machine.main_process("duckgres.service"),
        before,
        "the old process is still there"
    );
    machine.systemctl(&["reload", "duckgres"]);
    assert_ne!(machine.main_process("duckgres.service"), before);
    assert_eq!(machine.connect("u0").rows("select 1"), ["1"]);
}
