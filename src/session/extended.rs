//! The extended query protocol: Parse, Bind, Describe, Execute, Close, Sync.
//!
//! What is executed up to a Sync is one transaction. A lone Execute right before
//! its Sync, which is what most drivers send, needs none around it: the engine's
//! own autocommit does the same for half the work. Source: PostgreSQL manual,
//! section 55.2.3 and 55.2.4.

use std::sync::Arc;

use super::activity::rows_of;
use super::error::{Failure, SessionError};
use super::message::Target;
use super::portal::{Portal, Progress};
use super::run::Ran;
use super::statement::{Action, Parameter, Statement};
use super::transaction::State;
use super::{Session, reply};
use crate::encode::{self, Format};
use crate::engine::{Column, Value};
use crate::sql::{self, SessionStatement};

impl Session {
    pub(super) fn parse(&mut self, name: &str, query: &str, types: Vec<u32>) -> Result<(), Failure> {
        if !name.is_empty() && self.statements.contains_key(name) {
            return Err(
                SessionError::new("42P05", format!("prepared statement \"{name}\" already exists")).into(),
            );
        }
        self.statements.remove(name);
        let ranges = sql::split(query);
        let range = match ranges.as_slice() {
            [] => 0..0,
            [one] => one.clone(),
            _ => {
                return Err(SessionError::new(
                    "42601",
                    "cannot insert multiple commands into a prepared statement",
                )
                .into());
            }
        };
        let start = range.start;
        let statement = Statement::new(&query[range], types);
        self.refuse_action_if_failed(&statement.action)?;
        if statement.action == Action::Engine {
            self.plan(&statement)
                .map(drop)
                .map_err(|failure| failure.locate(query, start))?;
        }
        self.statements.insert(name.to_owned(), Arc::new(statement));
        reply::bare(&mut self.client.output, b'1');
        Ok(())
    }

    pub(super) fn bind(
        &mut self,
        portal: &str,
        statement: &str,
        formats: &[i16],
        parameters: &[Option<&[u8]>],
        results: &[i16],
    ) -> Result<(), Failure> {
        let mut statement = self.statement(statement)?;
        if !portal.is_empty() && self.portals.contains_key(portal) {
            return Err(SessionError::new("42P03", format!("cursor \"{portal}\" already exists")).into());
        }
        self.refuse_action_if_failed(&statement.action)?;
        self.portals.remove(portal);
        let mut expected = self.parameters(&statement)?;
        let columns = match &statement.action {
            Action::Engine => self.plan(&statement)?.columns.len(),
            Action::Session(command) => self.command_columns(command)?.len(),
            Action::Copy(_) | Action::Empty => 0,
        };
        if expected.len() != parameters.len() {
            return Err(SessionError::protocol(format!(
                "bind message supplies {} parameters, but the prepared statement requires {}",
                parameters.len(),
                expected.len()
            ))
            .into());
        }
        if formats.len() > 1 && formats.len() != parameters.len() {
            return Err(SessionError::protocol(format!(
                "bind message has {} parameter formats but {} parameters",
                formats.len(),
                parameters.len()
            ))
            .into());
        }
        if results.len() > 1 && results.len() != columns {
            return Err(SessionError::protocol(format!(
                "bind message has {} result formats but query has {columns} columns",
                results.len()
            ))
            .into());
        }
        let formats: Vec<Format> = formats.iter().copied().map(format).collect();
        let scale = numeric_scale(&expected, parameters, &formats);
        if scale.is_some_and(|scale| scale != statement.numeric_scale()) {
            statement = Arc::new(statement.with_numeric_scale(scale.unwrap_or_default()));
            expected = self.parameters(&statement)?;
        }
        let settings = self.settings.encoding();
        let parameters: Vec<Value> = parameters
            .iter()
            .zip(&expected)
            .enumerate()
            .map(|(index, (bytes, parameter))| {
                let format = reply::format_of(&formats, index);
                encode::decode_parameter(parameter.oid, format, *bytes, &parameter.target, &settings)
            })
            .collect::<Result<_, _>>()?;
        let formats = results.iter().copied().map(format).collect();
        let bound = Portal {
            statement,
            parameters,
            formats,
            progress: Progress::Ready,
            columns: None,
        };
        self.portals.insert(portal.to_owned(), bound);
        reply::bare(&mut self.client.output, b'2');
        Ok(())
    }

