//! Rows of tracked tables: written as any writer writes them, with their triggers and constraints, never by REPLACE.
//!
//! The capture triggers log what is written; the entry of the row itself is then given the label of the change. Which entry that is
//! follows from the number of changes SQLite counts, or is looked for where other triggers may have written too.

use crate::capture::parts;
use crate::error::with_extended_code;
use crate::functions::register_canonical_text;
use crate::host::SqliteHost;
use crate::log::{flush_labels, head, key_condition, log_row, relabel};
use crate::order::collation;
use crate::quote::{Identifier, Literal, TableName, list};
use crate::spelling::{as_spelled, correct, correction, key_as_spelled};
use crate::statements::refs;
use crate::triggers;
use sync_shared::{Error, Host as _, Label, Operation, Portable, Result, Row, RowFailure, Table, Value, ValueRef, Written};

/// What is known of a table while its rows are written.
pub struct RowPlan {
    layout: i64,
    upsert: String,
    delete: String,
    /// Rows of the log that an entry takes.
    parts: u64,
    /// Other triggers than ours: counting changes says nothing.
    watched: bool,
    /// One of them may ignore the row after it has written something.
    may_ignore: bool,
    only_key: bool,
}

impl RowPlan {
    fn new(host: &mut SqliteHost<'_>, table: &Table) -> Result<RowPlan> {
        let name = TableName(&table.table_name);
        let columns = list(table.columns.iter().map(|c| c.name.as_str()));
        let slots: Vec<String> = (1..=table.columns.len()).map(|slot| format!("?{slot}")).collect();
        let key = list(table.key.iter().map(|&k| table.columns[k].name.as_str()));
        let set: Vec<String> = table
            .columns
            .iter()
            .enumerate()
            .filter(|(i, _)| !table.key.contains(i))
            .map(|(_, c)| format!("{0} = excluded.{0}", Identifier(&c.name)))
            .collect();
        let action = if set.is_empty() { "DO NOTHING".to_owned() } else { format!("DO UPDATE SET {}", set.join(", ")) };
        let others = triggers::others(host, &table.table_name)?;
        Ok(RowPlan {
            layout: table.layout,
            upsert: format!("INSERT OR ABORT INTO {name} ({columns}) VALUES ({}) ON CONFLICT ({key}) {action}", slots.join(", ")),
            delete: format!("DELETE FROM {name} WHERE {}", key_condition(table, 1)),
            parts: parts(table.columns.len()) as u64,
            watched: !others.is_empty(),
            may_ignore: others.iter().any(|trigger| trigger.to_ascii_uppercase().contains("IGNORE")),
            only_key: set.is_empty(),
        })
    }
}

pub fn put_row(
    host: &mut SqliteHost<'_>,
    table: &Table,
    values: &[Option<Value>],
    label: Option<&Label>,
    log_unchanged: bool,
) -> Result<Written, RowFailure> {
    let plan = plan(host, table)?;
    let values = &*as_spelled(host, table, values)?;
    whole_or_not(host, plan.may_ignore, |host| {
        let before = host.position()?;
        let count = host.connection.total_changes();
        // An INSERT fails for want of an excluded column that may not be NULL, even if the row is there.
        let whole = table.exclude.is_empty() && values.iter().all(Option::is_some);
        let result = match whole {
            true => upsert(host, &plan, values),
            false => put_part(host, table, values),
        };
        // Of a row that is nothing but its key nothing is written if it is there.
        let is_written = guard(host, result)? > 0;
        if !is_written && (!plan.only_key || (plan.watched && read_row(host, table, &key_values(table, values))?.is_none())) {
            return Err(ignored());
        }
        let changes = host.connection.total_changes() - count;
        let written = match settle(host, &plan, (before, changes), false) {
            Some(written) => written,
            None => search(host, table, &plan, &key_values(table, values), before, false)?,
        };
        match (written.version, label) {
            (Some(version), Some(label)) => relabel(host, version, label)?,
            (None, _) if log_unchanged => return log_anyway(host, table, &key_values(table, values), Operation::Update, written, label),
            _ => {}
        }
        Ok(written)
    })
}

