//! SQL cursors: DECLARE, FETCH, CLOSE.
//!
//! A cursor is a portal with a name that SQL can say. It reads forwards, within
//! its transaction. Source: PostgreSQL manual, DECLARE and FETCH; a portal and a
//! cursor of the same name are the same thing there, and so they are here.

use std::sync::Arc;

use super::error::{Failure, SessionError};
use super::portal::{Portal, Progress};
use super::run::Ran;
use super::statement::{Action, Statement};
use super::{Session, reply};
use crate::encode::Format;
use crate::engine::{Column, Value};

impl Session {
    pub(super) fn declare(
        &mut self,
        name: &str,
        hold: bool,
        binary: bool,
        statement: Statement,
        parameters: Vec<Value>,
    ) -> Result<(), Failure> {
        if hold {
            return Err(SessionError::new("0A000", "cursors WITH HOLD are not supported").into());
        }
        if !self.transaction.is_open() {
            return Err(
                SessionError::new("25P01", "DECLARE CURSOR can only be used in transaction blocks").into(),
            );
        }
        if self.portals.contains_key(name) {
            return Err(SessionError::new("42P03", format!("cursor \"{name}\" already exists")).into());
        }
        if statement.action != Action::Engine {
            return Err(SessionError::new("42601", "a cursor needs a query").into());
        }
        let columns = self
            .plan(&statement)
            .map_err(Failure::without_position)?
            .columns
            .clone();
        if columns.is_empty() {
            return Err(SessionError::new("42601", "a cursor needs a query that returns rows").into());
        }
        let portal = Portal {
            statement: Arc::new(statement),
            parameters,
            formats: if binary { vec![Format::Binary] } else { Vec::new() },
            progress: Progress::Ready,
            columns: Some(columns.into()),
        };
        self.portals.insert(name.to_owned(), portal);
        Ok(())
    }

    /// What a FETCH from the cursor will return.
    pub(super) fn cursor_columns(&mut self, name: &str) -> Result<Vec<Column>, Failure> {
        let portal = self.portals.get(name).ok_or_else(|| no_cursor(name))?;
        if let Some(columns) = &portal.columns {
            return Ok(columns.to_vec());
        }
        let statement = portal.statement.clone();
        Ok(self.plan(&statement)?.columns.clone())
    }

    /// FETCH: sends up to `count` rows, after their description if `describe`,
    /// and returns the tag.
    pub(super) fn fetch(
        &mut self,
        name: &str,
        count: Option<u64>,
        formats: &[Format],
        describe: bool,
    ) -> Result<String, Failure> {
        let columns = self.cursor_columns(name)?;
        let Some(count) = count else {
            return Err(SessionError::new("55000", "cursor can only scan forward").into());
        };
        // Out of the session while it is read, as when a portal is executed.
        let mut portal = self.portals.remove(name).ok_or_else(|| no_cursor(name))?;
        let formats = if portal.formats.is_empty() {
            formats.to_vec()
        } else {
            portal.formats.clone()
        };
        let result = self.fetch_from(&mut portal, count, &formats, &columns, describe);
        self.portals.insert(name.to_owned(), portal);
        result.map(|rows| format!("FETCH {rows}"))
    }

    fn fetch_from(
        &mut self,
        portal: &mut Portal,
        count: u64,
        formats: &[Format],
        columns: &[Column],
        describe: bool,
    ) -> Result<u64, Failure> {
        if let Progress::Ready = portal.progress {
            let statement = portal.statement.clone();
            return Ok(
                match self.run_engine(&statement, &portal.parameters, formats, count, describe)? {
                    Ran::Complete(_, rows) => {
                        portal.progress = Progress::Exhausted;
                        rows
                    }
                    Ran::Suspended(cursor) => {
                        portal.progress = Progress::Suspended(cursor);
                        count
                    }
                },
            );
        }
        if describe {
            reply::row_description(&mut self.client.output, columns, formats);
        }
        let last_wish = self.is_last_wish();
        let timeout = self.settings.timeouts().statement;
        let handle = self.handle.clone();
        let _running = handle.begin(last_wish, timeout);
        let sent = match &mut portal.progress {
            Progress::Suspended(cursor) => {
                cursor.set_formats(formats, &self.settings.encoding())?;
                cursor.send(count, &mut self.client, &handle)?
            }
            Progress::Spooled(spool) => spool.send(count, &mut self.client, &handle)?,
            Progress::Ready | Progress::Exhausted | Progress::Done => return Ok(0),
        };
        if sent.ended {
            portal.progress = Progress::Exhausted;
        }
        Ok(sent.rows)
    }

    /// CLOSE name, or all.
    pub(super) fn close_cursor(&mut self, name: Option<&str>) -> Result<(), SessionError> {
        match name {
            None => self.portals.retain(|_, portal| portal.columns.is_none()),
            Some(name) => drop(self.portals.remove(name).ok_or_else(|| no_cursor(name))?),
        }
        Ok(())
    }
}

fn no_cursor(name: &str) -> SessionError {
    SessionError::new("34000", format!("cursor \"{name}\" does not exist"))
}
