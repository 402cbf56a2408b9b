//! Where clients come from: the listeners that systemd has opened, or our own.
//!
//! If systemd passes any, those are all the doors there are: what is listened on
//! is said in one place, the socket unit. They stay open when this process ends.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sys::socket::{getsockopt, sockopt};
use socket2::{SockRef, Type};
use tokio::net::{TcpListener, UnixListener};
use tracing::warn;

use super::accept::Listener;
use super::error::StartError;
use super::listen::{self, UnixSocket};
use crate::config::Config;
use crate::systemd::activation::Inherited;

/// All that clients can come through.
pub struct Doors {
    /// To accept from, until they are taken.
    pub listeners: Vec<Listener>,
    /// The TCP addresses.
    pub addresses: Vec<SocketAddr>,
    /// The Unix socket; the first, if there are several.
    pub unix: Option<PathBuf>,
    /// Whether somebody else has opened them, and keeps them open.
    pub inherited: bool,
    /// Keeps our own Unix socket in the file system.
    _own: Option<UnixSocket>,
}

impl Doors {
    /// Takes the listeners out of what this process was started with; without
    /// any, opens those of the configuration.
    pub async fn open(config: &Config, inherited: &mut Vec<Inherited>) -> Result<Self, StartError> {
        let mut doors = Self {
            listeners: Vec::new(),
            addresses: Vec::new(),
            unix: None,
            inherited: true,
            _own: None,
        };
        for Inherited { name, fd } in std::mem::take(inherited) {
            match is_listener(&fd) {
                true => doors.take(fd)?,
                false => inherited.push(Inherited { name, fd }),
            }
        }
        match doors.listeners.is_empty() {
            true => Self::open_own(config).await,
            false => Ok(doors),
        }
    }

    fn take(&mut self, fd: OwnedFd) -> io::Result<()> {
        let socket = SockRef::from(&fd);
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let unix = address.as_pathname().map(Path::to_path_buf);
        if let Some(address) = address.as_socket() {
            self.addresses.push(address);
            self.listeners
                .push(Listener::Tcp(TcpListener::from_std(fd.into())?));
        } else {
            self.unix = self.unix.take().or(unix);
            self.listeners
                .push(Listener::Unix(UnixListener::from_std(fd.into())?));
        }
        Ok(())
    }

    async fn open_own(config: &Config) -> Result<Self, StartError> {
        let settings = &config.settings;
        let (tcp, port) = listen::tcp(&settings.host, settings.port).await?;
        let mut own = own_unix_socket(config, port)?;
        let addresses = tcp.iter().filter_map(|listener| listener.local_addr().ok());
        Ok(Self {
            addresses: addresses.collect(),
            unix: own.as_ref().map(|socket| socket.path().to_path_buf()),
            inherited: false,
            listeners: tcp
                .into_iter()
                .map(Listener::Tcp)
                .chain(
                    own.as_mut()
                        .and_then(|socket| socket.listener.take())
                        .map(Listener::Unix),
                )
                .collect(),
            _own: own,
        })
    }

    /// Whether only this machine can reach them.
    pub fn are_local(&self) -> bool {
        self.addresses
            .iter()
            .all(|address| address.ip().to_canonical().is_loopback())
    }
}

/// A stream socket that listens, of a family that clients can come through.
fn is_listener(fd: &OwnedFd) -> bool {
    let socket = SockRef::from(fd);
    socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
        && getsockopt(fd, sockopt::AcceptConn) == Ok(true)
        && socket
            .local_addr()
            .is_ok_and(|address| address.as_socket().is_some() || address.is_unix())
}

/// The Unix socket where it was asked for; otherwise in the user's runtime
/// directory or the data directory, and not at all if neither will do.
fn own_unix_socket(config: &Config, port: u16) -> Result<Option<UnixSocket>, StartError> {
    if let Some(directory) = &config.settings.unix_socket_dir {
        return UnixSocket::bind(directory, port).map(Some);
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let candidates = [
        runtime.map(|path| path.join("duckgres")),
        Some(config.data_dir.join("run")),
    ];
    let mut last = None;
    for directory in candidates.into_iter().flatten() {
        match UnixSocket::bind(&directory, port) {
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
    use std::os::unix::net::{UnixDatagram, UnixListener as StdUnixListener};

    use super::*;
    use crate::config::Flags;

    #[tokio::test]
    async fn what_was_passed_is_told_apart_by_what_it_is_and_nothing_else_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let inherit = |fd: OwnedFd| Inherited {
            name: "duckgres.socket".into(),
            fd,
        };
        let tcp = |address: &str| std::net::TcpListener::bind(address).unwrap();
        let flags = Flags {
            config: None,
            values: vec![("data-dir".into(), directory.path().display().to_string())],
        };
        let config = Config::load(&flags).unwrap();
        let stored = tempfile::tempfile().unwrap();
        let mut inherited = vec![
            inherit(tcp("127.0.0.1:0").into()),
            inherit(stored.into()),
            inherit(StdUnixListener::bind(&path).unwrap().into()),
            inherit(UnixDatagram::unbound().unwrap().into()),
            inherit(tcp("127.0.0.1:0").into()),
        ];
        let doors = Doors::open(&config, &mut inherited).await.unwrap();
        assert_eq!((doors.listeners.len(), doors.addresses.len()), (3, 2));
        assert_eq!(doors.unix.as_deref(), Some(path.as_path()));
        assert_eq!(inherited.len(), 2, "what is no door is left for others");
        assert!(doors.inherited && doors.are_local());
        drop(doors);
        assert!(path.exists(), "it is systemd's");

        let open = tcp("0.0.0.0:0");
        let doors = Doors::open(&config, &mut vec![inherit(open.into())])
            .await
            .unwrap();
        assert!(!doors.are_local(), "others can reach it: TLS is required");
    }
}
