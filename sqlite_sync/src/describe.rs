//! A table as SQLite's catalogue has it.

use crate::error::engine;
use rusqlite::{Connection, OptionalExtension};
use sync_shared::{Column, Description, Reference, RelationKind, Result, SCHEMA_TABLES, Storage, TextFold};

/// Describes a table or view of this name, whatever its case, a temporary one only if the database itself has none; None if there is none.
pub fn describe(connection: &Connection, name: &str) -> Result<Option<Description>> {
    let Some((kind, table_name, without_rowid, strict)) = relation(connection, name)? else { return Ok(None) };
    let mut description = Description {
        kind,
        name: table_name.clone(),
        table_name,
        columns: Vec::new(),
        generated: Vec::new(),
        key: Vec::new(),
        nullable_key: false,
        references: Vec::new(),
        unique: Vec::new(),
        notes: Vec::new(),
    };
    if kind != RelationKind::Table {
        return Ok(Some(description));
    }
    let key_places = read_columns(connection, &mut description, strict)?;
    description.key = key_places;
    let key_index = read_indexes(connection, &mut description)?;
    let rowid_alias = !key_index
        && !without_rowid
        && description.key.len() == 1
        && description.columns[description.key[0]].declared.eq_ignore_ascii_case("INTEGER");
    description.nullable_key =
        !without_rowid && !strict && !rowid_alias && description.key.iter().any(|&k| !description.columns[k].not_null);
    description.references = references_of(connection, &description.table_name)?;
    Ok(Some(description))
}

type Relation = (RelationKind, String, bool, bool);

fn relation(connection: &Connection, name: &str) -> Result<Option<Relation>> {
    if ["sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema"].iter().any(|s| s.eq_ignore_ascii_case(name)) {
        return Ok(Some((RelationKind::System, name.to_owned(), false, false)));
    }
    let sql = "SELECT schema, name, type, wr, strict FROM pragma_table_list WHERE name = ?1 COLLATE NOCASE AND schema IN ('main', 'temp') \
               ORDER BY schema = 'temp' LIMIT 1";
    let found = connection.query_row(sql, [name], |row| {
        let (schema, name, kind): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let own = SCHEMA_TABLES.iter().any(|t| t.eq_ignore_ascii_case(&name));
        let kind = match kind.as_str() {
            _ if own || name.to_ascii_lowercase().starts_with("sqlite_") => RelationKind::System,
            _ if schema == "temp" => RelationKind::Temporary,
            "view" => RelationKind::View,
            "virtual" | "shadow" => RelationKind::Virtual,
            _ => RelationKind::Table,
        };
        Ok((kind, name, row.get(3)?, row.get(4)?))
    });
    found.optional().map_err(engine)
}

/// Reads the columns; returns the places of the key's columns, in key order.
fn read_columns(connection: &Connection, description: &mut Description, strict: bool) -> Result<Vec<usize>> {
    let sql = "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1, 'main') ORDER BY cid";
    let mut statement = connection.prepare(sql).map_err(engine)?;
    let mut rows = statement.query([&description.table_name]).map_err(engine)?;
    let mut key: Vec<(i64, usize)> = Vec::new();
    while let Some(row) = rows.next().map_err(engine)? {
        let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<(String, String, bool, Option<String>, i64, i64)> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
        };
        let (name, declared, not_null, default, key_place, hidden) = read(row).map_err(engine)?;
        if hidden != 0 {
            description.generated.push(name);
            continue;
        }
        let mut column = Column::new(&name, &declared, affinity(&declared, strict));
        (column.not_null, column.default) = (not_null, default);
        if key_place > 0 {
            key.push((key_place, description.columns.len()));
        }
        description.columns.push(column);
    }
    key.sort_unstable();
    Ok(key.into_iter().map(|(_, place)| place).collect())
}

