//! PostgreSQL's lexical rules, as far as they decide where a token ends.
//!
//! Total: every input yields tokens that cover it but for blanks and comments,
//! in order, and an unterminated quote or comment reaches to the end. Whether
//! the tokens make sense is for DuckDB's parser to say.
//! Source: PostgreSQL manual, section 4.1 "Lexical Structure".

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A keyword or an unquoted identifier.
    Word,
    /// `"…"`.
    QuotedIdentifier,
    /// `'…'`, `E'…'`, `B'…'`, `X'…'`, `U&'…'`, `$tag$…$tag$`.
    String,
    /// A number.
    Number,
    /// `$1`.
    Parameter,
    /// Any other single character.
    Symbol,
}

/// A token's kind and place, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Token {
    /// The token's text in `sql`, the string it was found in.
    pub fn text<'a>(&self, sql: &'a str) -> &'a str {
        &sql[self.start..self.end]
    }

    /// Is it the keyword or symbol `word`, in any case?
    pub fn is(&self, sql: &str, word: &str) -> bool {
        matches!(self.kind, Kind::Word | Kind::Symbol) && self.text(sql).eq_ignore_ascii_case(word)
    }

    /// Can it stand for a name: a word or a quoted identifier?
    pub fn is_name(&self) -> bool {
        matches!(self.kind, Kind::Word | Kind::QuotedIdentifier)
    }

    /// The number of a parameter, `$1` being 1.
    pub fn parameter(&self, sql: &str) -> Option<usize> {
        (self.kind == Kind::Parameter)
            .then(|| self.text(sql)[1..].parse().ok())
            .flatten()
    }
}

/// The tokens of `sql`, without blanks and comments.
pub fn tokens(sql: &str) -> Tokens<'_> {
    Tokens {
        sql: sql.as_bytes(),
        at: 0,
    }
}

/// See [`tokens`].
#[derive(Debug, Clone)]
pub struct Tokens<'a> {
    sql: &'a [u8],
    at: usize,
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        self.skip_blanks();
        let start = self.at;
        let first = *self.sql.get(start)?;
        let kind = match first {
            b'\'' => self.string(false),
            b'"' => {
                self.quoted(b'"');
                Kind::QuotedIdentifier
            }
            b'$' => self.dollar(),
            b'0'..=b'9' => self.number(),
            b'.' if self.peek(1).is_ascii_digit() => self.number(),
            b'e' | b'E' if self.peek(1) == b'\'' => {
                self.at += 1;
                self.string(true)
            }
            b'b' | b'B' | b'x' | b'X' | b'n' | b'N' if self.peek(1) == b'\'' => {
                self.at += 1;
                self.string(false)
            }
            b'u' | b'U' if self.peek(1) == b'&' && matches!(self.peek(2), b'\'' | b'"') => {
                self.at += 2;
                match self.sql[self.at] {
                    b'"' => {
                        self.quoted(b'"');
                        Kind::QuotedIdentifier
                    }
                    _ => self.string(false),
                }
            }
            byte if starts_word(byte) => {
                while self.at < self.sql.len() && continues_word(self.sql[self.at]) {
                    self.at += 1;
                }
                Kind::Word
            }
            _ => {
                self.at += 1;
                Kind::Symbol
            }
        };
        Some(Token {
            kind,
            start,
            end: self.at,
        })
    }
}

