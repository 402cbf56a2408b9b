//! Portals: a bound statement and how far its rows have been sent.
//!
//! A result is streamed, and DuckDB streams one result per connection. A portal
//! that is suspended while another statement wants the connection is therefore
//! [spooled](Cursor::spool): its remaining rows go, already encoded, into a
//! buffer that becomes an unlinked file when it is large.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use super::client::{Client, FLUSH_AT};
use super::error::{Failure, Gone, SessionError};
use super::handle::{Handle, Stop};
use super::lanes::{self, LANES};
use super::statement::Statement;
use crate::encode::{EncodeError, Format, RowEncoder, Settings};
use crate::engine::{Chunk, Column, LogicalType, Rows, Value};

/// A statement with its parameters.
pub struct Portal {
    /// What it runs.
    pub statement: Arc<Statement>,
    /// With these values.
    pub parameters: Vec<Value>,
    /// In these formats, as Bind gave them.
    pub formats: Vec<Format>,
    /// How far it is.
    pub progress: Progress,
    /// Its rows' description, kept only for cursors: each FETCH repeats it.
    pub columns: Option<Box<[Column]>>,
}

/// How far a portal is.
pub enum Progress {
    /// Not run yet.
    Ready,
    /// Some of its rows are sent.
    Suspended(Box<Cursor>),
    /// The rest of its rows lie in a spool.
    Spooled(Spool),
    /// All its rows are sent; asked again, there are none.
    Exhausted,
    /// It ran and had no rows to begin with: it cannot run again.
    Done,
}

/// What a stretch of sending came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// So many rows were sent.
    pub rows: u64,
    /// There are no more.
    pub ended: bool,
}

/// A result on its way to the client.
pub struct Cursor {
    // Before `rows`, which keeps the instance alive that its memory belongs to.
    chunk: Option<Chunk>,
    next: usize,
    encoder: RowEncoder,
    types: Vec<LogicalType>,
    rows: Rows,
}

impl Cursor {
    /// At the first row.
    pub fn new(rows: Rows, types: Vec<LogicalType>, encoder: RowEncoder) -> Cursor {
        Cursor {
            rows,
            types,
            encoder,
            chunk: None,
            next: 0,
        }
    }

    /// Goes on in other formats.
    pub fn set_formats(&mut self, formats: &[Format], settings: &Settings) -> Result<(), EncodeError> {
        self.encoder = RowEncoder::new(&self.types, formats, settings)?;
        Ok(())
    }

    /// Sends up to `limit` rows. Having sent exactly the limit, it does not look
    /// whether there are more, just as PostgreSQL.
    pub fn send(&mut self, limit: u64, client: &mut Client, handle: &Handle) -> Result<Sent, Failure> {
        let sent = self.send_rows(limit, client, handle)?;
        client.traffic.rows += sent.rows;
        Ok(sent)
    }

    fn send_rows(&mut self, limit: u64, client: &mut Client, handle: &Handle) -> Result<Sent, Failure> {
        let mut sent = 0;
        let mut bytes = 0;
        while sent < limit {
            if limit == u64::MAX && bytes > LARGE && self.is_at_a_chunk() && *LANES > 1 {
                sent += self.drain(client, handle)?;
                return Ok(Sent {
                    rows: sent,
                    ended: true,
                });
            }
            let before = client.output.len();
            let most = usize::try_from(limit - sent).unwrap_or(usize::MAX);
            // A step at a time, so that wide rows do not gather in memory.
            let count = self.encode(most.min(STEP), &mut client.output)?;
            if count == 0 {
                return Ok(Sent {
                    rows: sent,
                    ended: true,
                });
            }
            sent += count as u64;
            bytes += client.output.len() - before;
            client.relieve(handle)?;
            check_stop(handle)?;
        }
        self.rows.rest();
        Ok(Sent {
            rows: sent,
            ended: false,
        })
    }

    fn is_at_a_chunk(&self) -> bool {
        self.chunk.as_ref().is_none_or(|chunk| self.next == chunk.len())
    }

    /// Sends the rest on several threads.
    fn drain(&mut self, client: &mut Client, handle: &Handle) -> Result<u64, Failure> {
        self.chunk = None;
        let encoders = (0..*LANES).map(|_| self.encoder.another()).collect();
        lanes::drain(&mut self.rows, encoders, client, handle)
    }

