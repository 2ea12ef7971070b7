//! Hashes: proof that two replicas hold the same data, and that a batch arrived as it was sent.

use crate::batch::decode_changes;
use crate::catalog::Catalog;
use crate::change::Change;
use crate::change_writer::write_hashed;
use crate::error::{Error, Kind, Result};
use crate::host::Host;
use crate::table::Table;
use crate::value::{push_hex, write_canonical};
use sha2::{Digest, Sha256};

/// Rows are hashed in pieces of about this many bytes.
const PIECE: usize = 16 * 1024;

/// SHA-256 over the canonical rows of one table, or of all tracked tables that the caller may read, by name. Memory does not grow with the tables.
pub fn hash(host: &mut dyn Host, table_name: Option<&str>) -> Result<String> {
    let (_, catalog) = Catalog::open(host)?;
    let mut tables: Vec<&Table> = match table_name {
        Some(name) => vec![&catalog.tables[catalog.by_name(host, name)?]],
        None => catalog.tracked().map(|(_, table)| table).collect(),
    };
    let mut readable = Vec::with_capacity(tables.len());
    for table in tables.drain(..) {
        match host.may_read(table)? {
            true => readable.push(table),
            false if table_name.is_some() => return Err(may_not_read(table)),
            false => {}
        }
    }
    let mut tables = readable;
    tables.sort_by_key(|t| t.name.to_ascii_lowercase());
    let mut digest = Sha256::new();
    for table in tables {
        hash_table(host, table, &mut digest)?;
    }
    Ok(hex(digest))
}

/// The hash of a batch's changes: `{version}:{tableName}:{pkValue}:{operation in lower case}:{payload or null}\n` for each.
pub fn hash_batch(text: &str) -> Result<String> {
    Ok(hash_of_changes(&decode_changes(text)?))
}

pub fn hash_of_changes(changes: &[Change<'_>]) -> String {
    let mut digest = Sha256::new();
    let mut line = String::with_capacity(2 * PIECE);
    for change in changes {
        if line.len() >= PIECE {
            digest.update(line.as_bytes());
            line.clear();
        }
        write_hashed(
            &mut line,
            change.version,
            &change.table_name,
            &change.pk_value,
            change.operation.lower(),
            change.payload.as_deref(),
        );
    }
    digest.update(line.as_bytes());
    hex(digest)
}

/// True, or `HashMismatch`. Hexadecimal digits in any case.
pub fn verify_hash(expected: &str, actual: &str) -> Result<bool> {
    match expected.eq_ignore_ascii_case(actual) {
        true => Ok(true),
        false => Err(Error::hash_mismatch(expected, actual)),
    }
}

fn hex(digest: Sha256) -> String {
    let mut out = String::with_capacity(64);
    push_hex(&mut out, &digest.finalize());
    out
}

fn hash_table(host: &mut dyn Host, table: &Table, digest: &mut Sha256) -> Result<()> {
    // Columns in the order of their canonical names, each with the text that goes before its value.
    let mut columns: Vec<(usize, String)> =
        table.columns.iter().enumerate().map(|(i, c)| (i, c.member.to_ascii_lowercase())).collect();
    columns.sort_by_key(|(i, _)| table.columns[*i].name.to_ascii_lowercase());
    for (place, (_, lead)) in columns.iter_mut().enumerate() {
        lead.insert(0, if place == 0 { '{' } else { ',' });
    }
    let mut piece = table.name.to_ascii_lowercase();
    piece.push('\n');
    let rows = host.stream_rows(table, &mut |row| {
        for (column, lead) in &columns {
            piece.push_str(lead);
            let value = row.value(*column).map_err(|e| unreadable(table, *column, &e))?;
            write_canonical(&mut piece, value, table.columns[*column].portable);
        }
        piece.push_str("}\n");
        if piece.len() >= PIECE {
            digest.update(piece.as_bytes());
            piece.clear();
        }
        Ok(true)
    });
    if rows.is_err() && host.describe(&table.table_name)?.is_none() {
        let message = format!("table {:?} is tracked and is not there; create it again, or call sync_untrack_table", table.table_name);
        return Err(Error::new(Kind::TableNotFound, message));
    }
    digest.update(piece.as_bytes());
    rows
}

/// The caller has no right on a table that it names.
pub fn may_not_read(table: &Table) -> Error {
    Error::new(Kind::PermissionDenied, format!("you may not read table {:?}", table.table_name))
}

fn unreadable(table: &Table, column: usize, error: &Error) -> Error {
    Error::argument(format!(
        "table {:?}, column {:?}: {error}; sync_check_table names the rows",
        table.table_name, table.columns[column].name
    ))
}
