//! Opening the doors: TCP addresses and the Unix socket.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::net::TcpListener;

use super::accept::Listener;
use super::data_dir::{lock_file, private_directory, try_lock};
use super::error::StartError;

const BACKLOG: i32 = 1024;

/// What fits into a Unix socket's address, without the final zero byte.
const MAX_SOCKET_PATH: usize = 107;

/// Listens on every address, on one port; gives the port, which is a free one
/// if 0 was asked for. IPv6 may be missing where the name covers IPv4 too. What
/// is wanted of `open`, which this server listens to already, is taken out of it.
pub async fn tcp(
    hosts: &[String],
    port: u16,
    open: &mut Vec<TcpListener>,
) -> Result<(Vec<TcpListener>, u16), StartError> {
    let addresses = resolve(hosts, port).await?;
    if let Some(known) = open.first().filter(|_| port == 0 && !hosts.is_empty()) {
        // The port that was free is as good as another, and known to clients.
        let port = known.local_addr()?.port();
        return bind_all(&addresses, port, open);
    }
    // A free port of one address can be taken on the next: then try another.
    let mut attempts = if port == 0 { 20 } else { 1 };
    loop {
        attempts -= 1;
        match bind_all(&addresses, port, open) {
            Err(StartError::PortInUse { .. }) if attempts > 0 => {}
            outcome => return outcome,
        }
    }
}

struct Address {
    ip: IpAddr,
    optional: bool,
}

async fn resolve(hosts: &[String], port: u16) -> Result<Vec<Address>, StartError> {
    let mut addresses: Vec<Address> = Vec::new();
    for host in hosts {
        let found: Vec<Address> = match host.as_str() {
            "localhost" => pair(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
            "*" => pair(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED),
            name => tokio::net::lookup_host((name, port))
                .await
                .map_err(|source| StartError::Listen {
                    host: host.clone(),
                    port,
                    source,
                })?
                .map(|address| Address {
                    ip: address.ip(),
                    optional: false,
                })
                .collect(),
        };
        for address in found {
            if !addresses.iter().any(|known| known.ip == address.ip) {
                addresses.push(address);
            }
        }
    }
    Ok(addresses)
}

fn pair(v4: Ipv4Addr, v6: Ipv6Addr) -> Vec<Address> {
    vec![
        Address {
            ip: v4.into(),
            optional: false,
        },
        Address {
            ip: v6.into(),
            optional: true,
        },
    ]
}

fn bind_all(
    addresses: &[Address],
    port: u16,
    open: &mut Vec<TcpListener>,
) -> Result<(Vec<TcpListener>, u16), StartError> {
    let mut listeners = Vec::new();
    let mut port = port;
    for Address { ip, optional } in addresses {
        let error = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => StartError::PortInUse {
                host: ip.to_string(),
                port,
            },
            _ => StartError::Listen {
                host: ip.to_string(),
                port,
                source,
            },
        };
        match take_or_bind(SocketAddr::new(*ip, port), open) {
            Ok(listener) => {
                port = listener.local_addr().map_err(error)?.port();
                listeners.push(listener);
            }
            Err(source) if *optional && is_missing(&source) => {}
            Err(source) => return Err(error(source)),
        }
    }
    Ok((listeners, port))
}

/// Listens on one address, or goes on with the listener that has it already.
pub fn take_or_bind(address: SocketAddr, open: &mut Vec<TcpListener>) -> io::Result<TcpListener> {
    let same = |listener: &TcpListener| listener.local_addr().is_ok_and(|known| known == address);
    if let Some(index) = open.iter().position(same) {
        return Ok(open.swap_remove(index));
    }
    // All addresses instead of one, or the other way round: two of our own
    // listeners are in each other's way until one of them is closed.
    let rivals: Vec<&TcpListener> = open
        .iter()
        .filter(|listener| listener.local_addr().is_ok_and(|known| overlap(known, address)))
        .collect();
    if rivals.is_empty() {
        return bind(address);
    }
    rivals
        .iter()
        .try_for_each(|rival| SockRef::from(*rival).set_reuse_port(true))?;
    let bound = listen(address, true);
    for listener in rivals.into_iter().chain(&bound) {
        SockRef::from(listener).set_reuse_port(false)?;
    }
    bound
}

fn overlap(known: SocketAddr, wanted: SocketAddr) -> bool {
    known.port() == wanted.port()
        && known.is_ipv4() == wanted.is_ipv4()
        && (known.ip().is_unspecified() || wanted.ip().is_unspecified())
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)
    )
}

/// Listens on one address; must be called inside a runtime.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    listen(address, false)
}

fn listen(address: SocketAddr, share_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart does not wait for old connections to time out.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share_port)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// The Unix socket; its file is removed when this is dropped, if it is ours.
pub struct UnixSocket {
    listener: Listener,
    path: PathBuf,
    lock: File,
    ours: bool,
}

