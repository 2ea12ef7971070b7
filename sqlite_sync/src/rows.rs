//! Rows of tracked tables: written as any writer writes them, with their triggers and constraints, never by REPLACE.
//!
//! The capture triggers log what is written; the entry of the row itself is then given the label of the change. Which entry that is
//! follows from the number of changes SQLite counts, or is looked for where other triggers may have written too.

use crate::capture::parts;
use crate::error::with_extended_code;
use crate::functions::register_canonical_text;
use crate::host::SqliteHost;
use crate::log::{flush_labels, head, key_condition, log_row, relabel};
use crate::quote::{Identifier, Literal, list};
use crate::statements::refs;
use sync_shared::{Error, Label, Operation, Portable, Result, Row, RowFailure, Table, TextFold, Value, ValueRef, Written};

/// What is known of a table while its rows are written.
pub struct RowPlan {
    layout: i64,
    upsert: String,
    delete: String,
    /// Rows of the log that an entry takes.
    parts: u64,
    /// Other triggers than ours: counting changes says nothing.
    watched: bool,
    only_key: bool,
}

impl RowPlan {
    fn new(host: &mut SqliteHost<'_>, table: &Table) -> Result<RowPlan> {
        let name = Identifier(&table.table_name);
        let columns = list(table.columns.iter().map(|c| c.name.as_str()));
        let slots: Vec<String> = (1..=table.columns.len()).map(|slot| format!("?{slot}")).collect();
        let key = list(table.key.iter().map(|&k| table.columns[k].name.as_str()));
        let folded = table.key.iter().any(|&k| table.columns[k].fold != TextFold::Exact);
        let set: Vec<String> = table
            .columns
            .iter()
            .enumerate()
            .filter(|(i, c)| !table.key.contains(i) || c.fold != TextFold::Exact)
            .map(|(_, c)| format!("{0} = excluded.{0}", Identifier(&c.name)))
            .collect();
        let action = if set.is_empty() { "DO NOTHING".to_owned() } else { format!("DO UPDATE SET {}", set.join(", ")) };
        let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE";
        let triggers = host.statements.integer(sql, &[ValueRef::Text(&table.table_name)])?.unwrap_or(0);
        Ok(RowPlan {
            layout: table.layout,
            upsert: format!("INSERT OR ABORT INTO {name} ({columns}) VALUES ({}) ON CONFLICT ({key}) {action}", slots.join(", ")),
            delete: format!("DELETE FROM {name} WHERE {}", key_condition(table, 1)),
            parts: parts(table.columns.len()) as u64,
            watched: triggers > 3 || folded,
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
    let before = host.position()?;
    let count = host.connection.total_changes();
    // An INSERT fails for want of an excluded column that may not be NULL, even if the row is there.
    let whole = table.exclude.is_empty() && values.iter().all(Option::is_some);
    let result = match whole {
        true => upsert(host, &plan, values),
        false => put_part(host, table, values),
    };
    guard(host, result)?;
    let changes = host.connection.total_changes() - count;
    if changes == 0 && !plan.only_key {
        return Err(ignored());
    }
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
}

pub fn remove_row(
    host: &mut SqliteHost<'_>,
    table: &Table,
    key: &[Value],
    label: Option<&Label>,
    log_unchanged: bool,
) -> Result<Written, RowFailure> {
    let plan = plan(host, table)?;
    let before = host.position()?;
    let count = host.connection.total_changes();
    let result = host.statements.execute(&plan.delete, &refs(key)).map(|_| ());
    guard(host, result)?;
    let changes = host.connection.total_changes() - count;
    if changes == 0 && plan.watched && read_row(host, table, key)?.is_some() {
        return Err(ignored());
    }
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
}

/// The row's synced columns, in the table's order.
pub fn read_row(host: &mut SqliteHost<'_>, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>> {
    let columns = list(table.columns.iter().map(|c| c.name.as_str()));
    let sql = format!("SELECT {columns} FROM {} WHERE {}", Identifier(&table.table_name), key_condition(table, 1));
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
    let order = table.key.iter().map(|&k| {
        let column = Identifier(&table.columns[k].name);
        // Texts are ordered in their canonical form.
        match table.columns[k].portable {
            Portable::Uuid => format!("lower({column}) COLLATE BINARY"),
            portable @ (Portable::Datetime | Portable::Time | Portable::Json) => {
                format!("CASE typeof({column}) WHEN 'text' THEN _sync_canonical_text({column}, {}) ELSE {column} END COLLATE BINARY", Literal(&portable.name()))
            }
            _ => format!("{column} COLLATE BINARY"),
        }
    });
    let order = order.collect::<Vec<_>>().join(", ");
    if order.contains("_sync_canonical_text(") {
        register_canonical_text(host.connection)?;
    }
    let sql = format!("SELECT {columns} FROM {} ORDER BY {order}", Identifier(&table.table_name));
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

fn upsert(host: &mut SqliteHost<'_>, plan: &RowPlan, values: &[Option<Value>]) -> Result<()> {
    let statement = host.statements.get(plan.layout, &plan.upsert)?;
    statement.run(values.iter().map(|value| value.as_ref().map_or(ValueRef::Null, Value::as_ref))).map(|_| ())
}

/// A payload that does not name every column: the others keep their values, or get their defaults.
pub fn put_part(host: &mut SqliteHost<'_>, table: &Table, values: &[Option<Value>]) -> Result<()> {
    let name = Identifier(&table.table_name);
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
            return Ok(());
        }
        return host.statements.execute(&format!("UPDATE OR ABORT {name} SET {} WHERE {condition}", set.join(", ")), &parameters).map(|_| ());
    }
    let columns = list(given.iter().map(|&c| table.columns[c].name.as_str()));
    let slots: Vec<String> = (1..=given.len()).map(|slot| format!("?{slot}")).collect();
    host.statements.execute(&format!("INSERT OR ABORT INTO {name} ({columns}) VALUES ({})", slots.join(", ")), &parameters).map(|_| ())
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

fn ignored() -> RowFailure {
    RowFailure::refused("ConstraintViolation", "SQLITE_CONSTRAINT_TRIGGER", "a trigger ignored the row")
}

/// A failed statement leaves nothing behind, unless a trigger ended the transaction.
pub fn guard(host: &mut SqliteHost<'_>, result: Result<()>) -> Result<(), RowFailure> {
    match result {
        Ok(()) => Ok(()),
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
    Some(Written { version: Some(version), changed: true, caused_more: false })
}

/// Finds the entry that the triggers made for the row itself.
fn search(host: &mut SqliteHost<'_>, table: &Table, plan: &RowPlan, key: &[Value], before: i64, deleted: bool) -> Result<Written> {
    host.forget_position();
    flush_labels(host)?;
    let now = host.position()?;
    let version = own_entry(host, table, key, before, deleted)?;
    let own_rows = if version.is_some() { plan.parts as i64 } else { 0 };
    Ok(Written { version, changed: version.is_some(), caused_more: now - before > own_rows })
}

/// The first entry of the row after a version: our triggers fire before the user's.
fn own_entry(host: &mut SqliteHost<'_>, table: &Table, key: &[Value], after: i64, deleted: bool) -> Result<Option<i64>> {
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
