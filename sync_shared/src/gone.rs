//! The end of a full resync: rows that the server does not have are removed here.
//!
//! But for those that hold a change which was not pushed, and those that no log knows.

use crate::batch::BatchKind;
use crate::catalog::Catalog;
use crate::change::{Change, Operation};
use crate::conflict::{Conflict, Strategy, Verdict};
use crate::error::{Error, Result};
use crate::host::{Host, query_value};
use crate::log_entry::{Label, LogRange};
use crate::merge::Sides;
use crate::reconcile::key_of;
use crate::row_write::Touched;
use crate::state::{State, origin_names};
use crate::table::RowHash;
use crate::unseen::{Peer, UPSTREAM, unseen_entry};
use crate::value::{Value, ValueRef};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Removes the rows that the server does not have, but for those with a change that was not pushed. A row that no entry of the log here
/// names has never been exchanged: it was there before its table was tracked without a backfill. That the server's log does not name it
/// either says nothing, so it stays.
pub fn remove_gone(host: &mut dyn Host, catalog: &Catalog, peer: &Peer) -> Result<()> {
    let mut missing: HashMap<RowHash, (usize, Vec<Value>)> = HashMap::new();
    let mut edited: HashMap<RowHash, i64> = HashMap::new();
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
            if is_on_server(host, &hash)? {
                continue;
            }
            match unseen_entry(host, UPSTREAM, &hash)? {
                None => missing.insert(hash, (index, key)).map(|_| ()),
                Some(entry) => edited.insert(hash, entry.version).map(|_| ()),
            };
        }
    }
    let mut gone: Vec<(usize, Vec<Value>)> = Vec::new();
    let mut deleted: HashMap<RowHash, Deleted> = HashMap::new();
    if !missing.is_empty() || !edited.is_empty() {
        host.read_log(catalog, LogRange::after(0), &mut |entry| {
            let row = entry.row_hash()?;
            gone.extend(missing.remove(&row));
            if let Some(&edit) = edited.get(&row)
                && (entry.version <= peer.boundary || peer.knows(entry.origin, entry.via))
            {
                deleted.insert(row, Deleted { edit, stamp: entry.stamp });
            }
            Ok(!missing.is_empty() || !edited.is_empty())
        })?;
    }
    let mut deleted: Vec<Deleted> = deleted.into_values().collect();
    deleted.sort_unstable_by_key(|d| d.edit);
    for delete in &deleted {
        gone.extend(settle(host, catalog, delete)?);
    }
    remove_rows(host, catalog, peer, gone)
}

/// A row that the server had and has no more, though its delete is not to be found, and that was edited here since.
struct Deleted {
    /// Version of the edit.
    edit: i64,
    /// Of the newest entry that the server knew: the delete is later.
    stamp: i64,
}

/// Records the conflict. The edit wins, for nobody knows when the row was deleted, unless the server is to win: then the row is given back, to be
/// removed.
fn settle(host: &mut dyn Host, catalog: &Catalog, delete: &Deleted) -> Result<Option<(usize, Vec<Value>)>> {
    let (state, origins) = (State::load(host)?, origin_names(host)?);
    let mut found = None;
    host.read_log(catalog, LogRange::exactly(delete.edit), &mut |entry| {
        let local = entry.to_change(origins.get(&entry.origin).cloned().unwrap_or_default())?;
        let key = key_of(entry.table, |c| entry.key_value(c))?;
        found = catalog.tables.iter().position(|t| t.id == entry.table.id).map(|table| (table, key, local));
        Ok(false)
    })?;
    let Some((index, key, local)) = found else { return Ok(None) };
    let table = &catalog.tables[index];
    let remote = Change {
        version: 0,
        operation: Operation::Delete,
        payload: None,
        origin: Cow::Borrowed(&state.server_origin),
        stamp: delete.stamp,
        ..local.clone()
    };
    let sides =
        Sides { table, direction: BatchKind::Pull, local: &local, local_values: &[], remote: &remote, remote_values: &[], base: None };
    let verdict = if table.strategy == Strategy::ServerWins { Verdict::Remote } else { Verdict::Local };
    Conflict::new(&sides, &verdict, table.strategy).record(host)?;
    Ok((verdict == Verdict::Remote).then_some((index, key)))
}

fn is_on_server(host: &mut dyn Host, row: &RowHash) -> Result<bool> {
    let sql = "SELECT 1 FROM _sync_resync_rows WHERE row_hash = ?1 AND alive = 1";
    Ok(query_value(host, sql, &[ValueRef::Blob(row)])?.is_some())
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
                Err(failure) => match failure.into_reason() {
                    Ok(_) => refused.push(place),
                    Err(error) => return give_up(host, error),
                },
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

fn give_up(host: &mut dyn Host, error: Error) -> Result<()> {
    host.end_references()?;
    host.end(false)?;
    Err(error)
}
