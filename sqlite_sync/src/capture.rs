//! Capture: three triggers per table in pure SQL that append the row, in its native values, to the log.
//!
//! They need no function of the extension and no trusted schema. There is no condition in them that could switch them off.

use crate::error::engine;
use crate::quote::{Identifier, Literal};
use rusqlite::{Connection, OptionalExtension};
use std::fmt::Write as _;
use sync_shared::{Column, Error, Kind, Result, Storage, Table};

/// Columns of one row of `_sync_log_data`; wider tables write several rows per entry.
pub const PART_WIDTH: usize = 64;

const CREATE: &str = "CREATE TRIGGER ";

/// Milliseconds since 1970, but never less than the clock of the log's last row.
pub const CLOCK: &str = "max(CAST((julianday('now') - 2440587.5) * 86400000.0 + 0.5 AS INTEGER), \
                         (SELECT clock FROM _sync_log_data ORDER BY version DESC LIMIT 1))";

/// How many rows of `_sync_log_data` an entry of this many columns takes.
pub fn parts(width: usize) -> usize {
    width.div_ceil(PART_WIDTH).max(1)
}

pub fn trigger_names(table_name: &str) -> [String; 3] {
    ["insert", "update", "delete"].map(|operation| format!("{table_name}_sync_{operation}"))
}

/// The three triggers of a table.
pub fn trigger_statements(table: &Table, self_id: i64) -> [String; 3] {
    let [insert, update, delete] = trigger_names(&table.table_name);
    let on = Identifier(&table.table_name);
    let entry = Entry { table, self_id };
    let refuse = refuse_null_key(table);
    let key_changed = any_of(&table.key.iter().map(|&k| differs(&table.columns[k])).collect::<Vec<_>>());
    let changed = any_of(&table.columns.iter().map(differs).collect::<Vec<_>>());
    [
        format!(
            "{CREATE}{} AFTER INSERT ON {on} BEGIN {refuse}{}END",
            Identifier(&insert),
            entry.row("0", "NEW")
        ),
        format!(
            "{CREATE}{} AFTER UPDATE ON {on} WHEN {changed} BEGIN {refuse}{}{}END",
            Identifier(&update),
            entry.key_where(&key_changed),
            entry.row(&format!("CASE WHEN {key_changed} THEN 0 ELSE 1 END"), "NEW")
        ),
        format!("{CREATE}{} AFTER DELETE ON {on} BEGIN {}END", Identifier(&delete), entry.key("OLD")),
    ]
}

/// Puts a table's triggers in place of those it has, and widens the log if the table needs it.
pub fn install(connection: &Connection, table: &Table, self_id: i64) -> Result<()> {
    widen_log(connection, table.columns.len().min(PART_WIDTH))?;
    for name in trigger_names(&table.table_name) {
        if let Some((other, false)) = owner_of(connection, &name)? {
            let message = format!("a trigger of table {other:?} has the name {name:?}, which capture needs; drop it and create it under another name");
            return Err(Error::new(Kind::UnsupportedTable, message));
        }
    }
    remove(connection, table)?;
    for statement in trigger_statements(table, self_id) {
        // In the database itself, and so on its table. SQLite leaves this out of the text that it keeps.
        connection.execute_batch(&statement.replacen(CREATE, &format!("{CREATE}main."), 1)).map_err(engine)?;
    }
    Ok(())
}

pub fn remove(connection: &Connection, table: &Table) -> Result<()> {
    for name in trigger_names(&table.table_name) {
        if let Some((_, true)) = owner_of(connection, &name)? {
            connection.execute_batch(&format!("DROP TRIGGER main.{}", Identifier(&name))).map_err(engine)?;
        }
    }
    Ok(())
}

/// The table of a trigger, and whether the trigger is one of ours; None if there is none of this name.
fn owner_of(connection: &Connection, trigger: &str) -> Result<Option<(String, bool)>> {
    let sql = "SELECT tbl_name, instr(sql, 'INSERT INTO _sync_log_data (') > 0 FROM sqlite_schema WHERE type = 'trigger' AND name = ?1 COLLATE NOCASE";
    connection.query_row(sql, [trigger], |row| Ok((row.get(0)?, row.get(1)?))).optional().map_err(engine)
}

