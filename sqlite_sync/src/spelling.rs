//! Rows by their keys as they go over the wire: a row is written, deleted and referred to under the spelling that it has here.
//!
//! The spellings of a wire form are looked for by the table's own index, and only in tables whose keys can have several. A row whose
//! key a collation holds to be equal to another's is another row: it is never written in its place.

use crate::host::SqliteHost;
use crate::log::{flush_labels, key_condition, relabel};
use crate::quote::{Identifier, TableName, list};
use crate::rows::{entries_after, guard, ignored, key_values, own_entry};
use std::borrow::Cow;
use sync_shared::{Column, Label, Result, Row as _, RowFailure, Table, Value, ValueRef, Written};

/// A row's values, its key and what it refers to as they are spelled here.
///
/// Refused: a collation holds the key to be equal to that of another row.
pub fn as_spelled<'v>(
    host: &mut SqliteHost<'_>,
    table: &Table,
    values: &'v [Option<Value>],
) -> Result<Cow<'v, [Option<Value>]>, RowFailure> {
    if !table.respells() && !table.folds() {
        return Ok(Cow::Borrowed(values));
    }
    let mut spelled = Cow::Borrowed(values);
    let key = key_values(table, values);
    match stored(host, table, &key)? {
        Some(found) if !table.is_same_key(&found, &key) => return Err(taken(table, &found, &key)),
        Some(found) if found != key => replace(&mut spelled, table.key.iter().copied().zip(found)),
        _ => {}
    }
    if table.respells() {
        refer(host, table, &mut spelled)?;
    }
    Ok(spelled)
}

/// A key as its row here spells it; as it is given if there is none, or one under a key that is only equal to it.
pub fn key_as_spelled<'k>(host: &mut SqliteHost<'_>, table: &Table, key: &'k [Value]) -> Result<Cow<'k, [Value]>> {
    if !table.respells() {
        return Ok(Cow::Borrowed(key));
    }
    Ok(match stored(host, table, key)?.filter(|found| found != key && table.is_same_key(found, key)) {
        Some(found) => Cow::Owned(found),
        None => Cow::Borrowed(key),
    })
}

/// Every key that names the same row, the given one first.
pub fn spellings(table: &Table, key: &[Value]) -> Vec<Vec<Value>> {
    let mut all = vec![Vec::with_capacity(key.len())];
    for (&k, value) in table.key.iter().zip(key) {
        let column = &table.columns[k];
        let values = match value {
            Value::Text(text) if column.respells() => column.spellings(text).into_iter().map(Value::Text).collect(),
            _ => vec![value.clone()],
        };
        all = all.iter().flat_map(|head| values.iter().map(|v| head.iter().chain([v]).cloned().collect())).collect();
    }
    all
}

/// The key that a row which is to be deleted gets instead, see [`sync_shared::Corrections`].
pub fn correction(host: &mut SqliteHost<'_>, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>> {
    let Some(corrected) = host.corrections.of(table, key).map(<[Value]>::to_vec) else { return Ok(None) };
    Ok(stored(host, table, &corrected)?.filter(|found| found == key).map(|_| corrected))
}

/// Gives a row another key, which is equal to its own: both entries, of the old key's delete and the new key's insert, get the label.
pub fn correct(
    host: &mut SqliteHost<'_>,
    table: &Table,
    key: &[Value],
    corrected: &[Value],
    label: Option<&Label>,
) -> Result<Written, RowFailure> {
    let before = host.position()?;
    let slot = |place: usize| format!("?{}", key.len() + place + 1);
    let set = table.key.iter().enumerate().map(|(place, &k)| format!("{} = {}", Identifier(&table.columns[k].name), slot(place)));
    let set = set.collect::<Vec<_>>().join(", ");
    let sql = format!("UPDATE OR ABORT {} SET {set} WHERE {}", TableName(&table.table_name), key_condition(table, 1));
    let parameters: Vec<ValueRef<'_>> = key.iter().chain(corrected).map(Value::as_ref).collect();
    let updated = host.statements.execute(&sql, &parameters).map(|_| ());
    guard(host, updated)?;
    host.forget_position();
    flush_labels(host)?;
    let Some(deleted) = own_entry(host, table, key, before, true)? else { return Err(ignored()) };
    let inserted = own_entry(host, table, corrected, before, false)?;
    if let Some(label) = label {
        relabel(host, deleted, label)?;
        inserted.map_or(Ok(()), |version| relabel(host, version, label))?;
    }
    let own: Vec<i64> = [Some(deleted), inserted].into_iter().flatten().collect();
    Ok(Written { version: Some(deleted), changed: true, caused: entries_after(host, before, &own)? })
}

