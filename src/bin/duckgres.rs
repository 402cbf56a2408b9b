//! The control plane and the operator's tool.

use std::process::ExitCode;

use duckgres::config::cli::{self, Action};
use duckgres::config::{Config, Flags};
use duckgres::control::{self, Ended};

fn main() -> ExitCode {
    match cli::parse() {
        Action::Run(flags) => run(&flags),
        Action::CheckConfig(flags) => check(&flags),
        Action::Settings => {
            print!("{}", duckgres::config::reference());
            ExitCode::SUCCESS
        }
    }
}

fn run(flags: &Flags) -> ExitCode {
    let config = match Config::load(flags) {
        Ok(config) => config,
        Err(problems) => return fail(problems),
    };
    tracing_subscriber::fmt()
        .with_env_filter(&config.settings.log_level)
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    match runtime.block_on(control::run(config)) {
        Ok(Ended::Drained) => ExitCode::SUCCESS,
        Ok(Ended::Forced) => ExitCode::FAILURE,
        Err(error) => fail(error),
    }
}

fn check(flags: &Flags) -> ExitCode {
    let config = match Config::load(flags) {
        Ok(config) => config,
        Err(problems) => return fail(problems),
    };
    config
        .notes
        .iter()
        .for_each(|note| eprintln!("duckgres: note: {note}"));
    let problems = control::check(&config);
    if problems.is_empty() {
        println!("The configuration is valid.");
        return ExitCode::SUCCESS;
    }
    problems
        .iter()
        .for_each(|problem| eprintln!("duckgres: {problem}"));
    ExitCode::FAILURE
}

fn fail(error: impl std::fmt::Display) -> ExitCode {
    error
        .to_string()
        .lines()
        .for_each(|line| eprintln!("duckgres: {line}"));
    ExitCode::FAILURE
}
