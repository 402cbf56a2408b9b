//! The encoding of a state.

use super::*;

fn encoded(version: Version, suite: Suite) -> Vec<u8> {
    let mut hostile = hostile(version, suite);
    let bytes = hostile.record(record::APPLICATION_DATA, b"partial");
    assert!(hostile.says(&bytes[..9]).0.is_ok());
    hostile.server.into_state().unwrap().encode().to_vec()
}

#[test]
fn encoding_and_decoding_are_inverse() {
    for (version, suite) in ALL {
        let bytes = encoded(version, suite);
        assert_eq!(bytes.len(), 136 + 9);
        assert_eq!(*TlsState::decode(&bytes).unwrap().encode(), bytes);
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    for (version, suite) in ALL {
        let bytes = encoded(version, suite);
        for position in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[position / 8] ^= 1 << (position % 8);
            assert!(TlsState::decode(&damaged).is_err(), "bit {position}");
        }
    }
}

#[test]
fn every_cut_and_every_addition_is_noticed() {
    let mut bytes = encoded(Version::Tls13, Suite::Aes256Gcm);
    for length in 0..bytes.len() {
        assert!(TlsState::decode(&bytes[..length]).is_err(), "length {length}");
    }
    bytes.push(0);
    assert_eq!(
        TlsState::decode(&bytes).unwrap_err(),
        StateError::Damaged("length of the partial record")
    );
}

#[test]
fn an_unknown_format_is_named() {
    let mut bytes = encoded(Version::Tls13, Suite::Aes256Gcm);
    bytes[1] = 9;
    let error = TlsState::decode(&bytes).unwrap_err();
    assert_eq!(error.to_string(), "TLS state of unknown format 9");
}

#[test]
fn debug_output_has_no_secrets() {
    let bytes = encoded(Version::Tls12, Suite::Aes128Gcm);
    let state = TlsState::decode(&bytes).unwrap();
    assert_eq!(
        format!("{state:?}"),
        "TlsState { version: Tls12, suite: Aes128Gcm, .. }"
    );
}
