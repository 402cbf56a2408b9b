//! The message loop of one session, exact to the protocol.
//!
//! A [`Session`] is a value: the worker runs it on a thread while its client has
//! something to say ([`Session::run`]), and puts it aside when there is nothing.
//! It knows the client, its settings, its statements and portals, and one
//! connection to the engine; it knows nothing of the worker or of other
//! sessions. What others may do to it goes through its [`Handle`].
//!
//! Source: PostgreSQL manual, chapter 55 "Frontend/Backend Protocol".

mod activity;
mod client;
mod commands;
mod copy;
mod counters;
mod cursors;
mod databases;
mod deadline;
mod duration;
mod error;
mod extended;
mod freeze;
mod handle;
mod lanes;
pub mod message;
mod peer;
mod portal;
pub mod reply;
mod run;
mod settings;
mod simple;
mod spare;
mod statement;
mod temporary;
mod transaction;

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

pub use activity::{Activity, Ended, Observer};
pub use counters::Counters;
pub use databases::{DatabaseError, Keeper};
pub use deadline::Deadlines;
pub use error::{Failure, Gone, SessionError, Severity};
pub use freeze::Pin;
pub use handle::{Handle, Stop};
pub use peer::Peer;
pub use settings::{SERVER_VERSION, Timeouts};
pub use spare::{Ground, Spare};
pub use temporary::Room;

use zeroize::Zeroizing;

use client::{Client, Frame, Wait};
use message::Message;
use portal::Portal;
use settings::{Change, Settings};
use statement::{PlanCache, Statement};
use transaction::Transaction;

use crate::engine::Connection;
use crate::handoff::{PeerFacts, SessionState};
use crate::sql::policy;

/// How long a thread waits for the next message before it gives the session
/// back. Long enough that a client in a loop never changes threads.
const LINGER: Duration = Duration::from_millis(20);

/// What a worker allows its sessions, the same for all of them.
#[derive(Debug, Default)]
pub struct Policy {
    /// Directories that SQL may read and write.
    pub file_access: RwLock<Arc<[PathBuf]>>,
    /// Where suspended portals put their rows.
    pub spool_directory: PathBuf,
    /// What sessions that begin from now on may take their time for.
    pub timeouts: RwLock<Timeouts>,
    /// Keeps the timeouts of statements.
    pub deadlines: Arc<Deadlines>,
    /// Counts what sessions do.
    pub counters: Arc<Counters>,
    /// Makes and removes databases, if anybody does.
    pub keeper: Option<Arc<dyn Keeper>>,
    /// For temporary tables on their way to another process.
    pub room: Arc<Room>,
}

impl Policy {
    /// Other timeouts, for the sessions that begin from now on.
    pub fn set_timeouts(&self, timeouts: Timeouts) {
        *self.timeouts.write().unwrap_or_else(PoisonError::into_inner) = timeouts;
    }

    /// Other directories, for the statements that begin from now on.
    pub fn set_file_access(&self, directories: Arc<[PathBuf]>) {
        *self.file_access.write().unwrap_or_else(PoisonError::into_inner) = directories;
    }

    fn timeouts(&self) -> Timeouts {
        *self.timeouts.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, sql: &str) -> Result<(), SessionError> {
        // Files are looked at meanwhile: nobody who sets it shall wait for that.
        let directories = self
            .file_access
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Ok(policy::check(sql, &directories)?)
    }
}

/// A client's session.
pub struct Session {
    client: Client,
    handle: Arc<Handle>,
    connection: Connection,
    policy: Arc<Policy>,
    observer: Arc<dyn Observer>,
    protocol_minor: u32,
    owner: Owner,
    settings: Settings,
    transaction: Transaction,
    statements: HashMap<String, Arc<Statement>>,
    portals: HashMap<String, Portal>,
    plans: PlanCache,
    /// Counted up to where it no longer matters.
    statements_run: u32,
    /// Some statement has failed.
    has_failed: bool,
    /// The settings of its beginning, of a session that may leave a [`Spare`], and
    /// [`Settings::epoch`] then.
    begun_with: Option<Box<[(String, String)]>>,
    epoch_begun_with: u64,
    traces: freeze::Traces,
    /// What is carried of the connection if the session is frozen before it runs again.
    packed: Option<freeze::Packed>,
    began: SystemTime,
    /// The statement in hand has ended its transaction, and that was told.
    transaction_told: bool,
    /// After an error in the extended protocol, messages are passed over.
    skip_until_sync: bool,
}