pub fn remove_row(
    host: &mut SqliteHost<'_>,
    table: &Table,
    key: &[Value],
    label: Option<&Label>,
    log_unchanged: bool,
) -> Result<Written, RowFailure> {
    let plan = plan(host, table)?;
    let key = &*key_as_spelled(host, table, key)?;
    whole_or_not(host, plan.may_ignore, |host| {
        let before = host.position()?;
        if let Some(corrected) = correction(host, table, key)? {
            return correct(host, table, key, &corrected, label);
        }
        let count = host.connection.total_changes();
        let result = host.statements.execute(&plan.delete, &refs(key));
        if guard(host, result)? == 0 && plan.watched && read_row(host, table, key)?.is_some() {
            return Err(ignored());
        }
        let changes = host.connection.total_changes() - count;
        let written = match settle(host, &plan, (before, changes), true) {
            Some(written) => written,
            None => search(host, table, &plan, key, before, true)?,
        };
        match (written.version, label) {
            (Some(version), Some(label)) => relabel(host, version, label)?,
            (None, _) if log_unchanged => return log_anyway(host, table, key, Operation::Delete, written, label),
            _ => {}
        }
        Ok(written)
    })
}

/// The row's synced columns, in the table's order.
pub fn read_row(host: &mut SqliteHost<'_>, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>> {
    let columns = list(table.columns.iter().map(|c| c.name.as_str()));
    let sql = format!("SELECT {columns} FROM {} WHERE {}", TableName(&table.table_name), key_condition(table, 1));
    let mut found = None;
    host.statements.query(&sql, &refs(key), &mut |row| {
        let values = (0..table.columns.len()).map(|column| row.value(column).map(ValueRef::to_owned));
        found = Some(values.collect::<Result<_>>()?);
        Ok(false)
    })?;
    Ok(found)
}

/// Every row, ordered by key: NULL, numbers, texts by bytes, blobs.
pub fn stream_rows(host: &mut SqliteHost<'_>, table: &Table, visit: &mut dyn FnMut(&dyn Row) -> Result<bool>) -> Result<()> {
    let columns = list(table.columns.iter().map(|c| c.name.as_str()));
    let collation = collation(host)?;
    let order = table.key.iter().map(|&k| {
        let column = Identifier(&table.columns[k].name);
        // Texts are ordered in their canonical form.
        match table.columns[k].portable {
            Portable::Uuid => format!("lower({column}) COLLATE {collation}"),
            portable @ (Portable::Datetime | Portable::Time | Portable::Json) => {
                let name = Literal(&portable.name());
                format!("CASE typeof({column}) WHEN 'text' THEN _sync_canonical_text({column}, {name}) ELSE {column} END COLLATE {collation}")
            }
            _ => format!("{column} COLLATE {collation}"),
        }
    });
    let order = order.collect::<Vec<_>>().join(", ");
    if order.contains("_sync_canonical_text(") {
        register_canonical_text(host.connection)?;
    }
    let sql = format!("SELECT {columns} FROM {} ORDER BY {order}", TableName(&table.table_name));
    host.statements.query(&sql, &[], &mut |row| visit(row))
}

fn plan(host: &mut SqliteHost<'_>, table: &Table) -> Result<std::rc::Rc<RowPlan>> {
    if let Some(plan) = host.plans.get(&table.layout) {
        return Ok(plan.clone());
    }
    let plan = std::rc::Rc::new(RowPlan::new(host, table)?);
    host.plans.insert(table.layout, plan.clone());
    Ok(plan)
}

