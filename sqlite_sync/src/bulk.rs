//! Large groups of changes, written past the capture triggers: each row and then its log entry, with the label of its change.
//!
//! It does what the triggers and the relabelling do, to the byte, at half the cost. It is done only where nothing else could happen: no
//! trigger but ours on any of the tables, none that is temporary, no foreign key that cascades, no code of the user's. Triggers are then
//! off for this connection while the group is applied: a setting in memory, put back whatever happens, that no other connection has.

use crate::capture::{any_of, differ, parts, trigger_names};
use crate::error::engine;
use crate::host::SqliteHost;
use crate::log::{clock, key_condition, log_row};
use crate::quote::{Identifier, TableName, list};
use crate::raw::{RawStatement, running};
use crate::rows::{guard, key_values, log_anyway, put_part, read_row};
use crate::spelling::{as_spelled, key_as_spelled};
use crate::triggers;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use sync_shared::{
    Column, GroupRows, Label, Operation, Result, RowFailure, Storage, Table, TextFold, Value, ValueRef, Written,
};

/// Smaller groups are not worth it: switching triggers makes the connection prepare all its statements anew.
const LEAST_ROWS: usize = 100;

/// Triggers are off while this lives.
pub struct Bulk<'c> {
    connection: &'c Connection,
    self_id: i64,
    /// The clock of new entries, if nothing else was logged since it was read.
    pub clock: Option<i64>,
    tables: Vec<(i64, TableWriter<'c>)>,
}

impl Drop for Bulk<'_> {
    fn drop(&mut self) {
        // It cannot fail for an open connection.
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true).ok();
    }
}

/// Begins to write past the triggers if that comes to the same.
pub fn begin(host: &mut SqliteHost<'_>, rows: &GroupRows<'_>) -> Result<()> {
    let connection = host.connection;
    if rows.changes < LEAST_ROWS || !rows.whole || !is_undisturbed(connection) || !is_alone(host, &rows.tables)? {
        return Ok(());
    }
    let self_id = host.self_id()?;
    if connection.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER).map_err(engine)? {
        host.bulk = Some(Bulk { connection, self_id, clock: None, tables: Vec::new() });
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).map_err(engine)?;
    }
    Ok(())
}

/// Can statements expire? One that is running and opens a table later would fail, so there may only be the one that has called us.
fn is_undisturbed(connection: &Connection) -> bool {
    match running(connection).as_slice() {
        [] => true,
        [caller] => opens_no_table(caller),
        _ => false,
    }
}

/// A SELECT without FROM and without `IN table`.
fn opens_no_table(sql: &str) -> bool {
    let mut words = sql.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    let selects = words.next().is_some_and(|word| word.eq_ignore_ascii_case("SELECT"));
    selects && !words.any(|word| word.eq_ignore_ascii_case("FROM") || word.eq_ignore_ascii_case("IN"))
}