    pub(super) fn describe(&mut self, target: &Target<'_>) -> Result<(), Failure> {
        let (statement, formats) = match target {
            Target::Statement(name) => (self.statement(name)?, None),
            Target::Portal(name) => {
                let portal = self.portals.get(*name).ok_or_else(|| no_portal(name))?;
                (portal.statement.clone(), Some(portal.formats.clone()))
            }
        };
        // What a failed transaction cannot run it cannot describe either.
        self.refuse_action_if_failed(&statement.action)?;
        let parameters = self.parameters(&statement)?;
        let columns: Vec<Column> = match &statement.action {
            Action::Engine => self.plan(&statement)?.columns.clone(),
            Action::Session(command) => self.command_columns(command)?,
            Action::Copy(_) | Action::Empty => Vec::new(),
        };
        let out = &mut self.client.output;
        if formats.is_none() {
            reply::parameter_description(out, parameters.iter().map(|parameter| parameter.oid));
        }
        if columns.is_empty() {
            reply::bare(out, b'n');
        } else {
            reply::row_description(out, &columns, &formats.unwrap_or_default());
        }
        Ok(())
    }

    pub(super) fn execute(&mut self, name: &str, limit: i32) -> Result<(), Failure> {
        // Taken out while it runs, so that the session stays free to act; put
        // back unless the transaction ended and took its portals with it.
        let mut portal = self.portals.remove(name).ok_or_else(|| no_portal(name))?;
        let limit = if limit <= 0 {
            u64::MAX
        } else {
            u64::from(limit.unsigned_abs())
        };
        let text = portal.statement.clone();
        let text = &text.sql;
        let begun = self.note_begin(text);
        let result = self.execute_portal(&mut portal, limit);
        self.note_end(text, begun, result.as_ref().copied());
        let result = result.map(drop);
        let ended_transaction = matches!(
            portal.statement.action,
            Action::Session(SessionStatement::Commit { .. } | SessionStatement::Rollback { .. })
        );
        if result.is_ok() && !ended_transaction {
            self.portals.insert(name.to_owned(), portal);
        }
        result.map_err(|failure| failure.locate(text, 0))
    }

    /// Returns how many rows were sent or changed.
    fn execute_portal(&mut self, portal: &mut Portal, limit: u64) -> Result<u64, Failure> {
        let last_wish = self.is_last_wish();
        let timeout = self.settings.timeouts().statement;
        self.refuse_action_if_failed(&portal.statement.action)?;
        let statement = portal.statement.clone();
        let tag = match &mut portal.progress {
            Progress::Ready => match &statement.action {
                Action::Empty => {
                    reply::bare(&mut self.client.output, b'I');
                    return Ok(0);
                }
                Action::Session(SessionStatement::Declare {
                    name,
                    hold,
                    binary,
                    query,
                }) => {
                    let query = Statement::new(query, statement.declared.clone());
                    self.declare(
                        name,
                        *hold,
                        *binary,
                        query,
                        std::mem::take(&mut portal.parameters),
                    )?;
                    portal.progress = Progress::Done;
                    Some("DECLARE CURSOR".to_owned())
                }
                Action::Session(command) => {
                    let tag = self.run_command(command, &portal.formats, false)?;
                    portal.progress = Progress::Done;
                    Some(tag)
                }
                Action::Copy(copy) => {
                    let tag = self.run_copy(copy)?;
                    portal.progress = Progress::Done;
                    Some(tag)
                }
                Action::Engine => {
                    self.begin_unless_alone()?;
                    match self.run_engine(&statement, &portal.parameters, &portal.formats, limit, false)? {
                        Ran::Complete(tag, _) => {
                            let rows = !self.plan(&statement)?.columns.is_empty();
                            portal.progress = if rows { Progress::Exhausted } else { Progress::Done };
                            Some(tag)
                        }
                        Ran::Suspended(cursor) => {
                            portal.progress = Progress::Suspended(cursor);
                            None
                        }
                    }
                }
            },
            Progress::Suspended(cursor) => {
                let handle = self.handle.clone();
                let _running = handle.begin(last_wish, timeout);
                let sent = cursor.send(limit, &mut self.client, &handle)?;
                if sent.ended {
                    portal.progress = Progress::Exhausted;
                }
                sent.ended
                    .then(|| sql::command_tag(&statement.sql).text(sent.rows))
            }
            Progress::Spooled(spool) => {
                let handle = self.handle.clone();
                let _running = handle.begin(last_wish, timeout);
                let sent = spool.send(limit, &mut self.client, &handle)?;
                if sent.ended {
                    portal.progress = Progress::Exhausted;
                }
                sent.ended
                    .then(|| sql::command_tag(&statement.sql).text(sent.rows))
            }
            Progress::Exhausted => Some(sql::command_tag(&statement.sql).text(0)),
            Progress::Done => return Err(SessionError::new("55000", "portal cannot be run").into()),
        };
        match tag {
            Some(tag) => {
                reply::command_complete(&mut self.client.output, &tag);
                Ok(rows_of(&tag))
            }
            None => {
                reply::bare(&mut self.client.output, b's');
                Ok(limit)
            }
        }
    }

