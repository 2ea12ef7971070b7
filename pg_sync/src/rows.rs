//! Rows of tracked tables: written as any writer writes them, with the caller's rights, and with their triggers and constraints.
//!
//! A row that is there is locked before it is judged (`lock_rows`), and is updated. A row that is not there cannot be locked: it is
//! inserted only if nobody else has inserted it meanwhile; else it is judged again. So nothing is overwritten unseen.

use crate::append;
use crate::definer::Definer;
use crate::host::PgHost;
use crate::pending::{self, Logged, Pending, PendingRow};
use crate::pinned::Pinned;
use crate::spi::{self, Aim, Parameter, View};
use crate::tables::TablePlan;
use sync_shared::{Label, Operation, Result, Row, RowFailure, Table, Value, Written};

/// The code of a row that a trigger ignored.
pub const IGNORED: &str = "38000";

/// A row as the server takes it.
pub struct Converted {
    /// Of the columns that are given.
    pub values: Vec<Parameter>,
    pub key: Vec<Parameter>,
    pub pk_value: String,
}

/// The columns that have a value.
pub fn given(values: &[Option<Value>]) -> Vec<usize> {
    (0..values.len()).filter(|&c| values[c].is_some()).collect()
}

/// Converts a row. Input functions may raise.
pub fn convert(plan: &TablePlan, given: &[usize], row: &[Option<Value>]) -> Result<Converted, RowFailure> {
    let mut values = Vec::with_capacity(given.len());
    for &column in given {
        let value = row[column].as_ref().unwrap_or(&Value::Null);
        values.push(plan.parameter(column, value).map_err(mismatch)?);
    }
    let key: Vec<Parameter> = plan.key.iter().map(|k| values[given.iter().position(|g| g == k).unwrap_or(0)]).collect();
    let pk_value = plan.write_key(&key)?;
    Ok(Converted { values, key, pk_value })
}

pub fn put_row(
    host: &mut PgHost,
    table: &Table,
    values: &[Option<Value>],
    label: Option<&Label>,
    log_unchanged: bool,
) -> Result<Written, RowFailure> {
    let plan = host.plan(table)?;
    let given = given(values);
    let written = host.guarded(|host| {
        let row = convert(&plan, &given, values)?;
        write_row(host, &plan, &given, &row, label)
    })?;
    let key = || table.key.iter().map(|&k| values[k].clone().unwrap_or(Value::Null)).collect();
    log_anyway(host, table, key, Operation::Update, written, label, log_unchanged)
}

pub fn remove_row(
    host: &mut PgHost,
    table: &Table,
    key: &[Value],
    label: Option<&Label>,
    log_unchanged: bool,
) -> Result<Written, RowFailure> {
    let plan = host.plan(table)?;
    let written = host.guarded(|host| {
        let key = plan.key_parameters(key).map_err(mismatch)?;
        let pk_value = plan.write_key(&key)?;
        let before = append::count();
        let pending = label.map(|label| PendingRow { pk_value: pk_value.clone(), values: None, label: *label });
        let (mut count, mut entry) = (0, None);
        let is_ours = host.holds(plan.id, &pk_value) || host.is_table_locked(plan.id);
        // Without the right to lock or to delete the statement says what is missing.
        let is_ours = is_ours || !plan.can_lock() || !plan.can_lock_table();
        if is_ours {
            (count, entry) = run(&plan, &[], &plan.delete_row(), &key, pending)?;
        }
        if count == 0 && is_there(&plan, &key)? {
            return Err(if is_ours { ignored() } else { overtaken(host, &plan, &key, &pk_value)? });
        }
        if count == 0 && is_hidden(&plan, &key)? {
            return Err(hidden());
        }
        host.release(plan.id, &pk_value);
        Ok(written(before, entry, count > 0))
    })?;
    log_anyway(host, table, || key.to_vec(), Operation::Delete, written, label, log_unchanged)
}

