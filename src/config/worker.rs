//! What a worker is told by whoever starts it.

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::Parser;

use super::load::Config;
use super::query_log::{QueryLog, Statements, Threshold};
use super::settings::doc;
use super::units::{Scalar, Size};

/// The command line of `duckgres-worker`. Its two listening sockets are
/// inherited as systemd passes them; it is told no secrets.
#[derive(Parser, Clone, Debug, PartialEq, Eq)]
#[command(name = "duckgres-worker", version, about = "Runs the sessions of duckgres", long_about = None)]
pub struct WorkerConfig {
    /// The worker's number, 1 to 1023; backend ids carry it.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1023), env = "DUCKGRES_WORKER_ID")]
    pub id: u16,

    #[arg(long, value_name = "DIR", env = "DUCKGRES_DATA_DIR", help = doc("data_dir"))]
    #[allow(missing_docs, reason = "documented by the setting data_dir")]
    pub data_dir: PathBuf,

    #[arg(long, value_name = "DIR", env = "DUCKGRES_EXTENSION_DIRECTORY", help = doc("extension_directory"))]
    #[allow(missing_docs, reason = "documented by the setting extension_directory")]
    pub extension_directory: Option<PathBuf>,

    #[arg(long = "extension", value_name = "NAME", value_delimiter = ',', env = "DUCKGRES_EXTENSIONS", help = doc("extensions"))]
    #[allow(missing_docs, reason = "documented by the setting extensions")]
    pub extensions: Vec<String>,

    #[arg(long, value_name = "SIZE", env = "DUCKGRES_MEMORY_LIMIT", help = doc("memory_limit"))]
    #[allow(missing_docs, reason = "documented by the setting memory_limit")]
    pub memory_limit: Option<Size>,

    #[arg(long, value_name = "N", env = "DUCKGRES_THREADS", help = doc("threads"))]
    #[allow(missing_docs, reason = "documented by the setting threads")]
    pub threads: Option<NonZeroU32>,

    #[arg(long, value_name = "DIR", env = "DUCKGRES_TEMP_DIRECTORY", help = doc("temp_directory"))]
    #[allow(missing_docs, reason = "documented by the setting temp_directory")]
    pub temp_directory: Option<PathBuf>,

    #[arg(long, value_name = "DIR", env = "DUCKGRES_FILE_ACCESS", value_delimiter = ',', help = doc("file_access"))]
    #[allow(missing_docs, reason = "documented by the setting file_access")]
    pub file_access: Vec<PathBuf>,

    #[arg(long, value_name = "LEVEL", env = "DUCKGRES_LOG", default_value = "info", help = doc("log_level"))]
    #[allow(missing_docs, reason = "documented by the setting log_level")]
    pub log_level: String,

    #[arg(long, value_name = "WHICH", env = "DUCKGRES_QUERY_LOG", default_value = "off", help = doc("query_log"))]
    #[allow(missing_docs, reason = "documented by the setting query_log")]
    pub query_log: Statements,

    #[arg(long, value_name = "TIME", env = "DUCKGRES_LOG_MIN_DURATION_STATEMENT", default_value = "-1", help = doc("log_min_duration_statement"))]
    #[allow(missing_docs, reason = "documented by the setting log_min_duration_statement")]
    pub log_min_duration_statement: Threshold,

    #[arg(long, env = "DUCKGRES_QUERY_LOG_TEXT", value_parser = on_or_off, action = clap::ArgAction::Set, default_value = "off", help = doc("query_log_text"))]
    #[allow(missing_docs, reason = "documented by the setting query_log_text")]
    pub query_log_text: bool,

    #[arg(long, value_name = "FILE", env = "DUCKGRES_QUERY_LOG_FILE", help = doc("query_log_file"))]
    #[allow(missing_docs, reason = "documented by the setting query_log_file")]
    pub query_log_file: Option<PathBuf>,

    /// The control plane's user, by name or number, who may hand over sessions and
    /// give orders. Without it only root and the worker's own user may.
    #[arg(long, value_name = "USER", env = "DUCKGRES_CONTROL_USER")]
    pub control_user: Option<String>,

    /// A file that workers lock so that only one of them restarts at a time, when
    /// systemd restarts all of them at once.
    #[arg(long, value_name = "FILE", env = "DUCKGRES_TURN")]
    pub turn: Option<PathBuf>,
}

fn on_or_off(text: &str) -> Result<bool, String> {
    bool::scan(text).ok_or_else(|| format!("must be {}", bool::FORM))
}

impl WorkerConfig {
    /// What worker `id` of this configuration is told.
    pub fn new(id: u16, config: &Config) -> Self {
        let settings = &config.settings;
        Self {
            id,
            data_dir: config.data_dir.clone(),
            extension_directory: settings.extension_directory.clone(),
            extensions: settings.extensions.clone(),
            memory_limit: settings.memory_limit,
            threads: settings.threads,
            temp_directory: settings.temp_directory.clone(),
            file_access: settings.file_access.clone(),
            log_level: settings.log_level.clone(),
            query_log: settings.query_log,
            log_min_duration_statement: settings.log_min_duration_statement,
            query_log_text: settings.query_log_text,
            query_log_file: settings.query_log_file.clone(),
            control_user: None,
            turn: None,
        }
    }

    /// What the query log is to hold.
    pub fn query_log(&self) -> QueryLog {
        QueryLog {
            statements: self.query_log,
            threshold: self.log_min_duration_statement,
            text: self.query_log_text,
            file: self.query_log_file.clone(),
        }
    }

    /// The arguments that, parsed, give this configuration again.
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args = Vec::new();
        let mut add = |flag: &str, value: OsString| {
            // As one word, so that a value may begin with a dash.
            let mut word = OsString::from(format!("--{flag}="));
            word.push(value);
            args.push(word);
        };
        add("id", self.id.to_string().into());
        add("data-dir", self.data_dir.clone().into());
        self.extension_directory
            .iter()
            .for_each(|path| add("extension-directory", path.into()));
        self.extensions
            .iter()
            .for_each(|name| add("extension", name.into()));
        self.memory_limit
            .iter()
            .for_each(|size| add("memory-limit", size.to_string().into()));
        self.threads
            .iter()
            .for_each(|threads| add("threads", threads.to_string().into()));
        self.temp_directory
            .iter()
            .for_each(|path| add("temp-directory", path.into()));
        self.file_access
            .iter()
            .for_each(|path| add("file-access", path.into()));
        add("log-level", self.log_level.clone().into());
        add("query-log", self.query_log.to_string().into());
        add(
            "log-min-duration-statement",
            self.log_min_duration_statement.to_string().into(),
        );
        add(
            "query-log-text",
            if self.query_log_text { "on" } else { "off" }.into(),
        );
        self.query_log_file
            .iter()
            .for_each(|path| add("query-log-file", path.into()));
        self.control_user
            .iter()
            .for_each(|user| add("control-user", user.into()));
        self.turn.iter().for_each(|path| add("turn", path.into()));
        args
    }
}
