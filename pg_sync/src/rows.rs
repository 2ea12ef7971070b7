//! Rows of tracked tables: written as any writer writes them, with the caller's rights, and with their triggers and constraints.
//!
//! A row that is there is locked before it is judged (`lock_rows`), and is updated. A row that is not there cannot be locked: it is
//! inserted only if nobody else has inserted it meanwhile; else it is judged again. So nothing is overwritten unseen.

use crate::definer::Definer;
use crate::host::PgHost;
use crate::pending::{self, Logged, Pending, PendingRow};
use crate::pinned::Pinned;
use crate::spelling;
use crate::spi::{self, Aim, Parameter, View};
use crate::tables::TablePlan;
use pgrx::prelude::*;
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
    if let Some(sentence) = spelling::respelled(plan, &key, |column| row[column].clone())? {
        return Err(mismatch(sentence));
    }
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
    let corrected = host.corrections.of(table, key).map(<[Value]>::to_vec);
    let written = host.guarded(|host| {
        let key = plan.key_parameters(key).map_err(mismatch)?;
        if let Some(corrected) = &corrected {
            let corrected = plan.key_parameters(corrected).map_err(mismatch)?;
            if let Some(written) = spelling::correct(host, &plan, &key, &corrected, label)? {
                return Ok(written);
            }
        }
        let key = spelling::stored_key(&plan, &key)?.unwrap_or(key);
        let pk_value = plan.write_key(&key)?;
        let pending = PendingRow { pk_value: pk_value.clone(), values: None, label: label.copied() };
        let mut ran = Ran::default();
        let is_ours = host.held.has_row(plan.id, &pk_value) || host.held.has_table(plan.id);
        // Without the right to lock or to delete the statement says what is missing.
        let is_ours = is_ours || !plan.can_lock() || !plan.can_lock_table();
        if is_ours {
            ran = run(&plan, &[], &plan.delete_row(), &key, pending)?;
        }
        if ran.count == 0 && is_there(&plan, &key)? {
            return Err(if is_ours { ignored() } else { overtaken(host, &plan, &key, &pk_value)? });
        }
        if ran.count == 0 && exists(&plan, &key)? {
            return Err(hidden());
        }
        host.held.forget_row(plan.id, &pk_value);
        Ok(ran.written())
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
    let stored = spelling::as_stored(plan, given, row)?;
    let Converted { values, key, pk_value } = stored.as_ref().unwrap_or(row);
    let pending = || {
        let values = || values.iter().map(|value| value.datum).collect();
        PendingRow { pk_value: pk_value.clone(), values: Some(values()), label: label.copied() }
    };
    if host.held.has_row(plan.id, pk_value) || (host.held.has_table(plan.id) && is_there(plan, key)?) {
        let Some(update) = plan.update_row(given) else { return Ok(Written::default()) };
        let ran = run(plan, given, &update, values, pending())?;
        if ran.count > 0 {
            return Ok(ran.written());
        }
        if is_there(plan, key)? {
            return Err(ignored());
        }
        // What was written before, or its cascades, has removed the row.
        host.held.forget_row(plan.id, pk_value);
    }
    let ran = run(plan, given, &plan.insert_row(given), values, pending())?;
    if ran.count > 0 {
        if ran.entry.is_none() && !exists(plan, key)? {
            refuse_other_key(plan, pk_value);
        }
        host.held.add_row(plan.id, pk_value);
        crate::identity::advance(plan, given, values);
        return Ok(ran.written());
    }
    match is_there(plan, key)? {
        true if plan.can_lock() => Err(overtaken(host, plan, key, pk_value)?),
        // Without the right to update there is no right to lock: this says so.
        true => {
            let update = plan.update_row(given).unwrap_or_else(|| plan.find_row());
            Ok(run(plan, given, &update, values, pending())?.written())
        }
        false => Err(spelling::taken(plan, key)?.unwrap_or_else(ignored)),
    }
}

/// A row was inserted, and not with its key: raises, which undoes it. Followed, it would have both keys at whoever sent it.
fn refuse_other_key(plan: &TablePlan, pk_value: &str) {
    ereport!(
        ERROR,
        PgSqlErrorCode::ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION,
        format!(
            "a trigger or a rule of {} gives the row of the key {pk_value} another key; let it leave keys as they are, or write keys on every \
             replica as it would",
            plan.name
        )
    );
}

/// Another writer has made the row: it is locked and has to be judged again. One that cannot be locked is not the caller's to write.
fn overtaken(host: &mut PgHost, plan: &TablePlan, key: &[Parameter], pk_value: &str) -> Result<RowFailure> {
    if spi::execute(&plan.lock_row(), key)? == 0 {
        return Ok(ignored());
    }
    host.held.add_row(plan.id, pk_value);
    Ok(RowFailure::Overtaken)
}

/// What a statement did that writes one row.
#[derive(Default)]
struct Ran {
    /// Rows written.
    count: u64,
    entry: Option<Logged>,
    /// Versions of what else was logged, and of the row's entry if a trigger has made something else of it.
    caused: Vec<i64>,
}

impl Ran {
    fn written(self) -> Written {
        Written { version: self.entry.map(|entry| entry.version), changed: self.count > 0, caused: self.caused }
    }
}

/// Runs a statement that writes one row.
fn run(plan: &TablePlan, given: &[usize], sql: &str, parameters: &[Parameter], row: PendingRow) -> Result<Ran> {
    let mut count = Ok(0);
    let pending = Pending { table: plan.id, columns: plan.written(given), rows: vec![row] };
    let (entries, caused) = pending::with(pending, || count = spi::execute(sql, parameters));
    Ok(Ran { count: count?, entry: entries.into_iter().next().flatten(), caused })
}

fn is_there(plan: &TablePlan, key: &[Parameter]) -> Result<bool> {
    spi::run(&plan.find_row(), key, View::Latest, |rows| Ok(rows.len() > 0)).map(|(_, there)| there)
}

/// Is there a row, also if the caller does not see it?
fn exists(plan: &TablePlan, key: &[Parameter]) -> Result<bool> {
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

fn mismatch(message: String) -> RowFailure {
    RowFailure::refused("TypeMismatch", "22000", message)
}

fn hidden() -> RowFailure {
    RowFailure::refused("PermissionDenied", "42501", "row-level security keeps the caller from deleting the row")
}

fn ignored() -> RowFailure {
    RowFailure::refused("ConstraintViolation", IGNORED, "a trigger ignored the row or gave it the key of another, or row-level security hides it")
}
