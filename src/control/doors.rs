//! All doors of the server: for clients, for Prometheus, for the operator.
//!
//! If systemd passes listeners, those are all the doors that clients have: what is
//! listened on is said in one place, the socket unit. They stay open when this process
//! ends. Doors of our own systemd keeps in the fd store over our restarts.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use tracing::warn;

use super::accept::Listener;
use super::data_dir::DataDir;
use super::error::StartError;
use super::listen::{self, UnixSocket};
use super::reload::estate::Estate;
use super::scrape;
use super::status::ControlSocket;
use crate::config::Config;
use crate::systemd::{fdstore, notify};

/// Everything that this server listens to.
pub struct Doors {
    /// That clients come through.
    pub listeners: Vec<Listener>,
    /// The TCP addresses of these.
    pub addresses: Vec<SocketAddr>,
    /// The Unix socket; the first, if there are several.
    pub unix: Option<PathBuf>,
    /// Whether a socket unit has opened them, and keeps them open.
    pub of_a_unit: bool,
    /// Our own Unix socket.
    pub own_unix: Option<UnixSocket>,
    /// For Prometheus.
    pub metrics: Option<(Arc<TcpListener>, SocketAddr)>,
    /// For the operator's tool.
    pub control: ControlSocket,
}

impl Doors {
    /// Takes the listeners of a socket unit out of the estate; if there are none,
    /// listens wherever the configuration says, and takes what is open already.
    pub async fn open(config: &Config, data_dir: &DataDir, estate: &mut Estate) -> Result<Self, StartError> {
        let settings = &config.settings;
        let mut listeners = std::mem::take(&mut estate.unit);
        let of_a_unit = !listeners.is_empty();
        let mut own_unix = None;
        if !of_a_unit {
            let (tcp, port) = listen::tcp(&settings.host, settings.port, &mut estate.tcp).await?;
            own_unix = open_unix_socket(config, port, &mut estate.unix)?;
            let unix = own_unix.as_ref().map(|socket| socket.listener().clone());
            for listener in tcp {
                listeners.push(Listener::new(listener.into_std()?.into())?);
            }
            listeners.extend(unix);
        }
        let metrics = scrape::open(settings.metrics_address, &mut estate.metrics)?;
        let control = match estate.control.take() {
            Some(listener) => ControlSocket::inherit(data_dir.path(), listener)?,
            None => ControlSocket::bind(data_dir.path())?,
        };
        Ok(Self {
            addresses: listeners.iter().filter_map(Listener::address).collect(),
            unix: listeners.iter().find_map(Listener::path),
            listeners,
            of_a_unit,
            own_unix,
            metrics: metrics.map(|(listener, address)| (Arc::new(listener), address)),
            control,
        })
    }

    /// No other process has them any more: their files are ours to remove, unless
    /// systemd keeps them for the next one.
    pub fn take_over(&mut self) {
        self.control.take_over();
        let own_tcp = self.listeners.iter().filter(|_| !self.of_a_unit);
        let kept = own_tcp.filter_map(|listener| Some((client_name(listener.address()?), listener.as_fd())));
        let metrics = self.metrics.as_ref();
        let metrics = metrics.map(|(listener, address)| (metrics_name(*address), listener.as_fd()));
        let unix = self.own_unix.as_ref();
        let unix = unix.map(|socket| (UNIX_NAME.to_owned(), socket.listener().as_fd()));
        let mut unix_is_kept = notify::is_asked_for();
        for (name, listener) in kept.chain(metrics).chain(unix) {
            if let Err(error) = fdstore::keep(&name, listener) {
                unix_is_kept = false;
                warn!(%error, name, "systemd does not keep a listener over a restart");
            }
        }
        if let Some(unix) = &mut self.own_unix {
            match unix_is_kept {
                true => unix.leave_behind(),
                false => unix.take_over(),
            }
        }
    }

    /// Whether only this machine can reach those for clients.
    pub fn are_local(&self) -> bool {
        self.addresses
            .iter()
            .all(|address| address.ip().to_canonical().is_loopback())
    }
}

/// The name of our Unix socket in the fd store.
pub const UNIX_NAME: &str = "own-unix";

/// How the names of our listeners for clients begin, and of those for metrics.
pub const CLIENT_NAMES: &str = "own-tcp-";
/// See [`CLIENT_NAMES`].
pub const METRICS_NAMES: &str = "own-metrics-";

/// The name in the fd store of our listener for clients on this address.
pub fn client_name(address: SocketAddr) -> String {
    stored_name(CLIENT_NAMES, address)
}

/// The same of that for metrics.
pub fn metrics_name(address: SocketAddr) -> String {
    stored_name(METRICS_NAMES, address)
}