/// Writes one row. What a trigger wrote that ignored the row is undone, as all is that belongs to a row that is refused.
fn whole_or_not(
    host: &mut SqliteHost<'_>,
    may_ignore: bool,
    write: impl FnOnce(&mut SqliteHost<'_>) -> Result<Written, RowFailure>,
) -> Result<Written, RowFailure> {
    if !may_ignore {
        return write(host);
    }
    host.begin()?;
    let written = write(host);
    if written.is_ok() && let Err(error) = host.end(true) {
        host.end(false).ok();
        return Err(error.into());
    }
    if written.is_err() {
        host.end(false)?;
    }
    written
}

/// The rows written, not counting those that a trigger ignored or wrote.
fn upsert(host: &mut SqliteHost<'_>, plan: &RowPlan, values: &[Option<Value>]) -> Result<u64> {
    let statement = host.statements.get(plan.layout, &plan.upsert)?;
    statement.run(values.iter().map(|value| value.as_ref().map_or(ValueRef::Null, Value::as_ref)))
}

/// A payload that does not name every column: the others keep their values, or get their defaults. Returns the rows written as [`upsert`],
/// or 1 if nothing was to be written.
pub fn put_part(host: &mut SqliteHost<'_>, table: &Table, values: &[Option<Value>]) -> Result<u64> {
    let name = TableName(&table.table_name);
    let given: Vec<usize> = (0..values.len()).filter(|&c| values[c].is_some()).collect();
    let parameters: Vec<ValueRef<'_>> = given.iter().filter_map(|&c| values[c].as_ref().map(Value::as_ref)).collect();
    let slot = |column: usize| given.iter().position(|&c| c == column).map_or(0, |place| place + 1);
    let set: Vec<String> = given
        .iter()
        .filter(|c| !table.key.contains(c))
        .map(|&c| format!("{} = ?{}", Identifier(&table.columns[c].name), slot(c)))
        .collect();
    let condition: Vec<String> =
        table.key.iter().map(|&k| format!("{} = ?{}", Identifier(&table.columns[k].name), slot(k))).collect();
    let condition = condition.join(" AND ");
    let exists = host.statements.integer(
        &format!("SELECT 1 FROM {name} WHERE {condition}"),
        &key_parameters(&condition, &parameters),
    )?;
    if exists.is_some() {
        if set.is_empty() {
            return Ok(1);
        }
        return host.statements.execute(&format!("UPDATE OR ABORT {name} SET {} WHERE {condition}", set.join(", ")), &parameters);
    }
    let columns = list(given.iter().map(|&c| table.columns[c].name.as_str()));
    let slots: Vec<String> = (1..=given.len()).map(|slot| format!("?{slot}")).collect();
    host.statements.execute(&format!("INSERT OR ABORT INTO {name} ({columns}) VALUES ({})", slots.join(", ")), &parameters)
}

/// SQLite numbers parameters up to the highest used: only as many may be bound.
fn key_parameters<'v>(condition: &str, parameters: &[ValueRef<'v>]) -> Vec<ValueRef<'v>> {
    let used = condition.split('?').skip(1).filter_map(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<usize>().ok()
    });
    parameters[..used.max().unwrap_or(0).min(parameters.len())].to_vec()
}

pub fn key_values(table: &Table, values: &[Option<Value>]) -> Vec<Value> {
    table.key.iter().map(|&k| values[k].clone().unwrap_or(Value::Null)).collect()
}

pub fn ignored() -> RowFailure {
    RowFailure::refused("ConstraintViolation", "SQLITE_CONSTRAINT_TRIGGER", "a trigger ignored the row; what it wrote itself was undone")
}

/// A failed statement leaves nothing behind, unless a trigger ended the transaction.
pub fn guard<T>(host: &mut SqliteHost<'_>, result: Result<T>) -> Result<T, RowFailure> {
    match result {
        Ok(done) => Ok(done),
        Err(error) if host.transactions.is_lost(host.connection) => Err(match with_extended_code(host.connection, error) {
            Error::Engine(engine) => RowFailure::Lost(engine),
            other => RowFailure::Fatal(other),
        }),
        Err(error) => {
            host.forget_position();
            Err(with_extended_code(host.connection, error).into())
        }
    }
}

