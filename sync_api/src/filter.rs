//! What a live subscription is to: a table, one row of it, or all tables.

use crate::answer::parse;
use crate::database::{Access, Database, Statement};
use crate::error::{ApiError, Result};
use crate::page::Event;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::borrow::Cow;
use sync_shared::canonical_json;

/// Every table that the caller may read.
pub const ALL_TABLES: &str = "*";

/// The tables without their numbers of entries: to count those the whole log is read.
static TABLES: Statement = Statement::differing(
    "SELECT json_group_array(json_object('name', name, 'primaryKey', json(primary_key))) FROM @sync_tables(false)",
    "SELECT coalesce(json_agg(json_build_object('name', name, 'primaryKey', primary_key::json)), '[]')::text FROM @sync_tables(false)",
);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    name: String,
    primary_key: Vec<String>,
}

/// Which changes pass.
#[derive(Debug)]
pub struct Filter {
    table: Option<String>,
    key: Option<Key>,
}

#[derive(Debug)]
enum Key {
    /// The bare value of a key of one column.
    Bare(String),
    /// The whole key, in canonical form.
    Whole(String),
}

impl Filter {
    /// Errors: 404 for a table that is not tracked or not the caller's to read, 400 for a key that cannot be one of the table's.
    pub async fn make(database: &Database, role: Option<&str>, table: &str, key: Option<&str>) -> Result<Filter> {
        if table == ALL_TABLES {
            return match key {
                None => Ok(Filter { table: None, key: None }),
                Some(_) => Err(ApiError::argument("pkValue needs a tableName")),
            };
        }
        let tables = database.text(Access::Read, role, &TABLES, Vec::new()).await?.unwrap_or_default();
        let tables: Vec<Table> = parse(&tables)?;
        let found = tables.iter().find(|t| t.name == table).or_else(|| tables.iter().find(|t| t.name.eq_ignore_ascii_case(table)));
        let table = found.ok_or_else(|| ApiError::not_found("there is no tracked table of this name that this caller may read"))?;
        let key = key.map(|key| Key::parse(key, &table.primary_key)).transpose()?;
        Ok(Filter { table: Some(table.name.clone()), key })
    }

    pub fn passes(&self, event: &Event) -> bool {
        if self.table.as_ref().is_some_and(|table| *table != event.table_name) {
            return false;
        }
        self.key.as_ref().is_none_or(|key| key.is(&event.pk_value))
    }
}

impl Key {
    fn parse(text: &str, columns: &[String]) -> Result<Key> {
        if let Ok(Value::Object(members)) = serde_json::from_str(text) {
            let same = members.len() == columns.len() && columns.iter().all(|column| members.contains_key(column));
            return match canonical_json(text) {
                Ok(whole) if same => Ok(Key::Whole(whole)),
                _ => Err(ApiError::argument(format!("pkValue must have the columns {}", columns.join(", ")))),
            };
        }
        match columns {
            [_] => Ok(Key::Bare(text.to_owned())),
            _ => Err(ApiError::argument(format!("pkValue must be an object with the columns {}", columns.join(", ")))),
        }
    }

    /// Is this the key? Compared as a whole, never as a part.
    fn is(&self, pk_value: &str) -> bool {
        match self {
            Key::Whole(whole) => canonical_json(pk_value).is_ok_and(|canonical| canonical == *whole),
            Key::Bare(bare) => {
                let members: Map<String, Value> = serde_json::from_str(pk_value).unwrap_or_default();
                members.values().next().is_some_and(|value| {
                    let written = value.as_str().map_or_else(|| Cow::Owned(value.to_string()), Cow::Borrowed);
                    written == *bare
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str, columns: &[&str]) -> Result<Key> {
        Key::parse(text, &columns.iter().map(|&c| c.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_key_matches_as_a_whole_only() {
        let p1 = key("p1", &["Id"]).unwrap();
        assert!(p1.is(r#"{"Id":"p1"}"#));
        for other in [r#"{"Id":"p10"}"#, r#"{"Id":"xp1"}"#, r#"{"Id":"P1"}"#, r#"{"Id":null}"#, "{}", "p1"] {
            assert!(!p1.is(other), "{other}");
        }
        assert!(!key("Id", &["Id"]).unwrap().is(r#"{"Id":"p1"}"#));
    }

    #[test]
    fn a_number_is_given_as_it_is_written() {
        let seven = key("7", &["id"]).unwrap();
        assert!(seven.is(r#"{"id":7}"#) && seven.is(r#"{"id":"7"}"#));
        assert!(!seven.is(r#"{"id":70}"#) && !seven.is(r#"{"id":-7}"#));
        assert!(key("9007199254740993", &["id"]).unwrap().is(r#"{"id":9007199254740993}"#));
    }

    #[test]
    fn a_key_of_several_columns_is_an_object_in_any_order() {
        let both = key(r#"{"b":2,"a":1}"#, &["a", "b"]).unwrap();
        assert!(both.is(r#"{"a":1,"b":2}"#));
        assert!(!both.is(r#"{"a":1,"b":3}"#));
        for wrong in ["1", r#"{"a":1}"#, r#"{"a":1,"c":2}"#, r#"{"a":1,"b":2,"c":3}"#] {
            assert_eq!(key(wrong, &["a", "b"]).unwrap_err().kind, "InvalidArgument");
        }
    }
}
