//! `COPY … FROM STDIN` and `COPY … TO STDOUT`, whose data travels in the
//! protocol and therefore belongs to the session, not to DuckDB.
//!
//! Both option syntaxes of PostgreSQL are read: the parenthesised list and the
//! older `WITH CSV HEADER DELIMITER ','`. Source: PostgreSQL manual, COPY.

use super::classify::literal_value;
use super::identifier;
use super::lexer::{Kind, Token, tokens};

/// A COPY whose data travels in the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyStatement {
    /// What is copied.
    pub subject: Subject,
    /// To the server or from it.
    pub direction: Direction,
    /// Options in the order given, names in lower case.
    pub options: Vec<(String, OptionValue)>,
}

/// The table or query of a COPY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A table, as it was written (perhaps with schema and quotes).
    Table {
        /// The name as written.
        name: String,
        /// The column list, empty if none was given.
        columns: Vec<String>,
    },
    /// The query between the parentheses.
    Query(String),
}

/// Which way the data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// COPY FROM STDIN.
    In,
    /// COPY TO STDOUT.
    Out,
}

/// The value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionValue {
    /// The option stands alone.
    None,
    /// A word, number or string.
    One(String),
    /// A column list.
    Columns(Vec<String>),
    /// `*`, all columns.
    All,
}

impl OptionValue {
    /// The value as a switch, on when it stands alone.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            OptionValue::None => Some(true),
            OptionValue::One(word) => match word.to_ascii_lowercase().as_str() {
                "true" | "on" | "1" => Some(true),
                "false" | "off" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Reads a COPY from STDIN or to STDOUT; `None` is any other statement.
pub fn parse(sql: &str) -> Option<CopyStatement> {
    Parser {
        sql,
        tokens: tokens(sql).collect(),
        at: 0,
    }
    .copy()
}

struct Parser<'a> {
    sql: &'a str,
    tokens: Vec<Token>,
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<Token> {
        self.tokens.get(self.at).copied()
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.peek();
        self.at += usize::from(token.is_some());
        token
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.is(self.sql, word));
        self.at += usize::from(found);
        found
    }

    fn copy(mut self) -> Option<CopyStatement> {
        if !self.take("COPY") {
            return None;
        }
        let subject = if self.peek()?.text(self.sql) == "(" {
            self.query()?
        } else {
            self.table()?
        };
        let direction = match () {
            () if self.take("FROM") && self.take("STDIN") => Direction::In,
            () if self.take("TO") && self.take("STDOUT") => Direction::Out,
            () => return None,
        };
        let bracketed = self.take("WITH");
        let options = match self.peek() {
            None if bracketed => return None,
            None => Vec::new(),
            Some(token) if token.text(self.sql) == "(" => self.list()?,
            Some(_) => self.legacy()?,
        };
        (self.at == self.tokens.len()).then_some(CopyStatement {
            subject,
            direction,
            options,
        })
    }

    fn query(&mut self) -> Option<Subject> {
        let start = self.next()?.end;
        let mut depth = 1;
        loop {
            let token = self.next()?;
            depth += match token.text(self.sql) {
                "(" => 1,
                ")" => -1,
                _ => 0,
            };
            if depth == 0 {
                return Some(Subject::Query(self.sql[start..token.start].trim().to_owned()));
            }
        }
    }

    fn table(&mut self) -> Option<Subject> {
        let start = self.peek()?.start;
        let mut end = self.next().filter(Token::is_name)?.end;
        while self.take(".") {
            end = self.next().filter(Token::is_name)?.end;
        }
        let columns = if self.peek()?.text(self.sql) == "(" {
            self.columns()?
        } else {
            Vec::new()
        };
        Some(Subject::Table {
            name: self.sql[start..end].to_owned(),
            columns,
        })
    }

    fn columns(&mut self) -> Option<Vec<String>> {
        self.take("(").then_some(())?;
        let mut columns = Vec::new();
        loop {
            columns.push(identifier(self.next().filter(Token::is_name)?.text(self.sql)));
            if self.take(")") {
                return Some(columns);
            }
            self.take(",").then_some(())?;
        }
    }

    fn scalar(&mut self) -> Option<OptionValue> {
        let token = self.next()?;
        match token.kind {
            Kind::String => literal_value(&token, self.sql).map(OptionValue::One),
            Kind::Word | Kind::Number | Kind::QuotedIdentifier => Some(OptionValue::One(
                token.text(self.sql).trim_matches('"').to_owned(),
            )),
            Kind::Parameter | Kind::Symbol => None,
        }
    }

    fn list(&mut self) -> Option<Vec<(String, OptionValue)>> {
        self.take("(").then_some(())?;
        let mut options = Vec::new();
        loop {
            let name = self.next().filter(Token::is_name)?.text(self.sql).to_lowercase();
            let value = match self.peek()?.text(self.sql) {
                "," | ")" => OptionValue::None,
                "(" => OptionValue::Columns(self.columns()?),
                "*" => {
                    self.at += 1;
                    OptionValue::All
                }
                _ => self.scalar()?,
            };
            options.push((name, value));
            if self.take(")") {
                return Some(options);
            }
            self.take(",").then_some(())?;
        }
    }

    fn legacy(&mut self) -> Option<Vec<(String, OptionValue)>> {
        let mut options = Vec::new();
        while self.peek().is_some() {
            let word = self.next().filter(Token::is_name)?.text(self.sql).to_lowercase();
            options.push(match word.as_str() {
                "csv" | "binary" => ("format".to_owned(), OptionValue::One(word)),
                "header" => (word, OptionValue::None),
                "delimiter" | "null" | "quote" | "escape" | "encoding" => {
                    self.take("AS");
                    (word, self.scalar()?)
                }
                "force" => {
                    let kind = match () {
                        () if self.take("QUOTE") => "force_quote",
                        () if self.take("NULL") => "force_null",
                        () if self.take("NOT") && self.take("NULL") => "force_not_null",
                        () => return None,
                    };
                    if self.take("*") {
                        (kind.to_owned(), OptionValue::All)
                    } else {
                        let mut columns =
                            vec![identifier(self.next().filter(Token::is_name)?.text(self.sql))];
                        while self.take(",") {
                            columns.push(identifier(self.next().filter(Token::is_name)?.text(self.sql)));
                        }
                        (kind.to_owned(), OptionValue::Columns(columns))
                    }
                }
                _ => return None,
            });
        }
        Some(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_option_syntaxes_mean_the_same() {
        let one = parse("copy s.\"T\" (a, \"B\") from stdin with (format csv, header true, delimiter ';')")
            .unwrap();
        assert_eq!(
            one.subject,
            Subject::Table {
                name: "s.\"T\"".into(),
                columns: vec!["a".into(), "B".into()]
            }
        );
        assert_eq!(one.direction, Direction::In);
        let other = parse("copy s.\"T\" (a, \"B\") from stdin csv header delimiter as ';'").unwrap();
        assert_eq!(other.options[0], one.options[0]);
        assert_eq!(other.options[1].1.as_bool(), one.options[1].1.as_bool());
        assert_eq!(other.options[2], one.options[2]);
    }

    #[test]
    fn a_query_may_hold_parentheses_and_strings() {
        let copy = parse("COPY (select ')' from (values (1)) t) TO STDOUT").unwrap();
        assert_eq!(
            copy.subject,
            Subject::Query("select ')' from (values (1)) t".into())
        );
        assert_eq!(copy.direction, Direction::Out);
    }

    #[test]
    fn copies_of_files_are_not_the_sessions() {
        assert_eq!(parse("copy t from '/x'"), None);
        assert_eq!(parse("select 1"), None);
    }
}
