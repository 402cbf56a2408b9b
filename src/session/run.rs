//! Running one statement on the engine, for both protocols.

use std::sync::Arc;

use super::error::{Failure, Gone, SessionError};
use super::handle::{Handle, Stop};
use super::portal::{Cursor, Progress, Sent, check_stop, shutdown, timed_out};
use super::statement::{Currency, CurrentPlan, Statement, named_as_in_postgresql, same_row};
use super::transaction::State;
use super::{Session, reply};
use crate::encode::{Format, RowEncoder};
use crate::engine::{self, Kind, Metrics, Outcome, Rows, Value};
use crate::sql::CommandTag;

/// What running a statement came to.
pub(super) enum Ran {
    /// It is complete, after this many rows: this is its tag.
    Complete(String, u64),
    /// It has more rows than were asked for.
    Suspended(Box<Cursor>),
}

impl Session {
    /// How current a plan must be to be used now.
    pub(super) fn currency(&self) -> Currency {
        Currency {
            catalog: self.connection.instance().generation(),
            settings: self.settings.epoch(),
        }
    }

    /// A statement's plan. In a transaction that began before the catalog last
    /// changed, plans know an older catalog, or the transaction's own changes:
    /// they are made for one use.
    pub(super) fn plan<'a>(&mut self, statement: &'a Statement) -> Result<CurrentPlan<'a>, Failure> {
        self.quiesce()?;
        let mut currency = self.currency();
        if self.transaction.is_open() && self.transaction.generation != currency.catalog {
            statement.forget_plan();
            currency.catalog = Currency::NEVER;
        }
        Ok(statement.plan(&self.connection, currency, &self.policy)?)
    }

    /// Has the client said goodbye behind what is about to run?
    pub(super) fn is_last_wish(&mut self) -> bool {
        self.client.terminate_follows(self.handle.is_client_gone())
    }

    /// Frees the connection: a portal that is being streamed is spooled.
    pub(super) fn quiesce(&mut self) -> Result<(), Failure> {
        let handle = self.handle.clone();
        let last_wish = self.is_last_wish();
        let timeout = self.settings.timeouts().statement;
        let streaming = self
            .portals
            .values_mut()
            .find_map(|portal| match &mut portal.progress {
                Progress::Suspended(_) => Some(&mut portal.progress),
                _ => None,
            });
        if let Some(progress) = streaming
            && let Progress::Suspended(cursor) = progress
        {
            let _running = handle.begin(last_wish, timeout);
            let spool = cursor.spool(&self.policy.spool_directory, &handle)?;
            *progress = Progress::Spooled(spool);
        }
        Ok(())
    }

    /// Refuses work in a failed transaction.
    pub(super) fn refuse_if_failed(&self) -> Result<(), SessionError> {
        if self.transaction.state() == State::Failed {
            return Err(SessionError::new(
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        Ok(())
    }

    /// Runs a statement of the engine's and sends up to `limit` of its rows.
    /// `describe` sends their description first, as the simple protocol wants.
    pub(super) fn run_engine(
        &mut self,
        statement: &Arc<Statement>,
        parameters: &[Value],
        formats: &[Format],
        limit: u64,
        describe: bool,
    ) -> Result<Ran, Failure> {
        self.refuse_if_failed()?;
        self.quiesce()?;
        let handle = self.handle.clone();
        let running = handle.begin(self.is_last_wish(), self.settings.timeouts().statement);
        let result = self.run_started(statement, parameters, formats, limit, describe);
        let result = match result {
            Err(failure) if is_unasked_interrupt(&failure, &handle) => {
                Err(self.find_lost_reason(statement, parameters))
            }
            result => result,
        };
        let stopped = handle.stopped();
        drop(running);
        result.map_err(|failure| explain(failure, stopped))
    }

    /// A thread of DuckDB's that fails interrupts the others, and of a streamed
    /// result the interrupt is sometimes all that can be read, the reason lost.
    /// Only queries are streamed, so running one again harms nothing; it comes to
    /// the same end, and is very unlikely to lose its reason again and again.
    fn find_lost_reason(&mut self, statement: &Arc<Statement>, parameters: &[Value]) -> Failure {
        const ATTEMPTS: usize = 8;
        for _ in 0..ATTEMPTS {
            match self.read_in_vain(statement, parameters) {
                Err(failure) if is_unasked_interrupt(&failure, &self.handle) => {}
                Err(failure) => return failure,
                Ok(()) => break,
            }
        }
        SessionError::new("XX000", "the engine stopped the statement without saying why").into()
    }

    fn read_in_vain(&mut self, statement: &Arc<Statement>, parameters: &[Value]) -> Result<(), Failure> {
        let plan = self.plan(statement)?;
        if plan.kind != Kind::Select {
            return Ok(());
        }
        for (index, value) in parameters.iter().enumerate() {
            plan.prepared.bind(index, value)?;
        }
        let mut rows = plan.prepared.stream()?;
        while rows.next_chunk()?.is_some() {
            check_stop(&self.handle)?;
        }
        Ok(())
    }

    fn run_started(
        &mut self,
        statement: &Arc<Statement>,
        parameters: &[Value],
        formats: &[Format],
        limit: u64,
        describe: bool,
    ) -> Result<Ran, Failure> {
        check_stop(&self.handle)?;
        let plan = self.plan(statement)?;
        if parameters.len() != plan.parameters.len() {
            return Err(SessionError::new("42P02", "there is no parameter $1").into());
        }
        if plan.leaves_traces {
            self.traces.note(&statement.sql);
        }
        self.measure(plan.kind);
        for (index, value) in parameters.iter().enumerate() {
            plan.prepared.bind(index, value)?;
        }
        let mut rows = if plan.kind == Kind::Select {
            plan.prepared.stream()?
        } else {
            plan.prepared.execute()?
        };
        if plan.kind == Kind::Define {
            // Others see it when it commits; this session sees it now.
            self.transaction.changed_catalog = true;
            self.transaction.made_schema |= plan.tag == CommandTag::plain("CREATE SCHEMA");
            self.connection.instance().catalog_changed();
        }
        // The engine may have stopped early without an error, when it was
        // interrupted between two chunks.
        check_stop(&self.handle)?;
        if plan.columns.is_empty() {
            let count = changed(&mut rows, plan.kind)?;
            let tag = plan.tag.text(count);
            let kind = plan.kind;
            drop(plan);
            self.finish(statement, kind);
            return Ok(Ran::Complete(tag, count));
        }
        let columns = named_as_in_postgresql(rows.columns());
        if columns.len() != plan.columns.len() || (!describe && !same_row(&columns, &plan.columns)) {
            return Err(SessionError::new("0A000", "cached plan must not change result type").into());
        }
        let types: Vec<_> = columns.iter().map(|column| column.data_type.clone()).collect();
        let encoder = RowEncoder::new(&types, formats, &self.settings.encoding())?;
        if describe {
            reply::row_description(&mut self.client.output, &columns, formats);
        }
        let mut cursor = Cursor::new(rows, types, encoder);
        let Sent { rows, ended } = cursor.send(limit, &mut self.client, &self.handle)?;
        if !ended {
            return Ok(Ran::Suspended(Box::new(cursor)));
        }
        drop(cursor);
        let (tag, kind) = (plan.tag.text(rows), plan.kind);
        drop(plan);
        self.finish(statement, kind);
        Ok(Ran::Complete(tag, rows))
    }

    /// A session that runs many statements has DuckDB measure less of each, but
    /// for EXPLAIN ANALYZE. Saying so costs as much as some statements.
    fn measure(&mut self, kind: Kind) {
        const MANY: u32 = 16;
        let metrics = match kind {
            Kind::Explain => Metrics::All,
            _ if self.statements_run < MANY => {
                self.statements_run += 1;
                return;
            }
            _ => Metrics::Least,
        };
        // If it fails, it is no worse than before.
        let _ = self.connection.measure(metrics);
    }

    /// The statement ran to its end.
    fn finish(&mut self, statement: &Arc<Statement>, kind: Kind) {
        if self.transaction.state() == State::Idle {
            self.transaction.changed_catalog = false;
            if kind != Kind::Select {
                let made_schema = std::mem::take(&mut self.transaction.made_schema);
                self.connection.settle(made_schema);
            }
            if kind == Kind::Define {
                // A plan that another session made between its start and its
                // commit has seen the catalog from before.
                self.connection.instance().catalog_changed();
            }
        }
        if kind == Kind::Define || kind == Kind::Setting {
            self.plans.clear();
        } else if self.transaction.state() == State::Idle {
            self.plans.keep(statement, kind);
        }
    }
}

/// Was the statement interrupted though nobody wished it?
fn is_unasked_interrupt(failure: &Failure, handle: &Handle) -> bool {
    matches!(failure, Failure::Report(error) if error.sqlstate == "57014") && handle.stopped().is_none()
}

/// An interrupt's error says only that there was one; the session knows why.
pub(super) fn explain(failure: Failure, stopped: Option<Stop>) -> Failure {
    match (&failure, stopped) {
        (Failure::Report(error), Some(stop)) if error.sqlstate == "57014" => match stop {
            Stop::Cancel => failure,
            Stop::Timeout => timed_out().into(),
            Stop::ClientGone => Gone::Vanished.into(),
            Stop::Shutdown => shutdown().into(),
        },
        _ => failure,
    }
}

/// The number of rows for a tag. CREATE TABLE AS yields it as its only row.
fn changed(rows: &mut Rows, kind: Kind) -> Result<u64, engine::Error> {
    match rows.outcome() {
        Outcome::Changed(count) => Ok(count),
        _ if kind == Kind::Define => {
            let chunk = rows.next_chunk()?;
            let count = chunk
                .as_ref()
                .and_then(|chunk| chunk.column(0).values::<i64>()?.first().copied());
            Ok(count.unwrap_or(0).unsigned_abs())
        }
        Outcome::Rows | Outcome::Nothing => Ok(0),
    }
}
