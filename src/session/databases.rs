//! CREATE DATABASE, DROP DATABASE and BACKUP DATABASE: who may, when, and what the
//! client is told.
//!
//! Whoever runs sessions gives them a [`Keeper`], which knows the files and who
//! has them open. Source for conditions, order and wording: PostgreSQL manual,
//! part VI, and what PostgreSQL 15 answers.

use std::{fmt, io};

use super::error::{Failure, SessionError, Severity};
use super::run::explain;
use super::transaction::State;
use super::{Session, reply};
use crate::config::names;
use crate::engine::{self, BackupError};
use crate::sql::database::{DatabaseStatement, OptionError, check_options};

/// Makes databases and removes them. Called on a session's own thread, which it
/// may block. Names were checked by [`names::check`].
pub trait Keeper: fmt::Debug + Send + Sync {
    /// Makes an empty database.
    ///
    /// # Errors
    /// [`DatabaseError::Exists`], or that the files cannot be made.
    fn create(&self, name: &str) -> Result<(), DatabaseError>;

    /// Removes a database, after a few seconds in which its sessions may leave.
    /// With `force` they are ended. `stopped` is asked now and then whether to
    /// give up.
    ///
    /// # Errors
    /// See [`DatabaseError`]; the database is then as it was.
    fn remove(
        &self,
        name: &str,
        force: bool,
        stopped: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), DatabaseError>;
}

/// Why a database was not made or removed.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// There is one of this name.
    #[error("it exists")]
    Exists,
    /// There is none of this name.
    #[error("it does not exist")]
    Missing,
    /// It has so many sessions.
    #[error("it has {0} sessions")]
    InUse(u32),
    /// A process has it open of which nothing is known.
    #[error("another process has it open")]
    Elsewhere,
    /// The caller wants no more.
    #[error("stopped")]
    Stopped,
    /// The operating system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// DuckDB could not make the file.
    #[error("{0}")]
    Engine(#[from] engine::Error),
}

/// A statement that is not allowed where it stands.
pub(super) fn not_in_a_block(statement: &DatabaseStatement) -> SessionError {
    match statement {
        DatabaseStatement::Malformed(message) => SessionError::new("42601", message.clone()),
        _ => {
            let message = format!("{} cannot run inside a transaction block", statement.command());
            SessionError::new("25001", message)
        }
    }
}

impl Session {
    /// Runs a statement about a whole database. Returns the file that it made, if that
    /// is of interest.
    pub(super) fn database_command(
        &mut self,
        statement: &DatabaseStatement,
    ) -> Result<Option<String>, Failure> {
        let malformed = matches!(statement, DatabaseStatement::Malformed(_));
        if malformed || self.transaction.state() != State::Idle {
            return Err(not_in_a_block(statement).into());
        }
        let reads = matches!(statement, DatabaseStatement::Backup { .. });
        if self.settings.read_only_by_default() && !reads {
            let command = statement.command();
            let message = format!("cannot execute {command} in a read-only transaction");
            return Err(SessionError::new("25006", message).into());
        }
        match statement {
            DatabaseStatement::Create { name, options } => {
                check_options(options, &self.owner.user)?;
                self.create_database(name)?;
            }
            DatabaseStatement::Drop {
                name,
                if_exists,
                force,
            } => self.drop_database(name, *if_exists, *force)?,
            DatabaseStatement::Backup { name } => return self.backup(name.as_deref()).map(Some),
            DatabaseStatement::Malformed(_) => {}
        }
        Ok(None)
    }

    fn backup(&mut self, name: Option<&str>) -> Result<String, Failure> {
        let database = self.owner.database.clone();
        if !self.owner.admin {
            let message = format!("must be owner of database {database}");
            return Err(SessionError::new("42501", message).into());
        }
        if name.is_some_and(|name| name != database) {
            let message = "a database is backed up by a session that is connected to it";
            return Err(SessionError::new("0A000", message).into());
        }
        let handle = self.handle.clone();
        let running = handle.begin(self.is_last_wish(), self.settings.timeouts().statement);
        let made = self.connection.instance().backup(&|| handle.stopped().is_some());
        let stopped = handle.stopped();
        drop(running);
        let made = made.map_err(|error| explain(error.into(), stopped))?;
        tracing::info!(%database, file = %made.display(), "backed up");
        Ok(made.to_string_lossy().into_owned())
    }

    fn create_database(&mut self, name: &str) -> Result<(), Failure> {
        if !self.owner.admin {
            return Err(SessionError::new("42501", "permission denied to create database").into());
        }
        names::check(name)
            .map_err(|reason| SessionError::new("42602", format!("the database name {reason}")))?;
        let keeper = self.keeper()?;
        Ok(keeper.create(name).map_err(|error| refusal(name, error))?)
    }