impl UnixSocket {
    /// Listens on `<directory>/.s.PGSQL.<port>`. A socket that a dead server
    /// left behind is replaced; one that answers, or whose lock is held, never. If
    /// it is `open` already in this server, it is taken from there.
    pub fn bind(directory: &Path, port: u16, open: &mut Option<UnixSocket>) -> Result<Self, StartError> {
        let path = directory.join(format!(".s.PGSQL.{port}"));
        if !fits(&path) {
            return Err(StartError::SocketPath(path));
        }
        if let Some(same) = open.take_if(|open| open.path == path && path.exists()) {
            return Ok(same);
        }
        private_directory(directory).map_err(StartError::path(directory))?;
        let lock_path = directory.join(format!(".s.PGSQL.{port}.lock"));
        let lock = lock_file(&lock_path).map_err(StartError::path(&lock_path))?;
        if !try_lock(&lock).map_err(StartError::path(&lock_path))? {
            return Err(StartError::SocketInUse(path));
        }
        match std::os::unix::net::UnixStream::connect(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(&path).map_err(StartError::path(&path))?;
            }
            // Also when its queue is full: somebody is there.
            _ => return Err(StartError::SocketInUse(path)),
        }
        let listener = bind_unix(&path).map_err(StartError::path(&path))?;
        Ok(Self {
            listener,
            path,
            lock,
            ours: true,
        })
    }

    /// A socket at that path which another process of this server has bound, with
    /// the lock. Its file is left alone until [`UnixSocket::take_over`].
    pub fn inherit(path: PathBuf, listener: OwnedFd, lock: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            listener: Listener::new(listener)?,
            path,
            lock: lock.into(),
            ours: false,
        })
    }

    /// The other process has left: the file is ours to remove.
    pub fn take_over(&mut self) {
        self.ours = true;
    }

    /// A socket that systemd has kept for us, with its file. The lock is taken anew,
    /// because the process that had it has ended.
    pub fn found(listener: OwnedFd) -> Result<Self, StartError> {
        let address = SockRef::from(&listener).local_addr()?;
        let path = address.as_pathname().map(Path::to_path_buf).unwrap_or_default();
        let mut lock_path = path.clone().into_os_string();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        let lock = lock_file(&lock_path).map_err(StartError::path(&lock_path))?;
        match try_lock(&lock).map_err(StartError::path(&lock_path))? {
            true => Ok(Self::inherit(path, listener, lock.into())?),
            false => Err(StartError::SocketInUse(path)),
        }
    }

    /// The file stays for the next process.
    pub fn leave_behind(&mut self) {
        self.ours = false;
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where connections come from.
    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    /// What keeps other servers from the path.
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // The lock is still held; the lock file stays, because removing it
        // would let two servers hold locks on two files of one name.
        if self.ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether the path fits into a socket's address.
pub fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= MAX_SOCKET_PATH
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Who may connect is for the directory's mode to say, and then for the password.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    socket.listen(BACKLOG)?;
    Listener::new(socket.into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_and_zero_takes_a_free_one_for_all_addresses() {
        let hosts = ["localhost".to_owned()];
        let (listeners, port) = tcp(&hosts, 0, &mut Vec::new()).await.unwrap();
        assert!(
            listeners
                .iter()
                .all(|listener| listener.local_addr().unwrap().port() == port)
        );
        let error = tcp(&hosts, port, &mut Vec::new()).await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("port {port} on 127.0.0.1 is used")),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_live_socket_is_never_replaced_and_a_dead_one_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".s.PGSQL.5432");
        // Another program, which knows nothing of our lock.
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(matches!(
            UnixSocket::bind(directory.path(), 5432, &mut None),
            Err(StartError::SocketInUse(_))
        ));
        drop(other);
        assert!(path.exists());
        let ours = UnixSocket::bind(directory.path(), 5432, &mut None).unwrap();
        assert!(matches!(
            UnixSocket::bind(directory.path(), 5432, &mut None),
            Err(StartError::SocketInUse(_))
        ));
        drop(ours);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_is_open_already_goes_on_and_makes_room_for_what_overlaps() {
        let here = ["127.0.0.1".to_owned()];
        let (mut open, port) = tcp(&here, 0, &mut Vec::new()).await.unwrap();
        let before = open[0].as_fd().as_raw_fd();
        // The same port also when any would do.
        for wanted in [port, 0] {
            let (same, its_port) = tcp(&here, wanted, &mut open).await.unwrap();
            assert_eq!((same[0].as_fd().as_raw_fd(), its_port), (before, port));
            assert!(open.is_empty());
            open = same;
        }
        let everywhere = ["0.0.0.0".to_owned()];
        let (wider, _) = tcp(&everywhere, port, &mut open).await.unwrap();
        assert_eq!(open.len(), 1, "which is closed later");
        // Another server still finds the port taken.
        assert!(tcp(&everywhere, port, &mut Vec::new()).await.is_err());
        let mut wider = wider;
        drop(open);
        tcp(&here, port, &mut wider).await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_of_another_process_is_not_ours_to_remove_until_it_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let first = UnixSocket::bind(directory.path(), 5432, &mut None).unwrap();
        let copy = || {
            let listener = first.listener().as_fd().try_clone_to_owned().unwrap();
            let lock = first.lock().try_clone_to_owned().unwrap();
            UnixSocket::inherit(first.path().to_path_buf(), listener, lock).unwrap()
        };
        drop(copy());
        assert!(first.path().exists());
        let mut open = Some(copy());
        let elsewhere = UnixSocket::bind(directory.path(), 5433, &mut open).unwrap();
        assert!(open.is_some() && elsewhere.path() != first.path());
        let mut taken = UnixSocket::bind(directory.path(), 5432, &mut open).unwrap();
        assert!(open.is_none());
        taken.take_over();
        drop(taken);
        assert!(!first.path().exists());
    }
}