/// Whose session it is.
struct Owner {
    user: String,
    database: String,
    admin: bool,
    peer: PeerFacts,
}

/// Why [`Session::run`] came back.
#[derive(Debug)]
pub enum Pause {
    /// The client has nothing to say at the moment, or the session is
    /// [held](Handle::hold).
    Idle,
    /// The session is over; drop it.
    Over(Gone),
}

impl Session {
    /// Takes up a session that the control plane has authenticated: tells the
    /// client its parameters and key, and that it may begin. `observer` is told
    /// what it does. `ground` is a new [`Connection`], or a [`Spare`] that
    /// [suits](Spare::suits). A session that has begun before is
    /// [thawed](Session::thaw) instead.
    pub fn start(
        socket: std::os::fd::OwnedFd,
        state: SessionState,
        ground: impl Into<Ground>,
        policy: Arc<Policy>,
        observer: Arc<dyn Observer>,
    ) -> Result<Session, Gone> {
        let Ground {
            connection,
            plans,
            statements_run,
            is_set,
        } = ground.into();
        let SessionState {
            backend_id,
            cancel_key,
            protocol_minor,
            user,
            database,
            admin,
            settings,
            unread_input,
            tls,
            peer,
            ..
        } = state;
        let tls = tls.map(crate::tls::Channel::resume).transpose()?;
        let client = Client::new(socket, unread_input, Zeroizing::default(), tls)?;
        let handle = Arc::new(Handle::new(
            backend_id,
            cancel_key,
            connection.interrupt_handle(),
            policy.deadlines.clone(),
        ));
        connection.introduce(backend_id);
        let mut session = Session {
            client,
            handle,
            connection,
            settings: Settings::new(&user, policy.timeouts()),
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
            statements: HashMap::new(),
            portals: HashMap::new(),
            plans,
            statements_run,
            has_failed: false,
            begun_with: None,
            epoch_begun_with: 0,
            traces: freeze::Traces::default(),
            packed: None,
            began: SystemTime::now(),
            transaction_told: false,
            skip_until_sync: false,
        };
        if let Err(mut error) = session.greet(&settings, is_set) {
            error.severity = Severity::Fatal;
            return Err(session.end(error));
        }
        session.begun_with = Some(settings.into());
        session.epoch_begun_with = session.settings.epoch();
        Ok(session)
    }

    /// `is_set`: DuckDB has these settings.
    fn greet(&mut self, settings: &[(String, String)], is_set: bool) -> Result<(), SessionError> {
        for (name, value) in settings {
            let change = self.settings.set_at_start(name, value)?;
            if let Some(statement) = change.engine
                && !is_set
            {
                self.connection.run(&statement)?;
            }
        }
        let name = self.settings.show("application_name").unwrap_or_default();
        self.note_application_name(&name);
        self.client.set_liveness(self.settings.liveness());
        for (name, value) in self.settings.reported() {
            reply::parameter_status(&mut self.client.output, name, &value);
        }
        reply::backend_key_data(
            &mut self.client.output,
            self.handle.backend_id(),
            self.handle.cancel_key().as_bytes(),
        );
        reply::ready_for_query(&mut self.client.output, self.transaction.status());
        Ok(())
    }

    /// Tells a client that its session cannot begin, when there is no
    /// [`Session`] yet.
    pub fn refuse(socket: std::os::fd::OwnedFd, state: SessionState, error: &SessionError) {
        let SessionState {
            unread_input,
            tls,
            frozen,
            ..
        } = state;
        let unsent = frozen.map_or_else(Zeroizing::default, |frozen| frozen.unsent_output);
        let Ok(tls) = tls.map(crate::tls::Channel::resume).transpose() else {
            return;
        };
        if let Ok(mut client) = Client::new(socket, unread_input, unsent, tls) {
            reply::error_response(&mut client.output, error);
            client.close();
        }
    }

