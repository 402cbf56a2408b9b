//! The simple query protocol: a string of statements, answered one by one.
//!
//! Several statements in one string are one transaction, unless they say
//! otherwise. Source: PostgreSQL manual, section 55.2.2.

use std::sync::Arc;
use std::time::Instant;

use super::activity::rows_of;
use super::databases::not_in_a_block;
use super::error::{Failure, SessionError};
use super::run::Ran;
use super::statement::{Action, Statement};
use super::transaction::State;
use super::{Session, reply};
use crate::engine;
use crate::sql::{self, SessionStatement};

impl Session {
    pub(super) fn simple_query(&mut self, query: &str) -> Result<(), Failure> {
        // The simple protocol uses the unnamed statement and portal.
        self.statements.remove("");
        self.portals.remove("");
        let statements = sql::split(query);
        if statements.is_empty() {
            reply::bare(&mut self.client.output, b'I');
        }
        let several = statements.len() > 1;
        if several {
            // A syntax error anywhere keeps all of it from running.
            self.quiesce()?;
            let began = Instant::now();
            for range in &statements {
                let parsed = self
                    .parse_simple(&query[range.clone()])
                    .map_err(|error| SessionError::from(error).locate(query, range.start).into());
                self.note_failure(query, began, &parsed);
                parsed?;
            }
        }
        for range in statements {
            let start = range.start;
            let statement = self.plans.get(&query[range]);
            let begun = self.note_begin(&statement.sql);
            let ran = self.run_simple(&statement, several);
            self.note_end(&statement.sql, begun, ran.as_ref().map(|tag| rows_of(tag)));
            let tag = ran.map_err(|failure| failure.locate(query, start))?;
            if !tag.is_empty() {
                reply::command_complete(&mut self.client.output, &tag);
            }
        }
        if self.transaction.state() == State::Implicit {
            self.commit_noted()?;
        }
        Ok(self.ready()?)
    }

    /// Commits what belongs to no single statement.
    pub(super) fn commit_noted(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        let result = self.commit();
        self.note_failure("COMMIT", began, &result);
        result
    }

    fn parse_simple(&self, statement: &str) -> Result<(), engine::Error> {
        match sql::classify(statement) {
            Some(_) => Ok(()),
            None if sql::copy::parse(statement).is_some() => Ok(()),
            None => match sql::rewrite(statement) {
                Some(statement) => self.connection.parse(&statement),
                None => self.connection.parse(statement),
            },
        }
    }

    /// Runs a statement and returns its tag, which is empty if it has none.
    fn run_simple(&mut self, statement: &Arc<Statement>, several: bool) -> Result<String, Failure> {
        match &statement.action {
            Action::Empty => Ok(String::new()),
            Action::Session(SessionStatement::Database(statement)) if several => {
                self.refuse_if_failed()?;
                Err(not_in_a_block(statement).into())
            }
            Action::Session(command) => self.run_command(command, &[], true),
            action => {
                self.refuse_if_failed()?;
                if several && self.transaction.state() == State::Idle {
                    self.transaction.begin_implicit(&self.connection)?;
                }
                match action {
                    Action::Copy(copy) => self.run_copy(copy),
                    _ => match self.run_engine(statement, &[], &[], u64::MAX, true)? {
                        Ran::Complete(tag, _) => Ok(tag),
                        // No result has as many rows as the limit.
                        Ran::Suspended(_) => Ok(String::new()),
                    },
                }
            }
        }
    }
}
