//! One open database file.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use duckdb::ffi;

use super::backup;
use super::connection::Connection;
use super::helpers::{Helpers, Running};
use super::host::{self, Host, Introductions};
use super::{Error, Lease, LeaseError};
use crate::sql::catalog;

/// How an instance is opened.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Upper bound of the buffer manager in bytes; the process needs more.
    pub memory_limit: Option<u64>,
    /// Threads that the instance's queries share.
    pub threads: Option<usize>,
    /// Where larger-than-memory operators spill.
    pub temp_directory: Option<PathBuf>,
    /// How many bytes they may put there.
    pub temp_quota: Option<u64>,
    /// Where signed extension files are: `<dir>/v<version>/<platform>/<name>.duckdb_extension`.
    pub extension_directory: Option<PathBuf>,
    /// Extensions to load, by name.
    pub extensions: Vec<String>,
    /// Directories that SQL may read and write.
    pub file_access: Vec<PathBuf>,
    /// Where [backups](Instance::backup) of the database go; made when the first one is.
    pub backup_directory: Option<PathBuf>,
    /// Whom SQL may ask about the server.
    pub host: Option<Arc<dyn Host>>,
}

/// An open DuckDB instance. One per database file in a process; the lease that
/// is held with it makes it one per machine.
#[derive(Debug)]
pub struct Instance {
    raw: ffi::duckdb_database,
    /// Ended before the database is closed.
    helpers: Option<Helpers>,
    /// Counts what may invalidate a plan that DuckDB does not notice by itself.
    generation: AtomicU64,
    dead: AtomicBool,
    /// A new schema is only in the WAL.
    unsettled: AtomicBool,
    /// Loaded by configuration.
    extensions: Vec<String>,
    /// Have PostgreSQL's catalogs been made?
    catalogs: Mutex<bool>,
    /// In bytes; 0 is DuckDB's own default.
    memory_limit: AtomicU64,
    introductions: Arc<Introductions>,
    backups: Option<backup::Place>,
    _lease: Option<Arc<Lease>>,
}

// SAFETY: DuckDB's database object is made to be shared by threads; the pointer
// itself never changes between open and drop.
unsafe impl Send for Instance {}
// SAFETY: as above.
unsafe impl Sync for Instance {}

impl Instance {
    /// Opens (and if it does not exist, creates) the database at `path`, and
    /// locks its configuration. Nothing is loaded from the network: automatic
    /// installing and loading of extensions is off.
    pub fn open(path: &Path, options: &Options) -> Result<Arc<Instance>, Error> {
        let lease = Lease::take(path).map_err(|error| match error {
            LeaseError::Held(_) => Error::new("IO", error.to_string()),
            LeaseError::Io(_, ref source) => Error::new("IO", format!("{error}{}", no_space(source))),
        })?;
        Self::open_leased(path, Arc::new(lease), options)
    }

    /// As [`Instance::open`], with the lease on `path` taken before. It is held
    /// until DuckDB has closed the file, and longer by whoever shares it.
    pub fn open_leased(path: &Path, lease: Arc<Lease>, options: &Options) -> Result<Arc<Instance>, Error> {
        Self::start(Some(path), options, Some(lease))
    }

    /// As [`Instance::open`] for a file that nobody else knows of.
    pub(super) fn open_copy(path: &Path, options: &Options) -> Result<Arc<Instance>, Error> {
        Self::start(Some(path), options, None)
    }

    /// Opens an instance that lives in memory only.
    pub fn in_memory(options: &Options) -> Result<Arc<Instance>, Error> {
        Self::start(None, options, None)
    }

