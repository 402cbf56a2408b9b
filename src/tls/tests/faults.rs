//! Records that must be refused, with the right alert.

use super::*;

const V13: (Version, Suite) = (Version::Tls13, Suite::Aes256Gcm);
const V12: (Version, Suite) = (Version::Tls12, Suite::Aes256Gcm);

fn new(kind: (Version, Suite)) -> Hostile {
    hostile(kind.0, kind.1)
}

#[test]
fn a_record_that_was_tampered_with_is_refused_and_the_client_told() {
    for (version, suite) in ALL {
        for position in [5, 6, 12, 20] {
            let mut pair = pair(version, suite);
            let mut bytes = pair.write(b"select 1");
            let last = bytes.len() - 1;
            bytes[position.min(last)] ^= 1;
            let (error, alert) = pair.refused(&bytes);
            assert_eq!(error, TlsError::Refused(Alert::BAD_RECORD_MAC));
            assert_eq!(alert, Some(AlertDescription::BadRecordMac));
            assert!(pair.plain.is_empty());
            assert_eq!(pair.server.into_state().unwrap_err(), TlsError::Failed);
        }
    }
}

#[test]
fn a_replayed_a_dropped_and_a_swapped_record_are_refused() {
    for (version, suite) in ALL {
        let records = |pair: &mut Pair| [b"one", b"two"].map(|text| pair.write(text));
        let mut replay = pair(version, suite);
        let [one, _] = records(&mut replay);
        let _ = replay.deliver(&one);
        assert_eq!(replay.refused(&one).0, TlsError::Refused(Alert::BAD_RECORD_MAC));
        let mut swap = pair(version, suite);
        let [_, two] = records(&mut swap);
        assert_eq!(swap.refused(&two).0, TlsError::Refused(Alert::BAD_RECORD_MAC));
    }
}

#[test]
fn data_before_the_bad_record_is_delivered_and_nothing_of_the_bad_one() {
    let mut pair = pair(Version::Tls13, Suite::Aes256Gcm);
    let mut bytes = pair.write(b"good");
    let mut bad = pair.write(b"bad");
    bad[7] ^= 0x80;
    bytes.extend(bad);
    pair.refused(&bytes);
    assert_eq!(pair.plain, b"good");
}

#[test]
fn an_alert_of_the_client_ends_the_session() {
    for kind in [V13, V12] {
        let mut hostile = new(kind);
        let bytes = hostile.record(record::ALERT, &[2, 42]);
        let (result, answers) = hostile.says(&bytes);
        assert!(matches!(result, Err(TlsError::PeerAlert(alert)) if alert.code() == 42));
        assert!(answers.is_empty());
        assert_eq!(
            result.unwrap_err().to_string(),
            "the peer ended the TLS session: bad_certificate (42)"
        );
    }
}

#[test]
fn warnings_are_ignored_where_the_version_has_them() {
    let mut old = new(V12);
    let bytes = old.record(record::ALERT, &[1, 100]);
    assert_eq!(old.says(&bytes), (Ok(Progress::Open), vec![]));
    let mut new_one = new(V13);
    let bytes = new_one.record(record::ALERT, &[1, 90]);
    assert_eq!(new_one.says(&bytes), (Ok(Progress::Open), vec![]));
    let bytes = new_one.record(record::ALERT, &[1, 100]);
    assert!(matches!(new_one.says(&bytes).0, Err(TlsError::PeerAlert(_))));
}

#[test]
fn malformed_alerts_are_refused() {
    for content in [&[][..], &[1], &[1, 0, 0]] {
        let mut hostile = new(V13);
        let bytes = hostile.record(record::ALERT, content);
        hostile.must_refuse(&bytes, Alert::DECODE_ERROR);
    }
    let mut hostile = new(V12);
    let bytes = hostile.record(record::ALERT, &[3, 42]);
    hostile.must_refuse(&bytes, Alert::ILLEGAL_PARAMETER);
}

