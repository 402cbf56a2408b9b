//! Why this process is being stopped: for good, or to be started again; and what is
//! kept for the next one.
//!
//! A process of the control plane's own is told by an order when it is to end for good
//! (the rpc `Drain` or `Shutdown`); whoever just sends it a signal has it restarted.
//!
//! systemd tells a service only that it is to stop. The job that is behind it is
//! asked for on the bus, with systemd's own tool: it is where systemd is, and the
//! question comes once in a process's life. Source: org.freedesktop.systemd1(5).

use std::io;
use std::process::Stdio;

use tokio::process::Command;

const DESTINATION: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "/org/freedesktop/systemd1";

/// The environment variable by which a supervisor says that it starts a process again
/// that ends without having been ordered to.
pub const STARTED_AGAIN: &str = "DUCKGRES_STARTED_AGAIN";

/// Whether this process is being stopped in order to be started again.
///
/// # Errors
/// systemd is to be asked, and the bus cannot be, or has answered something else.
pub async fn is_restart() -> io::Result<bool> {
    if std::env::var_os(STARTED_AGAIN).is_some() {
        return Ok(true);
    }
    let job = get(&unit().await?, "Unit", "Job").await?;
    match object_path(&job) {
        // There is none.
        Some("/") => Ok(false),
        Some(job) => Ok(get(job, "Job", "JobType").await?.contains("restart")),
        None => Err(strange(&job)),
    }
}

/// How many descriptors this process's unit may store. systemd drops what is more, and
/// does not say so.
///
/// # Errors
/// As of [`is_restart`].
pub async fn store_size() -> io::Result<u32> {
    // Since systemd 254 the service is told.
    if let Some(size) = std::env::var("FDSTORE").ok().and_then(|size| size.parse().ok()) {
        return Ok(size);
    }
    let size = get(&unit().await?, "Service", "FileDescriptorStoreMax").await?;
    let number = size.trim().strip_prefix("u ").and_then(|size| size.parse().ok());
    number.ok_or_else(|| strange(&size))
}

async fn unit() -> io::Result<String> {
    // 0 is whoever asks: a child of this process, of the same unit.
    let manager = format!("{DESTINATION}.Manager");
    let unit = ask(&["call", DESTINATION, MANAGER, &manager, "GetUnitByPID", "u", "0"]).await?;
    Ok(object_path(&unit).ok_or_else(|| strange(&unit))?.to_owned())
}

async fn get(object: &str, interface: &str, property: &str) -> io::Result<String> {
    let interface = format!("{DESTINATION}.{interface}");
    ask(&["get-property", DESTINATION, object, &interface, property]).await
}

async fn ask(words: &[&str]) -> io::Result<String> {
    let answer = Command::new("busctl")
        .args(["--system", "--timeout=5s"])
        .args(words)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    match answer.status.success() {
        true => Ok(String::from_utf8_lossy(&answer.stdout).into_owned()),
        false => Err(io::Error::other(format!(
            "busctl: {}: {}",
            answer.status,
            String::from_utf8_lossy(&answer.stderr).trim()
        ))),
    }
}

/// The path in an answer such as `o "/some/path"` or `(uo) 7 "/some/path"`.
fn object_path(answer: &str) -> Option<&str> {
    answer.split('"').nth(1).filter(|path| path.starts_with('/'))
}

fn strange(answer: &str) -> io::Error {
    io::Error::other(answer.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answers_path_is_found() {
        assert_eq!(
            object_path("(uo) 17 \"/org/freedesktop/systemd1/job/17\"\n"),
            Some("/org/freedesktop/systemd1/job/17")
        );
        assert_eq!(object_path("(uo) 0 \"/\"\n"), Some("/"));
        assert_eq!(object_path("s \"restart\""), None);
        assert_eq!(object_path(""), None);
    }
}
