//! Statements that concern the session rather than the engine: transactions,
//! settings, prepared statements.
//!
//! The server answers these itself, because it keeps PostgreSQL's transaction
//! state and settings, which DuckDB does not have. Anything that does not fit
//! one of the forms below goes to DuckDB, whose parser then explains the error.

use super::database::{self, DatabaseStatement};
use super::identifier;
use super::lexer::{Kind, Token, tokens};

/// A statement that the session executes by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionStatement {
    /// BEGIN or START TRANSACTION, with READ ONLY or not.
    Begin {
        /// Which of the two it was.
        command: &'static str,
        /// READ ONLY was asked for.
        read_only: bool,
    },
    /// COMMIT or END; with AND CHAIN a new transaction begins at once.
    Commit {
        /// AND CHAIN.
        chain: bool,
    },
    /// ROLLBACK or ABORT.
    Rollback {
        /// AND CHAIN.
        chain: bool,
    },
    /// SAVEPOINT, RELEASE and ROLLBACK TO: DuckDB has no subtransactions.
    Savepoint {
        /// The command's name, for the error.
        command: &'static str,
    },
    /// SET TRANSACTION and SET SESSION CHARACTERISTICS: accepted, as snapshot
    /// isolation is what every transaction gets.
    SetTransaction,
    /// SET name = value.
    Set {
        /// For how long.
        scope: Scope,
        /// The parameter's name, folded to lower case.
        name: String,
        /// Its value.
        value: SetValue,
    },
    /// RESET name, or ALL.
    Reset(Option<String>),
    /// SHOW name, or ALL.
    Show(Show),
    /// DISCARD ALL, PLANS, SEQUENCES, TEMP.
    Discard {
        /// Which of them, in upper case.
        what: String,
    },
    /// DEALLOCATE name, or ALL.
    Deallocate(Option<String>),
    /// PREPARE name (types) AS statement.
    Prepare {
        /// The statement's name.
        name: String,
        /// The declared parameter types as written.
        types: Vec<String>,
        /// What was prepared.
        statement: String,
    },
    /// EXECUTE name (arguments).
    Execute {
        /// The statement's name.
        name: String,
        /// The text between the parentheses, empty for none.
        arguments: String,
    },
    /// DECLARE name CURSOR FOR query.
    Declare {
        /// The cursor's name.
        name: String,
        /// WITH HOLD: it is to outlive its transaction.
        hold: bool,
        /// BINARY: its rows are sent in the binary format.
        binary: bool,
        /// What it reads.
        query: String,
    },
    /// FETCH from a cursor.
    Fetch {
        /// The cursor's name.
        name: String,
        /// How many rows, forwards; `None` is backwards or to a place.
        count: Option<u64>,
    },
    /// CLOSE name, or ALL.
    Close(Option<String>),
    /// MOVE: a FETCH that shows nothing.
    Move,
    /// CREATE DATABASE, DROP DATABASE and BACKUP DATABASE.
    Database(DatabaseStatement),
    /// LISTEN, NOTIFY and UNLISTEN.
    Notification {
        /// The command's name.
        command: &'static str,
    },
}

/// How long a SET holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// To the end of the session, unless the transaction is rolled back.
    Session,
    /// To the end of the transaction.
    Local,
}

/// The right side of a SET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetValue {
    /// SET … TO DEFAULT.
    Default,
    /// A value; lists are joined by ", ", as SHOW would print them.
    To(String),
}

/// The object of a SHOW.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Show {
    /// One parameter, its name folded to lower case.
    One(String),
    /// All of them.
    All,
}

/// Recognises a session statement; `None` is one for DuckDB.
pub fn classify(sql: &str) -> Option<SessionStatement> {
    Words {
        sql,
        tokens: tokens(sql).collect(),
        at: 0,
    }
    .statement()
}

/// A cursor over the tokens of one statement.
pub(super) struct Words<'a> {
    sql: &'a str,
    tokens: Vec<Token>,
    at: usize,
}

