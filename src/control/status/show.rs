//! The asking side: one question, or one every few seconds.

use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use super::super::sockets::address;
use super::{NAME, table};
use crate::proto::control_client::ControlClient;
use crate::proto::{ReloadReply, ReloadRequest, RestartWorkersRequest, StatusReply, StatusRequest};

/// Longer than the control plane waits for its workers.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A status of 65,536 bans has some megabytes.
const LARGEST: usize = 64 << 20;

/// Begins a screen anew (ECMA-48: cursor home, erase below).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What is asked for.
#[derive(Debug)]
pub struct Ask {
    /// Whose server.
    pub data_dir: PathBuf,
    /// For a program: one line of JSON for each answer.
    pub json: bool,
    /// Again and again, after this pause.
    pub watch: Option<Duration>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Nobody listens.
    #[error("no duckgres is running on the data directory {}: start it, or name another with --data-dir", .0.display())]
    NotRunning(PathBuf),
    /// Somebody else's server.
    #[error("the duckgres on the data directory {} is another user's: ask as its user or as root", .0.display())]
    NotAllowed(PathBuf),
    /// It runs and says nothing.
    #[error("the duckgres on the data directory {} does not answer", .0.display())]
    Silent(PathBuf),
    /// It says something else.
    #[error("the duckgres on the data directory {} answered: {message}", path.display())]
    Refused {
        /// Whose.
        path: PathBuf,
        /// What.
        message: String,
    },
    /// The server goes on as before.
    #[error("the reload has failed, and the server goes on as before: {0}")]
    NotReloaded(String),
    /// A worker is not back, or none was restarted.
    #[error("the restart has failed: {0}")]
    NotRestarted(String),
    /// It has ended meanwhile, or was told to.
    #[error("the duckgres on the data directory {} has ended meanwhile: see its log", .0.display())]
    Lost(PathBuf),
    /// Something of the operating system's.
    #[error("the duckgres on the data directory {} cannot be asked: {source}", path.display())]
    Io {
        /// Whose.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Asks, and prints the answer to standard output. With a pause it goes on until
/// nobody reads any more, also over a restart of the server.
pub async fn show(ask: &Ask) -> Result<(), StatusError> {
    let Some(pause) = ask.watch else {
        let status = question(&ask.data_dir).await?;
        say(&text(ask, &status));
        return Ok(());
    };
    let clear = !ask.json && std::io::stdout().is_terminal();
    loop {
        let mut screen = match question(&ask.data_dir).await {
            Ok(status) => text(ask, &status),
            Err(error) if ask.json => {
                eprintln!("duckgres: {error}");
                String::new()
            }
            Err(error) => format!("{error}\n"),
        };
        if clear {
            screen.insert_str(0, CLEAR);
        } else if !ask.json {
            screen.push('\n');
        }
        if !say(&screen) {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
    }
}

fn text(ask: &Ask, status: &StatusReply) -> String {
    match ask.json {
        // Numbers, texts and lists of them always have a JSON form.
        true => serde_json::to_string(status).unwrap_or_default() + "\n",
        false => table::text(status),
    }
}

/// False if nobody reads.
fn say(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

async fn question(data_dir: &Path) -> Result<StatusReply, StatusError> {
    let asked = async {
        let mut control = client(data_dir).await?;
        answer(data_dir, control.status(StatusRequest {}).await)
    };
    match tokio::time::timeout(ANSWER_WITHIN, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(StatusError::Silent(data_dir.to_path_buf())),
    }
}

/// Has the server on that data directory replaced by a process with the program
/// and the configuration as they are now, and says so when that serves.
///
/// # Errors
/// Why it does not: then the server goes on as before.
pub async fn reload(data_dir: &Path) -> Result<(), StatusError> {
    let mut control = client(data_dir).await?;
    let reply = control
        .reload(ReloadRequest {})
        .await
        .map_err(|status| match status.code() {
            tonic::Code::FailedPrecondition => StatusError::NotReloaded(status.message().to_owned()),
            tonic::Code::Unimplemented => {
                StatusError::NotReloaded("it is too old for that: restart it".to_owned())
            }
            _ => StatusError::Lost(data_dir.to_path_buf()),
        });
    let ReloadReply { process_id, version } = reply?.into_inner();
    say(&format!("duckgres {version} serves, process {process_id}\n"));
    Ok(())
}

/// Has the workers of the server on that data directory restarted, one after the other,
/// and says so of each. Sessions go on in the next process.
///
/// # Errors
/// A worker did not come back; those after it go on as they are. Or the workers are
/// systemd's.
pub async fn restart_workers(data_dir: &Path) -> Result<(), StatusError> {
    let failed = |status: tonic::Status| match status.code() {
        tonic::Code::FailedPrecondition => StatusError::NotRestarted(status.message().to_owned()),
        tonic::Code::Unimplemented => {
            StatusError::NotRestarted("it is too old for that: duckgres reload".to_owned())
        }
        _ => StatusError::Lost(data_dir.to_path_buf()),
    };
    let mut control = client(data_dir).await?;
    let restarts = control.restart_workers(RestartWorkersRequest {}).await;
    let mut restarts = restarts.map_err(failed)?.into_inner();
    while let Some(one) = restarts.message().await.map_err(failed)? {
        let sessions = match one.sessions {
            1 => "1 session".to_owned(),
            sessions => format!("{sessions} sessions"),
        };
        say(&format!(
            "worker {} restarted in {:.2} s, process {}, {sessions}\n",
            one.worker,
            f64::from(one.milliseconds) / 1000.0,
            one.process_id,
        ));
    }
    Ok(())
}

fn answer<T>(data_dir: &Path, answer: Result<tonic::Response<T>, tonic::Status>) -> Result<T, StatusError> {
    let refused = |status: tonic::Status| StatusError::Refused {
        path: data_dir.to_path_buf(),
        message: status.message().to_owned(),
    };
    answer.map(tonic::Response::into_inner).map_err(refused)
}

async fn client(data_dir: &Path) -> Result<ControlClient<Channel>, StatusError> {
    let path = || data_dir.to_path_buf();
    let stream = connect(&data_dir.join("run")).await.map_err(|source| {
        use std::io::ErrorKind::{ConnectionRefused, NotADirectory, NotFound, PermissionDenied};
        match source.kind() {
            NotFound | ConnectionRefused | NotADirectory => StatusError::NotRunning(path()),
            PermissionDenied => StatusError::NotAllowed(path()),
            _ => StatusError::Io { path: path(), source },
        }
    })?;
    let mut stream = Some(stream);
    // The address only fills the request's header; the connection is there already.
    let channel = Endpoint::from_static("http://control")
        .connect_with_connector(tower::service_fn(move |_| {
            let stream = stream.take().ok_or(std::io::ErrorKind::NotConnected);
            async move { Ok::<_, std::io::Error>(TokioIo::new(stream?)) }
        }))
        .await
        .map_err(|error| StatusError::Refused {
            path: path(),
            message: error.to_string(),
        })?;
    Ok(ControlClient::new(channel).max_decoding_message_size(LARGEST))
}

pub(super) async fn connect(run: &Path) -> std::io::Result<UnixStream> {
    let handle: OwnedFd = std::fs::File::open(run)?.into();
    UnixStream::connect(address(run, handle.as_fd(), NAME)).await
}
