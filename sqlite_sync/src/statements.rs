//! Prepared statements of one call. They live as long as the host does: none outlasts the SQL function that made it.

use crate::error::engine;
use rusqlite::types::{Null, ValueRef as SqlRef};
use rusqlite::{Connection, Statement};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use sync_shared::{Error, Kind, Result, Row, Value, ValueRef};

/// Statements by their text.
pub struct Statements<'c> {
    connection: &'c Connection,
    idle: HashMap<String, Statement<'c>>,
    /// The statements that run once per change: upserts by layout, and the relabelling under [`RELABEL`].
    hot: HashMap<i64, Statement<'c>>,
}

/// The place of the relabelling statement among the hot ones; layouts are positive.
pub const RELABEL: i64 = 0;

impl<'c> Statements<'c> {
    pub fn new(connection: &'c Connection) -> Self {
        Statements { connection, idle: HashMap::new(), hot: HashMap::new() }
    }

    /// A statement that runs once per change, found without its text.
    pub fn get(&mut self, place: i64, sql: &str) -> Result<&mut Statement<'c>> {
        match self.hot.entry(place) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(free) => Ok(free.insert(self.connection.prepare(sql).map_err(engine)?)),
        }
    }

    /// The tables may have other columns now.
    pub fn forget_hot(&mut self) {
        self.hot.clear();
    }

    /// Takes a statement out, preparing it if need be; give it back with [`Statements::put`].
    pub fn take(&mut self, sql: &str) -> Result<Statement<'c>> {
        match self.idle.remove(sql) {
            Some(statement) => Ok(statement),
            None => self.connection.prepare(sql).map_err(engine),
        }
    }

    pub fn put(&mut self, sql: &str, statement: Statement<'c>) {
        self.idle.insert(sql.to_owned(), statement);
    }

    /// Runs a statement; returns the rows changed.
    pub fn execute(&mut self, sql: &str, parameters: &[ValueRef<'_>]) -> Result<u64> {
        if let Some(statement) = self.idle.get_mut(sql) {
            return run(statement, parameters);
        }
        let mut statement = self.take(sql)?;
        let result = run(&mut statement, parameters);
        self.put(sql, statement);
        result
    }

    /// Runs a query until `visit` returns false.
    pub fn query(
        &mut self,
        sql: &str,
        parameters: &[ValueRef<'_>],
        visit: &mut dyn FnMut(&rusqlite::Row<'_>) -> Result<bool>,
    ) -> Result<()> {
        let mut statement = self.take(sql)?;
        let result = each_row(&mut statement, parameters, visit);
        self.put(sql, statement);
        result
    }

    /// The first column of the first row, if it is an integer.
    pub fn integer(&mut self, sql: &str, parameters: &[ValueRef<'_>]) -> Result<Option<i64>> {
        let mut found = None;
        self.query(sql, parameters, &mut |row| {
            found = row.get(0).map_err(engine)?;
            Ok(false)
        })?;
        Ok(found)
    }
}

/// Runs a statement with parameters; returns the rows changed.
pub fn run(statement: &mut Statement<'_>, parameters: &[ValueRef<'_>]) -> Result<u64> {
    bind(statement, parameters)?;
    let changed = statement.raw_execute();
    changed.map(|n| n as u64).map_err(engine)
}

pub fn each_row(
    statement: &mut Statement<'_>,
    parameters: &[ValueRef<'_>],
    visit: &mut dyn FnMut(&rusqlite::Row<'_>) -> Result<bool>,
) -> Result<()> {
    bind(statement, parameters)?;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().map_err(engine)? {
        if !visit(row)? {
            break;
        }
    }
    Ok(())
}

pub fn bind(statement: &mut Statement<'_>, parameters: &[ValueRef<'_>]) -> Result<()> {
    for (place, value) in parameters.iter().enumerate() {
        bind_one(statement, place + 1, *value)?;
    }
    Ok(())
}

pub fn bind_one(statement: &mut Statement<'_>, place: usize, value: ValueRef<'_>) -> Result<()> {
    match value {
        ValueRef::Null => statement.raw_bind_parameter(place, Null),
        ValueRef::Integer(i) => statement.raw_bind_parameter(place, i),
        ValueRef::Real(r) => statement.raw_bind_parameter(place, r),
        ValueRef::Text(t) => statement.raw_bind_parameter(place, t),
        ValueRef::Blob(b) => statement.raw_bind_parameter(place, b),
    }
    .map_err(engine)
}

/// A value of a result; text that is not valid UTF-8 is an error.
pub fn value_at<'r>(row: &'r rusqlite::Row<'_>, column: usize) -> Result<ValueRef<'r>> {
    Ok(match row.get_ref(column).map_err(engine)? {
        SqlRef::Null => ValueRef::Null,
        SqlRef::Integer(i) => ValueRef::Integer(i),
        SqlRef::Real(r) => ValueRef::Real(r),
        SqlRef::Blob(b) => ValueRef::Blob(b),
        SqlRef::Text(t) => ValueRef::Text(std::str::from_utf8(t).map_err(|_| {
            Error::new(Kind::InvalidArgument, "a text is not valid UTF-8; sync_check_table names the row: store it as a BLOB, or correct it")
        })?),
    })
}

/// A row of a result as the core reads it.
pub struct SqlRow<'r, 's>(pub &'r rusqlite::Row<'s>);

impl Row for SqlRow<'_, '_> {
    fn value(&self, column: usize) -> Result<ValueRef<'_>> {
        value_at(self.0, column)
    }
}

pub fn refs(values: &[Value]) -> Vec<ValueRef<'_>> {
    values.iter().map(Value::as_ref).collect()
}
