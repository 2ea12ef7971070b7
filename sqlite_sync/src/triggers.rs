//! The triggers on a table that are not ours, those of the database and the temporary ones of this connection.

use crate::capture::trigger_names;
use crate::host::SqliteHost;
use sync_shared::{Result, Row as _, ValueRef};

/// The texts of a table's triggers besides ours.
pub fn others(host: &mut SqliteHost<'_>, table_name: &str) -> Result<Vec<String>> {
    let names = trigger_names(table_name);
    let parameters = [table_name, &names[0], &names[1], &names[2]].map(ValueRef::Text);
    let mut others = Vec::new();
    let mut collect = |host: &mut SqliteHost<'_>, schema: &str, but: &str| {
        let sql = format!("SELECT sql FROM {schema} WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE{but}");
        let used = if but.is_empty() { 1 } else { parameters.len() };
        host.statements.query(&sql, &parameters[..used], &mut |row| {
            others.push(row.text(0)?.to_owned());
            Ok(true)
        })
    };
    collect(host, "sqlite_schema", " AND name COLLATE NOCASE NOT IN (?2, ?3, ?4)")?;
    if has_temporary_schema(host)? {
        collect(host, "sqlite_temp_schema", "")?;
    }
    Ok(others)
}

/// Has this connection any temporary trigger?
pub fn any_temporary(host: &mut SqliteHost<'_>) -> Result<bool> {
    let sql = "SELECT 1 FROM sqlite_temp_schema WHERE type = 'trigger' LIMIT 1";
    Ok(has_temporary_schema(host)? && host.statements.integer(sql, &[])?.is_some())
}

/// To ask for the temporary schema would make one, and then a checkpoint after a change to WAL mode fails.
fn has_temporary_schema(host: &mut SqliteHost<'_>) -> Result<bool> {
    Ok(host.statements.integer("SELECT 1 FROM pragma_database_list WHERE name = 'temp'", &[])?.is_some())
}
