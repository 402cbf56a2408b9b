//! The limits: the engine in this process, with the encoder and without.

use std::path::Path;
use std::sync::Arc;

use duckgres::encode::{Format, RowEncoder, Settings};
use duckgres::engine::{Connection, Instance, Options};

use crate::client::{Counted, Result};

/// As much as the server gathers before it writes.
const FLUSH_AT: usize = 128 * 1024;

pub struct Engine {
    connection: Connection,
}

impl Engine {
    pub fn open(database: &Path, extensions: Option<&Path>) -> Result<Engine> {
        let options = Options {
            extension_directory: extensions.map(Path::to_owned),
            extensions: extensions.map(|_| "tpch".to_owned()).into_iter().collect(),
            ..Options::default()
        };
        let instance: Arc<Instance> = Instance::open(database, &options)?;
        Ok(Engine {
            connection: instance.connect()?,
        })
    }

    pub fn run(&self, sql: &str) -> Result<()> {
        Ok(self.connection.run(sql)?)
    }

    /// Something that runs this statement, planned once, again and again and
    /// encodes its result.
    pub fn again(&self, sql: &str) -> Result<Box<dyn FnMut() -> Result<()>>> {
        let prepared = self.connection.prepare(sql)?;
        let mut out = Vec::new();
        Ok(Box::new(move || {
            let mut rows = prepared.stream()?;
            let types: Vec<_> = rows
                .columns()
                .into_iter()
                .map(|column| column.data_type)
                .collect();
            let mut encoder = RowEncoder::new(&types, &[], &Settings::default())?;
            while let Some(chunk) = rows.next_chunk()? {
                encoder.encode(&chunk, 0..chunk.len(), &mut out)?;
            }
            out.clear();
            Ok(())
        }))
    }

    /// Reads a result and encodes it in this format; `None` encodes nothing.
    pub fn drain(&self, sql: &str, format: Option<Format>) -> Result<Counted> {
        let prepared = self.connection.prepare(sql)?;
        let mut rows = prepared.stream()?;
        let types: Vec<_> = rows
            .columns()
            .into_iter()
            .map(|column| column.data_type)
            .collect();
        let mut encoder = RowEncoder::new(&types, format.as_slice(), &Settings::default())?;
        let mut out = Vec::new();
        let mut counted = Counted::default();
        while let Some(chunk) = rows.next_chunk()? {
            counted.rows += chunk.len() as u64;
            if format.is_some() {
                encoder.encode(&chunk, 0..chunk.len(), &mut out)?;
            }
            if out.len() > FLUSH_AT {
                counted.bytes += out.len() as u64;
                out.clear();
            }
        }
        counted.bytes += out.len() as u64;
        Ok(counted)
    }
}
