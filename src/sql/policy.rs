//! What a client may not say, whatever the engine would make of it.
//!
//! Inside an instance DuckDB knows no privileges, and its own locks on files
//! give way to a `COPY … TO '<the database file>'`. So statements are refused by
//! their kind and by their target before the engine sees them. DuckDB's settings
//! (no external access, locked configuration) are the second wall behind this.

use super::catalog::DATABASE;
use super::classify::literal_value;
use super::file_access::is_inside;
use super::lexer::{Kind, Token, tokens};

/// Why a statement is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The command exists, and is not for clients.
    #[error("{0} is not permitted")]
    Command(&'static str),
    /// A function or pragma that reaches beyond the session.
    #[error("permission denied for function {0}")]
    Function(String),
    /// COPY to or from a file outside the permitted directories.
    #[error("permission denied to access file \"{0}\"")]
    File(String),
    /// The database of the catalogs, by its own name.
    #[error("permission denied for database {DATABASE}")]
    Catalogs,
}

/// Does a text name the database that PostgreSQL's catalogs are in? It is led there
/// from their names; by its own it could change them for everyone.
pub fn names_the_catalogs(text: &str) -> bool {
    text.as_bytes()
        .windows(DATABASE.len())
        .any(|window| window.eq_ignore_ascii_case(DATABASE.as_bytes()))
}

/// Commands by their first words. The reason is the same for all of them: they
/// change what the process has open, for everyone who uses the database.
const COMMANDS: [(&[&str], &str); 10] = [
    (&["ATTACH"], "ATTACH"),
    (&["DETACH"], "DETACH"),
    // The session's own; inside another statement they would be DuckDB's.
    (&["CREATE", "DATABASE"], "CREATE DATABASE"),
    (&["DROP", "DATABASE"], "DROP DATABASE"),
    (&["LOAD"], "LOAD"),
    (&["INSTALL"], "INSTALL"),
    (&["FORCE", "INSTALL"], "INSTALL"),
    (&["UPDATE", "EXTENSIONS"], "UPDATE EXTENSIONS"),
    (&["EXPORT"], "EXPORT DATABASE"),
    (&["IMPORT"], "IMPORT DATABASE"),
];

/// Functions that change the instance for everyone, or write to the worker's
/// own output.
const FUNCTIONS: [&str; 15] = [
    "enable_logging",
    "disable_logging",
    "set_log_level",
    "truncate_duckdb_logs",
    "write_log",
    "enable_peg_parser",
    "disable_peg_parser",
    "enable_profiling",
    "enable_profile",
    "disable_optimizer",
    "add_parquet_key",
    "getenv",
    // SQL in a form that is not looked into here.
    "json_execute_serialized_sql",
    // They take addresses of memory.
    "arrow_scan",
    "arrow_scan_dumb",
];

/// Behind these, a name with a parenthesis is a table with its columns.
const BEFORE_A_TABLE: [&str; 5] = ["INTO", "TABLE", "EXISTS", "ON", "WITH"];

/// Pragmas that only read.
const READING_PRAGMAS: [&str; 10] = [
    "table_info",
    "show_tables",
    "show_tables_expanded",
    "database_list",
    "show_databases",
    "database_size",
    "version",
    "platform",
    "storage_info",
    "functions",
];