    fn start(
        path: Option<&Path>,
        options: &Options,
        lease: Option<Arc<Lease>>,
    ) -> Result<Arc<Instance>, Error> {
        let mut config = Config::new()?;
        config.set("duckdb_api", "duckgres")?;
        config.set("autoinstall_known_extensions", "false")?;
        config.set("autoload_known_extensions", "false")?;
        config.set("allow_community_extensions", "false")?;
        if let Some(limit) = &options.memory_limit {
            config.set("memory_limit", &format!("{limit}B"))?;
        }
        let threads = options
            .threads
            .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
            .unwrap_or(1)
            .max(1);
        // All of them are ours, see `helpers`.
        config.set("threads", &threads.to_string())?;
        config.set("external_threads", &threads.to_string())?;
        if let Some(directory) = &options.temp_directory {
            config.set("temp_directory", &directory.to_string_lossy())?;
        }
        if let Some(directory) = &options.extension_directory {
            config.set("extension_directory", &directory.to_string_lossy())?;
        }
        let backups = path
            .zip(options.backup_directory.as_deref())
            .map(|(path, directory)| backup::Place::new(path, directory, options));
        let path = c_string(&path.map_or_else(|| ":memory:".into(), |path| path.to_string_lossy()))?;
        let mut raw = ptr::null_mut();
        let mut message = ptr::null_mut();
        // SAFETY: path and config are alive for the call; raw and message are
        // out parameters, the message is ours to free.
        let state = unsafe { ffi::duckdb_open_ext(path.as_ptr(), &mut raw, config.raw, &mut message) };
        if state != ffi::DuckDBSuccess {
            // SAFETY: on failure the message is null or a C string.
            let error = unsafe { Error::from_raw(message) };
            // SAFETY: allocated by DuckDB for us; freeing null is allowed.
            unsafe { ffi::duckdb_free(message.cast()) };
            return Err(error);
        }
        let mut instance = Instance {
            raw,
            helpers: None,
            generation: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            unsettled: AtomicBool::new(false),
            extensions: options.extensions.clone(),
            catalogs: Mutex::new(false),
            memory_limit: AtomicU64::new(options.memory_limit.unwrap_or(0)),
            introductions: Arc::default(),
            backups,
            _lease: lease,
        };
        // SAFETY: the instance drops its helpers before it closes the database.
        let helpers = unsafe { Helpers::start(raw, threads - 1) };
        instance.helpers = Some(
            helpers
                .map_err(|error| Error::new("Out of Memory", format!("cannot start a thread: {error}")))?,
        );
        let instance = Arc::new(instance);
        instance.configure(options)?;
        Ok(instance)
    }

    /// Loads the extensions and closes the doors, in the order in which DuckDB
    /// allows it: external access last, then the lock on the configuration.
    fn configure(self: &Arc<Self>, options: &Options) -> Result<(), Error> {
        let connection = self.connect()?;
        if let Some(host) = &options.host {
            // SAFETY: both are open, and the connection is of this database.
            unsafe { host::register(self.raw, connection.shared.raw, host, &self.introductions) }?;
        }
        for extension in &options.extensions {
            connection.run(&format!("LOAD {}", crate::sql::quote_identifier(extension)))?;
        }
        let directories: Vec<String> = options
            .file_access
            .iter()
            .map(|directory| crate::sql::quote_literal(&format!("{}/", directory.display())))
            .collect();
        if let Some(quota) = &options.temp_quota {
            // As an option of opening DuckDB shows it and does not keep to it.
            connection.run(&format!("SET GLOBAL max_temp_directory_size='{quota}B'"))?;
        }
        for statement in [
            "SET GLOBAL errors_as_json=true",
            "SET GLOBAL TimeZone='UTC'",
            "SET allow_persistent_secrets=false",
            &format!("SET allowed_directories=[{}]", directories.join(", ")),
            "SET enable_external_access=false",
            &format!(
                "SET allowed_configs=[{}, 'custom_profiling_settings', 'memory_limit']",
                SESSION_SETTINGS.map(crate::sql::quote_literal).join(", ")
            ),
            "SET lock_configuration=true",
        ] {
            connection.run(statement)?;
        }
        Ok(())
    }

    /// Changes the upper bound of the buffer manager, in bytes. Fails, and changes
    /// nothing, as long as running statements need more. This is the one setting
    /// of the instance that is not locked; `sql::policy` keeps it from clients.
    pub fn limit_memory(self: &Arc<Self>, bytes: u64) -> Result<(), Error> {
        if self.memory_limit.load(Ordering::Acquire) != bytes {
            self.connect()?
                .run(&format!("SET GLOBAL memory_limit='{bytes}B'"))?;
            self.memory_limit.store(bytes, Ordering::Release);
        }
        Ok(())
    }

    /// A new connection: about 5 µs, and it shares nothing with others but the data.
    pub fn connect(self: &Arc<Self>) -> Result<Connection, Error> {
        Connection::open(self.clone(), self.raw)
    }

    /// A statement begins to run; it ends when the value is dropped.
    pub(super) fn begin(&self) -> Option<Running> {
        self.helpers.as_ref().and_then(Helpers::begin)
    }

    pub(super) fn backups(&self) -> Option<&backup::Place> {
        self.backups.as_ref()
    }