/// What a write did, by the number of changes SQLite counted; None if that does not tell.
fn settle(host: &mut SqliteHost<'_>, plan: &RowPlan, (before, changes): (i64, u64), deleted: bool) -> Option<Written> {
    if plan.watched {
        return None;
    }
    if changes == 0 || (changes == 1 && !deleted) {
        return Some(Written::default());
    }
    if changes != 1 + plan.parts {
        return None;
    }
    let version = before + plan.parts as i64;
    host.set_position(version);
    Some(Written { version: Some(version), changed: true, caused: Vec::new() })
}

/// Finds the entry that the triggers made for the row itself.
fn search(host: &mut SqliteHost<'_>, table: &Table, plan: &RowPlan, key: &[Value], before: i64, deleted: bool) -> Result<Written> {
    host.forget_position();
    flush_labels(host)?;
    let now = host.position()?;
    let version = own_entry(host, table, key, before, deleted)?;
    let own_rows = if version.is_some() { plan.parts as i64 } else { 0 };
    let caused = if now - before > own_rows { entries_after(host, before, version.as_slice())? } else { Vec::new() };
    Ok(Written { version, changed: version.is_some(), caused })
}

/// The versions of the entries after another, but for those that are left out.
pub fn entries_after(host: &mut SqliteHost<'_>, after: i64, left_out: &[i64]) -> Result<Vec<i64>> {
    let mut found = Vec::new();
    let sql = "SELECT version FROM _sync_log_data WHERE version > ?1 AND operation < 3 ORDER BY version";
    host.statements.query(sql, &[ValueRef::Integer(after)], &mut |row| {
        found.push(row.integer(0)?);
        Ok(true)
    })?;
    found.retain(|version| !left_out.contains(version));
    Ok(found)
}

/// The first entry of the row after a version: our triggers fire before the user's.
pub fn own_entry(host: &mut SqliteHost<'_>, table: &Table, key: &[Value], after: i64, deleted: bool) -> Result<Option<i64>> {
    let last = parts(table.columns.len()) - 1;
    let mut condition = String::new();
    let mut parameters = vec![ValueRef::Integer(after)];
    for (place, &column) in table.key.iter().enumerate() {
        let (part, slot) = (column / crate::capture::PART_WIDTH, column % crate::capture::PART_WIDTH + 1);
        if part == last {
            parameters.push(key[place].as_ref());
            condition.push_str(&format!(" AND c{slot} IS ?{}", parameters.len()));
        }
    }
    let operation = if deleted { "operation = 2" } else { "operation < 2" };
    let sql = format!(
        "SELECT version FROM _sync_log_data WHERE version > ?1 AND layout = {} AND {operation}{condition} ORDER BY version LIMIT 1",
        table.layout
    );
    host.statements.integer(&sql, &parameters)
}

/// Logs a row that was as it should be already, or a delete of a row that was not there.
pub fn log_anyway(
    host: &mut SqliteHost<'_>,
    table: &Table,
    key: &[Value],
    operation: Operation,
    written: Written,
    label: Option<&Label>,
) -> Result<Written, RowFailure> {
    flush_labels(host)?;
    let version = log_row(host, table, key, operation, label)?;
    host.forget_position();
    Ok(Written { version: Some(version), ..written })
}

impl SqliteHost<'_> {
    /// The log's highest version, remembered while this call writes.
    pub fn position(&mut self) -> Result<i64> {
        match self.log_position {
            Some(position) => Ok(position),
            None => {
                let position = head(self)?;
                self.log_position = Some(position);
                Ok(position)
            }
        }
    }

    pub fn set_position(&mut self, version: i64) {
        self.log_position = Some(version);
    }

    pub fn forget_position(&mut self) {
        self.log_position = None;
        if let Some(bulk) = &mut self.bulk {
            bulk.clock = None;
        }
    }

    /// Id of this replica in `_sync_origins`.
    pub fn self_id(&mut self) -> Result<i64> {
        let id = self.statements.integer("SELECT CAST(value AS INTEGER) FROM _sync_state WHERE key = 'self_id'", &[])?;
        id.ok_or_else(|| Error::new(sync_shared::Kind::NotInitialized, "call sync_init() or sync_track_table(...) first"))
    }
}
