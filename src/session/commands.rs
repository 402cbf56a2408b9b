//! The statements that the session executes by itself: transactions, settings,
//! prepared statements.

use std::sync::Arc;

use super::error::{Failure, SessionError};
use super::run::Ran;
use super::statement::{Action, Statement};
use super::transaction::State;
use super::{Session, reply};
use crate::encode::{self, Format, RowEncoder};
use crate::engine::{Column, LogicalType, Value};
use crate::sql::database::DatabaseStatement;
use crate::sql::{self, SessionStatement, SetValue, Show};

impl Session {
    /// The rows that a session statement will yield.
    pub(super) fn command_columns(&mut self, command: &SessionStatement) -> Result<Vec<Column>, Failure> {
        let text = |name: &str| Column {
            name: name.to_owned(),
            data_type: LogicalType::Varchar,
        };
        Ok(match command {
            SessionStatement::Database(DatabaseStatement::Backup { .. }) => vec![text("file")],
            SessionStatement::Show(Show::One(name)) => vec![text(name)],
            SessionStatement::Show(Show::All) => vec![text("name"), text("setting"), text("description")],
            SessionStatement::Fetch { name, .. } => self.cursor_columns(name)?,
            SessionStatement::Execute { name, .. } => {
                let statement = self.prepared(name)?;
                match statement.action {
                    Action::Engine => self.plan(&statement)?.columns.clone(),
                    _ => Vec::new(),
                }
            }
            _ => Vec::new(),
        })
    }

    /// Executes a session statement and returns its tag. Its rows are sent in
    /// `formats`, after their description if `describe`.
    pub(super) fn run_command(
        &mut self,
        command: &SessionStatement,
        formats: &[Format],
        describe: bool,
    ) -> Result<String, Failure> {
        use SessionStatement as S;
        match command {
            S::Commit { chain } => return self.commit_command(*chain),
            S::Rollback { chain } => return self.rollback_command(*chain),
            _ => self.refuse_if_failed()?,
        }
        let tag = match command {
            S::Begin { command, read_only } => {
                if self.transaction.state() == State::Block {
                    self.warn("25001", "there is already a transaction in progress");
                } else {
                    let read_only = *read_only || self.settings.read_only_by_default();
                    self.transaction.begin_block(&self.connection, read_only)?;
                }
                command
            }
            S::Savepoint { command } => {
                return Err(SessionError::new("0A000", format!("{command} is not supported"))
                    .with_hint("DuckDB has no subtransactions.")
                    .into());
            }
            S::SetTransaction => "SET",
            S::Set { scope, name, value } => {
                self.quiesce()?;
                let value = match value {
                    SetValue::Default => None,
                    SetValue::To(value) => Some(value.as_str()),
                };
                if *scope == sql::Scope::Local && !self.transaction.is_open() {
                    self.warn("25P01", "SET LOCAL can only be used in transaction blocks");
                    return Ok("SET".to_owned());
                }
                let before = self.settings.show(name);
                let change = self
                    .settings
                    .set(*scope, name, value, self.transaction.is_open())?;
                if let Err(error) = self.apply(change) {
                    // DuckDB did not take it, so it is not in force.
                    let _ = self.settings.set(*scope, name, before.as_deref(), false);
                    return Err(error.into());
                }
                "SET"
            }
            S::Reset(name) => {
                self.quiesce()?;
                let open = self.transaction.is_open();
                let changes = match name {
                    Some(name) => vec![self.settings.set(sql::Scope::Session, name, None, open)?],
                    None => self.settings.reset_all(open),
                };
                for change in changes {
                    self.apply(change)?;
                }
                "RESET"
            }
            S::Show(show) => {
                let columns = self.command_columns(command)?;
                let rows = self.show(show)?;
                self.send_texts(&columns, &rows, formats, describe);
                "SHOW"
            }
            S::Discard { what } => {
                self.discard(what)?;
                return Ok(format!("DISCARD {what}"));
            }
            S::Deallocate(name) => {
                match name {
                    Some(name) => {
                        self.prepared(name)?;
                        self.statements.remove(name);
                    }
                    None => self.statements.clear(),
                }
                if name.is_some() {
                    "DEALLOCATE"
                } else {
                    "DEALLOCATE ALL"
                }
            }
            S::Prepare {
                name,
                types,
                statement,
            } => {
                self.prepare(name, types, statement)?;
                "PREPARE"
            }
            S::Execute { name, arguments } => {
                return self.execute_prepared(name, arguments, formats, describe);
            }
            S::Declare {
                name,
                hold,
                binary,
                query,
            } => {
                self.declare(
                    name,
                    *hold,
                    *binary,
                    Statement::new(query, Vec::new()),
                    Vec::new(),
                )?;
                "DECLARE CURSOR"
            }
            S::Fetch { name, count } => return self.fetch(name, *count, formats, describe),
            S::Close(name) => {
                self.close_cursor(name.as_deref())?;
                if name.is_some() {
                    "CLOSE CURSOR"
                } else {
                    "CLOSE CURSOR ALL"
                }
            }
            S::Database(statement) => {
                if let Some(file) = self.database_command(statement)? {
                    let columns = self.command_columns(command)?;
                    self.send_texts(&columns, &[vec![file]], formats, describe);
                }
                statement.command()
            }
            S::Move => return Err(SessionError::new("0A000", "MOVE is not supported").into()),
            S::Notification { command } => {
                return Err(SessionError::new("0A000", format!("{command} is not supported")).into());
            }
            S::Commit { .. } | S::Rollback { .. } => return Ok(String::new()),
        };
        Ok(tag.to_owned())
    }

