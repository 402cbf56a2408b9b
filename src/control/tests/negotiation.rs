//! Everything before the startup message.

use super::client::{Client, GSSENC_REQUEST, SSL_REQUEST};
use super::rig::{Choices, PASSWORD, Rig};

const V30: u32 = 3 << 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plaintext_stuffed_behind_a_request_for_tls_is_never_used() {
    let rig = Rig::start(Choices::default()).await;
    let mut stuffed = Vec::new();
    stuffed.extend_from_slice(b"\0\0\0\x15\0\x03\0\0user\0mallory\0\0");
    stuffed.extend_from_slice(b"Q\0\0\0\x0dselect 1\0");
    assert!(Client::tls(rig.port, &rig.certificate, &stuffed).is_err());
    assert!(rig.no_session());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gss_is_refused_before_and_after_tls_is() {
    let rig = Rig::start(Choices {
        tls: false,
        ..Choices::default()
    })
    .await;
    for order in [[GSSENC_REQUEST, SSL_REQUEST], [SSL_REQUEST, GSSENC_REQUEST]] {
        let mut client = Client::plain(rig.port);
        for request in order {
            client.send(&request);
            assert_eq!(client.byte(), b'N');
        }
        client.session(V30);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_encryption_can_be_asked_for_once() {
    let rig = Rig::start(Choices {
        tls: false,
        ..Choices::default()
    })
    .await;
    for request in [SSL_REQUEST, GSSENC_REQUEST] {
        let mut client = Client::plain(rig.port);
        client.send(&request);
        assert_eq!(client.byte(), b'N');
        client.send(&request);
        assert_eq!(client.message().unwrap_err().0, "0A000");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_inside_tls_is_an_unknown_protocol() {
    let rig = Rig::start(Choices::default()).await;
    for request in [SSL_REQUEST, GSSENC_REQUEST] {
        let mut client = Client::tls(rig.port, &rig.certificate, b"").unwrap();
        client.send(&request);
        assert_eq!(client.message().unwrap_err().0, "0A000");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_tls_needs_the_right_application_protocol() {
    let rig = Rig::start(Choices::default()).await;
    let mut client = Client::direct(rig.port, &rig.certificate, &["h2", "postgresql"]).unwrap();
    client.session(V30);
    client.query();
    for alpn in [&[][..], &["http/1.1"]] {
        let refused = Client::direct(rig.port, &rig.certificate, alpn).map(|mut client| client.is_closed());
        assert!(refused.unwrap_or(true), "{alpn:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plaintext_is_refused_where_tls_is_required_but_not_on_the_unix_socket() {
    let rig = Rig::start(Choices {
        tls_required: true,
        ..Choices::default()
    })
    .await;
    let mut client = Client::plain(rig.port);
    client.startup(V30, &[("user", "alice")]);
    assert_eq!(client.message().unwrap_err().0, "28000");
    Client::tls(rig.port, &rig.certificate, b"").unwrap().session(V30);
    let mut local = Client::local(&rig.unix_path);
    local.send(&SSL_REQUEST);
    assert_eq!(local.byte(), b'N');
    local.session(V30);
    local.query();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newer_clients_are_told_which_version_they_get() {
    let rig = Rig::start(Choices::default()).await;
    let mut client = Client::plain(rig.port);
    client.startup(3 << 16 | 9999, &[("user", "alice"), ("_pq_.wish", "1")]);
    assert_eq!(
        client.message().unwrap(),
        (b'v', b"\0\x03\0\x02\0\0\0\x01_pq_.wish\0".to_vec())
    );
    client.log_in(PASSWORD).unwrap();
    assert_eq!(rig.session().protocol_minor, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_clients_get_an_error_in_their_own_form() {
    let rig = Rig::start(Choices::default()).await;
    let mut client = Client::plain(rig.port);
    client.startup(2 << 16, &[("user", "alice")]);
    let expected = b"EFATAL:  unsupported frontend protocol 2.0: server supports 3.0 to 3.2\n\0";
    for byte in expected {
        assert_eq!(client.byte(), *byte);
    }
    assert!(client.is_closed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_startup_packet_is_closed_without_an_answer() {
    let rig = Rig::start(Choices::default()).await;
    let packets: [&[u8]; 7] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\0",
        b"\0\0\0\x03",
        b"\0\0\0\x04",
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\xff",
        b"\x16\x03\x01\0\x05hello",
    ];
    for packet in packets {
        let mut client = Client::plain(rig.port);
        client.send(packet);
        if packet[0] == 0x16 {
            // A TLS alert, perhaps, and then the end.
            while !client.is_closed() {}
        } else {
            assert!(client.is_closed(), "{packet:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn startup_packets_without_a_user_or_with_bad_names_are_refused() {
    let rig = Rig::start(Choices::default()).await;
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[("database", "x")], "28000"),
        (&[("user", "../x")], "28000"),
        (&[("user", "alice"), ("database", ".x")], "3D000"),
        (&[("user", "alice"), ("options", "-c")], "42601"),
    ];
    for (parameters, expected) in cases {
        let mut client = Client::plain(rig.port);
        client.startup(V30, parameters);
        assert_eq!(client.message().unwrap_err().0, expected, "{parameters:?}");
    }
}
