//! `sync_apply_batch`: a batch becomes rows, log entries, a moved cursor and, where it must be, rejections. All or nothing.

use crate::admit::{admit_pull, admit_push, sift};
use crate::batch::{Batch, BatchKind, decode_batch, decode_changes};
use crate::catalog::Catalog;
use crate::change::Change;
use crate::conflict::Strategy;
use crate::cursor::Cursor;
use crate::error::{Error, Kind, Result};
use crate::group::{Condemned, Item, Outcome, apply_group, apply_in_transaction};
use crate::hash::hash_of_changes;
use crate::host::{Host, in_transaction};
use crate::log_entry::LogRange;
use crate::incoming::{Incoming, bind};
use crate::payload::{Bound, Unbound};
use crate::receive::{Range, note_marks, note_received};
use crate::rejection::{self, NeighbourRow, Reason, Rejection, worth_trying};
use crate::resync;
use crate::session::{Answer, Session};
use crate::state::{self, State};
use crate::table::RowHash;
use crate::unseen::{Peer, UPSTREAM, set_folded};
use serde_json::Value as Json;
use std::collections::HashSet;

/// The options of `sync_apply_batch`.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions {
    /// Instead of the tables' own.
    pub strategy: Option<Strategy>,
    pub verify_hash: bool,
    /// Everything is tried, nothing stays.
    pub dry_run: bool,
    /// The caller may push to this replica, but not say what its own server has sent.
    pub pushes_only: bool,
}

impl ApplyOptions {
    pub fn parse(options: Option<&str>) -> Result<ApplyOptions> {
        let mut parsed = ApplyOptions { strategy: None, verify_hash: true, dry_run: false, pushes_only: false };
        let Some(text) = options else { return Ok(parsed) };
        let members: serde_json::Map<String, Json> =
            serde_json::from_str(text).map_err(|e| Error::argument(format!("the options are not a JSON object: {e}")))?;
        for (option, value) in members {
            let wrong = |what: &str| Error::argument(format!("option {option:?} must be {what}"));
            match option.as_str() {
                "strategy" => {
                    let named = value.as_str().and_then(Strategy::named);
                    parsed.strategy = Some(named.ok_or_else(|| wrong(Strategy::NAMES))?);
                }
                "verifyHash" => parsed.verify_hash = value.as_bool().ok_or_else(|| wrong("true or false"))?,
                "dryRun" => parsed.dry_run = value.as_bool().ok_or_else(|| wrong("true or false"))?,
                _ => return Err(Error::argument(format!("there is no option {option:?}"))),
            }
        }
        Ok(parsed)
    }
}

/// Applies a batch and returns the result as JSON.
///
/// Errors: `InvalidBatch`, `LimitExceeded`, `HashMismatch`, `TableNotFound`, `TableNotTracked`, `UnsupportedTable`, `SchemaMismatch`,
/// `EpochMismatch`, `UnresolvedConflict`, or the engine's own; nothing has changed then.
pub fn apply_batch(host: &mut dyn Host, text: &str, options: ApplyOptions) -> Result<String> {
    apply_counted(host, text, options).map(|(answer, _)| answer)
}

/// As [`apply_batch`], with the number of changes that the batch had.
pub fn apply_counted(host: &mut dyn Host, text: &str, options: ApplyOptions) -> Result<(String, usize)> {
    let batch = decode_batch(text)?;
    if options.pushes_only && batch.kind == BatchKind::Pull {
        let message = "a pull moves this replica's own cursor, which takes the right to call sync_acknowledge_push; a client sends a push";
        return Err(Error::new(Kind::PermissionDenied, message));
    }
    if let Some(expected) = batch.hash.as_deref().filter(|_| options.verify_hash) {
        crate::hash::verify_hash(expected, &hash_of_changes(&batch.changes))?;
    }
    let count = batch.changes.len();
    let mut decoded = Some(batch);
    let answer = apply_in_transaction(host, !options.dry_run, &mut |host, condemned| {
        let batch = match decoded.take() {
            Some(batch) => batch,
            None => decode_batch(text)?,
        };
        apply_decoded(host, batch, options, condemned)
    })?;
    Ok((answer, count))
}

/// `sync_retry`: tries every rejection again.
pub fn retry(host: &mut dyn Host) -> Result<String> {
    apply_in_transaction(host, true, &mut |host, condemned| {
        let (state, catalog) = Catalog::open(host)?;
        let mut session = Session::new(host, &state, catalog, (BatchKind::Push, None), condemned)?;
        let mut answer = Answer::default();
        let all: Vec<i64> = rejection::outlines(host)?.iter().map(|o| o.id).collect();
        retry_rejections(host, &mut session, all, &mut answer)?;
        for outline in rejection::outlines(host)? {
            answer.report(&rejection::load(host, outline.id)?);
        }
        session.store_newest(host)?;
        Ok(answer.to_json(state.cursor.number(), state.cursor.number(), false))
    })
}