/// Names in the store must be plain and have no colon (sd_notify(3), FDNAME).
fn stored_name(prefix: &str, address: SocketAddr) -> String {
    format!("{prefix}{address}").replace([':', '[', ']', '%'], "_")
}

/// Where the Unix socket is if nobody says where, the best place first.
pub fn usual_socket_directories(data_dir: &Path) -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .map(|path| path.join("duckgres"));
    runtime.into_iter().chain([data_dir.join("run")]).collect()
}

/// The Unix socket where it was asked for; otherwise in the user's runtime
/// directory or the data directory, and not at all if neither will do.
fn open_unix_socket(
    config: &Config,
    port: u16,
    open: &mut Option<UnixSocket>,
) -> Result<Option<UnixSocket>, StartError> {
    if let Some(directory) = &config.settings.unix_socket_dir {
        return UnixSocket::bind(directory, port, open).map(Some);
    }
    let mut last = None;
    for directory in usual_socket_directories(&config.data_dir) {
        match UnixSocket::bind(&directory, port, open) {
            Ok(socket) => return Ok(Some(socket)),
            Err(error @ StartError::SocketInUse(_)) => return Err(error),
            Err(error) => last = Some(error),
        }
    }
    match last {
        // The only door.
        Some(error) if config.settings.host.is_empty() => Err(error),
        Some(error) => {
            warn!("no Unix socket: {error}");
            Ok(None)
        }
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::{UnixDatagram, UnixListener as StdUnixListener};
    use std::path::Path;

    use super::*;
    use crate::config::Flags;
    use crate::systemd::activation::Inherited;

    fn config(directory: &Path) -> Config {
        let data_dir = directory.join("data").display().to_string();
        let values = [
            ("data-dir", data_dir.as_str()),
            ("metrics-address", "off"),
            ("port", "0"),
        ];
        let values = values.map(|(flag, value)| (flag.to_owned(), value.to_owned()));
        Config::load(&Flags {
            config: None,
            values: values.into(),
        })
        .unwrap()
    }

    fn inherit(name: &str, fd: impl Into<OwnedFd>) -> Inherited {
        Inherited {
            name: name.into(),
            fd: fd.into(),
        }
    }

    fn tcp(address: &str) -> std::net::TcpListener {
        std::net::TcpListener::bind(address).unwrap()
    }

    #[tokio::test]
    async fn what_was_passed_is_told_apart_by_what_it_is_and_nothing_else_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let data_dir = DataDir::open(&config.data_dir).unwrap();
        let path = directory.path().join("socket");
        let unit = "duckgres.socket";
        let mut estate = Estate::of_systemd(vec![
            inherit(unit, tcp("127.0.0.1:0")),
            inherit(unit, tempfile::tempfile().unwrap()),
            inherit(unit, StdUnixListener::bind(&path).unwrap()),
            inherit(unit, UnixDatagram::unbound().unwrap()),
            inherit(unit, tcp("127.0.0.1:0")),
        ])
        .unwrap();
        let doors = Doors::open(&config, &data_dir, &mut estate).await.unwrap();
        assert_eq!((doors.listeners.len(), doors.addresses.len()), (3, 2));
        assert_eq!(doors.unix.as_deref(), Some(path.as_path()));
        assert!(doors.of_a_unit && doors.are_local());
        drop(doors);
        assert!(path.exists(), "it is systemd's");

        let open = vec![inherit(unit, tcp("0.0.0.0:0"))];
        let mut estate = Estate::of_systemd(open).unwrap();
        let doors = Doors::open(&config, &data_dir, &mut estate).await.unwrap();
        assert!(!doors.are_local(), "others can reach it: TLS is required");
    }

    #[tokio::test]
    async fn what_systemd_has_kept_of_our_own_is_open_already_and_no_unit_s() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let data_dir = DataDir::open(&config.data_dir).unwrap();
        let known = tcp("127.0.0.1:0");
        let address = known.local_addr().unwrap();
        let other = tcp("127.0.0.2:0");
        let stored = vec![
            inherit(&client_name(other.local_addr().unwrap()), other),
            inherit(&client_name(address), known),
        ];
        let mut estate = Estate::of_systemd(stored).unwrap();
        estate.tcp.reverse();
        let doors = Doors::open(&config, &data_dir, &mut estate).await.unwrap();
        assert!(!doors.of_a_unit && doors.addresses.contains(&address));
        assert_eq!(estate.tcp.len(), 1, "which nobody wants");
    }

    #[test]
    fn names_in_the_store_are_plain() {
        assert_eq!(client_name("[::1]:5432".parse().unwrap()), "own-tcp-___1__5432");
        assert_eq!(
            metrics_name("127.0.0.1:9090".parse().unwrap()),
            "own-metrics-127.0.0.1_9090"
        );
    }
}
