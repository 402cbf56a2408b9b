//! With dpkg.

use std::fs;
use std::process::Command;

use super::*;
use crate::machine::on_each_release;
use crate::support::programs::run;

on_each_release!(bare:
    a_deb_is_installed_upgraded_removed_and_purged,
    a_deb_is_installed_beside_a_program_that_has_the_port,
);

fn dpkg(machine: &Machine, package: &Path) -> Output {
    let said = install(machine, package, &["dpkg", "--install"]);
    let state = machine.run(&[
        "dpkg-query",
        "--show",
        "--showformat=${db:Status-Abbrev}",
        "duckgres",
    ]);
    assert_eq!(state.success().trim(), "ii");
    said
}

fn a_deb_is_installed_upgraded_removed_and_purged(mut machine: Machine) {
    let debs = made::debs();
    machine.boot();
    dpkg(&machine, &debs.first);
    assert_serves_its_administrator(&machine);
    settle(&machine);
    upgraded(&machine, debs, &|package| dpkg(&machine, package));

    machine.run(&["dpkg", "--remove", "duckgres"]).success();
    assert_gone(&machine);
    dpkg(&machine, &debs.first);
    assert_eq!(machine.connect("u0").rows("select i from kept"), ["42"]);
    // Which units are enabled was kept, too.
    machine.await_property(&worker(3), "ActiveState", "active");

    let said = machine.run(&["dpkg", "--purge", "duckgres"]);
    assert!(said.status.success(), "{said:#?}");
    assert!(
        said.err
            .contains("The databases are kept in /var/lib/duckgres/data"),
        "{said:#?}"
    );
    assert_gone(&machine);
    for path in [
        "/etc/duckgres/duckgres.yaml",
        "/var/lib/duckgres/control",
        "/var/log/duckgres",
        "/run/duckgres",
        "/etc/systemd/system/multi-user.target.wants/duckgres.target",
    ] {
        assert!(!machine.succeeds(&["test", "-e", path]), "{path}");
    }
    // What the operator has put there is not ours.
    assert!(machine.etc("duckgres/server.key").exists());
}

fn a_deb_is_installed_beside_a_program_that_has_the_port(mut machine: Machine) {
    machine.boot();
    let other = [
        "systemd-run",
        "--unit=other",
        "systemd-socket-activate",
        "--accept",
        "--listen=127.0.0.1:5432",
        "cat",
    ];
    machine.run(&other).success();
    eventually("it listens", || machine.network().tcp().ok());
    let said = dpkg(&machine, &made::debs().first);
    assert!(
        said.err.contains("does not run: has another program"),
        "{said:#?}"
    );
    machine.systemctl(&["stop", "other.service"]);
    machine.systemctl(&["start", "duckgres.target"]);
    assert_serves_its_administrator(&machine);
    // Nobody has made a database but the administrator's own, which is one, too.
    let said = machine.run(&["dpkg", "--purge", "duckgres"]);
    assert!(said.err.contains("databases are kept"), "{said:#?}");
}

/// dpkg puts all files of a package beside the old ones first, then renames them one by
/// one in the package's order, and removes what the new version has not. So the library,
/// in a directory of its version, is there before the programs that need it, and the
/// old one until nobody does.
#[test]
fn in_a_deb_the_library_comes_before_the_programs() {
    let list = run(
        Command::new("dpkg-deb")
            .arg("--contents")
            .arg(&made::debs().first),
        "",
    )
    .success();
    let at = |what: &str| list.lines().position(|line| line.ends_with(what)).unwrap();
    let library = format!("/usr/lib/duckgres/{}/libduckdb.so", "1.5.5");
    assert!(at(&library) < at("/usr/bin/duckgres"), "{list}");
    assert!(at(&library) < at("/usr/bin/duckgres-worker"), "{list}");
    let place = tempfile::tempdir().unwrap();
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--extract").arg(&made::debs().first).arg(place.path());
    run(&mut unpack, "").success();
    for program in ["duckgres", "duckgres-worker"] {
        let program = place.path().join("usr/bin").join(program);
        let dynamic = run(Command::new("readelf").arg("-d").arg(program), "").success();
        assert!(dynamic.contains("[$ORIGIN/../lib/duckgres/1.5.5]"), "{dynamic}");
    }
}

#[test]
fn the_configuration_of_the_package_is_valid_with_all_its_examples() {
    let place = tempfile::tempdir().unwrap();
    let text = include_str!("../../../packaging/duckgres.yaml");
    // Prose has one space after its #, other files' lines three.
    let is_example = |rest: &str| {
        let indented = rest.trim_start_matches(' ');
        !indented.is_empty() && matches!(rest.len() - indented.len(), 0 | 2)
    };
    let examples: Vec<String> = text
        .lines()
        .map(|line| match line.trim_start().strip_prefix('#') {
            Some(rest) if is_example(rest) => line.replacen('#', "", 1),
            _ => line.to_owned(),
        })
        .collect();
    assert!(
        examples.contains(&"memory_limit: 8GB".to_owned()),
        "{examples:#?}"
    );
    for text in [text.to_owned(), examples.join("\n")] {
        let file = place.path().join("duckgres.yaml");
        fs::write(&file, &text).unwrap();
        let mut check = Command::new(env!("CARGO_BIN_EXE_duckgres"));
        check.arg("check-config").arg("--config").arg(&file);
        check.args([
            "--mode",
            "control-plane",
            "--worker-sockets",
            "/run/duckgres/worker",
        ]);
        let said = run(&mut check, "");
        // The certificate of the example is nowhere.
        let wrong = said.err.lines().filter(|line| !line.contains("server."));
        assert_eq!(wrong.count(), 0, "{said:#?}\n{text}");
    }
}
