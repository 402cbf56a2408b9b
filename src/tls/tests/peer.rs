//! Conversations with rustls that go well.

use super::*;

#[test]
fn every_suite_and_version_talks_both_ways() {
    for (version, suite) in ALL {
        let mut pair = pair(version, suite);
        for _ in 0..3 {
            pair.converse();
        }
    }
}

#[test]
fn records_may_be_split_at_every_byte_and_moved_there() {
    for (version, suite) in ALL {
        let mut pair = pair(version, suite);
        let mut bytes = pair.write(b"first");
        bytes.extend(pair.write(b""));
        bytes.extend(pair.write(&[7; 300]));
        let end = bytes.len();
        // The record layer remembers sequence numbers, so each split needs the
        // state from before: a copy that only a test may take.
        let before = pair.server.into_state().unwrap().encode();
        for split in 0..=end {
            let mut server = Channel::resume(TlsState::decode(&before).unwrap()).unwrap();
            let (mut plain, mut out) = (Vec::new(), Vec::new());
            let _ = server.receive(&bytes[..split], &mut plain, &mut out).unwrap();
            let moved = server.into_state().unwrap().encode();
            let mut server = Channel::resume(TlsState::decode(&moved).unwrap()).unwrap();
            let _ = server.receive(&bytes[split..], &mut plain, &mut out).unwrap();
            assert_eq!(plain, [&b"first"[..], &[7; 300]].concat(), "split at {split}");
            assert!(out.is_empty());
        }
    }
}

#[test]
fn bytes_may_come_one_by_one() {
    for (version, suite) in ALL {
        let mut pair = pair(version, suite);
        for byte in pair.write(&[9; 20_000]) {
            assert_eq!(pair.deliver(&[byte]), Progress::Open);
        }
        assert_eq!(pair.plain, [9; 20_000]);
    }
}

#[test]
fn large_transfers_arrive_whole_both_ways() {
    let data: Vec<u8> = (0..4_000_003_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for (version, suite) in ALL {
        let mut pair = pair(version, suite);
        let sealed = pair.seal(&data);
        assert!(pair.client_reads(&sealed) == data);
        for part in data.chunks(50_000) {
            let bytes = pair.write(part);
            for piece in bytes.chunks(4_099) {
                let _ = pair.deliver(piece);
            }
        }
        assert!(pair.plain == data);
    }
}

#[test]
fn a_session_goes_on_after_any_number_of_hops() {
    for (version, suite) in ALL {
        let mut pair = pair(version, suite);
        for _ in 0..20 {
            pair.converse();
            pair = pair.hop();
        }
        pair.converse();
    }
}

#[test]
fn a_key_update_of_the_client_is_answered_under_the_old_key() {
    for (version, suite) in ALL.into_iter().filter(|(version, _)| *version == Version::Tls13) {
        let mut pair = pair(version, suite);
        for _ in 0..3 {
            pair.client.refresh_traffic_keys().unwrap();
            pair.converse();
            pair = pair.hop();
            pair.converse();
        }
    }
}

#[test]
fn a_key_update_survives_a_hop_in_its_middle() {
    let mut pair = pair(Version::Tls13, Suite::Aes256Gcm);
    pair.client.refresh_traffic_keys().unwrap();
    let bytes = take_tls(&mut pair.client);
    for byte in bytes {
        let _ = pair.deliver(&[byte]);
        pair = pair.hop();
    }
    pair.converse();
}

#[test]
fn the_key_is_renewed_at_the_record_limit() {
    for (version, suite) in ALL.into_iter().filter(|(version, _)| *version == Version::Tls13) {
        let mut pair = pair(version, suite);
        for round in 0..50 {
            pair.server.limit_records(3);
            pair.converse();
            if round % 7 == 0 {
                pair = pair.hop();
            }
        }
        pair.server.limit_records(3);
        let sealed = pair.seal(&[5; 200_000]);
        assert!(pair.client_reads(&sealed) == [5; 200_000]);
        pair.converse();
    }
}

#[test]
fn tls_1_2_stops_with_an_error_at_the_record_limit() {
    let mut pair = pair(Version::Tls12, Suite::Aes128Gcm);
    pair.server.limit_records(4);
    pair.converse();
    pair.converse();
    pair.converse();
    let mut out = Vec::new();
    assert_eq!(pair.server.seal(b"more", &mut out), Err(TlsError::RecordLimit));
    assert!(out.is_empty());
    pair.server.close(&mut out);
    give_tls(&mut pair.client, &out).unwrap();
    assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
}

#[test]
fn close_notify_is_told_from_truncation() {
    for (version, suite) in ALL {
        let mut pair = pair(version, suite);
        pair.converse();
        assert_eq!(pair.server.end_of_file(), Err(TlsError::Truncated));
        let mut bytes = pair.write(b"last words");
        pair.client.send_close_notify();
        bytes.extend(take_tls(&mut pair.client));
        bytes.extend(b"whatever comes after");
        assert_eq!(pair.deliver(&bytes), Progress::Closed);
        assert_eq!(pair.plain, b"last words");
        assert_eq!(pair.server.end_of_file(), Ok(()));
        assert_eq!(pair.deliver(b"more of it"), Progress::Closed);
        // What the client asked before it closed can still be answered.
        let mut out = pair.seal(b"answer");
        pair.server.close(&mut out);
        pair.server.close(&mut out);
        assert_eq!(pair.server.seal(b"x", &mut Vec::new()), Err(TlsError::Closed));
        assert_eq!(pair.client_reads(&out), b"answer");
        assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
        assert_eq!(pair.server.into_state().unwrap_err(), TlsError::Closed);
    }
}

#[test]
fn sealing_nothing_sends_nothing() {
    let mut pair = pair(Version::Tls13, Suite::Aes256Gcm);
    assert!(pair.seal(b"").is_empty());
    pair.converse();
}

#[test]
fn each_record_takes_another_sequence_number() {
    // The same plaintext under the same key never gives the same bytes again.
    for (version, suite) in ALL {
        let mut pair = pair(version, suite);
        let mut seen = std::collections::HashSet::new();
        for round in 0..200 {
            assert!(seen.insert(pair.seal(b"the same plaintext, again and again")));
            if round % 50 == 0 {
                pair = pair.hop();
            }
        }
    }
}
