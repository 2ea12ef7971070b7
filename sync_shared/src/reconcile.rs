//! `sync_reconcile`: finds what capture could not see, by comparing the log with the table, and logs it.

use crate::catalog::Catalog;
use crate::change::Operation;
use crate::error::Result;
use crate::host::{Host, in_transaction};
use crate::log_entry::LogRange;
use crate::refresh::settle;
use crate::state::State;
use crate::superseded::is_unreadable;
use crate::table::{RowHash, Table};
use crate::value::{Value, ValueRef, write_payload};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Logs the changes of a table that capture missed; returns how many.
///
/// Memory: about 60 bytes per row of the table.
pub fn reconcile(host: &mut dyn Host, table_name: &str) -> Result<i64> {
    let (State { mut uncaptured, .. }, catalog) = Catalog::open(host)?;
    let index = catalog.by_name(host, table_name)?;
    let table = &catalog.tables[index];
    in_transaction(host, |host| {
        if uncaptured.has_lost_rows(table) {
            // They are to be gone.
            host.install_capture(&catalog, table)?;
            uncaptured.set(table, None);
            uncaptured.store(host)?;
            settle(host)?;
        }
        uncaptured.check(table)?;
        reconcile_table(host, &catalog, index)
    })
}

/// What of the rows that the log has is in their table.
pub struct Missing {
    /// The newest entries of the rows that are not there, in order.
    pub gone: Vec<i64>,
    /// How many are there.
    pub kept: usize,
}

pub fn find_missing(host: &mut dyn Host, catalog: &Catalog, index: usize) -> Result<Missing> {
    let table = &catalog.tables[index];
    let defaults = host.column_defaults(table)?;
    let mut logged = newest_logged(host, catalog, table, &defaults)?;
    logged.retain(|_, l| l.content.is_some());
    let known = logged.len();
    host.stream_rows(table, &mut |row| {
        readable(table.row_hash(|c| row.value(c)))?.and_then(|hash| logged.remove(&hash));
        Ok(true)
    })?;
    let mut gone: Vec<i64> = logged.into_values().map(|l| l.version).collect();
    gone.sort_unstable();
    Ok(Missing { kept: known - gone.len(), gone })
}

pub fn reconcile_table(host: &mut dyn Host, catalog: &Catalog, index: usize) -> Result<i64> {
    let table = &catalog.tables[index];
    let defaults = host.column_defaults(table)?;
    let mut logged = newest_logged(host, catalog, table, &defaults)?;
    let mut missed: Vec<(Vec<Value>, Operation)> = Vec::new();
    host.stream_rows(table, &mut |row| {
        let Some(hash) = readable(table.row_hash(|c| row.value(c)))? else { return Ok(true) };
        let content = content_hash(table, |c| row.value(c))?;
        match logged.remove(&hash) {
            Some(Logged { content: Some(known), .. }) if known == content => {}
            Some(Logged { content: Some(_), .. }) => missed.push((key_of(table, |c| row.value(c))?, Operation::Update)),
            _ => missed.push((key_of(table, |c| row.value(c))?, Operation::Insert)),
        }
        Ok(true)
    })?;
    // What is left of the log's rows is gone from the table.
    let mut gone: Vec<i64> = logged.into_values().filter(|l| l.content.is_some()).map(|l| l.version).collect();
    gone.sort_unstable();
    for version in gone {
        host.read_log(catalog, LogRange::exactly(version), &mut |entry| {
            missed.extend(readable(key_of(table, |c| entry.key_value(c)))?.map(|key| (key, Operation::Delete)));
            Ok(true)
        })?;
    }
    for (key, operation) in &missed {
        host.log_row(table, key, *operation, None)?;
    }
    Ok(missed.len() as i64)
}

/// The values of the key's columns, in key order.
pub fn key_of<'v>(table: &Table, value: impl Fn(usize) -> Result<ValueRef<'v>>) -> Result<Vec<Value>> {
    table.key.iter().map(|&c| value(c).map(ValueRef::to_owned)).collect()
}

/// None for what a text that is not valid UTF-8 makes an error.
fn readable<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(error) if is_unreadable(&error) => Ok(None),
        result => result.map(Some),
    }
}

struct Logged {
    version: i64,
    /// None if the newest entry is a delete.
    content: Option<RowHash>,
}

fn newest_logged(
    host: &mut dyn Host,
    catalog: &Catalog,
    table: &Table,
    defaults: &[Value],
) -> Result<HashMap<RowHash, Logged>> {
    let mut logged = HashMap::new();
    let range = LogRange { table: Some(table.id), ..LogRange::after(0) };
    host.read_log(catalog, range, &mut |entry| {
        let content = match entry.operation {
            Operation::Delete => None,
            _ => Some(content_hash(table, |c| Ok(entry.fields.value(c)?.unwrap_or(defaults[c].as_ref())))?),
        };
        logged.insert(entry.row_hash()?, Logged { version: entry.version, content });
        Ok(true)
    })?;
    Ok(logged)
}

/// One text that cannot be read is taken for another: what was missed of them nobody else can have.
fn content_hash<'v>(table: &Table, value: impl Fn(usize) -> Result<ValueRef<'v>>) -> Result<RowHash> {
    let mut text = String::with_capacity(256);
    for column in 0..table.columns.len() {
        match readable(value(column))? {
            Some(value) => write_payload(&mut text, value),
            None => text.push('?'),
        }
        text.push(',');
    }
    let digest = Sha256::digest(text.as_bytes());
    digest[..16].try_into().map_err(|_| crate::error::Error::corrupt("a digest of the wrong length"))
}
