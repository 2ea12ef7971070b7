//! Foreign keys during an apply: always enforced, only at the end, and who violates them is named.
//!
//! The connection's own setting of `foreign_keys` is put back afterwards, so the result does not depend on it.

use crate::describe::references_of;
use crate::error::engine;
use crate::host::SqliteHost;
use crate::quote::{Identifier, TableName, list};
use crate::spelling::spellings;
use crate::statements::refs;
use rusqlite::config::DbConfig;
use rusqlite::ffi;
use sync_shared::{Catalog, Reference, Result, Row as _, RowHash, Table, Touched, Value, ValueRef, Violation};

/// The connection's settings before the apply.
pub struct Saved {
    enforced: bool,
    deferred: bool,
}

/// Are there any foreign keys in this database?
fn any_references(host: &mut SqliteHost<'_>) -> Result<bool> {
    if let Some(known) = host.any_references {
        return Ok(known);
    }
    let sql = "SELECT 1 FROM sqlite_schema AS m, pragma_foreign_key_list(m.name, 'main') WHERE m.type = 'table' LIMIT 1";
    let any = host.statements.integer(sql, &[])?.is_some();
    host.any_references = Some(any);
    Ok(any)
}

pub fn begin(host: &mut SqliteHost<'_>) -> Result<()> {
    if !any_references(host)? || host.saved_references.is_some() {
        return Ok(());
    }
    let enforced = host.connection.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY).map_err(engine)?;
    let deferred: bool = host.connection.query_row("PRAGMA defer_foreign_keys", [], |row| row.get(0)).map_err(engine)?;
    host.saved_references = Some(Saved { enforced, deferred });
    if !enforced {
        host.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true).map_err(engine)?;
    }
    if !deferred {
        host.connection.execute_batch("PRAGMA defer_foreign_keys = ON").map_err(engine)?;
    }
    Ok(())
}

pub fn end(host: &mut SqliteHost<'_>) -> Result<()> {
    let Some(saved) = host.saved_references.take() else { return Ok(()) };
    if !saved.deferred {
        host.connection.execute_batch("PRAGMA defer_foreign_keys = OFF").map_err(engine)?;
    }
    if !saved.enforced {
        host.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false).map_err(engine)?;
    }
    Ok(())
}

/// Which of the rows violate a foreign key as things stand.
pub fn violations(host: &mut SqliteHost<'_>, catalog: &Catalog, touched: &[Touched]) -> Result<Vec<Violation>> {
    if !any_references(host)? || !is_anything_pending(host) {
        return Ok(Vec::new());
    }
    let children = referring_tables(host)?;
    let mut found = Vec::new();
    for (row, touch) in touched.iter().enumerate() {
        let table = &catalog.tables[touch.table];
        // The row may be spelled in another way than it was sent; it is gone if it was deleted.
        for key in spellings(table, &touch.key) {
            let violation = match touch.deleted {
                false => missing_parent(host, catalog, table, &key)?,
                true => remaining_child(host, table, &children, &key)?.map(|message| (message, None)),
            };
            if let Some((message, missing)) = violation {
                found.push(Violation { row, message, missing });
                break;
            }
        }
    }
    if found.is_empty() {
        // A key on columns other than the primary key: every row of the table referred to may be the cause.
        for (row, touch) in touched.iter().enumerate() {
            let table = &catalog.tables[touch.table];
            let referred = |(_, r): &&(String, Reference)| r.parent.eq_ignore_ascii_case(&table.table_name);
            for (child, reference) in children.iter().filter(referred) {
                if has_orphan(host, child, reference)? {
                    let message = format!("rows of {child:?} would be left without their row of {:?}", table.table_name);
                    found.push(Violation { row, message, missing: None });
                    break;
                }
            }
        }
    }
    Ok(found)
}

/// Does SQLite count any deferred violation?
#[allow(unsafe_code)]
fn is_anything_pending(host: &SqliteHost<'_>) -> bool {
    let (mut current, mut highest) = (0, 0);
    // SAFETY: the handle is that of an open connection, and the pointers are to live integers.
    let code = unsafe {
        ffi::sqlite3_db_status(host.connection.handle(), ffi::SQLITE_DBSTATUS_DEFERRED_FKS, &mut current, &mut highest, 0)
    };
    code != ffi::SQLITE_OK || current != 0
}

/// Every foreign key of the database, with the table that has it.
fn referring_tables(host: &mut SqliteHost<'_>) -> Result<Vec<(String, Reference)>> {
    let mut tables: Vec<String> = Vec::new();
    host.statements.query("SELECT name FROM sqlite_schema WHERE type = 'table'", &[], &mut |row| {
        tables.push(row.text(0)?.to_owned());
        Ok(true)
    })?;
    let mut all = Vec::new();
    for table in tables {
        all.extend(references_of(host.connection, &table)?.into_iter().map(|reference| (table.clone(), reference)));
    }
    Ok(all)
}

