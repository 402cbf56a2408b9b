//! The settings, each defined once.
//!
//! The table below is the only place that knows a setting's name, flag,
//! environment variable, default and meaning. Parsing, `--help`,
//! `duckgres settings`, `duckgres check-config` and the suggestions for
//! misspelt keys are all made from it.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::network::{Ipv6Prefix, MetricsAddress, Network};
use super::node::Problem;
use super::peer_map::PeerMap;
use super::query_log::{Statements, Threshold};
use super::sources::Sources;
use super::units::{Mode, Size, TlsMode, TlsVersion};
use super::users::Users;
use super::value::Value;

/// What is known about a setting besides its value.
#[derive(Debug)]
pub struct Setting {
    /// The key in `duckgres.yaml`; dots stand for nesting.
    pub name: &'static str,
    /// Other keys that mean the same.
    pub aliases: &'static [&'static str],
    /// The environment variable; empty if there is none.
    pub env: &'static str,
    /// The flag without its dashes; empty if there is none.
    pub flag: &'static str,
    /// The default as one would write it; empty if there is none.
    pub default: &'static str,
    /// What happens by default where `default` is empty.
    pub otherwise: &'static str,
    /// How the value is written.
    pub form: &'static str,
    /// Whether it is a list: a sequence in YAML, comma-separated elsewhere.
    pub list: bool,
    /// What it does.
    pub doc: &'static str,
}

macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])+
        $name:literal $(| $alias:literal)* => $field:ident: $type:ty {
            $(env: $env:literal,)? $(flag: $flag:literal,)? default: $default:literal $(or $otherwise:literal)? $(,)?
        }
    )+) => {
        /// The value of every setting.
        pub struct Settings { $($(#[doc = $doc])+ pub $field: $type,)+ }

        /// Every setting, in the order in which help and reference show them.
        pub static SETTINGS: &[Setting] = &[$(Setting {
            name: $name,
            aliases: &[$($alias),*],
            env: concat!($($env)?),
            flag: concat!($($flag)?),
            default: $default,
            otherwise: concat!($($otherwise)?),
            form: <$type as Value>::FORM,
            list: <$type as Value>::LIST,
            doc: concat!($($doc, "\n"),+),
        }),+];

        impl Settings {
            /// Reads every setting and notes all problems. `None` only if a default is wrong.
            pub(super) fn read(sources: &Sources, problems: &mut Vec<Problem>) -> Option<Self> {
                $(let $field = sources.read::<$type>($name, $default, problems);)+
                Some(Self { $($field: $field?,)+ })
            }
        }
    };
}

settings! {
    /// What this process is: `standalone` needs no configuration and runs its
    /// worker itself; `control-plane` expects users; `worker`
    /// is one worker, which inherits its sockets as systemd passes them.
    "mode" => mode: Mode { env: "DUCKGRES_MODE", flag: "mode", default: "standalone" }

    /// Where to listen: IP addresses, host names, `localhost` for both loopback
    /// addresses, `*` for every address, empty for the Unix socket only. Where a
    /// systemd socket unit opens the doors (duckgres.socket), it says all of this, and
    /// host, port and unix_socket_dir say nothing.
    "host" => host: Vec<String> { env: "DUCKGRES_HOST", flag: "host", default: "localhost" }

    /// The TCP port; it also names the Unix socket. 0 takes a free one.
    "port" => port: u16 { env: "DUCKGRES_PORT", flag: "port", default: "5432" }

    /// The directory of the Unix socket `.s.PGSQL.<port>`.
    "unix_socket_dir" => unix_socket_dir: Option<PathBuf> {
        env: "DUCKGRES_UNIX_SOCKET_DIR", flag: "unix-socket-dir",
        default: "" or "$XDG_RUNTIME_DIR/duckgres, or run in the data directory",
    }

    /// The directory of the database files. Nobody else may write to it, and
    /// only one server can use it.
    "data_dir" => data_dir: Option<PathBuf> {
        env: "DUCKGRES_DATA_DIR", flag: "data-dir",
        default: "" or "$XDG_DATA_HOME/duckgres, or ~/.local/share/duckgres",
    }

    /// Whether connections over TCP are encrypted: `disable` offers no TLS,
    /// `allow` leaves it to the client, `require` refuses plaintext.
    "tls.mode" => tls_mode: Option<TlsMode> {
        env: "DUCKGRES_TLS_MODE", flag: "tls-mode",
        default: "" or "allow if all listening addresses are loopback addresses, else require",
    }

    /// The oldest TLS version that is accepted.
    "tls.min_version" => tls_min_version: TlsVersion {
        env: "DUCKGRES_TLS_MIN_VERSION", flag: "tls-min-version", default: "1.2",
    }

    /// The certificate chain, PEM, the server's own certificate first.
    "tls.cert" => tls_cert: Option<PathBuf> {
        env: "DUCKGRES_CERT", flag: "cert",
        default: "" or "a self-signed one in the data directory, made on first start",
    }

    /// The private key of the certificate, PEM.
    "tls.key" => tls_key: Option<PathBuf> {
        env: "DUCKGRES_KEY", flag: "key",
        default: "" or "made together with the certificate",
    }

    /// Who may log in: `name: password`, or a map. A password, there as `password`,
    /// can be a verifier (`SCRAM-SHA-256$4096:...`, as in PostgreSQL's pg_authid;
    /// `duckgres hash-password` makes one); a user without one logs in over the
    /// Unix socket only (auth.peer). `databases`: those that the user may connect
    /// to, `"*"` for all; by default the one of the user's own name. `admin: on`:
    /// may create databases, sees everybody's sessions, and has all databases by
    /// default. `cleartext`: auth.cleartext for this user.
    "users" => users: Users {
        default: "" or "standalone: the operating system user, with a generated password",
    }

    /// Whether a user of this machine, known by the Unix socket, logs in without a
    /// password: under their own name, or as auth.peer_map says. Others are asked
    /// for the password.
    "auth.peer" => auth_peer: bool { env: "DUCKGRES_AUTH_PEER", flag: "auth-peer", default: "on" }

    /// For users of the operating system, as whom they may log in over the Unix
    /// socket: `name: [user, ...]`, `"*"` for every user. Who is not listed may
    /// log in under their own name.
    "auth.peer_map" => auth_peer_map: PeerMap { default: "" or "everybody under their own name" }

    /// Whether clients inside TLS are asked for the password itself, for those that
    /// know no SCRAM. It gives up what SCRAM does against a server that is not the
    /// one it seems to be. Without TLS the password is never asked for. Set for a
    /// single user, it shows strangers that the user exists.
    "auth.cleartext" => auth_cleartext: bool {
        env: "DUCKGRES_AUTH_CLEARTEXT", flag: "auth-cleartext", default: "off",
    }

    /// DuckDB extensions that every database has loaded.
    "extensions" => extensions: Vec<String> {
        env: "DUCKGRES_EXTENSIONS", flag: "extension", default: "",
    }

    /// Where signed extension files are found. Nothing is ever downloaded.
    "extension_directory" => extension_directory: Option<PathBuf> {
        env: "DUCKGRES_EXTENSION_DIRECTORY", flag: "extension-directory",
        default: "" or "only the extensions that are built in",
    }

    /// Directories whose files SQL may read and write. They must not contain
    /// the data directory, the configuration or the TLS key.
    "file_access" => file_access: Vec<PathBuf> {
        env: "DUCKGRES_FILE_ACCESS", flag: "file-access", default: "" or "no files",
    }

    /// How much memory DuckDB may use, per worker. The databases that a worker has
    /// open have equal parts of it. The process needs some hundred megabytes more.
    "memory_limit" => memory_limit: Option<Size> {
        env: "DUCKGRES_MEMORY_LIMIT", flag: "memory-limit",
        default: "" or "70 % of the machine's or the control group's memory, less if it is small, divided by the number of workers",
    }

    /// How many threads the statements of one database may use. They sleep while
    /// statements are short; among databases the kernel divides the processors.
    "threads" => threads: Option<NonZeroU32> {
        env: "DUCKGRES_THREADS", flag: "threads", default: "" or "one for each processor",
    }

    /// Where DuckDB puts what does not fit into memory.
    "temp_directory" => temp_directory: Option<PathBuf> {
        env: "DUCKGRES_TEMP_DIRECTORY", flag: "temp-directory",
        default: "" or "tmp in the data directory",
    }

    /// How much one database may put there; a statement that needs more fails.
    "max_temp_directory_size" => max_temp_directory_size: Option<Size> {
        env: "DUCKGRES_MAX_TEMP_DIRECTORY_SIZE", flag: "max-temp-directory-size",
        default: "" or "half of what is free when the database is opened",
    }

    /// How many connections there may be at the same time; 0 sets no limit.
    "max_connections" | "rate_limit.max_connections" => max_connections: u32 {
        env: "DUCKGRES_MAX_CONNECTIONS", flag: "max-connections", default: "1000",
    }

    /// Failed logins within the window after which an address is banned; 0 bans nobody.
    "rate_limit.max_failed_attempts" => max_failed_attempts: u32 {
        env: "DUCKGRES_MAX_FAILED_ATTEMPTS", flag: "max-failed-attempts", default: "5",
    }

    /// For how long a failed login counts.
    "rate_limit.failed_attempt_window" => failed_attempt_window: Duration {
        env: "DUCKGRES_FAILED_ATTEMPT_WINDOW", flag: "failed-attempt-window", default: "5m",
    }

    /// For how long an address is banned.
    "rate_limit.ban_duration" => ban_duration: Duration {
        env: "DUCKGRES_BAN_DURATION", flag: "ban-duration", default: "15m",
    }

    /// How many connections one address may have at the same time; 0 sets no limit.
    "rate_limit.max_connections_per_ip" => max_connections_per_ip: u32 {
        env: "DUCKGRES_MAX_CONNECTIONS_PER_IP", flag: "max-connections-per-ip", default: "100",
    }

    /// How many leading bits of an IPv6 address count as the address, for bans and
    /// for connections of one address: whoever has one address has its whole network.
    "rate_limit.ipv6_prefix" => ipv6_prefix: Ipv6Prefix {
        env: "DUCKGRES_IPV6_PREFIX", flag: "ipv6-prefix", default: "64",
    }

    /// Load balancers that send the header of the PROXY protocol, version 2, with
    /// the client's address. From these addresses it is required, from all others
    /// it is refused.
    "proxy_protocol.trusted_addresses" => trusted_proxies: Vec<Network> {
        env: "DUCKGRES_PROXY_PROTOCOL_TRUSTED_ADDRESSES", flag: "trusted-proxy", default: "",
    }

    /// How long a client may take from connecting to being logged in.
    "authentication_timeout" => authentication_timeout: Duration {
        env: "DUCKGRES_AUTHENTICATION_TIMEOUT", flag: "authentication-timeout", default: "60s",
    }

    /// How long a statement may run; 0s sets no limit. A session can lower it with
    /// SET and not raise it, like the two that follow.
    "statement_timeout" => statement_timeout: Duration {
        env: "DUCKGRES_STATEMENT_TIMEOUT", flag: "statement-timeout", default: "0s",
    }

    /// How long a client may say nothing outside of a transaction; 0s sets no limit.
    "idle_session_timeout" => idle_session_timeout: Duration {
        env: "DUCKGRES_IDLE_SESSION_TIMEOUT", flag: "idle-session-timeout", default: "0s",
    }

    /// How long a client may say nothing inside a transaction; 0s sets no limit.
    "idle_in_transaction_session_timeout" => idle_in_transaction_session_timeout: Duration {
        env: "DUCKGRES_IDLE_IN_TRANSACTION_SESSION_TIMEOUT",
        flag: "idle-in-transaction-session-timeout", default: "0s",
    }

    /// How long running statements may go on when the server stops.
    "shutdown_timeout" => shutdown_timeout: Duration {
        env: "DUCKGRES_SHUTDOWN_TIMEOUT", flag: "shutdown-timeout", default: "30s",
    }

    /// How long a worker that is restarted waits for sessions that cannot go on in its
    /// next process, because they are in a transaction, run a statement, or have
    /// temporary tables that cannot go along. Then it ends them, and is restarted with
    /// the others.
    "drain_timeout" => drain_timeout: Duration {
        env: "DUCKGRES_DRAIN_TIMEOUT", flag: "drain-timeout", default: "5m",
    }

    /// How long a new process may take to get ready when the server is reloaded,
    /// before it is ended and this one goes on. Less than systemd's TimeoutStartSec.
    "reload_timeout" => reload_timeout: Duration {
        env: "DUCKGRES_RELOAD_TIMEOUT", flag: "reload-timeout", default: "20s",
    }

    /// The program of the workers.
    "worker_binary" => worker_binary: Option<PathBuf> {
        env: "DUCKGRES_WORKER_BINARY", flag: "worker-binary",
        default: "" or "duckgres-worker beside this program, or in ../libexec, ../lib/duckgres or $PATH",
    }

    /// How many workers there are, at most 1023.
    "worker_count" => worker_count: NonZeroU32 { env: "DUCKGRES_WORKER_COUNT", flag: "worker-count", default: "1" }

    /// The directory with the sockets of workers that systemd runs
    /// (duckgres-worker@.socket), in it one for each worker, named by its number.
    /// These are the workers then: none is started, and worker_count says nothing.
    "worker_sockets" => worker_sockets: Option<PathBuf> {
        env: "DUCKGRES_WORKER_SOCKETS", flag: "worker-sockets",
        default: "" or "the server runs its workers itself",
    }

    /// How long a client that has logged in waits for a worker that can take it.
    "worker_queue_timeout" => worker_queue_timeout: Duration {
        env: "DUCKGRES_WORKER_QUEUE_TIMEOUT", flag: "worker-queue-timeout", default: "30s",
    }

    /// How many clients may wait for a worker at the same time.
    "worker_queue_length" => worker_queue_length: u32 {
        env: "DUCKGRES_WORKER_QUEUE_LENGTH", flag: "worker-queue-length", default: "1000",
    }

    /// How long a database waits for the worker that had it open and is gone,
    /// before another worker opens it.
    "owner_timeout" => owner_timeout: Duration {
        env: "DUCKGRES_OWNER_TIMEOUT", flag: "owner-timeout", default: "10s",
    }

    /// How long a database without sessions stays open; 0s keeps it open.
    "database_idle_timeout" => database_idle_timeout: Duration {
        env: "DUCKGRES_DATABASE_IDLE_TIMEOUT", flag: "database-idle-timeout", default: "10min",
    }

    /// How long a worker, or DuckDB in it, may take to answer before it counts as
    /// hung and is replaced; 0s replaces none. A worker of systemd's gets no sessions
    /// while it hangs; when it is replaced is for its unit to say (WatchdogSec=).
    "hang_timeout" => hang_timeout: Duration {
        env: "DUCKGRES_HANG_TIMEOUT", flag: "hang-timeout", default: "60s",
    }

    /// How long a worker whose control plane was killed waits for the next one,
    /// before it exits; it never leaves its sessions. 0s waits for ever. Workers
    /// of mode `worker` wait for ever.
    "orphan_timeout" => orphan_timeout: Duration {
        env: "DUCKGRES_ORPHAN_TIMEOUT", flag: "orphan-timeout", default: "10min",
    }

    /// The number of the worker that mode `worker` starts, 1 to 1023.
    "worker_id" => worker_id: NonZeroU32 { env: "DUCKGRES_WORKER_ID", flag: "worker-id", default: "1" }

    /// Where `GET /metrics` is answered, for Prometheus; `off` for nowhere. There is
    /// no password: whoever reaches the address can read it. If it is set and
    /// cannot be had, the server does not start.
    "metrics.address" => metrics_address: Option<MetricsAddress> {
        env: "DUCKGRES_METRICS_ADDRESS", flag: "metrics-address",
        default: "" or "127.0.0.1:9090, if no other program has it",
    }

    /// What is logged to standard error: error, warn, info, debug, trace, or
    /// such levels for parts of the program (`info,duckgres::control=debug`).
    "log_level" => log_level: String { env: "DUCKGRES_LOG", flag: "log-level", default: "info" }

    /// Which statements are logged whatever time they take: `off`, `errors` or
    /// `all`. A line has duration, rows, user, database, backend id and SQLSTATE.
    "query_log" => query_log: Statements { env: "DUCKGRES_QUERY_LOG", flag: "query-log", default: "off" }

    /// Statements that take at least so long are logged, whatever query_log says:
    /// milliseconds, or a duration with units; 0 logs all, -1 none for their time.
    "log_min_duration_statement" => log_min_duration_statement: Threshold {
        env: "DUCKGRES_LOG_MIN_DURATION_STATEMENT", flag: "log-min-duration-statement", default: "-1",
    }

    /// Whether the query log has the text of statements. It may hold passwords and
    /// everything else that is nobody's business.
    "query_log_text" => query_log_text: bool {
        env: "DUCKGRES_QUERY_LOG_TEXT", flag: "query-log-text", default: "off",
    }

    /// The file of the query log, with a JSON object on each line. It may be moved
    /// away at any time, and is made anew then.
    "query_log_file" => query_log_file: Option<PathBuf> {
        env: "DUCKGRES_QUERY_LOG_FILE", flag: "query-log-file", default: "" or "the log of everything else",
    }
}

/// Keys of the Go duckgres that have no meaning here, by their first part.
pub(super) const ELSEWHERE: &[&str] = &[
    "flight_port",
    "flight_session_idle_ttl",
    "flight_session_reap_interval",
    "flight_handle_idle_ttl",
    "flight_session_token_ttl",
    "ducklake",
    "iceberg",
    "file_persistence",
    "process_isolation",
    "idle_timeout",
    "session_init_timeout",
    "memory_budget",
    "memory_rebalance",
    "process",
    "worker_idle_timeout",
    "handover_drain_timeout",
    "passthrough_users",
    "worker_backend",
    "k8s",
    "acme",
];

/// The setting of this name or alias.
pub fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS
        .iter()
        .find(|setting| setting.name == name || setting.aliases.contains(&name))
}

/// What a setting does, for help texts of other programs.
pub(super) fn doc(name: &str) -> &'static str {
    setting(name).map_or("", |setting| setting.doc.trim())
}

