//! The first packet of a connection: length word and body, as they arrive.
#![no_main]

use duckgres::control::startup::{self, MAX_PACKET, Packet};
use duckgres_fuzz::frugally;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((word, rest)) = data.split_first_chunk::<4>() else {
        return;
    };
    if let Ok(length) = startup::length(*word) {
        assert!((4..MAX_PACKET).contains(&length));
    }
    for (tls, gss) in [(true, true), (false, false)] {
        // What the length word says is another matter; the body is what is there.
        if let Ok(Packet::Startup(startup)) = frugally(rest, |rest| startup::parse(rest, tls, gss)) {
            assert!(!startup.user.is_empty() && !startup.database.is_empty());
            assert!(startup.minor() <= startup.requested_minor.max(startup.minor()));
            let _ = startup.negotiation();
            let texts = startup.settings.iter().flat_map(|(name, value)| [name, value]);
            assert!(
                texts
                    .chain([&startup.user, &startup.database])
                    .all(|text| !text.contains('\0'))
            );
        }
    }
});
