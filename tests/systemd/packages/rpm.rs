//! With rpm.

use super::*;
use crate::machine::on_each_release;

on_each_release!(bare: an_rpm_is_installed_upgraded_and_erased);

fn an_rpm_is_installed_upgraded_and_erased(mut machine: Machine) {
    let rpms = made::rpms();
    machine.boot();
    install(&machine, &rpms.first, &["rpm", "--install", "--nodeps"]);
    assert_serves_its_administrator(&machine);
    settle(&machine);
    upgraded(&machine, rpms, &|package| {
        install(
            &machine,
            package,
            &["rpm", "--upgrade", "--nodeps", "--oldpackage"],
        )
    });
    machine.run(&["rpm", "--erase", "duckgres"]).success();
    assert_gone(&machine);
    // rpm knows no purge: what was changed is kept under another name.
    assert!(machine.etc("duckgres/duckgres.yaml.rpmsave").exists());
    assert!(
        !machine
            .etc("systemd/system/multi-user.target.wants/duckgres.target")
            .exists()
    );
}
