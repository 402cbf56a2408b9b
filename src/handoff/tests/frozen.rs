//! States of sessions that have run.

use super::*;

/// With something in every field.
pub(super) fn some() -> Frozen {
    let time = |seconds| std::time::UNIX_EPOCH + Duration::from_secs(seconds);
    Frozen {
        values: vec![("my.own".to_owned(), "x".to_owned())],
        startup: vec![("TimeZone".to_owned(), "UTC".to_owned())],
        search_path: Some("main".to_owned()),
        statements: vec![FrozenStatement {
            name: String::new(),
            sql: "select $1".to_owned(),
            declared: vec![0, 1700],
            numeric_scale: 10,
            row: Some([5; 32]),
        }],
        variables: vec![FrozenVariable {
            name: "v".to_owned(),
            sql_type: "INTEGER".to_owned(),
            value: None,
        }],
        temporary: Some(FrozenTemporary {
            definitions: vec!["CREATE TEMP TABLE t(a INTEGER)".to_owned()],
            rows: vec![FrozenRows {
                table: "t".to_owned(),
                columns: 1,
                fields: Zeroizing::new(vec![1, 0, 0, 0, b'1']),
            }],
            finishing: vec!["CREATE INDEX i ON t(a)".to_owned()],
        }),
        skip_until_sync: true,
        unsent_output: Zeroizing::new(vec![23, 3, 3]),
        began: time(1),
        frozen: time(3),
        state_change: time(2),
        query: "select 1".to_owned(),
        query_start: None,
    }
}

#[test]
fn a_frozen_state_is_the_same_after_its_journey() {
    let (Session { state, .. }, _far) = session();
    let bytes = bytes_of(&state);
    let again = SessionState::decode(&bytes).unwrap();
    assert_eq!(bytes_of(&again), bytes);
    let frozen = again.frozen.unwrap();
    assert_eq!(frozen.statements[0].declared, [0, 1700]);
    assert_eq!(frozen.variables[0].value, None);
    assert_eq!(*frozen.temporary.unwrap().rows[0].fields, [1, 0, 0, 0, b'1']);
    assert_eq!((frozen.began, frozen.query_start), (some().began, None));
    assert_eq!(*frozen.unsent_output, [23, 3, 3]);
}

#[test]
fn a_session_frozen_by_another_version_is_refused_whatever_else_it_says() {
    let (Session { state, .. }, _far) = session();
    let known = frozen_versions();
    for version in [known.start() - 1, known.end() + 1, u32::MAX] {
        let mut message: crate::proto::AcceptConnection =
            prost::Message::decode(&bytes_of(&state)[..]).unwrap();
        message.frozen.as_mut().unwrap().version = version;
        message.tls_state = vec![9];
        message.user.clear();
        let error = SessionState::decode(&prost::Message::encode_to_vec(&message)).unwrap_err();
        assert!(matches!(error, StateError::Version(found) if found == version));
    }
}

#[test]
fn a_session_frozen_by_any_earlier_version_is_read() {
    let (Session { state, .. }, _far) = session();
    for version in frozen_versions() {
        let mut message: crate::proto::AcceptConnection =
            prost::Message::decode(&bytes_of(&state)[..]).unwrap();
        message.frozen.as_mut().unwrap().version = version;
        let read = SessionState::decode(&prost::Message::encode_to_vec(&message)).unwrap();
        assert_eq!(read.frozen.unwrap().statements[0].sql, "select $1");
    }
    let mut message: crate::proto::AcceptConnection = prost::Message::decode(&bytes_of(&state)[..]).unwrap();
    let frozen = message.frozen.as_mut().unwrap();
    (frozen.version, frozen.temporary) = (1, None);
    let read = SessionState::decode(&prost::Message::encode_to_vec(&message)).unwrap();
    assert!(read.frozen.unwrap().temporary.is_none());
}

#[test]
fn the_format_that_is_written_is_the_last_that_is_read() {
    assert_eq!(frozen_versions(), 1..=2);
    assert_eq!(some().to_message().version, 2);
}

#[test]
fn what_is_cut_or_damaged_is_refused_and_nothing_worse() {
    let (Session { state, .. }, _far) = session();
    let bytes = bytes_of(&state);
    for at in 0..bytes.len() {
        let _ = SessionState::decode(&bytes[..at]);
        for bit in [1, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= bit;
            let _ = SessionState::decode(&damaged);
        }
    }
}
