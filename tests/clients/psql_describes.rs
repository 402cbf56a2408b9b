//! psql's backslash commands: they ask PostgreSQL's catalogs.

use crate::support::Server;
use crate::support::programs::{psql, run};

/// Whoever describes has something to describe.
const SCHEMA: &str = "
    create table parent (id integer primary key, name varchar not null default 'x',
                         amount decimal(10,2) check (amount > 0), made timestamp);
    create index parent_name on parent (name);
    create type mood as enum ('sad', 'ok');
    create table child (parent integer references parent (id), mood mood, list integer[]);
    create view seen as select id, name from parent;
    create sequence numbers;
    create schema other;
    create table other.hidden (\"Odd name\" bigint unique);
    comment on table parent is 'the first';
    comment on column parent.name is 'how it is called';
";

fn described() -> Server {
    let server = Server::duckgres(&[]);
    run(&mut psql(&super::roads(&server)[0]), SCHEMA).success();
    server
}

/// What psql says to `commands`, its tables' lines without aligning blanks.
#[track_caller]
fn says(server: &Server, commands: &str) -> String {
    let mut command = psql(&super::roads(server)[0]);
    let output = run(command.args(["-v", "ON_ERROR_STOP=1"]), commands);
    assert_eq!(output.err, "", "{commands}");
    output.success()
}

/// The same with what stands below tables.
#[track_caller]
fn describes(server: &Server, commands: &str) -> String {
    says(server, &format!("\\pset tuples_only off\n{commands}"))
}

#[track_caller]
fn assert_lines(said: &str, expected: &[&str]) {
    for line in expected {
        assert!(
            said.lines().any(|said| said.trim() == *line),
            "{line:?} is not in:\n{said}"
        );
    }
}

#[test]
fn psql_describes_a_table_with_its_keys_checks_indexes_and_defaults() {
    let server = described();
    assert_lines(
        &describes(&server, "\\d parent\n"),
        &[
            "id|integer||not null|",
            "name|character varying||not null|'x'::character varying",
            "amount|numeric(10,2)|||",
            "made|timestamp without time zone|||",
            "\"parent_pkey\" PRIMARY KEY, btree (id)",
            "\"parent_name\" btree (\"name\")",
            "\"parent_amount_check\" CHECK (amount > 0)",
            "TABLE \"child\" CONSTRAINT \"child_parent_fkey\" FOREIGN KEY (parent) REFERENCES parent(id)",
        ],
    );
    assert_lines(
        &describes(&server, "\\d child\n"),
        &[
            "mood|mood|||",
            "list|integer[]|||",
            "\"child_parent_fkey\" FOREIGN KEY (parent) REFERENCES parent(id)",
        ],
    );
    assert_lines(
        &describes(&server, "\\d other.hidden\n"),
        &[
            "Odd name|bigint|||",
            "\"hidden_Odd name_key\" UNIQUE CONSTRAINT, btree (\"Odd name\")",
        ],
    );
    let with_comments = describes(&server, "\\d+ parent\n");
    assert!(with_comments.contains("how it is called"), "{with_comments}");
}

#[test]
fn psql_describes_views_indexes_and_sequences() {
    let server = described();
    assert_lines(
        &describes(&server, "\\d+ seen\n"),
        &["id|integer||||plain|", "SELECT id, \"name\" FROM parent;"],
    );
    assert_lines(
        &describes(&server, "\\d parent_name\n"),
        &["name|character varying|yes|\"name\""],
    );
    assert_lines(
        &describes(&server, "\\d numbers\n"),
        &["bigint|1|1|9223372036854775807|1|no|1"],
    );
    assert_lines(
        &describes(&server, "\\sv seen\n"),
        &["SELECT id, \"name\" FROM parent"],
    );
}

#[test]
fn psql_lists_what_there_is_and_who_owns_it() {
    let server = described();
    let (user, database) = (&server.user, &server.database);
    let said = says(
        &server,
        "\\d\n\\di\n\\dn\n\\du\n\\dT\n\\dx\n\\dt+ parent\n\\dt other.*\n",
    );
    let owned = |what: &str| format!("{what}|{user}");
    assert_lines(
        &said,
        &[
            &owned("main|child|table"),
            &owned("main|seen|view"),
            &owned("main|numbers|sequence"),
            &format!("main|parent_name|index|{user}|parent"),
            &owned("other"),
            "main|mood|",
            "icu|1.5.5|pg_catalog|",
            &format!("main|parent|table|{user}|permanent|heap||the first"),
            &owned("other|hidden|table"),
        ],
    );
    assert!(!said.contains("pg_catalog|pg_class"), "{said}");
    let databases = says(&server, "\\l\n");
    assert!(
        databases.contains(&format!("{database}|{user}|UTF8")),
        "{databases}"
    );
}

#[test]
fn a_pattern_of_psql_lists_what_it_fits() {
    let server = described();
    let said = says(&server, "\\dt paren*\n\\dt *.hid*\n\\dt nosuch*\n");
    assert_eq!(said.lines().count(), 2, "{said}");
}

#[test]
fn every_command_of_psql_that_asks_the_catalogs_is_answered() {
    let server = described();
    for command in [
        "d", "dS", "dtS+", "dA", "dA+", "dAc", "dAf", "dAo", "dAp", "da", "da s*", "db", "db+", "dc", "dC",
        "dconfig", "dD", "dd", "ddp", "dE", "des", "det", "deu", "dew", "df", "df+", "df lower", "dF", "dFd",
        "dFp", "dFt", "dg", "di+", "dL", "dl", "dm", "dn+", "do", "dO", "dp", "dP", "drds", "dRp", "dRs",
        "ds+", "dT+", "du+", "dv+", "dX", "dx+", "dy", "l+", "z", "conninfo", "encoding",
    ] {
        says(&server, &format!("\\{command}\n"));
    }
}

#[test]
fn the_functions_that_say_who_and_where_one_is_know_it() {
    let server = described();
    let said = says(
        &server,
        "select current_user = :'USER', session_user = :'USER', current_database() = :'DBNAME';
         select version() like 'PostgreSQL 15.%duckgres%DuckDB%';
         select rolname = current_user from pg_roles;",
    );
    assert_eq!(said, "t|t|t\nt\nt\n");
}

#[test]
fn names_and_numbers_of_relations_and_types_are_led_to_each_other() {
    let server = described();
    let said = says(
        &server,
        "select 'parent'::regclass = c.oid, c.oid::regclass from pg_class c where relname = 'parent';
         select 'other.hidden'::regclass::text, 'int4'::regtype::oid, 1700::regtype, to_regclass('nosuch') is null;
         select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 'parent'::regclass and attname = 'amount';
         select obj_description('parent'::regclass, 'pg_class'), col_description('parent'::regclass, 2);
         select cast('seen' as regclass) in (select oid from pg_catalog.pg_class where relkind = 'v');",
    );
    assert_eq!(
        said,
        "t|parent\nother.hidden|23|numeric|t\nnumeric(10,2)\nthe first|how it is called\nt\n"
    );
}

#[test]
fn columns_are_called_after_the_functions_of_the_catalogs() {
    let server = described();
    let mut command = psql(&super::roads(&server)[0]);
    let sql = "select current_user, version(), 'parent'::regclass, format_type(23, null), format_type(23, null) || 'x'\n";
    let said = run(command.args(["-P", "tuples_only=off"]), sql).success();
    assert!(
        said.starts_with("current_user|version|regclass|format_type|?column?\n"),
        "{said}"
    );
}

#[test]
fn a_regular_expression_matches_anywhere_as_in_postgresql() {
    let server = described();
    let said = says(
        &server,
        "select 'abc' ~ 'b', 'ABC' ~* 'b', 'abc' !~ '^b', 'ABC' !~* 'c$', E'a\\nb' ~ 'a.b', 'abc' ~ '^abc$';",
    );
    assert_eq!(said, "t|t|t|f|t|t\n");
}

#[test]
fn information_schema_says_the_types_as_postgresql_does() {
    let server = described();
    let said = says(
        &server,
        "select column_name, data_type, is_nullable, numeric_precision from information_schema.columns
         where table_name = 'parent' order by ordinal_position;
         select constraint_type from information_schema.table_constraints
         where table_name = 'child';",
    );
    assert_eq!(
        said,
        "id|integer|NO|32\nname|character varying|NO|\namount|numeric|YES|10\nmade|timestamp without time zone|YES|\nFOREIGN KEY\n"
    );
}
