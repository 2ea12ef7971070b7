//! `sync_check_table`: what will not sync, or not losslessly, told before tracking.

use crate::check_keys::{folded_keys, spelled_keys};
use crate::error::{Error, Kind, Result};
use crate::host::Host;
use crate::refresh::definition_of;
use crate::table::{Description, Portable, RelationKind, Storage, Table};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub struct Finding {
    /// `error`: it cannot be tracked. `warning`: some data may be refused or missed.
    pub severity: &'static str,
    pub code: String,
    pub message: String,
    pub fix: String,
}

/// Everything that stands between a table and lossless sync; empty if nothing does.
///
/// Errors: `TableNotFound`.
pub fn check_table(host: &mut dyn Host, table_name: &str) -> Result<Vec<Finding>> {
    let Some(description) = host.describe(table_name)? else { return Err(Error::not_found(table_name)) };
    if let Some((message, fix)) = unsupported(&description) {
        return Ok(vec![Finding { severity: "error", code: Kind::UnsupportedTable.name().to_owned(), message, fix }]);
    }
    let mut findings = warnings(&description);
    findings.extend(unreadable_rows(host, &description)?);
    findings.extend(spelled_keys(host, &description, &BTreeMap::new(), usize::MAX)?);
    Ok(findings)
}

/// Why a table cannot be tracked at all, and what to do.
pub fn unsupported(description: &Description) -> Option<(String, String)> {
    let name = &description.table_name;
    let track_tables = "track the tables behind it".to_owned();
    match description.kind {
        RelationKind::View => Some((format!("{name:?} is a view"), track_tables)),
        RelationKind::Virtual => Some((format!("{name:?} is a virtual table: it has no triggers"), track_tables)),
        RelationKind::Temporary => Some((format!("{name:?} is temporary"), "create it in the database itself".to_owned())),
        RelationKind::System => Some((format!("{name:?} belongs to the engine or to sync"), "leave it alone".to_owned())),
        RelationKind::Table if description.key.is_empty() => {
            Some((format!("table {name:?} has no primary key"), "give it a primary key; a UUID in a TEXT column serves well".to_owned()))
        }
        RelationKind::Table => alike(description).map(|(one, other)| {
            let message = format!("columns {one:?} and {other:?} of table {name:?} differ in case only, which tells no columns apart elsewhere");
            (message, "rename one of them".to_owned())
        }),
    }
}

/// Two columns whose names differ in ASCII case only.
fn alike(description: &Description) -> Option<(&str, &str)> {
    let names = || description.columns.iter().map(|c| &c.name).chain(&description.generated).map(String::as_str);
    let twin = |place: usize, one: &str| names().skip(place + 1).find(|other| other.eq_ignore_ascii_case(one));
    names().enumerate().find_map(|(place, one)| Some((one, twin(place, one)?)))
}

/// What may be refused or missed although the table can be tracked.
pub fn warnings(description: &Description) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut warn = |code: &str, message: String, fix: &str| {
        findings.push(Finding { severity: "warning", code: code.to_owned(), message, fix: fix.to_owned() });
    };
    for columns in &description.unique {
        warn(
            "ReplaceNotCaptured",
            format!("REPLACE that removes another row through UNIQUE ({}) fires no delete trigger", columns.join(", ")),
            "use INSERT ... ON CONFLICT DO UPDATE, or PRAGMA recursive_triggers = ON, or call sync_reconcile after such statements",
        );
    }
    if description.nullable_key {
        warn(
            "NullableKey",
            "a column of the primary key can be NULL; writes of such rows are refused once the table is tracked".to_owned(),
            "declare the key's columns NOT NULL",
        );
    }
    for column in &description.columns {
        if column.portable == Portable::Decimal && column.storage == Storage::Number {
            warn(
                "DecimalPrecision",
                format!("column {:?} keeps 15 digits, and makes numbers of texts: longer decimals and texts such as '12' from elsewhere are rejected", column.name),
                "declare it TEXT and track it with {\"types\":{\"<column>\":\"decimal\"}}",
            );
        }
    }
    for (code, message, fix) in &description.notes {
        warn(code, message.clone(), fix);
    }
    findings.extend(folded_keys(description));
    findings
}

/// Rows whose text is not valid UTF-8: they cannot be fetched.
fn unreadable_rows(host: &mut dyn Host, description: &Description) -> Result<Vec<Finding>> {
    let definition = definition_of(description, &[], &BTreeMap::new(), true);
    let names = (description.table_name.clone(), description.table_name.clone());
    let table = Table::new((0, 0, false), names, definition, Default::default());
    let mut findings = Vec::new();
    host.stream_rows(&table, &mut |row| {
        for column in 0..table.columns.len() {
            if row.value(column).is_err() {
                let mut key = String::new();
                let readable = table.write_key(&mut key, |c| row.value(c)).is_ok();
                findings.push(Finding {
                    severity: "error",
                    code: "InvalidUtf8".to_owned(),
                    message: format!(
                        "column {:?} of row {} holds text that is not valid UTF-8",
                        table.columns[column].name,
                        if readable { key.as_str() } else { "with an unreadable key" }
                    ),
                    fix: "store it as a BLOB, or correct it".to_owned(),
                });
            }
        }
        Ok(findings.len() < 100)
    })?;
    Ok(findings)
}
