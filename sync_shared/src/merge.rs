//! The strategies that make a third row out of two: `merge`, field by field, and `custom`, by the user's resolver.

use crate::batch::BatchKind;
use crate::change::{Change, Operation};
use crate::conflict::{Verdict, last_write};
use crate::error::{Error, Kind, Result};
use crate::host::Host;
use crate::payload::{Bound, Unbound};
use crate::table::Table;
use crate::value::Value;
use serde_json::json;
use std::borrow::Cow;

/// The two sides of a conflict.
pub struct Sides<'a> {
    pub table: &'a Table,
    pub direction: BatchKind,
    pub local: &'a Change<'a>,
    /// By column; empty for a delete.
    pub local_values: &'a [Option<Value>],
    pub remote: &'a Change<'a>,
    /// By column, None where it says nothing; empty for a delete.
    pub remote_values: &'a [Option<Value>],
    /// The last version that both knew, by column; looked for only if the strategy is to merge.
    pub base: Option<&'a [Option<Value>]>,
}

/// Field by field against the last version both sides knew. A field that only one side changed takes that side's value; a field that
/// both changed goes with the last write. A delete on either side: last write wins as a whole.
pub fn merge(sides: &Sides<'_>) -> Verdict {
    if sides.local.operation == Operation::Delete || sides.remote.operation == Operation::Delete {
        return last_write(sides);
    }
    let remote_is_newer = last_write(sides) == Verdict::Remote;
    let (local, remote) = (completed(sides.local_values, sides.base), completed(sides.remote_values, sides.base));
    let merged = merge_fields(&local, &remote, sides.base, remote_is_newer);
    if same_row(&merged, &local) {
        Verdict::Local
    } else if same_row(&merged, &remote) {
        Verdict::Remote
    } else {
        Verdict::Merged(Some(merged))
    }
}

/// A side that says nothing of a column, for it did not have it then, has not changed it.
fn completed(side: &[Option<Value>], base: Option<&[Option<Value>]>) -> Vec<Option<Value>> {
    let known = |column: usize| base.and_then(|base| base[column].clone());
    side.iter().enumerate().map(|(column, value)| value.clone().or_else(|| known(column))).collect()
}

/// The fields of two rows, by column; a field that one side says nothing of takes the other's value. Which side is called local makes
/// no difference.
pub fn merge_fields(
    local: &[Option<Value>],
    remote: &[Option<Value>],
    base: Option<&[Option<Value>]>,
    remote_is_newer: bool,
) -> Vec<Option<Value>> {
    let merged = |column: usize| match (&local[column], &remote[column], base.and_then(|base| base[column].as_ref())) {
        (None, only, _) | (only, None, _) => only,
        (Some(mine), theirs, Some(known)) if mine == known => theirs,
        (mine, Some(theirs), Some(known)) if theirs == known => mine,
        (_, theirs, _) if remote_is_newer => theirs,
        (mine, ..) => mine,
    };
    (0..local.len()).map(|column| merged(column).clone()).collect()
}

/// The user's resolver over both rows as JSON (NULL for a deleted one). It yields the merged row, or NULL to delete it.
pub fn custom(host: &mut dyn Host, sides: &Sides<'_>) -> Result<Verdict> {
    let resolver = sides.table.resolver.as_deref().unwrap_or_default();
    let row = |change: &Change<'_>| change.payload.as_deref().filter(|_| change.operation != Operation::Delete).unwrap_or("null").to_owned();
    let failed = |why: String| {
        Error::new(
            Kind::UnresolvedConflict,
            format!("the resolver of table {:?} failed for {}: {why}; correct it with sync_set_conflict_strategy", sides.table.name, sides.local.pk_value),
        )
        .with_data(json!({"tableName": sides.table.name, "pkValue": sides.local.pk_value}))
    };
    let answer = host.run_resolver(resolver, &row(sides.local), &row(sides.remote)).map_err(|e| match e {
        Error::Engine(engine) if engine.scope == crate::error::Scope::Call => Error::Engine(engine),
        other => failed(other.to_string()),
    })?;
    if answer == "null" {
        return Ok(match sides.local.operation {
            Operation::Delete => Verdict::Local,
            _ if sides.remote.operation == Operation::Delete => Verdict::Remote,
            _ => Verdict::Merged(None),
        });
    }
    let resolved = Change {
        pk_value: Cow::Borrowed(sides.local.pk_value.as_ref()),
        operation: Operation::Update,
        payload: Some(Cow::Owned(answer)),
        ..sides.remote.clone()
    };
    match Bound::new(sides.table, &resolved) {
        // Its result is a new local change, unless it changes nothing.
        Ok(bound) if same_row(&bound.values, sides.local_values) => Ok(Verdict::Local),
        Ok(bound) => Ok(Verdict::Merged(Some(bound.values))),
        Err(Unbound::Row(_, why)) => Err(failed(why)),
        Err(Unbound::Batch(error)) => Err(failed(error.to_string())),
    }
}

/// Do two rows agree in every column that both name? A deleted row has none.
pub fn same_row(a: &[Option<Value>], b: &[Option<Value>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_none() || b.is_none() || a == b)
}

#[cfg(test)]
mod tests;
