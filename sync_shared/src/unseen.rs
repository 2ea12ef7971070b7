//! Which rows hold something that a neighbour has not seen.
//!
//! `_sync_unseen` keeps, per neighbour, the newest entry of every such row. It is folded from the log's tail when a sync call needs
//! it, so it costs nothing on the user's writes. Conflict detection asks it, and a push sends what it holds.

use crate::catalog::Catalog;
use crate::change::Change;
use crate::error::Result;
use crate::host::{Host, query_value};
use crate::log_entry::LogRange;
use crate::state::{State, known_origin};
use crate::table::RowHash;
use crate::value::ValueRef;
use std::collections::HashSet;

/// Entries folded at a time: bounds memory.
const FOLD: usize = 10_000;

/// The server, as a neighbour.
pub const UPSTREAM: i64 = 0;

/// A neighbour: the server or the sender of a push.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// [`UPSTREAM`], or its id in `_sync_origins`. What it delivered has this as `via`.
    pub id: i64,
    /// Its id in `_sync_origins`, if it has one.
    pub origin: Option<i64>,
    /// It has seen every entry up to this version.
    pub boundary: i64,
}

impl Peer {
    pub fn upstream(host: &mut dyn Host, state: &State) -> Result<Peer> {
        let origin = if state.server_origin.is_empty() { None } else { known_origin(host, &state.server_origin)? };
        Ok(Peer { id: UPSTREAM, origin, boundary: state.last_push_version })
    }

    /// The server, if this replica has ever pulled or pushed.
    pub fn known_upstream(host: &mut dyn Host, state: &State) -> Result<Option<Peer>> {
        let peer = Peer::upstream(host, state)?;
        Ok((peer.origin.is_some() || fold_state(host, &peer)?.is_some()).then_some(peer))
    }

    /// The neighbour as it was when it sent a change: it may have held back what it had received of the row.
    pub fn of_change(self, change: &Change<'_>) -> Peer {
        Peer { boundary: change.seen_version.map_or(self.boundary, |seen| seen.min(self.boundary)), ..self }
    }

    /// Has the neighbour seen an entry that it delivered or made?
    pub fn knows(&self, origin: i64, via: Option<i64>) -> bool {
        via == Some(self.id) || Some(origin) == self.origin
    }
}

/// What a log entry means for what a neighbour has not seen.
enum Step {
    Note,
    /// The neighbour's own change won over what it has not seen.
    Won,
    Forget,
}

/// An entry that a neighbour has not seen.
#[derive(Clone, Copy, Debug)]
pub struct Unseen {
    pub version: i64,
    /// It is the neighbour's own change, which won over what it had not seen; it is sent back to it.
    pub won: bool,
    /// It is what a change of the neighbour's has caused here, by a cascade or a trigger, of a row that held nothing unseen before.
    pub caused: bool,
}

/// Brings `_sync_unseen` up to the log's end for a neighbour. True if it holds anything. `caused`: entries that a change of the neighbour's has
/// caused just now.
pub fn fold(host: &mut dyn Host, catalog: &Catalog, peer: &Peer, caused: &[i64]) -> Result<bool> {
    let caused: HashSet<i64> = caused.iter().copied().collect();
    // What is not settled yet is folded as well, and once more when it is: between the two a smaller version may still appear.
    let (head, tip) = (host.head()?, host.tip()?);
    let before = drop_seen(host, peer)?;
    let mut folded = before;
    let mut any = holds_any(host, peer.id)?;
    while folded < tip {
        let mut steps: Vec<(RowHash, i64, Step)> = Vec::new();
        let mut last = folded;
        host.read_log(catalog, LogRange::after(folded), &mut |entry| {
            last = entry.version;
            let known = peer.knows(entry.origin, entry.via);
            let step = match known {
                false => Step::Note,
                // What the server sends supersedes what was unseen, whoever it was contested with.
                true if entry.contested && peer.id != UPSTREAM => Step::Won,
                true => Step::Forget,
            };
            if any || !steps.is_empty() || !matches!(step, Step::Forget) {
                steps.push((entry.row_hash()?, entry.version, step));
            }
            Ok(steps.len() < FOLD)
        })?;
        let done = steps.len() < FOLD;
        for (hash, version, step) in steps {
            match step {
                Step::Note if caused.contains(&version) => note_caused(host, peer.id, &hash, version)?,
                Step::Note => note_entry(host, peer.id, &hash, (version, false))?,
                Step::Won => mark_won(host, peer.id, &hash, version)?,
                Step::Forget => forget_until(host, peer.id, &hash, version)?,
            }
            any = true;
        }
        folded = if done { tip } else { last };
    }
    if folded > before {
        set_folded(host, peer.id, folded.min(head).max(before))?;
        any = any && holds_any(host, peer.id)?;
    }
    Ok(any)
}

/// How many rows hold something that a neighbour has not seen, without noting anything.
pub fn count_unseen(host: &mut dyn Host, catalog: &Catalog, peer: &Peer) -> Result<usize> {
    let (known, folded) = match fold_state(host, peer)? {
        Some((from, to)) if from <= peer.boundary => (true, to.max(peer.boundary)),
        _ => (false, peer.boundary),
    };
    let mut unseen: HashSet<RowHash> = HashSet::new();
    if known {
        host.query(
            "SELECT row_hash FROM _sync_unseen WHERE peer = ?1 AND version > ?2 AND won = 0",
            &[ValueRef::Integer(peer.id), ValueRef::Integer(peer.boundary)],
            &mut |row| {
                if let ValueRef::Blob(hash) = row.value(0)? {
                    unseen.extend(RowHash::try_from(hash));
                }
                Ok(true)
            },
        )?;
    }
    let head = host.head()?;
    if folded < head {
        host.read_log(catalog, LogRange::after(folded), &mut |entry| {
            match peer.knows(entry.origin, entry.via) {
                true => unseen.remove(&entry.row_hash()?),
                false => unseen.insert(entry.row_hash()?),
            };
            Ok(true)
        })?;
    }
    Ok(unseen.len())
}

