//! Stored subscriptions: to a record, a table or a query; served by `sync_poll` at least once.

use crate::canonical::canonical_json;
use crate::catalog::Catalog;
use crate::change::Operation;
use crate::error::{Error, Result};
use crate::fetch::checked_batch_size;
use crate::hash::may_not_read;
use crate::host::{Host, in_transaction, query_value};
use crate::log_entry::{LogEntry, LogRange};
use crate::stamp;
use crate::state::{State, origin_names};
use crate::superseded::without_unreadable;
use crate::table::{Column, Portable, Storage, Table};
use crate::value::{Value, ValueRef, object_members, value_for_column, write_canonical};
use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

/// Stores a subscription and returns its id.
///
/// `pk_value`: a key as JSON object, a JSON array of keys, or for a key of one column its bare value. Options: `where` (an object of
/// columns and values), `expiresAt` (ISO 8601), `fromVersion` (default: now). Errors: `InvalidArgument`, `TableNotTracked`, `TableNotFound`.
pub fn subscribe(host: &mut dyn Host, table_name: &str, pk_value: Option<&str>, options: Option<&str>) -> Result<String> {
    in_transaction(host, |host| {
        let (state, catalog) = Catalog::open(host)?;
        let table = &catalog.tables[catalog.by_name(host, table_name)?];
        let mut from_version = host.head()?;
        let (mut filter, mut expires_at) = (None, None);
        let members: Map<String, Json> = match options {
            None => Map::new(),
            Some(text) => {
                serde_json::from_str(text).map_err(|e| Error::argument(format!("the options are not a JSON object: {e}")))?
            }
        };
        for (option, value) in &members {
            let wrong = |what: &str| Error::argument(format!("option {option:?} must be {what}"));
            match option.as_str() {
                "where" => filter = Some(where_filter(table, value.as_object().ok_or_else(|| wrong("an object"))?)?),
                "expiresAt" => {
                    let instant = value.as_str().and_then(stamp::parse).ok_or_else(|| wrong("an ISO 8601 instant"))?;
                    expires_at = Some(stamp::format(instant));
                }
                "fromVersion" => from_version = value.as_i64().filter(|v| *v >= 0).ok_or_else(|| wrong("a version"))?,
                _ => return Err(Error::argument(format!("there is no option {option:?}"))),
            }
        }
        let kind = match (pk_value, &filter) {
            (Some(_), Some(_)) => return Err(Error::argument("a subscription has keys or \"where\", not both")),
            (Some(_), None) => "record",
            (None, Some(_)) => "query",
            (None, None) => "table",
        };
        if let Some(keys) = pk_value {
            filter = Some(key_filter(table, keys)?);
        }
        let id = Uuid::new_v4().to_string();
        let now = stamp::format(host.now());
        host.execute(
            "INSERT INTO _sync_subscriptions (subscription_id, origin_id, subscription_type, table_name, filter, created_at, \
             expires_at, last_version, served_version) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
            &[
                ValueRef::Text(&id),
                ValueRef::Text(&state.origin_id),
                ValueRef::Text(kind),
                ValueRef::Text(&table.name),
                filter.as_deref().map_or(ValueRef::Null, ValueRef::Text),
                ValueRef::Text(&now),
                expires_at.as_deref().map_or(ValueRef::Null, ValueRef::Text),
                ValueRef::Integer(from_version),
            ],
        )?;
        Ok(id)
    })
}

/// Ends a subscription. False if there is none with this id.
pub fn unsubscribe(host: &mut dyn Host, subscription_id: &str) -> Result<bool> {
    State::load(host)?;
    in_transaction(host, |host| {
        let gone = host.execute("DELETE FROM _sync_subscriptions WHERE subscription_id = ?1", &[ValueRef::Text(subscription_id)])?;
        Ok(gone > 0)
    })
}

