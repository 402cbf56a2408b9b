//! One worker's processes: found or started, replaced, stopped.
//!
//! A process that a killed control plane has left behind is taken up as it is,
//! with its sessions. One that dies is followed by another, sooner or later
//! depending on how long it lived; one that ends because it was told to restart, at
//! once; one that hangs is killed first. When the
//! control plane is told to stop, so is the worker; when the control plane is
//! killed, nobody tells the worker anything, and it goes on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::duty::Duty;
use super::error::StartError;
use super::pool::{FIRST_REPORT_WITHIN, Worker};
use super::process::{Process, Start, current};
use super::restart::{Bell, Request, Requests, RestartError};
use super::sockets::WorkerSockets;
use super::store::Store;
use crate::config::WorkerConfig;

/// How long a process that was found may take until it reports, before the
/// server starts without it.
const FOUND_READY_WITHIN: Duration = Duration::from_secs(5);

/// How long a drained process may take to exit.
const EXIT_WITHIN: Duration = Duration::from_secs(10);

/// How long the order to end for good may take to be heard.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// A process that is told to restart sooner than that after its start is followed by
/// the next with a pause, lest something goes round in circles.
const CIRCLE: Duration = Duration::from_secs(1);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A process that lives as long counts as well, and the next is started at once.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);

/// What is needed to have the worker run.
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// What it is told.
    pub config: WorkerConfig,
    /// Where sessions and orders come from.
    pub sockets: WorkerSockets,
    /// What it has kept from one process to the next.
    pub store: Arc<Store>,
    /// How long it may say nothing; zero: for ever.
    pub hang_timeout: Duration,
    /// It is told to leave when it has no sessions, and not replaced.
    pub retiring: bool,
    /// Another control plane looks after it until this one is on duty.
    pub shared: bool,
}

impl Program {
    fn spawn(&mut self) -> std::io::Result<Process> {
        let sockets = self.sockets.bind()?;
        let limit = self.store.limit();
        self.store.launch(|kept| {
            let process = Process::spawn(Start {
                path: &self.path,
                config: &self.config,
                sockets: &sockets,
                kept,
                limit,
                notify: self.sockets.notify_address(),
                note: &self.sockets.note(),
            })?;
            let id = process.id().unwrap_or_default();
            Ok((process, id))
        })
    }

    /// The process that an earlier control plane has left.
    async fn find(&self, worker: &Worker) -> Option<Process> {
        if let Some(process) = Process::find(&self.sockets.note()) {
            return Some(process);
        }
        // Killed before it had made the note?
        if !self.sockets.are_answered() || !worker.ready(FOUND_READY_WITHIN).await {
            return None;
        }
        let report = worker.report()?;
        Process::adopt((report.process_id, report.start_time))
    }
}

/// Keeps a worker running until told otherwise.
pub struct Supervisor {
    /// Where a restart is asked for.
    pub bell: Bell,
    stop: watch::Sender<Stop>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Stop {
    No,
    /// A process that ends is not replaced.
    LetGo,
    WhenDone,
    Now,
}

impl Supervisor {
    /// Finds the worker's process, or starts it and waits until it is ready. If
    /// that fails, nothing is tried again: a person is waiting for the reason.
    pub async fn start(mut program: Program, worker: Arc<Worker>, duty: Duty) -> Result<Self, StartError> {
        let hearing = tokio::spawn({
            let (store, duty) = (program.store.clone(), duty.clone());
            async move { store.listen(duty).await }
        });
        let hearing = AbortOnDrop(hearing);
        let found = match program.shared {
            true => None,
            false => program.find(&worker).await,
        };
        let process = match found {
            None if program.shared => {
                // It may be between two processes: no reason not to go on.
                worker.ready(FOUND_READY_WITHIN).await;
                None
            }
            Some(mut process) => {
                info!(worker = worker.id, "found the worker, and its sessions with it");
                process.id().inspect(|id| program.store.belongs_to(*id));
                tokio::select! {
                    _ = worker.ready(FOUND_READY_WITHIN) => {}
                    _ = process.ended() => {}
                }
                Some(process)
            }
            None => {
                let path = program.path.clone();
                let mut process = program
                    .spawn()
                    .map_err(|source| StartError::Spawn { path, source })?;
                info!(worker = worker.id, "started the worker");
                tokio::select! {
                    ready = worker.ready(FIRST_REPORT_WITHIN) => if !ready { return Err(StartError::WorkerSilent) },
                    ended = process.ended() => return Err(StartError::WorkerEnded(ended?.unwrap_or_default())),
                }
                Some(process)
            }
        };
        let (stop, stopped) = watch::channel(Stop::No);
        let (bell, requests) = Bell::new(worker.id);
        let task = tokio::spawn(async move {
            look_after(program, process, worker, duty, stopped, requests).await;
            drop(hearing);
        });
        Ok(Self { bell, stop, task })
    }

