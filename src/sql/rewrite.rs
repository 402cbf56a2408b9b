//! PostgreSQL's ways of asking for its catalogs, in words that DuckDB knows.
//!
//! DuckDB has no `OPERATOR(…)`, no function in a schema `pg_catalog`, no types such
//! as `regclass`. What a statement says of these is replaced token by token; all the
//! rest of its text, DuckDB's own syntax too, stays as it is. A statement that has
//! nothing of the kind is not touched, and is found out by one look at its bytes.

use std::ops::Range;

use super::catalog;
use super::lexer::{Kind, Token, tokens};

/// `sql`, one statement, for DuckDB; None if it is that already.
pub fn rewrite(sql: &str) -> Option<String> {
    if !may_concern(sql.as_bytes()) {
        return None;
    }
    let tokens: Vec<Token> = tokens(sql).collect();
    let mut rewriter = Rewriter {
        sql,
        tokens: &tokens,
        edits: Vec::new(),
    };
    rewriter.run();
    rewriter.apply()
}

/// Is there anything in it that could be meant? False is certain.
fn may_concern(sql: &[u8]) -> bool {
    // Each of these has a letter pair that little else has.
    const WORDS: [&[u8]; 15] = [
        b"pg_",
        b"information_schema",
        b"operator",
        b"regclass",
        b"regtype",
        b"regproc",
        b"regnamespace",
        b"regrole",
        b"current_",
        b"session_user",
        b"version",
        b"format_type",
        b"has_",
        b"quote_",
        b"_description",
    ];
    const CASTS: [&[u8]; 5] = [b"::name", b"::\"char\"", b"::oid", b"::xid", b"array_"];
    sql.iter().enumerate().any(|(at, byte)| {
        let begins = |word: &&[u8]| {
            sql.get(at..at + word.len())
                .is_some_and(|text| text.eq_ignore_ascii_case(word))
        };
        match byte | 0x20 {
            b'p' | b'i' | b'o' | b'r' | b'c' | b's' | b'v' | b'f' | b'h' | b'q' => WORDS.iter().any(begins),
            b':' | b'a' => CASTS.iter().any(begins),
            0x7e => true,
            _ => *byte == b'_' && begins(&&b"_description"[..]),
        }
    })
}

/// What a type of PostgreSQL's catalogs is for DuckDB.
fn plain_type(name: &str) -> Option<&'static str> {
    Some(match name {
        "name" | "char" | "regoper" | "regoperator" | "pg_node_tree" | "aclitem" | "cstring" | "pg_lsn" => {
            "VARCHAR"
        }
        "oid" | "xid" | "cid" | "xid8" => "BIGINT",
        "int2vector" => "SMALLINT[]",
        "oidvector" => "BIGINT[]",
        _ => return None,
    })
}

/// The types whose values are oids that are written as names.
fn reference_type(name: &str) -> Option<&'static str> {
    Some(match name {
        "regclass" => "regclass",
        "regtype" => "regtype",
        "regproc" | "regprocedure" => "regproc",
        "regnamespace" => "regnamespace",
        "regrole" => "regrole",
        _ => return None,
    })
}

struct Rewriter<'a> {
    sql: &'a str,
    tokens: &'a [Token],
    edits: Vec<(Range<usize>, String)>,
}