/// `sync_discard`: gives a rejected change up. False if there is none with this id.
pub fn discard(host: &mut dyn Host, id: i64) -> Result<bool> {
    State::load(host)?;
    in_transaction(host, |host| rejection::remove(host, id))
}

fn apply_decoded(host: &mut dyn Host, mut batch: Batch<'_>, options: ApplyOptions, condemned: &mut Condemned) -> Result<String> {
    let (mut state, catalog) = Catalog::open(host)?;
    let from = batch.from_version.unwrap_or(0);
    let to = batch.to_version.or(batch.changes.last().map(|c| c.version)).unwrap_or(from);
    let peer = match batch.kind {
        BatchKind::Pull => admit_pull(host, &mut state, &batch, Cursor::from_number(from))?,
        BatchKind::Push => admit_push(host, &state, &batch)?,
    };
    let mut session = Session::new(host, &state, catalog, (batch.kind, options.strategy), condemned)?;
    session.comes_once = batch.from_version.is_some() && batch.to_version.is_some();
    let mut answer = Answer::default();
    let changes = std::mem::take(&mut batch.changes);
    let newest_received = changes.iter().map(|c| c.stamp).max();
    let (fresh, newest_stamp) = sift(host, &state, &batch, changes, &peer, &mut answer)?;
    let incoming = bind(host, &mut session, batch.kind, fresh, &peer)?;
    if let Some(stamp) = newest_stamp {
        host.raise_clock(stamp)?;
    }
    let before = host.head()?;
    if session.resync {
        resync::stage(host, &session.catalog, &incoming, &batch.excluded, &mut answer)?;
        if !batch.has_more {
            end_resync(host, &mut session, &peer, &mut answer)?;
        }
    } else {
        apply_incoming(host, &mut session, incoming, &peer, &mut answer)?;
    }
    session.store_newest(host)?;
    match batch.kind {
        BatchKind::Pull => end_pull(host, &state, &batch, to)?,
        BatchKind::Push => {
            if let (Some(from), Some(to)) = (batch.from_version, batch.to_version) {
                let sender = (peer.id, batch.epoch.as_deref().unwrap_or_default());
                note_received(host, sender, Range { from, to, newest_stamp: newest_received.unwrap_or(i64::MIN) })?;
                note_marks(host, peer.id, &batch.marks)?;
            }
        }
    }
    let head = host.head()?;
    if host.writes_alone() && !session.extra_entries && !session.resync && head > before {
        // Every entry since came from this neighbour.
        set_folded(host, peer.id, head)?;
    }
    Ok(answer.to_json(from, to, batch.has_more))
}

fn end_pull(host: &mut dyn Host, state: &State, batch: &Batch<'_>, to: i64) -> Result<()> {
    if Cursor::from_number(to).version >= state.cursor.version {
        state::set_integer(host, "last_server_version", to)?;
        state::set(host, "server_anchor", batch.to_anchor.as_deref().unwrap_or_default())?;
    }
    Ok(())
}

/// All that the server has is here: makes it this replica's.
fn end_resync(host: &mut dyn Host, session: &mut Session<'_>, peer: &Peer, answer: &mut Answer) -> Result<()> {
    host.lock_tables(&session.catalog)?;
    // What of the server's had been refused is among it, or is gone there.
    rejection::remove_all_of(host, UPSTREAM)?;
    let mut applied = 0;
    while let Some(text) = resync::staged(host, applied)? {
        let changes = decode_changes(&text)?;
        applied = changes.last().map_or(applied, |c| c.version);
        let incoming = bind(host, session, BatchKind::Pull, changes, peer)?;
        apply_incoming(host, session, incoming, peer, answer)?;
    }
    resync::finish(host, &session.catalog, peer)
}

/// A change that was not applied, in its place in the batch.
struct Waiting<'a> {
    place: usize,
    change: Change<'a>,
    row: RowHash,
    reason: Reason,
}

