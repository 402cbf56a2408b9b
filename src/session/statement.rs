//! A prepared statement: its text, what kind of work it is, and its plan.
//!
//! The plan is DuckDB's and is made anew when it may be out of date, so that a
//! statement can outlive schema changes, settings and, as it is only text and
//! types, the process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest;

use super::error::SessionError;
use crate::encode;
use crate::engine::{self, Column, Connection, Kind, LogicalType, Prepared};
use crate::handoff::FrozenStatement;
use crate::sql::copy::CopyStatement;
use crate::sql::lexer::tokens;
use crate::sql::{self, CommandTag, SessionStatement};

/// The scale of a numeric parameter until its value is known.
const NUMERIC_SCALE: u8 = 10;

/// What executing a statement means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing: the text is empty.
    Empty,
    /// The session does it itself.
    Session(SessionStatement),
    /// COPY from or to the client.
    Copy(CopyStatement),
    /// DuckDB does it.
    Engine,
}

/// A statement that was parsed.
#[derive(Debug)]
pub struct Statement {
    /// Its text, one statement without its semicolon.
    pub sql: String,
    /// What it is.
    pub action: Action,
    /// The parameter types that the client declared; 0 is undeclared.
    pub declared: Vec<u32>,
    /// The scale of parameters that are declared numeric and nothing more.
    numeric_scale: u8,
    /// It is described each time that it runs, so its row may be another each time.
    is_simple: bool,
    plan: Mutex<Slot>,
}

/// Where a statement's plan is.
#[derive(Debug)]
enum Slot {
    /// None was made, or nobody is to remember it.
    Empty,
    /// It was made in another process; the client may know its row, by its digest.
    Elsewhere([u8; 32]),
    Here(Plan),
}

/// DuckDB's side of a statement.
#[derive(Debug)]
pub struct Plan {
    /// Ready to run.
    pub prepared: Prepared,
    /// What it does.
    pub kind: Kind,
    /// To run it may change what the connection is for later statements.
    pub leaves_traces: bool,
    /// How its end is announced.
    pub tag: CommandTag,
    /// The rows that it will yield; empty for none.
    pub columns: Vec<Column>,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
    currency: Currency,
}

/// A parameter's type, for the client and for DuckDB.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// What ParameterDescription says.
    pub oid: u32,
    /// What DuckDB wants.
    pub target: LogicalType,
    /// A numeric whose scale nothing but its value decides.
    pub free_scale: bool,
}

/// What a plan depends on besides its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Currency {
    /// [`engine::Instance::generation`].
    pub catalog: u64,
    /// [`super::settings::Settings::epoch`].
    pub settings: u64,
}

impl Currency {
    /// In place of a catalog's generation: never current again.
    pub const NEVER: u64 = u64::MAX;
}

impl Statement {
    /// Recognises the statement at `sql`.
    pub fn new(sql: &str, declared: Vec<u32>) -> Statement {
        let action = match sql::classify(sql) {
            Some(statement) => Action::Session(statement),
            None if tokens(sql).next().is_none() => Action::Empty,
            None => sql::copy::parse(sql).map_or(Action::Engine, Action::Copy),
        };
        Statement {
            sql: sql.to_owned(),
            action,
            declared,
            numeric_scale: NUMERIC_SCALE,
            is_simple: false,
            plan: Mutex::new(Slot::Empty),
        }
    }

    /// The same for one of the simple query protocol.
    fn simple(sql: &str) -> Statement {
        Statement {
            is_simple: true,
            ..Statement::new(sql, Vec::new())
        }
    }

    /// The same statement for numeric parameters of another scale. DuckDB's
    /// decimals have their scale in their type, PostgreSQL's in the value.
    pub fn with_numeric_scale(&self, scale: u8) -> Statement {
        let (action, declared) = (self.action.clone(), self.declared.clone());
        Statement {
            sql: self.sql.clone(),
            action,
            declared,
            numeric_scale: scale,
            is_simple: self.is_simple,
            plan: Mutex::new(Slot::Empty),
        }
    }

