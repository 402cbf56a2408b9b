//! What both binaries do first.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Makes this process leave no core dump and refuse to be traced by others of
/// its user: its memory holds keys. Source: prctl(2), PR_SET_DUMPABLE.
pub fn keep_secrets_out_of_core_dumps() {
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        eprintln!("duckgres: a crash may leave secrets in a core dump: {error}");
    }
}

/// Sends the log to standard error, where systemd's journal takes it up.
/// `level` is a level or a filter as tracing_subscriber understands it.
pub fn log_to_stderr(level: &str) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .init();
}
