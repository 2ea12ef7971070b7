//! `sync_reconcile`: finds what capture could not see, by comparing the log with the table, and logs it.

use crate::catalog::Catalog;
use crate::change::Operation;
use crate::error::Result;
use crate::host::{Host, in_transaction};
use crate::log_entry::{Label, LogRange};
use crate::refresh::settle;
use crate::state::{State, origin_number};
use crate::superseded::is_unreadable;
use crate::table::{RowHash, Table};
use crate::unseen::Peer;
use crate::value::{Value, ValueRef, write_payload};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Logs the changes of a table that capture missed; returns how many.
///
/// With [`Defaults::Logged`] what ADD COLUMN gave to the rows that were there is logged as well, unless it is NULL: a replica where the column
/// has another default would not have it. But nobody edited them, so each is logged with the stamp of what it was, and no edit loses against
/// it. A replica with a server leaves that to the server, whose values then come to it: else every client would send every row.
///
/// Memory: about 80 bytes per row of the table.
pub fn reconcile(host: &mut dyn Host, table_name: &str, added: Defaults) -> Result<i64> {
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
        reconcile_table(host, &catalog, index, added)
    })
}

/// What becomes of the values that ADD COLUMN gave to the rows that were there.
#[derive(Clone, Copy, PartialEq)]
pub enum Defaults {
    /// They are left to the other replicas' own ADD COLUMN: nobody asked for a change of every row.
    Left,
    Logged,
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
    let mut logged = NewestLogged::read(host, catalog, table)?.rows;
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

pub fn reconcile_table(host: &mut dyn Host, catalog: &Catalog, index: usize, added: Defaults) -> Result<i64> {
    let table = &catalog.tables[index];
    let defaults = host.column_defaults(table)?;
    let state = State::load(host)?;
    let logs_defaults = added == Defaults::Logged && Peer::known_upstream(host, &state)?.is_none();
    let mut log = NewestLogged::read(host, catalog, table)?;
    let mut missed: Vec<(Vec<Value>, Operation)> = Vec::new();
    let mut filled: Vec<(Vec<Value>, i64)> = Vec::new();
    host.stream_rows(table, &mut |row| {
        let key = || key_of(table, |c| row.value(c));
        let Some(hash) = readable(table.row_hash(|c| row.value(c)))? else { return Ok(true) };
        let Some(Logged { content: Some(known), lacks, stamp, .. }) = log.rows.remove(&hash) else {
            missed.push((key()?, Operation::Insert));
            return Ok(true);
        };
        let lacks = &log.lacks[lacks];
        let content = content_hash(table, |c| if lacks.contains(&c) { Ok(None) } else { row.value(c).map(Some) })?;
        let (mut written, mut given) = (content != known, false);
        for &column in lacks {
            let Some(value) = readable(row.value(column))? else { continue };
            written |= value != defaults[column].as_ref();
            given |= value != ValueRef::Null;
        }
        if written {
            missed.push((key()?, Operation::Update));
        } else if given && logs_defaults {
            filled.push((key()?, stamp));
        }
        Ok(true)
    })?;
    // What is left of the log's rows is gone from the table.
    let mut gone: Vec<i64> = log.rows.into_values().filter(|l| l.content.is_some()).map(|l| l.version).collect();
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
    let origin = origin_number(host, &state.origin_id)?;
    for (key, stamp) in &filled {
        // Later than what it was, or it would be taken for the same.
        let label = Label { origin, stamp: stamp.saturating_add(1), via: None, contested: false };
        host.log_row(table, key, Operation::Update, Some(&label))?;
    }
    Ok((missed.len() + filled.len()) as i64)
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

/// The newest entries of a table's rows.
struct NewestLogged {
    rows: HashMap<RowHash, Logged>,
    /// Columns that entries lack, for they were added later; the first is none.
    lacks: Vec<Vec<usize>>,
}

struct Logged {
    version: i64,
    stamp: i64,
    /// Index into `NewestLogged::lacks`.
    lacks: usize,
    /// None if the newest entry is a delete.
    content: Option<RowHash>,
}

impl NewestLogged {
    fn read(host: &mut dyn Host, catalog: &Catalog, table: &Table) -> Result<NewestLogged> {
        let (mut rows, mut lacks) = (HashMap::new(), vec![Vec::new()]);
        let range = LogRange { table: Some(table.id), ..LogRange::after(0) };
        host.read_log(catalog, range, &mut |entry| {
            let mut logged = Logged { version: entry.version, stamp: entry.stamp, lacks: 0, content: None };
            if entry.operation != Operation::Delete {
                let mut lacking = Vec::new();
                for column in 0..table.columns.len() {
                    if readable(entry.fields.value(column))? == Some(None) {
                        lacking.push(column);
                    }
                }
                logged.content = Some(content_hash(table, |c| entry.fields.value(c))?);
                logged.lacks = lacks.iter().position(|known| *known == lacking).unwrap_or(lacks.len());
                if logged.lacks == lacks.len() {
                    lacks.push(lacking);
                }
            }
            rows.insert(entry.row_hash()?, logged);
            Ok(true)
        })?;
        Ok(NewestLogged { rows, lacks })
    }
}

/// Of the columns that have a value. One text that cannot be read is taken for another: what was missed of them nobody else can have.
fn content_hash<'v>(table: &Table, value: impl Fn(usize) -> Result<Option<ValueRef<'v>>>) -> Result<RowHash> {
    let mut text = String::with_capacity(256);
    for column in 0..table.columns.len() {
        match readable(value(column))? {
            Some(Some(value)) => write_payload(&mut text, value),
            Some(None) => {}
            None => text.push('?'),
        }
        text.push(',');
    }
    let digest = Sha256::digest(text.as_bytes());
    digest[..16].try_into().map_err(|_| crate::error::Error::corrupt("a digest of the wrong length"))
}
