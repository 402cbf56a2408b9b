//! The command line of `duckgres`, made from the table of settings.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::load::Flags;
use super::settings::SETTINGS;

/// What the user asked for.
pub enum Action {
    /// Run the server.
    Run(Flags),
    /// Say what is wrong with the configuration.
    CheckConfig(Flags),
    /// Print the reference of all settings.
    Settings,
    /// Make a verifier of a password.
    HashPassword,
    /// Show what a running server is doing.
    Status {
        /// They say which server.
        flags: Flags,
        /// For a program.
        json: bool,
        /// Again and again, after this pause.
        watch: Option<Duration>,
    },
    /// Have a running server go on as a new process, with the program and the
    /// configuration as they are now.
    Reload(Flags),
    /// Have a running server restart its workers, one after the other.
    RestartWorkers(Flags),
    /// Become psql, on the server of this machine.
    Psql(Vec<OsString>),
}

/// Reads the command line of this process. An error is a usage error, or what
/// `--help` and `--version` print; it knows its exit status.
pub fn parse() -> Result<Action, clap::Error> {
    Ok(action(&command().try_get_matches()?))
}

fn action(matches: &ArgMatches) -> Action {
    match matches.subcommand() {
        Some(("check-config", matches)) => Action::CheckConfig(flags(matches)),
        Some(("settings", _)) => Action::Settings,
        Some(("hash-password", _)) => Action::HashPassword,
        Some(("status", matches)) => Action::Status {
            flags: flags(matches),
            json: matches.get_flag("json"),
            watch: matches.get_one("watch").copied().map(Duration::from_secs),
        },
        Some(("reload", matches)) => Action::Reload(flags(matches)),
        Some(("restart-workers", matches)) => Action::RestartWorkers(flags(matches)),
        Some(("psql", matches)) => Action::Psql(
            matches
                .get_many::<OsString>("arguments")
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
        ),
        _ => Action::Run(flags(matches)),
    }
}

/// The command line of `duckgres`, for what is made of it besides parsing: man page, completions.
pub fn command() -> Command {
    let check = Command::new("check-config")
        .about("Says everything that is wrong with the configuration; status 1 if anything is")
        .args(arguments());
    let settings =
        Command::new("settings").about("Describes every setting: file, environment, flag, default");
    let hash_password = Command::new("hash-password").about(
        "Makes of a password, asked for or read from standard input, what the configuration needs of it",
    );
    let status = Command::new("status")
        .about("Shows what the server on a data directory is doing; status 1 if none is running")
        .args(which_server())
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Prints JSON, one line for each answer"),
        )
        .arg(
            Arg::new("watch")
                .long("watch")
                .value_name("SECONDS")
                .num_args(0..=1)
                .default_missing_value("2")
                .value_parser(clap::value_parser!(u64).range(1..))
                .help("Asks again after so many seconds (2), until interrupted"),
        );
    let reload = Command::new("reload")
        .about(
            "Has the server on a data directory go on with its program, its configuration, its certificate \
             and its users as they are now; no client notices. Returns when it does; status 1, with the \
             reason, if it goes on as before",
        )
        .args(which_server());
    let restart_workers = Command::new("restart-workers")
        .about(
            "Has the server on a data directory restart its workers, one after the other, with their program \
             as it is now; sessions go on in the next process. Returns when all serve; status 1, with the \
             reason, if one does not",
        )
        .args(which_server());
    let psql = Command::new("psql")
        .about(
            "Starts psql on the server of this machine, over its Unix socket: as the administrator \
             `duckgres` for root, without a password; else as the user of the same name",
        )
        .disable_help_flag(true)
        .arg(
            Arg::new("arguments")
                .value_name("ARGUMENT")
                .num_args(0..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .value_parser(clap::value_parser!(OsString))
                .help("What psql is given: `-c 'select 1'`, `-U alice sales`"),
        );
    Command::new("duckgres")
        .version(env!("CARGO_PKG_VERSION"))
        .about("DuckDB as a PostgreSQL server")
        .long_about(
            "DuckDB as a PostgreSQL server. Without any configuration it serves the local user's own \
             database and prints the command that connects to it.\n\n\
             Flags win over environment variables, which win over the configuration file.",
        )
        .args(arguments())
        .subcommand(check)
        .subcommand(settings)
        .subcommand(hash_password)
        .subcommand(status)
        .subcommand(reload)
        .subcommand(restart_workers)
        .subcommand(psql)
        .args_conflicts_with_subcommands(true)
}

/// What finds the data directory.
fn which_server() -> impl Iterator<Item = Arg> {
    let of_place = |argument: &Arg| ["config", "data-dir"].contains(&argument.get_id().as_str());
    arguments().into_iter().filter(of_place)
}

fn arguments() -> Vec<Arg> {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("The configuration file (YAML) [env: DUCKGRES_CONFIG] [default: none]");
    let settings = SETTINGS
        .iter()
        .filter(|setting| !setting.flag.is_empty())
        .map(|setting| {
            let default = match (setting.default, setting.otherwise) {
                ("", "") => "none",
                ("", otherwise) => otherwise,
                (default, _) => default,
            };
            let doc = setting.doc.split_whitespace().collect::<Vec<_>>().join(" ");
            let action = if setting.list {
                ArgAction::Append
            } else {
                ArgAction::Set
            };
            Arg::new(setting.flag)
                .long(setting.flag)
                .value_name(value_name(setting.form))
                .action(action)
                .allow_hyphen_values(false)
                .help(format!("{doc} [env: {}] [default: {default}]", setting.env))
        });
    std::iter::once(config).chain(settings).collect()
}

fn value_name(form: &str) -> &'static str {
    match form.split_whitespace().nth(1) {
        Some("path") => "PATH",
        Some("size") => "SIZE",
        Some("duration") => "DURATION",
        Some("number" | "whole") => "N",
        _ => "VALUE",
    }
}

fn flags(matches: &ArgMatches) -> Flags {
    let values = SETTINGS
        .iter()
        .filter(|setting| !setting.flag.is_empty())
        .filter_map(|setting| {
            // A subcommand may not have them all.
            let given: Vec<&str> = matches
                .try_get_many::<String>(setting.flag)
                .ok()??
                .map(String::as_str)
                .collect();
            Some((setting.flag.to_owned(), given.join(",")))
        })
        .collect();
    Flags {
        config: matches.get_one::<PathBuf>("config").cloned(),
        values,
    }
}