/// The number of `c1, c2, ...` that the log has.
pub fn log_width(connection: &Connection) -> Result<usize> {
    let sql = "SELECT count(*) FROM pragma_table_info('_sync_log_data') WHERE name GLOB 'c[0-9]*'";
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(|n| n as usize).map_err(engine)
}

fn widen_log(connection: &Connection, width: usize) -> Result<()> {
    for column in log_width(connection)? + 1..=width {
        connection.execute_batch(&format!("ALTER TABLE _sync_log_data ADD COLUMN c{column}")).map_err(engine)?;
    }
    Ok(())
}

/// Writes the INSERT statements of one log entry.
struct Entry<'a> {
    table: &'a Table,
    self_id: i64,
}

impl Entry<'_> {
    /// The whole row.
    fn row(&self, operation: &str, side: &str) -> String {
        self.statements(operation, side, |_| true, None)
    }

    /// The key only: a delete.
    fn key(&self, side: &str) -> String {
        self.statements("2", side, |column| self.table.key.contains(&column), None)
    }

    /// The delete of the old key, where an update has changed it.
    fn key_where(&self, condition: &str) -> String {
        self.statements("2", "OLD", |column| self.table.key.contains(&column), Some(condition))
    }

    fn statements(&self, operation: &str, side: &str, takes: impl Fn(usize) -> bool, condition: Option<&str>) -> String {
        let count = parts(self.table.columns.len());
        let mut out = String::new();
        for part in 0..count {
            let (mut names, mut values) = (String::new(), String::new());
            let range = part * PART_WIDTH..self.table.columns.len().min((part + 1) * PART_WIDTH);
            for column in range.filter(|&c| takes(c)) {
                write!(names, ", c{}", column - part * PART_WIDTH + 1).ok();
                write!(values, ", {side}.{}", Identifier(&self.table.columns[column].name)).ok();
            }
            let operation = if part + 1 == count { operation } else { "3" };
            let (layout, origin) = (self.table.layout, self.self_id);
            write!(out, "INSERT INTO _sync_log_data (layout, operation, origin, clock{names}) ").ok();
            match condition {
                None => write!(out, "VALUES ({layout}, {operation}, {origin}, {CLOCK}{values}); ").ok(),
                Some(condition) => write!(out, "SELECT {layout}, {operation}, {origin}, {CLOCK}{values} WHERE {condition}; ").ok(),
            };
        }
        out
    }
}

/// SQLite lets key columns be NULL in some tables; such a row has no identity and could never be synced.
fn refuse_null_key(table: &Table) -> String {
    if !table.nullable_key {
        return String::new();
    }
    let message = format!("sync: InvalidArgument: a row of {:?} has NULL in its primary key; tracked rows need a key", table.table_name);
    let null = table.key.iter().map(|&k| format!("NEW.{} IS NULL", Identifier(&table.columns[k].name)));
    format!("SELECT RAISE(ABORT, {}) WHERE {}; ", Literal(&message), null.collect::<Vec<_>>().join(" OR "))
}

/// Did an update change the column? Byte for byte, whatever the column's collation.
fn differs(column: &Column) -> String {
    let name = Identifier(&column.name);
    differ(column, &format!("OLD.{name}"), &format!("NEW.{name}"))
}

/// As SQL, whether two values of a column are not the same, given as expressions.
pub fn differ(column: &Column, old: &str, new: &str) -> String {
    let plain = format!("{old} COLLATE BINARY IS NOT {new}");
    if column.storage != Storage::Any {
        return plain;
    }
    // 1 and 1.0 are equal and so are 0.0 and -0.0, but they are not the same value.
    format!(
        "({plain} OR typeof({old}) <> typeof({new}) OR \
         (typeof({old}) = 'real' AND {old} = 0.0 AND quote({old}) <> quote({new})))"
    )
}

/// The conditions joined by OR, as a balanced tree: the depth of an expression is limited.
pub fn any_of(conditions: &[String]) -> String {
    match conditions {
        [] => "0".to_owned(),
        [one] => one.clone(),
        many => {
            let (left, right) = many.split_at(many.len() / 2);
            format!("({} OR {})", any_of(left), any_of(right))
        }
    }
}
