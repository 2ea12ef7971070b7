//! The log: reading entries in native values, and the few ways of writing it besides the triggers.

use crate::capture::{CLOCK, PART_WIDTH, log_width, parts};
use crate::host::SqliteHost;
use crate::quote::{Identifier, TableName};
use crate::raw::RawRow;
use crate::statements::RELABEL;
use std::fmt::Write as _;
use sync_shared::{Catalog, Error, Fields, Label, Layout, LogEntry, LogRange, Operation, Result, Row as _, Table, TextFold, Value, ValueRef};

/// Columns of `_sync_log_data` before `c1`.
const LEAD: usize = 8;

/// The values of an entry: its own row's and, for a wide table, those of the rows before it.
struct Stored<'r, 's> {
    row: &'r RawRow<'s>,
    earlier: Vec<Vec<Value>>,
    layout: &'r Layout,
}

impl Fields for Stored<'_, '_> {
    fn value(&self, column: usize) -> Result<Option<ValueRef<'_>>> {
        let Some(place) = self.layout.places[column] else { return Ok(None) };
        let (part, slot) = (place / PART_WIDTH, place % PART_WIDTH);
        match self.earlier.get(part) {
            Some(values) => Ok(Some(values[slot].as_ref())),
            None => self.row.value(LEAD + slot).map(Some),
        }
    }

    fn unreadable(&self, column: usize) -> Option<&[u8]> {
        let place = self.layout.places[column].filter(|place| place / PART_WIDTH == self.earlier.len())?;
        self.row.unreadable(LEAD + place % PART_WIDTH)
    }
}

