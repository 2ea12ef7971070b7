//! `_sync_log`: the log as anyone can read it, without the extension, with the original's columns.
//!
//! JSON is made here, when it is read. One difference to a fetch: SQLite's own formatting shows -0.0 as 0.0.

use crate::capture::{PART_WIDTH, parts};
use crate::error::engine;
use crate::quote::Literal;
use rusqlite::{Connection, OptionalExtension};
use std::fmt::Write as _;
use sync_shared::{Catalog, Column, Layout, Result, Storage};

/// A value as JSON; `v` holds it. `@TEXT` stands for [`QUOTED_TEXT`].
const JSON_VALUE: &str = r#"CASE typeof(v) WHEN 'text' THEN @TEXT WHEN 'null' THEN 'null' WHEN 'integer' THEN v WHEN 'blob' THEN '{"$blob":"' || lower(hex(v)) || '"}' ELSE CASE WHEN v = 9e999 THEN '{"$real":"Infinity"}' WHEN v = -9e999 THEN '{"$real":"-Infinity"}' WHEN CAST(format('%!.15g', v) AS REAL) = v THEN format('%!.15g', v) WHEN CAST(format('%!.17g', v) AS REAL) = v THEN format('%!.17g', v) ELSE format('%!.20e', v) END END"#;

/// `v` as a JSON string, in functions that any schema may call: json_quote is not one of them on every SQLite. replace() stops at
/// NUL, so the text is first taken apart at its NULs, char(1) standing for them, and then escaped one control character after the other.
const QUOTED_TEXT: &str = r#"'"' || CASE WHEN instr(CAST(v AS BLOB), x'00') = 0 AND v NOT GLOB '*[' || char(1) || '-' || char(31) || '"\]*' THEN v ELSE (WITH RECURSIVE e(i, t, r) AS (SELECT 0, '', CAST(v || char(0) AS BLOB) UNION ALL SELECT iif(length(r) > 0, 0, i + 1), iif(length(r) > 0, t || replace(replace(replace(CAST(substr(r, 1, instr(r, x'00') - 1) AS TEXT), '\', '\\'), '"', '\"'), char(1), '\u0001') || char(1), iif(i = 0, substr(t, 1, length(t) - 1), replace(t, char(i), coalesce(iif(i = 1, '\u0000', NULL), iif(i = 8, '\b', NULL), iif(i = 9, '\t', NULL), iif(i = 10, '\n', NULL), iif(i = 12, '\f', NULL), iif(i = 13, '\r', NULL), '\u00' || lower(hex(char(i))))))), CAST(substr(r, instr(r, x'00') + 1) AS BLOB) FROM e WHERE i < 32) SELECT t FROM e WHERE i = 32) END || '"'"#;

/// Makes the view anew if the tracked tables or their columns changed.
pub fn publish(connection: &Connection, catalog: &Catalog) -> Result<()> {
    let wanted = view(catalog);
    let sql = "SELECT sql FROM sqlite_schema WHERE type = 'view' AND name = '_sync_log'";
    let current: Option<String> = connection.query_row(sql, [], |row| row.get(0)).optional().map_err(engine)?;
    if current.as_deref() == Some(&wanted) {
        return Ok(());
    }
    connection.execute_batch("DROP VIEW IF EXISTS _sync_log").map_err(engine)?;
    connection.execute_batch(&wanted).map_err(engine)
}

fn view(catalog: &Catalog) -> String {
    let (mut names, mut keys, mut payloads) = (String::new(), String::new(), String::new());
    let mut layouts: Vec<&Layout> = catalog.layouts.values().collect();
    layouts.sort_by_key(|l| l.layout);
    for Layout { layout, table, names: columns, .. } in layouts {
        let Some(table) = table.map(|index| &catalog.tables[index]) else { continue };
        let table_name = &table.table_name;
        let key = table.key_members.iter().map(|&k| table.columns[k].name.as_str());
        let key: Vec<usize> = key.filter_map(|k| columns.iter().position(|c| c.eq_ignore_ascii_case(k))).collect();
        let all: Vec<usize> = (0..columns.len()).collect();
        write!(names, " WHEN {layout} THEN {}", Literal(table_name)).ok();
        write!(keys, " WHEN {layout} THEN {}", object(columns, &key)).ok();
        write!(payloads, " WHEN {layout} THEN {}", object(columns, &all)).ok();
    }
    let by_layout = |cases: &str| if cases.is_empty() { "NULL".to_owned() } else { format!("CASE d.layout{cases} END") };
    format!(
        "CREATE VIEW _sync_log AS SELECT d.version AS version, {} AS table_name, {} AS pk_value, \
         CASE d.operation WHEN 0 THEN 'insert' WHEN 1 THEN 'update' ELSE 'delete' END AS operation, \
         CASE WHEN d.operation < 2 THEN {} END AS payload, \
         (SELECT o.origin FROM _sync_origins AS o WHERE o.id = d.origin) AS origin, \
         strftime('%Y-%m-%dT%H:%M:%S', (coalesce(d.stamp, d.clock) + 62167219200000) / 1000 - 62167219200, 'unixepoch') || \
         format('.%03dZ', (coalesce(d.stamp, d.clock) + 62167219200000) % 1000) AS timestamp \
         FROM _sync_log_data AS d WHERE d.version > 0 AND d.operation < 3",
        by_layout(&names),
        by_layout(&keys),
        by_layout(&payloads)
    )
}

/// A JSON object of some columns of a layout.
fn object(columns: &[String], members: &[usize]) -> String {
    let last = parts(columns.len()) - 1;
    let mut rows = String::new();
    for (i, &place) in members.iter().enumerate() {
        let (part, slot) = (place / PART_WIDTH, place % PART_WIDTH + 1);
        let member = Column::new(&columns[place], "", Storage::Any).member;
        let row = if part == last { "d".to_owned() } else { format!("p{part}") };
        // Only VALUES may have any number of rows, and only SELECT names its columns.
        match i {
            0 => write!(rows, "SELECT {} AS n, {row}.c{slot} AS v", Literal(&member)).ok(),
            1 => write!(rows, " UNION ALL VALUES ({}, {row}.c{slot})", Literal(&member)).ok(),
            _ => write!(rows, ", ({}, {row}.c{slot})", Literal(&member)).ok(),
        };
    }
    let object = format!("(SELECT '{{' || group_concat(n || {}, ',') || '}}' FROM ({rows}))", JSON_VALUE.replace("@TEXT", QUOTED_TEXT));
    if last == 0 {
        return object;
    }
    let tables: Vec<String> = (0..last).map(|p| format!("_sync_log_data AS p{p}")).collect();
    let joined: Vec<String> = (0..last).map(|p| format!("p{p}.version = d.version - {}", last - p)).collect();
    format!("(SELECT {object} FROM {} WHERE {})", tables.join(", "), joined.join(" AND "))
}
