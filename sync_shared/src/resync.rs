//! `sync_begin_resync`: the next pulls rebuild this replica from the server's log.
//!
//! Every row the server sends or leaves out is noted; at the end, rows that were not noted are gone on the server and are removed,
//! unless they hold a change that was not pushed.

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::host::{Host, Label, RowFailure, Touched, in_transaction, query_value};
use crate::reconcile::key_of;
use crate::state::{self, State};
use crate::table::RowHash;
use crate::unseen::{Peer, UPSTREAM, fold, unseen_entry};
use crate::value::{Value, ValueRef, decode_hex};
use std::collections::HashSet;

/// Sets the cursor to 0 and forgets which server it belonged to. Always true.
pub fn begin_resync(host: &mut dyn Host) -> Result<bool> {
    State::load(host)?;
    in_transaction(host, |host| {
        for (key, value) in [
            ("resync", "1"),
            ("last_server_version", "0"),
            ("server_origin", ""),
            ("server_epoch", ""),
            ("server_anchor", ""),
        ] {
            state::set(host, key, value)?;
        }
        host.execute("DELETE FROM _sync_resync_rows", &[])?;
        Ok(true)
    })
}

/// Notes that a row is on the server, or not any more.
pub fn note_row(host: &mut dyn Host, row: &RowHash, alive: bool) -> Result<()> {
    let statement = match alive {
        true => "INSERT INTO _sync_resync_rows (row_hash) VALUES (?1) ON CONFLICT DO NOTHING",
        false => "DELETE FROM _sync_resync_rows WHERE row_hash = ?1",
    };
    host.execute(statement, &[ValueRef::Blob(row)])?;
    Ok(())
}

/// Notes the rows that the server left out of a batch because this replica has them: `+` or `-` and the row's hash.
pub fn note_excluded(host: &mut dyn Host, excluded: &[String]) -> Result<()> {
    for text in excluded {
        let row = text.get(1..).and_then(decode_hex).and_then(|bytes| RowHash::try_from(bytes).ok());
        let row = row.ok_or_else(|| Error::batch(format!("excluded {text:?} is not a row hash")))?;
        note_row(host, &row, text.starts_with('+'))?;
    }
    Ok(())
}

/// Removes what is gone on the server and ends the resync.
pub fn finish(host: &mut dyn Host, catalog: &Catalog, peer: &Peer) -> Result<()> {
    fold(host, catalog, peer)?;
    let mut gone: Vec<(usize, Vec<Value>)> = Vec::new();
    for (index, table) in catalog.tracked() {
        if host.describe(&table.table_name)?.is_none() {
            continue;
        }
        let mut rows: Vec<(RowHash, Vec<Value>)> = Vec::new();
        host.stream_rows(table, &mut |row| {
            rows.push((table.row_hash(|c| row.value(c))?, key_of(table, |c| row.value(c))?));
            Ok(true)
        })?;
        for (hash, key) in rows {
            if !is_noted(host, &hash)? && unseen_entry(host, UPSTREAM, &hash)?.is_none() {
                gone.push((index, key));
            }
        }
    }
    remove_rows(host, catalog, peer, gone)?;
    host.execute("DELETE FROM _sync_resync_rows", &[])?;
    state::set_integer(host, "resync", 0)
}

fn is_noted(host: &mut dyn Host, row: &RowHash) -> Result<bool> {
    let noted = query_value(host, "SELECT 1 FROM _sync_resync_rows WHERE row_hash = ?1", &[ValueRef::Blob(row)])?;
    Ok(noted.is_some())
}

/// Deletes rows as changes of the server. A row that an unpushed local one refers to stays.
fn remove_rows(host: &mut dyn Host, catalog: &Catalog, peer: &Peer, rows: Vec<(usize, Vec<Value>)>) -> Result<()> {
    let stamp = host.clock()?;
    let label = Label { origin: peer.origin.unwrap_or(UPSTREAM), stamp, via: Some(UPSTREAM), contested: false };
    let mut kept: HashSet<usize> = HashSet::new();
    loop {
        host.begin()?;
        host.begin_references()?;
        let mut touched = Vec::new();
        let mut places = Vec::new();
        let mut refused = Vec::new();
        for (place, (table, key)) in rows.iter().enumerate().filter(|(place, _)| !kept.contains(place)) {
            match host.remove_row(&catalog.tables[*table], key, Some(&label), false) {
                Ok(_) => {
                    touched.push(Touched { table: *table, key: key.clone(), deleted: true });
                    places.push(place);
                }
                Err(RowFailure::Refused { .. }) => refused.push(place),
                Err(RowFailure::Fatal(error)) => {
                    host.end_references()?;
                    host.end(false)?;
                    return Err(error);
                }
            }
        }
        let violations = host.violations(catalog, &touched);
        host.end_references()?;
        let violations = match violations {
            Ok(violations) => violations,
            Err(error) => {
                host.end(false)?;
                return Err(error);
            }
        };
        if violations.is_empty() {
            return host.end(true);
        }
        host.end(false)?;
        kept.extend(refused);
        kept.extend(violations.iter().map(|v| places[v.row]));
    }
}
