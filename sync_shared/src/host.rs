//! What a database must be able to do for the core: one object-safe trait.
//!
//! A method stands here only where the engines' meaning differs. Bookkeeping tables are the same in both engines and are read and
//! written with plain SQL through [`Host::execute`] and [`Host::query`], with parameters written `?1`.

use crate::catalog::Catalog;
use crate::change::Operation;
use crate::error::{Error, Result};
use crate::log_entry::{Label, LogEntry, LogRange};
use crate::row_write::{GroupRows, PutRow, RowFailure, Target, Together, Touched, Violation, Written};
use crate::table::{Description, Table};
use crate::value::{Value, ValueRef};

/// A row of a query's result.
pub trait Row {
    fn value(&self, column: usize) -> Result<ValueRef<'_>>;

    fn integer(&self, column: usize) -> Result<i64> {
        match self.value(column)? {
            ValueRef::Integer(i) => Ok(i),
            ValueRef::Null => Ok(0),
            other => Err(Error::corrupt(format!("{other:?} stands where an integer should"))),
        }
    }

    fn text(&self, column: usize) -> Result<&str> {
        match self.value(column)? {
            ValueRef::Text(t) => Ok(t),
            ValueRef::Null => Ok(""),
            other => Err(Error::corrupt(format!("{other:?} stands where a text should"))),
        }
    }

    fn optional_text(&self, column: usize) -> Result<Option<String>> {
        match self.value(column)? {
            ValueRef::Null => Ok(None),
            _ => self.text(column).map(|t| Some(t.to_owned())),
        }
    }
}

/// The state of a tracked table's capture in the engine.
#[derive(Clone, Debug)]
pub struct CaptureState {
    /// The table's name now; None if it is gone.
    pub table_name: Option<String>,
    /// The captured columns under their names of now; None without triggers.
    pub columns: Option<Vec<String>>,
    /// Is everything as `install_capture` would make it?
    pub intact: bool,
    /// Could a write have been missed, or logged in the wrong order?
    pub suspect: bool,
    /// Was the table certainly made under its name, not renamed to it? None where the engine tells when a table is dropped, so that none can
    /// be taken for another.
    pub made_here: Option<bool>,
}