pub fn read_log(
    host: &mut SqliteHost<'_>,
    catalog: &Catalog,
    range: LogRange,
    visit: &mut dyn FnMut(&LogEntry<'_>) -> Result<bool>,
) -> Result<()> {
    let mut sql = "SELECT * FROM _sync_log_data WHERE version > ?1 AND version <= ?2 AND operation < 3 AND version > 0".to_owned();
    if let Some(table) = range.table {
        write!(sql, " AND layout IN (SELECT layout FROM _sync_layouts WHERE table_id = {table})").ok();
    }
    sql.push_str(if range.newest_first { " ORDER BY version DESC" } else { " ORDER BY version" });
    let mut statement = host.statements.take(&sql)?;
    let bounds = [ValueRef::Integer(range.after), ValueRef::Integer(range.upto)];
    let result = statement.each_row(bounds.into_iter(), &mut |row| visit_row(host, catalog, row, visit));
    host.statements.put(&sql, statement);
    result
}

fn visit_row(
    host: &mut SqliteHost<'_>,
    catalog: &Catalog,
    row: &RawRow<'_>,
    visit: &mut dyn FnMut(&LogEntry<'_>) -> Result<bool>,
) -> Result<bool> {
    let integer = |column: usize| match row.value(column)? {
        ValueRef::Integer(i) => Ok(Some(i)),
        _ => Ok::<_, Error>(None),
    };
    let (version, layout) = (integer(0)?.unwrap_or(0), integer(1)?.unwrap_or(0));
    let Some(layout) = catalog.layouts.get(&layout) else { return Ok(true) };
    let Some(table) = layout.table.map(|index| &catalog.tables[index]) else { return Ok(true) };
    let Some(operation) = Operation::from_number(integer(2)?.unwrap_or(-1)) else { return Ok(true) };
    let earlier = match parts(layout.names.len()) {
        1 => Vec::new(),
        count => earlier_parts(host, version, count - 1)?,
    };
    let stored = Stored { row, earlier, layout };
    if !table.names_row(version, &stored)? {
        return Ok(true);
    }
    let entry = LogEntry {
        version,
        table,
        operation,
        origin: integer(3)?.unwrap_or(0),
        stamp: match integer(5)? {
            Some(stamp) => stamp,
            None => integer(4)?.unwrap_or(0),
        },
        via: integer(6)?,
        contested: integer(7)?.is_some_and(|flag| flag != 0),
        shown: true,
        text: None,
        fields: &stored,
    };
    visit(&entry)
}

fn earlier_parts(host: &mut SqliteHost<'_>, version: i64, count: usize) -> Result<Vec<Vec<Value>>> {
    let mut earlier = Vec::with_capacity(count);
    let sql = "SELECT * FROM _sync_log_data WHERE version >= ?1 AND version < ?2 ORDER BY version";
    let bounds = [ValueRef::Integer(version - count as i64), ValueRef::Integer(version)];
    host.statements.query(sql, &bounds, &mut |row| {
        let values = (0..PART_WIDTH).map(|slot| row.value(LEAD + slot).map(ValueRef::to_owned));
        earlier.push(values.collect::<Result<_>>()?);
        Ok(true)
    })?;
    match earlier.len() == count {
        true => Ok(earlier),
        false => Err(Error::new(sync_shared::Kind::SchemaMismatch, format!("log entry {version} lacks its first parts"))),
    }
}

pub fn head(host: &mut SqliteHost<'_>) -> Result<i64> {
    Ok(host.statements.integer("SELECT max(version) FROM _sync_log_data", &[])?.unwrap_or(0))
}

pub fn clock(host: &mut SqliteHost<'_>) -> Result<i64> {
    Ok(host.statements.integer(&format!("SELECT {CLOCK}"), &[])?.unwrap_or(0))
}

/// Raises the clock of the last row. A local entry's stamp is its clock, so it is written down first.
pub fn raise_clock(host: &mut SqliteHost<'_>, stamp: i64) -> Result<()> {
    host.statements.execute(
        "UPDATE _sync_log_data SET stamp = coalesce(stamp, clock), clock = ?1 \
         WHERE version = (SELECT max(version) FROM _sync_log_data) AND clock < ?1",
        // Strictly later, so that an edit that follows what was seen never ties with it.
        &[ValueRef::Integer(stamp.saturating_add(1))],
    )?;
    Ok(())
}

/// Entries in a row that are to get the same label.
pub struct LabelRun {
    first: i64,
    last: i64,
    label: Label,
}

/// Gives an entry the origin and stamp of the change that it holds. Entries in a row with one label are labelled together,
/// at the latest before anything else is done with the log.
pub fn relabel(host: &mut SqliteHost<'_>, version: i64, label: &Label) -> Result<()> {
    match &mut host.label_run {
        Some(run) if run.label == *label && run.last + 1 == version => {
            run.last = version;
            Ok(())
        }
        _ => {
            flush_labels(host)?;
            host.label_run = Some(LabelRun { first: version, last: version, label: *label });
            Ok(())
        }
    }
}

/// Writes the labels that wait.
pub fn flush_labels(host: &mut SqliteHost<'_>) -> Result<()> {
    let Some(LabelRun { first, last, label }) = host.label_run.take() else { return Ok(()) };
    let sql = "UPDATE _sync_log_data SET origin = ?3, stamp = ?4, via = ?5, contested = ?6 WHERE version BETWEEN ?1 AND ?2";
    let parameters = [
        ValueRef::Integer(first),
        ValueRef::Integer(last),
        ValueRef::Integer(label.origin),
        ValueRef::Integer(label.stamp),
        label.via.map_or(ValueRef::Null, ValueRef::Integer),
        if label.contested { ValueRef::Integer(1) } else { ValueRef::Null },
    ];
    host.statements.get(RELABEL, sql)?.run(parameters.into_iter()).map(|_| ())
}

/// Logs the row of a key as it stands, or for a delete its key; returns the version.
pub fn log_row(host: &mut SqliteHost<'_>, table: &Table, key: &[Value], operation: Operation, label: Option<&Label>) -> Result<i64> {
    let number = operation.number();
    let self_id = host.self_id()?;
    let count = parts(table.columns.len());
    for part in 0..count {
        let (mut names, mut values) = (String::new(), String::new());
        for column in part * PART_WIDTH..table.columns.len().min((part + 1) * PART_WIDTH) {
            let place = table.key.iter().position(|&k| k == column);
            let slot = column - part * PART_WIDTH + 1;
            match (operation, place) {
                (Operation::Delete, Some(place)) => {
                    write!(names, ", c{slot}").ok();
                    write!(values, ", ?{}", place + 1).ok();
                }
                (Operation::Delete, None) => {}
                _ => {
                    write!(names, ", c{slot}").ok();
                    write!(values, ", {}", Identifier(&table.columns[column].name)).ok();
                }
            }
        }
        let (layout, number) = (table.layout, if part + 1 == count { number } else { 3 });
        let source = match operation {
            Operation::Delete => String::new(),
            _ => format!(" FROM {} WHERE {}", TableName(&table.table_name), key_condition(table, 1)),
        };
        let sql = format!(
            "INSERT INTO _sync_log_data (layout, operation, origin, clock{names}) SELECT {layout}, {number}, {self_id}, {CLOCK}{values}{source}"
        );
        let mut statement = host.statements.take(&sql)?;
        let used = statement.parameters();
        let logged = statement.run(key.iter().take(used).map(Value::as_ref));
        host.statements.put(&sql, statement);
        if logged? == 0 {
            return Err(Error::new(sync_shared::Kind::SchemaMismatch, format!("a row of {:?} to be logged is gone", table.table_name)));
        }
    }
    let version = head(host)?;
    if let Some(label) = label {
        relabel(host, version, label)?;
    }
    Ok(version)
}

/// Logs every row of a table as an insert.
pub fn backfill(host: &mut SqliteHost<'_>, table: &Table) -> Result<u64> {
    let name = TableName(&table.table_name);
    if table.nullable_key {
        let null = table.key.iter().map(|&k| format!("{} IS NULL", Identifier(&table.columns[k].name)));
        let sql = format!("SELECT count(*) FROM {name} WHERE {}", null.collect::<Vec<_>>().join(" OR "));
        if host.statements.integer(&sql, &[])?.unwrap_or(0) > 0 {
            return Err(Error::argument(format!("table {:?} has rows with NULL in their primary key; give them a key", table.table_name)));
        }
    }
    if parts(table.columns.len()) > 1 {
        return backfill_wide(host, table);
    }
    let slots: Vec<String> = (1..=table.columns.len()).map(|slot| format!("c{slot}")).collect();
    let columns = crate::quote::list(table.columns.iter().map(|c| c.name.as_str()));
    let (layout, self_id) = (table.layout, host.self_id()?);
    let sql = format!(
        "INSERT INTO _sync_log_data (layout, operation, origin, clock, {}) SELECT {layout}, 0, {self_id}, {CLOCK}, {columns} FROM {name}",
        slots.join(", ")
    );
    host.statements.execute(&sql, &[])
}

fn backfill_wide(host: &mut SqliteHost<'_>, table: &Table) -> Result<u64> {
    let columns = crate::quote::list(table.key.iter().map(|&k| table.columns[k].name.as_str()));
    let mut keys: Vec<Vec<Value>> = Vec::new();
    host.statements.query(&format!("SELECT {columns} FROM {}", TableName(&table.table_name)), &[], &mut |row| {
        let key = (0..table.key.len()).map(|place| row.value(place).map(ValueRef::to_owned));
        keys.push(key.collect::<Result<_>>()?);
        Ok(true)
    })?;
    for key in &keys {
        log_row(host, table, key, Operation::Insert, None)?;
    }
    Ok(keys.len() as u64)
}

/// Removes entries with all their parts. The last row of the log is emptied instead: its version and clock must not come again.
pub fn delete_entries(host: &mut SqliteHost<'_>, catalog: &Catalog, versions: &[i64]) -> Result<()> {
    let last = head(host)?;
    for &version in versions {
        let layout = host.statements.integer("SELECT layout FROM _sync_log_data WHERE version = ?1", &[ValueRef::Integer(version)])?;
        let width = layout.and_then(|l| catalog.layouts.get(&l)).map_or(1, |l| l.names.len());
        let first = version - (parts(width) as i64 - 1);
        host.statements.execute(
            "DELETE FROM _sync_log_data WHERE version >= ?1 AND version <= ?2 AND version < ?3",
            &[ValueRef::Integer(first), ValueRef::Integer(version), ValueRef::Integer(last)],
        )?;
        if version == last {
            let emptied: Vec<String> = (1..=log_width(host.connection)?).map(|slot| format!(", c{slot} = NULL")).collect();
            let sql = format!("UPDATE _sync_log_data SET layout = 0, operation = 4, stamp = NULL, via = NULL, contested = NULL{} WHERE version = ?1", emptied.concat());
            host.statements.execute(&sql, &[ValueRef::Integer(last)])?;
        }
    }
    Ok(())
}

/// The row with this key, to the byte: `key columns = parameters`, the first of which is `?first`.
pub fn key_condition(table: &Table, first: usize) -> String {
    let terms = table.key.iter().enumerate().map(|(place, &k)| {
        let (column, slot) = (&table.columns[k], first + place);
        let name = Identifier(&column.name);
        match column.fold {
            TextFold::Exact => format!("{name} = ?{slot}"),
            // The first term has the index.
            _ => format!("{name} = ?{slot} AND {name} COLLATE BINARY = ?{slot}"),
        }
    });
    terms.collect::<Vec<_>>().join(" AND ")
}