#[test]
fn a_record_that_is_too_long_is_refused_by_its_header_alone() {
    new(V13).must_refuse(&[23, 3, 3, 0x41, 0x01], Alert::RECORD_OVERFLOW);
    new(V12).must_refuse(&[23, 3, 3, 0x48, 0x01], Alert::RECORD_OVERFLOW);
    let mut hostile = new(V13);
    assert!(hostile.says(&[23, 3, 3]).0.is_ok());
    hostile.must_refuse(&[0xff, 0xff], Alert::RECORD_OVERFLOW);
}

#[test]
fn kinds_of_records_that_do_not_belong_here_are_refused() {
    // Unprotected ones in TLS 1.3: ChangeCipherSpec, alert, handshake, nonsense.
    for kind in [20, 21, 22, 24, 0, b'Q'] {
        new(V13).must_refuse(&[kind, 3, 3, 0, 2, 1, 0], Alert::UNEXPECTED_MESSAGE);
    }
    for kind in [20, 24, 0, b'Q'] {
        new(V12).must_refuse(&[kind, 3, 3, 0, 2, 1, 0], Alert::UNEXPECTED_MESSAGE);
    }
    new(V12).must_refuse(&[23, 3, 1, 0, 2], Alert::PROTOCOL_VERSION);
    for kind in [20, 24, 99] {
        let mut hostile = new(V13);
        let bytes = hostile.record(kind, &[1]);
        hostile.must_refuse(&bytes, Alert::UNEXPECTED_MESSAGE);
    }
}

#[test]
fn records_too_short_for_a_tag_do_not_authenticate() {
    for kind in [V13, V12] {
        for length in [0, 1, 8, 15, 23] {
            let mut bytes = vec![23, 3, 3, 0, length];
            bytes.resize(5 + usize::from(length), 0);
            new(kind).must_refuse(&bytes, Alert::BAD_RECORD_MAC);
        }
    }
}

#[test]
fn padding_is_taken_off_and_only_padding_is_refused() {
    let mut hostile = new(V13);
    let mut padded = b"data\x17".to_vec();
    padded.resize(1000, 0);
    // The outer seal appends a type byte: make it part of the padding.
    let bytes = hostile.record(0, &padded);
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    assert_eq!(
        hostile.server.receive(&bytes, &mut plain, &mut out),
        Ok(Progress::Open)
    );
    assert_eq!(plain, b"data");
    let bytes = hostile.record(0, &[0; 100]);
    hostile.must_refuse(&bytes, Alert::UNEXPECTED_MESSAGE);
}

#[test]
fn more_than_32_records_without_data_are_refused() {
    for (kind, content, version) in [
        (record::APPLICATION_DATA, &[][..], V13),
        (record::APPLICATION_DATA, &[], V12),
        (record::ALERT, &[1, 90], V13),
        (record::ALERT, &[1, 90], V12),
    ] {
        let mut hostile = new(version);
        for round in 0..2 {
            for _ in 0..32 {
                let bytes = hostile.record(kind, content);
                assert_eq!(hostile.says(&bytes).0, Ok(Progress::Open), "round {round}");
            }
            let bytes = hostile.record(record::APPLICATION_DATA, b"data");
            assert!(hostile.says(&bytes).0.is_ok());
        }
        let flood: Vec<u8> = (0..33).flat_map(|_| hostile.record(kind, content)).collect();
        hostile.must_refuse(&flood, Alert::UNEXPECTED_MESSAGE);
    }
}

#[test]
fn key_updates_without_data_are_capped_and_answered_once_per_batch() {
    let mut hostile = new(V13);
    let mut flood = Vec::new();
    for _ in 0..32 {
        flood.extend(hostile.record(record::HANDSHAKE, &[24, 0, 0, 1, 1]));
        hostile.sealer.update().unwrap();
    }
    let (result, answers) = hostile.says(&flood);
    assert_eq!(result, Ok(Progress::Open));
    assert_eq!(answers, [(record::HANDSHAKE, vec![24, 0, 0, 1, 0])]);
    let bytes = hostile.record(record::HANDSHAKE, &[24, 0, 0, 1, 1]);
    hostile.must_refuse(&bytes, Alert::UNEXPECTED_MESSAGE);
}