/// Decides on one statement. `file_access` lists the directories that SQL may
/// read and write.
pub fn check(sql: &str, file_access: &[std::path::PathBuf]) -> Result<(), Refusal> {
    if names_the_catalogs(sql) {
        return Err(Refusal::Catalogs);
    }
    let whole: Vec<Token> = tokens(sql).collect();
    let all = without_wrapping(sql, &whole);
    for (words, name) in COMMANDS {
        let fits = words
            .iter()
            .enumerate()
            .all(|(at, word)| all.get(at).is_some_and(|token| token.is(sql, word)));
        if fits {
            return Err(Refusal::Command(name));
        }
    }
    let starts = |word: &str| all.first().is_some_and(|token| token.is(sql, word));
    if starts("PRAGMA") {
        let name = all
            .get(1)
            .map(|token| super::identifier(token.text(sql)).to_lowercase())
            .unwrap_or_default();
        if !READING_PRAGMAS.contains(&name.as_str()) {
            return Err(Refusal::Function(name));
        }
    }
    // The session's own SET does not come here; inside EXPLAIN it would be DuckDB's.
    let is_variable = all.get(1).is_some_and(|token| token.is(sql, "VARIABLE"));
    if (starts("SET") || starts("RESET")) && !is_variable {
        return Err(Refusal::Command("to set a parameter of the whole instance"));
    }
    if starts("COPY") {
        check_copy(sql, all, file_access)?;
    }
    for (at, pair) in whole.windows(2).enumerate() {
        if pair[0].is_name() && pair[1].text(sql) == "(" {
            let name = super::identifier(pair[0].text(sql)).to_lowercase();
            if FUNCTIONS.contains(&name.as_str()) {
                return Err(Refusal::Function(name));
            }
            let is_table = at > 0 && BEFORE_A_TABLE.iter().any(|word| whole[at - 1].is(sql, word));
            if name == "query" && !is_table {
                // It runs SQL, which therefore must be there to be read.
                let text = whole.get(at + 2).and_then(|token| literal_value(token, sql));
                let ends = whole.get(at + 3).is_some_and(|token| token.text(sql) == ")");
                match text {
                    Some(text) if ends => check(&text, file_access)?,
                    _ => return Err(Refusal::Function(name)),
                }
            } else if is_file_function(&name) {
                check_files(sql, &whole[at + 2..], &name, file_access)?;
            }
        }
    }
    Ok(())
}

/// The statement inside EXPLAIN, which runs it with ANALYZE, or PREPARE.
fn without_wrapping<'a>(sql: &str, all: &'a [Token]) -> &'a [Token] {
    let is = |at: usize, word: &str| all.get(at).is_some_and(|token| token.is(sql, word));
    let mut at = 0;
    if is(0, "PREPARE") {
        at = all
            .iter()
            .position(|token| token.is(sql, "AS"))
            .map_or(0, |found| found + 1);
    }
    while is(at, "EXPLAIN") || is(at, "ANALYZE") || is(at, "VERBOSE") || (at > 0 && is(at, "(")) {
        let mut depth = 0_usize;
        loop {
            depth += usize::from(is(at, "("));
            depth -= usize::from(is(at, ")") && depth > 0);
            at += 1;
            if depth == 0 || at >= all.len() {
                break;
            }
        }
    }
    all.get(at..).unwrap_or_default()
}