/// A row's synced columns.
pub fn read_row(host: &mut PgHost, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>> {
    let plan = host.plan(table)?;
    let Some(key) = plan.key_if_possible(key) else { return Ok(None) };
    let (_, row) = spi::run(&plan.select_row(), &key, View::Latest, |rows| match rows.len() {
        0 => Ok(None),
        _ => plan.values(rows, 0).map(Some),
    })?;
    Ok(row)
}

/// Every row in the order of TYPES.md.
pub fn stream_rows(host: &mut PgHost, table: &Table, visit: &mut dyn FnMut(&dyn Row) -> Result<bool>) -> Result<()> {
    let plan = host.plan(table)?;
    let _definer = (!host.reads_for_caller).then(|| Definer::owner_of(plan.relation));
    let _pinned = plan.is_ordered_by_output().then(Pinned::enter);
    spi::stream(&plan.select_in_order(), &[], Aim::AllRows, |rows, row| visit(&spi::OwnedRow(plan.values(rows, row)?)))
}

/// Updates the row if it is there, else inserts it.
pub fn write_row(
    host: &mut PgHost,
    plan: &TablePlan,
    given: &[usize],
    row: &Converted,
    label: Option<&Label>,
) -> Result<Written, RowFailure> {
    let Converted { values, key, pk_value } = row;
    let pending = || {
        let values = || values.iter().map(|value| value.datum).collect();
        label.map(|label| PendingRow { pk_value: pk_value.clone(), values: Some(values()), label: *label })
    };
    let before = append::count();
    if host.holds(plan.id, pk_value) || (host.is_table_locked(plan.id) && is_there(plan, key)?) {
        let Some(update) = plan.update_row(given) else { return Ok(Written::default()) };
        let (count, entry) = run(plan, given, &update, values, pending())?;
        if count > 0 {
            return Ok(written(before, entry, true));
        }
        if is_there(plan, key)? {
            return Err(ignored());
        }
        // What was written before, or its cascades, has removed the row.
        host.release(plan.id, pk_value);
    }
    let (count, entry) = run(plan, given, &plan.insert_row(given), values, pending())?;
    if count > 0 {
        host.hold(plan.id, pk_value);
        crate::identity::advance(plan, given, values);
        return Ok(written(before, entry, true));
    }
    match is_there(plan, key)? {
        true if plan.can_lock() => Err(overtaken(host, plan, key, pk_value)?),
        // Without the right to update there is no right to lock: this says so.
        true => {
            let update = plan.update_row(given).unwrap_or_else(|| plan.find_row());
            let (count, entry) = run(plan, given, &update, values, pending())?;
            Ok(written(before, entry, count > 0))
        }
        false => Err(ignored()),
    }
}

/// Another writer has made the row: it is locked and has to be judged again. One that cannot be locked is not the caller's to write.
fn overtaken(host: &mut PgHost, plan: &TablePlan, key: &[Parameter], pk_value: &str) -> Result<RowFailure> {
    if spi::execute(&plan.lock_row(), key)? == 0 {
        return Ok(ignored());
    }
    host.hold(plan.id, pk_value);
    Ok(RowFailure::Overtaken)
}

/// Runs a statement that writes one row; returns the rows written, and the row's entry.
fn run(
    plan: &TablePlan,
    given: &[usize],
    sql: &str,
    parameters: &[Parameter],
    pending: Option<PendingRow>,
) -> Result<(u64, Option<Logged>)> {
    let Some(row) = pending else { return Ok((spi::execute(sql, parameters)?, None)) };
    let mut count = Ok(0);
    let pending = Pending { table: plan.id, columns: plan.written(given), rows: vec![row] };
    let entries = pending::with(pending, || count = spi::execute(sql, parameters));
    Ok((count?, entries.into_iter().next().flatten()))
}

fn is_there(plan: &TablePlan, key: &[Parameter]) -> Result<bool> {
    spi::run(&plan.find_row(), key, View::Latest, |rows| Ok(rows.len() > 0)).map(|(_, there)| there)
}

/// Is there a row, which the caller did not see?
fn is_hidden(plan: &TablePlan, key: &[Parameter]) -> Result<bool> {
    let _definer = Definer::owner_of(plan.relation);
    is_there(plan, key)
}

/// Logs a row that was as it should be already, or a delete of a row that was not there.
pub fn log_anyway(
    host: &mut PgHost,
    table: &Table,
    key: impl FnOnce() -> Vec<Value>,
    operation: Operation,
    written: Written,
    label: Option<&Label>,
    log_unchanged: bool,
) -> Result<Written, RowFailure> {
    if written.version.is_some() || !log_unchanged {
        return Ok(written);
    }
    let version = crate::log::log_row(host, table, &key(), operation, label)?;
    Ok(Written { version: Some(version), ..written })
}

/// What a statement did, by the entries that this backend has logged.
fn written(before: u64, entry: Option<Logged>, changed: bool) -> Written {
    let logged = append::count() - before;
    let own = u64::from(entry.is_some_and(|e| e.labelled));
    Written { version: entry.map(|e| e.version), changed, caused_more: logged > own }
}

fn mismatch(message: String) -> RowFailure {
    RowFailure::refused("TypeMismatch", "22000", message)
}

fn hidden() -> RowFailure {
    RowFailure::refused("PermissionDenied", "42501", "row-level security keeps the caller from deleting the row")
}

fn ignored() -> RowFailure {
    RowFailure::refused("ConstraintViolation", IGNORED, "a trigger ignored the row, or row-level security hides it")
}
