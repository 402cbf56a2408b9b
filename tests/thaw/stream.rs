//! The client's stream of bytes, which has no seam where the session was moved.

use duckgres::session::{Gone, Pause};

use super::rig::{Rig, Way};
use crate::support::eventually;
use crate::support::message::{
    bind, copy_data, copy_done, execute, flush, parse_statement, query, sync, terminate,
};

#[test]
fn the_client_is_told_nothing_of_it() {
    for way in Way::ALL {
        let (mut rig, mut client) = Rig::new(way);
        rig.execute(&mut client, "set application_name = 'x'");
        for _ in 0..3 {
            rig.move_on();
        }
        assert_eq!(
            rig.run(&mut client, &[query("select 1 as a")]),
            [
                "RowDescription a:int4",
                "DataRow 1",
                "CommandComplete SELECT 1",
                "ReadyForQuery I"
            ],
            "{way:?}"
        );
    }
}

#[test]
fn a_message_may_be_cut_anywhere() {
    let message = query("select 'a long way' as b");
    for way in Way::ALL {
        for cut in [1, 5, message.len() - 1] {
            let (mut rig, mut client) = Rig::new(way);
            client.send(&message[..cut]);
            rig.serve();
            rig.move_on();
            client.send(&message[cut..]);
            rig.serve();
            assert!(
                client.transcript().contains(&"DataRow a long way".to_owned()),
                "{way:?} {cut}"
            );
        }
    }
}

#[test]
fn a_tls_record_may_be_cut_anywhere() {
    for way in [Way::Tls12, Way::Tls13] {
        for cut in [1, 5, 20] {
            let (mut rig, mut client) = Rig::new(way);
            client.send_in_two(&query("select 'half a record' as b"), cut, || {
                rig.serve();
                rig.move_on();
            });
            rig.serve();
            assert!(
                client.transcript().contains(&"DataRow half a record".to_owned()),
                "{way:?} {cut}"
            );
        }
    }
}

#[test]
fn keys_are_renewed_on_both_sides_of_the_move() {
    let (mut rig, mut client) = Rig::new(Way::Tls13);
    for _ in 0..3 {
        client.refresh_keys();
        client.send(&query("select 1 as a")[..3]);
        rig.serve();
        rig.move_on();
        client.send(&query("select 1 as a")[3..]);
        rig.serve();
        assert!(client.transcript().contains(&"DataRow 1".to_owned()));
    }
}

#[test]
fn pipelined_statements_are_answered_in_their_order() {
    for way in Way::ALL {
        let (mut rig, mut client) = Rig::new(way);
        rig.execute(&mut client, "create table t (a int)");
        let one = |number: i32| {
            [
                parse_statement("", &format!("insert into t values ({number}) returning a")),
                bind("", "", &[]),
                execute("", 0),
                sync(),
            ]
            .concat()
        };
        let all: Vec<u8> = (0..10).flat_map(one).collect();
        let handle = rig.session().handle().clone();
        std::thread::scope(|scope| {
            client.send(&query("copy t from stdin"));
            let running = scope.spawn(|| rig.serve());
            assert_eq!(client.take(1), ["CopyInResponse 0 [0]"]);
            // The statement goes on to its end. What comes in the same breath is read
            // with it, and not begun.
            handle.hold();
            client.send(&[copy_data(b"77\n"), copy_done(), all[..all.len() - 2].to_vec()].concat());
            running.join().unwrap();
        });
        assert_eq!(client.transcript(), ["CommandComplete COPY 1", "ReadyForQuery I"]);
        assert!(rig.session().has_work());
        rig.move_on();
        client.send(&all[all.len() - 2..]);
        rig.serve();
        for number in 0..10 {
            assert_eq!(
                client.transcript(),
                [
                    "ParseComplete".to_owned(),
                    "BindComplete".to_owned(),
                    format!("DataRow {number}"),
                    "CommandComplete INSERT 0 1".to_owned(),
                    "ReadyForQuery I".to_owned(),
                ],
                "{way:?}"
            );
        }
        assert_eq!(rig.rows(&mut client, "select count(*) as n from t"), ["11"]);
    }
}

#[test]
fn what_the_client_does_not_read_is_still_there() {
    for way in Way::ALL {
        let (mut rig, mut client) = Rig::new(way);
        let sql = "select repeat('x', 100) as x from range(1000)";
        let handle = rig.session().handle().clone();
        std::thread::scope(|scope| {
            client.send(&query(sql));
            let running = scope.spawn(|| rig.serve());
            // The statement is over, and its answer does not fit into the sockets.
            eventually("the answer", || {
                let activity = handle.activity();
                (activity.query == sql && activity.state == "idle").then_some(())
            });
            handle.hold();
            running.join().unwrap();
        });
        let frozen = rig.freeze();
        let unsent = frozen.state.frozen.as_ref().unwrap().unsent_output.len();
        assert!(unsent > 10_000, "{way:?}: {unsent}");
        rig.close();
        rig.thaw(frozen);
        // And once more, with what has become of it.
        rig.move_with_work();
        client.send(&query("select 2 as a"));
        std::thread::scope(|scope| {
            let running = scope.spawn(|| rig.serve());
            let answers = client.transcript();
            assert_eq!(answers.len(), 1003, "{way:?}");
            assert_eq!(answers[1002], "ReadyForQuery I");
            assert!(client.transcript().contains(&"DataRow 2".to_owned()));
            running.join().unwrap();
        });
    }
}

#[test]
fn after_an_error_messages_are_passed_over_up_to_the_sync() {
    let (mut rig, mut client) = Rig::new(Way::Plain);
    client.send(&[parse_statement("", "select nonsense"), flush()].concat());
    rig.serve();
    assert_eq!(client.take(1), ["Error 42703"]);
    rig.move_on();
    assert_eq!(
        rig.run(
            &mut client,
            &[
                parse_statement("", "select 1 as a"),
                bind("", "", &[]),
                execute("", 0),
                sync()
            ]
        ),
        ["ReadyForQuery I"]
    );
    assert_eq!(rig.rows(&mut client, "select 1"), ["1"]);
}

#[test]
fn a_client_that_leaves_meanwhile_is_gone() {
    for way in Way::ALL {
        let (mut rig, mut client) = Rig::new(way);
        let frozen = rig.freeze();
        rig.close();
        client.send(&terminate());
        drop(client);
        rig.thaw(frozen);
        assert!(matches!(rig.session().run(), Pause::Over(Gone::Left)), "{way:?}");
    }
}

#[test]
fn a_session_that_was_not_frozen_is_not_thawed() {
    let (mut rig, _client) = Rig::new(Way::Plain);
    let mut frozen = rig.freeze();
    frozen.state.frozen = None;
    assert!(rig.try_thaw(frozen).is_err());
}