/// The changes a subscription has not acknowledged, at most `batch_size`; acknowledges what the poll before served.
///
/// Errors: `InvalidArgument` for an unknown or expired subscription.
pub fn poll(host: &mut dyn Host, subscription_id: &str, batch_size: i64) -> Result<String> {
    let batch_size = checked_batch_size(batch_size)?;
    in_transaction(host, |host| {
        let (_, catalog) = Catalog::open(host)?;
        let subscription = Subscription::load(host, subscription_id)?;
        let table = catalog.by_wire_name(&subscription.table_name).map(|index| &catalog.tables[index]);
        let table = table.ok_or_else(|| Error::not_tracked(&subscription.table_name))?;
        if !host.may_read(table)? {
            return Err(may_not_read(table));
        }
        let from = subscription.served_version;
        let head = host.head()?;
        let origins = origin_names(host)?;
        let range = LogRange { upto: head, table: Some(table.id), for_caller: true, ..LogRange::after(from) };
        let (changes, to_version, has_more) = without_unreadable(host, &catalog, from, |host, superseded| {
            let (mut changes, mut count, mut to_version, mut has_more) = (String::new(), 0, head.max(from), false);
            let mut last = from;
            host.read_log(&catalog, range, &mut |entry| {
                if !entry.shown || superseded.contains(&entry.version) || !subscription.matches(table, entry)? {
                    return Ok(true);
                }
                if count == batch_size {
                    (has_more, to_version) = (true, last);
                    return Ok(false);
                }
                if count > 0 {
                    changes.push(',');
                }
                let origin = origins.get(&entry.origin).cloned().unwrap_or_default();
                entry.to_change(origin)?.write_json(&mut changes);
                (count, last) = (count + 1, entry.version);
                Ok(true)
            })?;
            Ok((changes, to_version, has_more))
        })?;
        host.execute(
            "UPDATE _sync_subscriptions SET last_version = ?2, served_version = ?3 WHERE subscription_id = ?1",
            &[ValueRef::Text(subscription_id), ValueRef::Integer(from), ValueRef::Integer(to_version)],
        )?;
        let id = json!(subscription_id);
        Ok(format!("{{\"subscriptionId\":{id},\"changes\":[{changes}],\"toVersion\":{to_version},\"hasMore\":{has_more}}}"))
    })
}

/// The version that every subscription has acknowledged, but for expired ones; None without any.
pub fn least_acknowledged(host: &mut dyn Host) -> Result<Option<i64>> {
    let now = stamp::format(host.now());
    let sql = "SELECT min(last_version) FROM _sync_subscriptions WHERE expires_at IS NULL OR expires_at >= ?1";
    Ok(match query_value(host, sql, &[ValueRef::Text(&now)])? {
        Some(Value::Integer(version)) => Some(version),
        _ => None,
    })
}

struct Subscription {
    table_name: String,
    served_version: i64,
    filter: Option<Filter>,
}

enum Filter {
    /// Canonical keys.
    Keys(Vec<String>),
    /// Column and canonical value.
    Where(Vec<(String, String)>),
}

impl Subscription {
    fn load(host: &mut dyn Host, id: &str) -> Result<Subscription> {
        let mut found = None;
        host.query(
            "SELECT subscription_type, table_name, filter, expires_at, served_version FROM _sync_subscriptions WHERE subscription_id = ?1",
            &[ValueRef::Text(id)],
            &mut |row| {
                let filter = row.optional_text(2)?;
                let filter = match (row.text(0)?, filter) {
                    ("record", Some(text)) => Some(Filter::Keys(serde_json::from_str(&text).map_err(Error::corrupt)?)),
                    ("query", Some(text)) => Some(Filter::Where(serde_json::from_str(&text).map_err(Error::corrupt)?)),
                    _ => None,
                };
                let expires = row.optional_text(3)?.and_then(|text| stamp::parse(&text));
                found = Some((Subscription { table_name: row.text(1)?.to_owned(), served_version: row.integer(4)?, filter }, expires));
                Ok(false)
            },
        )?;
        let (subscription, expires) = found.ok_or_else(|| Error::argument(format!("there is no subscription {id:?}")))?;
        match expires {
            Some(expires) if host.now() > expires => Err(Error::argument(format!("subscription {id:?} has expired"))),
            _ => Ok(subscription),
        }
    }