impl Rewriter<'_> {
    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text(self.sql))
    }

    fn is(&self, at: usize, word: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is(self.sql, word))
    }

    /// The token before `at`, if there is one.
    fn before(&self, at: usize, word: &str) -> bool {
        at > 0 && self.is(at - 1, word)
    }

    fn name(&self, at: usize) -> Option<String> {
        let token = self.tokens.get(at).filter(|token| token.is_name())?;
        Some(super::identifier(token.text(self.sql)))
    }

    /// Puts `text` in the place of the tokens `from..to`.
    fn replace(&mut self, from: usize, to: usize, text: impl Into<String>) {
        let range = self.tokens[from].start..self.tokens[to - 1].end;
        self.edits.push((range, text.into()));
    }

    /// Puts `text` before the token `at`.
    fn insert(&mut self, at: usize, text: String) {
        let start = self.tokens[at].start;
        self.edits.push((start..start, text));
    }

    fn run(&mut self) {
        let mut at = 0;
        while at < self.tokens.len() {
            at = self.step(at);
        }
    }

    /// Looks at what begins at `at`; returns where to look next.
    fn step(&mut self, at: usize) -> usize {
        if self.is(at, "OPERATOR") && self.is(at + 1, "(") {
            return self.operator(at);
        }
        if self.is(at, ":") && self.is(at + 1, ":") {
            return self.cast(at);
        }
        if matches!(self.text(at), "~" | "!")
            && !(at > 0 && is_operator(self.text(at - 1)) && self.adjacent(at - 1))
        {
            return self.pattern(at);
        }
        if self.is(at, "COLLATE") {
            return self.collation(at);
        }
        let Some(name) = self.name(at) else {
            return at + 1;
        };
        // Part of a longer name, which was looked at from its beginning.
        if self.before(at, ".") {
            return at + 1;
        }
        if self.is(at + 1, ".") {
            let Some(second) = self.name(at + 2) else {
                return at + 2;
            };
            return match name.as_str() {
                "pg_catalog" => self.of_pg_catalog(at, &second),
                "information_schema" => {
                    if let Some(place) = catalog::information_schema(&second)
                        && !self.is(at + 3, ".")
                    {
                        self.replace(at, at + 3, place);
                    }
                    at + 3
                }
                // PostgreSQL's hidden column says of which catalog a row is. Only
                // comments of what cannot have any are looked up by it.
                _ if second == "tableoid" && self.sql.contains("pg_catalog.") => {
                    self.replace(at, at + 3, "0");
                    at + 3
                }
                _ => at + 3,
            };
        }
        self.unqualified(at, &name)
    }

    /// `OPERATOR(pg_catalog.~)`
    fn operator(&mut self, at: usize) -> usize {
        let mut from = at + 2;
        if self.name(from).is_some() && self.is(from + 1, ".") {
            from += 2;
        }
        let mut to = from;
        while to < self.tokens.len() && !self.is(to, ")") {
            to += 1;
        }
        if to == from || to == self.tokens.len() {
            return at + 2;
        }
        let symbol = self.sql[self.tokens[from].start..self.tokens[to - 1].end].to_owned();
        if let Some((symbol, flags)) = matching(&symbol) {
            self.replace(at, to + 1, format!(" {symbol} "));
            self.unanchor(to + 1, flags);
        } else {
            self.replace(at, to + 1, format!(" {symbol} "));
        }
        to + 1
    }

    /// Is there nothing between the token `at` and the next one?
    fn adjacent(&self, at: usize) -> bool {
        self.tokens
            .get(at + 1)
            .is_some_and(|next| next.start == self.tokens[at].end)
    }

    /// `~`, `~*`, `!~`, `!~*` between two operands. PostgreSQL's ask whether the
    /// pattern is somewhere in the text, DuckDB's whether it is all of it.
    fn pattern(&mut self, at: usize) -> usize {
        let mut to = at + 1;
        while is_operator(self.text(to)) && self.adjacent(to - 1) {
            to += 1;
        }
        let symbol = self.sql[self.tokens[at].start..self.tokens[to - 1].end].to_owned();
        let is_binary = at > 0 && {
            let token = &self.tokens[at - 1];
            match token.kind {
                Kind::Word => !precedes_an_expression(token.text(self.sql)),
                Kind::Symbol => matches!(token.text(self.sql), ")" | "]"),
                _ => true,
            }
        };
        if let Some((symbol, flags)) = matching(&symbol).filter(|_| is_binary)
            && self.unanchor(to, flags)
        {
            self.replace(at, to, symbol);
        }
        to
    }

    /// Makes of the pattern at `at` one that fits wherever in a text it is found.
    fn unanchor(&mut self, at: usize, flags: &str) -> bool {
        let Some(token) = self.tokens.get(at) else {
            return false;
        };
        let mut last = at;
        match token.kind {
            Kind::String | Kind::Parameter => {}
            Kind::Symbol if token.text(self.sql) == "(" => match self.closing(at) {
                Some(end) => last = end,
                None => return false,
            },
            Kind::Word | Kind::QuotedIdentifier => {
                while self.is(last + 1, ".") && self.name(last + 2).is_some() {
                    last += 2;
                }
                if self.is(last + 1, "(") {
                    match self.closing(last + 1) {
                        Some(end) => last = end,
                        None => return false,
                    }
                }
            }
            Kind::Number | Kind::Symbol => return false,
        }
        self.insert(at, format!("('(?s:.*)(?s{flags}:' || "));
        let end = self.tokens[last].end;
        self.edits.push((end..end, " || ')(?s:.*)')".to_owned()));
        true
    }

    /// `pg_catalog.generate_series(…) s` in FROM: what PostgreSQL calls `s` there is
    /// the number itself.
    fn series(&mut self, at: usize) {
        let in_from = ["FROM", "JOIN", ",", "LATERAL"]
            .iter()
            .any(|word| self.before(at, word));
        let Some(end) = self.closing(at + 3).filter(|_| in_from) else {
            return;
        };
        let alias = if self.is(end + 1, "AS") { end + 2 } else { end + 1 };
        let Some(name) = self.name(alias) else { return };
        let ends = [
            "WHERE", "ON", "ORDER", "GROUP", "LEFT", "JOIN", "CROSS", "LIMIT", "UNION",
        ];
        if !self.is(alias + 1, "(") && !ends.iter().any(|word| self.is(alias, word)) {
            let end = self.tokens[alias].end;
            self.edits
                .push((end..end, format!("({})", super::quote_identifier(&name))));
        }
    }

    /// `COLLATE pg_catalog.default`: it is the one that DuckDB has by itself.
    fn collation(&mut self, at: usize) -> usize {
        let qualified = self.is(at + 1, "pg_catalog") && self.is(at + 2, ".");
        let name = if qualified { at + 3 } else { at + 1 };
        if matches!(self.name(name).as_deref(), Some("default" | "C" | "c" | "POSIX")) {
            self.replace(at, name + 1, "");
            return name + 1;
        }
        at + 1
    }

    /// `pg_catalog.<name>`, as a function, a table, or the table of a column.
    fn of_pg_catalog(&mut self, at: usize, name: &str) -> usize {
        let place = match self.text(at + 3) {
            "(" => catalog::function(name),
            "." => None,
            _ => catalog::relation(name),
        };
        if name == "pg_partition_ancestors"
            && let Some(end) = self.closing(at + 3)
            && self.is(end + 1, "WITH")
            && self.is(end + 2, "ORDINALITY")
        {
            // No table is a partition here.
            self.replace(at, end + 3, "(SELECT NULL::BIGINT, NULL::BIGINT WHERE false)");
            return end + 3;
        }
        if name == "generate_series" && self.is(at + 3, "(") {
            self.series(at);
        }
        let setting = name == "current_setting"
            && self.is(at + 3, "(")
            && self
                .tokens
                .get(at + 4)
                .is_some_and(|token| token.kind != Kind::String);
        if setting {
            // DuckDB's own takes a constant only.
            self.replace(at, at + 3, catalog::helper("setting_value"));
        } else if let Some(place) = place {
            self.replace(at, at + 3, place);
        } else if matches!(self.text(at + 3), "(" | ".") {
            self.replace(at, at + 2, "");
        }
        at + 3
    }

    fn unqualified(&mut self, at: usize, name: &str) -> usize {
        if self.is(at + 1, "(") {
            if name == "cast" {
                self.cast_call(at);
            } else if let Some(place) = catalog::function(name) {
                self.replace(at, at + 1, place);
            }
            return at + 1;
        }
        let quoted = self.tokens[at].kind == Kind::QuotedIdentifier;
        let is_word_function = matches!(
            name,
            "current_user" | "session_user" | "current_role" | "user" | "current_catalog"
        );
        if is_word_function && !quoted {
            // Where it is no name of something else.
            let stands_alone = !self.before(at, "AS")
                && !self.before(at, "FROM")
                && !self.before(at, "JOIN")
                && !self.before(at, "INTO")
                && !self.before(at, "UPDATE")
                && !self.before(at, "TABLE");
            if stands_alone && (name != "user" || self.before(at, "SELECT")) {
                self.replace(at, at + 1, format!("{}()", catalog::helper(name)));
            }
            return at + 1;
        }
        if let Some(place) = catalog::relation(name)
            && ["FROM", "JOIN", "ONLY", ","]
                .iter()
                .any(|word| self.before(at, word))
            && !self.is(at + 1, ".")
        {
            self.replace(at, at + 1, place);
        }
        at + 1
    }

    /// `expression::type`; DuckDB has not all of PostgreSQL's types.
    fn cast(&mut self, at: usize) -> usize {
        let qualified = self.is(at + 2, "pg_catalog") && self.is(at + 3, ".");
        let from = if qualified { at + 4 } else { at + 2 };
        let Some(name) = self.name(from) else {
            return at + 2;
        };
        if let Some(kind) = reference_type(&name) {
            let operand = self.operand(at);
            let function = self.reference(kind, operand..at, from + 1);
            self.insert(operand, format!("{function}("));
            self.replace(at, from + 1, ")");
        } else if let Some(other) = plain_type(&name) {
            self.replace(at + 2, from + 1, other);
        } else if qualified {
            let word = self.text(from).to_owned();
            self.replace(at + 2, from + 1, word);
        }
        from + 1
    }

    /// `CAST(expression AS type)` where the type is one of a reference, or plain.
    fn cast_call(&mut self, at: usize) {
        let Some(end) = self.closing(at + 1) else { return };
        let mut from = end - 1;
        let Some(name) = self.name(from) else { return };
        if self.is(from - 1, ".") && self.is(from - 2, "pg_catalog") {
            from -= 2;
        }
        if from <= at + 2 || !self.is(from - 1, "AS") {
            return;
        }
        if let Some(kind) = reference_type(&name) {
            let function = self.reference(kind, at + 2..from - 1, end + 1);
            self.replace(at, at + 1, function);
            self.replace(from - 1, end, "");
        } else if let Some(other) = plain_type(&name) {
            self.replace(from, end, other);
        } else if from + 1 < end {
            let name = self.text(end - 1).to_owned();
            self.replace(from, end, name);
        }
    }

    /// A reference is a number where it is made of a constant or compared, and a
    /// name where it is shown; only DuckDB knows no type that is both.
    fn reference(&self, kind: &str, operand: Range<usize>, behind: usize) -> String {
        let constant =
            operand.len() == 1 && matches!(self.tokens[operand.start].kind, Kind::String | Kind::Parameter);
        let mut to = behind;
        let mut cast = None;
        if self.is(to, ":") && self.is(to + 1, ":") {
            to += 2;
            if self.is(to, "pg_catalog") && self.is(to + 1, ".") {
                to += 2;
            }
            cast = self.name(to);
        }
        let as_text = match cast.as_deref() {
            Some("text" | "varchar" | "name") => true,
            Some(_) => false,
            None => !constant,
        };
        catalog::helper(&format!("{kind}_{}", if as_text { "text" } else { "oid" }))
    }

    /// The token at which the operand of the cast at `at` begins.
    fn operand(&self, at: usize) -> usize {
        let mut from = at.saturating_sub(1);
        loop {
            if matches!(self.text(from), ")" | "]") {
                from = self.opening(from);
                // What is called or indexed.
                let called = from > 0 && {
                    let token = &self.tokens[from - 1];
                    token.kind == Kind::QuotedIdentifier
                        || matches!(token.text(self.sql), ")" | "]")
                        || token.kind == Kind::Word && !precedes_an_expression(token.text(self.sql))
                };
                if called {
                    from -= 1;
                    continue;
                }
            }
            while from >= 2 && self.is(from - 1, ".") {
                from -= 2;
            }
            // `a::b::c`
            if from >= 3 && self.is(from - 1, ":") && self.is(from - 2, ":") {
                from -= 3;
                continue;
            }
            return from;
        }
    }

    /// Where the parenthesis that is closed at `at` was opened.
    fn opening(&self, at: usize) -> usize {
        let mut depth = 0_usize;
        for from in (0..=at).rev() {
            match self.text(from) {
                ")" | "]" => depth += 1,
                "(" | "[" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return from;
            }
        }
        0
    }

    /// Where the parenthesis that is opened at `at` is closed.
    fn closing(&self, at: usize) -> Option<usize> {
        let mut depth = 0_usize;
        (at..self.tokens.len()).find(|to| {
            match self.text(*to) {
                "(" | "[" => depth += 1,
                ")" | "]" => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0
        })
    }

    fn apply(mut self) -> Option<String> {
        if self.edits.is_empty() {
            return None;
        }
        // Of what is put into one place the outer comes first, and was found last.
        self.edits.reverse();
        self.edits.sort_by_key(|(range, _)| (range.start, range.end));
        let mut text = String::with_capacity(self.sql.len() + 64 * self.edits.len());
        let mut copied = 0;
        for (range, other) in &self.edits {
            if range.start < copied {
                continue;
            }
            text.push_str(&self.sql[copied..range.start]);
            text.push_str(other);
            copied = range.end;
        }
        text.push_str(&self.sql[copied..]);
        Some(text)
    }
}

