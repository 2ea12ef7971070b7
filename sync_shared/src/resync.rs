//! `sync_begin_resync`: the next pulls rebuild this replica from the server's log.
//!
//! The newest state of every row that the server sends or leaves out is kept in `_sync_resync_rows`; the last batch applies it all at
//! once, so nobody sees an older state on the way. Rows that are not among it are gone on the server and are removed, unless they
//! hold a change that was not pushed, or were never logged.

use crate::batch::FULL_BYTES;
use crate::catalog::Catalog;
use crate::change::Operation;
use crate::error::{Error, Kind, Result};
use crate::gone::remove_gone;
use crate::host::{Host, in_transaction, query_value};
use crate::log_entry::LogRange;
use crate::incoming::Incoming;
use crate::reconcile::key_of;
use crate::remade::put_back_all;
use crate::session::Answer;
use crate::state::{self, State};
use crate::table::RowHash;
use crate::unseen::{Peer, UPSTREAM, fold, unseen_entry};
use crate::value::{ValueRef, decode_hex};
use std::collections::HashMap;

/// Changes applied at a time.
const CHUNK: i64 = 1000;

/// Sets the cursor to 0 and forgets which server it belonged to. A table that was dropped and made again gets its rows back from the log
/// at once. Always true.
pub fn begin_resync(host: &mut dyn Host) -> Result<bool> {
    State::load(host)?;
    in_transaction(host, |host| {
        put_back_all(host)?;
        for (key, value) in [
            ("resync", "1"),
            ("last_server_version", "0"),
            ("server_origin", ""),
            ("server_epoch", ""),
            ("server_anchor", ""),
            ("server_max", "0"),
        ] {
            state::set(host, key, value)?;
        }
        host.execute("DELETE FROM _sync_resync_rows", &[])?;
        Ok(true)
    })
}