    fn drop_database(&mut self, name: &str, if_exists: bool, force: bool) -> Result<(), Failure> {
        if !self.owner.admin {
            return Err(SessionError::new("42501", format!("must be owner of database {name}")).into());
        }
        if name == self.owner.database {
            return Err(SessionError::new("55006", "cannot drop the currently open database").into());
        }
        let keeper = self.keeper()?;
        let mut stopped = None;
        let removed = match names::check(name) {
            Ok(()) => {
                let handle = self.handle.clone();
                let running = handle.begin(self.is_last_wish(), self.settings.timeouts().statement);
                let removed = keeper.remove(name, force, &|| handle.stopped().is_some());
                stopped = handle.stopped();
                drop(running);
                removed
            }
            // Nothing can have such a name.
            Err(_) => Err(DatabaseError::Missing),
        };
        match removed {
            Err(DatabaseError::Missing) if if_exists => {
                let skipped = format!("database \"{name}\" does not exist, skipping");
                self.notice(skipped);
                Ok(())
            }
            removed => removed.map_err(|error| explain(refusal(name, error).into(), stopped)),
        }
    }

    fn keeper(&self) -> Result<std::sync::Arc<dyn Keeper>, SessionError> {
        let keeper = self.policy.keeper.clone();
        keeper.ok_or_else(|| SessionError::new("0A000", "databases cannot be made or removed here"))
    }

    fn notice(&mut self, message: String) {
        let level = self.settings.show("client_min_messages");
        if !level.is_some_and(|level| ["warning", "error"].contains(&level.as_str())) {
            let notice = SessionError::new("00000", message);
            reply::notice_response(&mut self.client.output, "NOTICE", &notice);
        }
    }
}

impl From<OptionError> for Failure {
    fn from(error: OptionError) -> Failure {
        let sqlstate = match error {
            OptionError::Unknown(_) | OptionError::Redundant => "42601",
            OptionError::Unsupported(..) => "0A000",
        };
        SessionError::new(sqlstate, error.to_string()).into()
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Failure {
        match error {
            BackupError::Stopped => SessionError::new("57014", "canceling statement due to user request"),
            BackupError::Changed => SessionError::new("55006", error.to_string()),
            BackupError::Nowhere => SessionError::new("0A000", error.to_string()),
            BackupError::Running => SessionError::new("55006", error.to_string()),
            BackupError::Space(..) => SessionError {
                detail: Some(error.to_string().into()),
                ..SessionError::new("53100", "there is no room for a backup")
            },
            BackupError::Io(error) => SessionError::new(
                sqlstate_of(&error),
                format!("the backup cannot be written: {error}"),
            ),
            // It may be about the copy, which is of no concern to others.
            BackupError::Engine(error) => SessionError {
                severity: Severity::Error,
                ..error.into()
            },
        }
        .into()
    }
}

fn refusal(name: &str, error: DatabaseError) -> SessionError {
    let in_use = |detail: String| SessionError {
        detail: Some(detail.into()),
        ..SessionError::new(
            "55006",
            format!("database \"{name}\" is being accessed by other users"),
        )
    };
    match error {
        DatabaseError::Exists => SessionError::new("42P04", format!("database \"{name}\" already exists")),
        DatabaseError::Missing => SessionError::new("3D000", format!("database \"{name}\" does not exist")),
        DatabaseError::InUse(1) => in_use("There is 1 other session using the database.".to_owned()),
        DatabaseError::InUse(sessions) => {
            in_use(format!("There are {sessions} other sessions using the database."))
        }
        DatabaseError::Elsewhere => in_use("Another process has it open.".to_owned()),
        DatabaseError::Stopped => SessionError::new("57014", "canceling statement due to user request"),
        DatabaseError::Io(error) => {
            let message = format!("the files of database \"{name}\" cannot be changed: {error}");
            SessionError::new(sqlstate_of(&error), message)
        }
        // Whatever it is, it is about another database than the session's.
        DatabaseError::Engine(error) => SessionError {
            severity: Severity::Error,
            ..error.into()
        },
    }
}

/// As PostgreSQL's `errcode_for_file_access`.
fn sqlstate_of(error: &io::Error) -> &'static str {
    use io::ErrorKind::{NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        PermissionDenied | ReadOnlyFilesystem => "42501",
        NotFound => "58P01",
        StorageFull | QuotaExceeded => "53100",
        _ => match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => "53000",
            _ => "58030",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operating_system_refuses_has_the_sqlstate_that_postgresql_gives_it() {
        let code = |errno| refusal("a", DatabaseError::Io(io::Error::from_raw_os_error(errno))).sqlstate;
        assert_eq!(code(libc::ENOSPC), "53100");
        assert_eq!(code(libc::EDQUOT), "53100");
        assert_eq!(code(libc::EACCES), "42501");
        assert_eq!(code(libc::EROFS), "42501");
        assert_eq!(code(libc::EMFILE), "53000");
        assert_eq!(code(libc::EIO), "58030");
    }

    #[test]
    fn what_is_wrong_with_another_database_is_not_the_sessions_end() {
        let error = engine::Error {
            exception: "FATAL".into(),
            subtype: None,
            entry: None,
            message: "no checkpoint".into(),
            position: None,
        };
        assert_eq!(refusal("a", error.into()).severity, Severity::Error);
    }

    #[test]
    fn who_is_in_the_way_is_counted_as_postgresql_counts_them() {
        let detail = |sessions| refusal("a", DatabaseError::InUse(sessions)).detail.unwrap();
        assert_eq!(&*detail(1), "There is 1 other session using the database.");
        assert_eq!(&*detail(3), "There are 3 other sessions using the database.");
    }
}