    /// The scale that numeric parameters have in it.
    pub fn numeric_scale(&self) -> u8 {
        self.numeric_scale
    }

    /// Its plan, made now if there is none that is current.
    pub fn plan(
        &self,
        connection: &Connection,
        currency: Currency,
        policy: &super::Policy,
    ) -> Result<CurrentPlan<'_>, SessionError> {
        let mut slot = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(&*slot, Slot::Here(plan) if plan.currency == currency) {
            let before = std::mem::replace(&mut *slot, Slot::Empty);
            let plan = Plan::make(connection, self, currency, policy)?;
            let fits = match &before {
                _ if self.is_simple => true,
                Slot::Empty => true,
                Slot::Elsewhere(digest) => *digest == row_digest(&plan.columns),
                Slot::Here(before) => same_row(&before.columns, &plan.columns),
            };
            if !fits {
                return Err(SessionError::new(
                    "0A000",
                    "cached plan must not change result type",
                ));
            }
            *slot = Slot::Here(plan);
        }
        Ok(CurrentPlan(slot))
    }

    /// Lets the plan go, for example because the transaction in which it was
    /// made saw what others must not.
    pub fn forget_plan(&self) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Slot::Empty;
    }

    /// What is left of it when its process ends: all but the plan.
    pub fn freeze(&self, name: &str) -> FrozenStatement {
        let slot = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        FrozenStatement {
            name: name.to_owned(),
            sql: self.sql.clone(),
            declared: self.declared.clone(),
            numeric_scale: self.numeric_scale,
            row: match &*slot {
                Slot::Empty => None,
                Slot::Elsewhere(digest) => Some(*digest),
                Slot::Here(plan) => Some(row_digest(&plan.columns)),
            },
        }
    }

    /// The inverse of [`Statement::freeze`], but for the name.
    pub fn thaw(frozen: FrozenStatement) -> Statement {
        let mut statement = Statement::new(&frozen.sql, frozen.declared);
        statement.numeric_scale = frozen.numeric_scale;
        statement.plan = Mutex::new(frozen.row.map_or(Slot::Empty, Slot::Elsewhere));
        statement
    }
}

/// A plan that is up to date, held while it is used.
#[derive(Debug)]
pub struct CurrentPlan<'a>(MutexGuard<'a, Slot>);

impl std::ops::Deref for CurrentPlan<'_> {
    type Target = Plan;

    #[allow(
        clippy::panic,
        reason = "Statement::plan fills the slot before it makes this value"
    )]
    fn deref(&self) -> &Plan {
        match &*self.0 {
            Slot::Here(plan) => plan,
            Slot::Empty | Slot::Elsewhere(_) => panic!("a current plan is there"),
        }
    }
}

/// Do two row descriptions say the same, as far as a client decodes by them?
pub fn same_row(one: &[Column], other: &[Column]) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|(one, other)| one.data_type == other.data_type && one.name == other.name)
}

/// The same for descriptions in two processes, and two versions of DuckDB.
fn row_digest(columns: &[Column]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for Column { name, data_type } in columns {
        for text in [name, &encode::sql_name(data_type)] {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        }
    }
    let mut row = [0; 32];
    row.copy_from_slice(context.finish().as_ref());
    row
}