fn stored(host: &mut SqliteHost<'_>, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>> {
    let columns: Vec<(&str, &Column)> = table.key.iter().map(|&k| (table.columns[k].name.as_str(), &table.columns[k])).collect();
    find(host, &table.table_name, &columns, key)
}

/// Puts the spelling of the row that is referred to in place of what the wire says, if such a row is there.
fn refer(host: &mut SqliteHost<'_>, table: &Table, values: &mut Cow<'_, [Option<Value>]>) -> Result<()> {
    for reference in &table.references {
        let places: Option<Vec<usize>> = reference.columns.iter().map(|name| table.column_named(name)).collect();
        let Some(places) = places.filter(|places| places.iter().any(|&c| table.columns[c].respells())) else { continue };
        let given: Option<Vec<Value>> = places.iter().map(|&c| values[c].clone().filter(|v| *v != Value::Null)).collect();
        let Some(given) = given.filter(|_| places.len() == reference.parent_columns.len()) else { continue };
        let columns: Vec<(&str, &Column)> =
            reference.parent_columns.iter().map(String::as_str).zip(places.iter().map(|&c| &table.columns[c])).collect();
        let found = find(host, &reference.parent, &columns, &given)?;
        let is_same = |found: &Vec<Value>| {
            places.iter().zip(found.iter().zip(&given)).all(|(&c, pair)| match pair {
                (Value::Text(a), Value::Text(b)) => table.columns[c].on_wire(a) == table.columns[c].on_wire(b),
                _ => true,
            })
        };
        if let Some(found) = found.filter(|found| *found != given && is_same(found)) {
            replace(values, places.into_iter().zip(found));
        }
    }
    Ok(())
}

/// What these columns of a table hold, each described by one that says how it is spelled, in the row with these values: as they are spelled,
/// if there is such a row, or else in another way.
fn find(host: &mut SqliteHost<'_>, table: &str, columns: &[(&str, &Column)], values: &[Value]) -> Result<Option<Vec<Value>>> {
    let (mut parameters, mut terms) = (Vec::new(), Vec::new());
    for ((name, column), value) in columns.iter().zip(values) {
        let first = parameters.len() + 1;
        match value {
            Value::Text(text) if column.respells() => parameters.extend(column.spellings(text).into_iter().map(Value::Text)),
            _ => parameters.push(value.clone()),
        }
        let slots: Vec<String> = (first..=parameters.len()).map(|slot| format!("?{slot}")).collect();
        terms.push(format!("{} IN ({})", Identifier(name), slots.join(", ")));
    }
    let sql = format!("SELECT {} FROM {} WHERE {}", list(columns.iter().map(|(name, _)| *name)), TableName(table), terms.join(" AND "));
    let parameters: Vec<ValueRef<'_>> = parameters.iter().map(Value::as_ref).collect();
    let mut found: Option<Vec<Value>> = None;
    host.statements.query(&sql, &parameters, &mut |row| {
        let stored: Vec<Value> = (0..columns.len()).map(|place| row.value(place).map(ValueRef::to_owned)).collect::<Result<_>>()?;
        let is_exact = stored == values;
        if is_exact || found.is_none() {
            found = Some(stored);
        }
        Ok(!is_exact)
    })?;
    Ok(found)
}

fn replace(values: &mut Cow<'_, [Option<Value>]>, with: impl Iterator<Item = (usize, Value)>) {
    let values = values.to_mut();
    for (column, value) in with {
        // A number's storage class is the column's affair.
        if matches!(value, Value::Text(_)) {
            values[column] = Some(value);
        }
    }
}

fn taken(table: &Table, found: &[Value], key: &[Value]) -> RowFailure {
    let shown = |key: &[Value]| {
        let mut text = String::new();
        for (place, value) in key.iter().enumerate() {
            text.push_str(if place > 0 { ", " } else { "" });
            sync_shared::write_payload(&mut text, value.as_ref());
        }
        text
    };
    RowFailure::refused(
        "ConstraintViolation",
        "SQLITE_CONSTRAINT_PRIMARYKEY",
        format!(
            "the key {} is taken by the row {}, which the collation of {:?} holds to be equal; spell it alike on all replicas, or delete one of the \
             two rows",
            shown(key),
            shown(found),
            table.key_names().join(", ")
        ),
    )
}
