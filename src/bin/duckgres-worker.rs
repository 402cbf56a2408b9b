//! The data plane's process. It is started by systemd or by `duckgres`.

use std::process::ExitCode;

use clap::Parser;
use duckgres::config::WorkerConfig;
use duckgres::worker;

/// More threads than this do not run at once, however many clients are busy.
const THREADS: usize = 4096;

fn main() -> ExitCode {
    let config = WorkerConfig::parse();
    duckgres::process::keep_secrets_out_of_core_dumps();
    duckgres::log::start(&config.log_level);
    let run = || -> Result<(), Box<dyn std::error::Error>> {
        let sockets = worker::inherited_sockets()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(THREADS)
            .enable_all()
            .build()?;
        runtime.block_on(worker::run(config, sockets))?;
        // A statement that does not stop must not hold up the process.
        runtime.shutdown_background();
        Ok(())
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("duckgres-worker: {error}");
            ExitCode::FAILURE
        }
    }
}