pub trait Host {
    /// Runs one statement; returns the number of rows it changed.
    fn execute(&mut self, sql: &str, parameters: &[ValueRef<'_>]) -> Result<u64>;

    /// Runs one statement for each of these parameters.
    fn execute_all(&mut self, sql: &str, all: &[Vec<ValueRef<'_>>]) -> Result<()> {
        all.iter().try_for_each(|parameters| self.execute(sql, parameters).map(|_| ()))
    }

    /// Runs a query until `visit` returns false.
    fn query(
        &mut self,
        sql: &str,
        parameters: &[ValueRef<'_>],
        visit: &mut dyn FnMut(&dyn Row) -> Result<bool>,
    ) -> Result<()>;

    /// Runs a statement of the user's; returns the number of rows.
    fn execute_user(&mut self, statement: &str) -> Result<u64>;

    /// Is a transaction open, the caller's or ours?
    fn is_in_transaction(&mut self) -> bool;

    /// Opens a nested unit of work, write lock included.
    fn begin(&mut self) -> Result<()>;

    /// Ends the innermost unit of work.
    fn end(&mut self, keep: bool) -> Result<()>;

    /// Wall clock, milliseconds since 1970.
    fn now(&mut self) -> i64;

    fn is_initialized(&mut self) -> Result<bool>;

    /// Creates the tables of ours that are missing.
    fn create_schema(&mut self) -> Result<()>;

    /// Changes whenever any table's definition does.
    fn schema_cookie(&mut self) -> Result<i64>;

    fn describe(&mut self, table: &str) -> Result<Option<Description>>;

    /// Installs or replaces the capture of one table and the readable log of all.
    fn install_capture(&mut self, catalog: &Catalog, table: &Table) -> Result<()>;

    fn remove_capture(&mut self, table: &Table) -> Result<()>;

    fn capture_state(&mut self, table: &Table) -> Result<CaptureState>;

    /// Rebuilds the readable form of the log after the tracked tables changed.
    fn publish_log(&mut self, catalog: &Catalog) -> Result<()>;

    /// Logs every row of a table as an insert; returns how many.
    fn backfill(&mut self, table: &Table) -> Result<u64>;

    /// Reads the log until `visit` returns false.
    fn read_log(
        &mut self,
        catalog: &Catalog,
        range: LogRange,
        visit: &mut dyn FnMut(&LogEntry<'_>) -> Result<bool>,
    ) -> Result<()>;

    /// Removes entries. The last version of the log is never given out again.
    fn delete_entries(&mut self, catalog: &Catalog, versions: &[i64]) -> Result<()>;

    /// The highest version that is settled: no open transaction can still add one at or below it.
    fn head(&mut self) -> Result<i64>;

    /// The highest version that can be read now, settled or not.
    fn tip(&mut self) -> Result<i64>;

    /// Since when a transaction that is open keeps `head` below `tip`; None if the engine cannot tell. Milliseconds since 1970.
    fn held_back_since(&mut self) -> Result<Option<i64>>;

    /// Does a unit of work keep every other writer out?
    fn writes_alone(&self) -> bool;

    /// Keeps other writers from changing these rows until the transaction ends. What they wrote before can be read from then on.
    fn lock_rows(&mut self, catalog: &Catalog, rows: &[Target<'_>]) -> Result<()>;

    /// Keeps other writers away from every tracked table until the transaction ends.
    fn lock_tables(&mut self, catalog: &Catalog) -> Result<()>;

    /// A unit of work has just failed and was undone. Is it worth doing again, row by row?
    fn narrows(&mut self) -> bool;

    /// May the caller read every synced column of a table? False without any right on it.
    ///
    /// Errors: `PermissionDenied` if it may read some of its columns only.
    fn may_read(&mut self, table: &Table) -> Result<bool>;

    /// The local clock: the wall clock, but never below anything this replica has seen. Milliseconds since 1970.
    fn clock(&mut self) -> Result<i64>;

    /// No later local change is stamped below this.
    fn raise_clock(&mut self, stamp: i64) -> Result<()>;

    /// The engine's code for a violated foreign key.
    fn foreign_key_code(&self) -> &'static str;

    /// Bytes that the log takes on disk, if the engine can tell.
    fn log_bytes(&mut self) -> Result<Option<i64>>;

    /// Inserts or updates the columns that have a value. The log entry gets `label`, or is a local change without one.
    /// With `log_unchanged` an entry is made even if the row was as it should be.
    fn put_row(
        &mut self,
        table: &Table,
        values: &[Option<Value>],
        label: Option<&Label>,
        log_unchanged: bool,
    ) -> std::result::Result<Written, RowFailure>;

    /// Does it make no difference to anybody whether rows of this table are put together or one by one?
    fn puts_together(&mut self, _table: &Table) -> Result<bool> {
        Ok(false)
    }

    /// Puts rows with different keys and values for the same columns, to the effect that [`Host::put_row`] has for one after the other:
    /// all of them, or none. Only for a table for which [`Host::puts_together`].
    fn put_rows(&mut self, _table: &Table, _rows: &[PutRow<'_>]) -> Result<Together> {
        Ok(Together::Refused)
    }

    /// Which of these rows, put one after the other, the engine would refuse for the sake of a foreign key, as far as that can be told
    /// beforehand. Only for a table for which [`Host::puts_together`].
    fn orphans(&mut self, _catalog: &Catalog, _table: &Table, _rows: &[&[Option<Value>]]) -> Result<Vec<Violation>> {
        Ok(Vec::new())
    }

    /// Deletes a row if it is there.
    fn remove_row(
        &mut self,
        table: &Table,
        key: &[Value],
        label: Option<&Label>,
        log_unchanged: bool,
    ) -> std::result::Result<Written, RowFailure>;

    /// Logs the row of a key as it is now (for a delete: the key) and returns the entry's version.
    fn log_row(&mut self, table: &Table, key: &[Value], operation: Operation, label: Option<&Label>) -> Result<i64>;

    /// A row's synced columns.
    fn read_row(&mut self, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>>;

    /// Every row of a table, in the order of TYPES.md, until `visit` returns false.
    fn stream_rows(&mut self, table: &Table, visit: &mut dyn FnMut(&dyn Row) -> Result<bool>) -> Result<()>;

    fn count_rows(&mut self, table: &Table) -> Result<i64>;

    /// Can rows be written without the user's triggers, while foreign keys, their actions and capture work as ever? Then `put_row` and
    /// `remove_row` do so where `Table::user_triggers` is false.
    fn can_spare_triggers(&self) -> bool;

    /// Makes foreign keys be enforced, and only at the end, until `end_references`.
    fn begin_references(&mut self) -> Result<()>;

    fn end_references(&mut self) -> Result<()>;

    /// Tells what is written until `end_rows`, so that the host can choose how.
    fn begin_rows(&mut self, rows: &GroupRows<'_>) -> Result<()>;

    fn end_rows(&mut self);

    /// Which of these rows violate a foreign key now.
    fn violations(&mut self, catalog: &Catalog, touched: &[Touched]) -> Result<Vec<Violation>>;

    /// The defaults of a table's columns, evaluated.
    fn column_defaults(&mut self, table: &Table) -> Result<Vec<Value>>;

    /// Is this a custom resolver that can be run?
    fn check_resolver(&mut self, resolver: &str) -> Result<()>;

    /// Runs a custom resolver over two JSON texts; the merged row as JSON.
    fn run_resolver(&mut self, resolver: &str, local: &str, remote: &str) -> Result<String>;
}

/// Runs `body` as one unit of work: kept if it succeeds, undone if it fails.
pub fn in_transaction<T>(host: &mut dyn Host, body: impl FnOnce(&mut dyn Host) -> Result<T>) -> Result<T> {
    try_in_transaction(host, true, body)
}

/// As [`in_transaction`], but undone in any case unless `keep`.
pub fn try_in_transaction<T>(host: &mut dyn Host, keep: bool, body: impl FnOnce(&mut dyn Host) -> Result<T>) -> Result<T> {
    host.begin()?;
    match body(host) {
        Ok(value) => {
            if let Err(error) = host.end(keep) {
                // What could not be committed must not stay open.
                host.end(false).ok();
                return Err(error);
            }
            Ok(value)
        }
        Err(error) => {
            host.end(false)?;
            Err(error)
        }
    }
}

/// The first column of the first row of a query.
pub fn query_value(host: &mut dyn Host, sql: &str, parameters: &[ValueRef<'_>]) -> Result<Option<Value>> {
    let mut found = None;
    host.query(sql, parameters, &mut |row| {
        found = Some(row.value(0)?.to_owned());
        Ok(false)
    })?;
    Ok(found)
}

/// As [`query_value`] for an integer; 0 for NULL or no row.
pub fn query_integer(host: &mut dyn Host, sql: &str, parameters: &[ValueRef<'_>]) -> Result<i64> {
    match query_value(host, sql, parameters)? {
        Some(Value::Integer(i)) => Ok(i),
        _ => Ok(0),
    }
}
