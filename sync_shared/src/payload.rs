//! A change bound to a table here: its values by column, converted or refused.

use crate::batch::is_too_deep;
use crate::canonical::MAX_NESTING;
use crate::change::{Change, Operation};
use crate::error::Error;
use crate::plain::plain_members;
use crate::table::{RowHash, Table};
use crate::value::{Value, object_members, plain_value, value_for_column};
use sha2::{Digest, Sha256};

/// What a change writes.
#[derive(Clone, Debug)]
pub struct Bound {
    /// In key order.
    pub key: Vec<Value>,
    /// By column of the table; None where the change says nothing. Empty for a delete.
    pub values: Vec<Option<Value>>,
}

/// Why a change cannot be bound.
#[derive(Debug)]
pub enum Unbound {
    /// The batch is wrong.
    Batch(Error),
    /// This row cannot be taken (yet): rejection kind and sentence.
    Row(&'static str, String),
}

impl Bound {
    pub fn new(table: &Table, change: &Change<'_>) -> Result<Bound, Unbound> {
        let bound = match Bound::plain(table, change) {
            Some(bound) => bound,
            None => Bound::general(table, change)?,
        };
        match table.misspelled(&bound.key) {
            None => Ok(bound),
            Some(sentence) => Err(Unbound::Row("TypeMismatch", sentence)),
        }
    }

    /// A change as most are; None if it is another, or if anything is wrong with it.
    fn plain(table: &Table, change: &Change<'_>) -> Option<Bound> {
        let key_texts = plain_members(&change.pk_value, table, table.key_members.iter().copied())?;
        if key_texts.contains(&"null") {
            return None;
        }
        let key_text = |column: usize| table.key_members.iter().position(|&k| k == column).map(|place| key_texts[place]);
        let payload = match (change.operation, &change.payload) {
            (Operation::Delete, _) | (_, None) => {
                let key = table.key.iter().map(|&k| plain_value(key_text(k)?, &table.columns[k]));
                return Some(Bound { key: key.collect::<Option<_>>()?, values: Vec::new() });
            }
            (_, Some(payload)) => payload,
        };
        let texts = plain_members(payload, table, 0..table.columns.len())?;
        if table.key.iter().any(|&k| key_text(k) != Some(texts[k])) {
            return None;
        }
        let values = texts.iter().zip(&table.columns).map(|(text, column)| plain_value(text, column).map(Some));
        let values: Vec<Option<Value>> = values.collect::<Option<_>>()?;
        let key = table.key.iter().map(|&k| values[k].clone().unwrap_or(Value::Null)).collect();
        Some(Bound { key, values })
    }

    fn general(table: &Table, change: &Change<'_>) -> Result<Bound, Unbound> {
        let invalid = |what: &str| Unbound::Batch(Error::batch(format!("version {}: {what}", change.version)));
        let texts = [Some(change.pk_value.as_ref()), change.payload.as_deref()];
        if texts.into_iter().flatten().any(is_too_deep) {
            return Err(Unbound::Batch(Error::limit(format!("version {}: its JSON nests deeper than {MAX_NESTING} levels", change.version))));
        }
        let key_members = object_members(&change.pk_value).map_err(|e| invalid(&format!("pkValue: {e}")))?;
        let mut key_raw: Vec<Option<&str>> = vec![None; table.columns.len()];
        for (name, raw) in &key_members {
            let column = table.column_named(name).filter(|c| table.key.contains(c));
            let column = column.ok_or_else(|| invalid(&format!("{name:?} is not a column of the key of {:?}", table.name)))?;
            if *raw == "null" {
                return Err(invalid("a key value is null"));
            }
            if key_raw[column].replace(raw).is_some() {
                return Err(invalid(&format!("the key names {name:?} twice")));
            }
        }
        if let Some(&column) = table.key.iter().find(|&&c| key_raw[c].is_none()) {
            return Err(invalid(&format!("pkValue lacks {:?}", table.columns[column].name)));
        }
        let payload = match (change.operation, &change.payload) {
            (Operation::Delete, _) | (_, None) => {
                return Ok(Bound { key: convert_key(table, &key_raw)?, values: Vec::new() });
            }
            (_, Some(payload)) => payload,
        };
        let members = object_members(payload).map_err(|e| invalid(&format!("payload: {e}")))?;
        let mut unknown: Option<String> = None;
        let mut raws: Vec<Option<&str>> = vec![None; table.columns.len()];
        for (place, (name, raw)) in members.iter().enumerate() {
            // Mostly the payload has the table's own columns in their order.
            let in_order = table.columns.get(place).is_some_and(|c| c.name == *name).then_some(place);
            match in_order.or_else(|| table.column_named(name)) {
                Some(column) if raws[column].replace(raw).is_some() => {
                    return Err(invalid(&format!("the payload names {name:?} twice")));
                }
                Some(_) => {}
                None if table.excludes(name) => {}
                None if table.generates(name) => unknown = Some(generated(table, name)),
                None => unknown = Some(format!("table {:?} has no column {name:?}; add it, and the change is taken", table.name)),
            }
        }
        for &column in &table.key {
            let name = &table.columns[column].name;
            let raw = raws[column].ok_or_else(|| invalid(&format!("the payload lacks the key column {name:?}")))?;
            if Some(raw) != key_raw[column] && !same_value(raw, key_raw[column].unwrap_or_default(), table, column) {
                return Err(invalid(&format!("pkValue and payload differ in {name:?}")));
            }
        }
        if let Some(sentence) = unknown {
            return Err(Unbound::Row("SchemaMismatch", sentence));
        }
        let mut values = Vec::with_capacity(raws.len());
        for (column, raw) in table.columns.iter().zip(&raws) {
            let value = raw.map(|raw| value_for_column(raw, column)).transpose();
            values.push(value.map_err(|sentence| Unbound::Row("TypeMismatch", sentence))?);
        }
        let key = table.key.iter().map(|&c| values[c].clone().unwrap_or(Value::Null)).collect();
        Ok(Bound { key, values })
    }

    pub fn row_hash(&self, table: &Table) -> crate::error::Result<RowHash> {
        table.row_hash(|column| {
            let place = table.key.iter().position(|&k| k == column);
            Ok(place.map_or(crate::value::ValueRef::Null, |p| self.key[p].as_ref()))
        })
    }
}

/// Identifies the row of a change that could not be bound: by the text of its key.
pub fn unbound_row_hash(change: &Change<'_>) -> RowHash {
    let digest = Sha256::digest(format!("{}\n{}", change.table_name.to_ascii_lowercase(), change.pk_value));
    std::array::from_fn(|i| digest[i])
}

fn generated(table: &Table, name: &str) -> String {
    let exclude = serde_json::json!({ "exclude": [name] });
    format!(
        "column {name:?} of table {:?} is generated here and takes no value; generate it on the other side too, or leave it out on either side \
         with {exclude} in the options of sync_track_table",
        table.name
    )
}

fn convert_key(table: &Table, raw: &[Option<&str>]) -> Result<Vec<Value>, Unbound> {
    let value = |&c: &usize| value_for_column(raw[c].unwrap_or("null"), &table.columns[c]);
    table.key.iter().map(value).collect::<Result<_, _>>().map_err(|sentence| Unbound::Row("TypeMismatch", sentence))
}

fn same_value(a: &str, b: &str, table: &Table, column: usize) -> bool {
    let convert = |raw: &str| value_for_column(raw, &table.columns[column]);
    matches!((convert(a), convert(b)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests;