/// Can a write to these tables cause nothing but itself?
fn is_alone(host: &mut SqliteHost<'_>, tables: &[&Table]) -> Result<bool> {
    if triggers::any_temporary(host)? {
        return Ok(false);
    }
    for table in tables {
        let folded = table.key.iter().any(|&k| table.columns[k].fold != TextFold::Exact);
        if folded || !table.exclude.is_empty() || table.resolver.is_some() || parts(table.columns.len()) > 1 {
            return Ok(false);
        }
        let names = trigger_names(&table.table_name);
        let named = [&table.table_name, &names[0], &names[1], &names[2]].map(|name| ValueRef::Text(name));
        let triggers = "SELECT count(*) = 3 AND sum(name COLLATE NOCASE IN (?2, ?3, ?4)) = 3 FROM sqlite_schema \
                        WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE";
        let cascades = "SELECT 1 FROM sqlite_schema AS m, pragma_foreign_key_list(m.name, 'main') AS f \
                        WHERE m.type = 'table' AND f.\"table\" = ?1 COLLATE NOCASE \
                        AND (f.on_update NOT IN ('NO ACTION', 'RESTRICT') OR f.on_delete NOT IN ('NO ACTION', 'RESTRICT')) LIMIT 1";
        if host.statements.integer(triggers, &named)? != Some(1) || host.statements.integer(cascades, &named[..1])?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

pub fn put_row(
    host: &mut SqliteHost<'_>,
    table: &Table,
    values: &[Option<Value>],
    label: Option<&Label>,
    log_unchanged: bool,
) -> Result<Written, RowFailure> {
    let values = &*as_spelled(host, table, values)?;
    let key = || key_values(table, values);
    let done = match values.iter().all(Option::is_some) {
        true => write(host, table, values),
        false => write_part(host, table, values, &key()),
    };
    let operation = match guard(host, done)? {
        Done::Nothing if log_unchanged => return log_anyway(host, table, &key(), Operation::Update, Written::default(), label),
        Done::Nothing => return Ok(Written::default()),
        Done::Inserted => Operation::Insert,
        Done::Updated => Operation::Update,
    };
    let stored = |column: usize| values[column].as_ref().and_then(|v| stored_as(v, &table.columns[column], table.key.contains(&column)));
    let version = match (0..values.len()).all(|column| stored(column).is_some()) {
        true => append(host, table, operation, label, (0..values.len()).filter_map(stored)),
        false => log_stored(host, table, &key(), operation, label),
    };
    Ok(Written { version: Some(version.map_err(RowFailure::Fatal)?), changed: true, caused: Vec::new() })
}

pub fn remove_row(
    host: &mut SqliteHost<'_>,
    table: &Table,
    key: &[Value],
    label: Option<&Label>,
    log_unchanged: bool,
) -> Result<Written, RowFailure> {
    let key = &*key_as_spelled(host, table, key)?;
    let stored = |key: &[Value]| table.key.iter().zip(key).all(|(&k, value)| stored_as(value, &table.columns[k], true).is_some());
    let found = if stored(key) { None } else { read_row(host, table, key)? };
    let own: Vec<Value> = match found {
        Some(row) => table.key.iter().map(|&k| row[k].clone()).collect(),
        None => key.to_vec(),
    };
    let removed = writer(host, table).and_then(|writer| writer.delete.run(own.iter().map(Value::as_ref)));
    match guard(host, removed)? {
        0 if log_unchanged => log_anyway(host, table, key, Operation::Delete, Written::default(), label),
        0 => Ok(Written::default()),
        _ => {
            let version = append(host, table, Operation::Delete, label, own.iter().map(Value::as_ref)).map_err(RowFailure::Fatal)?;
            Ok(Written { version: Some(version), changed: true, caused: Vec::new() })
        }
    }
}

/// What writing a row did.
#[derive(Clone, Copy)]
enum Done {
    Inserted,
    Updated,
    Nothing,
}

/// The statements of one table.
struct TableWriter<'c> {
    insert: RawStatement<'c>,
    /// None if the key is all there is.
    update: Option<RawStatement<'c>>,
    delete: RawStatement<'c>,
    log: RawStatement<'c>,
    log_delete: RawStatement<'c>,
    /// The last row was there already, so the next may be too.
    updates: bool,
}

impl<'c> TableWriter<'c> {
    fn new(connection: &'c Connection, table: &Table) -> Result<TableWriter<'c>> {
        let name = TableName(&table.table_name);
        let columns = list(table.columns.iter().map(|c| c.name.as_str()));
        let slots: Vec<String> = (1..=table.columns.len()).map(|slot| format!("?{slot}")).collect();
        let key = list(table.key.iter().map(|&k| table.columns[k].name.as_str()));
        let others: Vec<usize> = (0..table.columns.len()).filter(|c| !table.key.contains(c)).collect();
        let set: Vec<String> = others.iter().map(|&c| format!("{} = {}", Identifier(&table.columns[c].name), slots[c])).collect();
        let key_is: Vec<String> = table.key.iter().map(|&k| format!("{} = {}", Identifier(&table.columns[k].name), slots[k])).collect();
        // What the triggers would not log is not written.
        let differs = |c: usize| differ(&table.columns[c], &Identifier(&table.columns[c].name).to_string(), &slots[c]);
        let changed: Vec<String> = others.iter().map(|&c| differs(c)).collect();
        let insert = format!("INSERT OR ABORT INTO {name} ({columns}) VALUES ({}) ON CONFLICT ({key}) DO NOTHING", slots.join(", "));
        let update = format!("UPDATE OR ABORT {name} SET {} WHERE {} AND {}", set.join(", "), key_is.join(" AND "), any_of(&changed));
        let prepare = |sql: &str| RawStatement::prepare(connection, sql);
        Ok(TableWriter {
            insert: prepare(&insert)?,
            update: if others.is_empty() { None } else { Some(prepare(&update)?) },
            delete: prepare(&format!("DELETE FROM {name} WHERE {}", key_condition(table, 1)))?,
            log: prepare(&log_statement(table.layout, 0..table.columns.len()))?,
            log_delete: prepare(&log_statement(table.layout, table.key.iter().copied()))?,
            updates: false,
        })
    }

    fn write(&mut self, values: &[Option<Value>]) -> Result<Done> {
        let bound = || values.iter().map(|v| v.as_ref().map_or(ValueRef::Null, Value::as_ref));
        if self.updates && self.update(bound())? {
            return Ok(Done::Updated);
        }
        if self.insert.run(bound())? > 0 {
            self.updates = false;
            return Ok(Done::Inserted);
        }
        if !self.updates && self.update(bound())? {
            self.updates = true;
            return Ok(Done::Updated);
        }
        Ok(Done::Nothing)
    }

    fn update<'v>(&mut self, values: impl Iterator<Item = ValueRef<'v>>) -> Result<bool> {
        match &mut self.update {
            Some(update) => update.run(values).map(|changes| changes > 0),
            None => Ok(false),
        }
    }
}

/// Appends an entry that holds these columns of a layout; all else are parameters, in the order of [`append`].
fn log_statement(layout: i64, columns: impl Iterator<Item = usize>) -> String {
    let slots: Vec<String> = columns.map(|column| format!("c{}", column + 1)).collect();
    let parameters: Vec<String> = (1..=7 + slots.len()).map(|place| format!("?{place}")).collect();
    format!(
        "INSERT INTO _sync_log_data (layout, version, operation, origin, clock, stamp, via, contested, {}) VALUES ({layout}, {})",
        slots.join(", "),
        parameters.join(", ")
    )
}

fn writer<'h, 'c>(host: &'h mut SqliteHost<'c>, table: &Table) -> Result<&'h mut TableWriter<'c>> {
    let Some(bulk) = &mut host.bulk else { return Err(sync_shared::Error::corrupt("rows are written past the triggers outside a group")) };
    let place = match bulk.tables.iter().position(|(layout, _)| *layout == table.layout) {
        Some(place) => place,
        None => {
            bulk.tables.push((table.layout, TableWriter::new(bulk.connection, table)?));
            bulk.tables.len() - 1
        }
    };
    Ok(&mut bulk.tables[place].1)
}

fn write(host: &mut SqliteHost<'_>, table: &Table, values: &[Option<Value>]) -> Result<Done> {
    writer(host, table)?.write(values)
}

/// A row of which only some columns are given; did it change anything?
fn write_part(host: &mut SqliteHost<'_>, table: &Table, values: &[Option<Value>], key: &[Value]) -> Result<Done> {
    let before = read_row(host, table, key)?;
    put_part(host, table, values)?;
    Ok(match before {
        None => Done::Inserted,
        before if before == read_row(host, table, key)? => Done::Nothing,
        Some(_) => Done::Updated,
    })
}

/// Logs what was written; returns the version.
fn append<'v>(
    host: &mut SqliteHost<'_>,
    table: &Table,
    operation: Operation,
    label: Option<&Label>,
    values: impl Iterator<Item = ValueRef<'v>>,
) -> Result<i64> {
    let version = host.position()? + 1;
    let clock = match host.bulk.as_ref().and_then(|bulk| bulk.clock) {
        Some(clock) => clock,
        None => clock(host)?,
    };
    let integer = |value: Option<i64>| value.map_or(ValueRef::Null, ValueRef::Integer);
    let (number, self_id) = (operation.number(), host.bulk.as_ref().map_or(0, |bulk| bulk.self_id));
    let lead = [
        ValueRef::Integer(version),
        ValueRef::Integer(number),
        ValueRef::Integer(label.map_or(self_id, |l| l.origin)),
        ValueRef::Integer(clock),
        integer(label.map(|l| l.stamp)),
        integer(label.and_then(|l| l.via)),
        integer(label.filter(|l| l.contested).map(|_| 1)),
    ];
    let writer = writer(host, table)?;
    let log = if operation == Operation::Delete { &mut writer.log_delete } else { &mut writer.log };
    log.run(lead.into_iter().chain(values))?;
    host.set_position(version);
    if let Some(bulk) = &mut host.bulk {
        bulk.clock = Some(clock);
    }
    Ok(version)
}

