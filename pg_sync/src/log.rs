//! The log: reading entries, whose JSON is handed on as it is stored, and the few ways of writing it besides capture.

use crate::append::{Entry, append};
use crate::definer::Definer;
use crate::host::PgHost;
use crate::shown;
use crate::spi::{self, Aim, Parameter, Rows, View, with_bytes};
use std::cell::OnceCell;
use std::fmt::Write as _;
use sync_shared::{
    Catalog, Error, Fields, Label, LogEntry, LogRange, LogText, Operation, Result, Table, Value, ValueRef, object_members, value_for_column,
};

const COLUMNS: &str = "version, table_id, operation, origin, clock, stamp, via, contested, pk_value, payload, image";

/// The values of an entry, taken out of its JSON when they are asked for.
pub struct Stored<'a> {
    table: &'a Table,
    json: &'a str,
    values: OnceCell<Vec<Option<Value>>>,
}

impl<'a> Stored<'a> {
    pub fn new(table: &'a Table, json: &'a str) -> Stored<'a> {
        Stored { table, json, values: OnceCell::new() }
    }

    /// The values of the key, in key order.
    pub fn key(&self) -> Result<Vec<Value>> {
        self.table.key.iter().map(|&column| Ok(self.value(column)?.unwrap_or(ValueRef::Null).to_owned())).collect()
    }

    fn read(&self) -> Result<Vec<Option<Value>>> {
        let mut values = vec![None; self.table.columns.len()];
        for (name, raw) in object_members(self.json).map_err(Error::corrupt)? {
            if let Some(column) = self.table.column_named(&name) {
                values[column] = Some(value_for_column(raw, &self.table.columns[column]).map_err(Error::corrupt)?);
            }
        }
        Ok(values)
    }
}

impl Fields for Stored<'_> {
    fn value(&self, column: usize) -> Result<Option<ValueRef<'_>>> {
        if self.values.get().is_none() {
            self.values.set(self.read()?).ok();
        }
        Ok(self.values.get().and_then(|values| values[column].as_ref()).map(Value::as_ref))
    }
}

pub fn read_log(
    host: &mut PgHost,
    catalog: &Catalog,
    range: LogRange,
    visit: &mut dyn FnMut(&LogEntry<'_>) -> Result<bool>,
) -> Result<()> {
    match range.for_caller {
        true => shown::read(host, catalog, range, visit),
        false => read(host, catalog, range, &mut |entry, _| visit(entry)),
    }
}

/// Takes an entry, and what was kept of its row as it was before.
pub type Visit<'v> = dyn FnMut(&LogEntry<'_>, Option<&str>) -> Result<bool> + 'v;

/// The log as it is.
pub fn read(host: &mut PgHost, catalog: &Catalog, range: LogRange, visit: &mut Visit<'_>) -> Result<()> {
    let _definer = Definer::enter(host.extension.owner);
    let log = format!("{}._sync_log_data", host.extension.schema_name);
    let mut sql = format!("SELECT {COLUMNS} FROM {log} WHERE version > $1 AND version <= $2");
    if let Some(table) = range.table {
        write!(sql, " AND table_id = {table}").ok();
    }
    sql.push_str(if range.newest_first { " ORDER BY version DESC" } else { " ORDER BY version" });
    let bounds = [Parameter::of(ValueRef::Integer(range.after))?, Parameter::of(ValueRef::Integer(range.upto))?];
    spi::stream(&sql, &bounds, Aim::FirstRows, |rows, row| visit_row(catalog, rows, row, visit))
}

