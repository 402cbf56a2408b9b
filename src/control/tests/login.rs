//! From the startup message to a session of the worker.

use super::client::Client;
use super::rig::{Choices, PASSWORD, Rig};
use crate::control::backend_id::worker_of;
use crate::handoff::Reason;

const V30: u32 = 3 << 16;
const V32: u32 = 3 << 16 | 2;

fn code(result: Result<(), (String, String)>) -> String {
    result.unwrap_err().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plaintext_session_reaches_the_worker_as_it_was_asked_for() {
    let rig = Rig::start(Choices::default()).await;
    let mut client = Client::plain(rig.port);
    let options = ("options", "-c search_path=a\\ b --work-mem=1");
    client.startup(V30, &[("user", "alice"), options, ("application_name", "test")]);
    client.log_in(PASSWORD).unwrap();
    let state = rig.session();
    assert_eq!((state.user.as_str(), state.database.as_str()), ("alice", "alice"));
    let settings: Vec<_> = state
        .settings
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        settings,
        [
            ("search_path", "a b"),
            ("work_mem", "1"),
            ("application_name", "test")
        ]
    );
    assert_eq!((state.protocol_minor, state.cancel_key.as_bytes().len()), (0, 4));
    assert!(state.unread_input.is_empty() && state.create_database);
    assert!(state.peer.address.starts_with("127.0.0.1:"));
    assert_eq!(state.peer.tls_version, "");
    assert_eq!(worker_of(state.backend_id), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tls_session_is_bound_to_its_channel_and_goes_on_in_the_worker() {
    let rig = Rig::start(Choices::default()).await;
    let mut client = Client::tls(rig.port, &rig.certificate, b"").unwrap();
    let (id, key) = client.session(V32);
    let state = rig.session();
    assert_eq!(state.backend_id, id);
    assert!(state.cancel_key.matches(&key));
    assert_eq!((state.protocol_minor, key.len()), (2, 32));
    assert_eq!(state.peer.tls_version, "TLSv1.3");
    for _ in 0..3 {
        client.query();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_tls_client_sends_ahead_goes_with_the_session() {
    let rig = Rig::start(Choices::default()).await;
    let mut client = Client::tls(rig.port, &rig.certificate, b"").unwrap();
    client.startup(V30, &[("user", "alice")]);
    // The proof and the first query in one record are fine; here the query
    // comes in a record of its own, as part of the same write, after the proof.
    client.log_in(PASSWORD).unwrap();
    client.send(b"Q\0\0\0\x06;\0");
    let kinds: Vec<u8> = (0..4).map(|_| client.message().unwrap().0).collect();
    assert_eq!(kinds, *b"KZIZ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_wrong_passwords_get_the_same_answer() {
    let rig = Rig::start(Choices::default()).await;
    for (user, password) in [("alice", "wrong"), ("mallory", PASSWORD)] {
        let mut client = Client::plain(rig.port);
        client.startup(V30, &[("user", user)]);
        let (code, message) = client.log_in(password).unwrap_err();
        assert_eq!(code, "28P01");
        assert_eq!(
            message,
            format!("password authentication failed for user \"{user}\"")
        );
        assert!(client.is_closed());
    }
    assert!(rig.no_session());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channel_binding_is_offered_in_tls_only_and_must_agree_with_the_message() {
    let rig = Rig::start(Choices::default()).await;
    let mut plain = Client::plain(rig.port);
    plain.startup(V30, &[("user", "alice")]);
    assert_eq!(plain.mechanisms().unwrap(), ["SCRAM-SHA-256"]);
    plain.respond(b"SCRAM-SHA-256-PLUS\0\0\0\0\x03abc");
    assert_eq!(plain.message().unwrap_err().0, "08P01");

    let mut tls = Client::tls(rig.port, &rig.certificate, b"").unwrap();
    tls.startup(V30, &[("user", "alice")]);
    assert_eq!(tls.mechanisms().unwrap(), ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]);
    tls.respond(b"SCRAM-SHA-256-PLUS\0\0\0\0\x09n,,n=,r=x");
    assert_eq!(
        tls.message().unwrap_err(),
        ("08P01".into(), "malformed SCRAM message".into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_a_password_message_is_heard_before_authentication() {
    let rig = Rig::start(Choices::default()).await;
    let lies: [&[u8]; 5] = [
        b"Q\0\0\0\x0dselect 1\0",
        b"p\0\0\0\x03",
        b"p\x7f\xff\xff\xff",
        b"p\xff\xff\xff\xff",
        b"p\0\0\0\x04",
    ];
    for bytes in lies {
        let mut client = Client::plain(rig.port);
        client.startup(V30, &[("user", "alice")]);
        client.mechanisms().unwrap();
        client.send(bytes);
        assert_eq!(client.message().unwrap_err().0, "08P01", "{bytes:?}");
        assert!(client.is_closed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_of_others_are_closed() {
    let rig = Rig::start(Choices::default()).await;
    std::fs::write(rig.data_dir().join("bob.duckdb"), b"").unwrap();
    for (database, expected) in [("bob", "42501"), ("nobody", "3D000")] {
        let mut client = Client::plain(rig.port);
        client.startup(V30, &[("user", "alice"), ("database", database)]);
        client.log_in(PASSWORD).unwrap();
        assert_eq!(client.message().unwrap_err().0, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_backend_id_is_replaced_by_the_next() {
    let rig = Rig::start(Choices {
        refusals: (3, Reason::BackendIdInUse),
        ..Choices::default()
    })
    .await;
    let mut client = Client::tls(rig.port, &rig.certificate, b"").unwrap();
    let (first, _) = client.session(V30);
    client.query();
    let (second, _) = Client::plain(rig.port).session(V30);
    assert_eq!(second, first + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_no_worker_takes_is_told_so_inside_its_tls_session() {
    let rig = Rig::start(Choices {
        refusals: (u32::MAX, Reason::Draining),
        ..Choices::default()
    })
    .await;
    let mut client = Client::tls(rig.port, &rig.certificate, b"").unwrap();
    client.startup(V30, &[("user", "alice")]);
    client.log_in(PASSWORD).unwrap();
    assert_eq!(client.message().unwrap_err().0, "57P03");
    assert!(client.is_closed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_does_not_notice_that_a_worker_was_not_the_owner() {
    let rig = Rig::start(Choices {
        refusals: (2, Reason::DatabaseElsewhere),
        ..Choices::default()
    })
    .await;
    Client::tls(rig.port, &rig.certificate, b"").unwrap().session(V30);
    assert_eq!(rig.front.pool.sessions(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_worker_is_told_when_it_is_too_long_and_when_too_many_do() {
    for (queue_length, expected) in [(10, "57P03"), (0, "53300")] {
        let rig = Rig::start(Choices {
            queue_length,
            ..Choices::default()
        })
        .await;
        rig.report.send_modify(|report| report.draining = true);
        let knows = || rig.front.pool.worker(1).unwrap().report().unwrap().draining;
        while !knows() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let mut client = Client::plain(rig.port);
        client.startup(V30, &[("user", "alice")]);
        client.log_in(PASSWORD).unwrap();
        assert_eq!(client.message().unwrap_err().0, expected);
        assert!(rig.no_session());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_may_have_another_owner_is_closed_in_silence() {
    let rig = Rig::start(Choices {
        ambiguous: true,
        ..Choices::default()
    })
    .await;
    let mut client = Client::plain(rig.port);
    client.startup(V30, &[("user", "alice")]);
    client.log_in(PASSWORD).unwrap();
    assert!(client.is_closed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_clients_are_told_so_before_they_are_asked_for_a_password() {
    let rig = Rig::start(Choices {
        max_connections: 2,
        ..Choices::default()
    })
    .await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut client = Client::plain(rig.port);
        client.session(V30);
        kept.push(client);
    }
    let mut third = Client::plain(rig.port);
    third.startup(V30, &[("user", "alice")]);
    assert_eq!(code(third.mechanisms().map(drop)), "53300");
    // The worker says that one of them has ended.
    let ended = rig.session().backend_id;
    rig.report.send_modify(|report| report.ended = vec![ended]);
    let free = || rig.front.pool.sessions() == 1;
    while !free() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    Client::plain(rig.port).session(V30);
}
