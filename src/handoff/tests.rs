//! Handoffs over real sockets, and what can go wrong with them.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{self, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use zeroize::Zeroizing;

use super::envelope::{EnvelopeError, Kind, Payload, parse};
use super::socket::Stream;
use super::*;
use crate::tls;

mod frozen;

const SOON: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_millis(50);

struct House {
    _directory: tempfile::TempDir,
    path: PathBuf,
    listener: Listener,
}

fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn house() -> House {
    house_for(&[own_uid()])
}

fn house_for(senders: &[u32]) -> House {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("handoff");
    let listener = Listener::from_fd(bind(&path).unwrap(), senders).unwrap();
    House {
        _directory: directory,
        path,
        listener,
    }
}

impl House {
    async fn receive(&self) -> Result<Offer, ReceiveError> {
        match self.listener.accept().await.unwrap().receive(SOON).await? {
            Arrival::Offer(offer) => Ok(*offer),
            Arrival::Collector(_) => panic!("somebody collects"),
        }
    }

    async fn collector(&self) -> Collector {
        match self.listener.accept().await.unwrap().receive(SOON).await.unwrap() {
            Arrival::Offer(_) => panic!("a session is offered"),
            Arrival::Collector(collector) => collector,
        }
    }

    /// Sends raw bytes and descriptors; returns what both sides say.
    async fn raw(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> (ReceiveError, Reason) {
        let stream = Stream::connect(&self.path).await.unwrap();
        stream.send(message, descriptors).await.unwrap();
        let error = self.receive().await.err().expect("must be refused");
        let reply = stream.receive().await.unwrap().expect("must be answered");
        let Ok((Kind::Reply, Payload::Inline(payload))) = parse(reply.bytes()) else {
            panic!()
        };
        let reply: crate::proto::AcceptReply = prost::Message::decode(payload).unwrap();
        match reply.outcome {
            Some(crate::proto::accept_reply::Outcome::Refused(refused)) => {
                assert_eq!(refused.message, error.to_string());
                (error, refused.reason())
            }
            _ => panic!("not a refusal"),
        }
    }
}

pub(super) fn session() -> (Session, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    let state = SessionState {
        backend_id: 0x0102_0304,
        cancel_key: CancelKey::new(&[7; 32]).unwrap(),
        protocol_minor: 2,
        user: "ada".to_owned(),
        database: "analytics".to_owned(),
        settings: vec![
            ("application_name".to_owned(), "psql".to_owned()),
            ("empty".to_owned(), String::new()),
        ],
        unread_input: Zeroizing::new(b"Q\0\0\0\x0dselect 1\0".to_vec()),
        tls: Some(tls::tests::some_state()),
        peer: PeerFacts {
            address: "203.0.113.7:50312".to_owned(),
            tls_version: "TLSv1.3".to_owned(),
            tls_cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
        },
        create_database: true,
        admin: true,
        frozen: Some(frozen::some()),
    };
    (
        Session {
            socket: near.into(),
            state,
        },
        far,
    )
}

fn bytes_of(state: &SessionState) -> Vec<u8> {
    state.encode_after(0, |_, _| {}).to_vec()
}

/// The whole message that offers `state` inline.
fn message_of(state: &SessionState) -> Vec<u8> {
    let header = |length, out: &mut Vec<u8>| envelope::inline_header(Kind::Session, length, out);
    state.encode_after(envelope::HEADER, header).to_vec()
}

/// The session still speaks TLS over its socket.
fn assert_usable(session: Session, mut far: UnixStream) {
    let mut channel = tls::Channel::resume(session.state.tls.unwrap()).unwrap();
    let mut out = Vec::new();
    channel.seal(b"hello", &mut out).unwrap();
    UnixStream::from(session.socket).write_all(&out).unwrap();
    let mut arrived = Vec::new();
    far.read_to_end(&mut arrived).unwrap();
    assert_eq!(arrived, out);
}

fn assert_closed_in_silence(mut far: UnixStream) {
    far.set_read_timeout(Some(SOON)).unwrap();
    let mut arrived = Vec::new();
    far.read_to_end(&mut arrived).unwrap();
    assert!(arrived.is_empty());
}

#[tokio::test]
async fn a_session_arrives_whole() {
    let house = house();
    let (session, far) = session();
    let sent = bytes_of(&session.state);
    let (offered, taken) = tokio::join!(offer(&house.path, session, SOON), async {
        house.receive().await.unwrap().accept().await.unwrap()
    });
    offered.unwrap();
    assert_eq!(bytes_of(&taken.state), sent);
    assert_eq!(taken.state.settings[1].0, "empty");
    let flags = rustix::io::fcntl_getfd(&taken.socket).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    assert_usable(taken, far);
}

#[tokio::test]
async fn a_state_that_exceeds_a_datagram_travels_in_a_memfd() {
    let house = house();
    for size in [60_000, 65_536, 70_000, 3_000_000] {
        let (mut session, far) = session();
        session.state.unread_input = Zeroizing::new(vec![b'x'; size]);
        let sent = bytes_of(&session.state);
        let (offered, taken) = tokio::join!(offer(&house.path, session, SOON), async {
            house.receive().await.unwrap().accept().await.unwrap()
        });
        offered.unwrap();
        assert!(bytes_of(&taken.state) == sent);
        assert_usable(taken, far);
    }
}

#[tokio::test]
async fn a_refusal_gives_the_session_back() {
    let house = house();
    let (session, far) = session();
    let (offered, ()) = tokio::join!(offer(&house.path, session, SOON), async {
        let offer = house.receive().await.unwrap();
        assert_eq!(offer.session.state.backend_id, 0x0102_0304);
        offer.refuse(Reason::Draining, &"é".repeat(5000)).await.unwrap();
    });
    let Err(OfferError::Refused {
        session,
        reason,
        message,
    }) = offered
    else {
        panic!()
    };
    assert_eq!((reason, message), (Reason::Draining, "é".repeat(1024)));
    assert_usable(*session, far);
}

#[tokio::test]
async fn a_worker_that_cannot_be_reached_gives_the_session_back() {
    let directory = tempfile::tempdir().unwrap();
    let (session, far) = session();
    let offered = offer(&directory.path().join("nobody"), session, SOON).await;
    let Err(OfferError::Unreachable { session, source }) = offered else {
        panic!()
    };
    assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
    assert_usable(*session, far);
}

#[tokio::test]
async fn a_full_backlog_gives_the_session_back_at_the_deadline() {
    let house = house();
    let full = house.path.with_file_name("full");
    let socket = bind(&full).unwrap();
    net::listen(&socket, 0).unwrap();
    let _queued = Stream::connect(&full).await.unwrap();
    let (session, far) = session();
    let offered = offer(&full, session, PATIENCE).await;
    let Err(OfferError::Unreachable { session, source }) = offered else {
        panic!()
    };
    assert_eq!(source.kind(), std::io::ErrorKind::TimedOut);
    assert_usable(*session, far);
}

#[tokio::test]
async fn a_session_waits_in_the_backlog_of_a_worker_that_is_not_yet_accepting() {
    let house = house();
    let (session, far) = session();
    let path = house.path.clone();
    let offered = tokio::spawn(async move { offer(&path, session, SOON).await });
    tokio::time::sleep(PATIENCE).await;
    assert!(!offered.is_finished());
    let taken = house.receive().await.unwrap().accept().await.unwrap();
    offered.await.unwrap().unwrap();
    assert_usable(taken, far);
}

#[tokio::test]
async fn a_lost_answer_closes_the_session_in_silence() {
    let house = house();
    let (session, far) = session();
    let (offered, ()) = tokio::join!(offer(&house.path, session, SOON), async {
        drop(house.receive().await.unwrap());
    });
    let Err(OfferError::Ambiguous { source }) = offered else {
        panic!()
    };
    assert_eq!(source.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_closed_in_silence(far);
}

#[tokio::test]
async fn a_lost_answer_gives_back_a_session_whose_tape_can_still_be_claimed() {
    let house = house();
    let (session, mut far) = session();
    std::io::Write::write_all(&mut far, b"handshake").unwrap();
    let tape = Tape::new().unwrap();
    let (offered, late) = tokio::join!(
        offer_with(&house.path, session, PATIENCE, Some((&tape, 9))),
        house.receive()
    );
    let Err(OfferError::Unreachable { session, .. }) = offered else {
        panic!()
    };
    assert!(tape.is_mine());
    // What the worker still has is no session any more.
    assert!(late.unwrap().accept().await.is_err());
    assert_usable(*session, far);
}

#[tokio::test]
async fn a_session_is_the_workers_when_it_has_claimed_the_tape() {
    let house = house();
    let (session, mut far) = session();
    std::io::Write::write_all(&mut far, b"handshake").unwrap();
    let tape = Tape::new().unwrap();
    let (offered, taken) = tokio::join!(offer_with(&house.path, session, SOON, Some((&tape, 9))), async {
        house.receive().await.unwrap().accept().await.unwrap()
    });
    offered.unwrap();
    assert!(!tape.claim().unwrap());
    assert_usable(taken, far);
}

#[tokio::test]
async fn a_connection_that_breaks_with_the_session_unread_gives_it_back() {
    for accepted in [true, false] {
        let house = house();
        let (session, far) = session();
        let path = house.path.clone();
        let offered = tokio::spawn(async move { offer(&path, session, SOON).await });
        tokio::time::sleep(PATIENCE).await;
        match accepted {
            true => drop(house.listener.accept().await.unwrap()),
            false => drop(house),
        }
        let Err(OfferError::Unreachable { session, .. }) = offered.await.unwrap() else {
            panic!("accepted: {accepted}")
        };
        assert_usable(*session, far);
    }
}

#[tokio::test]
async fn a_sender_that_gives_up_or_dies_leaves_the_session_to_the_worker() {
    let house = house();
    let (session, far) = session();
    let offered = offer(&house.path, session, PATIENCE).await;
    let Err(OfferError::Ambiguous { source }) = offered else {
        panic!()
    };
    assert_eq!(source.kind(), std::io::ErrorKind::TimedOut);
    let taken = house.receive().await.unwrap().accept().await.unwrap();
    assert_usable(taken, far);
}

#[tokio::test]
async fn an_answer_that_is_none_is_ambiguous() {
    let house = house();
    for answer in [
        &b"garbage"[..],
        b"DGHO\0\x01\x02\0\0\0\0\0",
        b"DGHO\0\x01\x01\0\0\0\0\0",
    ] {
        let (session, far) = session();
        let server = async {
            let listener = &house.listener;
            let stream = listener.accept().await.unwrap().stream;
            drop(stream.receive().await.unwrap());
            stream.send(answer, &[]).await.unwrap();
        };
        let (offered, ()) = tokio::join!(offer(&house.path, session, SOON), server);
        let Err(OfferError::Ambiguous { source }) = offered else {
            panic!()
        };
        assert_eq!(source.kind(), std::io::ErrorKind::InvalidData);
        assert_closed_in_silence(far);
    }
}

#[tokio::test]
async fn only_the_given_users_may_hand_sessions_over() {
    let house = house_for(&[own_uid() + 1]);
    let (session, far) = session();
    let (offered, received) = tokio::join!(offer(&house.path, session, SOON), house.receive());
    assert!(matches!(received, Err(ReceiveError::Sender(uid)) if uid == own_uid()));
    let Err(OfferError::Refused { session, .. }) = offered else {
        panic!()
    };
    assert_usable(*session, far);
}

#[tokio::test]
async fn a_sender_that_says_nothing_is_left_at_the_deadline() {
    let house = house();
    let _silent = Stream::connect(&house.path).await.unwrap();
    let error = house
        .listener
        .accept()
        .await
        .unwrap()
        .receive(PATIENCE)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, ReceiveError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut));
    drop(Stream::connect(&house.path).await.unwrap());
    assert!(matches!(house.receive().await.err(), Some(ReceiveError::Closed)));
}