fn apply_incoming(
    host: &mut dyn Host,
    session: &mut Session<'_>,
    incoming: Vec<Incoming<'_>>,
    peer: &Peer,
    answer: &mut Answer,
) -> Result<()> {
    // What another writer logs from here on may be what a change waits for, and came too late for it.
    let mut looked_to = host.head()?;
    let mut outlines = rejection::outlines(host)?;
    let mut blocked: HashSet<NeighbourRow> = outlines.iter().map(|o| o.row).collect();
    let any_parked = !blocked.is_empty();
    let (mut ready, mut places, mut waiting) = (Vec::with_capacity(incoming.len()), Vec::new(), Vec::new());
    for (place, incoming) in incoming.into_iter().enumerate() {
        match incoming {
            Incoming::Refused { change, row, reason } => {
                let first = blocked.insert((peer.id, row));
                let reason = if first { reason } else { Reason::queued() };
                waiting.push(Waiting { place, change, row, reason });
            }
            Incoming::Bound(item) => {
                let row = match blocked.is_empty() {
                    true => None,
                    false => Some(item.row_hash(&session.catalog)?),
                };
                match row.filter(|row| blocked.contains(&(peer.id, *row))) {
                    Some(row) => waiting.push(Waiting { place, change: item.change, row, reason: Reason::queued() }),
                    None => {
                        ready.push(item);
                        places.push(place);
                    }
                }
            }
        }
    }
    let outcomes = apply_group(host, session, &ready)?;
    for ((item, outcome), place) in ready.into_iter().zip(outcomes).zip(places) {
        answer.count(&outcome);
        if let Outcome::Waits(reason) = outcome {
            let row = item.row_hash(&session.catalog)?;
            waiting.push(Waiting { place, change: item.change, row, reason });
        }
    }
    if waiting.is_empty() && !any_parked {
        return Ok(());
    }
    waiting.sort_by_key(|w| w.place);
    waiting.iter().for_each(|w| answer.reject(&w.change, &w.reason));
    let mut new = Vec::with_capacity(waiting.len());
    for Waiting { change, row, reason, .. } in &waiting {
        new.push(rejection::New { change, via: peer.id, seen_version: peer.of_change(change).boundary, row_hash: *row, reason });
    }
    rejection::store(host, &new)?;
    if any_parked {
        looked_to = host.head()?;
        outlines.extend(rejection::outlines_after(host, outlines.last().map_or(0, |o| o.id))?);
        let came = waiting.iter().map(|w| (peer.id, w.row)).collect();
        let ids = match session.retried_version {
            Some(version) => worth_trying(&outlines, &rows_since(host, &session.catalog, version)?, &came),
            None => outlines.iter().map(|o| o.id).collect(),
        };
        retry_rejections(host, session, ids, answer)?;
    }
    session.retried_version = Some(looked_to);
    state::set_integer(host, "retried_version", looked_to)
}

/// The rows that were written since a version.
fn rows_since(host: &mut dyn Host, catalog: &Catalog, version: i64) -> Result<HashSet<RowHash>> {
    let mut rows = HashSet::new();
    host.read_log(catalog, LogRange::after(version), &mut |entry| {
        rows.insert(entry.row_hash()?);
        Ok(true)
    })?;
    Ok(rows)
}

/// Tries rejections again, oldest first; those that succeed are removed.
fn retry_rejections(host: &mut dyn Host, session: &mut Session<'_>, ids: Vec<i64>, answer: &mut Answer) -> Result<()> {
    let state = State::load(host)?;
    let upstream = Peer::upstream(host, &state)?;
    let (mut items, mut tried) = (Vec::new(), Vec::new());
    let mut blocked: HashSet<NeighbourRow> = HashSet::new();
    for id in ids {
        let Rejection { change, via, seen_version, searched, row_hash, .. } = rejection::load(host, id)?;
        if blocked.contains(&(via, row_hash)) {
            continue;
        }
        let (table, bound) = match bind_again(session, &change) {
            Ok(bound) => bound,
            Err(reason) => {
                rejection::update(host, id, &reason, None)?;
                blocked.insert((via, row_hash));
                continue;
            }
        };
        let (peer, direction) = match via == UPSTREAM {
            true => (upstream, BatchKind::Pull),
            false => (Peer { id: via, origin: Some(via), boundary: seen_version }, BatchKind::Push),
        };
        let origin = session.origin_id(host, &change.origin)?;
        items.push(Item { change, table, bound, origin, peer, direction, retried: true, searched: Some(searched) });
        tried.push(id);
    }
    let outcomes = apply_group(host, session, &items)?;
    for ((id, item), outcome) in tried.into_iter().zip(&items).zip(outcomes) {
        if let Outcome::Waits(reason) = &outcome {
            let row = item.row_hash(&session.catalog)?;
            let searched = session.entries.as_ref().filter(|_| item.is_behind()).map(|e| e.searched(&row, item.peer.boundary));
            rejection::update(host, id, reason, searched)?;
            continue;
        }
        rejection::remove(host, id)?;
        answer.settle(&item.change);
        answer.count(&outcome);
    }
    Ok(())
}

/// Binds a change that waited to its table as it is now.
fn bind_again(session: &Session<'_>, change: &Change<'_>) -> Result<(usize, Bound), Reason> {
    let catalog = &session.catalog;
    let mismatch = |message: String| Reason::new("SchemaMismatch", message);
    let table = catalog.by_wire_name(&change.table_name).ok_or_else(|| mismatch(format!("table {:?} is not tracked", change.table_name)))?;
    session.uncaptured.check(&catalog.tables[table]).map_err(|error| mismatch(error.to_string()))?;
    match Bound::new(&catalog.tables[table], change) {
        Ok(bound) => Ok((table, bound)),
        Err(Unbound::Row(kind, message)) => Err(Reason::new(kind, message)),
        Err(Unbound::Batch(error)) => Err(mismatch(error.to_string())),
    }
}