impl Plan {
    fn make(
        connection: &Connection,
        statement: &Statement,
        currency: Currency,
        policy: &super::Policy,
    ) -> Result<Plan, SessionError> {
        let Statement {
            sql,
            declared,
            numeric_scale,
            ..
        } = statement;
        policy.check(sql)?;
        let rewritten = sql::rewrite(sql);
        if rewritten.is_some() {
            connection.instance().make_catalogs()?;
        }
        let text = rewritten.as_deref().unwrap_or(sql);
        let mut prepared = connection.prepare(text).map_err(|mut error| {
            if rewritten.is_some() {
                // It points into a text that the client has not seen.
                error.position = None;
            }
            error
        })?;
        check_kind(&prepared, sql)?;
        let count = prepared.parameter_count();
        let deduced: Vec<LogicalType> = (0..count).map(|index| prepared.parameter_type(index)).collect();
        let casts: Vec<Option<LogicalType>> = deduced
            .iter()
            .enumerate()
            .map(|(index, deduced)| {
                cast_for(declared.get(index).copied().unwrap_or(0), deduced, *numeric_scale)
            })
            .collect();
        if casts.iter().any(Option::is_some) {
            let text = replace_parameters(text, |number, parameter| {
                let cast = casts.get(number)?.as_ref()?;
                Some(format!("CAST({parameter} AS {})", encode::sql_name(cast)))
            });
            prepared = connection.prepare(&text).map_err(|mut error| {
                error.position = None;
                error
            })?;
        }
        let parameters: Vec<Parameter> = (0..count)
            .map(|index| {
                let target = casts[index].clone().unwrap_or_else(|| deduced[index].clone());
                let oid = match declared.get(index).copied().unwrap_or(0) {
                    0 => encode::pg_type(&target).oid,
                    oid => oid,
                };
                let free_scale = declared.get(index) == Some(&encode::oid::NUMERIC)
                    && deduced[index] == LogicalType::Unknown;
                Parameter {
                    oid,
                    target,
                    free_scale,
                }
            })
            .collect();
        let tag = sql::command_tag(sql);
        let kind = prepared.kind();
        let columns = match kind {
            // DuckDB describes the count of changed rows as a column.
            Kind::Modify if !has_returning(sql) => Vec::new(),
            Kind::Define | Kind::Setting => Vec::new(),
            Kind::Other if !tag_yields_rows(sql) => Vec::new(),
            _ => match prepared.columns() {
                // A table function is bound only when its arguments are known,
                // and so are its columns. NULLs of the right types will do.
                columns
                    if columns
                        .iter()
                        .any(|column| column.data_type == LogicalType::Unknown) =>
                {
                    let nulls = replace_parameters(text, |number, _| {
                        let target = &parameters.get(number)?.target;
                        Some(format!("CAST(NULL AS {})", encode::sql_name(target)))
                    });
                    connection
                        .prepare(&nulls)
                        .map_or(columns, |described| described.columns())
                }
                columns => columns,
            },
        };
        let columns = named_as_in_postgresql(columns);
        Ok(Plan {
            prepared,
            kind,
            leaves_traces: !matches!(kind, Kind::Select | Kind::Modify) || sets_seed(sql),
            tag,
            columns,
            parameters,
            currency,
        })
    }
}

/// DuckDB names a column after the whole call that it is made by, PostgreSQL after
/// the function. Done here for what [`sql::rewrite()`] put into the text itself.
pub fn named_as_in_postgresql(mut columns: Vec<Column>) -> Vec<Column> {
    for column in &mut columns {
        if let Some(name) = sql::catalog::column_name(&column.name) {
            column.name = name.to_owned();
        }
    }
    columns
}

/// The second look at what a statement is: this one is DuckDB's own.
fn check_kind(prepared: &Prepared, sql: &str) -> Result<(), SessionError> {
    let mut words = tokens(sql).map(|token| token.text(sql).to_ascii_uppercase());
    let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match prepared.kind() {
        Kind::Forbidden => Err(SessionError::new("42501", format!("{first} is not permitted"))),
        // USE and the reading pragmas pass, and so do variables of the session.
        Kind::Setting if (first == "SET" || first == "RESET") && second != "VARIABLE" => {
            Err(SessionError::new(
                "42501",
                "permission denied to set a parameter of the whole instance",
            ))
        }
        _ => Ok(()),
    }
}

