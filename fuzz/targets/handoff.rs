//! What arrives on a worker's handoff socket, and the states in it.
#![no_main]

use duckgres::handoff::SessionState;
use duckgres::handoff::envelope::{self, Payload};
use duckgres::tls::{Channel, TlsState};
use duckgres_fuzz::{frugally, peer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match envelope::parse(data) {
        Ok((_, Payload::Inline(payload))) => {
            let _ = frugally(payload, SessionState::decode);
        }
        Ok((_, Payload::Attached { length })) => assert!(length <= 64 << 20),
        Err(_) => {}
    }
    let _ = frugally(data, SessionState::decode);
    // A fuzzer cannot guess a hash.
    let mut signed = data.to_vec();
    peer::sign(&mut signed);
    if let Ok(state) = frugally(&signed, TlsState::decode) {
        let again = state.encode();
        assert_eq!(*again, signed, "one state has one encoding");
        let channel = Channel::resume(peer::decode(&again)).unwrap();
        assert_eq!(*channel.into_state().unwrap().encode(), signed);
    }
});
