//! The startup phase: versions, users, SCRAM, and what is refused before
//! anybody has logged in.

use std::io::{Read, Write};

use crate::support::message::*;
use crate::support::session::{V3_0, V3_2};
use crate::support::transport::tcp;
use crate::support::{Answer, Server, Session, Transport};

/// Sends a startup message and returns the session that has not been answered.
fn knock(version: u32, parameters: &[(&str, &str)]) -> Session {
    let mut session = Session::open(Server::shared(), Transport::Tcp);
    session.send(&startup(version, parameters));
    session
}

fn me() -> [(&'static str, &'static str); 2] {
    let server = Server::shared();
    [("user", &server.user), ("database", &server.database)]
}

#[test]
fn the_password_opens_every_road() {
    for transport in Transport::ALL {
        Session::over(Server::shared(), transport);
    }
}

#[test]
fn a_wrong_password_is_refused() {
    for transport in Transport::ALL {
        let mut session = Session::open(Server::shared(), transport);
        session.send(&startup(V3_0, &me()));
        let report = session.authenticate("wrong").unwrap_err();
        assert_eq!((report.severity(), report.sqlstate()), ("FATAL", "28P01"));
        assert_eq!(session.last_words(), [] as [&str; 0]);
    }
}

/// Who asks cannot tell whether a user exists: same steps, same words, and the
/// same salt each time.
#[test]
fn an_unknown_user_is_answered_like_a_wrong_password() {
    let known = knock(V3_0, &me()).authenticate("wrong").unwrap_err();
    let unknown = knock(V3_0, &[("user", "nosuch"), ("database", "nosuch")])
        .authenticate("wrong")
        .unwrap_err();
    let words = |report: &crate::support::message::Report, user: &str| {
        (report.sqlstate().to_string(), report.message().replace(user, "?"))
    };
    assert_eq!(words(&known, &Server::shared().user), words(&unknown, "nosuch"));

    let salt = |user: &str| {
        let mut session = knock(V3_0, &[("user", user), ("database", user)]);
        session.expect_authentication(10).unwrap();
        session.send(&sasl_initial("SCRAM-SHA-256", b"n,,n=,r=clientnonceclientnonce"));
        let challenge = String::from_utf8(session.expect_authentication(11).unwrap()).unwrap();
        let fields: Vec<String> = challenge.split(',').map(str::to_string).collect();
        (fields[1].clone(), fields[2].clone())
    };
    assert_eq!(
        salt("nosuch"),
        salt("nosuch"),
        "a salt that changes gives it away"
    );
    assert_ne!(salt("nosuch"), salt("nosuch2"));
    assert_eq!(
        salt("nosuch").1,
        salt(&Server::shared().user).1,
        "the iteration count too"
    );
    assert_eq!(
        salt("nosuch").0.len(),
        salt(&Server::shared().user).0.len(),
        "the length of the salt too"
    );
}

#[test]
fn channel_binding_is_offered_inside_tls_only() {
    let mechanisms = |transport: Transport| {
        let mut session = Session::open(Server::shared(), transport);
        session.send(&startup(V3_0, &me()));
        String::from_utf8(session.expect_authentication(10).unwrap()).unwrap()
    };
    assert_eq!(mechanisms(Transport::Tcp), "SCRAM-SHA-256\0\0");
    assert_eq!(
        mechanisms(Transport::Tls13),
        "SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"
    );
    assert_eq!(
        mechanisms(Transport::Tls12),
        "SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"
    );
}

#[test]
fn channel_binding_to_the_servers_certificate_succeeds() {
    let server = Server::shared();
    for transport in [Transport::Tls13, Transport::Tls12] {
        let mut session = Session::open(server, transport);
        session.send(&startup(V3_0, &me()));
        session
            .authenticate_bound(&server.password, &server.certificate)
            .unwrap();
        session.become_ready();
    }
}

#[test]
fn channel_binding_to_another_certificate_fails() {
    let server = Server::shared();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let path = server.scratch("other.crt");
    std::fs::write(&path, other.cert.pem()).unwrap();
    let mut session = Session::open(server, Transport::Tls13);
    session.send(&startup(V3_0, &me()));
    let report = session.authenticate_bound(&server.password, &path).unwrap_err();
    assert_eq!(report.severity(), "FATAL");
}

