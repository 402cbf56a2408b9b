//! From sources to a whole, checked configuration.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::node::{Node, Origin, Problem};
use super::settings::{SETTINGS, Settings};
use super::sources::Sources;
use super::units::{Mode, TlsMode};

/// What `systemd/duckgres.service` sets.
const SERVICE_DATA_DIR: &str = "/var/lib/duckgres/control";

/// A whole configuration, checked in itself. Whether ports are free and
/// certificates fit their keys is seen where they are used.
pub struct Config {
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// The data directory, absolute.
    pub data_dir: PathBuf,
    /// Every setting.
    pub settings: Settings,
    /// Oddities that do not keep the server from starting.
    pub notes: Vec<String>,
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug)]
pub struct Problems(pub Vec<Problem>);

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// What flags said: the file's path and the settings, by flag name.
#[derive(Default)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// Name and value of each other flag that was given; lists are joined with commas.
    pub values: Vec<(String, String)>,
}

impl Config {
    /// Reads the configuration of this process: flags over environment over
    /// systemd's credentials over file over defaults. The file is the one that `--config` or
    /// `DUCKGRES_CONFIG` names; without either, none is read.
    pub fn load(flags: &Flags) -> Result<Self, Problems> {
        Self::assemble(flags, variables(), file(flags).as_deref())
    }

    /// The data directory alone, from the same sources: whoever asks about a server
    /// need not be able to start it. If nobody says which, and there is none in the
    /// usual place, it is that of systemd's service.
    pub fn locate(flags: &Flags) -> Result<PathBuf, Problems> {
        let mut problems = Vec::new();
        let (sources, _) = gather(flags, variables(), file(flags).as_deref(), &mut problems);
        let given = sources.read::<Option<PathBuf>>("data_dir", "", &mut problems);
        let service = || {
            let theirs = Path::new(SERVICE_DATA_DIR);
            let usual = default_data_dir().is_some_and(|usual| usual.exists());
            (!usual && theirs.exists()).then(|| theirs.to_path_buf())
        };
        let data_dir = data_dir(given.flatten().or_else(service), &mut problems);
        if problems.is_empty() {
            Ok(data_dir)
        } else {
            Err(Problems(problems))
        }
    }

    pub(super) fn assemble(
        flags: &Flags,
        variables: impl Iterator<Item = (String, String)>,
        file: Option<&Path>,
    ) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let (sources, notes) = gather(flags, variables, file, &mut problems);
        let settings = Settings::read(&sources, &mut problems);
        let Some(settings) = settings else {
            return Err(Problems(problems));
        };

