//! The tag of CommandComplete.
//!
//! Clients read counts out of it, and tools decide by it whether a schema
//! changed. Source: PostgreSQL manual, section 55.7, CommandComplete.

use super::lexer::tokens;

/// A command's name for CommandComplete, and whether a row count belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandTag {
    name: String,
    counted: bool,
}

impl CommandTag {
    /// A tag without a count.
    pub fn plain(name: impl Into<String>) -> CommandTag {
        CommandTag {
            name: name.into(),
            counted: false,
        }
    }

    /// A tag that ends in the number of rows.
    pub fn counted(name: impl Into<String>) -> CommandTag {
        CommandTag {
            name: name.into(),
            counted: true,
        }
    }

    /// The tag's text for a command that returned or changed `rows` rows.
    pub fn text(&self, rows: u64) -> String {
        match (self.counted, self.name.as_str()) {
            (false, name) => name.to_owned(),
            // The zero was once the OID of an inserted row.
            (true, "INSERT") => format!("INSERT 0 {rows}"),
            (true, name) => format!("{name} {rows}"),
        }
    }
}

/// The tag of a statement that DuckDB runs. What has no PostgreSQL counterpart
/// and returns rows counts as SELECT, so that every client reads the rows.
pub fn command_tag(sql: &str) -> CommandTag {
    let words: Vec<String> = tokens(sql)
        .take(8)
        .filter(|token| token.is_name())
        .map(|token| token.text(sql).to_uppercase())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["INSERT" | "UPDATE" | "DELETE" | "MERGE" | "COPY", ..] => CommandTag::counted(words[0]),
        ["CREATE" | "DROP" | "ALTER", rest @ ..] => ddl_tag(words[0], rest, sql),
        ["TRUNCATE", ..] => CommandTag::plain("TRUNCATE TABLE"),
        ["COMMENT", ..] => CommandTag::plain("COMMENT"),
        ["EXPLAIN", ..] => CommandTag::plain("EXPLAIN"),
        [
            "ANALYZE" | "VACUUM" | "CHECKPOINT" | "PREPARE" | "USE" | "SET" | "RESET",
            ..,
        ] => CommandTag::plain(words[0]),
        ["FORCE", "CHECKPOINT", ..] => CommandTag::plain("CHECKPOINT"),
        ["WITH", ..] => with_tag(sql),
        _ => CommandTag::counted("SELECT"),
    }
}

fn ddl_tag(verb: &str, rest: &[&str], sql: &str) -> CommandTag {
    const MODIFIERS: [&str; 12] = [
        "OR",
        "REPLACE",
        "TEMP",
        "TEMPORARY",
        "LOCAL",
        "GLOBAL",
        "UNIQUE",
        "PERSISTENT",
        "RECURSIVE",
        "UNLOGGED",
        "IF",
        "EXISTS",
    ];
    let Some(kind) = rest.iter().find(|word| !MODIFIERS.contains(word)) else {
        return CommandTag::plain(verb);
    };
    if verb == "CREATE" && *kind == "TABLE" && is_create_table_as(sql) {
        return CommandTag::counted("SELECT");
    }
    let kind = match *kind {
        "MACRO" => "FUNCTION",
        "MATERIALIZED" => "MATERIALIZED VIEW",
        kind => kind,
    };
    CommandTag::plain(format!("{verb} {kind}"))
}

/// `CREATE TABLE x AS …`: an AS outside the column list.
fn is_create_table_as(sql: &str) -> bool {
    let mut depth = 0_i32;
    for token in tokens(sql) {
        match token.text(sql) {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ if depth == 0 && token.is(sql, "AS") => return true,
            _ => {}
        }
    }
    false
}

/// The verb of a statement that begins WITH: the first one outside parentheses.
fn with_tag(sql: &str) -> CommandTag {
    let mut depth = 0_i32;
    for token in tokens(sql) {
        match token.text(sql) {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ if depth != 0 => {}
            text => {
                for verb in ["SELECT", "INSERT", "UPDATE", "DELETE", "MERGE"] {
                    if token.is(sql, verb) && text.len() == verb.len() {
                        return CommandTag::counted(verb);
                    }
                }
            }
        }
    }
    CommandTag::counted("SELECT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_those_of_postgresql() {
        for (sql, tag) in [
            ("select 1", "SELECT 7"),
            ("FROM t", "SELECT 7"),
            ("insert into t values (1)", "INSERT 0 7"),
            ("with x as (select 1) update t set a = 1", "UPDATE 7"),
            ("with x as (delete from y returning *) select 1", "SELECT 7"),
            ("create or replace temp table t (a int)", "CREATE TABLE"),
            ("create table t as select 1", "SELECT 7"),
            (
                "create table t (a int default (1 + cast(2 as int)))",
                "CREATE TABLE",
            ),
            ("create unique index i on t (a)", "CREATE INDEX"),
            ("drop view if exists v", "DROP VIEW"),
            ("alter table t add column b int", "ALTER TABLE"),
            ("explain select 1", "EXPLAIN"),
            ("truncate t", "TRUNCATE TABLE"),
        ] {
            assert_eq!(command_tag(sql).text(7), tag, "{sql}");
        }
    }
}