#[test]
fn a_key_update_that_wants_no_answer_gets_none() {
    let mut hostile = new(V13);
    let bytes = hostile.record(record::HANDSHAKE, &[24, 0, 0, 1, 0]);
    assert_eq!(hostile.says(&bytes), (Ok(Progress::Open), vec![]));
    hostile.sealer.update().unwrap();
    let bytes = hostile.record(record::APPLICATION_DATA, b"x");
    assert!(hostile.says(&bytes).0.is_ok());
}

#[test]
fn a_key_update_may_be_spread_over_records_but_not_interleaved() {
    let mut spread = new(V13);
    for byte in [24, 0, 0, 1, 1] {
        let bytes = spread.record(record::HANDSHAKE, &[byte]);
        let (result, answers) = spread.says(&bytes);
        assert!(result.is_ok());
        assert_eq!(answers.len(), usize::from(spread.server.fragment_is_empty()));
        let state = spread.server.into_state().unwrap().encode();
        spread.server = Channel::resume(TlsState::decode(&state).unwrap()).unwrap();
    }
    spread.sealer.update().unwrap();
    let bytes = spread.record(record::APPLICATION_DATA, b"x");
    assert!(spread.says(&bytes).0.is_ok());

    let mut interleaved = new(V13);
    let mut bytes = interleaved.record(record::HANDSHAKE, &[24, 0]);
    bytes.extend(interleaved.record(record::APPLICATION_DATA, b"x"));
    interleaved.must_refuse(&bytes, Alert::UNEXPECTED_MESSAGE);
}

#[test]
fn other_handshake_messages_are_refused() {
    for (content, alert) in [
        (&[][..], Alert::UNEXPECTED_MESSAGE),
        (&[1, 0, 0, 0], Alert::UNEXPECTED_MESSAGE),
        (&[4, 0, 0, 1, 0], Alert::UNEXPECTED_MESSAGE),
        (&[24, 0, 0, 2, 0], Alert::DECODE_ERROR),
        (&[24, 1], Alert::DECODE_ERROR),
        (&[24, 0, 0, 1, 2], Alert::ILLEGAL_PARAMETER),
        (&[24, 0, 0, 1, 0, 24, 0, 0, 1, 0], Alert::UNEXPECTED_MESSAGE),
    ] {
        let mut hostile = new(V13);
        let bytes = hostile.record(record::HANDSHAKE, content);
        hostile.must_refuse(&bytes, alert);
    }
}

#[test]
fn renegotiation_is_refused_with_a_warning_and_the_session_goes_on() {
    let mut hostile = new(V12);
    let bytes = hostile.record(record::HANDSHAKE, &[1, 0, 0, 2, 3, 3]);
    let (result, answers) = hostile.says(&bytes);
    assert_eq!(result, Ok(Progress::Open));
    assert_eq!(answers, [(record::ALERT, vec![1, 100])]);
    let bytes = hostile.record(record::APPLICATION_DATA, b"x");
    assert!(hostile.says(&bytes).0.is_ok());
    for content in [&[][..], &[1, 0, 0, 9, 3, 3], &[16, 0, 0, 0], &[20, 0, 0, 0]] {
        let mut hostile = new(V12);
        let bytes = hostile.record(record::HANDSHAKE, content);
        hostile.must_refuse(&bytes, Alert::UNEXPECTED_MESSAGE);
    }
}

#[test]
fn any_bytes_are_refused_without_a_panic() {
    let mut seed = 1_u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as u8
    };
    for (version, suite) in ALL {
        for _ in 0..300 {
            let mut hostile = hostile(version, suite);
            let kind = random();
            let content: Vec<u8> = (0..random() % 9).map(|_| random() % 30).collect();
            let mut bytes = hostile.record(kind, &content);
            if random() % 2 == 0 {
                bytes = (0..random()).map(|_| random()).collect();
            }
            let _ = hostile.says(&bytes);
        }
    }
}
