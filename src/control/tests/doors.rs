//! Cancel requests, deadlines, and the end.

use std::time::{Duration, Instant};

use super::client::Client;
use super::rig::{Choices, Rig};

const V30: u32 = 3 << 16;
const V32: u32 = 3 << 16 | 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_requests_reach_the_worker_that_the_id_names_in_plaintext_and_in_tls() {
    let rig = Rig::start(Choices {
        tls_required: true,
        max_connections: 1,
        ..Choices::default()
    })
    .await;
    let mut session = Client::tls(rig.port, &rig.certificate, b"").unwrap();
    let (id, key) = session.session(V32);
    let requests = [
        Client::plain(rig.port),
        Client::tls(rig.port, &rig.certificate, b"").unwrap(),
    ];
    for mut request in requests {
        request.cancel(id, &key);
        // It has been acted on when the connection ends.
        assert!(request.is_closed());
        let received = rig.cancel().unwrap();
        assert_eq!((received.backend_id, received.cancel_key), (id, key.clone()));
    }
    session.query();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_requests_for_nobody_go_nowhere() {
    let rig = Rig::start(Choices::default()).await;
    for (id, key) in [
        (0, 4),
        (-1, 4),
        (17, 4),
        (2 << 21, 32),
        (1 << 21, 3),
        (1 << 21, 257),
    ] {
        let mut client = Client::plain(rig.port);
        client.cancel(id, &vec![0; key]);
        assert!(client.is_closed());
    }
    assert!(rig.cancel().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_go_on_is_closed_at_the_deadline() {
    let timeout = Duration::from_millis(300);
    let rig = Rig::start(Choices {
        authentication_timeout: timeout,
        ..Choices::default()
    })
    .await;
    let start = Instant::now();
    let mut silent = Client::plain(rig.port);
    let mut halfway = Client::plain(rig.port);
    halfway.startup(V30, &[("user", "alice")]);
    halfway.mechanisms().unwrap();
    let mut in_tls = Client::tls(rig.port, &rig.certificate, b"").unwrap();
    assert!(silent.is_closed() && halfway.is_closed() && in_tls.is_closed());
    let elapsed = start.elapsed();
    assert!(elapsed >= timeout && elapsed < timeout * 10, "{elapsed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_still_outside_when_the_server_stops_is_told_so() {
    let rig = Rig::start(Choices::default()).await;
    let mut inside = Client::plain(rig.port);
    inside.session(V30);
    let mut outside = Client::plain(rig.port);
    outside.startup(V30, &[("user", "alice")]);
    outside.mechanisms().unwrap();
    rig.stop.send_replace(true);
    assert_eq!(outside.message().unwrap_err().0, "57P03");
    // Sessions are the worker's to end.
    inside.query();
    let refused = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", rig.port)).is_ok() {
        assert!(refused.elapsed() < Duration::from_secs(5), "still accepting");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_clients_at_once_all_get_their_own_session() {
    let rig = Rig::start(Choices::default()).await;
    let certificate = rig.certificate.clone();
    let port = rig.port;
    let clients: Vec<_> = (0..16)
        .map(|number| {
            let certificate = certificate.clone();
            std::thread::spawn(move || {
                let mut client = match number % 2 {
                    0 => Client::plain(port),
                    _ => Client::tls(port, &certificate, b"").unwrap(),
                };
                let (id, key) = client.session(V30);
                client.query();
                (id, key)
            })
        })
        .collect();
    let mut seen: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    for _ in 0..16 {
        let state = rig.session();
        assert!(
            seen.iter()
                .any(|(id, key)| *id == state.backend_id && state.cancel_key.matches(key))
        );
    }
    seen.sort();
    seen.dedup_by_key(|(id, _)| *id);
    assert_eq!(seen.len(), 16);
}
