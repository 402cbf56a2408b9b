//! What SQL can see of the server around the engine, and do to it.
//!
//! The engine knows nothing of sessions. Whoever opens an [`Instance`] may give
//! it a [`Host`], whose [`View`]s are then tables that exist in every database,
//! under their name and as `pg_catalog.<name>`, and whose sessions can be
//! stopped by `pg_cancel_backend` and `pg_terminate_backend`. What a session may
//! see is the host's decision: each question comes with the number by which the
//! asking connection was introduced ([`Connection::introduce`]).
//!
//! Views are table functions found by a replacement scan, so nothing is written
//! to the database, and a table of the user's own with that name comes first.
//!
//! [`Instance`]: super::Instance
//! [`Connection::introduce`]: super::Connection::introduce

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use duckdb::ffi;

use super::Error;
use super::instance::c_string;

/// The server around an instance. Its methods are called on the engine's
/// threads, within statements: they must not run statements themselves.
pub trait Host: fmt::Debug + Send + Sync {
    /// The tables that it answers for.
    fn views(&self) -> &'static [View];

    /// The rows of one of them for the session `asking`, with a cell of the right
    /// type, or [`Cell::Null`], for each column.
    fn rows(&self, view: &'static View, asking: i32) -> Vec<Vec<Cell>>;

    /// Does this to the session `target`; false if there is no such session.
    ///
    /// # Errors
    /// The text of an error, if `asking` may not.
    fn signal(&self, signal: Signal, target: i32, asking: i32) -> Result<bool, String>;
}

/// A table that the host answers for.
#[derive(Debug)]
pub struct View {
    /// Its name.
    pub name: &'static str,
    /// Its columns.
    pub columns: &'static [(&'static str, CellType)],
}

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellType {
    /// INTEGER
    Integer,
    /// BIGINT
    BigInt,
    /// VARCHAR
    Text,
    /// TIMESTAMP WITH TIME ZONE
    Time,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// Unknown.
    Null,
    /// Of [`CellType::Integer`] or [`CellType::BigInt`].
    Number(i64),
    /// Of [`CellType::Text`].
    Text(String),
    /// Of [`CellType::Time`].
    Time(SystemTime),
}

/// What one session does to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Stops its statement.
    Cancel,
    /// Ends it.
    Terminate,
}

/// By which numbers the host knows an instance's connections.
#[derive(Debug, Default)]
pub(super) struct Introductions(Mutex<HashMap<u64, i32>>);

impl Introductions {
    pub(super) fn insert(&self, connection: u64, number: i32) {
        self.lock().insert(connection, number);
    }

