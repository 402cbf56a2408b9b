//! Ready without configuration: the local user, and the command that connects.

use std::path::{Path, PathBuf};

use nix::unistd::{self, geteuid};

use super::certificate::Certificate;
use super::data_dir::DataDir;
use super::error::StartError;
use super::passfile;
use crate::config::{Config, Databases, Mode, User, Users, names};

/// Where the local user's password is kept.
const PASSFILE: &str = "pgpass";

/// The users of this server, and the one to show in the command.
pub struct LocalUsers {
    /// All of them.
    pub users: Users,
    /// The name in the command that connects.
    pub shown: Option<String>,
    /// The file with that user's password, if we made it.
    pub passfile: Option<PathBuf>,
}

/// The configured users; in standalone mode without any, the operating
/// system's user with a password of their own, who is the administrator.
pub fn users(config: &Config, data_dir: &DataDir) -> Result<LocalUsers, StartError> {
    let mut users = config.settings.users.clone();
    if !users.is_empty() || config.settings.mode != Mode::Standalone {
        let shown = users.keys().next().cloned();
        return Ok(LocalUsers {
            users,
            shown,
            passfile: None,
        });
    }
    let name = os_user()?;
    let path = data_dir.path().join(PASSFILE);
    let password = passfile::password(&path, &name)?;
    let user = User {
        admin: true,
        databases: Databases::All,
        ..User::with_password(&name, password)
    };
    users.insert(name.clone(), user);
    Ok(LocalUsers {
        users,
        shown: Some(name),
        passfile: Some(path),
    })
}

fn os_user() -> Result<String, StartError> {
    let known = unistd::User::from_uid(geteuid())
        .ok()
        .flatten()
        .map(|user| user.name);
    let name = known.unwrap_or_else(|| format!("uid{}", geteuid()));
    match names::check(&name) {
        Ok(()) => Ok(name),
        Err(reason) => Err(StartError::UserName { name, reason }),
    }
}

/// The command with which `user` connects as is.
pub fn psql_command(
    hosts: &[String],
    port: u16,
    unix_socket: Option<&Path>,
    certificate: Option<&Certificate>,
    local: &LocalUsers,
) -> Option<String> {
    let user = encode(local.shown.as_deref()?);
    let mut parameters = Vec::new();
    let authority = match hosts.first() {
        Some(host) => {
            let host = shown_host(host);
            match certificate {
                None => parameters.push("sslmode=disable".to_owned()),
                Some(certificate) if certificate.self_signed => {
                    let covered = ["localhost", "127.0.0.1", "::1"].contains(&host);
                    parameters.push(format!("sslmode=verify-{}", if covered { "full" } else { "ca" }));
                    parameters.push(format!("sslrootcert={}", encode_path(&certificate.path)));
                }
                Some(_) => parameters.push("sslmode=require".to_owned()),
            }
            match host.contains(':') {
                true => format!("[{host}]:{port}"),
                false => format!("{host}:{port}"),
            }
        }
        None => {
            let directory = unix_socket?.parent()?;
            parameters.push(format!("host={}", encode_path(directory)));
            parameters.push(format!("port={port}"));
            String::new()
        }
    };
    parameters.extend(
        local
            .passfile
            .iter()
            .map(|path| format!("passfile={}", encode_path(path))),
    );
    // Everything that a shell could take for its own is percent-encoded.
    Some(format!(
        "psql 'postgresql://{user}@{authority}/{user}?{}'",
        parameters.join("&")
    ))
}

/// An address that a client on this machine can connect to.
fn shown_host(host: &str) -> &str {
    match host {
        "*" | "0.0.0.0" | "::" => "localhost",
        host => host,
    }
}

fn encode(text: &str) -> String {
    encode_bytes(text.as_bytes(), b"-._~")
}

fn encode_path(path: &Path) -> String {
    encode_bytes(path.as_os_str().as_encoded_bytes(), b"-._~/")
}

fn encode_bytes(bytes: &[u8], unreserved: &[u8]) -> String {
    let mut encoded = String::new();
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || unreserved.contains(byte) {
            encoded.push(char::from(*byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(name: &str) -> LocalUsers {
        LocalUsers {
            users: Users::new(),
            shown: Some(name.into()),
            passfile: Some("/d/it's/pgpass".into()),
        }
    }

    #[test]
    fn the_command_can_be_pasted_into_a_shell() {
        let command = psql_command(&["localhost".into()], 5432, None, None, &local("a'b@c")).unwrap();
        let expected = "psql 'postgresql://a%27b%40c@localhost:5432/a%27b%40c?sslmode=disable&passfile=/d/it%27s/pgpass'";
        assert_eq!(command, expected);
    }

    #[test]
    fn addresses_are_written_as_clients_read_them() {
        let command = |host: &str| psql_command(&[host.into()], 1, None, None, &local("u")).unwrap();
        assert!(command("::1").contains("@[::1]:1/"));
        assert!(command("*").contains("@localhost:1/"));
        let socket = Path::new("/run/x/.s.PGSQL.1");
        let unix = psql_command(&[], 1, Some(socket), None, &local("u")).unwrap();
        assert!(unix.contains("postgresql://u@/u?host=/run/x&port=1&"), "{unix}");
    }
}