#[tokio::test]
async fn messages_that_lie_are_refused_and_their_descriptors_closed() {
    let house = house();
    let (Session { socket, state }, far) = session();
    let good = message_of(&state);
    let change = |position: usize, value: u8| {
        let mut message = good.clone();
        message[position] = value;
        message
    };
    let longer = [&good[..], b"x"].concat();
    for (message, expected) in [
        (&change(0, b'X')[..], EnvelopeError::Magic),
        (&change(5, 2), EnvelopeError::Format(2)),
        (&change(6, 2), EnvelopeError::Kind),
        (&change(6, 9), EnvelopeError::Kind),
        (&change(7, 9), EnvelopeError::Place),
        (&change(7, 1), EnvelopeError::Length),
        (&change(8, 0xff), EnvelopeError::Length),
        (&change(11, good[11] ^ 1), EnvelopeError::Length),
        (&good[..good.len() - 1], EnvelopeError::Length),
        (&longer, EnvelopeError::Length),
        (&good[..11], EnvelopeError::Short),
        (b"x", EnvelopeError::Short),
    ] {
        let (error, reason) = house.raw(message, &[socket.as_fd()]).await;
        assert!(
            matches!(error, ReceiveError::Envelope(found) if found == expected),
            "{error}"
        );
        assert_eq!(reason, Reason::Malformed);
    }
    drop(socket);
    assert_closed_in_silence(far);
}