    pub(super) fn remove(&self, connection: u64) {
        self.lock().remove(&connection);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, i32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What every callback has at hand.
struct Context {
    host: Arc<dyn Host>,
    introductions: Arc<Introductions>,
    role: Role,
}

#[derive(Clone, Copy)]
enum Role {
    View(&'static View),
    OwnNumber,
    Signal(Signal),
}

impl Context {
    /// The number of a connection; strangers are told nothing.
    fn number(&self, connection: u64) -> Option<i32> {
        self.introductions.lock().get(&connection).copied()
    }
}

/// Makes a host's views and functions known to an instance.
///
/// # Safety
/// Database and connection are open, and the connection is of the database.
pub(super) unsafe fn register(
    database: ffi::duckdb_database,
    connection: ffi::duckdb_connection,
    host: &Arc<dyn Host>,
    introductions: &Arc<Introductions>,
) -> Result<(), Error> {
    let context = |role| {
        let context = Context {
            host: host.clone(),
            introductions: introductions.clone(),
            role,
        };
        Box::into_raw(Box::new(context)).cast::<c_void>()
    };
    for view in host.views() {
        // SAFETY: by the caller's promise; the context is a `Context` of a view.
        unsafe { register_view(connection, view, context(Role::View(view))) }?;
    }
    for (name, parameters, result, role) in [
        (
            "pg_backend_pid",
            0,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_INTEGER,
            Role::OwnNumber,
        ),
        (
            "pg_cancel_backend",
            1,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_BOOLEAN,
            Role::Signal(Signal::Cancel),
        ),
        (
            "pg_terminate_backend",
            1,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_BOOLEAN,
            Role::Signal(Signal::Terminate),
        ),
    ] {
        // SAFETY: by the caller's promise; the context's role is that of the function.
        unsafe { register_function(connection, name, parameters, result, context(role)) }?;
    }
    let views = Box::into_raw(Box::new(host.views()));
    // SAFETY: the database is open; the views are freed by `drop_views` only.
    unsafe { ffi::duckdb_add_replacement_scan(database, Some(replace), views.cast(), Some(drop_views)) };
    Ok(())
}

/// # Safety
/// The connection is open; `context` came from a box of a [`Context`] whose role
/// is this view.
unsafe fn register_view(
    connection: ffi::duckdb_connection,
    view: &View,
    context: *mut c_void,
) -> Result<(), Error> {
    // SAFETY: takes nothing; destroyed below.
    let mut function = unsafe { ffi::duckdb_create_table_function() };
    // SAFETY: the function is alive and now owns the context.
    unsafe { ffi::duckdb_table_function_set_extra_info(function, context, Some(drop_context)) };
    let name = c_string(view.name);
    // SAFETY: function, name and connection are alive; DuckDB copies the name, and
    // the callbacks take what `bind_view` and `begin_view` make.
    let state = unsafe {
        if let Ok(name) = &name {
            ffi::duckdb_table_function_set_name(function, name.as_ptr());
        }
        ffi::duckdb_table_function_set_bind(function, Some(bind_view));
        ffi::duckdb_table_function_set_init(function, Some(begin_view));
        ffi::duckdb_table_function_set_function(function, Some(fill_view));
        let state = ffi::duckdb_register_table_function(connection, function);
        ffi::duckdb_destroy_table_function(&mut function);
        state
    };
    registered(state, view.name)
}

/// # Safety
/// The connection is open; `context` came from a box of a [`Context`] whose role
/// is this function.
unsafe fn register_function(
    connection: ffi::duckdb_connection,
    name: &str,
    parameters: usize,
    result: ffi::duckdb_type,
    context: *mut c_void,
) -> Result<(), Error> {
    // SAFETY: takes nothing; destroyed below.
    let mut function = unsafe { ffi::duckdb_create_scalar_function() };
    // SAFETY: the function is alive and now owns the context.
    unsafe { ffi::duckdb_scalar_function_set_extra_info(function, context, Some(drop_context)) };
    let c_name = c_string(name)?;
    // SAFETY: all are alive; DuckDB copies the name and the types, which are
    // primitive ones. What the callbacks take is what they declare.
    let state = unsafe {
        ffi::duckdb_scalar_function_set_name(function, c_name.as_ptr());
        let mut integer = ffi::duckdb_create_logical_type(ffi::DUCKDB_TYPE_DUCKDB_TYPE_INTEGER);
        for _ in 0..parameters {
            ffi::duckdb_scalar_function_add_parameter(function, integer);
        }
        ffi::duckdb_destroy_logical_type(&mut integer);
        let mut result = ffi::duckdb_create_logical_type(result);
        ffi::duckdb_scalar_function_set_return_type(function, result);
        ffi::duckdb_destroy_logical_type(&mut result);
        // What it does is to be done once for each row, and never in advance.
        ffi::duckdb_scalar_function_set_volatile(function);
        ffi::duckdb_scalar_function_set_init(function, Some(begin_function));
        ffi::duckdb_scalar_function_set_function(function, Some(call_function));
        let state = ffi::duckdb_register_scalar_function(connection, function);
        ffi::duckdb_destroy_scalar_function(&mut function);
        state
    };
    registered(state, name)
}

fn registered(state: ffi::duckdb_state, name: &str) -> Result<(), Error> {
    match state {
        ffi::DuckDBSuccess => Ok(()),
        _ => Err(Error::new("Catalog", format!("DuckDB does not take {name}"))),
    }
}

/// Runs a callback's work; a panic must not go on into C++.
fn guard(set_error: impl FnOnce(*const c_char), work: impl FnOnce() -> Result<(), String>) {
    let message = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return,
        Ok(Err(message)) => CString::new(message).unwrap_or_default(),
        Err(_) => c"the server could not answer".to_owned(),
    };
    set_error(message.as_ptr());
}

/// The id of the connection behind a client context, which is destroyed.
///
/// # Safety
/// `context` is null or a client context that is ours.
pub(super) unsafe fn connection_id(mut context: ffi::duckdb_client_context) -> u64 {
    if context.is_null() {
        return u64::MAX;
    }
    // SAFETY: not null, and alive until it is destroyed here.
    unsafe {
        let id = ffi::duckdb_client_context_get_connection_id(context);
        ffi::duckdb_destroy_client_context(&mut context);
        id
    }
}

unsafe extern "C" fn drop_context(context: *mut c_void) {
    // SAFETY: called once by DuckDB with what `register` gave it.
    drop(unsafe { Box::from_raw(context.cast::<Context>()) });
}

unsafe extern "C" fn drop_views(views: *mut c_void) {
    // SAFETY: called once by DuckDB with what `register` gave it.
    drop(unsafe { Box::from_raw(views.cast::<&'static [View]>()) });
}

unsafe extern "C" fn drop_id(id: *mut c_void) {
    // SAFETY: called once by DuckDB with what a bind or init callback gave it.
    drop(unsafe { Box::from_raw(id.cast::<u64>()) });
}

unsafe extern "C" fn drop_scan(scan: *mut c_void) {
    // SAFETY: called once by DuckDB with what `begin_view` gave it.
    drop(unsafe { Box::from_raw(scan.cast::<Scan>()) });
}

/// A name that is no table: is it a view's?
unsafe extern "C" fn replace(
    info: ffi::duckdb_replacement_scan_info,
    name: *const c_char,
    views: *mut c_void,
) {
    // SAFETY: DuckDB passes a C string, and the views that `register` gave it.
    let (name, views) = unsafe { (CStr::from_ptr(name), &*views.cast::<&'static [View]>()) };
    let Ok(name) = name.to_str() else { return };
    let name = match name.split_once('.') {
        Some((schema, name)) if schema.eq_ignore_ascii_case("pg_catalog") => name,
        Some(_) => return,
        None => name,
    };
    if let Some(view) = views.iter().find(|view| view.name.eq_ignore_ascii_case(name))
        && let Ok(name) = c_string(view.name)
    {
        // SAFETY: the info is alive for this call; DuckDB copies the name.
        unsafe { ffi::duckdb_replacement_scan_set_function_name(info, name.as_ptr()) };
    }
}

unsafe extern "C" fn bind_view(info: ffi::duckdb_bind_info) {
    // SAFETY: the info is alive for this call, and its extra info is the context
    // that `register_view` was given.
    let context = unsafe { &*ffi::duckdb_bind_get_extra_info(info).cast::<Context>() };
    let mut client = ptr::null_mut();
    // SAFETY: as above; client is an out parameter, and ours.
    let id = unsafe {
        ffi::duckdb_table_function_get_client_context(info, &mut client);
        connection_id(client)
    };
    if let Role::View(view) = context.role {
        for (name, cell) in view.columns {
            let Ok(name) = c_string(name) else { continue };
            // SAFETY: name and type are alive; DuckDB copies both.
            unsafe {
                let mut kind = ffi::duckdb_create_logical_type(cell.raw());
                ffi::duckdb_bind_add_result_column(info, name.as_ptr(), kind);
                ffi::duckdb_destroy_logical_type(&mut kind);
            }
        }
    }
    let id = Box::into_raw(Box::new(id));
    // SAFETY: the info is alive; `drop_id` frees what was boxed above.
    unsafe { ffi::duckdb_bind_set_bind_data(info, id.cast(), Some(drop_id)) };
}

impl CellType {
    fn raw(self) -> ffi::duckdb_type {
        match self {
            CellType::Integer => ffi::DUCKDB_TYPE_DUCKDB_TYPE_INTEGER,
            CellType::BigInt => ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIGINT,
            CellType::Text => ffi::DUCKDB_TYPE_DUCKDB_TYPE_VARCHAR,
            CellType::Time => ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_TZ,
        }
    }
}

/// One reading of a view: its rows as they were at the beginning.
struct Scan {
    view: &'static View,
    rows: std::vec::IntoIter<Vec<Cell>>,
}

unsafe extern "C" fn begin_view(info: ffi::duckdb_init_info) {
    // SAFETY: the info is alive for this call; its extra info is the context that
    // `register_view` was given, its bind data the id that `bind_view` boxed.
    let (context, id) = unsafe {
        (
            &*ffi::duckdb_init_get_extra_info(info).cast::<Context>(),
            *ffi::duckdb_init_get_bind_data(info).cast::<u64>(),
        )
    };
    // SAFETY: the info is alive, and so is the message.
    let set_error = |message| unsafe { ffi::duckdb_init_set_error(info, message) };
    guard(set_error, || {
        let Role::View(view) = context.role else {
            return Err("this is no view".to_owned());
        };
        let rows = context.number(id).map(|asking| context.host.rows(view, asking));
        let rows = rows.unwrap_or_default().into_iter();
        let scan = Box::into_raw(Box::new(Scan { view, rows }));
        // SAFETY: the info is alive; `drop_scan` frees what was boxed above. One
        // thread alone reads it.
        unsafe {
            ffi::duckdb_init_set_init_data(info, scan.cast(), Some(drop_scan));
            ffi::duckdb_init_set_max_threads(info, 1);
        }
        Ok(())
    });
}

unsafe extern "C" fn fill_view(info: ffi::duckdb_function_info, output: ffi::duckdb_data_chunk) {
    // SAFETY: the init data is the scan of `begin_view`; as only one thread reads
    // it, nobody else has a reference to it.
    let scan = unsafe { &mut *ffi::duckdb_function_get_init_data(info).cast::<Scan>() };
    // SAFETY: takes nothing.
    let capacity = unsafe { ffi::duckdb_vector_size() } as usize;
    let mut count = 0;
    for row in scan.rows.by_ref().take(capacity) {
        for (index, ((_, kind), cell)) in scan.view.columns.iter().zip(&row).enumerate() {
            // SAFETY: the chunk has a vector of this type for each column, with room
            // for `capacity` rows, of which this is one.
            unsafe {
                let vector = ffi::duckdb_data_chunk_get_vector(output, index as ffi::idx_t);
                write(vector, count, *kind, cell);
            }
        }
        count += 1;
    }
    // SAFETY: the chunk is alive; the count is at most its capacity.
    unsafe { ffi::duckdb_data_chunk_set_size(output, count as ffi::idx_t) };
}

/// # Safety
/// The vector is alive, of this type, and has room for row `row`.
unsafe fn write(vector: ffi::duckdb_vector, row: usize, kind: CellType, cell: &Cell) {
    // SAFETY: a vector of fixed-width values is an array of them.
    unsafe {
        let data = ffi::duckdb_vector_get_data(vector);
        match (kind, cell) {
            (CellType::Integer, Cell::Number(number)) => {
                data.cast::<i32>()
                    .add(row)
                    .write(i32::try_from(*number).unwrap_or(i32::MAX));
            }
            (CellType::BigInt, Cell::Number(number)) => data.cast::<i64>().add(row).write(*number),
            (CellType::Time, Cell::Time(time)) => {
                let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
                let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
                data.cast::<i64>().add(row).write(micros);
            }
            (CellType::Text, Cell::Text(text)) => ffi::duckdb_vector_assign_string_element_len(
                vector,
                row as ffi::idx_t,
                text.as_ptr().cast(),
                text.len() as ffi::idx_t,
            ),
            _ => {
                ffi::duckdb_vector_ensure_validity_writable(vector);
                let validity = ffi::duckdb_vector_get_validity(vector);
                ffi::duckdb_validity_set_row_invalid(validity, row as ffi::idx_t);
            }
        }
    }
}

unsafe extern "C" fn begin_function(info: ffi::duckdb_init_info) {
    let mut client = ptr::null_mut();
    // SAFETY: the info is alive for this call; client is an out parameter, and
    // ours; `drop_id` frees what is boxed.
    unsafe {
        ffi::duckdb_scalar_function_init_get_client_context(info, &mut client);
        let id = Box::into_raw(Box::new(connection_id(client)));
        ffi::duckdb_scalar_function_init_set_state(info, id.cast(), Some(drop_id));
    }
}

unsafe extern "C" fn call_function(
    info: ffi::duckdb_function_info,
    input: ffi::duckdb_data_chunk,
    output: ffi::duckdb_vector,
) {
    // SAFETY: the info is alive for this call; its extra info is the context that
    // `register_function` was given, its state the id that `begin_function` boxed.
    let (context, id) = unsafe {
        (
            &*ffi::duckdb_scalar_function_get_extra_info(info).cast::<Context>(),
            *ffi::duckdb_scalar_function_get_state(info).cast::<u64>(),
        )
    };
    // SAFETY: the chunk is alive.
    let rows = unsafe { ffi::duckdb_data_chunk_get_size(input) } as usize;
    // SAFETY: the info is alive, and so is the message.
    let set_error = |message| unsafe { ffi::duckdb_scalar_function_set_error(info, message) };
    guard(set_error, || {
        let asking = context.number(id).ok_or("this connection has no session")?;
        for row in 0..rows {
            match context.role {
                // SAFETY: the result is a vector of integers with room for each row.
                Role::OwnNumber => unsafe {
                    ffi::duckdb_vector_get_data(output)
                        .cast::<i32>()
                        .add(row)
                        .write(asking);
                },
                Role::Signal(signal) => {
                    // SAFETY: the first argument is a flat vector of as many integers.
                    let (target, given) = unsafe {
                        let vector = ffi::duckdb_data_chunk_get_vector(input, 0);
                        let validity = ffi::duckdb_vector_get_validity(vector);
                        let given = validity.is_null()
                            || ffi::duckdb_validity_row_is_valid(validity, row as ffi::idx_t);
                        let data = ffi::duckdb_vector_get_data(vector).cast::<i32>();
                        (if given { data.add(row).read() } else { 0 }, given)
                    };
                    // What becomes of NULL is DuckDB's business.
                    let done = given && context.host.signal(signal, target, asking)?;
                    // SAFETY: the result is a vector of booleans with room for each row.
                    unsafe {
                        ffi::duckdb_vector_get_data(output)
                            .cast::<bool>()
                            .add(row)
                            .write(done)
                    };
                }
                Role::View(_) => return Err("this is no function".to_owned()),
            }
        }
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::super::{Connection, Instance, Options};
    use super::*;

    #[derive(Debug, Default)]
    struct Known(Mutex<Vec<(Signal, i32, i32)>>);

    static VIEWS: [View; 1] = [View {
        name: "pg_stat_test",
        columns: &[
            ("asking", CellType::Integer),
            ("number", CellType::BigInt),
            ("text", CellType::Text),
            ("time", CellType::Time),
        ],
    }];

    impl Host for Known {
        fn views(&self) -> &'static [View] {
            &VIEWS
        }

        fn rows(&self, _: &'static View, asking: i32) -> Vec<Vec<Cell>> {
            let row = |number| {
                vec![
                    Cell::Number(asking.into()),
                    Cell::Number(number),
                    Cell::Text(format!("row {number}")),
                    if number == 0 {
                        Cell::Null
                    } else {
                        Cell::Time(UNIX_EPOCH)
                    },
                ]
            };
            (0..5000).map(row).collect()
        }

        fn signal(&self, signal: Signal, target: i32, asking: i32) -> Result<bool, String> {
            if target == 13 {
                return Err("permission denied".into());
            }
            self.0.lock().unwrap().push((signal, target, asking));
            Ok(target < 4)
        }
    }

    fn open() -> (Arc<Known>, Arc<Instance>) {
        let host = Arc::new(Known::default());
        let options = Options {
            host: Some(host.clone()),
            ..Options::default()
        };
        (host, Instance::in_memory(&options).unwrap())
    }

    fn number(connection: &Connection, sql: &str) -> i64 {
        let mut rows = connection.prepare(sql).unwrap().execute().unwrap();
        let chunk = rows.next_chunk().unwrap().unwrap();
        chunk.column(0).values::<i64>().unwrap()[0]
    }

    #[test]
    fn a_view_is_there_in_both_places_and_knows_who_asks() {
        let (_, instance) = open();
        let (one, other) = (instance.connect().unwrap(), instance.connect().unwrap());
        let stranger = instance.connect().unwrap();
        one.introduce(1);
        other.introduce(2);
        for name in ["pg_stat_test", "pg_catalog.pg_stat_test", "PG_STAT_TEST"] {
            let asking = format!("select max(asking)::bigint from {name}");
            assert_eq!(number(&one, &asking), 1);
            assert_eq!(number(&other, &asking), 2);
            assert_eq!(number(&stranger, &format!("select count(*) from {name}")), 0);
        }
        let all = "select count(*) from pg_stat_test t where text = 'row ' || number and (time is null) = (t.number = 0)";
        assert_eq!(number(&one, all), 5000);
        assert_eq!(
            number(&one, "select sum(pg_stat_test.number)::bigint from pg_stat_test"),
            12_497_500
        );
    }

    #[test]
    fn a_connection_that_is_closed_is_forgotten() {
        let (_, instance) = open();
        let connection = instance.connect().unwrap();
        connection.introduce(1);
        assert_eq!(number(&connection, "select pg_backend_pid()::bigint"), 1);
        drop(connection);
        assert!(instance.introductions().lock().is_empty());
    }

    #[test]
    fn a_signal_is_sent_once_for_each_row_and_never_in_advance() {
        let (host, instance) = open();
        let connection = instance.connect().unwrap();
        connection.introduce(7);
        let prepared = connection.prepare("select pg_terminate_backend(3)").unwrap();
        assert!(host.0.lock().unwrap().is_empty());
        prepared.execute().unwrap().next_chunk().unwrap();
        let done = "select count(*) from (select pg_cancel_backend(i::int) as done from range(1, 6) t(i)) where done";
        assert_eq!(number(&connection, done), 3);
        let mut expected = vec![(Signal::Terminate, 3, 7)];
        expected.extend((1..6).map(|target| (Signal::Cancel, target, 7)));
        assert_eq!(*host.0.lock().unwrap(), expected);
        connection.run("select pg_cancel_backend(null)").unwrap();
        assert_eq!(host.0.lock().unwrap().len(), 6);
    }

    #[test]
    fn a_signal_that_is_denied_is_an_error() {
        let (_, instance) = open();
        let connection = instance.connect().unwrap();
        connection.introduce(7);
        let error = connection.run("select pg_terminate_backend(13)").unwrap_err();
        assert_eq!(super::super::sqlstate(&error), "42501");
    }
}
