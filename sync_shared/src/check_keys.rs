//! What `sync_check_table` and `sync_track_table` say of keys: where two spellings may be one row to one engine and two to another.

use crate::check::Finding;
use crate::error::Result;
use crate::host::Host;
use crate::refresh::definition_of;
use crate::table::{Column, Description, Portable, RowHash, Storage, Table, TextFold};
use crate::value::ValueRef;
use std::collections::{BTreeMap, HashSet};

/// Rows that `sync_track_table` looks at.
pub const SAMPLE: usize = 100;

/// A key under a collation that holds different texts to be equal.
pub fn folded_keys(description: &Description) -> Vec<Finding> {
    let is_folded = |column: &&Column| column.fold != TextFold::Exact && !(column.portable == Portable::Uuid && column.fold == TextFold::AsciiCase);
    let warning = |column: &Column| {
        let what = if column.fold == TextFold::AsciiCase { "case" } else { "spaces at the end" };
        finding(
            "FoldedKey",
            format!("column {:?} of the key ignores {what}: of two rows whose keys differ in that only, one is refused", column.name),
            "spell its values alike on all replicas, for example with CHECK (email = lower(email))",
        )
    };
    description.key.iter().map(|&k| &description.columns[k]).filter(is_folded).map(warning).collect()
}

/// Keys of the first rows, at most `limit`, which an engine with a type for them refuses, or takes for each other.
/// Memory: 16 bytes for each row of a table whose key has several spellings.
pub fn spelled_keys(
    host: &mut dyn Host,
    description: &Description,
    types: &BTreeMap<String, Portable>,
    limit: usize,
) -> Result<Vec<Finding>> {
    let definition = definition_of(description, &[], types, true);
    let names = (description.table_name.clone(), description.table_name.clone());
    let table = Table::new((0, 0, false), names, definition, Default::default());
    let is_text = |&k: &usize| table.columns[k].storage != Storage::Typed && (table.columns[k].respells() || table.columns[k].portable == Portable::Text);
    let texts: Vec<usize> = table.key.iter().copied().filter(is_text).collect();
    let mut findings: Vec<Finding> = Vec::new();
    if texts.is_empty() {
        return Ok(findings);
    }
    let may_repeat = texts.iter().any(|&k| table.columns[k].respells());
    let (mut seen, mut rows): (HashSet<RowHash>, usize) = (HashSet::new(), 0);
    host.stream_rows(&table, &mut |row| {
        rows += 1;
        for &k in &texts {
            let Ok(ValueRef::Text(text)) = row.value(k) else { continue };
            if let Some(found) = spelled(&table.columns[k], text).filter(|found| findings.iter().all(|f| f.code != found.code)) {
                findings.push(found);
            }
        }
        if may_repeat && table.key.iter().all(|&k| row.value(k).is_ok()) && !seen.insert(table.row_hash(|c| row.value(c))?) {
            let mut key = String::new();
            table.write_key(&mut key, |c| row.value(c))?;
            findings.push(Finding {
                severity: "error",
                ..finding("SameKeyTwice", format!("two rows have the key {key} in different spellings: they are synced as one"), "delete one of them, or give it another key")
            });
        }
        Ok(rows < limit && findings.len() < 100)
    })?;
    Ok(findings)
}

fn spelled(column: &Column, text: &str) -> Option<Finding> {
    let typed = Column { storage: Storage::Typed, portable: if column.respells() { column.portable } else { Portable::Uuid }, ..column.clone() };
    if column.on_wire(text) == typed.on_wire(text) {
        return None;
    }
    let (code, fix) = match column.portable {
        Portable::Text => ("UpperCaseUuid", "write UUIDs in lower case, or track the table with {\"types\":{\"<column>\":\"uuid\"}}"),
        Portable::Uuid => ("MixedCaseUuid", "write UUIDs in lower case, or declare the column UUID COLLATE NOCASE"),
        _ => ("DatetimeSpelling", "write it in UTC, with Z"),
    };
    let message = format!("column {:?} of the key holds {text:?}, which is refused where the key is of a type that spells it {:?}", column.name, typed.on_wire(text));
    Some(finding(code, message, fix))
}

fn finding(code: &str, message: String, fix: &str) -> Finding {
    Finding { severity: "warning", code: code.to_owned(), message, fix: fix.to_owned() }
}