fn visit_row(
    catalog: &Catalog,
    rows: &Rows,
    row: usize,
    visit: &mut Visit<'_>,
) -> Result<bool> {
    let number = |column: usize| rows.datum(row, column).map(|datum| datum.value());
    let small = |column: usize| number(column).map(|n| i64::from(n as i32));
    let id = small(1).unwrap_or(0);
    let Some(table) = catalog.tables.iter().find(|t| t.id == id) else { return Ok(true) };
    let operation = number(2).map_or(-1, |n| i64::from(n as i16));
    let operation = Operation::from_number(operation).ok_or_else(|| Error::corrupt("an operation in the log"))?;
    let clock = number(4).map_or(0, |n| n as i64);
    let pk_value = rows.datum(row, 8).ok_or_else(|| Error::corrupt("a log entry without a key"))?;
    let image = rows.datum(row, 10).map(crate::spi::text).transpose()?;
    let mut visit_text = |pk_value: &str, payload: Option<&str>| {
        let stored = Stored::new(table, payload.unwrap_or(pk_value));
        let entry = LogEntry {
            version: number(0).map_or(0, |n| n as i64),
            table,
            operation,
            origin: small(3).unwrap_or(0),
            stamp: number(5).map_or(clock, |n| n as i64),
            via: small(6),
            contested: number(7).is_some(),
            shown: true,
            text: Some(LogText { pk_value, payload }),
            fields: &stored,
        };
        visit(&entry, image.as_deref())
    };
    let version = number(0).map_or(0, |n| n as i64);
    let mut visit_row = |pk_value: &str, payload: Option<&str>| match version > table.rekeyed {
        true => visit_text(pk_value, payload),
        false => match key_of_now(table, version, payload.unwrap_or(pk_value))? {
            Some(pk_value) => visit_text(&pk_value, payload),
            None => Ok(true),
        },
    };
    with_text(pk_value, |pk_value| match rows.datum(row, 9) {
        None => visit_row(pk_value, None),
        Some(payload) => with_text(payload, |payload| visit_row(pk_value, Some(payload))),
    })
}

/// The key, as it is now, of an entry that was made under another; None if it does not name a row by that.
fn key_of_now(table: &Table, version: i64, json: &str) -> Result<Option<String>> {
    let stored = Stored::new(table, json);
    if !table.names_row(version, &stored)? {
        return Ok(None);
    }
    let mut key = String::new();
    table.write_key(&mut key, |column| Ok(stored.value(column)?.unwrap_or(ValueRef::Null)))?;
    Ok(Some(key))
}

fn with_text<T>(datum: pgrx::pg_sys::Datum, read: impl FnOnce(&str) -> Result<T>) -> Result<T> {
    with_bytes(datum, |bytes| read(std::str::from_utf8(bytes).map_err(Error::corrupt)?))
}

/// Logs the row of a key as it stands, or for a delete its key; returns the version.
pub fn log_row(host: &mut PgHost, table: &Table, key: &[Value], operation: Operation, label: Option<&Label>) -> Result<i64> {
    let plan = host.plan(table)?;
    let key = plan.key_parameters(key).map_err(Error::corrupt)?;
    let (pk_value, payload) = match operation {
        Operation::Delete => (plan.write_key(&key)?, None),
        _ => {
            // The log says what the row is, not what the caller sees of it, and its key as the row has it.
            let _definer = Definer::owner_of(plan.relation);
            let (_, found) = spi::run(&plan.select_row(), &key, View::Latest, |rows| match rows.len() {
                0 => Ok(None),
                _ => Ok(Some((plan.write_key_of(rows, 0)?, plan.write_payload(rows, 0)?))),
            })?;
            let gone = || Error::corrupt(format!("a row of {:?} to be logged is gone", table.table_name));
            found.map(|(pk_value, payload)| (pk_value, Some(payload))).ok_or_else(gone)?
        }
    };
    let origin = host.self_id()?;
    let entry = Entry { table: table.id, operation, origin, label, pk_value: &pk_value, payload: payload.as_deref(), image: None };
    let version = append(&host.extension, &entry);
    host.make_visible();
    Ok(version)
}

/// Logs every row of a table as an insert.
pub fn backfill(host: &mut PgHost, table: &Table) -> Result<u64> {
    let plan = host.plan(table)?;
    let origin = host.self_id()?;
    let extension = host.extension.clone();
    let mut count = 0;
    let definer = Definer::owner_of(plan.relation);
    spi::stream(&plan.select(), &[], Aim::AllRows, |rows, row| {
        let (pk_value, payload) = (plan.write_key_of(rows, row)?, plan.write_payload(rows, row)?);
        let operation = Operation::Insert;
        append(&extension, &Entry { table: table.id, operation, origin, label: None, pk_value: &pk_value, payload: Some(&payload), image: None });
        count += 1;
        Ok(true)
    })?;
    drop(definer);
    host.make_visible();
    Ok(count)
}

pub fn delete_entries(host: &mut PgHost, versions: &[i64]) -> Result<()> {
    let mut list = String::from("{");
    for version in versions {
        list.push_str(if list.len() > 1 { "," } else { "" });
        list.push_str(itoa::Buffer::new().format(*version));
    }
    list.push('}');
    let _definer = Definer::enter(host.extension.owner);
    let sql = format!("DELETE FROM {}._sync_log_data WHERE version = ANY ($1::bigint[])", host.extension.schema_name);
    spi::execute(&sql, &[Parameter::of(ValueRef::Text(&list))?]).map(|_| ())
}