    /// From now on a process that ends is not replaced: it is being drained.
    pub fn let_go(&self) {
        self.order(Stop::LetGo);
    }

    /// Has the process end: it drains and exits, or is killed. Also ends the sockets.
    pub fn finish(&self) {
        self.order(Stop::WhenDone);
    }

    /// Returns when the process has ended.
    pub async fn stop(&mut self) {
        self.finish();
        if !self.task.is_finished() {
            let _ = (&mut self.task).await;
        }
    }

    /// Ends the process at once. A [`Supervisor::stop`] that is waiting returns.
    pub fn kill(&self) {
        self.order(Stop::Now);
    }

    fn order(&self, order: Stop) {
        self.stop.send_if_modified(|stop| {
            let more = *stop < order;
            if more {
                *stop = order;
            }
            more
        });
    }
}

/// A task that ends with its owner.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Looks after the worker whenever this process is on duty.
async fn look_after(
    mut program: Program,
    mut process: Option<Process>,
    worker: Arc<Worker>,
    mut duty: Duty,
    mut stop: watch::Receiver<Stop>,
    mut requests: Requests,
) {
    loop {
        duty.begins().await;
        if program.shared {
            program.sockets.take_over();
            process = current(process, &program.sockets.note());
        }
        // When the duty ends, another may come before it begins again.
        program.shared = true;
        match keep_running(
            &mut program,
            process,
            &worker,
            &mut duty,
            &mut stop,
            &mut requests,
        )
        .await
        {
            Left::OffDuty(left) => process = left,
            Left::Ended => {
                program.store.close();
                return program.sockets.remove();
            }
        }
    }
}

/// How a worker was left.
enum Left {
    /// To another control plane, as it is.
    OffDuty(Option<Process>),
    /// Without a process, for good.
    Ended,
}

async fn keep_running(
    program: &mut Program,
    mut process: Option<Process>,
    worker: &Worker,
    duty: &mut Duty,
    stop: &mut watch::Receiver<Stop>,
    requests: &mut Requests,
) -> Left {
    let id = worker.id;
    let mut pause = FIRST_PAUSE;
    let mut at_once = false;
    let mut leaving = false;
    let mut started = Instant::now();
    // Somebody waits for the process after this one.
    let mut waiting: Option<(Request, Option<u32>)> = None;
    loop {
        let Some(mut running) = process.take() else {
            // Those that are in the store go on.
            if program.store.is_empty() {
                worker.process_ended();
            }
            if program.retiring {
                return Left::Ended;
            }
            let now = if at_once { Duration::ZERO } else { pause };
            tokio::select! {
                () = tokio::time::sleep(now) => {}
                () = told(stop, Stop::LetGo) => return Left::Ended,
                () = duty.ends() => return Left::OffDuty(None),
            }
            if !at_once {
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            at_once = false;
            started = Instant::now();
            process = start_again(program, worker, duty);
            if process.is_none()
                && let Some((request, _)) = waiting.take()
            {
                request.failed(RestartError::NotStarted);
            }
            continue;
        };
        let own = running.id();
        own.inspect(|own| program.store.belongs_to(*own));
        let is_next = waiting.as_ref().is_some_and(|(_, before)| *before != own);
        tokio::select! {
            () = duty.ends() => return Left::OffDuty(Some(running)),
            ended = running.ended() => {
                duty.act(|| program.store.settle());
                let status = ended.as_ref().ok().copied().flatten();
                let told_to = program.store.told().borrow().stopping;
                let orderly = told_to || status.is_some_and(|status| status.success());
                at_once = orderly && started.elapsed() >= CIRCLE;
                match ended {
                    _ if *stop.borrow() != Stop::No => {}
                    Ok(_) if orderly => info!(worker = id, "the worker has ended as it was told to"),
                    Ok(Some(status)) => error!(worker = id, %status, "the worker ended"),
                    Ok(None) => error!(worker = id, "the worker ended"),
                    Err(error) => error!(worker = id, %error, "the worker was lost"),
                }
                if is_next && let Some((request, _)) = waiting.take() {
                    request.failed(RestartError::Ended);
                }
            },
            served = serves(program, worker, own.unwrap_or_default()), if is_next => {
                if let Some((request, _)) = waiting.take() {
                    match served {
                        Some(sessions) => request.done(own.unwrap_or_default(), sessions),
                        None => request.failed(RestartError::Silent),
                    }
                }
                process = Some(running);
                continue;
            }
            Some(request) = requests.recv(), if waiting.is_none() => {
                info!(worker = id, "restarting the worker");
                duty.act(|| running.terminate());
                waiting = Some((request, own));
                process = Some(running);
                continue;
            }
            reason = worker.hung(program.hang_timeout) => {
                if duty.act(|| running.kill()).is_none() {
                    return Left::OffDuty(Some(running));
                }
                error!(worker = id, "the worker hangs ({reason}); killed it");
                tokio::select! {
                    _ = running.ended() => {}
                    () = told(stop, Stop::WhenDone) => return end(running, program, worker, stop).await,
                }
            }
            () = worker.ready_to_leave(), if program.retiring && !leaving => {
                info!(worker = id, "the worker is not configured any more: its sessions go to others");
                leaving = true;
                worker.leave().await;
                process = Some(running);
                continue;
            }
            () = worker.vacant(), if program.retiring => {
                info!(worker = id, "the worker is not configured any more, and has no sessions left");
                program.store.close();
                worker.shut_down().await;
                tokio::select! {
                    _ = running.ended() => {}
                    () = tokio::time::sleep(EXIT_WITHIN) => running.kill(),
                    () = told(stop, Stop::WhenDone) => return end(running, program, worker, stop).await,
                }
            }
            () = told(stop, Stop::WhenDone) => return end(running, program, worker, stop).await,
        }
        if started.elapsed() >= HEALTHY_AFTER {
            pause = FIRST_PAUSE;
        }
    }
}

/// Returns when this process serves, with the number of its sessions; `None` if it does
/// not in time.
async fn serves(program: &Program, worker: &Worker, process: u32) -> Option<u32> {
    let mut told = program.store.told();
    let serving = async {
        let _ = told.wait_for(|told| told.ready).await;
        worker.reported_by(process).await
    };
    tokio::time::timeout(FIRST_REPORT_WITHIN, serving).await.ok()
}

/// The next process, if there can be one now.
fn start_again(program: &mut Program, worker: &Worker, duty: &Duty) -> Option<Process> {
    duty.act(|| {
        worker.process_begins();
        match program.spawn() {
            Ok(process) => {
                worker.tally.restarted();
                info!(worker = worker.id, "started the worker again");
                Some(process)
            }
            Err(error) => {
                error!(worker = worker.id, %error, "the worker cannot be started");
                None
            }
        }
    })
    .flatten()
}

/// Waits for an order, or one that goes further; a supervisor that is gone has
/// given them all.
async fn told(stop: &mut watch::Receiver<Stop>, order: Stop) {
    let _ = stop.wait_for(|stop| *stop >= order).await;
}

async fn end(
    mut process: Process,
    program: &Program,
    worker: &Worker,
    stop: &mut watch::Receiver<Stop>,
) -> Left {
    program.store.close();
    // A signal alone would be a restart. One that was drained is on its way already.
    tokio::select! {
        _ = process.ended() => {}
        _ = tokio::time::timeout(HEARD_WITHIN, worker.shut_down()) => {}
        () = told(stop, Stop::Now) => {}
    }
    process.terminate();
    let in_time = tokio::select! {
        _ = process.ended() => true,
        () = tokio::time::sleep(EXIT_WITHIN) => {
            warn!("the worker does not exit; killing it");
            false
        }
        () = told(stop, Stop::Now) => false,
    };
    if !in_time {
        process.kill();
        let _ = process.ended().await;
    }
    Left::Ended
}

/// The worker's program: as configured, or from where packages and builds put it.
pub fn find_program(configured: Option<&Path>) -> Result<PathBuf, StartError> {
    const NAME: &str = "duckgres-worker";
    let candidates: Vec<PathBuf> = match configured {
        Some(path) => vec![path.to_path_buf()],
        None => {
            let own = std::env::current_exe().ok();
            let beside = own.as_deref().and_then(Path::parent);
            let near = [
                NAME,
                "../libexec/duckgres-worker",
                "../lib/duckgres/duckgres-worker",
            ];
            let near = near.iter().filter_map(|place| Some(beside?.join(place)));
            let search = std::env::var_os("PATH").unwrap_or_default();
            near.chain(std::env::split_paths(&search).map(|place| place.join(NAME)))
                .collect()
        }
    };
    match candidates.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(StartError::NoWorkerBinary(candidates)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named() {
        let error = find_program(Some(Path::new("/nonexistent/w"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no duckgres-worker in /nonexistent/w: set worker_binary"
        );
    }
}