/// Keeps what a batch says of the server's rows, the newest of each row.
pub fn stage(
    host: &mut dyn Host,
    catalog: &Catalog,
    incoming: &[Incoming<'_>],
    excluded: &[String],
    answer: &mut Answer,
) -> Result<()> {
    for change in incoming {
        let (row, change) = match change {
            Incoming::Bound(item) => (item.bound.row_hash(&catalog.tables[item.table])?, &item.change),
            Incoming::Refused { row, change, .. } => (*row, change),
        };
        let text = change.to_json();
        let alive = change.operation != Operation::Delete;
        let superseded = note(host, &row, change.version, (alive, change.stamp), ValueRef::Text(&text))?;
        answer.skipped += usize::from(superseded);
    }
    for text in excluded {
        let entry = Excluded::parse(text).ok_or_else(|| Error::batch(format!("excluded {text:?} names no entry")))?;
        note(host, &entry.row, entry.version, (entry.alive, entry.stamp), ValueRef::Null)?;
    }
    Ok(())
}

/// Notes an entry, unless a newer one of its row is known. What waits at the server has the version up to which its author had seen
/// the log, and is newer than the entry there; it is always newer than what the author had delivered of the row before. True if a
/// change of the row was noted before.
fn note(host: &mut dyn Host, row: &RowHash, version: i64, (alive, stamp): (bool, i64), change: ValueRef<'_>) -> Result<bool> {
    let known = "SELECT 1 FROM _sync_resync_rows WHERE row_hash = ?1 AND change IS NOT NULL";
    let superseded = query_value(host, known, &[ValueRef::Blob(row)])?.is_some();
    host.execute(
        "INSERT INTO _sync_resync_rows (row_hash, version, alive, stamp, change) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (row_hash) DO UPDATE SET version = excluded.version, alive = excluded.alive, stamp = excluded.stamp, \
         change = excluded.change WHERE excluded.version >= _sync_resync_rows.version \
         OR (excluded.change IS NULL AND _sync_resync_rows.change IS NULL)",
        &[ValueRef::Blob(row), ValueRef::Integer(version), ValueRef::Integer(i64::from(alive)), ValueRef::Integer(stamp), change],
    )?;
    Ok(superseded)
}

/// An entry that the server left out of a batch because this replica made or delivered it: `+` or `-` for a delete, the row's hash,
/// and the entry's version and stamp behind `@`.
struct Excluded {
    alive: bool,
    row: RowHash,
    version: i64,
    stamp: i64,
}

impl Excluded {
    fn parse(text: &str) -> Option<Excluded> {
        let alive = text.starts_with('+');
        let mut parts = text.strip_prefix(['+', '-'])?.split('@');
        let row = decode_hex(parts.next()?)?.try_into().ok()?;
        let (version, stamp) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts.next().is_none().then_some(Excluded { alive, row, version, stamp })
    }
}

/// Some of the kept changes above a version, oldest first, as a JSON array; None if there are no more.
pub fn staged(host: &mut dyn Host, above: i64) -> Result<Option<String>> {
    let mut changes = String::new();
    let sql = "SELECT change FROM _sync_resync_rows WHERE version > ?1 AND change IS NOT NULL ORDER BY version LIMIT ?2";
    host.query(sql, &[ValueRef::Integer(above), ValueRef::Integer(CHUNK)], &mut |row| {
        let change = row.text(0)?;
        if !changes.is_empty() && changes.len() + change.len() > FULL_BYTES {
            return Ok(false);
        }
        changes.push(if changes.is_empty() { '[' } else { ',' });
        changes.push_str(change);
        Ok(true)
    })?;
    changes.push(']');
    Ok((changes.len() > 1).then_some(changes))
}

/// Brings what is this replica's own and what is gone in line with the server, and ends the resync.
pub fn finish(host: &mut dyn Host, catalog: &Catalog, peer: &Peer) -> Result<()> {
    fold(host, catalog, peer, &[])?;
    send_again(host, catalog)?;
    remove_gone(host, catalog, peer)?;
    host.execute("DELETE FROM _sync_resync_rows", &[])?;
    state::set_integer(host, "resync", 0)
}

/// A row whose newest entry on the server is this replica's own stays as it is here. Where that entry is not the newest here (the
/// server has lost a later one), the row is logged again, so that it is pushed.
///
/// Memory: about 60 bytes per row of that kind.
fn send_again(host: &mut dyn Host, catalog: &Catalog) -> Result<()> {
    let mut own: HashMap<RowHash, (i64, Option<i64>)> = HashMap::new();
    host.query("SELECT row_hash, stamp FROM _sync_resync_rows WHERE change IS NULL AND alive = 1", &[], &mut |row| {
        if let ValueRef::Blob(hash) = row.value(0)? {
            own.insert(hash.try_into().map_err(|_| Error::corrupt("a row of _sync_resync_rows"))?, (row.integer(1)?, None));
        }
        Ok(true)
    })?;
    if own.is_empty() {
        return Ok(());
    }
    let mut differing: HashMap<RowHash, i64> = HashMap::new();
    host.read_log(catalog, LogRange::after(0), &mut |entry| {
        let hash = entry.row_hash()?;
        if let Some((stamp, held)) = own.get_mut(&hash) {
            *held = Some(entry.version);
            match *stamp == entry.stamp {
                true => differing.remove(&hash),
                false => differing.insert(hash, entry.version),
            };
        }
        Ok(true)
    })?;
    if own.values().any(|(_, held)| held.is_none()) {
        let message = "the server has rows of this replica that its log does not know: this database is a copy, or was restored; call \
                       sync_regenerate_origin() and then sync_begin_resync()";
        return Err(Error::new(Kind::EpochMismatch, message));
    }
    let mut versions: Vec<i64> = Vec::new();
    for (hash, version) in differing {
        if unseen_entry(host, UPSTREAM, &hash)?.is_none() {
            versions.push(version);
        }
    }
    versions.sort_unstable();
    for version in versions {
        let mut row = None;
        host.read_log(catalog, LogRange::exactly(version), &mut |entry| {
            let table = catalog.tables.iter().find(|t| t.id == entry.table.id);
            row = table.map(|table| key_of(table, |c| entry.key_value(c)).map(|key| (table, key))).transpose()?;
            Ok(false)
        })?;
        if let Some((table, key)) = row.filter(|(table, _)| table.tracked) {
            let operation = if host.read_row(table, &key)?.is_some() { Operation::Update } else { Operation::Delete };
            host.log_row(table, &key, operation, None)?;
        }
    }
    Ok(())
}
