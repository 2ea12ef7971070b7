//! A table as PostgreSQL's catalogue has it.

use crate::definer::SafePath;
use crate::form::Form;
use crate::host::PgHost;
use crate::relation;
use crate::spi::{self, Parameter, Rows, View};
use pgrx::pg_sys::Oid;
use sync_shared::{Column, Description, Portable, Reference, RelationKind, Result, Row as _, Storage, ValueRef};

/// The type `money`, whose number has another name in the declarations of PostgreSQL 13.
const MONEY: i64 = 790;

/// Describes the relation of a name of the core's; None if there is none.
pub fn describe(host: &mut PgHost, name: &str) -> Result<Option<Description>> {
    let Some(oid) = relation::by_name(name) else { return Ok(None) };
    // Types and defaults are written with their schemas, whatever the caller's search path is.
    let _path = SafePath::enter();
    let (kind, is_partition, is_unlogged) = kind_of(host, oid)?;
    let mut description = Description {
        kind,
        table_name: relation::name_of(oid),
        name: relation::wire_name_of(oid),
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
    if is_partition {
        description.notes.push((
            "Partition".to_owned(),
            format!("{name:?} is a partition: rows that move between partitions are a delete and an insert"),
            "track the partitioned table".to_owned(),
        ));
    }
    if is_unlogged {
        description.notes.push((
            "Unlogged".to_owned(),
            format!("{name:?} is unlogged: a crash empties it without a trace in the log"),
            "ALTER TABLE ... SET LOGGED".to_owned(),
        ));
    }
    if let Some(children) = children_of(oid)? {
        description.notes.push((
            "InheritanceChildren".to_owned(),
            format!("{children} inherit from {name:?}: their rows are theirs, and are neither recorded, hashed nor changed with it"),
            "track each of them as a table of its own, or use partitions".to_owned(),
        ));
    }
    read_columns(oid, &mut description)?;
    description.references = references_of(oid)?;
    Ok(Some(description))
}

fn of(oid: Oid) -> Result<[Parameter; 1]> {
    Ok([Parameter::of(ValueRef::Integer(i64::from(oid.to_u32())))?])
}

fn kind_of(host: &PgHost, oid: Oid) -> Result<(RelationKind, bool, bool)> {
    let sql = "SELECT c.relkind::text, c.relpersistence::text, n.nspname::text, c.relispartition, c.relname::text, n.oid \
               FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = $1::pg_catalog.oid";
    let (_, row) = spi::run(sql, &of(oid)?, View::Latest, |rows| rows.row(0))?;
    let (kind, persistence, schema) = (row.text(0)?, row.text(1)?, row.text(2)?);
    let own = row.integer(5)? == i64::from(host.extension.schema.to_u32()) && row.text(4)?.starts_with("_sync_");
    let kind = match kind {
        _ if own || schema == "information_schema" || schema.starts_with("pg_") && persistence != "t" => RelationKind::System,
        _ if persistence == "t" => RelationKind::Temporary,
        "v" | "m" => RelationKind::View,
        "f" => RelationKind::Virtual,
        "r" | "p" => RelationKind::Table,
        _ => RelationKind::System,
    };
    Ok((kind, row.integer(3)? != 0, persistence == "u"))
}

/// The names of the tables that inherit from a table and are no partitions of it.
fn children_of(oid: Oid) -> Result<Option<String>> {
    let sql = "SELECT pg_catalog.string_agg(c.oid::pg_catalog.regclass::text, ', ' ORDER BY c.oid) FROM pg_catalog.pg_inherits AS h \
               JOIN pg_catalog.pg_class AS c ON c.oid = h.inhrelid WHERE h.inhparent = $1::pg_catalog.oid AND NOT c.relispartition";
    spi::run(sql, &of(oid)?, View::Latest, |rows| rows.row(0)?.optional_text(0)).map(|(_, names)| names)
}

/// Reads the columns and the primary key.
fn read_columns(oid: Oid, description: &mut Description) -> Result<()> {
    let sql = "SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypid, a.attnotnull, \
               a.attgenerated <> '', pg_catalog.pg_get_expr(d.adbin, d.adrelid), pg_catalog.array_position(i.indkey::int2[], a.attnum), \
               (SELECT NOT k.collisdeterministic FROM pg_catalog.pg_collation AS k WHERE k.oid = a.attcollation) \
               FROM pg_catalog.pg_attribute AS a \
               LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
               LEFT JOIN pg_catalog.pg_index AS i ON i.indrelid = a.attrelid AND i.indisprimary \
               WHERE a.attrelid = $1::pg_catalog.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
    let mut key: Vec<(i64, usize)> = Vec::new();
    spi::run(sql, &of(oid)?, View::Latest, |rows| {
        for at in 0..rows.len() {
            let row = rows.row(at)?;
            let name = row.text(0)?;
            if row.integer(4)? != 0 {
                description.generated.push(name.to_owned());
                continue;
            }
            let mut column = Column::new(name, row.text(1)?, Storage::Typed);
            column.portable = Form::of(Oid::from_u32(row.integer(2)? as u32)).portable();
            if row.integer(2)? == MONEY {
                description.notes.push((
                    "MoneyLocale".to_owned(),
                    format!("column {name:?} is of type money, which has as many digits as its server's lc_monetary says; it travels as $1,234.56"),
                    "use numeric".to_owned(),
                ));
            }
            column.not_null = row.integer(3)? != 0;
            column.default = row.optional_text(5)?;
            if rows.datum(at, 6).is_some() {
                description.notes.extend(note_of_key(&column, rows.datum(at, 7).is_some_and(|folds| folds.value() != 0)));
                key.push((row.integer(6)?, description.columns.len()));
            }
            description.columns.push(column);
        }
        Ok(())
    })?;
    key.sort_unstable();
    description.key = key.into_iter().map(|(_, place)| place).collect();
    Ok(())
}

/// What is to be said of a column of the key whose values are equal in several spellings.
fn note_of_key(column: &Column, folds: bool) -> Option<(String, String, String)> {
    let name = &column.name;
    if folds || column.declared.rsplit('.').next() == Some("citext") {
        return Some((
            "FoldedKey".to_owned(),
            format!("column {name:?} of the key holds different texts to be equal: of two rows whose keys differ in that only, one is refused"),
            "spell its values alike on all replicas, or make it text".to_owned(),
        ));
    }
    (column.portable == Portable::Decimal).then(|| {
        (
            "NumericKey".to_owned(),
            format!("column {name:?} of the key is one number with 1 and 1.00, which are two texts"),
            "declare it NUMERIC in SQLite, not TEXT, or use an integer or a uuid".to_owned(),
        )
    })
}

fn references_of(oid: Oid) -> Result<Vec<Reference>> {
    let sql = "SELECT c.oid, c.confrelid, a.attname::text, p.attname::text FROM pg_catalog.pg_constraint AS c \
               CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(c.conkey), pg_catalog.unnest(c.confkey)) WITH ORDINALITY AS k (child, parent, place) \
               JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.child \
               JOIN pg_catalog.pg_attribute AS p ON p.attrelid = c.confrelid AND p.attnum = k.parent \
               WHERE c.conrelid = $1::pg_catalog.oid AND c.contype = 'f' ORDER BY c.conname, c.oid, k.place";
    let mut references: Vec<(i64, Reference)> = Vec::new();
    let mut read = |rows: &Rows| {
        for at in 0..rows.len() {
            let row = rows.row(at)?;
            let id = row.integer(0)?;
            if references.last().is_none_or(|(last, _)| *last != id) {
                let parent = relation::name_of(Oid::from_u32(row.integer(1)? as u32));
                references.push((id, Reference { columns: Vec::new(), parent, parent_columns: Vec::new() }));
            }
            if let Some((_, reference)) = references.last_mut() {
                reference.columns.push(row.text(2)?.to_owned());
                reference.parent_columns.push(row.text(3)?.to_owned());
            }
        }
        Ok(())
    };
    spi::run(sql, &of(oid)?, View::Latest, |rows| read(rows))?;
    Ok(references.into_iter().map(|(_, reference)| reference).collect())
}