fn missing_parent(host: &mut SqliteHost<'_>, catalog: &Catalog, table: &Table, key: &[Value]) -> Result<Option<(String, Option<RowHash>)>> {
    for reference in &table.references {
        let child = TableName(&table.table_name);
        let not_null: Vec<String> = reference.columns.iter().map(|c| format!("c.{} IS NOT NULL", Identifier(c))).collect();
        let key_is: Vec<String> =
            table.key.iter().enumerate().map(|(i, &k)| format!("c.{} = ?{}", Identifier(&table.columns[k].name), i + 1)).collect();
        let sql = format!(
            "SELECT {} FROM {child} AS c WHERE {} AND {} AND NOT EXISTS (SELECT 1 FROM {} AS p WHERE {})",
            list(reference.columns.iter().map(String::as_str)),
            key_is.join(" AND "),
            not_null.join(" AND "),
            TableName(&reference.parent),
            joined(reference)
        );
        let mut values: Option<Vec<Value>> = None;
        host.statements.query(&sql, &refs(key), &mut |row| {
            let all = (0..reference.columns.len()).map(|i| row.value(i).map(ValueRef::to_owned));
            values = Some(all.collect::<Result<_>>()?);
            Ok(false)
        })?;
        if let Some(values) = values {
            let message = format!(
                "FOREIGN KEY ({}) of {:?}: there is no such row in {:?}; the change waits for it",
                reference.columns.join(", "),
                table.table_name,
                reference.parent
            );
            return Ok(Some((message, parent_hash(catalog, reference, &values)?)));
        }
    }
    Ok(None)
}

/// The row that is missing, if the reference is to the primary key of a tracked table.
fn parent_hash(catalog: &Catalog, reference: &Reference, values: &[Value]) -> Result<Option<RowHash>> {
    let Some((_, parent)) = catalog.tracked().find(|(_, t)| t.table_name.eq_ignore_ascii_case(&reference.parent)) else {
        return Ok(None);
    };
    let place = |column: usize| {
        let name = &parent.columns[column].name;
        reference.parent_columns.iter().position(|c| c.eq_ignore_ascii_case(name))
    };
    if parent.key.len() != reference.parent_columns.len() || parent.key.iter().any(|&k| place(k).is_none()) {
        return Ok(None);
    }
    parent.row_hash(|c| Ok(place(c).map_or(ValueRef::Null, |p| values[p].as_ref()))).map(Some)
}

/// A row that still refers to one that was deleted.
fn remaining_child(
    host: &mut SqliteHost<'_>,
    table: &Table,
    children: &[(String, Reference)],
    key: &[Value],
) -> Result<Option<String>> {
    for (child, reference) in children.iter().filter(|(_, r)| r.parent.eq_ignore_ascii_case(&table.table_name)) {
        let mut terms = Vec::new();
        for (column, parent_column) in reference.columns.iter().zip(&reference.parent_columns) {
            let place = table.key.iter().position(|&k| table.columns[k].name.eq_ignore_ascii_case(parent_column));
            if let Some(place) = place {
                terms.push(format!("{} = ?{}", Identifier(column), place + 1));
            }
        }
        if terms.len() != table.key.len() || terms.len() != reference.columns.len() {
            continue;
        }
        let sql = format!("SELECT 1 FROM {} WHERE {} LIMIT 1", TableName(child), terms.join(" AND "));
        if host.statements.integer(&sql, &refs(key))?.is_some() {
            return Ok(Some(format!("rows of {child:?} still refer to this row of {:?}", table.table_name)));
        }
    }
    Ok(None)
}

fn has_orphan(host: &mut SqliteHost<'_>, child: &str, reference: &Reference) -> Result<bool> {
    let not_null: Vec<String> = reference.columns.iter().map(|c| format!("c.{} IS NOT NULL", Identifier(c))).collect();
    let sql = format!(
        "SELECT 1 FROM {} AS c WHERE {} AND NOT EXISTS (SELECT 1 FROM {} AS p WHERE {}) LIMIT 1",
        TableName(child),
        not_null.join(" AND "),
        TableName(&reference.parent),
        joined(reference)
    );
    Ok(host.statements.integer(&sql, &[])?.is_some())
}

fn joined(reference: &Reference) -> String {
    let pairs = reference.columns.iter().zip(&reference.parent_columns);
    let terms = pairs.map(|(column, parent)| format!("p.{} = c.{}", Identifier(parent), Identifier(column)));
    terms.collect::<Vec<_>>().join(" AND ")
}