    /// Commits whatever transaction there is.
    pub(super) fn commit(&mut self) -> Result<(), Failure> {
        // A portal that is still open reads in the transaction.
        self.portals.clear();
        let result = self.transaction.commit(&self.connection);
        self.after_transaction(result.is_ok());
        Ok(result?)
    }

    fn commit_command(&mut self, chain: bool) -> Result<String, Failure> {
        match self.transaction.state() {
            State::Failed => {
                self.rollback();
                self.chain(chain)?;
                return Ok("ROLLBACK".to_owned());
            }
            State::Block => self.commit()?,
            State::Idle | State::Implicit => {
                self.no_transaction(chain)?;
                self.commit_if_open()?;
            }
        }
        self.chain(chain)?;
        Ok("COMMIT".to_owned())
    }

    fn rollback_command(&mut self, chain: bool) -> Result<String, Failure> {
        if matches!(self.transaction.state(), State::Idle | State::Implicit) {
            self.no_transaction(chain)?;
        }
        if self.transaction.is_open() {
            self.rollback();
        }
        self.chain(chain)?;
        Ok("ROLLBACK".to_owned())
    }

    fn no_transaction(&mut self, chain: bool) -> Result<(), SessionError> {
        if chain {
            return Err(SessionError::new(
                "25P01",
                "AND CHAIN can only be used in transaction blocks",
            ));
        }
        self.warn("25P01", "there is no transaction in progress");
        Ok(())
    }

    fn commit_if_open(&mut self) -> Result<(), Failure> {
        if self.transaction.is_open() {
            self.commit()
        } else {
            Ok(())
        }
    }

    fn chain(&mut self, chain: bool) -> Result<(), Failure> {
        if chain {
            let read_only = self.settings.read_only_by_default();
            self.transaction.begin_block(&self.connection, read_only)?;
        }
        Ok(())
    }

    fn rollback(&mut self) {
        self.portals.clear();
        self.transaction.rollback(&self.connection);
        self.after_transaction(false);
    }

    fn show(&self, show: &Show) -> Result<Vec<Vec<String>>, SessionError> {
        match show {
            Show::One(name) => match self.settings.show(name) {
                Some(value) => Ok(vec![vec![value]]),
                None => Err(SessionError::new(
                    "42704",
                    format!("unrecognized configuration parameter \"{name}\""),
                )),
            },
            Show::All => Ok(self
                .settings
                .all()
                .into_iter()
                .map(|(name, value)| vec![name, value, String::new()])
                .collect()),
        }
    }

    /// Sends rows of text, which look the same in both formats.
    fn send_texts(&mut self, columns: &[Column], rows: &[Vec<String>], formats: &[Format], describe: bool) {
        let out = &mut self.client.output;
        if describe {
            reply::row_description(out, columns, formats);
        }
        for row in rows {
            reply::message(out, b'D', |out| {
                out.extend_from_slice(&(row.len() as u16).to_be_bytes());
                for value in row {
                    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
                    out.extend_from_slice(value.as_bytes());
                }
            });
        }
    }

    fn discard(&mut self, what: &str) -> Result<(), Failure> {
        if what == "ALL" && self.transaction.is_open() {
            return Err(
                SessionError::new("25001", "DISCARD ALL cannot run inside a transaction block").into(),
            );
        }
        self.quiesce()?;
        if what == "ALL" {
            for change in self.settings.reset_all(false) {
                self.apply(change)?;
            }
            self.statements.clear();
            self.portals.clear();
        }
        if matches!(what, "ALL" | "PLANS") {
            self.plans.clear();
        }
        if matches!(what, "ALL" | "TEMP" | "TEMPORARY") {
            self.drop_temporary_tables()?;
        }
        Ok(())
    }

