//! Parameters by themselves.

use super::*;

#[test]
fn a_setting_is_undone_with_its_transaction() {
    let mut settings = Settings::new("alice", Timeouts::default());
    settings
        .set(Scope::Session, "application_name", Some("a"), false)
        .unwrap();
    settings
        .set(Scope::Session, "application_name", Some("b"), true)
        .unwrap();
    let changes = settings.end_transaction(false);
    assert_eq!(changes[0].report, Some(("application_name", "a".to_owned())));
    assert_eq!(settings.show("Application_Name").unwrap(), "a");
}

#[test]
fn set_local_holds_to_the_end_of_the_transaction() {
    let mut settings = Settings::new("alice", Timeouts::default());
    settings.set(Scope::Session, "my.x", Some("1"), true).unwrap();
    settings.set(Scope::Local, "my.x", Some("2"), true).unwrap();
    assert_eq!(settings.show("my.x").unwrap(), "2");
    settings.end_transaction(true);
    assert_eq!(settings.show("my.x").unwrap(), "1");
}

#[test]
fn time_zones_are_known_to_both_sides() {
    let mut settings = Settings::new("alice", Timeouts::default());
    let change = settings
        .set(Scope::Session, "timezone", Some("europe/berlin"), false)
        .unwrap();
    assert_eq!(change.engine.as_deref(), Some("SET TimeZone = 'Europe/Berlin'"));
    assert_eq!(change.report, Some(("TimeZone", "Europe/Berlin".to_owned())));
    let west = settings
        .set(Scope::Session, "timezone", Some("-5"), false)
        .unwrap();
    assert_eq!(west.engine.as_deref(), Some("SET TimeZone = 'Etc/GMT+5'"));
    assert!(
        settings
            .set(Scope::Session, "timezone", Some("Mars/Base"), false)
            .is_err()
    );
}

#[test]
fn unknown_and_fixed_parameters_are_refused() {
    let mut settings = Settings::new("alice", Timeouts::default());
    let mut state = |name: &str| {
        settings
            .set(Scope::Session, name, Some("x"), false)
            .unwrap_err()
            .sqlstate
    };
    assert_eq!(state("nonsense"), "42704");
    assert_eq!(state("server_version"), "55P02");
    assert_eq!(state("jit"), "22023");
    assert_eq!(state("datestyle"), "0A000");
}

#[test]
fn reset_goes_back_to_the_startup_value() {
    let mut settings = Settings::new("alice", Timeouts::default());
    settings.set_at_start("application_name", "tool").unwrap();
    settings
        .set(Scope::Session, "application_name", Some("x"), false)
        .unwrap();
    settings.reset_all(false);
    assert_eq!(settings.show("application_name").unwrap(), "tool");
}