    /// What others hold of this session.
    pub fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// The client's socket: when it is readable, [`Session::run`] has work.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.client.socket()
    }

    /// How long the client may go on saying nothing, after [`Pause::Idle`].
    pub fn patience(&self) -> Option<Duration> {
        let timeouts = self.settings.timeouts();
        match self.transaction.state() {
            transaction::State::Idle => timeouts.idle_session,
            transaction::State::Block | transaction::State::Failed => timeouts.idle_in_transaction,
            // In the middle of a pipeline, whose Sync ends it.
            transaction::State::Implicit => None,
        }
    }

    /// How the client is, as far as the kernel knows. A client that has not got
    /// all that was sent to it is to be looked after while the session waits.
    pub fn peer(&self) -> Peer {
        self.client.peer()
    }

    /// Ends a session whose client has said nothing for [`Session::patience`].
    pub fn expire(&mut self) -> Gone {
        self.end(match self.transaction.state() {
            transaction::State::Idle => {
                SessionError::fatal("57P05", "terminating connection due to idle-session timeout")
            }
            _ => SessionError::fatal(
                "25P03",
                "terminating connection due to idle-in-transaction timeout",
            ),
        })
    }

    /// The minor version of the protocol that the client speaks.
    pub fn protocol_minor(&self) -> u32 {
        self.protocol_minor
    }

    /// Serves the client until it has nothing to say or the session is over. A
    /// panic ends this session, with an error, and no other.
    pub fn run(&mut self) -> Pause {
        self.unpack();
        let served = catch_unwind(AssertUnwindSafe(|| self.serve()));
        let pause = match served {
            Ok(Ok(())) => Pause::Idle,
            Ok(Err(gone)) => Pause::Over(gone),
            Err(_) => Pause::Over(self.end(SessionError::fatal(
                "XX000",
                "internal error, the session is ended",
            ))),
        };
        self.count_traffic();
        pause
    }

    fn count_traffic(&mut self) {
        self.policy.counters.sent(&mut self.client.traffic);
    }

    fn serve(&mut self) -> Result<(), Gone> {
        let mut frame = Frame::default();
        loop {
            if self.handle.is_held() && !self.handle.is_ending() && self.unrest().is_none() {
                self.client.offer()?;
                self.count_traffic();
                return Ok(());
            }
            match self.client.next_frame(&mut frame) {
                Ok(true) => self.message(&frame)?,
                Ok(false) => {
                    self.flush()?;
                    self.count_traffic();
                    if self.handle.is_ending() {
                        return Err(self.end(portal::shutdown()));
                    }
                    if self.client.fill(LINGER)? == Wait::Timeout {
                        return Ok(());
                    }
                }
                Err(error) => return Err(self.end(error)),
            }
            if self.handle.is_ending() && !self.transaction.is_open() && !self.skip_until_sync {
                return Err(self.end(portal::shutdown()));
            }
        }
    }

    /// Ends the session with an error. The client is told if it can be.
    fn end(&mut self, error: SessionError) -> Gone {
        self.portals.clear();
        if self.transaction.is_open() {
            self.note_transaction(false);
        }
        self.transaction.rollback(&self.connection);
        reply::error_response(&mut self.client.output, &error);
        let _ = self.client.flush(&self.handle);
        Gone::Ended(error)
    }

    fn message(&mut self, frame: &Frame) -> Result<(), Gone> {
        if self.skip_until_sync && !matches!(frame.kind, b'S' | b'X') {
            return Ok(());
        }
        let extended = matches!(frame.kind, b'P' | b'B' | b'D' | b'E' | b'C' | b'H');
        let done = message::parse(frame.kind, &frame.body)
            .map_err(Failure::from)
            .and_then(|message| self.dispatch(message));
        match done {
            Ok(()) => Ok(()),
            Err(Failure::Gone(gone)) => Err(gone),
            Err(Failure::Report(error)) => {
                self.report(error)?;
                if extended {
                    self.skip_until_sync = true;
                    Ok(())
                } else {
                    self.ready()
                }
            }
        }
    }

    fn dispatch(&mut self, message: Message<'_>) -> Result<(), Failure> {
        match message {
            Message::Query(text) => self.simple_query(text),
            Message::Parse { name, query, types } => {
                let began = Instant::now();
                let result = self.parse(name, query, types);
                self.note_failure(query, began, &result);
                result
            }
            Message::Bind {
                portal,
                statement,
                formats,
                parameters,
                results,
            } => {
                let began = Instant::now();
                let result = self.bind(portal, statement, &formats, &parameters, &results);
                if result.is_err() {
                    let text = self.statements.get(statement).cloned();
                    self.note_failure(text.as_ref().map_or("", |text| &text.sql), began, &result);
                }
                result
            }
            Message::Describe(target) => self.describe(&target),
            Message::Execute { portal, limit } => self.execute(portal, limit),
            Message::Close(target) => self.close(&target),
            Message::Flush => Ok(self.client.flush(&self.handle)?),
            Message::Sync => self.sync(),
            Message::Terminate => {
                self.client.flush(&self.handle)?;
                Err(Gone::Left.into())
            }
            Message::FunctionCall => {
                Err(SessionError::new("0A000", "function calls are not supported").into())
            }
            // Left over from a COPY that failed while they were on their way.
            Message::CopyData(_) | Message::CopyDone | Message::CopyFail(_) => Ok(()),
            Message::Password => Err(self
                .end(SessionError::lost_sync("unexpected password message"))
                .into()),
        }
    }

    /// Tells the client of an error and puts the transaction into the state that
    /// follows from it.
    fn report(&mut self, error: SessionError) -> Result<(), Gone> {
        self.policy.counters.failed();
        self.has_failed = true;
        if error.severity == Severity::Fatal {
            if error.sqlstate == "XX000" && self.connection.instance().mark_dead() {
                let (database, reason) = (&self.owner.database, &error.message);
                tracing::error!(%database, %reason, "DuckDB gives up: sessions end, the file is opened anew");
            }
            return Err(self.end(error));
        }
        if self.transaction.state() == transaction::State::Idle {
            // An autocommit statement that failed may have left a stream open.
            self.portals.clear();
        }
        if self.transaction.fail(&self.connection) {
            self.after_transaction(false);
        }
        reply::error_response(&mut self.client.output, &error);
        Ok(())
    }

    /// ReadyForQuery, and everything before it is sent.
    fn ready(&mut self) -> Result<(), Gone> {
        self.handle.set_pinned(self.transaction.is_open());
        self.note_ready();
        reply::ready_for_query(&mut self.client.output, self.transaction.status());
        // With more messages at hand their answers can share a write.
        if self.client.peek_kind().is_some() {
            self.client.relieve(&self.handle)
        } else {
            self.flush()
        }
    }

    /// Sends all output; a session that is held and at rest leaves what its client
    /// does not read.
    fn flush(&mut self) -> Result<(), Gone> {
        match self.unrest() {
            None => self.client.flush_at_rest(&self.handle),
            Some(_) => self.client.flush(&self.handle),
        }
    }

    /// What must happen when a transaction has ended, either way.
    fn after_transaction(&mut self, committed: bool) {
        self.note_transaction(committed);
        self.portals.clear();
        for change in self.settings.end_transaction(committed) {
            // The values were in force before, so DuckDB takes them again.
            let _ = self.apply(change);
        }
    }

    /// Hands a changed setting on to DuckDB and the client.
    fn apply(&mut self, change: Change) -> Result<(), SessionError> {
        if let Some(statement) = change.engine {
            self.connection.run(&statement)?;
        }
        if change.liveness {
            self.client.set_liveness(self.settings.liveness());
        }
        if let Some((name, value)) = change.report {
            if name == "application_name" {
                self.note_application_name(&value);
            }
            reply::parameter_status(&mut self.client.output, name, &value);
        }
        Ok(())
    }

    fn warn(&mut self, sqlstate: &'static str, message: &'static str) {
        if self
            .settings
            .show("client_min_messages")
            .is_none_or(|level| level != "error")
        {
            reply::notice_response(
                &mut self.client.output,
                "WARNING",
                &SessionError::new(sqlstate, message),
            );
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Session")
            .field("backend_id", &self.handle.backend_id())
            .finish_non_exhaustive()
    }
}
