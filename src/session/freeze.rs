//! From a session to a value and back: how it goes on in another process.
//!
//! A session is frozen between two messages and outside of a transaction. What
//! DuckDB keeps for a connection is asked for and told to the next one, or else
//! keeps the session where it is ([`Pin`]).

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use super::activity::{Activity, Observer};
use super::client::Client;
use super::error::{Failure, Gone, SessionError};
use super::handle::Handle;
use super::settings::{Settings, Thawed};
use super::statement::{PlanCache, Statement};
use super::transaction::{State, Transaction};
use super::{Owner, Policy, Session};
use crate::engine::Connection;
use crate::handoff::{self, Frozen, FrozenVariable, SessionState};
use crate::sql::{quote_identifier, quote_literal};

/// The longest state that a handoff carries is 64 MiB; this much of it is what
/// a client can make arbitrarily large.
const LARGEST: usize = 48 << 20;

/// What DuckDB keeps for a connection.
#[derive(Default)]
struct Carried {
    search_path: Option<String>,
    variables: Vec<FrozenVariable>,
}

impl Carried {
    fn size(&self) -> usize {
        let variables = self.variables.iter();
        variables
            .map(|variable| variable.value.as_ref().map_or(0, String::len) + 64)
            .sum()
    }
}

/// Why a session cannot be frozen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pin {
    /// It is in a transaction that the client has begun.
    Transaction,
    /// It is in the middle of something that belongs together: a pipeline before
    /// its Sync, or a portal that is open until then.
    Statement,
    /// Its connection has what only lives as long as the connection: a temporary
    /// table, view, macro, sequence or type, or a variable without a text.
    Temporary,
    /// It has more than a handoff carries: half a message, statements, settings.
    Size,
    /// Its client has gone, or it was told to end: run it, and it is over.
    Ending,
}