#[tokio::test]
async fn states_that_no_session_can_have_are_refused() {
    let house = house();
    type Change = fn(&mut crate::proto::AcceptConnection);
    let changes: [Change; 17] = [
        |message| message.cancel_key.truncate(3),
        |message| message.cancel_key.resize(257, 0),
        |message| message.user.clear(),
        |message| message.database = "a\0b".to_owned(),
        |message| message.settings[0].name.clear(),
        |message| message.settings[0].value.push('\0'),
        |message| message.protocol_minor = 1,
        |message| message.tls_state[20] ^= 1,
        |message| message.frozen.as_mut().unwrap().version = 0,
        |message| message.frozen.as_mut().unwrap().values[0].name.clear(),
        |message| message.frozen.as_mut().unwrap().startup[0].value.push('\0'),
        |message| message.frozen.as_mut().unwrap().statements[0] = vec![0xff],
        // The row's digest, which is its last field, without its last byte.
        |message| {
            let statement = &mut message.frozen.as_mut().unwrap().statements[0];
            let length = statement.len() - 33;
            statement[length] -= 1;
            statement.pop();
        },
        // A scale of 127.
        |message| message.frozen.as_mut().unwrap().statements[0].extend([0x20, 0x7f]),
        |message| message.frozen.as_mut().unwrap().variables.push(Vec::new()),
        |message| message.frozen.as_mut().unwrap().temporary = Some(vec![0xff]),
        |message| {
            let rows = crate::proto::FrozenRows {
                table: "t".to_owned(),
                columns: u32::MAX,
                fields: vec![0; 8],
            };
            let temporary = crate::proto::FrozenTemporary {
                rows: vec![prost::Message::encode_to_vec(&rows)],
                ..Default::default()
            };
            let bytes = prost::Message::encode_to_vec(&temporary);
            message.frozen.as_mut().unwrap().temporary = Some(bytes);
        },
    ];
    for change in changes {
        let (Session { socket, state }, far) = session();
        let mut message: crate::proto::AcceptConnection =
            prost::Message::decode(&bytes_of(&state)[..]).unwrap();
        change(&mut message);
        let payload = prost::Message::encode_to_vec(&message);
        let mut bytes = Vec::new();
        envelope::inline_header(Kind::Session, payload.len(), &mut bytes);
        bytes.extend(payload);
        let (error, reason) = house.raw(&bytes, &[socket.as_fd()]).await;
        assert!(matches!(error, ReceiveError::State(_)), "{error}");
        assert_eq!(reason, Reason::Malformed);
        drop(socket);
        assert_closed_in_silence(far);
    }
}

