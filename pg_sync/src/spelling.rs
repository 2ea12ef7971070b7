//! Keys that a type or a collation holds to be equal though they are written in different ways.
//!
//! Numbers are one value, however many digits they are written with: a row is written under the key that it has. Everything else, as of
//! citext or of a collation that ignores case, is another row to every other replica ([`TablePlan::folded`]): it is not found under the
//! other spelling, and cannot be put beside it.

use crate::host::PgHost;
use crate::pending::{self, Pending, PendingRow};
use crate::rows::Converted;
use crate::spi::{self, Parameter, View};
use crate::tables::TablePlan;
use sync_shared::{Label, Result, RowFailure, Value, Written};

/// A key of numbers as its row has it; None if it is written so already, or there is no such row.
pub fn stored_key(plan: &TablePlan, key: &[Parameter]) -> Result<Option<Vec<Parameter>>> {
    if !plan.has_key_by_value() {
        return Ok(None);
    }
    let Some(stored) = read_key(plan, &plan.key_condition(1), key)? else { return Ok(None) };
    Ok(plan.key_parameters(&stored).ok())
}

/// A row with the key that it has here.
pub fn as_stored(plan: &TablePlan, given: &[usize], row: &Converted) -> Result<Option<Converted>> {
    let Some(key) = stored_key(plan, &row.key)? else { return Ok(None) };
    let own = |column: usize| plan.key.iter().position(|&k| k == column).map(|place| key[place]);
    let values = given.iter().zip(&row.values).map(|(&column, value)| own(column).unwrap_or(*value)).collect();
    let pk_value = plan.write_key(&key)?;
    Ok(Some(Converted { values, key, pk_value }))
}

/// The refusal of a row whose key is that of another one to the server.
pub fn taken(plan: &TablePlan, key: &[Parameter]) -> Result<Option<RowFailure>> {
    if plan.folded.is_empty() {
        return Ok(None);
    }
    let Some(found) = read_key(plan, &plan.equal_keys(), key)? else { return Ok(None) };
    let Ok(stored) = plan.key_parameters(&found) else { return Ok(None) };
    let message = format!(
        "the key {} is taken by the row {}, which the column's type or collation holds to be equal; spell it alike on all replicas, or delete \
         one of the two rows",
        plan.write_key(key)?,
        plan.write_key(&stored)?
    );
    Ok(Some(RowFailure::refused("ConstraintViolation", "23505", message)))
}

/// Gives a row another key, which the server holds to be equal to its own, see [`sync_shared::Corrections`]: both entries, of the old key's delete
/// and the new key's insert, get the label. None if there is no such row, or the keys are not equal.
pub fn correct(
    host: &mut PgHost,
    plan: &TablePlan,
    key: &[Parameter],
    corrected: &[Parameter],
    label: Option<&Label>,
) -> Result<Option<Written>, RowFailure> {
    let pk_values = [plan.write_key(key)?, plan.write_key(corrected)?];
    let is_ours = host.held.has_row(plan.id, &pk_values[0]) || host.held.has_table(plan.id);
    let is_equal = || -> Result<bool> {
        let Some(found) = read_key(plan, &plan.equal_keys(), corrected)? else { return Ok(false) };
        Ok(plan.key_parameters(&found).ok().map(|found| plan.write_key(&found)).transpose()?.as_ref() == Some(&pk_values[0]))
    };
    if !is_ours || !is_equal()? {
        return Ok(None);
    }
    let parameters: Vec<Parameter> = key.iter().chain(corrected).copied().collect();
    let values = [None, Some(corrected.iter().map(|value| value.datum).collect())];
    let row = |(pk_value, values): (&String, _)| PendingRow { pk_value: pk_value.clone(), values, label: label.copied() };
    let rows = pk_values.iter().zip(values).map(row).collect();
    let mut count = Ok(0);
    let (entries, caused) = pending::with(Pending { table: plan.id, columns: plan.written(&plan.key), rows }, || {
        count = spi::execute(&plan.correct_key(), &parameters);
    });
    if count? == 0 {
        return Ok(None);
    }
    host.held.forget_row(plan.id, &pk_values[0]);
    host.held.add_row(plan.id, &pk_values[1]);
    let version = entries.first().copied().flatten().map(|entry| entry.version);
    Ok(Some(Written { version, changed: true, caused }))
}

/// Why a key cannot be taken: its type writes it in another way than it has come, so its sender would take it for another row's.
pub fn respelled(plan: &TablePlan, key: &[Parameter], sent: impl Fn(usize) -> Option<Value>) -> Result<Option<String>> {
    for (place, &k) in plan.key.iter().enumerate().filter(|(_, k)| plan.folded.contains(k)) {
        let (Some(datum), Some(Value::Text(sent))) = (key[place].datum, sent(k)) else { continue };
        let Value::Text(kept) = plan.columns[k].form.value(datum)? else { continue };
        if kept != sent {
            let name = &plan.columns[k].name;
            return Ok(Some(format!("the key column {name:?} spells {sent:?} as {kept:?}, which its origin would take for another row; write it so there")));
        }
    }
    Ok(None)
}

fn read_key(plan: &TablePlan, condition: &str, key: &[Parameter]) -> Result<Option<Vec<Value>>> {
    let sql = format!("{} WHERE {condition}", plan.select_key());
    let (_, found) = spi::run(&sql, key, View::Latest, |rows| match rows.len() {
        0 => Ok(None),
        _ => {
            let value = |(place, &k): (usize, &usize)| match rows.datum(0, place) {
                None => Ok(Value::Null),
                Some(datum) => plan.columns[k].form.value(datum),
            };
            plan.key.iter().enumerate().map(value).collect::<Result<Vec<Value>>>().map(Some)
        }
    })?;
    Ok(found)
}