impl Pin {
    /// For a sentence that says what is waited for.
    pub fn as_str(self) -> &'static str {
        match self {
            Pin::Transaction => "a transaction",
            Pin::Statement => "a running statement",
            Pin::Temporary => "temporary tables",
            Pin::Size => "a state that is too large",
            Pin::Ending => "its end",
        }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Session {
    /// Why the session cannot be frozen now. DuckDB is asked only if the session
    /// has run what may have left something with it.
    pub fn pin(&mut self) -> Option<Pin> {
        self.carried().err()
    }

    /// What is to be carried of its connection, or why the session stays.
    fn carried(&mut self) -> Result<Carried, Pin> {
        if let Some(pin) = self.unrest() {
            return Err(pin);
        }
        let mut carried = Carried::default();
        if self.left_traces || self.settings.sets_search_path() {
            // What DuckDB does not tell cannot be carried.
            carried = self.ask_engine().map_err(|_| Pin::Temporary)?;
        }
        match self.size() + carried.size() {
            0..=LARGEST => Ok(carried),
            _ => Err(Pin::Size),
        }
    }

    /// Why the session is not between two messages that have nothing to do with
    /// each other.
    pub(super) fn unrest(&self) -> Option<Pin> {
        match self.transaction.state() {
            _ if self.client.is_over() || self.handle.is_ending() => Some(Pin::Ending),
            State::Block | State::Failed => Some(Pin::Transaction),
            State::Implicit => Some(Pin::Statement),
            State::Idle => (!self.portals.is_empty()).then_some(Pin::Statement),
        }
    }

    /// Has the session work at hand, so that it is to be [run](Session::run) without
    /// waiting for its socket? So after it was held, and after it was thawed.
    pub fn has_work(&self) -> bool {
        self.client.has_frame() || self.client.has_unsent() || self.client.is_over()
    }

    /// Makes a value of the session, for [`Session::thaw`] here or elsewhere. Its
    /// connection to DuckDB is gone then. Waits for nothing: what the client does
    /// not read is carried along, and so is what it has sent.
    ///
    /// # Errors
    /// The session, unchanged, and why it cannot be frozen now.
    pub fn freeze(mut self) -> Result<handoff::Session, (Box<Session>, Pin)> {
        let Carried {
            search_path,
            variables,
        } = match self.carried() {
            Ok(carried) => carried,
            Err(pin) => return Err((Box::new(self), pin)),
        };
        // The last records: nothing is sealed here afterwards.
        let Ok(tls) = self.client.offer().and_then(|()| Ok(self.client.take_tls()?)) else {
            return Err((Box::new(self), Pin::Ending));
        };
        self.count_traffic();
        let (values, startup) = self.settings.freeze();
        let Activity {
            state_change,
            query,
            query_start,
            ..
        } = self.handle.activity();
        let statements = self
            .statements
            .iter()
            .map(|(name, statement)| statement.freeze(name))
            .collect();
        let (socket, unread, unsent) = self.client.into_rest();
        let state = SessionState {
            backend_id: self.handle.backend_id(),
            cancel_key: self.handle.cancel_key().clone(),
            protocol_minor: self.protocol_minor,
            user: self.owner.user,
            database: self.owner.database,
            settings: Vec::new(),
            unread_input: unread,
            tls,
            peer: self.owner.peer,
            create_database: false,
            admin: self.owner.admin,
            frozen: Some(Frozen {
                values,
                startup,
                search_path,
                statements,
                variables,
                skip_until_sync: self.skip_until_sync,
                unsent_output: unsent,
                began: self.began,
                frozen: SystemTime::now(),
                state_change,
                query,
                query_start,
            }),
        };
        Ok(handoff::Session { socket, state })
    }

    /// Goes on with a session that was [frozen](Session::freeze), without a word to
    /// its client. It is to be [run](Session::run) if it [has work](Session::has_work),
    /// and to wait for its socket otherwise. `observer` is told what it does from now
    /// on. Of timeouts the smaller counts: the session's, or that of `policy`.
    ///
    /// # Errors
    /// The client has gone meanwhile, or `frozen` is not a frozen session's.
    pub fn thaw(
        frozen: handoff::Session,
        connection: Connection,
        policy: Arc<Policy>,
        observer: Arc<dyn Observer>,
    ) -> Result<Session, Gone> {
        let handoff::Session { socket, state } = frozen;
        let SessionState {
            backend_id,
            cancel_key,
            protocol_minor,
            user,
            database,
            admin,
            unread_input,
            tls,
            peer,
            frozen: Some(frozen),
            ..
        } = state
        else {
            return Err(Gone::Io(io::ErrorKind::InvalidInput.into()));
        };
        let tls = tls.map(crate::tls::Channel::resume).transpose()?;
        let mut client = Client::new(socket, unread_input, frozen.unsent_output, tls)?;
        client.offer()?;
        let handle = Arc::new(Handle::new(
            backend_id,
            cancel_key,
            connection.interrupt_handle(),
            policy.deadlines.clone(),
        ));
        connection.introduce(backend_id);
        let Thawed {
            settings,
            engine,
            dropped,
        } = Settings::thaw(&user, policy.timeouts(), frozen.values, frozen.startup);
        client.set_liveness(settings.liveness());
        *handle.activity_mut() = Activity {
            state_change: frozen.state_change,
            query: frozen.query,
            query_start: frozen.query_start,
            application_name: settings.show("application_name").unwrap_or_default(),
            ..Activity::default()
        };
        let statements = frozen
            .statements
            .into_iter()
            .map(|mut frozen| {
                (
                    std::mem::take(&mut frozen.name),
                    Arc::new(Statement::thaw(frozen)),
                )
            })
            .collect();
        let mut session = Session {
            client,
            handle,
            connection,
            settings,
            policy,
            observer,
            protocol_minor,
            owner: Owner {
                user,
                database,
                admin,
                peer,
            },
            transaction: Transaction::new(),
            statements,
            portals: HashMap::new(),
            plans: PlanCache::default(),
            statements_run: 0,
            left_traces: false,
            has_failed: false,
            begun_with: None,
            epoch_begun_with: 0,
            began: frozen.began,
            transaction_told: false,
            skip_until_sync: frozen.skip_until_sync,
        };
        for name in dropped {
            tracing::warn!(
                backend_id,
                name,
                "a session lost a setting, which this version does not know"
            );
        }
        session.tell_engine(&engine);
        session.tell_what_was_carried(frozen.search_path.as_deref(), &frozen.variables);
        Ok(session)
    }

    fn tell_engine(&mut self, settings: &[(&'static str, String)]) {
        for (name, statement) in settings {
            if let Err(error) = self.connection.run(statement) {
                self.settings.drop_value(name);
                let backend_id = self.handle.backend_id();
                tracing::warn!(backend_id, name, %error, "a session lost a setting, which DuckDB did not take");
            }
        }
    }

    fn tell_what_was_carried(&mut self, search_path: Option<&str>, variables: &[FrozenVariable]) {
        let backend_id = self.handle.backend_id();
        if let Some(path) = search_path
            && let Err(error) = self
                .connection
                .run(&format!("SET search_path = {}", quote_literal(path)))
        {
            tracing::warn!(backend_id, %error, "a session lost its search_path, which DuckDB did not take");
        }
        for variable in variables {
            let name = &variable.name;
            if let Err(error) = self.connection.run(&format!(
                "SET VARIABLE {} = {}",
                quote_identifier(name),
                literal(variable)
            )) {
                tracing::warn!(backend_id, name, %error, "a session lost a variable, which DuckDB did not take");
            }
        }
        // It has what its predecessor had, which is to be asked for again.
        self.left_traces = search_path.is_some() || !variables.is_empty();
    }

    /// Bytes of its state that have no bound of their own.
    fn size(&self) -> usize {
        let statements: usize = self
            .statements
            .iter()
            .map(|(name, statement)| name.len() + statement.sql.len() + 4 * statement.declared.len() + 64)
            .sum();
        statements + self.settings.size() + self.client.waiting()
    }

    /// What DuckDB keeps for the connection, in a form that it takes again. An error
    /// if something has no such form.
    fn ask_engine(&mut self) -> Result<Carried, Failure> {
        if self.left_traces && !self.texts(TEMPORARY)?.is_empty() {
            return Err(SessionError::new("0A000", "there are temporary objects").into());
        }
        let path = self.texts("SELECT current_setting('search_path')")?;
        let mut carried = Carried {
            // Empty is what it is at the beginning.
            search_path: path.into_iter().flatten().find(|path| !path.is_empty()),
            variables: Vec::new(),
        };
        if self.left_traces {
            let names = self.texts("SELECT name FROM duckdb_variables()")?;
            for name in names.into_iter().flatten() {
                carried.variables.push(self.variable(name)?);
            }
        }
        Ok(carried)
    }

    fn variable(&mut self, name: String) -> Result<FrozenVariable, Failure> {
        let get = format!("getvariable({})", quote_literal(&name));
        let mut texts = self
            .texts(&format!("SELECT typeof({get}), {get}::VARCHAR"))?
            .into_iter();
        let variable = FrozenVariable {
            name,
            sql_type: texts.next().flatten().unwrap_or_default(),
            value: texts.next().flatten(),
        };
        // Not every type has a text that says all.
        let same = self.texts(&format!(
            "SELECT 1 WHERE {} IS NOT DISTINCT FROM {get}",
            literal(&variable)
        ))?;
        match same.is_empty() {
            false => Ok(variable),
            true => Err(SessionError::new("0A000", "the variable's text does not say all").into()),
        }
    }
}

/// Whether there is something that dies with its connection. What a PIVOT leaves
/// is made again by the next one.
const TEMPORARY: &str = "SELECT 1 WHERE \
    EXISTS (FROM duckdb_tables() WHERE temporary AND NOT internal) OR \
    EXISTS (FROM duckdb_views() WHERE temporary AND NOT internal) OR \
    EXISTS (FROM duckdb_sequences() WHERE temporary) OR \
    EXISTS (FROM duckdb_functions() WHERE database_name = 'temp' AND NOT internal) OR \
    EXISTS (FROM duckdb_types() WHERE database_name = 'temp' AND NOT internal \
        AND NOT starts_with(type_name, '__pivot_enum_')) OR \
    EXISTS (FROM duckdb_schemas() WHERE database_name = 'temp' AND NOT internal)";

/// The variable's value in SQL.
fn literal(variable: &FrozenVariable) -> String {
    let value = match &variable.value {
        Some(text) => quote_literal(text),
        None => "NULL".to_owned(),
    };
    format!("CAST({value} AS {})", variable.sql_type)
}