/// A man in the middle who removed -PLUS from the list would be found out here.
#[test]
fn a_client_that_could_have_bound_the_channel_but_saw_no_offer_is_refused_inside_tls() {
    let mut session = Session::open(Server::shared(), Transport::Tls13);
    session.send(&startup(V3_0, &me()));
    session.expect_authentication(10).unwrap();
    session.send(&sasl_initial("SCRAM-SHA-256", b"y,,n=,r=clientnonceclientnonce"));
    let report = session.expect_authentication(11).unwrap_err();
    assert_eq!(report.severity(), "FATAL");
}

#[test]
fn scram_that_does_not_follow_its_rfc_is_refused() {
    for (mechanism, data) in [
        ("SCRAM-SHA-1", &b"n,,n=,r=clientnonceclientnonce"[..]),
        ("SCRAM-SHA-256", b""),
        ("SCRAM-SHA-256", b"n"),
        ("SCRAM-SHA-256", b"x,,n=,r=nonce"),
        ("SCRAM-SHA-256", b"n,,m=ext,n=,r=nonce"),
        ("SCRAM-SHA-256", b"p=tls-server-end-point,,n=,r=nonce"),
        ("SCRAM-SHA-256", b"\xff\xfe\x00\x01"),
    ] {
        let mut session = knock(V3_0, &me());
        session.expect_authentication(10).unwrap();
        session.send(&sasl_initial(mechanism, data));
        let report = session.expect_authentication(11).unwrap_err();
        assert_eq!(report.severity(), "FATAL", "{mechanism} {}", data.escape_ascii());
        assert_eq!(session.last_words(), [] as [&str; 0]);
    }
    Server::shared().assert_serving();
}

