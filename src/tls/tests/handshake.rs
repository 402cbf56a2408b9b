//! The handshake: what is agreed on, and what is refused.

use super::*;

const SUITE: Suite = Suite::Aes256Gcm;

#[test]
fn names_are_those_that_postgresql_shows() {
    let expected = [
        ("TLSv1.3", "TLS_AES_128_GCM_SHA256"),
        ("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
        ("TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256"),
        ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("TLSv1.2", "ECDHE-ECDSA-CHACHA20-POLY1305"),
    ];
    for ((version, suite), names) in ALL.into_iter().zip(expected) {
        let (_, accepted) = negotiate(client_config(version, suite, &[]), Entry::SslRequest, 4096);
        let accepted = accepted.unwrap();
        assert_eq!((accepted.version, accepted.cipher), names);
        assert_eq!(accepted.alpn, None);
    }
}

#[test]
fn bytes_of_the_handshake_may_come_one_by_one() {
    for version in [Version::Tls12, Version::Tls13] {
        let (client, accepted) = negotiate(client_config(version, SUITE, &[]), Entry::SslRequest, 1);
        let server = Channel::resume(accepted.unwrap().state).unwrap();
        Pair {
            client,
            server,
            plain: Vec::new(),
        }
        .converse();
    }
}

#[test]
fn alpn_is_required_for_direct_tls() {
    for version in [Version::Tls12, Version::Tls13] {
        for offered in [&[][..], &[&b"http/1.1"[..]]] {
            let (_, accepted) = negotiate(client_config(version, SUITE, offered), Entry::Direct, 4096);
            assert!(matches!(accepted, Err(HandshakeError::NoAlpn)));
        }
        let offered: [&[u8]; 2] = [b"h2", b"postgresql"];
        let (client, accepted) = negotiate(client_config(version, SUITE, &offered), Entry::Direct, 4096);
        assert_eq!(accepted.unwrap().alpn.as_deref(), Some(&b"postgresql"[..]));
        assert_eq!(client.alpn_protocol(), Some(&b"postgresql"[..]));
    }
}

#[test]
fn alpn_after_ssl_request_must_fit_if_it_is_offered() {
    let (_, accepted) = negotiate(
        client_config(Version::Tls13, SUITE, &[b"h2"]),
        Entry::SslRequest,
        4096,
    );
    let error = accepted.unwrap_err();
    assert!(
        matches!(error, HandshakeError::Tls(rustls::Error::NoApplicationProtocol)),
        "{error}"
    );
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn the_client_is_told_why_by_an_alert() {
    block_on(async {
        let mut client = new_client(client_config(Version::Tls13, SUITE, &[]));
        let (mut near, mut far) = tokio::io::duplex(1 << 16);
        let config = config();
        let (server, client_result) = tokio::join!(
            accept(&mut far, b"", &config, Entry::Direct, &FRESH),
            drive(&mut client, &mut near, 99)
        );
        assert!(matches!(server, Err(HandshakeError::NoAlpn)));
        assert_eq!(
            client_result.unwrap_err(),
            "received fatal alert: NoApplicationProtocol"
        );
    });
}

#[test]
fn what_was_read_already_is_used_first() {
    block_on(async {
        for split in [0, 1, 4, 5, 6, 100] {
            let mut client = new_client(client_config(Version::Tls13, SUITE, &[]));
            let hello = take_tls(&mut client);
            let (mut near, mut far) = tokio::io::duplex(1 << 16);
            near.write_all(&hello[split..]).await.unwrap();
            let config = config();
            let (server, driven) = tokio::join!(
                accept(&mut far, &hello[..split], &config, Entry::SslRequest, &FRESH),
                drive(&mut client, &mut near, 4096)
            );
            driven.unwrap();
            let server = Channel::resume(server.unwrap().state).unwrap();
            Pair {
                client,
                server,
                plain: Vec::new(),
            }
            .converse();
        }
    });
}

#[test]
fn what_the_client_sends_right_after_its_finished_stays_in_the_socket() {
    block_on(async {
        let mut client = new_client(client_config(Version::Tls13, SUITE, &[]));
        client.writer().write_all(b"startup").unwrap();
        let (mut near, mut far) = tokio::io::duplex(1 << 16);
        let config = config();
        let (server, driven) = tokio::join!(
            accept(&mut far, b"", &config, Entry::SslRequest, &FRESH),
            drive(&mut client, &mut near, 4096)
        );
        driven.unwrap();
        drop(near);
        let mut server = Channel::resume(server.unwrap().state).unwrap();
        let mut bytes = Vec::new();
        far.read_to_end(&mut bytes).await.unwrap();
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        let _ = server.receive(&bytes, &mut plain, &mut out).unwrap();
        assert_eq!(plain, b"startup");
    });
}

#[test]
fn those_who_do_not_speak_tls_are_refused_at_their_first_byte() {
    block_on(async {
        let config = config();
        for bytes in [&b"\0"[..], b"GET / HTTP/1.1\r\n\r\n", &[21, 3, 3, 0, 2, 2, 0]] {
            let (mut near, mut far) = tokio::io::duplex(1 << 16);
            near.write_all(bytes).await.unwrap();
            let error = accept(&mut far, b"", &config, Entry::SslRequest, &FRESH)
                .await
                .unwrap_err();
            assert!(matches!(error, HandshakeError::NotTls));
        }
    });
}

#[test]
fn a_client_that_leaves_or_floods_is_noticed() {
    block_on(async {
        let config = config();
        let (near, mut far) = tokio::io::duplex(1 << 16);
        drop(near);
        let error = accept(&mut far, &[22, 3, 1, 0], &config, Entry::SslRequest, &FRESH)
            .await
            .unwrap_err();
        assert!(matches!(error, HandshakeError::Closed));
        let (_near, mut far) = tokio::io::duplex(1 << 16);
        let error = accept(
            &mut far,
            &[22, 3, 1, 0xff, 0xff],
            &config,
            Entry::SslRequest,
            &FRESH,
        )
        .await
        .unwrap_err();
        assert!(matches!(error, HandshakeError::TooLong));
        let garbage = [&[22, 3, 1, 0, 64][..], &[0xee; 64]].concat();
        let (_near, mut far) = tokio::io::duplex(1 << 16);
        let error = accept(&mut far, &garbage, &config, Entry::SslRequest, &FRESH)
            .await
            .unwrap_err();
        assert!(matches!(error, HandshakeError::Tls(_)));
    });
}

#[test]
fn tls_1_2_can_be_switched_off() {
    block_on(async {
        let config = server_config(
            IDENTITY.cert_pem.as_bytes(),
            IDENTITY.key_pem.as_bytes(),
            Version::Tls13,
        )
        .unwrap();
        let mut client = new_client(client_config(Version::Tls12, SUITE, &[]));
        let (mut near, mut far) = tokio::io::duplex(1 << 16);
        let (server, driven) = tokio::join!(
            accept(&mut far, b"", &config, Entry::SslRequest, &FRESH),
            drive(&mut client, &mut near, 4096)
        );
        assert!(matches!(server, Err(HandshakeError::Tls(_))));
        assert_eq!(driven.unwrap_err(), "received fatal alert: ProtocolVersion");
    });
}

#[test]
fn a_certificate_and_a_key_that_do_not_fit_are_refused() {
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let cert = IDENTITY.cert_pem.as_bytes();
    let result = server_config(cert, other.as_bytes(), Version::Tls12);
    assert!(matches!(result, Err(ConfigError::Unusable(_))));
    assert!(matches!(
        server_config(b"", other.as_bytes(), Version::Tls12),
        Err(ConfigError::NoCertificate)
    ));
    assert!(matches!(
        server_config(cert, b"nothing", Version::Tls12),
        Err(ConfigError::Key(_))
    ));
}

#[test]
fn channel_binding_hashes_by_the_signature_of_the_certificate() {
    let sign = |algorithm| {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        certificate.self_signed(&key).unwrap().der().to_vec()
    };
    let p256 = sign(&rcgen::PKCS_ECDSA_P256_SHA256);
    let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &p256);
    assert_eq!(server_end_point(&p256).as_deref(), Some(sha256.as_ref()));
    assert_eq!(
        server_end_point(&sign(&rcgen::PKCS_ECDSA_P384_SHA384))
            .unwrap()
            .len(),
        48
    );
    assert_eq!(server_end_point(&sign(&rcgen::PKCS_ED25519)), None);
    for length in 0..p256.len() {
        let _ = server_end_point(&p256[..length]);
    }
    assert_eq!(server_end_point(&p256[..10]), None);
    assert_eq!(
        server_end_point(&[0x30, 0x89, 255, 255, 255, 255, 255, 255, 255, 255, 255]),
        None
    );
}
