//! Execute with a row limit: exact counts, whatever the size of the chunks in
//! which the engine delivers (2,048 rows in DuckDB).

use crate::support::message::*;
use crate::support::{Server, Session, Transport};

/// Executes a portal of `total` rows over and over with that limit and expects
/// the protocol's answers to the row.
fn drain(session: &mut Session, total: usize, limit: i32, results: &[i16]) {
    let bound = Bind {
        portal: "p",
        results,
        ..Bind::default()
    };
    session.execute("begin");
    assert_eq!(
        session.run(&[
            parse_statement(
                "",
                &format!("select i as a from generate_series(1, {total}) g(i) order by i")
            ),
            bound.message(),
            sync()
        ]),
        ["ParseComplete", "BindComplete", "ReadyForQuery T"]
    );
    let chunk = usize::try_from(limit)
        .ok()
        .filter(|limit| *limit > 0)
        .unwrap_or(usize::MAX);
    let mut next = 1;
    loop {
        let transcript = session.run(&[execute("p", limit), sync()]);
        let rows = chunk.min(total + 1 - next);
        let case = format!("{total} rows, {limit} at a time, from row {next}");
        assert_eq!(
            transcript.len(),
            rows + 2,
            "{case}: {:?}",
            transcript.last_chunk::<2>()
        );
        for (row, answer) in (next..).zip(&transcript[..rows]) {
            // A binary integer reads as a hexadecimal number, if it is not printable by chance.
            let binary = format!("{row:x}");
            let right = match results {
                [1] => answer.ends_with(&binary) || !answer.starts_with("DataRow \\x"),
                _ => *answer == format!("DataRow {row}"),
            };
            assert!(right, "{case}: {answer} instead of {row}");
        }
        next += rows;
        if rows == chunk {
            assert_eq!(transcript[rows], "PortalSuspended", "{case}");
        } else {
            assert_eq!(
                transcript[rows],
                format!("CommandComplete SELECT {rows}"),
                "{case}"
            );
            break;
        }
    }
    assert_eq!(
        session.run(&[execute("p", limit), sync()]),
        ["CommandComplete SELECT 0", "ReadyForQuery T"],
        "an exhausted portal stays exhausted"
    );
    session.execute("commit");
}

#[test]
fn counts_are_exact_at_every_chunk_border() {
    let mut session = Session::new();
    for limit in [2047, 2048, 2049, 4095, 4096, 4097] {
        for total in [2046, 2047, 2048, 2049, 4094, 4095, 4096, 4097, 8192] {
            drain(&mut session, total, limit, &[]);
        }
    }
}

#[test]
fn counts_are_exact_one_row_at_a_time() {
    let mut session = Session::new();
    for total in [0, 1, 2, 100] {
        drain(&mut session, total, 1, &[]);
    }
    drain(&mut session, 2100, 7, &[]);
}

#[test]
fn counts_are_exact_over_every_road_and_in_binary() {
    for transport in Transport::ALL {
        let mut session = Session::over(Server::shared(), transport);
        drain(&mut session, 6000, 2048, &[0]);
        drain(&mut session, 6000, 1000, &[1]);
    }
}

/// The driver of one library we looked at aborted its process here.
#[test]
fn the_largest_limit_is_a_limit_like_any_other() {
    let mut session = Session::new();
    drain(&mut session, 5000, i32::MAX, &[]);
    drain(&mut session, 5000, 1_000_000, &[]);
}

#[test]
fn zero_and_negative_limits_mean_no_limit() {
    let mut session = Session::new();
    for limit in [0, -1, i32::MIN] {
        session.send(
            &[
                parse_statement("", "select i as a from generate_series(1, 5000) g(i)"),
                bind("", "", &[]),
                execute("", limit),
                sync(),
            ]
            .concat(),
        );
        let transcript = session.transcript();
        assert_eq!(transcript.len(), 5004);
        assert_eq!(transcript[5002], "CommandComplete SELECT 5000", "limit {limit}");
    }
}

#[test]
fn the_limit_may_change_from_one_execute_to_the_next() {
    let mut session = Session::new();
    let mut batch = parse_statement("", "select i as a from generate_series(1, 10000) g(i) order by i");
    batch.extend(bind("", "", &[]));
    let limits = [1, 2047, 1, 2048, 3, 2049, 100];
    limits.iter().for_each(|limit| batch.extend(execute("", *limit)));
    batch.extend(execute("", 0));
    let mut expected = vec!["ParseComplete".to_string(), "BindComplete".into()];
    let mut next = 1;
    for limit in limits {
        expected.extend((next..next + limit).map(|i| format!("DataRow {i}")));
        expected.push("PortalSuspended".into());
        next += limit;
    }
    expected.extend((next..=10000).map(|i| format!("DataRow {i}")));
    expected.push(format!("CommandComplete SELECT {}", 10001 - next));
    expected.push("ReadyForQuery I".into());
    assert_eq!(session.run(&[batch, sync()]), expected);
}

#[test]
fn a_limit_does_not_cut_what_a_statement_does() {
    let mut session = Session::new();
    session.execute("create table lim_dml (i int)");
    assert_eq!(
        session.run(&[
            parse_statement(
                "",
                "insert into lim_dml select i from generate_series(1, 5000) g(i)"
            ),
            bind("", "", &[]),
            execute("", 1),
            sync()
        ]),
        [
            "ParseComplete",
            "BindComplete",
            "CommandComplete INSERT 0 5000",
            "ReadyForQuery I"
        ]
    );
    assert_eq!(
        session.run(&[
            parse_statement("", "delete from lim_dml where i <= 3 returning i as a"),
            bind("", "", &[]),
            execute("", 1),
            sync()
        ])[3],
        "PortalSuspended"
    );
    assert_eq!(session.rows("select count(*) from lim_dml"), ["4997"]);
}

#[test]
fn an_empty_result_is_complete_at_once() {
    assert_eq!(
        Session::new().run(&[
            parse_statement("", "select 1 as a where false"),
            bind("", "", &[]),
            execute("", 1),
            sync()
        ]),
        [
            "ParseComplete",
            "BindComplete",
            "CommandComplete SELECT 0",
            "ReadyForQuery I"
        ]
    );
}

/// A limit must not make the server compute, or keep, what nobody asked for.
#[test]
fn the_first_rows_of_an_endless_result_come_at_once() {
    let mut session = Session::new();
    session.execute("begin");
    let transcript = session.run(&[
        parse_statement(
            "",
            "select a.i as a from generate_series(1, 1000000) a(i), generate_series(1, 1000000) b(i)",
        ),
        bind("p", "", &[]),
        execute("p", 10),
        sync(),
    ]);
    assert_eq!(transcript.len(), 2 + 10 + 2);
    assert_eq!(transcript[12], "PortalSuspended");
    session.execute("rollback");
    assert_eq!(session.rows("select 1 as a"), ["1"]);
}