impl<'a> Words<'a> {
    pub(super) fn take(&mut self, word: &str) -> bool {
        let found = self
            .tokens
            .get(self.at)
            .is_some_and(|token| token.is(self.sql, word));
        self.at += usize::from(found);
        found
    }

    pub(super) fn take_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.take(word))
    }

    pub(super) fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).copied();
        self.at += usize::from(token.is_some());
        token
    }

    pub(super) fn at_end(&self) -> bool {
        self.at == self.tokens.len()
    }

    pub(super) fn name(&mut self) -> Option<String> {
        let token = self.next().filter(Token::is_name)?;
        Some(identifier(token.text(self.sql)))
    }

    fn end<T>(&self, value: T) -> Option<T> {
        self.at_end().then_some(value)
    }

    fn statement(mut self) -> Option<SessionStatement> {
        use SessionStatement as S;
        let first = self.next().filter(|token| token.kind == Kind::Word)?;
        match first.text(self.sql).to_ascii_uppercase().as_str() {
            "BEGIN" => {
                self.take_any(&["WORK", "TRANSACTION"]);
                self.transaction_modes().map(|read_only| S::Begin {
                    command: "BEGIN",
                    read_only,
                })
            }
            "START" => {
                if !self.take("TRANSACTION") {
                    return None;
                }
                self.transaction_modes().map(|read_only| S::Begin {
                    command: "START TRANSACTION",
                    read_only,
                })
            }
            "COMMIT" | "END" => self.chain().map(|chain| S::Commit { chain }),
            "ABORT" => self.chain().map(|chain| S::Rollback { chain }),
            "ROLLBACK" => {
                let start = self.at;
                self.take_any(&["WORK", "TRANSACTION"]);
                if self.take("TO") {
                    return Some(S::Savepoint {
                        command: "ROLLBACK TO SAVEPOINT",
                    });
                }
                self.at = start;
                self.chain().map(|chain| S::Rollback { chain })
            }
            "SAVEPOINT" => Some(S::Savepoint { command: "SAVEPOINT" }),
            "RELEASE" => Some(S::Savepoint {
                command: "RELEASE SAVEPOINT",
            }),
            "SET" => self.set(),
            "RESET" => self.reset(),
            "SHOW" => self.show(),
            "DISCARD" => {
                let what = self.name()?.to_uppercase();
                let known = ["ALL", "PLANS", "SEQUENCES", "TEMP", "TEMPORARY"].contains(&what.as_str());
                self.end(S::Discard { what }).filter(|_| known)
            }
            "DEALLOCATE" => {
                self.take("PREPARE");
                if self.take("ALL") {
                    return self.end(S::Deallocate(None));
                }
                let name = self.name()?;
                self.end(S::Deallocate(Some(name)))
            }
            "PREPARE" => self.prepare(),
            "EXECUTE" => {
                let name = self.name()?;
                let arguments = self.arguments()?;
                Some(S::Execute { name, arguments })
            }
            "DECLARE" => self.declare(),
            "FETCH" => self.fetch(),
            "MOVE" => Some(S::Move),
            "CLOSE" => {
                if self.take("ALL") {
                    return self.end(S::Close(None));
                }
                let name = self.name()?;
                self.end(S::Close(Some(name)))
            }
            "CREATE" if self.take("DATABASE") => Some(S::Database(database::create(&mut self))),
            "DROP" if self.take("DATABASE") => Some(S::Database(database::drop(&mut self))),
            "BACKUP" if self.take("DATABASE") => Some(S::Database(database::backup(&mut self))),
            "LISTEN" => Some(S::Notification { command: "LISTEN" }),
            "UNLISTEN" => Some(S::Notification { command: "UNLISTEN" }),
            "NOTIFY" => Some(S::Notification { command: "NOTIFY" }),
            _ => None,
        }
    }

    /// Isolation levels are accepted: every transaction reads one snapshot.
    fn transaction_modes(&mut self) -> Option<bool> {
        let mut read_only = false;
        while !self.at_end() {
            if self.take("READ") {
                match () {
                    () if self.take("ONLY") => read_only = true,
                    () if self.take("WRITE") => read_only = false,
                    () => return None,
                }
            } else if self.take("ISOLATION") {
                let level = self.take("LEVEL")
                    && (self.take("SERIALIZABLE")
                        || (self.take("REPEATABLE") && self.take("READ"))
                        || (self.take("READ") && self.take_any(&["COMMITTED", "UNCOMMITTED"])));
                if !level {
                    return None;
                }
            } else if !(self.take("DEFERRABLE")
                || (self.take("NOT") && self.take("DEFERRABLE"))
                || self.take(","))
            {
                return None;
            }
        }
        Some(read_only)
    }

    fn chain(&mut self) -> Option<bool> {
        self.take_any(&["WORK", "TRANSACTION"]);
        let chain = self.take("AND") && {
            let no = self.take("NO");
            if !self.take("CHAIN") {
                return None;
            }
            !no
        };
        self.end(chain)
    }

    fn set(&mut self) -> Option<SessionStatement> {
        if self.take("TRANSACTION") {
            return Some(SessionStatement::SetTransaction);
        }
        let mut scope = Scope::Session;
        if self.take("SESSION") {
            if self.take("CHARACTERISTICS") {
                return Some(SessionStatement::SetTransaction);
            }
        } else if self.take("LOCAL") {
            scope = Scope::Local;
        } else if self.take("GLOBAL") {
            // DuckDB's word for a setting of the whole instance.
            return None;
        }
        let name = if self.take("TIME") {
            if !self.take("ZONE") {
                return None;
            }
            "timezone".to_owned()
        } else {
            let name = self.parameter_name()?;
            if !self.take_any(&["TO", "="]) {
                return None;
            }
            name
        };
        if self.take("DEFAULT") || (name == "timezone" && self.take("LOCAL")) {
            return self.end(SessionStatement::Set {
                scope,
                name,
                value: SetValue::Default,
            });
        }
        let mut values = Vec::new();
        loop {
            values.push(self.value()?);
            if !self.take(",") {
                break;
            }
        }
        self.end(SessionStatement::Set {
            scope,
            name,
            value: SetValue::To(values.join(", ")),
        })
    }

    /// `name` or `class.name`.
    fn parameter_name(&mut self) -> Option<String> {
        let mut name = self.name()?.to_lowercase();
        while self.take(".") {
            name.push('.');
            name.push_str(&self.name()?.to_lowercase());
        }
        Some(name)
    }

    pub(super) fn value(&mut self) -> Option<String> {
        let sign = if self.take("-") { "-" } else { "" };
        self.take("+");
        let token = self.next()?;
        let text = token.text(self.sql);
        match token.kind {
            Kind::Number => Some(format!("{sign}{text}")),
            Kind::Word => Some(text.to_owned()),
            Kind::QuotedIdentifier => Some(identifier(text)),
            Kind::String => string_value(text),
            Kind::Parameter | Kind::Symbol => None,
        }
    }

    fn reset(&mut self) -> Option<SessionStatement> {
        if self.take("ALL") {
            return self.end(SessionStatement::Reset(None));
        }
        let name = if self.take("TIME") {
            self.take("ZONE").then(|| "timezone".to_owned())?
        } else {
            self.parameter_name()?
        };
        self.end(SessionStatement::Reset(Some(name)))
    }

    /// DuckDB's SHOW TABLES and its like stay DuckDB's.
    fn show(&mut self) -> Option<SessionStatement> {
        if self.take("ALL") {
            return if self.take("TABLES") {
                None
            } else {
                self.end(SessionStatement::Show(Show::All))
            };
        }
        if self.take("TIME") {
            return (self.take("ZONE") && self.at_end())
                .then(|| SessionStatement::Show(Show::One("timezone".to_owned())));
        }
        if self.take("TRANSACTION") {
            return (self.take("ISOLATION") && self.take("LEVEL") && self.at_end())
                .then(|| SessionStatement::Show(Show::One("transaction_isolation".to_owned())));
        }
        let name = self.parameter_name()?;
        if ["tables", "databases", "schemas", "variables"].contains(&name.as_str()) {
            return None;
        }
        self.end(SessionStatement::Show(Show::One(name)))
    }

    fn declare(&mut self) -> Option<SessionStatement> {
        let name = self.name()?;
        let (mut binary, mut hold) = (false, false);
        while !self.take("CURSOR") {
            if self.take("BINARY") {
                binary = true;
            } else {
                self.take("NO");
                if !self.take_any(&["SCROLL", "INSENSITIVE", "ASENSITIVE"]) {
                    return None;
                }
            }
        }
        if self.take("WITH") {
            hold = true;
            self.take("HOLD").then_some(())?;
        } else if self.take("WITHOUT") {
            self.take("HOLD").then_some(())?;
        }
        self.take("FOR").then_some(())?;
        let query = self.sql[self.next()?.start..].to_owned();
        Some(SessionStatement::Declare {
            name,
            hold,
            binary,
            query,
        })
    }

    /// `FETCH [NEXT | n | ALL | FORWARD [n | ALL] | …] [FROM | IN] name`.
    fn fetch(&mut self) -> Option<SessionStatement> {
        let mut count = Some(1);
        if self.take_any(&["PRIOR", "FIRST", "LAST", "ABSOLUTE", "RELATIVE", "BACKWARD"]) {
            count = None;
            self.take("-");
            if !self.take("ALL") && self.tokens.get(self.at)?.kind == Kind::Number {
                self.at += 1;
            }
        } else if !self.take("NEXT") {
            self.take("FORWARD");
            if self.take("ALL") {
                count = Some(u64::MAX);
            } else if self.take("-") {
                count = None;
                self.next()?;
            } else if self.tokens.get(self.at)?.kind == Kind::Number {
                count = Some(self.next()?.text(self.sql).parse().ok()?);
            }
        }
        self.take_any(&["FROM", "IN"]);
        let name = self.name()?;
        self.end(SessionStatement::Fetch { name, count })
    }

    /// Nothing, or all that stands between parentheses up to the end.
    fn arguments(&mut self) -> Option<String> {
        if self.at_end() {
            return Some(String::new());
        }
        let (first, last) = (self.tokens.get(self.at)?, self.tokens.last()?);
        let enclosed = first.text(self.sql) == "(" && last.text(self.sql) == ")";
        enclosed.then(|| self.sql[first.end..last.start].trim().to_owned())
    }

    fn prepare(&mut self) -> Option<SessionStatement> {
        let name = self.name()?;
        let mut types = Vec::new();
        if self.take("(") {
            let mut depth = 0;
            let mut start = None;
            loop {
                let token = self.next()?;
                let text = token.text(self.sql);
                if depth == 0 && (text == "," || text == ")") {
                    let start: usize = start.take()?;
                    types.push(self.sql[start..token.start].trim().to_owned());
                    if text == ")" {
                        break;
                    }
                    continue;
                }
                depth += i32::from(text == "(") - i32::from(text == ")");
                start.get_or_insert(token.start);
            }
        }
        if !self.take("AS") {
            return None;
        }
        let start = self.next()?.start;
        Some(SessionStatement::Prepare {
            name,
            types,
            statement: self.sql[start..].to_owned(),
        })
    }
}

