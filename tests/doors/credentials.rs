//! Ways to log in: by the Unix socket, by the password itself, by a verifier
//! that `duckgres hash-password` has made.

use std::process::Command;

use super::{ALICE, configured, with_alice};
use crate::clients::roads;
use crate::support::message::{Report, framed, startup};
use crate::support::programs::{psql, run};
use crate::support::server::os_user;
use crate::support::session::V3_0;
use crate::support::terminal::Terminal;
use crate::support::{Server, Session, Transport};

/// Asks for a session; what kind of authentication the server asks for is open.
fn knock(server: &Server, transport: Transport, user: &str) -> Session {
    let mut session = Session::open(server, transport);
    session.send(&startup(V3_0, &[("user", user)]));
    session
}

#[test]
fn users_of_this_machine_log_in_over_the_unix_socket_without_a_password() {
    let me = os_user();
    let yaml = format!("users: {{\"{me}\": {{admin: on}}, alice: {}}}\n", ALICE.1);
    let Some(server) = configured(&yaml, &["--auth-peer", "on"]) else {
        return;
    };
    let mut session = knock(&server, Transport::Unix, &me);
    session.expect_authentication(0).unwrap();
    session.become_ready();
    assert_eq!(session.rows("select current_database()"), [me.as_str()]);

    let login = format!("host={} port={} user={me}", server.sockets.display(), server.port);
    let output = run(psql(&login).args(["-w", "-c", "select 1"]), "");
    assert_eq!(output.success(), "1\n");

    // As somebody else, or by another road, they need that user's password.
    Session::over(&server, Transport::Unix);
    for (transport, user) in [
        (Transport::Unix, "alice"),
        (Transport::Unix, "nosuch"),
        (Transport::Tcp, me.as_str()),
        (Transport::Tls13, me.as_str()),
    ] {
        let report = knock(&server, transport, user).authenticate("").unwrap_err();
        assert_eq!(report.sqlstate(), "28P01", "{transport:?} {user}");
    }
}

#[test]
fn the_map_says_as_whom_a_user_of_this_machine_may_log_in() {
    let me = os_user();
    let yaml = format!(
        "users: {{alice: {}, bob: x, \"{me}\": y}}\nauth:\n  peer_map:\n    \"{me}\": [bob]\n",
        ALICE.1
    );
    let Some(server) = configured(&yaml, &["--auth-peer", "on"]) else {
        return;
    };
    let mut bob = knock(&server, Transport::Unix, "bob");
    bob.expect_authentication(0).unwrap();
    bob.become_ready();
    for user in ["alice", &me] {
        knock(&server, Transport::Unix, user)
            .expect_authentication(10)
            .unwrap();
    }
}

#[test]
fn check_config_names_the_lines_of_what_is_wrong_with_users() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("duckgres.yaml");
    let yaml = "users:\n  alice:\n    password: hunter2\n    databases: [a/b]\n    amdin: on\n\
                auth:\n  peer: perhaps\nproxy_protocol:\n  trusted_addresses: [localhost]\n";
    std::fs::write(&file, yaml).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_duckgres"));
    let output = run(command.args(["check-config", "--config"]).arg(&file), "");
    assert!(!output.status.success());
    let lines: Vec<&str> = output.err.lines().collect();
    assert_eq!(lines.len(), 4, "{}", output.err);
    for (line, number) in lines.iter().zip([4, 5, 7, 9]) {
        assert!(line.contains(&format!("duckgres.yaml line {number}: ")), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
}

#[test]
fn nobody_logs_in_without_a_password_where_that_is_switched_off() {
    let Some(server) = configured(
        &format!(
            "users: {{\"{}\": x, alice: {}}}\nauth: {{peer: off}}\n",
            os_user(),
            ALICE.1
        ),
        &["--auth-peer", "off"],
    ) else {
        return;
    };
    knock(&server, Transport::Unix, &os_user())
        .expect_authentication(10)
        .unwrap();
}

/// Sends the password itself to a server that has asked for it.
fn cleartext(server: &Server, transport: Transport, user: &str, body: &[u8]) -> Result<Session, Report> {
    let mut session = knock(server, transport, user);
    session.expect_authentication(3)?;
    session.send(&framed(b'p', body));
    session.expect_authentication(0)?;
    session.become_ready();
    Ok(session)
}

#[test]
fn the_password_itself_is_asked_for_inside_tls_only() {
    let Some(server) = with_alice("auth: {cleartext: on}", &[]) else {
        return;
    };
    for transport in [Transport::Tls13, Transport::Tls12, Transport::DirectTls] {
        let mut session = cleartext(&server, transport, "alice", b"correct horse\0").unwrap();
        assert_eq!(session.rows("select 1 as a"), ["1"]);
    }
    for transport in [Transport::Tcp, Transport::Unix] {
        knock(&server, transport, "alice")
            .expect_authentication(10)
            .unwrap();
        knock(&server, transport, "nosuch")
            .expect_authentication(10)
            .unwrap();
        Session::over(&server, transport);
    }
    for road in roads(&server) {
        let bound = road.contains("channel_binding=require");
        let road = road.replace("channel_binding=require", "");
        let output = run(psql(&road).args(["-c", "select 1"]), "");
        assert_eq!(output.success(), "1\n", "{road}");
        if bound {
            let refused = run(
                psql(&road)
                    .env("PGCHANNELBINDING", "require")
                    .args(["-c", "select 1"]),
                "",
            );
            assert!(refused.err.contains("channel binding required"), "{refused:?}");
        }
    }
}

#[test]
fn without_scram_too_a_stranger_is_answered_like_a_wrong_password() {
    let Some(server) = with_alice("auth: {cleartext: on}", &[]) else {
        return;
    };
    let words = |user: &str, body: &[u8]| {
        let report = cleartext(&server, Transport::Tls13, user, body).err().unwrap();
        (report.sqlstate().to_string(), report.message().replace(user, "?"))
    };
    let wrong = words("alice", b"wrong\0");
    assert_eq!(wrong.0, "28P01");
    assert_eq!(wrong, words("nosuch", b"wrong\0"));
    assert_eq!(wrong, words("alice", b"\0"));
    assert_eq!(wrong, words("alice", b"\xff\xfe\0"));
    assert_eq!(wrong, words("alice", b"correct horse \0"));
    for malformed in [
        &b""[..],
        b"correct horse",
        b"correct\0horse\0",
        b"correct horse\0\0",
    ] {
        assert_eq!(
            words("alice", malformed).0,
            "08P01",
            "{}",
            malformed.escape_ascii()
        );
    }
}

#[test]
fn single_users_can_be_asked_for_the_password_itself() {
    let yaml = format!(
        "users:\n  old: {{password: x, cleartext: on}}\n  alice: {}\n",
        ALICE.1
    );
    let Some(server) = configured(&yaml, &[]) else {
        return;
    };
    cleartext(&server, Transport::Tls13, "old", b"x\0").unwrap();
    knock(&server, Transport::Tls13, "alice")
        .expect_authentication(10)
        .unwrap();
}

fn hash_password() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duckgres"));
    command.arg("hash-password");
    command
}