    /// Begins the transaction that lasts to the next Sync, unless the Sync is
    /// already here.
    fn begin_unless_alone(&mut self) -> Result<(), Failure> {
        if self.transaction.state() == State::Idle && self.client.peek_kind() != Some(b'S') {
            self.transaction.begin_implicit(&self.connection)?;
        }
        Ok(())
    }

    pub(super) fn close(&mut self, target: &Target<'_>) -> Result<(), Failure> {
        match target {
            Target::Statement(name) => drop(self.statements.remove(*name)),
            Target::Portal(name) => drop(self.portals.remove(*name)),
        }
        reply::bare(&mut self.client.output, b'3');
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<(), Failure> {
        self.skip_until_sync = false;
        if self.transaction.state() == State::Implicit {
            self.commit_noted()?;
        }
        if self.transaction.state() == State::Idle {
            self.portals.clear();
        }
        Ok(self.ready()?)
    }

    /// A statement's parameters; those of a DECLARE are its query's.
    fn parameters(&mut self, statement: &Statement) -> Result<Vec<Parameter>, Failure> {
        match &statement.action {
            Action::Engine => Ok(self.plan(statement)?.parameters.clone()),
            Action::Session(SessionStatement::Declare { query, .. }) => {
                let query = Statement::new(query, statement.declared.clone());
                let plan = self.plan(&query).map_err(Failure::without_position)?;
                Ok(plan.parameters.clone())
            }
            _ => Ok(Vec::new()),
        }
    }

    fn statement(&self, name: &str) -> Result<Arc<Statement>, SessionError> {
        self.statements.get(name).cloned().ok_or_else(|| {
            let message = match name {
                "" => "unnamed prepared statement does not exist".to_owned(),
                name => format!("prepared statement \"{name}\" does not exist"),
            };
            SessionError::new("26000", message)
        })
    }

    /// In a failed transaction only its end may be prepared or executed.
    fn refuse_action_if_failed(&self, action: &Action) -> Result<(), SessionError> {
        match action {
            Action::Empty
            | Action::Session(SessionStatement::Commit { .. } | SessionStatement::Rollback { .. }) => Ok(()),
            _ => self.refuse_if_failed(),
        }
    }
}

/// The scale of the numeric parameters that have none but their value's, if
/// there are such. What is no number is found out later.
fn numeric_scale(expected: &[Parameter], given: &[Option<&[u8]>], formats: &[Format]) -> Option<u8> {
    let scale = |(index, (parameter, bytes)): (usize, (&Parameter, &Option<&[u8]>))| {
        let bytes = bytes.filter(|_| parameter.free_scale)?;
        let scale = match reply::format_of(formats, index) {
            // The header's last field: digits behind the point.
            Format::Binary => usize::from(u16::from_be_bytes([*bytes.get(6)?, *bytes.get(7)?])),
            Format::Text => bytes.iter().rev().position(|byte| *byte == b'.').unwrap_or(0),
        };
        // At least 18 digits stay before the point.
        Some(scale.min(20) as u8)
    };
    expected.iter().zip(given).enumerate().filter_map(scale).max()
}

fn no_portal(name: &str) -> SessionError {
    SessionError::new("34000", format!("portal \"{name}\" does not exist"))
}

fn format(code: i16) -> Format {
    if code == 1 { Format::Binary } else { Format::Text }
}