/// The value of a plain, escape or dollar-quoted string literal.
fn string_value(literal: &str) -> Option<String> {
    if let Some(rest) = literal.strip_prefix('\'') {
        return Some(rest.strip_suffix('\'')?.replace("''", "'"));
    }
    if let Some(rest) = literal.strip_prefix('$') {
        let tag = rest.find('$')? + 2;
        return Some(literal.get(tag..literal.len().checked_sub(tag)?)?.to_owned());
    }
    let rest = literal
        .strip_prefix(['e', 'E'])?
        .strip_prefix('\'')?
        .strip_suffix('\'')?;
    let mut value = String::with_capacity(rest.len());
    let mut characters = rest.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => value.push(match characters.next()? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            }),
            '\'' => {
                characters.next();
                value.push('\'');
            }
            other => value.push(other),
        }
    }
    Some(value)
}

/// The value of a string literal as it was written in SQL.
pub(super) fn literal_value(token: &Token, sql: &str) -> Option<String> {
    (token.kind == Kind::String)
        .then(|| string_value(token.text(sql)))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::SessionStatement as S;
    use super::*;

    fn set(name: &str, value: &str) -> Option<S> {
        Some(S::Set {
            scope: Scope::Session,
            name: name.into(),
            value: SetValue::To(value.into()),
        })
    }

    #[test]
    fn transaction_statements_are_recognised_in_all_their_forms() {
        for (sql, command) in [
            ("begin", "BEGIN"),
            ("BEGIN WORK", "BEGIN"),
            (
                "start transaction isolation level repeatable read, read write",
                "START TRANSACTION",
            ),
        ] {
            assert_eq!(
                classify(sql),
                Some(S::Begin {
                    command,
                    read_only: false
                }),
                "{sql}"
            );
        }
        assert_eq!(
            classify("begin read only"),
            Some(S::Begin {
                command: "BEGIN",
                read_only: true
            })
        );
        assert_eq!(classify("commit and no chain"), Some(S::Commit { chain: false }));
        assert_eq!(classify("end"), Some(S::Commit { chain: false }));
        assert_eq!(
            classify("rollback work and chain"),
            Some(S::Rollback { chain: true })
        );
        assert_eq!(
            classify("rollback to savepoint a"),
            Some(S::Savepoint {
                command: "ROLLBACK TO SAVEPOINT"
            })
        );
        assert_eq!(classify("begin nonsense"), None);
    }

    #[test]
    fn settings_are_read_with_their_values() {
        assert_eq!(
            classify("set search_path to a, \"B\""),
            set("search_path", "a, B")
        );
        assert_eq!(
            classify("SET TIME ZONE 'Europe/Berlin'"),
            set("timezone", "Europe/Berlin")
        );
        assert_eq!(classify("set my.flag = -1"), set("my.flag", "-1"));
        assert_eq!(classify("set x = E'a\\'b'"), set("x", "a'b"));
        assert_eq!(
            classify("set local x to default"),
            Some(S::Set {
                scope: Scope::Local,
                name: "x".into(),
                value: SetValue::Default
            })
        );
        assert_eq!(classify("set transaction read only"), Some(S::SetTransaction));
        assert_eq!(classify("show tables"), None);
        assert_eq!(
            classify("show server_version"),
            Some(S::Show(Show::One("server_version".into())))
        );
    }

    #[test]
    fn prepare_yields_its_types_and_its_statement() {
        assert_eq!(
            classify("prepare p (int, numeric(10,2)) as select $1, $2"),
            Some(S::Prepare {
                name: "p".into(),
                types: vec!["int".into(), "numeric(10,2)".into()],
                statement: "select $1, $2".into()
            })
        );
        assert_eq!(
            classify("execute P(1)"),
            Some(S::Execute {
                name: "p".into(),
                arguments: "1".into()
            })
        );
        assert_eq!(classify("deallocate all"), Some(S::Deallocate(None)));
    }

    #[test]
    fn cursors_are_declared_fetched_and_closed() {
        assert_eq!(
            classify("declare \"C\" no scroll cursor without hold for select 1"),
            Some(S::Declare {
                name: "C".into(),
                hold: false,
                binary: false,
                query: "select 1".into()
            })
        );
        for (sql, count) in [
            ("fetch c", Some(1)),
            ("fetch next from c", Some(1)),
            ("fetch 10 c", Some(10)),
            ("fetch forward 100 from c", Some(100)),
            ("fetch all in c", Some(u64::MAX)),
            ("fetch backward 2 from c", None),
            ("fetch -1 from c", None),
            ("fetch absolute -3 c", None),
        ] {
            assert_eq!(
                classify(sql),
                Some(S::Fetch {
                    name: "c".into(),
                    count
                }),
                "{sql}"
            );
        }
        assert_eq!(classify("close all"), Some(S::Close(None)));
    }

    #[test]
    fn other_statements_are_for_duckdb() {
        for sql in ["select 1", "", "from t", "\"begin\"", "set global threads = 1"] {
            assert_eq!(classify(sql), None, "{sql}");
        }
    }
}