#[test]
fn what_hash_password_makes_logs_in() {
    let output = run(&mut hash_password(), "correct horse\nanother line\n").success();
    let verifier = output.trim_end();
    assert!(verifier.starts_with("SCRAM-SHA-256$4096:"), "{output}");
    assert_ne!(
        verifier,
        run(&mut hash_password(), "correct horse").success().trim_end()
    );

    for user in [
        format!("\"{verifier}\""),
        format!("{{password: \"{verifier}\"}}"),
        format!("{{verifier: \"{verifier}\", cleartext: on}}"),
    ] {
        let Some(server) = configured(&format!("users: {{alice: {user}}}\n"), &[]) else {
            return;
        };
        Session::over(&server, Transport::Tcp);
        for road in roads(&server) {
            // Who binds the channel is not asked for the password itself, or refuses.
            let road = road.replace("channel_binding=require", "");
            let output = run(psql(&road).args(["-c", "select 1"]), "");
            assert_eq!(output.success(), "1\n", "{road}");
        }
        let mut wrong = knock(&server, Transport::Tcp, "alice");
        assert_eq!(wrong.authenticate(verifier).unwrap_err().sqlstate(), "28P01");
    }
}

#[test]
fn hash_password_asks_twice_on_a_terminal_and_shows_nothing() {
    let mut terminal = Terminal::echoing(&mut hash_password());
    terminal.await_text("Password: ");
    assert!(!terminal.echoes());
    terminal.type_line("open sesame");
    terminal.await_text("Again: ");
    terminal.type_line("open sesame");
    terminal.await_text("SCRAM-SHA-256$4096:");
    assert!(terminal.exit_status().success());
    assert!(terminal.echoes());
    assert!(!terminal.shown.contains("sesame"));

    let mut terminal = Terminal::echoing(&mut hash_password());
    terminal.await_text("Password: ");
    terminal.type_line("open sesame");
    terminal.await_text("Again: ");
    terminal.type_line("open barley");
    terminal.await_text("the passwords differ");
    assert!(!terminal.exit_status().success());
    assert!(terminal.echoes());
}

#[test]
fn hash_password_leaves_the_terminal_as_it_was_when_it_is_interrupted() {
    let mut terminal = Terminal::echoing(&mut hash_password());
    terminal.await_text("Password: ");
    assert!(!terminal.echoes());
    terminal.interrupt();
    assert!(!terminal.exit_status().success());
    assert!(terminal.echoes());
}

#[test]
fn hash_password_refuses_what_no_client_can_send() {
    for input in ["", "\n", "a\0b\n", &"x".repeat(20_000)] {
        let output = run(&mut hash_password(), input);
        assert!(!output.status.success() && output.out.is_empty(), "{output:?}");
        assert!(output.err.contains("the password is"), "{output:?}");
    }
}
