//! The record layer: a script of honest, dishonest and damaged records, whole and
//! cut anywhere, with a handoff at some of the cuts.
#![no_main]

use duckgres::tls::{Channel, Progress, TlsError};
use duckgres_fuzz::peer::{self, Kind, Peer};
use duckgres_fuzz::{Script, pieces};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut script = Script(data);
    let kind = Kind::new(script.byte());
    let seed = script.byte();
    let mut peer = Peer::new(kind);
    let mut wire = Vec::new();
    // Everything that the client has said, if it is ever delivered.
    let mut said = Vec::new();
    let mut honest = true;
    while !script.0.is_empty() {
        match script.byte() % 8 {
            0 | 1 => {
                let content = script.bytes();
                honest &= !content.is_empty();
                said.extend_from_slice(content);
                wire.extend(peer.seal(23, content, 0));
            }
            2 => {
                let (padding, content) = (usize::from(script.byte()), script.bytes());
                honest &= !content.is_empty();
                said.extend_from_slice(content);
                wire.extend(peer.seal(23, content, padding));
            }
            3 => {
                honest = false;
                wire.extend(peer.seal(22, script.bytes(), 0));
            }
            4 => {
                honest = false;
                wire.extend(peer.seal(21, script.take(2), 0));
            }
            5 if kind.tls13 => {
                let wanted = script.byte() & 1;
                wire.extend(peer.seal(22, &[24, 0, 0, 1, wanted], 0));
                peer.update();
                // More than 32 in a row are too many.
                honest = false;
            }
            6 => {
                honest = false;
                wire.extend_from_slice(script.bytes());
            }
            _ => {
                honest = false;
                // In TLS 1.3 a type of 0 is padding, and what the content ends with the type.
                let content_type = script.byte().max(1);
                let content = script.bytes();
                if content_type == 23 {
                    said.extend_from_slice(content);
                }
                let mut record = peer.seal(content_type, content, 1);
                let at = usize::from(script.byte());
                if let Some(byte) = record.get_mut(at) {
                    *byte ^= script.byte();
                }
                wire.append(&mut record);
            }
        }
    }

    let server = kind.server();
    let whole = receive(&server, std::iter::once(&wire[..]), u8::MAX);
    let cut = receive(&server, pieces(&wire, seed), seed);
    assert_eq!(whole, cut, "how the bytes were cut must not matter");
    let (plain, result) = whole;
    assert!(
        said.starts_with(&plain),
        "something was delivered that was not said"
    );
    if honest {
        assert_eq!((plain, result), (said, Ok(Progress::Open)));
    }
});

/// Everything through one channel; every few pieces it goes to another process.
fn receive<'a>(
    server: &[u8],
    pieces: impl Iterator<Item = &'a [u8]>,
    seed: u8,
) -> (Vec<u8>, Result<Progress, TlsError>) {
    let mut channel = Channel::resume(peer::decode(server)).unwrap();
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    let mut progress = Ok(Progress::Open);
    for (index, piece) in pieces.enumerate() {
        progress = channel.receive(piece, &mut plain, &mut out);
        if progress.is_err() {
            assert_eq!(
                channel.receive(piece, &mut plain, &mut out),
                Err(TlsError::Failed)
            );
            assert_eq!(channel.seal(b"x", &mut out), Err(TlsError::Failed));
            break;
        }
        if progress == Ok(Progress::Open) && index % 7 == usize::from(seed % 7) {
            let state = channel.into_state().unwrap().encode();
            channel = Channel::resume(peer::decode(&state)).unwrap();
        }
    }
    (plain, progress)
}