/// The table functions that open the files that they are given.
fn is_file_function(name: &str) -> bool {
    ["read_", "parquet_", "sniff_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || ["glob", "parquet_scan", "duckdb_logs_from_file"].contains(&name)
}

/// What is read must be named by string literals, one or a list of them, so that
/// it is known before the engine opens it. The engine permits the database's own
/// file everywhere, whatever directories are permitted.
fn check_files(
    sql: &str,
    arguments: &[Token],
    name: &str,
    file_access: &[std::path::PathBuf],
) -> Result<(), Refusal> {
    let refused = || Refusal::Function(name.to_owned());
    let text = |at: usize| arguments.get(at).map(|token| token.text(sql)).unwrap_or_default();
    let mut at = usize::from(text(0) == "[");
    loop {
        let file = arguments
            .get(at)
            .and_then(|token| literal_value(token, sql))
            .ok_or_else(refused)?;
        if !is_inside(&file, file_access) {
            return Err(Refusal::File(file));
        }
        match (text(0) == "[", text(at + 1)) {
            (true, ",") => at += 2,
            (true, "]") if matches!(text(at + 2), "," | ")") => return Ok(()),
            (false, "," | ")") => return Ok(()),
            _ => return Err(refused()),
        }
    }
}

/// COPY names its file right behind a TO or FROM outside parentheses; COPY FROM
/// DATABASE copies whole databases.
fn check_copy(sql: &str, all: &[Token], file_access: &[std::path::PathBuf]) -> Result<(), Refusal> {
    let mut depth = 0_i32;
    for pair in all.windows(2) {
        match pair[0].text(sql) {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        if depth != 0 || !(pair[0].is(sql, "TO") || pair[0].is(sql, "FROM")) {
            continue;
        }
        if pair[1].is(sql, "DATABASE") {
            return Err(Refusal::Command("COPY FROM DATABASE"));
        }
        if pair[1].is(sql, "STDIN") || pair[1].is(sql, "STDOUT") {
            continue;
        }
        let file = match pair[1].kind {
            Kind::String => literal_value(&pair[1], sql).unwrap_or_default(),
            // DuckDB takes `COPY t TO (expression)` and a bare name as well.
            _ => pair[1].text(sql).to_owned(),
        };
        if pair[1].kind != Kind::String || !is_inside(&file, file_access) {
            return Err(Refusal::File(file));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(sql: &str) -> bool {
        check(sql, &["/srv/exchange".into()]).is_err()
    }

    #[test]
    fn commands_that_change_what_the_process_has_open_are_refused() {
        for sql in [
            "attach 'x.db'",
            "/* hi */ DETACH other",
            "load httpfs",
            "explain drop database other",
            "prepare p as create database other",
            "force install httpfs",
            "export database '/srv/exchange/x'",
            "copy from database a to b",
            "pragma memory_limit='1TB'",
            "pragma enable_profiling",
            "call enable_logging('x')",
            "select * from \"enable_logging\" ('x')",
            "select getenv('HOME')",
            "set global memory_limit='1TB'",
            "explain analyze set memory_limit='1TB'",
            "explain (analyze) reset global memory_limit",
            "from json_execute_serialized_sql(json_serialize_sql('select 1'))",
            "from query('attach ''x.db''')",
            "from query('from read_blob(''/data/x.duckdb'')')",
            "from query('from ' || 'read_blob(''/data/x.duckdb'')')",
            "create macro m(f) as table from query(f)",
        ] {
            assert!(refused(sql), "{sql}");
        }
        for sql in [
            "select 1",
            "pragma table_info('t')",
            "call pragma_version()",
            "select attach from t",
            "from query('select 1')",
            "create table query (a int)",
            "insert into query (a) values (1)",
        ] {
            assert!(!refused(sql), "{sql}");
        }
    }

    #[test]
    fn copy_reaches_only_files_in_the_permitted_directories() {
        for sql in [
            "copy t to '/data/x.duckdb'",
            "copy (select 'x') to 'relative.csv'",
            "copy t from '/srv/exchange/../secret'",
            "copy t to '/srv/exchange'",
            "copy t to x",
            "copy t to ('/data/' || 'x')",
            "explain analyze copy t to '/data/x.duckdb'",
            "explain (analyze, format json) copy t to '/data/x.duckdb'",
            "prepare p as copy t to '/data/x.duckdb'",
            "select * from read_blob('/data/x.duckdb')",
            "select * from read_blob('/data/' || 'x')",
            "select * from read_csv(['/srv/exchange/a.csv', '/data/x'])",
            "from \"read_text\" ('/etc/passwd')",
            "select * from glob('/*')",
            "explain (select * from glob('/*'))",
        ] {
            assert!(refused(sql), "{sql}");
        }
        for sql in [
            "copy t to '/srv/exchange/x.parquet' (format parquet)",
            "copy t from stdin",
            "copy (select a from t) to stdout",
            "select * from read_csv('/srv/exchange/a.csv', header = true)",
            "select * from read_parquet(['/srv/exchange/a', '/srv/exchange/b'])",
            "explain analyze select 1",
            "explain (select 1)",
        ] {
            assert!(!refused(sql), "{sql}");
        }
    }
}
