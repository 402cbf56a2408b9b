//! ParameterStatus at the start and when a reported setting changes, and
//! notices.

use crate::support::message::*;
use crate::support::session::V3_0;
use crate::support::{Answer, Server, Session, Transport};

#[test]
fn a_session_begins_with_what_drivers_ask_for() {
    let session = Session::new();
    for (name, value) in [
        ("client_encoding", "UTF8"),
        ("server_encoding", "UTF8"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "postgres"),
        ("application_name", ""),
        ("session_authorization", &Server::shared().user),
    ] {
        assert_eq!(session.parameters.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(session.parameters.contains_key("is_superuser"));
    assert!(session.parameters.contains_key("TimeZone"));
    let version = &session.parameters["server_version"];
    let major: u32 = version.split(['.', ' ']).next().unwrap().parse().expect("drivers parse the version");
    assert!(major >= 14, "{version}");
    assert_ne!(session.key.0, 0, "BackendKeyData came");
}

#[test]
fn settings_of_the_startup_message_are_in_force_and_reported() {
    let more = [
        ("application_name", "at start"),
        ("TimeZone", "Europe/Berlin"),
        ("DateStyle", "ISO, DMY"),
        ("extra_float_digits", "2"),
        ("client_encoding", "utf-8"),
    ];
    let mut session = Session::with(Server::shared(), Transport::Tcp, V3_0, &more);
    assert_eq!(session.parameters["application_name"], "at start");
    assert_eq!(session.parameters["TimeZone"], "Europe/Berlin");
    assert_eq!(session.parameters["DateStyle"], "ISO, DMY");
    assert_eq!(session.parameters["client_encoding"], "UTF8");
    assert_eq!(session.rows("show timezone"), ["Europe/Berlin"]);
    assert_eq!(session.rows("show extra_float_digits"), ["2"]);
}

#[test]
fn the_options_parameter_sets_like_a_command_line() {
    let more = [("options", r"-c TimeZone=Asia/Tokyo --application-name=with\ space -csearch_path=public")];
    let mut session = Session::with(Server::shared(), Transport::Tcp, V3_0, &more);
    assert_eq!(session.parameters["TimeZone"], "Asia/Tokyo");
    assert_eq!(session.parameters["application_name"], "with space");
    assert_eq!(session.rows("show search_path"), ["public"]);
}

#[test]
fn a_setting_that_does_not_exist_is_refused_at_the_start() {
    let server = Server::shared();
    let mut session = Session::open(server, Transport::Tcp);
    session.send(&startup(V3_0, &[("user", &server.user), ("database", &server.database), ("nosuch", "1")]));
    session.authenticate(&server.password).unwrap();
    assert_eq!(session.last_words().last().unwrap(), "Error FATAL 42704");
}

#[test]
fn a_reported_setting_is_reported_when_it_changes() {
    let mut session = Session::new();
    assert_eq!(
        session.query("set application_name = 'new'"),
        ["CommandComplete SET", "ParameterStatus application_name=new", "ReadyForQuery I"]
    );
    assert_eq!(
        session.query("set time zone 'America/New_York'"),
        ["CommandComplete SET", "ParameterStatus TimeZone=America/New_York", "ReadyForQuery I"]
    );
    assert_eq!(
        session.run(&[
            parse_statement("", "set application_name to other"),
            bind("", "", &[]),
            execute("", 0),
            sync()
        ]),
        [
            "ParseComplete",
            "BindComplete",
            "CommandComplete SET",
            "ParameterStatus application_name=other",
            "ReadyForQuery I"
        ]
    );
    assert_eq!(
        session.query("reset application_name"),
        ["CommandComplete RESET", "ParameterStatus application_name=", "ReadyForQuery I"]
    );
}

#[test]
fn a_setting_that_stays_the_same_is_not_reported() {
    let mut session = Session::new();
    assert_eq!(session.query("set client_encoding = 'UTF8'"), ["CommandComplete SET", "ReadyForQuery I"]);
    assert_eq!(session.query("set application_name = ''"), ["CommandComplete SET", "ReadyForQuery I"]);
}

#[test]
fn a_change_is_reported_once_however_often_it_changed_in_one_message() {
    assert_eq!(
        Session::new().query("set application_name = 'one'; set application_name = 'two'"),
        [
            "CommandComplete SET",
            "CommandComplete SET",
            "ParameterStatus application_name=two",
            "ReadyForQuery I"
        ]
    );
}

#[test]
fn a_rollback_takes_settings_back_and_says_so() {
    let mut session = Session::new();
    session.execute("set application_name = 'kept'");
    session.execute("begin");
    assert_eq!(
        session.query("set application_name = 'undone'"),
        ["CommandComplete SET", "ParameterStatus application_name=undone", "ReadyForQuery T"]
    );
    assert_eq!(
        session.query("rollback"),
        ["CommandComplete ROLLBACK", "ParameterStatus application_name=kept", "ReadyForQuery I"]
    );
    assert_eq!(session.rows("show application_name"), ["kept"]);
}

#[test]
fn set_local_ends_with_the_transaction() {
    let mut session = Session::new();
    session.execute("begin; set local application_name = 'inside'");
    assert_eq!(session.rows("show application_name"), ["inside"]);
    assert_eq!(
        session.query("commit"),
        ["CommandComplete COMMIT", "ParameterStatus application_name=", "ReadyForQuery I"]
    );
}

#[test]
fn the_time_zone_decides_how_timestamps_read() {
    let mut session = Session::new();
    session.execute("set timezone = 'Europe/Berlin'");
    assert_eq!(
        session.rows("select cast('2024-07-01 12:00:00+00' as timestamptz) as a"),
        ["2024-07-01 14:00:00+02"]
    );
    session.execute("set timezone = 'Asia/Kolkata'");
    assert_eq!(
        session.rows("select cast('2024-07-01 12:00:00+00' as timestamptz) as a"),
        ["2024-07-01 17:30:00+05:30"]
    );
}

#[test]
fn settings_of_one_session_do_not_touch_another() {
    let mut session = Session::new();
    let mut other = Session::new();
    let before = other.rows("show timezone");
    session.execute("set timezone = 'Asia/Tokyo'; set application_name = 'mine'");
    assert_eq!(other.rows("show timezone"), before);
    assert_eq!(other.rows("show application_name"), [""]);
}

#[test]
fn a_value_that_a_setting_cannot_have_is_refused() {
    let mut session = Session::new();
    for sql in ["set timezone = 'Nowhere/Atall'", "set client_encoding = 'nosuch'", "set datestyle = 'nosuch'"] {
        assert_eq!(session.query(sql), ["Error 22023", "ReadyForQuery I"], "{sql}");
    }
}

#[test]
fn a_notice_has_severity_sqlstate_and_message() {
    let mut session = Session::new();
    session.send(&query("commit"));
    let answers = session.answers();
    let Answer::Notice(notice) = &answers[0] else { panic!("{answers:?}") };
    assert_eq!((notice.field('S'), notice.field('V'), notice.sqlstate()), ("WARNING", "WARNING", "25P01"));
    assert_eq!(notice.message(), "there is no transaction in progress");
}

#[test]
fn client_min_messages_keeps_notices_away() {
    let mut session = Session::new();
    session.execute("set client_min_messages = 'error'");
    assert_eq!(session.query("commit"), ["CommandComplete COMMIT", "ReadyForQuery I"]);
}
