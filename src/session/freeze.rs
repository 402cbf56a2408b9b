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
use super::temporary::{self, Taken};
use super::transaction::{State, Transaction};
use super::{Owner, Policy, Session};
use crate::engine::Connection;
use crate::handoff::{self, Frozen, FrozenTemporary, FrozenVariable, SessionState};
use crate::sql::{quote_identifier, quote_literal};

/// The longest state that a handoff carries is 64 MiB; this much of it is what
/// a client can make arbitrarily large.
const LARGEST: usize = 48 << 20;

/// What DuckDB keeps for a connection.
#[derive(Default)]
struct Carried {
    search_path: Option<String>,
    variables: Vec<FrozenVariable>,
    temporary: Option<FrozenTemporary>,
}

/// What statements may have left in the connection: to ask DuckDB for all of it would
/// take longer than most of the sessions' statements.
#[derive(Debug, Default)]
pub(super) struct Traces {
    pub(super) any: bool,
    temporary: bool,
    variables: bool,
}

impl Traces {
    /// A statement runs that does more than to read and write rows.
    pub(super) fn note(&mut self, sql: &str) {
        let sql = sql.to_ascii_lowercase();
        self.any = true;
        // Nothing becomes temporary without this word somewhere: TEMP, TEMPORARY, or
        // the catalog's name.
        self.temporary |= sql.contains("temp");
        self.variables |= sql.contains("variable");
    }
}

/// What was asked of DuckDB, for as long as the session runs nothing.
pub(super) struct Packed {
    carried: Carried,
    /// Of the catalog, which others change too.
    generation: u64,
    /// Given back with it: until they are frozen, all sessions have theirs.
    _room: Option<Taken>,
}

impl Carried {
    fn size(&self) -> usize {
        let variables = self.variables.iter();
        let variables: usize = variables
            .map(|variable| variable.value.as_ref().map_or(0, String::len) + 64)
            .sum();
        variables + self.temporary.as_ref().map_or(0, FrozenTemporary::size)
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
    /// Its connection has what only lives as long as the connection, and cannot be
    /// carried along: a temporary macro, sequence or type, a temporary table that
    /// refers to others or is too large, a variable without a text.
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
    /// Why the session cannot be frozen now. What is to be carried of its connection
    /// is packed, and kept until the session is [run](Session::run) or
    /// [unpacked](Session::unpack).
    pub fn pin(&mut self) -> Option<Pin> {
        self.pack().err()
    }

    /// Does [`Session::pin`] ask DuckDB, which may take its time? Only if the session
    /// has run what may have left something with it.
    pub fn pin_takes_time(&self) -> bool {
        let asks = self.traces.any || self.settings.sets_search_path();
        asks && self.unrest().is_none() && !self.is_packed()
    }

    /// Lets go of what was packed: the session is not to be frozen now.
    pub fn unpack(&mut self) {
        self.packed = None;
    }

    fn is_packed(&self) -> bool {
        let generation = self.connection.instance().generation();
        let packed = self.packed.as_ref();
        packed.is_some_and(|packed| packed.generation == generation)
    }

    fn pack(&mut self) -> Result<(), Pin> {
        if let Some(pin) = self.unrest() {
            return Err(pin);
        }
        if !self.is_packed() {
            self.packed = None;
            let generation = self.connection.instance().generation();
            let mut carried = Carried::default();
            if self.traces.any || self.settings.sets_search_path() {
                // What DuckDB does not tell cannot be carried.
                carried = self.ask_engine().map_err(|_| Pin::Temporary)?;
            }
            let room = match &carried.temporary {
                Some(temporary) => {
                    let room = self.policy.room.take(temporary.size());
                    Some(room.ok_or(Pin::Temporary)?)
                }
                None => None,
            };
            self.packed = Some(Packed {
                carried,
                generation,
                _room: room,
            });
        }
        let carried = self.packed.as_ref().map_or(0, |packed| packed.carried.size());
        match self.size() + carried {
            0..=LARGEST => Ok(()),
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
        if let Err(pin) = self.pack() {
            return Err((Box::new(self), pin));
        }
        let Carried {
            search_path,
            variables,
            temporary,
        } = self
            .packed
            .take()
            .map(|packed| packed.carried)
            .unwrap_or_default();
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
                temporary,
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
            has_failed: false,
            begun_with: None,
            epoch_begun_with: 0,
            traces: Traces::default(),
            packed: None,
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
        if let Some(packed) = &frozen.temporary {
            session.traces.any = true;
            session.traces.temporary = true;
            if let Err(error) = temporary::unpack(&session.connection, packed) {
                tracing::error!(backend_id, %error, "a session ends, whose temporary tables cannot be made again");
                return Err(session.end(SessionError::fatal(
                    "57P01",
                    "terminating connection because its temporary tables could not be carried along",
                )));
            }
        }
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
        self.traces = Traces {
            any: search_path.is_some() || !variables.is_empty(),
            temporary: false,
            variables: !variables.is_empty(),
        };
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
        let path = self.texts("SELECT current_setting('search_path')")?;
        let mut carried = Carried {
            // Empty is what it is at the beginning.
            search_path: path.into_iter().flatten().find(|path| !path.is_empty()),
            ..Carried::default()
        };
        if self.traces.variables {
            let names = self.texts("SELECT name FROM duckdb_variables()")?;
            for name in names.into_iter().flatten() {
                carried.variables.push(self.variable(name)?);
            }
        }
        // A table may also be temporary because that is where names are looked for.
        if self.traces.temporary || self.settings.sets_search_path() {
            carried.temporary = self.temporary(carried.search_path.as_deref())?;
        }
        Ok(carried)
    }

    fn temporary(&self, search_path: Option<&str>) -> Result<Option<FrozenTemporary>, SessionError> {
        // As `thaw` will do it.
        let (values, startup) = self.settings.freeze();
        let Thawed { engine, .. } = Settings::thaw(&self.owner.user, self.policy.timeouts(), values, startup);
        let prepare = |connection: &Connection| {
            for (_, statement) in &engine {
                connection.run(statement)?;
            }
            search_path.map_or(Ok(()), |path| {
                connection.run(&format!("SET search_path = {}", quote_literal(path)))
            })
        };
        temporary::pack(&self.connection, prepare).map_err(|bound| {
            tracing::debug!(backend_id = self.handle.backend_id(), %bound, "its temporary objects stay");
            SessionError::new("0A000", "there are temporary objects")
        })
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

/// The variable's value in SQL.
fn literal(variable: &FrozenVariable) -> String {
    let value = match &variable.value {
        Some(text) => quote_literal(text),
        None => "NULL".to_owned(),
    };
    format!("CAST({value} AS {})", variable.sql_type)
}