impl Tokens<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.sql.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn skip_blanks(&mut self) {
        loop {
            match self.peek(0) {
                b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c => self.at += 1,
                b'-' if self.peek(1) == b'-' => {
                    while self.at < self.sql.len() && self.sql[self.at] != b'\n' {
                        self.at += 1;
                    }
                }
                b'/' if self.peek(1) == b'*' => self.skip_block_comment(),
                _ => return,
            }
        }
    }

    /// Block comments nest.
    fn skip_block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.sql.len() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    /// Passes a quoted run whose quote is doubled to stand for itself.
    fn quoted(&mut self, quote: u8) {
        self.at += 1;
        while self.at < self.sql.len() {
            if self.sql[self.at] != quote {
                self.at += 1;
            } else if self.peek(1) == quote {
                self.at += 2;
            } else {
                self.at += 1;
                return;
            }
        }
    }

    fn string(&mut self, backslash_escapes: bool) -> Kind {
        if backslash_escapes {
            self.at += 1;
            while self.at < self.sql.len() {
                match self.sql[self.at] {
                    b'\\' => self.at = (self.at + 2).min(self.sql.len()),
                    b'\'' if self.peek(1) == b'\'' => self.at += 2,
                    b'\'' => {
                        self.at += 1;
                        break;
                    }
                    _ => self.at += 1,
                }
            }
        } else {
            self.quoted(b'\'');
        }
        Kind::String
    }

    fn dollar(&mut self) -> Kind {
        if self.peek(1).is_ascii_digit() {
            self.at += 1;
            while self.peek(0).is_ascii_digit() {
                self.at += 1;
            }
            return Kind::Parameter;
        }
        let mut tag_end = self.at + 1;
        while tag_end < self.sql.len() && continues_word(self.sql[tag_end]) && self.sql[tag_end] != b'$' {
            tag_end += 1;
        }
        if self.sql.get(tag_end) != Some(&b'$') {
            self.at += 1;
            return Kind::Symbol;
        }
        let tag = &self.sql[self.at..=tag_end];
        let body = tag_end + 1;
        self.at = self.sql[body..]
            .windows(tag.len())
            .position(|window| window == tag)
            .map_or(self.sql.len(), |found| body + found + tag.len());
        Kind::String
    }

    fn number(&mut self) -> Kind {
        while matches!(self.peek(0), b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'.') {
            // `1..2` is a range of two numbers nowhere, but `1.e` ends a number.
            let exponent = matches!(self.peek(0), b'e' | b'E') && matches!(self.peek(1), b'+' | b'-');
            self.at += if exponent { 2 } else { 1 };
        }
        Kind::Number
    }
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_word(byte: u8) -> bool {
    starts_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds(sql: &str) -> Vec<(Kind, &str)> {
        tokens(sql).map(|token| (token.kind, token.text(sql))).collect()
    }

    #[test]
    fn each_kind_of_token_is_recognised() {
        use Kind::*;
        assert_eq!(
            kinds("Select \"a\"\"b\", 'it''s', E'\\'', $tag$ ' $tag$, $1, 1.5e-3 /* x /* y */ */ ;"),
            [
                (Word, "Select"),
                (QuotedIdentifier, "\"a\"\"b\""),
                (Symbol, ","),
                (String, "'it''s'"),
                (Symbol, ","),
                (String, "E'\\''"),
                (Symbol, ","),
                (String, "$tag$ ' $tag$"),
                (Symbol, ","),
                (Parameter, "$1"),
                (Symbol, ","),
                (Number, "1.5e-3"),
                (Symbol, ";"),
            ]
        );
    }

    #[test]
    fn an_unterminated_quote_reaches_to_the_end() {
        assert_eq!(kinds("a 'b; c"), [(Kind::Word, "a"), (Kind::String, "'b; c")]);
        assert_eq!(kinds("$x$ abc"), [(Kind::String, "$x$ abc")]);
        assert_eq!(kinds("/* a"), []);
        assert_eq!(kinds("E'\\"), [(Kind::String, "E'\\")]);
    }

    proptest! {
        #[test]
        fn any_input_yields_ordered_tokens_on_character_borders(sql in "\\PC*") {
            let mut at = 0;
            for token in tokens(&sql) {
                prop_assert!(token.start >= at && token.end > token.start);
                prop_assert!(sql.is_char_boundary(token.start) && sql.is_char_boundary(token.end));
                at = token.end;
            }
        }
    }
}