#[test]
fn the_final_scram_message_must_carry_the_servers_nonce() {
    let mut session = knock(V3_0, &me());
    session.expect_authentication(10).unwrap();
    session.send(&sasl_initial("SCRAM-SHA-256", b"n,,n=,r=clientnonceclientnonce"));
    session.expect_authentication(11).unwrap();
    session.send(&sasl_response(
        b"c=biws,r=someothernonce,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    ));
    assert_eq!(session.expect_authentication(12).unwrap_err().severity(), "FATAL");
}

#[test]
fn a_query_before_authentication_is_never_executed() {
    let server = Server::shared();
    Session::new().execute("create table login_injected (i int)");
    for queries in [
        query("insert into login_injected values (1)"),
        [
            parse_statement("", "insert into login_injected values (1)"),
            bind("", "", &[]),
            execute("", 0),
            sync(),
        ]
        .concat(),
        sync(),
        terminate(),
    ] {
        // Before the startup message is answered, and in the middle of SCRAM.
        let mut session = Session::open(server, Transport::Tcp);
        session.send(&[startup(V3_0, &me()), queries.clone()].concat());
        let last = session.last_words();
        assert!(
            last.iter()
                .all(|answer| *answer == "Authentication 10" || *answer == "Error FATAL 08P01"),
            "{last:?}"
        );

        let mut session = knock(V3_0, &me());
        session.expect_authentication(10).unwrap();
        session.send(&sasl_initial("SCRAM-SHA-256", b"n,,n=,r=clientnonceclientnonce"));
        session.expect_authentication(11).unwrap();
        session.try_send(&queries).ok();
        let last = session.last_words();
        assert!(
            last.iter().all(|answer| *answer == "Error FATAL 08P01"),
            "{last:?}"
        );
    }
    assert_eq!(Session::new().rows("select count(*) from login_injected"), ["0"]);
}

/// Everything at once, as a client does that knows the answers beforehand.
#[test]
fn a_query_behind_a_failed_login_is_never_executed() {
    Session::new().execute("create table login_behind (i int)");
    let mut session = knock(V3_0, &me());
    session.expect_authentication(10).unwrap();
    session.send(
        &[
            sasl_initial("SCRAM-SHA-256", b"n,,n=,r=clientnonceclientnonce"),
            sasl_response(b"c=biws,r=x,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            query("insert into login_behind values (1)"),
        ]
        .concat(),
    );
    let last = session.last_words();
    assert!(last.last().unwrap().starts_with("Error FATAL"), "{last:?}");
    assert_eq!(Session::new().rows("select count(*) from login_behind"), ["0"]);
}

/// Drivers may send the first query in the same segment as the last SCRAM message.
#[test]
fn a_query_sent_along_with_the_last_scram_message_is_executed_after_the_login() {
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    for transport in [Transport::Tcp, Transport::Tls13, Transport::Tls12] {
        let server = Server::shared();
        let mut session = Session::open(server, transport);
        session.send(&startup(V3_0, &me()));
        session.expect_authentication(10).unwrap();
        let mut scram = ScramSha256::new(server.password.as_bytes(), ChannelBinding::unsupported());
        session.send(&sasl_initial("SCRAM-SHA-256", scram.message()));
        scram.update(&session.expect_authentication(11).unwrap()).unwrap();
        session.send(
            &[
                sasl_response(scram.message()),
                query("select 1 as a"),
                query("select 2 as a"),
            ]
            .concat(),
        );
        session.expect_authentication(12).unwrap();
        session.expect_authentication(0).unwrap();
        session.become_ready();
        assert_eq!(session.transcript()[1], "DataRow 1");
        assert_eq!(session.transcript()[1], "DataRow 2");
    }
}

#[test]
fn a_user_is_required() {
    for parameters in [&[][..], &[("database", "x")], &[("user", "")]] {
        assert_eq!(
            knock(V3_0, parameters).last_words(),
            ["Error FATAL 28000"],
            "{parameters:?}"
        );
    }
}

#[test]
fn the_database_is_the_users_own_unless_named() {
    let server = Server::shared();
    let mut session = knock(V3_0, &[("user", &server.user)]);
    session.authenticate(&server.password).unwrap();
    session.become_ready();
    assert_eq!(
        session.rows("select current_database()"),
        [server.database.as_str()]
    );
}

#[test]
fn a_database_that_does_not_exist_is_refused_after_the_login() {
    let server = Server::shared();
    let mut session = knock(V3_0, &[("user", &server.user), ("database", "nosuch")]);
    session.authenticate(&server.password).unwrap();
    assert_eq!(session.last_words().last().unwrap(), "Error FATAL 3D000");
}

#[test]
fn other_major_versions_are_refused() {
    for version in [0x0004_0000, 0x7fff_0000] {
        assert_eq!(
            knock(version, &me()).last_words(),
            ["Error FATAL 0A000"],
            "{version:#x}"
        );
    }
    // Before version 3 an error was a plain string, and PostgreSQL remembers.
    for version in [0x0001_0000, 0x0002_0000] {
        let refusal = knock(version, &me()).bytes_to_the_end();
        assert_eq!(
            refusal.first(),
            Some(&b'E'),
            "{version:#x}: {}",
            refusal.escape_ascii()
        );
    }
}

/// PostgreSQL 15 knows 3.0 only and says so; duckgres knows 3.0 and 3.2.
#[test]
fn the_newest_minor_version_that_both_know_is_negotiated() {
    let server = Server::shared();
    for (asked, granted) in [(0, 0), (2, 2), (3, 2), (9999, 2)] {
        let granted = if server.is_postgres() { 0 } else { granted };
        let mut session = knock(V3_0 | asked, &me());
        if asked != granted {
            let negotiated = format!("NegotiateProtocolVersion 3.{granted} []");
            assert_eq!(session.next().to_string(), negotiated, "3.{asked}");
        }
        session.authenticate(&server.password).unwrap();
        session.become_ready();
        let length = if granted == 2 { 32 } else { 4 };
        assert_eq!(session.key.1.len(), length, "the cancel key of 3.{asked}");
        assert_eq!(session.rows("select 1 as a"), ["1"]);
    }
}

/// There never was a 3.1; whoever asks for it gets no more than that.
#[test]
fn nobody_gets_a_newer_version_than_they_asked_for() {
    let server = Server::shared();
    let mut session = knock(V3_0 | 1, &me());
    let first = session.next();
    if let Answer::NegotiateProtocolVersion { version, .. } = &first {
        assert!(*version <= (V3_0 | 1), "{first}");
        session.authenticate(&server.password).unwrap();
    }
}

#[test]
fn protocol_options_that_are_not_known_are_listed() {
    let server = Server::shared();
    for (version, granted) in [
        (V3_0, "3.0"),
        (V3_2, if server.is_postgres() { "3.0" } else { "3.2" }),
    ] {
        let mut parameters = me().to_vec();
        parameters.extend([("_pq_.first", "1"), ("_pq_.second", "2")]);
        let mut session = knock(version, &parameters);
        assert_eq!(
            session.next().to_string(),
            format!(r#"NegotiateProtocolVersion {granted} ["_pq_.first", "_pq_.second"]"#)
        );
        session.authenticate(&server.password).unwrap();
        session.become_ready();
    }
}

#[test]
fn gss_encryption_is_refused_and_the_connection_goes_on() {
    let server = Server::shared();
    if server.is_postgres() {
        println!("skipped: this PostgreSQL may have been built with GSSAPI");
        return;
    }
    let mut session = Session::open(server, Transport::Tcp);
    session.send(&gssenc_request());
    assert_eq!(session.byte(), b'N');
    session.send(&startup(V3_0, &me()));
    session.authenticate(&server.password).unwrap();
    session.become_ready();
}

#[test]
fn gss_encryption_may_be_asked_for_before_and_after_tls() {
    let server = Server::shared();
    if server.is_postgres() {
        println!("skipped: this PostgreSQL may have been built with GSSAPI");
        return;
    }
    let mut socket = tcp(server).unwrap();
    let mut answer = [0];
    socket.write_all(&gssenc_request()).unwrap();
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"N");
    socket.write_all(&ssl_request()).unwrap();
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"S");
}

/// PostgreSQL closes without a word; duckgres may say why.
#[test]
fn a_startup_message_of_more_than_ten_thousand_bytes_is_refused() {
    let long = "x".repeat(10_000);
    let mut parameters = me().to_vec();
    parameters.push(("application_name", &long));
    let mut session = Session::open(Server::shared(), Transport::Tcp);
    session.try_send(&startup(V3_0, &parameters)).ok();
    let last = session.last_words();
    assert!(last.is_empty() || last == ["Error FATAL 08P01"], "{last:?}");

    // The longest one that fits: 4 bytes of length are not counted.
    let fixed = startup(V3_0, &parameters).len() - long.len();
    let fits = "x".repeat(10_000 - fixed);
    *parameters.last_mut().unwrap() = ("application_name", &fits);
    let server = Server::shared();
    let mut session = knock(V3_0, &parameters);
    session.authenticate(&server.password).unwrap();
    session.become_ready();
}

#[test]
fn startup_messages_that_lie_about_their_length_are_refused() {
    for (length, body) in [
        (0i32, &b""[..]),
        (-1, b""),
        (i32::MIN, b""),
        (i32::MAX, b"\0\x03\0\0user\0"),
        (3, b""),
        (4, b""),
        (7, b"\0\x03\0"),
        (10_005, b"\0\x03\0\0"),
    ] {
        let mut session = Session::open(Server::shared(), Transport::Tcp);
        session.try_send(&[&length.to_be_bytes(), body].concat()).ok();
        let last = session.last_words();
        assert!(
            last.is_empty() || last == ["Error FATAL 08P01"],
            "{length}: {last:?}"
        );
    }
    Server::shared().assert_serving();
}

#[test]
fn startup_parameters_that_are_cut_short_are_refused() {
    for body in [
        &b"\0\x03\0\0user\0me"[..],
        b"\0\x03\0\0user\0me\0",
        b"\0\x03\0\0user\0",
        b"\0\x03\0\0user",
        b"\0\x03\0\0user\0me\0\0more",
        b"\0\x03\0\0",
    ] {
        let mut session = Session::open(Server::shared(), Transport::Tcp);
        session.try_send(&untyped(body)).ok();
        let last = session.last_words();
        assert!(
            last.is_empty() || last == ["Error FATAL 08P01"] || last == ["Error FATAL 28000"],
            "{}: {last:?}",
            body.escape_ascii()
        );
    }
    Server::shared().assert_serving();
}

#[test]
fn a_password_message_of_megabytes_is_refused_before_it_is_read() {
    let mut session = knock(V3_0, &me());
    session.expect_authentication(10).unwrap();
    session.try_send(&lying(b'p', 200 << 20, b"SCRAM-SHA-256\0")).ok();
    let last = session.last_words();
    // To PostgreSQL it is a wrong password.
    assert!(
        last == ["Error FATAL 08P01"] || last == ["Error FATAL 28P01"],
        "{last:?}"
    );
    Server::shared().assert_serving();
}

#[test]
fn http_on_the_port_is_refused() {
    let mut session = Session::open(Server::shared(), Transport::Tcp);
    session
        .try_send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .ok();
    let last = session.last_words();
    assert!(last.is_empty() || last == ["Error FATAL 08P01"], "{last:?}");
    Server::shared().assert_serving();
}

#[test]
fn each_session_has_a_cancel_key_of_its_own() {
    let keys: Vec<_> = (0..8).map(|_| Session::new()).collect();
    for (i, one) in keys.iter().enumerate() {
        for other in &keys[i + 1..] {
            assert_ne!(one.key.0, other.key.0, "process ids of open sessions differ");
            assert_ne!(one.key.1, other.key.1);
        }
    }
}