    /// Encodes up to `most` rows of one chunk; 0 at the end.
    fn encode(&mut self, most: usize, out: &mut Vec<u8>) -> Result<usize, Failure> {
        if self.is_at_a_chunk() {
            self.chunk = None;
            self.chunk = self.rows.next_chunk()?;
            self.next = 0;
        }
        let Some(chunk) = &self.chunk else { return Ok(0) };
        let end = chunk.len().min(self.next.saturating_add(most));
        let before = out.len();
        if let Err(error) = self.encoder.encode(chunk, self.next..end, out) {
            // Half a message must not be sent.
            out.truncate(before);
            return Err(error.into());
        }
        let count = end - self.next;
        self.next = end;
        Ok(count)
    }

    /// Takes all remaining rows out of the engine.
    pub fn spool(&mut self, directory: &Path, handle: &Handle) -> Result<Spool, Failure> {
        let mut spool = Spool::new(directory);
        let mut batch = Vec::new();
        loop {
            let count = self.encode(STEP, &mut batch)?;
            if count == 0 || batch.len() > FLUSH_AT {
                spool.write(&batch).map_err(spool_failed)?;
                batch.clear();
            }
            spool.rows += count as u64;
            if count == 0 {
                spool.file.seek(SeekFrom::Start(0)).map_err(spool_failed)?;
                return Ok(spool);
            }
            check_stop(handle)?;
        }
    }
}

/// Rows that are encoded between two looks at the output's size.
pub const STEP: usize = 512;

/// A result that is larger is worth more than one thread.
const LARGE: usize = 2 * FLUSH_AT;

/// Is the running statement to stop?
pub fn check_stop(handle: &Handle) -> Result<(), Failure> {
    match handle.stopped() {
        None => Ok(()),
        Some(Stop::Cancel) => {
            Err(SessionError::new("57014", "canceling statement due to user request").into())
        }
        Some(Stop::Timeout) => Err(timed_out().into()),
        Some(Stop::ClientGone) => Err(Gone::Vanished.into()),
        Some(Stop::Shutdown) => Err(shutdown().into()),
    }
}

/// The statement took longer than it may.
pub fn timed_out() -> SessionError {
    SessionError::new("57014", "canceling statement due to statement timeout")
}

/// The server ends the session.
pub fn shutdown() -> SessionError {
    SessionError::fatal("57P01", "terminating connection due to administrator command")
}

fn spool_failed(error: io::Error) -> Failure {
    let sqlstate = if error.kind() == io::ErrorKind::StorageFull {
        "53100"
    } else {
        "58030"
    };
    SessionError::new(
        sqlstate,
        format!("could not store the rest of a portal's rows: {error}"),
    )
    .into()
}

/// Encoded rows, waiting.
pub struct Spool {
    file: tempfile::SpooledTempFile,
    rows: u64,
}

impl Spool {
    const IN_MEMORY: usize = 1 << 20;

    fn new(directory: &Path) -> Spool {
        Spool {
            file: tempfile::spooled_tempfile_in(Self::IN_MEMORY, directory),
            rows: 0,
        }
    }

    fn write(&mut self, encoded: &[u8]) -> io::Result<()> {
        self.file.write_all(encoded)
    }

    /// As [`Cursor::send`].
    pub fn send(&mut self, limit: u64, client: &mut Client, handle: &Handle) -> Result<Sent, Failure> {
        let mut sent = 0;
        while sent < limit && self.rows > 0 {
            self.copy_row(&mut client.output).map_err(spool_failed)?;
            self.rows -= 1;
            sent += 1;
            client.relieve(handle)?;
            if sent % STEP as u64 == 0 {
                check_stop(handle)?;
            }
        }
        client.traffic.rows += sent;
        Ok(Sent {
            rows: sent,
            ended: sent < limit,
        })
    }

    /// Moves one message from the file to the output.
    fn copy_row(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let mut header = [0; 5];
        self.file.read_exact(&mut header)?;
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize - 4;
        let start = out.len() + header.len();
        out.extend_from_slice(&header);
        out.resize(start + length, 0);
        self.file.read_exact(&mut out[start..])
    }
}