#[tokio::test]
async fn the_number_of_descriptors_must_be_right() {
    let house = house();
    let (Session { socket, state }, far) = session();
    let message = message_of(&state);
    let fd = socket.as_fd();
    for (descriptors, found) in [(&[][..], 0), (&[fd, fd][..], 2), (&[fd, fd, fd][..], 3)] {
        let (error, _) = house.raw(&message, descriptors).await;
        assert!(
            matches!(error, ReceiveError::Descriptors { found: n, expected: 1 } if n == found),
            "{error}"
        );
    }
    let mut attached = Vec::new();
    envelope::attached_header(Kind::Session, 10, &mut attached);
    let (error, _) = house.raw(&attached, &[fd]).await;
    assert!(matches!(
        error,
        ReceiveError::Descriptors {
            found: 1,
            expected: 2
        }
    ));
    drop(socket);
    assert_closed_in_silence(far);
}

#[tokio::test]
async fn more_descriptors_than_there_is_room_for_are_refused() {
    let house = house();
    let (Session { socket, state }, far) = session();
    let client = net::socket_with(
        net::AddressFamily::UNIX,
        net::SocketType::SEQPACKET,
        net::SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    net::connect(&client, &net::SocketAddrUnix::new(&house.path).unwrap()).unwrap();
    let descriptors = [socket.as_fd(); 20];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(20))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let message = message_of(&state);
    net::sendmsg(
        &client,
        &[IoSlice::new(&message)],
        &mut control,
        SendFlags::empty(),
    )
    .unwrap();
    assert!(matches!(
        house.receive().await.err(),
        Some(ReceiveError::Truncated)
    ));
    drop(socket);
    assert_closed_in_silence(far);
}