/// A character that operators are made of.
fn is_operator(text: &str) -> bool {
    text.len() == 1 && "~!@#%^&|?<>=+-*/".contains(text)
}

/// DuckDB's operator and the flags of the pattern for one that matches patterns.
fn matching(symbol: &str) -> Option<(&'static str, &'static str)> {
    Some(match symbol {
        "~" => ("~", ""),
        "~*" => ("~", "i"),
        "!~" => ("!~", ""),
        "!~*" => ("!~", "i"),
        _ => return None,
    })
}

/// A parenthesis behind these words is an expression, and not of a call.
fn precedes_an_expression(word: &str) -> bool {
    const WORDS: [&str; 14] = [
        "SELECT", "WHERE", "AND", "OR", "NOT", "IN", "ON", "WHEN", "THEN", "ELSE", "CASE", "BY", "HAVING",
        "FROM",
    ];
    WORDS.iter().any(|other| other.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(sql: &str) -> String {
        rewrite(sql).unwrap_or_else(|| sql.to_owned())
    }

    #[test]
    fn what_is_not_of_the_catalogs_is_not_touched() {
        for sql in [
            "select 1",
            "from t select * exclude (a)",
            "select current_date, 'pg_class', \"pg_class\".x from t",
            "select a.pg_class from a",
            "create table relations (name varchar)",
            "select x::int, y::text from pg_mine",
            "select operator from calls",
        ] {
            assert_eq!(rewrite(sql), None, "{sql}");
        }
    }

    #[test]
    fn tables_of_the_catalogs_are_found_with_and_without_their_schema() {
        assert_eq!(
            rewritten("select pg_class.oid, pg_catalog.pg_class.relname from pg_class, pg_catalog.pg_type t"),
            "select pg_class.oid, pg_class.relname from __duckgres.pg.pg_class, __duckgres.pg.pg_type t"
        );
        assert_eq!(
            rewritten("select * from information_schema.columns join information_schema.nothing"),
            "select * from __duckgres.info.columns join information_schema.nothing"
        );
    }

    #[test]
    fn functions_and_operators_of_pg_catalog_are_found() {
        assert_eq!(
            rewritten(
                "select pg_catalog.format_type(a, null), pg_catalog.lower(b) where c OPERATOR(pg_catalog.~) '^x$' COLLATE pg_catalog.default"
            ),
            "select __duckgres.pg.format_type(a, null), lower(b) where c  ~  ('(?s:.*)(?s:' || '^x$' || ')(?s:.*)') "
        );
    }

    #[test]
    fn a_pattern_may_be_anywhere_in_the_text() {
        let anywhere = |flags: &str, what: &str| format!("('(?s:.*)(?s{flags}:' || {what} || ')(?s:.*)')");
        for (sql, expected) in [
            ("select a ~ 'x'", format!("select a ~ {}", anywhere("", "'x'"))),
            (
                "where a !~* b.c and d",
                format!("where a !~ {} and d", anywhere("i", "b.c")),
            ),
            (
                "where f(a) ~* $1",
                format!("where f(a) ~ {}", anywhere("i", "$1")),
            ),
            (
                "where a ~ (b || c)",
                format!("where a ~ {}", anywhere("", "(b || c)")),
            ),
            (
                "where a ~ lower(b)",
                format!("where a ~ {}", anywhere("", "lower(b)")),
            ),
        ] {
            assert_eq!(rewritten(sql), expected);
        }
        for sql in [
            "select ~ 5",
            "select a ~~ 'x'",
            "select a !~~* 'x'",
            "select 5 & ~ 3",
            "select a ~",
        ] {
            assert_eq!(rewrite(sql), None, "{sql}");
        }
    }

    #[test]
    fn what_a_series_in_from_is_called_is_its_number() {
        assert_eq!(
            rewritten("from pg_catalog.generate_series(1, n) s where x[s] = 1"),
            "from generate_series(1, n) s(\"s\") where x[s] = 1"
        );
    }

    #[test]
    fn a_reference_is_a_number_or_a_name() {
        for (sql, expected) in [
            ("select 't'::regclass", "select __duckgres.pg.regclass_oid('t')"),
            (
                "select 't'::regclass::text",
                "select __duckgres.pg.regclass_text('t')::text",
            ),
            (
                "select a.oid::pg_catalog.regclass from a",
                "select __duckgres.pg.regclass_text(a.oid) from a",
            ),
            (
                "select f(a)::regtype::oid",
                "select __duckgres.pg.regtype_oid(f(a))::BIGINT",
            ),
            (
                "where (a || b)::regclass = 1",
                "where __duckgres.pg.regclass_text((a || b)) = 1",
            ),
            (
                "select cast('t' as regclass)",
                "select __duckgres.pg.regclass_oid('t' )",
            ),
            (
                "select $1::oid::regclass",
                "select __duckgres.pg.regclass_text($1::BIGINT)",
            ),
            ("select x::\"char\", y::name[]", "select x::VARCHAR, y::VARCHAR[]"),
        ] {
            assert_eq!(rewritten(sql), expected);
        }
    }

    #[test]
    fn who_asks_is_asked_of_the_server() {
        assert_eq!(
            rewritten("select current_user"),
            "select __duckgres.pg.\"current_user\"()"
        );
        assert_eq!(rewritten("select a as current_user"), "select a as current_user");
    }

    #[test]
    fn any_text_is_taken() {
        for sql in [
            "x::",
            "::regclass",
            "operator(",
            ")::regclass",
            "pg_catalog.",
            "cast(as regclass)",
            "cast( regclass)",
        ] {
            let _ = rewrite(sql);
        }
    }
}
