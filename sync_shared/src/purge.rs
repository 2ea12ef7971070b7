//! `sync_purge_tombstones` and `sync_compact`: the log does not grow for ever, and cursors stay valid.
//!
//! The newest entry of a live row is never removed, so replay from 0 always rebuilds the tables.
//! Memory: about 40 bytes per tombstone purged, or per row of the log for a compaction.

use crate::catalog::Catalog;
use crate::change::Operation;
use crate::clients::clients;
use crate::error::{Error, Result};
use crate::host::{Host, in_transaction};
use crate::log_entry::LogRange;
use crate::state;
use crate::subscribe::least_acknowledged;
use crate::table::RowHash;
use crate::unseen::Peer;
use std::collections::{HashMap, HashSet};

/// Entries deleted at a time.
const CHUNK: usize = 10_000;

/// The version that every registered client has passed; 0 without clients.
pub fn safe_purge_version(host: &mut dyn Host) -> Result<i64> {
    Ok(clients(host)?.first().map_or(0, |c| c.last_sync_version))
}

/// Removes tombstones up to a version (default: the safe one) and what they supersede, but for what is not pushed yet and what a subscription has
/// not acknowledged; returns how many tombstones.
///
/// Errors: `InvalidArgument` for a bound below 0 or above the safe version.
pub fn purge_tombstones(host: &mut dyn Host, up_to: Option<i64>) -> Result<i64> {
    in_transaction(host, |host| {
        let (state, catalog) = Catalog::open(host)?;
        let safe = safe_purge_version(host)?;
        let bound = up_to.unwrap_or(safe);
        if bound < 0 || bound > safe {
            return Err(Error::argument(format!("version {bound} is not within 0 and the safe version {safe}: a client has not passed it")));
        }
        // An unpushed delete is still needed here, and one that a subscription has not acknowledged.
        let bound = Peer::known_upstream(host, &state)?.map_or(bound, |server| bound.min(server.boundary));
        let bound = least_acknowledged(host)?.map_or(bound, |version| bound.min(version));
        let mut newest: HashMap<RowHash, i64> = HashMap::new();
        let mut count = 0;
        let mut horizon = state.purge_horizon;
        let range = LogRange { upto: bound, ..LogRange::after(0) };
        host.read_log(&catalog, range, &mut |entry| {
            if entry.operation == Operation::Delete {
                newest.insert(entry.row_hash()?, entry.version);
                count += 1;
                horizon = horizon.max(entry.version);
            }
            Ok(true)
        })?;
        remove_where(host, &catalog, bound, &mut |hash, version| newest.get(hash).is_some_and(|&tombstone| version <= tombstone))?;
        if horizon > state.purge_horizon {
            state::set_integer(host, "purge_horizon", horizon)?;
            state::set_integer(host, "purges", state.purges + 1)?;
        }
        Ok(count)
    })
}

/// Removes entries that a later one of the same row supersedes; returns how many.
pub fn compact(host: &mut dyn Host) -> Result<i64> {
    in_transaction(host, |host| {
        let (state, catalog) = Catalog::open(host)?;
        // What a neighbour has seen is kept: it is what a merge compares both sides with.
        let mut seen = clients(host)?.first().map_or(i64::MAX, |c| c.last_sync_version);
        if let Some(server) = Peer::known_upstream(host, &state)? {
            seen = seen.min(server.boundary);
        }
        let mut rows: HashSet<RowHash> = HashSet::new();
        let mut superseded = Vec::new();
        let range = LogRange { newest_first: true, upto: seen, ..LogRange::after(0) };
        host.read_log(&catalog, range, &mut |entry| {
            if !rows.insert(entry.row_hash()?) {
                superseded.push(entry.version);
            }
            Ok(true)
        })?;
        for chunk in superseded.chunks(CHUNK) {
            host.delete_entries(&catalog, chunk)?;
        }
        Ok(superseded.len() as i64)
    })
}

fn remove_where(
    host: &mut dyn Host,
    catalog: &Catalog,
    upto: i64,
    dead: &mut dyn FnMut(&RowHash, i64) -> bool,
) -> Result<()> {
    let mut after = 0;
    loop {
        let mut versions = Vec::new();
        host.read_log(catalog, LogRange { upto, ..LogRange::after(after) }, &mut |entry| {
            after = entry.version;
            if dead(&entry.row_hash()?, entry.version) {
                versions.push(entry.version);
            }
            Ok(versions.len() < CHUNK)
        })?;
        host.delete_entries(catalog, &versions)?;
        if versions.len() < CHUNK {
            return Ok(());
        }
    }
}
