//! What the server must know of a statement before DuckDB sees it.
//!
//! DuckDB parses SQL; this module does not. It splits a query string into
//! statements, recognises those that concern the session and not the engine
//! ([`SessionStatement`]), finds out the command tag, and refuses what would let
//! a client reach past its database ([`policy`]). All of it works on the tokens
//! of [`lexer`], so that DuckDB's own syntax passes through untouched; where a
//! statement asks for PostgreSQL's catalogs, [`rewrite`](rewrite()) leads it to [`catalog`].

pub mod catalog;
mod classify;
pub mod copy;
pub mod database;
mod file_access;
pub mod lexer;
pub mod policy;
mod rewrite;
mod tag;

pub use classify::{Scope, SessionStatement, SetValue, Show, classify};
pub use rewrite::rewrite;
pub use tag::{CommandTag, command_tag};

use std::ops::Range;

/// The statements of a query string, as byte ranges without the semicolons.
/// Ranges that hold only blanks and comments are left out.
pub fn split(sql: &str) -> Vec<Range<usize>> {
    let mut statements = Vec::new();
    let mut current: Option<Range<usize>> = None;
    for token in lexer::tokens(sql) {
        if token.is(sql, ";") {
            statements.extend(current.take());
        } else {
            current.get_or_insert(token.start..token.end).end = token.end;
        }
    }
    statements.extend(current);
    statements
}

/// An identifier as it stands in the catalog: unquoted ones folded to lower
/// case, quoted ones without their quotes.
pub fn identifier(text: &str) -> String {
    match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => text.to_lowercase(),
    }
}

/// `name` as a quoted identifier.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as a string literal.
pub fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(sql: &str) -> Vec<&str> {
        split(sql).into_iter().map(|range| &sql[range]).collect()
    }

    #[test]
    fn a_query_string_is_split_at_its_semicolons() {
        assert_eq!(parts("select 1; select 2 ;"), ["select 1", "select 2"]);
        assert_eq!(parts(" ; /* a; b */ ;-- c\n"), Vec::<&str>::new());
    }

    #[test]
    fn semicolons_inside_quotes_and_comments_do_not_split() {
        assert_eq!(
            parts("select ';' /* ; */, $a$;$a$, \"x;y\" -- ;\n"),
            ["select ';' /* ; */, $a$;$a$, \"x;y\""]
        );
        assert_eq!(parts(r"select E'\';'; select 2"), [r"select E'\';'", "select 2"]);
    }

    #[test]
    fn identifiers_fold_unless_quoted() {
        assert_eq!(identifier("FooBar"), "foobar");
        assert_eq!(identifier("\"Foo\"\"Bar\""), "Foo\"Bar");
    }
}
