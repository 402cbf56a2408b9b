//! `duckgres psql`: psql on the server of this machine, without a host, a port or a
//! password to be known.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::geteuid;

use super::doors::usual_socket_directories;

/// Where the socket of systemd's service is (`systemd/duckgres.socket`).
const SERVICE_SOCKETS: &str = "/run/duckgres";

/// The administrator that the package's duckgres.yaml has, and lets root log in as.
const SERVICE_ADMINISTRATOR: &str = "duckgres";

/// The port that is taken when sockets of several are there.
const USUAL_PORT: u16 = 5432;

/// Why there is no psql.
#[derive(Debug, thiserror::Error)]
pub enum PsqlError {
    /// No socket answers.
    #[error("no server answers on this machine; looked for a Unix socket in {}", shown(.0))]
    NoServer(Vec<PathBuf>),
    /// There is no such program, or none that can be started.
    #[error("psql cannot be started ({0}); on Debian it is in the package postgresql-client")]
    NoProgram(#[source] io::Error),
}

fn shown(places: &[PathBuf]) -> String {
    let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    places.join(", ")
}

/// Becomes psql on the server that has this data directory, or else on systemd's
/// service; returns only if it cannot. The environment says where to, so that
/// everything psql is told otherwise, by `arguments` or by the caller's own variables
/// (PGHOST, PGPORT, PGUSER), wins.
pub fn become_psql(data_dir: &Path, arguments: &[OsString]) -> PsqlError {
    let mut places = usual_socket_directories(data_dir);
    places.push(SERVICE_SOCKETS.into());
    let Some((place, port)) = places.iter().find_map(|place| Some((place, answering(place)?))) else {
        return PsqlError::NoServer(places);
    };
    let mut psql = Command::new("psql");
    psql.args(arguments);
    let administrator = place == Path::new(SERVICE_SOCKETS) && geteuid().is_root();
    let mut fall_back = |name: &str, value: &OsStr| {
        if std::env::var_os(name).is_none() {
            psql.env(name, value);
        }
    };
    fall_back("PGHOST", place.as_os_str());
    fall_back("PGPORT", port.to_string().as_ref());
    if administrator {
        fall_back("PGUSER", SERVICE_ADMINISTRATOR.as_ref());
    }
    PsqlError::NoProgram(psql.exec())
}

/// The port of a socket in that directory which somebody listens on.
fn answering(place: &Path) -> Option<u16> {
    let entries = fs::read_dir(place).ok()?.flatten();
    let mut ports: Vec<u16> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.strip_prefix(".s.PGSQL.")?.parse().ok()
        })
        .collect();
    ports.sort_unstable_by_key(|port| (*port != USUAL_PORT, *port));
    let listens = |port: &u16| UnixStream::connect(place.join(format!(".s.PGSQL.{port}"))).is_ok();
    ports.into_iter().find(listens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_socket_that_nobody_listens_on_is_no_server() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(answering(place.path()), None);
        let listen = |port: u16| UnixListener::bind(place.path().join(format!(".s.PGSQL.{port}"))).unwrap();
        drop(listen(5432));
        assert_eq!(answering(place.path()), None);
        let _other = listen(6543);
        assert_eq!(answering(place.path()), Some(6543));
        fs::remove_file(place.path().join(".s.PGSQL.5432")).unwrap();
        let _usual = listen(5432);
        assert_eq!(answering(place.path()), Some(5432));
        assert_eq!(answering(Path::new("/nonexistent")), None);
    }
}
