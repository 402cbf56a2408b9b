//! The control plane and the operator's tool.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use duckgres::config::cli::{self, Action};
use duckgres::config::{self, Config, Flags};
use duckgres::control::status::{Ask, show};
use duckgres::control::{self, Ended, Predecessor};
use duckgres::{log, process};

type Outcome = Result<ExitCode, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    // First of all: it may go on in a child process.
    let predecessor = match Predecessor::from_environment() {
        Ok(predecessor) => predecessor,
        Err(error) => {
            eprintln!("duckgres: {error}");
            return ExitCode::FAILURE;
        }
    };
    let predecessor = predecessor.as_ref();
    let action = cli::parse().unwrap_or_else(|error| {
        predecessor.inspect(|waiting| waiting.fail(&error.to_string()));
        error.exit()
    });
    let outcome = match action {
        Action::Run(flags) => Config::load(&flags)
            .map_err(Into::into)
            .and_then(|config| run(config, predecessor)),
        Action::CheckConfig(flags) => Config::load(&flags).map_err(Into::into).and_then(check),
        Action::Settings => say(&config::reference()),
        Action::HashPassword => hash_password(),
        Action::Status { flags, json, watch } => {
            Config::locate(&flags).map_err(Into::into).and_then(|data_dir| {
                status(Ask {
                    data_dir,
                    json,
                    watch,
                })
            })
        }
        Action::Reload(flags) => Config::locate(&flags).map_err(Into::into).and_then(reload),
        Action::RestartWorkers(flags) => Config::locate(&flags)
            .map_err(Into::into)
            .and_then(restart_workers),
        Action::Psql(arguments) => Config::locate(&Flags::default())
            .map_err(Into::into)
            .and_then(|data_dir| Err(control::become_psql(&data_dir, &arguments).into())),
    };
    outcome.unwrap_or_else(|error| {
        let error = error.to_string();
        predecessor.inspect(|waiting| waiting.fail(&error));
        error.lines().for_each(|line| eprintln!("duckgres: {line}"));
        ExitCode::FAILURE
    })
}

fn run(config: Config, predecessor: Option<&Predecessor>) -> Outcome {
    process::keep_secrets_out_of_core_dumps();
    log::start(&config.settings.log_level);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match runtime.block_on(control::run(config, predecessor))? {
        Ended::Drained => Ok(ExitCode::SUCCESS),
        Ended::Forced => Ok(ExitCode::FAILURE),
        // Even the runtime's tasks would tidy up if they were dropped.
        Ended::Replaced => std::process::exit(0),
    }
}

fn check(config: Config) -> Outcome {
    config
        .notes
        .iter()
        .for_each(|note| eprintln!("duckgres: note: {note}"));
    let problems = control::check(&config);
    problems
        .iter()
        .for_each(|problem| eprintln!("duckgres: {problem}"));
    match problems.is_empty() {
        true => say("The configuration is valid.\n"),
        false => Ok(ExitCode::FAILURE),
    }
}

fn hash_password() -> Outcome {
    process::keep_secrets_out_of_core_dumps();
    say(&format!("{}\n", control::hash_password()?.as_str()))
}

fn status(ask: Ask) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(show(&ask))?;
    Ok(ExitCode::SUCCESS)
}

fn reload(data_dir: PathBuf) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(control::status::reload(&data_dir))?;
    Ok(ExitCode::SUCCESS)
}

fn restart_workers(data_dir: PathBuf) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(control::status::restart_workers(&data_dir))?;
    Ok(ExitCode::SUCCESS)
}

/// Whoever closes the pipe has read enough.
fn say(text: &str) -> Outcome {
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}
