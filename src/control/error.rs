//! Why the server does not start. Each is one sentence that a person can act on.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;

use crate::tls::ConfigError;

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file or directory cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could replace what is in a directory.
    #[error("{} can be written to by others: chmod 0700 it first", .0.display())]
    Exposed(PathBuf),
    /// A key that others can read.
    #[error("the private key {} can be read by everyone: chmod 0600 it first", .0.display())]
    ExposedKey(PathBuf),
    /// A second server on the same data.
    #[error("the data directory {} is used by another duckgres{owner}: stop it, or choose another with --data-dir", path.display())]
    DataDirInUse {
        /// Which.
        path: PathBuf,
        /// ` (process 17)`, if known.
        owner: String,
    },
    /// A reload is one server's, and a server is one data directory's.
    #[error("the data directory cannot be changed to {} by a reload: restart the server", .0.display())]
    OtherDataDir(PathBuf),
    /// The configuration is a worker's.
    #[error("the mode cannot be changed to worker by a reload")]
    OtherMode,
    /// The process whose place this one was to take has gone, or wants it no more.
    #[error("the reload was given up")]
    GivenUp,
    /// It is of a version that this one does not understand.
    #[error("duckgres {version} hands its place over in form {form}, which this version ({}) does not know: restart the server", env!("CARGO_PKG_VERSION"))]
    UnknownForm {
        /// The running one's.
        version: String,
        /// The form that it uses.
        form: u32,
    },
    /// The port is taken.
    #[error(
        "port {port} on {host} is used by another program: choose another with --port (0 takes a free one)"
    )]
    PortInUse {
        /// The address.
        host: String,
        /// The port.
        port: u16,
    },
    /// The Unix socket is taken.
    #[error("the socket {} is used by another server: choose another directory with --unix-socket-dir, or another --port", .0.display())]
    SocketInUse(PathBuf),
    /// The Unix socket's path does not fit into a socket address.
    #[error("the path {} is too long for a Unix socket (107 bytes): choose another directory with --unix-socket-dir", .0.display())]
    SocketPath(PathBuf),
    /// An address cannot be listened on.
    #[error("cannot listen on {host} port {port}: {source}")]
    Listen {
        /// The address.
        host: String,
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// The address for metrics, which was asked for, cannot be listened on.
    #[error(
        "cannot serve metrics on {address} ({source}): choose another address with --metrics-address, or off"
    )]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The certificate and key are no pair for TLS.
    #[error("cannot use the certificate {} with its key: {source}", path.display())]
    Certificate {
        /// The certificate.
        path: PathBuf,
        /// Why.
        source: ConfigError,
    },
    /// No self-signed certificate could be made.
    #[error("cannot make a certificate: {0}")]
    MakeCertificate(#[from] rcgen::Error),
    /// The operating system gives no random numbers.
    #[error("the operating system has no random numbers")]
    Random,
    /// The operating system's user has a name that cannot be one here.
    #[error("the user name {name:?} {reason}: configure users")]
    UserName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no worker program.
    #[error("there is no duckgres-worker in {}: set worker_binary", .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
    NoWorkerBinary(Vec<PathBuf>),
    /// The worker program does not start.
    #[error("cannot start {}: {source}", path.display())]
    Spawn {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The worker program ends at once.
    #[error("the worker ended before it was ready ({0}); what it said stands above")]
    WorkerEnded(ExitStatus),
    /// The worker program hangs.
    #[error("the worker was not ready in time")]
    WorkerSilent,
    /// Something of the operating system's.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl StartError {
    pub(super) fn path(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Path { path, source }
    }
}
