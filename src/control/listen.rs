//! Opening the doors: TCP addresses and the Unix socket.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::data_dir::{lock_file, private_directory, try_lock};
use super::error::StartError;

const BACKLOG: i32 = 1024;

/// What fits into a Unix socket's address, without the final zero byte.
const MAX_SOCKET_PATH: usize = 107;

/// Listens on every address, on one port; gives the port, which is a free one
/// if 0 was asked for. IPv6 may be missing where the name covers IPv4 too.
pub async fn tcp(hosts: &[String], port: u16) -> Result<(Vec<TcpListener>, u16), StartError> {
    let addresses = resolve(hosts, port).await?;
    // A free port of one address can be taken on the next: then try another.
    let mut attempts = if port == 0 { 20 } else { 1 };
    loop {
        attempts -= 1;
        match bind_all(&addresses, port) {
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

fn bind_all(addresses: &[Address], port: u16) -> Result<(Vec<TcpListener>, u16), StartError> {
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
        match bind(SocketAddr::new(*ip, port)) {
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

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)
    )
}

/// Listens on one address; must be called inside a runtime.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart does not wait for old connections to time out.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// The Unix socket; its file is removed when this is dropped.
pub struct UnixSocket {
    /// Where connections come from, until it is taken.
    pub listener: Option<UnixListener>,
    path: PathBuf,
    _lock: File,
}

impl UnixSocket {
    /// Listens on `<directory>/.s.PGSQL.<port>`. A socket that a dead server
    /// left behind is replaced; one that answers, or whose lock is held, never.
    pub fn bind(directory: &Path, port: u16) -> Result<Self, StartError> {
        let path = directory.join(format!(".s.PGSQL.{port}"));
        if !fits(&path) {
            return Err(StartError::SocketPath(path));
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
            listener: Some(listener),
            path,
            _lock: lock,
        })
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // The lock is still held; the lock file stays, because removing it
        // would let two servers hold locks on two files of one name.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether the path fits into a socket's address.
pub fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= MAX_SOCKET_PATH
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Who may connect is for the directory's mode to say, and then for the password.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_and_zero_takes_a_free_one_for_all_addresses() {
        let hosts = ["localhost".to_owned()];
        let (listeners, port) = tcp(&hosts, 0).await.unwrap();
        assert!(
            listeners
                .iter()
                .all(|listener| listener.local_addr().unwrap().port() == port)
        );
        let error = tcp(&hosts, port).await.unwrap_err().to_string();
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
            UnixSocket::bind(directory.path(), 5432),
            Err(StartError::SocketInUse(_))
        ));
        drop(other);
        assert!(path.exists());
        let ours = UnixSocket::bind(directory.path(), 5432).unwrap();
        assert!(matches!(
            UnixSocket::bind(directory.path(), 5432),
            Err(StartError::SocketInUse(_))
        ));
        drop(ours);
        assert!(!path.exists());
    }
}