        let data_dir = data_dir(settings.data_dir.clone(), &mut problems);
        let mut config = Self {
            file: file.map(Path::to_path_buf),
            data_dir,
            settings,
            notes,
        };
        config.check(&sources, &mut problems);
        config.note_who_cannot_log_in();
        if problems.is_empty() {
            return Ok(config);
        }
        problems.sort_by_key(|problem| match problem.origin {
            Origin::File(_, line) => line,
            _ => 0,
        });
        Err(Problems(problems))
    }

    /// What no single setting can see.
    fn check(&self, sources: &Sources, problems: &mut Vec<Problem>) {
        let settings = &self.settings;
        let users_unreadable = problems
            .iter()
            .any(|problem| problem.message.starts_with("users: "));
        let mut wrong = |name: &str, message: String| {
            problems.push(Problem::new(&sources.origin(name), format!("{name}: {message}")));
        };
        match (&settings.tls_cert, &settings.tls_key) {
            (Some(_), None) => wrong("tls.cert", "tls.key must be set too".into()),
            (None, Some(_)) => wrong("tls.key", "tls.cert must be set too".into()),
            _ => {}
        }
        if settings.mode == Mode::ControlPlane && settings.users.is_empty() && !users_unreadable {
            wrong("mode", "control-plane needs users".into());
        }
        if settings
            .log_level
            .parse::<tracing_subscriber::EnvFilter>()
            .is_err()
        {
            wrong(
                "log_level",
                "must be error, warn, info, debug, trace, or a list of part=level".into(),
            );
        }
        for (name, number) in [
            ("worker_id", settings.worker_id),
            ("worker_count", settings.worker_count),
        ] {
            if number.get() > 1023 {
                wrong(name, "must be a whole number from 1 to 1023".into());
            }
        }
        if settings.authentication_timeout.is_zero() {
            wrong("authentication_timeout", "must be more than 0".into());
        }
        for directory in &settings.file_access {
            match directory.canonicalize() {
                Ok(real) if !real.is_dir() => wrong(
                    "file_access",
                    format!("{} is not a directory", directory.display()),
                ),
                Ok(real) => {
                    if let Some((what, path)) = self.protected().find(|(_, path)| path.starts_with(&real)) {
                        let (directory, path) = (directory.display(), path.display());
                        wrong("file_access", format!("{directory} contains {what} ({path})"));
                    }
                }
                // What a worker of systemd's can see, this process may not.
                Err(_) if settings.worker_sockets.is_some() => {}
                Err(error) => wrong(
                    "file_access",
                    format!("{} cannot be used ({error})", directory.display()),
                ),
            }
        }
    }

    fn note_who_cannot_log_in(&mut self) {
        let settings = &self.settings;
        let users = &settings.users;
        if !users.is_empty() {
            let unknown = settings.auth_peer_map.users();
            let unknown = unknown.filter(|name| !users.contains_key(*name));
            self.notes
                .extend(unknown.map(|name| format!("auth.peer_map: there is no user {name:?}")));
        }
        let locked_out = users
            .iter()
            .filter(|(_, user)| user.credential.is_none() && !settings.auth_peer);
        self.notes.extend(locked_out.map(|(name, _)| {
            format!("user {name:?} has no password, and auth.peer is off: nobody can log in as this user")
        }));
    }

    /// What SQL must never reach.
    fn protected(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        [
            ("the data directory", Some(&self.data_dir)),
            ("the configuration", self.file.as_ref()),
            ("the TLS key", self.settings.tls_key.as_ref()),
        ]
        .into_iter()
        .filter_map(|(what, path)| Some((what, resolve(path?))))
    }

    /// `tls.mode` as set, or else `allow` where only this machine can
    /// listen in, and `require` where others could: SCRAM protects the
    /// password on an open network, but nothing protects the rows.
    pub fn tls_mode(&self) -> TlsMode {
        self.tls_mode_of(self.settings.host.iter().all(|host| is_loopback(host)))
    }

    /// The same for doors that others have opened: `local` if only this machine
    /// can reach them.
    pub fn tls_mode_of(&self, local: bool) -> TlsMode {
        self.settings.tls_mode.unwrap_or(match local {
            true => TlsMode::Allow,
            false => TlsMode::Require,
        })
    }
}

/// The environment, as far as it is text.
fn variables() -> impl Iterator<Item = (String, String)> {
    env::vars_os().filter_map(|(name, value)| {
        let text = |text: OsString| text.into_string().ok();
        Some((text(name)?, text(value)?))
    })
}

/// The file that `--config` or `DUCKGRES_CONFIG` names.
fn file(flags: &Flags) -> Option<PathBuf> {
    flags.config.clone().or_else(|| {
        let path = env::var_os("DUCKGRES_CONFIG").filter(|path| !path.is_empty())?;
        Some(PathBuf::from(path))
    })
}

/// All sources by precedence, and notes about the environment.
fn gather(
    flags: &Flags,
    variables: impl Iterator<Item = (String, String)>,
    file: Option<&Path>,
    problems: &mut Vec<Problem>,
) -> (Sources, Vec<String>) {
    let mut sources = Sources::default();
    for (flag, value) in &flags.values {
        if let Some(setting) = SETTINGS.iter().find(|setting| setting.flag == flag) {
            sources.add(setting, Node::text(Origin::Flag(flag.clone()), value));
        }
    }
    let mut credentials = None;
    let notes = sources.add_environment(variables.inspect(|(name, value)| {
        if name == "CREDENTIALS_DIRECTORY" {
            credentials = Some(PathBuf::from(value));
        }
    }));
    if let Some(directory) = credentials {
        sources.add_credentials(&directory, problems);
    }
    if let Some(file) = file {
        sources.add_file(file, problems);
    }
    (sources, notes)
}

fn data_dir(given: Option<PathBuf>, problems: &mut Vec<Problem>) -> PathBuf {
    given.or_else(default_data_dir).unwrap_or_else(|| {
        let message = "data_dir must be set: neither XDG_DATA_HOME nor HOME is";
        problems.push(Problem::new(&Origin::Default, message));
        PathBuf::new()
    })
}

/// Whether only this machine can reach the address.
pub fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// The path with symbolic links resolved as far as it exists.
fn resolve(path: &Path) -> PathBuf {
    path.ancestors()
        .find_map(|ancestor| {
            let rest = path.strip_prefix(ancestor).ok()?;
            Some(ancestor.canonicalize().ok()?.join(rest))
        })
        .unwrap_or_else(|| path.to_path_buf())
}

fn default_data_dir() -> Option<PathBuf> {
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    // The XDG base directory specification has relative paths ignored.
    let base = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")))?;
    Some(base.join("duckgres"))
}
