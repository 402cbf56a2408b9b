//! The way of a large result: several threads encode it, in turns they send it.
//!
//! Each lane takes the next chunks from the engine, encodes them on its own, and
//! sends them when those before are sent. So the engine, the encoder, the record
//! layer and the kernel's copies keep as many processors busy as there are, and
//! what is in memory are some chunks per lane. An error takes its turn like
//! rows: what came before it arrives.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

use super::client::{Client, FLUSH_AT};
use super::error::Failure;
use super::handle::Handle;
use super::portal::{STEP, check_stop};
use crate::encode::RowEncoder;
use crate::engine::{self, Chunk, Rows};

/// More lanes than these wait for the one that sends.
const MOST: usize = 4;
/// Chunks that a lane takes at once, at most, however narrow their rows are.
const BATCH: usize = 8;

/// How many lanes are worth their threads on this machine.
pub static LANES: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, |count| count.get().min(MOST)));

/// Sends all rows that are left, on one lane for each encoder, this thread's
/// among them. Returns their number.
pub fn drain(
    rows: &mut Rows,
    encoders: Vec<RowEncoder>,
    client: &mut Client,
    handle: &Handle,
) -> Result<u64, Failure> {
    let source = Mutex::new(Source {
        rows,
        batches: 0,
        failed: None,
    });
    let outlet = Outlet {
        bytes_per_chunk: AtomicUsize::new(FLUSH_AT),
        sending: Mutex::new(Sending {
            client,
            turn: 0,
            rows: 0,
            over: None,
        }),
        next: Condvar::new(),
    };
    std::thread::scope(|scope| {
        let mut encoders = encoders.into_iter();
        let own = encoders.next();
        for encoder in encoders {
            let lane = Lane::new(&source, &outlet, encoder, handle);
            let started = std::thread::Builder::new()
                .name("encode".into())
                .spawn_scoped(scope, move || lane.run());
            if started.is_err() {
                // The lanes that there are will do.
                break;
            }
        }
        if let Some(encoder) = own {
            Lane::new(&source, &outlet, encoder, handle).run();
        }
    });
    let sending = outlet
        .sending
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    match sending.over {
        Some(Err(failure)) => Err(failure),
        _ => Ok(sending.rows),
    }
}

/// Where the chunks come from.
struct Source<'a> {
    rows: &'a mut Rows,
    batches: u64,
    /// Comes after the chunks that were fetched before it.
    failed: Option<engine::Error>,
}

impl Source<'_> {
    /// The next chunks, as many as are `wanted` or left; none at the end.
    fn take(&mut self, wanted: usize) -> Result<Vec<Chunk>, engine::Error> {
        let mut chunks = Vec::with_capacity(wanted);
        while chunks.len() < wanted && self.failed.is_none() {
            match self.rows.next_chunk() {
                Ok(Some(chunk)) => chunks.push(chunk),
                Ok(None) => break,
                Err(error) => self.failed = Some(error),
            }
        }
        match self.failed.take() {
            Some(error) if chunks.is_empty() => Err(error),
            failed => {
                self.failed = failed;
                Ok(chunks)
            }
        }
    }
}

/// Where the bytes go, batch by batch.
struct Outlet<'a> {
    sending: Mutex<Sending<'a>>,
    next: Condvar,
    /// What the last encoded chunk came to. Not behind the lock of the source, so
    /// that rows which are ready need not wait for a slow query's next ones.
    bytes_per_chunk: AtomicUsize,
}

struct Sending<'a> {
    client: &'a mut Client,
    /// The batch that may be sent.
    turn: u64,
    rows: u64,
    /// Nothing more is to be sent.
    over: Option<Result<(), Failure>>,
}

impl<'a> Outlet<'a> {
    /// Waits for a batch's turn; none if there is nothing more to be sent.
    fn turn(&self, batch: u64) -> Option<Turn<'_, 'a>> {
        let mut sending = lock(&self.sending);
        while sending.turn != batch && sending.over.is_none() {
            sending = self.next.wait(sending).unwrap_or_else(PoisonError::into_inner);
        }
        sending.over.is_none().then_some(Turn {
            outlet: self,
            sending,
        })
    }
}