    fn drop_temporary_tables(&mut self) -> Result<(), Failure> {
        let names = self.texts("SELECT table_name FROM duckdb_tables() WHERE temporary AND NOT internal")?;
        for name in names.into_iter().flatten() {
            self.connection.run(&format!(
                "DROP TABLE IF EXISTS temp.{} CASCADE",
                sql::quote_identifier(&name)
            ))?;
        }
        Ok(())
    }

    /// All fields of a query's result in PostgreSQL's text form, for results of
    /// a few rows.
    pub(super) fn texts(&mut self, query: &str) -> Result<Vec<Option<String>>, Failure> {
        self.quiesce()?;
        let mut rows = self.connection.prepare(query)?.execute()?;
        let types: Vec<_> = rows
            .columns()
            .into_iter()
            .map(|column| column.data_type)
            .collect();
        let mut encoder = RowEncoder::new(&types, &[], &self.settings.encoding())?;
        let mut messages = Vec::new();
        while let Some(chunk) = rows.next_chunk()? {
            encoder.encode(&chunk, 0..chunk.len(), &mut messages)?;
        }
        Ok(fields(&messages))
    }

    fn prepared(&self, name: &str) -> Result<Arc<Statement>, SessionError> {
        self.statements.get(name).cloned().ok_or_else(|| {
            SessionError::new("26000", format!("prepared statement \"{name}\" does not exist"))
        })
    }

    fn prepare(&mut self, name: &str, types: &[String], statement: &str) -> Result<(), Failure> {
        if self.statements.contains_key(name) {
            return Err(
                SessionError::new("42P05", format!("prepared statement \"{name}\" already exists")).into(),
            );
        }
        self.quiesce()?;
        let mut declared = Vec::with_capacity(types.len());
        for text in types {
            let columns = self
                .connection
                .prepare(&format!("SELECT CAST(NULL AS {text})"))?
                .columns();
            declared.push(
                columns
                    .first()
                    .map_or(0, |column| encode::pg_type(&column.data_type).oid),
            );
        }
        let statement = Statement::new(statement, declared);
        match statement.action {
            Action::Engine => drop(self.plan(&statement).map_err(Failure::without_position)?),
            _ => {
                return Err(
                    SessionError::new("42601", "only queries and data changes can be prepared").into(),
                );
            }
        }
        self.statements.insert(name.to_owned(), Arc::new(statement));
        Ok(())
    }

    /// EXECUTE name (arguments): the arguments are computed once, then bound.
    fn execute_prepared(
        &mut self,
        name: &str,
        arguments: &str,
        formats: &[Format],
        describe: bool,
    ) -> Result<String, Failure> {
        let statement = self.prepared(name)?;
        let wanted: Vec<_> = self
            .plan(&statement)?
            .parameters
            .iter()
            .map(|parameter| (parameter.oid, parameter.target.clone()))
            .collect();
        let given = if arguments.is_empty() {
            Vec::new()
        } else {
            self.texts(&format!("SELECT {arguments}"))?
        };
        if given.len() != wanted.len() {
            return Err(SessionError::new(
                "42601",
                format!("wrong number of parameters for prepared statement \"{name}\""),
            )
            .into());
        }
        let settings = self.settings.encoding();
        let values: Vec<Value> = given
            .iter()
            .zip(&wanted)
            .map(|(text, (oid, target))| {
                encode::decode_parameter(
                    *oid,
                    Format::Text,
                    text.as_deref().map(str::as_bytes),
                    target,
                    &settings,
                )
            })
            .collect::<Result<_, _>>()?;
        match self.run_engine(&statement, &values, formats, u64::MAX, describe)? {
            Ran::Complete(tag, _) => Ok(tag),
            Ran::Suspended(_) => Ok(String::new()),
        }
    }
}

/// The fields of framed DataRow messages, row by row. They are our own.
fn fields(mut messages: &[u8]) -> Vec<Option<String>> {
    let mut fields = Vec::new();
    while let Some((header, rest)) = messages.split_first_chunk::<7>() {
        let mut count = u16::from_be_bytes([header[5], header[6]]);
        messages = rest;
        while count > 0
            && let Some((length, rest)) = messages.split_first_chunk::<4>()
        {
            count -= 1;
            messages = rest;
            let field = usize::try_from(i32::from_be_bytes(*length))
                .ok()
                .and_then(|length| rest.split_at_checked(length));
            fields.push(field.map(|(field, rest)| {
                messages = rest;
                String::from_utf8_lossy(field).into_owned()
            }));
        }
    }
    fields
}