/// Reads UNIQUE indexes and the collations of the key. True if the key has an index of its own.
fn read_indexes(connection: &Connection, description: &mut Description) -> Result<bool> {
    let sql = "SELECT l.name, l.origin, l.partial, x.name, x.coll FROM pragma_index_list(?1, 'main') AS l, pragma_index_xinfo(l.name, 'main') AS x \
               WHERE l.\"unique\" = 1 AND x.key = 1 ORDER BY l.seq, x.seqno";
    let mut statement = connection.prepare(sql).map_err(engine)?;
    let mut rows = statement.query([&description.table_name]).map_err(engine)?;
    let mut unique: Vec<(String, Vec<String>)> = Vec::new();
    let mut key_index = false;
    while let Some(row) = rows.next().map_err(engine)? {
        let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<(String, String, Option<String>, Option<String>)> {
            Ok((row.get(0)?, row.get(1)?, row.get(3)?, row.get(4)?))
        };
        let (index, origin, column, collation) = read(row).map_err(engine)?;
        if origin == "pk" {
            key_index = true;
            let fold = match collation.as_deref().map(str::to_ascii_uppercase).as_deref() {
                Some("NOCASE") => TextFold::AsciiCase,
                Some("RTRIM") => TextFold::TrailingSpace,
                _ => TextFold::Exact,
            };
            if let Some(column) = description.columns.iter_mut().find(|c| Some(&c.name) == column.as_ref()) {
                column.fold = fold;
            }
            continue;
        }
        let column = column.unwrap_or_else(|| "an expression".to_owned());
        match unique.last_mut() {
            Some((last, columns)) if *last == index => columns.push(column),
            _ => unique.push((index, vec![column])),
        }
    }
    description.unique = unique.into_iter().map(|(_, columns)| columns).collect();
    Ok(key_index)
}

/// The foreign keys of a table.
pub fn references_of(connection: &Connection, table: &str) -> Result<Vec<Reference>> {
    let sql = "SELECT id, \"table\", \"from\", \"to\" FROM pragma_foreign_key_list(?1, 'main') ORDER BY id, seq";
    let mut statement = connection.prepare(sql).map_err(engine)?;
    let mut rows = statement.query([table]).map_err(engine)?;
    let mut references: Vec<(i64, Reference)> = Vec::new();
    while let Some(row) = rows.next().map_err(engine)? {
        let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<(i64, String, String, Option<String>)> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        };
        let (id, parent, from, to) = read(row).map_err(engine)?;
        if references.last().is_none_or(|(last, _)| *last != id) {
            references.push((id, Reference { columns: Vec::new(), parent, parent_columns: Vec::new() }));
        }
        if let Some((_, reference)) = references.last_mut() {
            reference.columns.push(from);
            reference.parent_columns.extend(to);
        }
    }
    let mut references: Vec<Reference> = references.into_iter().map(|(_, reference)| reference).collect();
    for reference in references.iter_mut().filter(|r| r.parent_columns.is_empty()) {
        reference.parent_columns = primary_key(connection, &reference.parent)?;
    }
    Ok(references)
}

fn primary_key(connection: &Connection, table: &str) -> Result<Vec<String>> {
    let sql = "SELECT name FROM pragma_table_info(?1, 'main') WHERE pk > 0 ORDER BY pk";
    let mut statement = connection.prepare(sql).map_err(engine)?;
    let names = statement.query_map([table], |row| row.get(0)).map_err(engine)?;
    names.collect::<rusqlite::Result<_>>().map_err(engine)
}

/// What a column of a declared type does to values: SQLite's rules of affinity.
fn affinity(declared: &str, strict: bool) -> Storage {
    let upper = declared.to_ascii_uppercase();
    let has = |part: &str| upper.contains(part);
    if upper.is_empty() || (strict && upper == "ANY") {
        return Storage::Any;
    }
    if has("INT") {
        Storage::Number
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        Storage::Text
    } else if has("BLOB") {
        Storage::Any
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        Storage::Real
    } else {
        Storage::Number
    }
}