    /// Deletes match a query unless its columns are all of the key and differ: the row may have matched before.
    fn matches(&self, table: &Table, entry: &LogEntry<'_>) -> Result<bool> {
        match &self.filter {
            None => Ok(true),
            Some(Filter::Keys(keys)) => {
                let key = canonical_key(table, |c| entry.key_value(c))?;
                Ok(keys.contains(&key))
            }
            Some(Filter::Where(conditions)) => {
                for (name, wanted) in conditions {
                    let Some(column) = table.column_named(name) else { return Ok(false) };
                    if entry.operation == Operation::Delete && !table.key.contains(&column) {
                        continue;
                    }
                    let mut canonical = String::new();
                    write_canonical(&mut canonical, entry.key_value(column)?, table.columns[column].portable);
                    if canonical != *wanted {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }
}

fn canonical_key<'v>(table: &Table, value: impl Fn(usize) -> Result<ValueRef<'v>>) -> Result<String> {
    let mut key = String::new();
    for &column in &table.key {
        write_canonical(&mut key, value(column)?, table.columns[column].portable);
        key.push(',');
    }
    Ok(key)
}

/// The canonical keys of a record subscription, as a JSON array.
fn key_filter(table: &Table, keys: &str) -> Result<String> {
    let listed: Vec<Json> = match serde_json::from_str(keys) {
        Ok(Json::Array(listed)) => listed,
        Ok(one) => vec![one],
        Err(_) => vec![Json::String(keys.to_owned())],
    };
    if listed.is_empty() {
        return Err(Error::argument("no keys to subscribe to"));
    }
    let keys: Vec<String> = listed.iter().map(|key| one_key(table, key)).collect::<Result<_>>()?;
    Ok(json!(keys).to_string())
}

fn one_key(table: &Table, key: &Json) -> Result<String> {
    let wrong = |why: &str| Error::argument(format!("{key} is not a key of table {:?}: {why}", table.table_name));
    // A key given as text holds JSON, or is the bare value of a key of one column.
    let nested = key.as_str().and_then(|text| serde_json::from_str::<Json>(text).ok()).filter(Json::is_object);
    let key = nested.as_ref().unwrap_or(key);
    let text = match (key, table.key.as_slice()) {
        (Json::Object(_), _) => key.to_string(),
        (_, [column]) => json!({table.columns[*column].name.clone(): key}).to_string(),
        _ => return Err(wrong("the key has several columns; give it as an object")),
    };
    let members = object_members(&text).map_err(|e| wrong(&e))?;
    let mut values = vec![None; table.columns.len()];
    for (name, raw) in &members {
        let column = table.column_named(name).filter(|c| table.key.contains(c)).ok_or_else(|| wrong("an unknown column"))?;
        values[column] = Some(value_to_match(raw, &table.columns[column]).map_err(|e| wrong(&e))?);
    }
    if table.key.iter().any(|&c| values[c].is_none()) {
        return Err(wrong("a column of the key is missing"));
    }
    canonical_key(table, |c| Ok(values[c].as_ref().map_or(ValueRef::Null, |v| v.as_ref())))
}

/// Columns and canonical values of a query subscription, as JSON.
fn where_filter(table: &Table, conditions: &Map<String, Json>) -> Result<String> {
    let mut canonical: Vec<(String, String)> = Vec::new();
    for (name, value) in conditions {
        let column = table.column_named(name).ok_or_else(|| Error::argument(format!("there is no column {name:?}")))?;
        let column = &table.columns[column];
        let value = value_to_match(&canonical_json(&value.to_string())?, column).map_err(Error::argument)?;
        let mut text = String::new();
        write_canonical(&mut text, value.as_ref(), column.portable);
        canonical.push((column.name.clone(), text));
    }
    Ok(json!(canonical).to_string())
}

/// A value that a column is compared with. One that the column can never have is refused: it would match nothing, and nobody would know.
fn value_to_match(raw: &str, column: &Column) -> Result<Value, String> {
    let value = value_for_column(raw, column)?;
    match (&value, column.storage, column.portable) {
        (Value::Text(_), Storage::Typed, Portable::Boolean | Portable::Int | Portable::Real) => {
            Err(format!("column {:?} holds no texts, and {raw} is one", column.name))
        }
        _ => Ok(value),
    }
}