#[tokio::test]
async fn a_message_that_was_cut_is_refused() {
    let house = house();
    let (session, _far) = session();
    let mut message = message_of(&session.state);
    message.resize(100_000, 0);
    let (error, _) = house.raw(&message, &[session.socket.as_fd()]).await;
    assert!(matches!(error, ReceiveError::Truncated));
}

#[tokio::test]
async fn descriptors_of_the_wrong_sort_are_refused() {
    let house = house();
    let (Session { socket, state }, _far) = session();
    let message = message_of(&state);
    let file = tempfile::tempfile().unwrap();
    let listening = bind(&house.path.with_file_name("other")).unwrap();
    for wrong in [file.as_fd(), listening.as_fd()] {
        let (error, _) = house.raw(&message, &[wrong]).await;
        assert!(matches!(error, ReceiveError::NotASocket));
    }

    let payload = bytes_of(&state);
    let mut header = Vec::new();
    envelope::attached_header(Kind::Session, payload.len(), &mut header);
    let unsealed = unsealed_memfd(&payload);
    let short = memfd::create(&payload[1..]).unwrap();
    let long = memfd::create(&[&payload[..], b"x"].concat()).unwrap();
    for wrong in [
        file.as_fd(),
        socket.as_fd(),
        unsealed.as_fd(),
        short.as_fd(),
        long.as_fd(),
    ] {
        let (error, _) = house.raw(&header, &[socket.as_fd(), wrong]).await;
        assert!(matches!(error, ReceiveError::Attached(_)), "{error}");
    }
}

fn unsealed_memfd(bytes: &[u8]) -> OwnedFd {
    use rustix::fs::{MemfdFlags, memfd_create};
    let fd = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::io::write(&fd, bytes).unwrap();
    fd
}