/// A lane's right to send. The next lane has it when this is dropped.
struct Turn<'o, 'a> {
    outlet: &'o Outlet<'a>,
    sending: MutexGuard<'o, Sending<'a>>,
}

impl Turn<'_, '_> {
    fn send(&mut self, encoder: &mut RowEncoder, handle: &Handle) -> Result<(), Failure> {
        self.sending.client.send(encoder.gathered(), handle)?;
        encoder.clear();
        check_stop(handle)
    }
}

impl Drop for Turn<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.sending.over = Some(Ok(()));
        }
        self.sending.turn += 1;
        self.outlet.next.notify_all();
    }
}

struct Lane<'l, 'a> {
    source: &'l Mutex<Source<'a>>,
    outlet: &'l Outlet<'a>,
    encoder: RowEncoder,
    handle: &'l Handle,
}

impl<'l, 'a> Lane<'l, 'a> {
    fn new(
        source: &'l Mutex<Source<'a>>,
        outlet: &'l Outlet<'a>,
        encoder: RowEncoder,
        handle: &'l Handle,
    ) -> Self {
        Lane {
            source,
            outlet,
            encoder,
            handle,
        }
    }

    fn run(mut self) {
        // Whoever waits behind this lane must not wait for one that panicked.
        let outlet = self.outlet;
        let watch = EndsAll(outlet);
        while self.batch() {}
        std::mem::forget(watch);
    }

    /// Takes a batch, encodes and sends it; is there perhaps another?
    fn batch(&mut self) -> bool {
        // About as many as fill a buffer.
        let each = self.outlet.bytes_per_chunk.load(Ordering::Relaxed).max(1);
        let wanted = (FLUSH_AT / each).clamp(1, BATCH);
        let (batch, chunks) = {
            let mut source = lock(self.source);
            let batch = source.batches;
            source.batches += 1;
            (batch, source.take(wanted))
        };
        let mut turn = None;
        let done = chunks.map_err(Failure::from).and_then(|chunks| {
            let rows = chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
            for chunk in &chunks {
                if !self.encode(chunk, batch, &mut turn)? {
                    return Ok(None);
                }
            }
            Ok(Some(rows))
        });
        let Some(mut turn) = turn.or_else(|| self.outlet.turn(batch)) else {
            return false;
        };
        let over = match done {
            Ok(Some(0) | None) => Some(Ok(())),
            Ok(Some(rows)) => {
                turn.sending.rows += rows;
                turn.send(&mut self.encoder, self.handle).map_err(Err).err()
            }
            Err(failure) => {
                // The rows before it.
                let sent = turn.send(&mut self.encoder, self.handle);
                Some(Err(sent.err().unwrap_or(failure)))
            }
        };
        turn.sending.over = over;
        turn.sending.over.is_none()
    }

    /// Encodes a chunk. If it is large some of it is sent already, at the
    /// batch's turn, so that wide rows do not gather in memory. False: nobody
    /// wants it any more.
    fn encode<'t>(
        &mut self,
        chunk: &Chunk,
        batch: u64,
        turn: &mut Option<Turn<'t, 'a>>,
    ) -> Result<bool, Failure>
    where
        'l: 't,
    {
        let before = self.encoder.gathered().len();
        let mut sent = 0;
        let mut next = 0;
        while next < chunk.len() {
            let end = chunk.len().min(next + STEP);
            self.encoder.gather(chunk, next..end)?;
            next = end;
            if self.encoder.gathered().len() > 2 * FLUSH_AT {
                if turn.is_none() {
                    *turn = self.outlet.turn(batch);
                }
                let Some(turn) = turn else { return Ok(false) };
                sent += self.encoder.gathered().len();
                turn.send(&mut self.encoder, self.handle)?;
            }
        }
        let bytes = (sent + self.encoder.gathered().len()).saturating_sub(before);
        self.outlet.bytes_per_chunk.store(bytes, Ordering::Relaxed);
        Ok(true)
    }
}

/// Dropped by a panic, it lets all lanes end.
struct EndsAll<'o, 'a>(&'o Outlet<'a>);

impl Drop for EndsAll<'_, '_> {
    fn drop(&mut self) {
        lock(&self.0.sending).over.get_or_insert(Ok(()));
        self.0.next.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