    pub(super) fn introductions(&self) -> &Introductions {
        &self.introductions
    }

    #[cfg(test)]
    pub(super) fn helpers(&self) -> &Helpers {
        self.helpers.as_ref().unwrap()
    }

    /// A number that changes whenever a plan made before may be out of date.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// To be called when the catalog changed or a transaction that changed it
    /// was committed. DuckDB checks plans against the catalog by itself, but not
    /// for what it folded into them (macros, for example).
    pub fn catalog_changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Makes PostgreSQL's catalogs, so that what [`crate::sql::rewrite()`] names is
    /// there. Only the first call does something, and takes some 10 ms.
    ///
    /// # Errors
    /// DuckDB's, without the position in a text that nobody has seen.
    pub fn make_catalogs(self: &Arc<Self>) -> Result<(), Error> {
        self.made_catalogs().map_err(|mut error| {
            error.position = None;
            error
        })
    }

    fn made_catalogs(self: &Arc<Self>) -> Result<(), Error> {
        let mut made = self.catalogs.lock().unwrap_or_else(PoisonError::into_inner);
        if !*made {
            let connection = self.connect()?;
            connection.run(&format!(
                "ATTACH IF NOT EXISTS ':memory:' AS {}",
                catalog::DATABASE
            ))?;
            connection.run("BEGIN TRANSACTION")?;
            for statement in catalog::definitions(&self.extensions) {
                connection.run(&statement)?;
            }
            connection.run("COMMIT")?;
            *made = true;
        }
        Ok(())
    }

    pub(super) fn unsettle(&self) {
        self.unsettled.store(true, Ordering::Release);
    }

    /// True once for each time that it was unsettled: who asks does something about it.
    pub(super) fn is_unsettled(&self) -> bool {
        self.unsettled.load(Ordering::Relaxed) && self.unsettled.swap(false, Ordering::AcqRel)
    }

    /// Has an error shown that the instance can no longer be used?
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Notes that the instance can no longer be used; true if that is news.
    pub fn mark_dead(&self) -> bool {
        !self.dead.swap(true, Ordering::AcqRel)
    }
}

/// DuckDB's settings that concern one connection only; all others are locked.
pub const SESSION_SETTINGS: [&str; 9] = [
    "TimeZone",
    "Calendar",
    "search_path",
    "schema",
    "integer_division",
    "ieee_floating_point_ops",
    "max_expression_depth",
    "scalar_subquery_error_on_multiple_rows",
    "lambda_syntax",
];

impl Drop for Instance {
    fn drop(&mut self) {
        self.helpers = None;
        // SAFETY: opened in `start` and closed only here; connections hold an
        // Arc of this value, so none is left.
        unsafe { ffi::duckdb_close(&mut self.raw) };
    }
}

fn no_space(error: &std::io::Error) -> &'static str {
    if error.kind() == std::io::ErrorKind::StorageFull {
        " (No space left on device)"
    } else {
        ""
    }
}

/// `text` for C; SQL that holds a NUL byte is no SQL.
pub(super) fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::new("Syntax", "a NUL byte is not allowed here"))
}

struct Config {
    raw: ffi::duckdb_config,
}

impl Config {
    fn new() -> Result<Config, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: raw is an out parameter.
        match unsafe { ffi::duckdb_create_config(&mut raw) } {
            ffi::DuckDBSuccess => Ok(Config { raw }),
            _ => Err(Error::new(
                "Out of Memory",
                "cannot allocate DuckDB's configuration",
            )),
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let (c_name, c_value) = (c_string(name)?, c_string(value)?);
        // SAFETY: the configuration is ours and alive, as are both strings.
        match unsafe { ffi::duckdb_set_config(self.raw, c_name.as_ptr(), c_value.as_ptr()) } {
            ffi::DuckDBSuccess => Ok(()),
            _ => Err(Error::new(
                "Settings",
                format!("DuckDB does not take {value:?} for {name}"),
            )),
        }
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed only here.
        unsafe { ffi::duckdb_destroy_config(&mut self.raw) };
    }
}

/// A DuckDB-allocated C string as an owned one.
///
/// # Safety
/// `text` is null or a C string that `duckdb_free` may free.
pub(super) unsafe fn take_string(text: *mut std::ffi::c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and a C string by the caller's promise.
    let owned = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    // SAFETY: allocated by DuckDB, freed once.
    unsafe { ffi::duckdb_free(text.cast()) };
    owned
}