#[tokio::test]
async fn a_listener_must_be_a_seqpacket_socket_that_listens() {
    let directory = tempfile::tempdir().unwrap();
    let stream = std::os::unix::net::UnixListener::bind(directory.path().join("stream")).unwrap();
    assert!(Listener::from_fd(stream.into(), &[0]).is_err());
    assert!(Listener::from_fd(UnixStream::pair().unwrap().0.into(), &[0]).is_err());
    assert!(Listener::from_fd(tempfile::tempfile().unwrap().into(), &[0]).is_err());
}

#[test]
fn any_bytes_are_parsed_without_a_panic() {
    let (session, _far) = session();
    let good = message_of(&session.state);
    for length in 0..good.len() {
        assert!(parse(&good[..length]).is_err());
    }
    let payload = bytes_of(&session.state);
    for length in 0..payload.len() {
        let _ = SessionState::decode(&payload[..length]);
    }
    for position in 0..payload.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut damaged = payload.clone();
            damaged[position] = value;
            let _ = SessionState::decode(&damaged);
        }
    }
}

#[test]
fn cancel_keys_have_4_to_256_bytes_and_keep_quiet() {
    assert_eq!(
        CancelKey::new(&[0; 3]).unwrap_err().to_string(),
        "a cancel key has 4 to 256 bytes, not 3"
    );
    assert!(CancelKey::new(&[0; 257]).is_err());
    assert!(CancelKey::random(300).is_err());
    let (one, two) = (CancelKey::random(32).unwrap(), CancelKey::random(32).unwrap());
    assert_ne!(one, two);
    assert!(one.matches(one.as_bytes()) && !one.matches(&one.as_bytes()[..4]) && !one.matches(b""));
    assert_eq!(format!("{one:?}"), "CancelKey(..)");
    let (session, _far) = session();
    let shown = format!("{session:?}");
    assert!(shown.contains("analytics") && !shown.contains("select") && !shown.contains("7, 7"));
}

#[tokio::test]
async fn sessions_are_collected_one_by_one_and_each_has_one_owner() {
    let house = house();
    let collecting = async {
        let mut collection = Collection::open(&house.path, SOON).await.unwrap();
        let (taken, fate) = collection.next().await.unwrap().unwrap();
        fate.taken().await.unwrap();
        let (refused, fate) = collection.next().await.unwrap().unwrap();
        drop(refused);
        fate.refused(Reason::Draining, "nobody").await.unwrap();
        assert!(collection.next().await.unwrap().is_none());
        taken
    };
    let giving = async {
        let collector = house.collector().await;
        let ((one, far_one), (two, far_two)) = (session(), session());
        collector.give(one, SOON).await.unwrap();
        match collector.give(two, SOON).await {
            Err(OfferError::Refused { session, reason, .. }) => {
                assert_eq!(reason, Reason::Draining);
                assert_usable(*session, far_two);
            }
            other => panic!("{other:?}"),
        }
        far_one
    };
    let (taken, far) = tokio::join!(collecting, giving);
    assert_eq!(taken.state.backend_id, 0x0102_0304);
    assert_usable(taken, far);
}

#[tokio::test]
async fn a_collector_that_goes_without_an_answer_leaves_no_owner_and_one_that_has_not_read_leaves_ours() {
    let house = house();
    let mut collection = Collection::open(&house.path, SOON).await.unwrap();
    let collector = house.collector().await;
    let (one, far) = session();
    let lose = async {
        drop(collection.next().await.unwrap());
        drop(collection);
    };
    let (given, ()) = tokio::join!(collector.give(one, SOON), lose);
    assert!(matches!(given, Err(OfferError::Ambiguous { .. })), "{given:?}");
    assert_closed_in_silence(far);
    let (two, far) = session();
    match collector.give(two, SOON).await {
        Err(OfferError::Unreachable { session, .. }) => assert_usable(*session, far),
        other => panic!("{other:?}"),
    }
}