/// Says that every entry up to the log's end is known to the neighbour or noted.
pub fn set_folded(host: &mut dyn Host, peer: i64, version: i64) -> Result<()> {
    host.execute(
        "UPDATE _sync_peers SET folded_to = ?2 WHERE peer = ?1",
        &[ValueRef::Integer(peer), ValueRef::Integer(version)],
    )?;
    Ok(())
}

/// The newest entry of a row that the neighbour has not seen.
pub fn unseen_entry(host: &mut dyn Host, peer: i64, row: &RowHash) -> Result<Option<Unseen>> {
    let mut found = None;
    host.query(
        "SELECT version, won, caused FROM _sync_unseen WHERE peer = ?1 AND row_hash = ?2",
        &[ValueRef::Integer(peer), ValueRef::Blob(row)],
        &mut |row| {
            found = Some(Unseen { version: row.integer(0)?, won: row.integer(1)? != 0, caused: row.integer(2)? != 0 });
            Ok(false)
        },
    )?;
    Ok(found)
}

/// A change of the neighbour has won over what it had not seen of the row, and stands in the log at this version.
pub fn mark_won(host: &mut dyn Host, peer: i64, row: &RowHash, version: i64) -> Result<()> {
    note_entry(host, peer, row, (version, true))
}

/// The neighbour knows the row's newest entry now.
pub fn forget(host: &mut dyn Host, peer: i64, row: &RowHash) -> Result<()> {
    forget_until(host, peer, row, i64::MAX)
}

/// Notes an entry that a change of the neighbour's has caused. Where the row held something unseen before, that is what counts.
fn note_caused(host: &mut dyn Host, peer: i64, row: &RowHash, version: i64) -> Result<()> {
    let marks = unseen_entry(host, peer, row)?.is_none_or(|known| known.caused);
    note_entry(host, peer, row, (version, false))?;
    if marks {
        host.execute(
            "UPDATE _sync_unseen SET caused = 1 WHERE peer = ?1 AND row_hash = ?2",
            &[ValueRef::Integer(peer), ValueRef::Blob(row)],
        )?;
    }
    Ok(())
}

/// As [`forget`], for an entry that is met in the log: what is noted already may be newer.
fn forget_until(host: &mut dyn Host, peer: i64, row: &RowHash, version: i64) -> Result<()> {
    host.execute(
        "DELETE FROM _sync_unseen WHERE peer = ?1 AND row_hash = ?2 AND version <= ?3",
        &[ValueRef::Integer(peer), ValueRef::Blob(row), ValueRef::Integer(version)],
    )?;
    Ok(())
}

/// Notes an entry, unless it or a newer one of the row is noted already: what is folded once more is known.
fn note_entry(host: &mut dyn Host, peer: i64, row: &RowHash, (version, won): (i64, bool)) -> Result<()> {
    host.execute(
        "INSERT INTO _sync_unseen (peer, row_hash, version, won, caused) VALUES (?1, ?2, ?3, ?4, 0) \
         ON CONFLICT (peer, row_hash) DO UPDATE SET version = excluded.version, won = excluded.won, caused = 0 \
         WHERE excluded.version > _sync_unseen.version",
        &[ValueRef::Integer(peer), ValueRef::Blob(row), ValueRef::Integer(version), ValueRef::Integer(i64::from(won))],
    )?;
    Ok(())
}

/// How far the log was folded for a neighbour, after what it has seen meanwhile was dropped.
fn drop_seen(host: &mut dyn Host, peer: &Peer) -> Result<i64> {
    let folded = match fold_state(host, peer)? {
        Some((from, to)) if from == peer.boundary => return Ok(to),
        Some((from, to)) if from < peer.boundary => {
            host.execute(
                "DELETE FROM _sync_unseen WHERE peer = ?1 AND version <= ?2",
                &[ValueRef::Integer(peer.id), ValueRef::Integer(peer.boundary)],
            )?;
            to.max(peer.boundary)
        }
        // The neighbour has seen less than was believed: begin again.
        _ => {
            host.execute("DELETE FROM _sync_unseen WHERE peer = ?1", &[ValueRef::Integer(peer.id)])?;
            peer.boundary
        }
    };
    host.execute(
        "INSERT INTO _sync_peers (peer, folded_from, folded_to) VALUES (?1, ?2, ?3) \
         ON CONFLICT (peer) DO UPDATE SET folded_from = excluded.folded_from, folded_to = excluded.folded_to",
        &[ValueRef::Integer(peer.id), ValueRef::Integer(peer.boundary), ValueRef::Integer(folded)],
    )?;
    Ok(folded)
}

/// From where and to where the log was folded for a neighbour.
fn fold_state(host: &mut dyn Host, peer: &Peer) -> Result<Option<(i64, i64)>> {
    let mut known: Option<(i64, i64)> = None;
    host.query(
        "SELECT folded_from, folded_to FROM _sync_peers WHERE peer = ?1",
        &[ValueRef::Integer(peer.id)],
        &mut |row| {
            known = Some((row.integer(0)?, row.integer(1)?));
            Ok(false)
        },
    )?;
    Ok(known)
}

fn holds_any(host: &mut dyn Host, peer: i64) -> Result<bool> {
    Ok(query_value(host, "SELECT 1 FROM _sync_unseen WHERE peer = ?1 LIMIT 1", &[ValueRef::Integer(peer)])?.is_some())
}