/// The reference that `duckgres settings` prints.
pub fn reference() -> String {
    let mut text = String::new();
    for setting in SETTINGS {
        text.push_str(setting.name);
        text.push('\n');
        for line in setting.doc.lines() {
            text.push_str(&format!("    {}\n", line.trim()));
        }
        let form = if setting.list {
            format!("a list; each {}", setting.form)
        } else {
            setting.form.to_owned()
        };
        text.push_str(&format!("    Form:        {form}\n"));
        let default = match (setting.default, setting.otherwise) {
            ("", "") => "none",
            ("", otherwise) => otherwise,
            (default, _) => default,
        };
        text.push_str(&format!("    Default:     {default}\n"));
        if !setting.flag.is_empty() {
            text.push_str(&format!("    Flag:        --{}\n", setting.flag));
        }
        if !setting.env.is_empty() {
            text.push_str(&format!("    Environment: {}\n", setting.env));
        }
        for alias in setting.aliases {
            text.push_str(&format!("    Also:        {alias}\n"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_settings_share_a_name_a_flag_or_a_variable() {
        let mut seen = HashSet::new();
        for setting in SETTINGS {
            for word in [setting.name, setting.flag, setting.env]
                .iter()
                .chain(setting.aliases)
            {
                assert!(
                    word.is_empty() || seen.insert(*word) || *word == setting.flag,
                    "{word} twice"
                );
            }
            assert!(
                setting.env.is_empty() || setting.env.starts_with("DUCKGRES_"),
                "{}",
                setting.env
            );
        }
    }

    #[test]
    fn the_reference_shows_every_setting() {
        let text = reference();
        for setting in SETTINGS {
            assert!(text.contains(&format!("{}\n", setting.name)), "{}", setting.name);
        }
    }
}
