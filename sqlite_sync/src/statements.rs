//! Prepared statements of one call. They live as long as the host does: none outlasts the SQL function that made it.

use crate::raw::{RawRow, RawStatement};
use rusqlite::Connection;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use sync_shared::{Result, Row as _, Value, ValueRef};

/// Statements by their text.
pub struct Statements<'c> {
    connection: &'c Connection,
    idle: HashMap<String, RawStatement<'c>>,
    /// The statements that run once per change: upserts by layout, and the relabelling under [`RELABEL`].
    hot: HashMap<i64, RawStatement<'c>>,
}

/// The place of the relabelling statement among the hot ones; layouts are positive.
pub const RELABEL: i64 = 0;

impl<'c> Statements<'c> {
    pub fn new(connection: &'c Connection) -> Self {
        Statements { connection, idle: HashMap::new(), hot: HashMap::new() }
    }

    /// A statement that runs once per change, found without its text.
    pub fn get(&mut self, place: i64, sql: &str) -> Result<&mut RawStatement<'c>> {
        match self.hot.entry(place) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(free) => Ok(free.insert(RawStatement::prepare(self.connection, sql)?)),
        }
    }

    /// The tables may have other columns now.
    pub fn forget_hot(&mut self) {
        self.hot.clear();
    }

    /// Takes a statement out, preparing it if need be; give it back with [`Statements::put`].
    pub fn take(&mut self, sql: &str) -> Result<RawStatement<'c>> {
        match self.idle.remove(sql) {
            Some(statement) => Ok(statement),
            None => RawStatement::prepare(self.connection, sql),
        }
    }

    pub fn put(&mut self, sql: &str, statement: RawStatement<'c>) {
        self.idle.insert(sql.to_owned(), statement);
    }

    /// Runs a statement; returns the rows changed.
    pub fn execute(&mut self, sql: &str, parameters: &[ValueRef<'_>]) -> Result<u64> {
        if let Some(statement) = self.idle.get_mut(sql) {
            return statement.run(parameters.iter().copied());
        }
        let mut statement = self.take(sql)?;
        let result = statement.run(parameters.iter().copied());
        self.put(sql, statement);
        result
    }

    /// Runs a query until `visit` returns false.
    pub fn query(
        &mut self,
        sql: &str,
        parameters: &[ValueRef<'_>],
        visit: &mut dyn FnMut(&RawRow<'_>) -> Result<bool>,
    ) -> Result<()> {
        let mut statement = self.take(sql)?;
        let result = statement.each_row(parameters.iter().copied(), visit);
        self.put(sql, statement);
        result
    }

    /// The first column of the first row, if it is an integer.
    pub fn integer(&mut self, sql: &str, parameters: &[ValueRef<'_>]) -> Result<Option<i64>> {
        let mut found = None;
        self.query(sql, parameters, &mut |row| {
            if let ValueRef::Integer(integer) = row.value(0)? {
                found = Some(integer);
            }
            Ok(false)
        })?;
        Ok(found)
    }
}

pub fn refs(values: &[Value]) -> Vec<ValueRef<'_>> {
    values.iter().map(Value::as_ref).collect()
}
