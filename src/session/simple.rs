//! The simple query protocol: a string of statements, answered one by one.
//!
//! Several statements in one string are one transaction, unless they say
//! otherwise. Source: PostgreSQL manual, section 55.2.2.

use std::sync::Arc;
use std::time::Instant;

use super::error::{Failure, SessionError};
use super::run::Ran;
use super::statement::{Action, Statement};
use super::transaction::State;
use super::{Session, reply};
use crate::{engine, sql};

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
            for range in &statements {
                self.parse_simple(&query[range.clone()])
                    .map_err(|error| SessionError::from(error).locate(query, range.start))?;
            }
        }
        for range in statements {
            let start = range.start;
            let statement = self.plans.get(&query[range]);
            let began = Instant::now();
            let result = self.run_simple(&statement, several);
            self.policy.counters.ran(began.elapsed());
            result.map_err(|failure| failure.locate(query, start))?;
        }
        if self.transaction.state() == State::Implicit {
            self.commit()?;
        }
        Ok(self.ready()?)
    }

    fn parse_simple(&self, statement: &str) -> Result<(), engine::Error> {
        match sql::classify(statement) {
            Some(_) => Ok(()),
            None if sql::copy::parse(statement).is_some() => Ok(()),
            None => self.connection.parse(statement),
        }
    }

    fn run_simple(&mut self, statement: &Arc<Statement>, several: bool) -> Result<(), Failure> {
        let tag = match &statement.action {
            Action::Empty => return Ok(()),
            Action::Session(command) => self.run_command(command, &[], true)?,
            action => {
                self.refuse_if_failed()?;
                if several && self.transaction.state() == State::Idle {
                    self.transaction.begin_implicit(&self.connection)?;
                }
                match action {
                    Action::Copy(copy) => self.run_copy(copy)?,
                    _ => match self.run_engine(statement, &[], &[], u64::MAX, true)? {
                        Ran::Complete(tag, _) => tag,
                        // No result has as many rows as the limit.
                        Ran::Suspended(_) => return Ok(()),
                    },
                }
            }
        };
        reply::command_complete(&mut self.client.output, &tag);
        Ok(())
    }
}