/// The type that a parameter is cast to in the statement's text: the declared
/// one where DuckDB deduced another, and text where nobody said anything.
fn cast_for(declared: u32, deduced: &LogicalType, numeric_scale: u8) -> Option<LogicalType> {
    if declared == encode::oid::NUMERIC && *deduced == LogicalType::Unknown {
        return Some(LogicalType::Decimal {
            width: 38,
            scale: numeric_scale,
        });
    }
    // One PostgreSQL type may stand for several of DuckDB's.
    if encode::pg_type(deduced).oid == declared && *deduced != LogicalType::Unknown {
        return None;
    }
    let wanted = encode::type_for_oid(declared);
    match wanted {
        // Drivers declare text for everything; what DuckDB deduced is better.
        Some(LogicalType::Varchar) | None => {
            (*deduced == LogicalType::Unknown).then_some(LogicalType::Varchar)
        }
        Some(wanted) => (wanted != *deduced).then_some(wanted),
    }
}

/// `sql` with other text for its parameters: `replace` is told a parameter's
/// number, counted from 0, and its text.
fn replace_parameters(sql: &str, replace: impl Fn(usize, &str) -> Option<String>) -> String {
    let mut text = String::with_capacity(sql.len() + 32);
    let mut copied = 0;
    for token in tokens(sql) {
        let number = token.parameter(sql).and_then(|number| number.checked_sub(1));
        if let Some(other) = number.and_then(|number| replace(number, token.text(sql))) {
            text.push_str(&sql[copied..token.start]);
            text.push_str(&other);
            copied = token.end;
        }
    }
    text.push_str(&sql[copied..]);
    text
}

/// `setseed` is a function, which a SELECT may call.
fn sets_seed(sql: &str) -> bool {
    let word = b"setseed";
    sql.as_bytes()
        .windows(word.len())
        .any(|window| window.eq_ignore_ascii_case(word))
}

fn has_returning(sql: &str) -> bool {
    tokens(sql).any(|token| token.is(sql, "RETURNING"))
}

/// CALL and EXECUTE may yield rows, COPY of files and CHECKPOINT do not.
fn tag_yields_rows(sql: &str) -> bool {
    let first = tokens(sql).next();
    first.is_some_and(|token| {
        ["CALL", "EXECUTE", "PRAGMA"]
            .iter()
            .any(|word| token.is(sql, word))
    })
}

/// Plans of simple queries by their text, so that the same statement sent again
/// is not planned again. Safe because a plan whose [`Currency`] has passed is
/// made anew.
#[derive(Debug, Default)]
pub struct PlanCache {
    entries: Vec<Arc<Statement>>,
}

impl PlanCache {
    const ENTRIES: usize = 32;
    const LONGEST: usize = 4096;

    /// The statement with this text: a known one, or a new one.
    pub fn get(&mut self, sql: &str) -> Arc<Statement> {
        if let Some(at) = self.entries.iter().position(|entry| entry.sql == sql) {
            // Most recently used first.
            self.entries[..=at].rotate_right(1);
            return self.entries[0].clone();
        }
        Arc::new(Statement::simple(sql))
    }

    /// Keeps a simple statement that ran, if it is of a kind that comes again.
    pub fn keep(&mut self, statement: &Arc<Statement>, kind: engine::Kind) {
        let known = self
            .entries
            .first()
            .is_some_and(|first| Arc::ptr_eq(first, statement));
        if known
            || !statement.is_simple
            || statement.sql.len() > Self::LONGEST
            || !matches!(kind, Kind::Select | Kind::Modify)
        {
            return;
        }
        self.entries.truncate(Self::ENTRIES - 1);
        self.entries.insert(0, statement.clone());
    }

    /// Forgets all plans but so many that were used last.
    pub fn truncate(&mut self, count: usize) {
        self.entries.truncate(count);
    }

    /// Forgets all plans.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}