/// Logs a row as the table holds it.
fn log_stored(host: &mut SqliteHost<'_>, table: &Table, key: &[Value], operation: Operation, label: Option<&Label>) -> Result<i64> {
    let version = log_row(host, table, key, operation, label);
    host.forget_position();
    version
}

/// What a column holds after a value was written to it; None if that is not certain. A key may be equal to what is there already and not
/// the same.
fn stored_as<'v>(value: &'v Value, column: &Column, key: bool) -> Option<ValueRef<'v>> {
    match (value, column.storage) {
        (Value::Integer(i), Storage::Real) => Some(ValueRef::Real(*i as f64)),
        (Value::Integer(_) | Value::Real(_), Storage::Text) => None,
        (Value::Integer(_) | Value::Real(_), Storage::Any) if key => None,
        // A number that could as well be an integer becomes one.
        (Value::Real(r), Storage::Number) if r.fract() == 0.0 => None,
        _ => Some(value.as_ref()),
    }
}

#[cfg(test)]
mod tests {
    use super::opens_no_table;

    #[test]
    fn a_select_without_a_table_is_told_from_one_with() {
        for sql in ["SELECT sync_apply_batch(?)", " select sync_apply_batch(:batch, '{\"dryRun\":true}') AS result;"] {
            assert!(opens_no_table(sql), "{sql}");
        }
        for sql in ["SELECT sync_apply_batch(batch) FROM inbox", "INSERT INTO t VALUES (sync_retry())", "SELECT sync_retry() WHERE 1 in t", ""] {
            assert!(!opens_no_table(sql), "{sql}");
        }
    }
}
