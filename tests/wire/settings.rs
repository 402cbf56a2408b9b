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
        assert_eq!(
            session.parameters.get(name).map(String::as_str),
            Some(value),
            "{name}"
        );
    }
    assert!(session.parameters.contains_key("is_superuser"));
    assert!(session.parameters.contains_key("TimeZone"));
    let version = &session.parameters["server_version"];
    let major: u32 = version
        .split(['.', ' '])
        .next()
        .unwrap()
        .parse()
        .expect("drivers parse the version");
    assert!(major >= 14, "{version}");
    assert_ne!(session.key.0, 0, "BackendKeyData came");
}

#[test]
fn settings_of_the_startup_message_are_in_force_and_reported() {
    let more = [
        ("application_name", "at start"),
        ("TimeZone", "Europe/Berlin"),
        ("extra_float_digits", "2"),
        ("client_encoding", "utf-8"),
    ];
    let mut session = Session::with(Server::shared(), Transport::Tcp, V3_0, &more);
    assert_eq!(session.parameters["application_name"], "at start");
    assert_eq!(session.parameters["TimeZone"], "Europe/Berlin");
    assert_eq!(session.parameters["client_encoding"], "UTF8");
    assert_eq!(session.rows("show timezone"), ["Europe/Berlin"]);
    assert_eq!(session.rows("show extra_float_digits"), ["2"]);
}

#[test]
fn the_options_parameter_sets_like_a_command_line() {
    let more = [(
        "options",
        r"-c TimeZone=Asia/Tokyo --application-name=with\ space -cextra_float_digits=2",
    )];
    let mut session = Session::with(Server::shared(), Transport::Tcp, V3_0, &more);
    assert_eq!(session.parameters["TimeZone"], "Asia/Tokyo");
    assert_eq!(session.parameters["application_name"], "with space");
    assert_eq!(session.rows("show extra_float_digits"), ["2"]);
}

#[test]
fn a_setting_that_does_not_exist_is_refused_at_the_start() {
    let server = Server::shared();
    let mut session = Session::open(server, Transport::Tcp);
    session.send(&startup(
        V3_0,
        &[
            ("user", &server.user),
            ("database", &server.database),
            ("nosuch", "1"),
        ],
    ));
    session.authenticate(&server.password).unwrap();
    assert_eq!(session.last_words().last().unwrap(), "Error FATAL 42704");
}

/// A transcript whose ParameterStatus messages are apart. They may come at any
/// time: PostgreSQL sends them before ReadyForQuery, and before version 14 at once.
fn reports(transcript: Vec<String>) -> (Vec<String>, Vec<String>) {
    transcript
        .into_iter()
        .partition(|answer| answer.starts_with("ParameterStatus"))
}

#[track_caller]
fn assert_reports(transcript: Vec<String>, report: &str, answers: &[&str]) {
    let (reported, others) = reports(transcript);
    assert_eq!(
        reported.last().map(String::as_str),
        Some(format!("ParameterStatus {report}").as_str())
    );
    assert_eq!(others, answers);
}

#[test]
fn a_reported_setting_is_reported_when_it_changes() {
    let mut session = Session::new();
    let set = ["CommandComplete SET", "ReadyForQuery I"];
    assert_reports(
        session.query("set application_name = 'new'"),
        "application_name=new",
        &set,
    );
    assert_reports(
        session.query("set application_name to other"),
        "application_name=other",
        &set,
    );
    assert_reports(
        session.query("set time zone 'America/New_York'"),
        "TimeZone=America/New_York",
        &set,
    );
    assert_reports(
        session.query("set timezone to 'Asia/Tokyo'"),
        "TimeZone=Asia/Tokyo",
        &set,
    );
    assert_reports(
        session.run(&[
            parse_statement("", "set application_name to prepared"),
            bind("", "", &[]),
            execute("", 0),
            sync(),
        ]),
        "application_name=prepared",
        &[
            "ParseComplete",
            "BindComplete",
            "CommandComplete SET",
            "ReadyForQuery I",
        ],
    );
    assert_reports(
        session.query("reset application_name"),
        "application_name=",
        &["CommandComplete RESET", "ReadyForQuery I"],
    );
    assert_reports(
        session.query("set application_name = 'one'; set application_name = 'two'"),
        "application_name=two",
        &["CommandComplete SET", "CommandComplete SET", "ReadyForQuery I"],
    );
}

#[test]
fn a_setting_that_stays_the_same_is_not_reported() {
    let mut session = Session::new();
    assert_eq!(
        session.query("set client_encoding = 'UTF8'"),
        ["CommandComplete SET", "ReadyForQuery I"]
    );
    assert_eq!(
        session.query("set application_name = ''"),
        ["CommandComplete SET", "ReadyForQuery I"]
    );
}

#[test]
fn a_rollback_takes_settings_back_and_says_so() {
    let mut session = Session::new();
    session.execute("set application_name = 'kept'");
    session.execute("begin");
    assert_reports(
        session.query("set application_name = 'undone'"),
        "application_name=undone",
        &["CommandComplete SET", "ReadyForQuery T"],
    );
    assert_reports(
        session.query("rollback"),
        "application_name=kept",
        &["CommandComplete ROLLBACK", "ReadyForQuery I"],
    );
    assert_eq!(session.rows("show application_name"), ["kept"]);
}

#[test]
fn set_local_ends_with_the_transaction() {
    let mut session = Session::new();
    session.execute("begin; set local application_name = 'inside'");
    assert_eq!(session.rows("show application_name"), ["inside"]);
    assert_reports(
        session.query("commit"),
        "application_name=",
        &["CommandComplete COMMIT", "ReadyForQuery I"],
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
    for sql in ["set timezone = 'Nowhere/Atall'", "set client_encoding = 'nosuch'"] {
        assert_eq!(session.query(sql), ["Error 22023", "ReadyForQuery I"], "{sql}");
    }
}

#[test]
fn a_notice_has_severity_sqlstate_and_message() {
    let mut session = Session::new();
    session.send(&query("commit"));
    let answers = session.answers();
    let Answer::Notice(notice) = &answers[0] else {
        panic!("{answers:?}")
    };
    assert_eq!(
        (notice.field('S'), notice.field('V'), notice.sqlstate()),
        ("WARNING", "WARNING", "25P01")
    );
    assert_eq!(notice.message(), "there is no transaction in progress");
}

#[test]
fn client_min_messages_keeps_notices_away() {
    let mut session = Session::new();
    session.execute("set client_min_messages = 'error'");
    assert_eq!(
        session.query("commit"),
        ["CommandComplete COMMIT", "ReadyForQuery I"]
    );
}
