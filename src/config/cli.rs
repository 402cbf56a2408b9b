//! The command line of `duckgres`, made from the table of settings.

use std::path::PathBuf;

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
}

/// Reads the command line of this process. On a usage error (status 2), and
/// for `--help` and `--version`, it prints and exits.
pub fn parse() -> Action {
    action(&command().get_matches())
}

fn action(matches: &ArgMatches) -> Action {
    match matches.subcommand() {
        Some(("check-config", matches)) => Action::CheckConfig(flags(matches)),
        Some(("settings", _)) => Action::Settings,
        Some(("hash-password", _)) => Action::HashPassword,
        _ => Action::Run(flags(matches)),
    }
}

pub(super) fn command() -> Command {
    let check = Command::new("check-config")
        .about("Says everything that is wrong with the configuration; status 1 if anything is")
        .args(arguments());
    let settings =
        Command::new("settings").about("Describes every setting: file, environment, flag, default");
    let hash_password = Command::new("hash-password").about(
        "Makes of a password, asked for or read from standard input, what the configuration needs of it",
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
        .args_conflicts_with_subcommands(true)
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
            let given: Vec<&str> = matches
                .get_many::<String>(setting.flag)?
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
