//! Which batches are taken, and which of their changes are new here.

use crate::batch::{Batch, BatchKind};
use crate::change::Change;
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::fetch_local::{is_own_push, set_pushed};
use crate::host::Host;
use crate::receive::{Received, marks_of};
use crate::session::Answer;
use crate::state::{self, State, origin_number};
use crate::unseen::Peer;

/// What a replica does whose identity is another's as well.
const REPAIR: &str = "call sync_regenerate_origin() and then sync_begin_resync()";
const COPY: &str = "a copy, or was restored and went on; call sync_regenerate_origin() and then sync_begin_resync() there";

/// Checks that a pull goes on where the last one ended, in the same server's same history.
pub fn admit_pull(host: &mut dyn Host, state: &mut State, batch: &Batch<'_>, from: Cursor) -> Result<Peer> {
    const ADVICE: &str = "call sync_begin_resync() and pull again; local changes that were not pushed stay";
    let (from, cursor) = (from.version, state.cursor.version);
    let epoch = batch.epoch.clone().unwrap_or_default();
    if batch.origin_id == state.origin_id {
        let message = "the server has this replica's own origin id: one of the two is a copy; call sync_regenerate_origin() on the copy";
        return Err(Error::epoch_mismatch(message, &state.origin_id, &batch.origin_id));
    }
    if from > cursor {
        return Err(Error::batch(format!("the batch starts at version {from}, above the cursor {cursor}: fetch from {cursor}")));
    }
    let known = !state.server_origin.is_empty();
    if known && batch.origin_id != state.server_origin {
        let message = format!("this is another server than the one pulled from so far; {ADVICE}");
        return Err(Error::epoch_mismatch(message, &state.server_origin, &batch.origin_id));
    }
    if known && !epoch.is_empty() && !state.server_epoch.is_empty() && epoch != state.server_epoch {
        let message = format!("the server was copied or replaced; {ADVICE}");
        return Err(Error::epoch_mismatch(message, &state.server_epoch, &epoch));
    }
    if let Some(max) = batch.max_version.filter(|&max| max < cursor && from == cursor) {
        let message = format!("the server was restored: its log ends at version {max}, below the cursor {cursor}; {ADVICE}");
        return Err(Error::epoch_mismatch(message, &cursor.to_string(), &max.to_string()));
    }
    let anchors = (batch.from_anchor.as_deref(), state.server_anchor.as_str());
    if let (Some(theirs), ours) = anchors
        && from == cursor
        && !ours.is_empty()
        && theirs != ours
    {
        let message = format!("the server was restored and went on: version {from} is not the one pulled before; {ADVICE}");
        return Err(Error::epoch_mismatch(message, ours, theirs));
    }
    // An older batch that comes late says nothing of what the server has received since.
    if batch.max_version.is_none_or(|max| max >= state.server_max) {
        admit_received(host, state, batch)?;
    }
    if let Some(max) = batch.max_version.filter(|&max| max > state.server_max) {
        state.server_max = max;
        state::set_integer(host, "server_max", max)?;
    }
    if !known {
        state.server_origin.clone_from(&batch.origin_id);
        state::set(host, "server_origin", &batch.origin_id)?;
        origin_number(host, &batch.origin_id)?;
    }
    if !epoch.is_empty() && epoch != state.server_epoch {
        state::set(host, "server_epoch", &epoch)?;
        state.server_epoch = epoch;
    }
    Peer::upstream(host, state)
}

/// Takes up what the server has received of this replica, and checks that it was this replica's.
fn admit_received(host: &mut dyn Host, state: &mut State, batch: &Batch<'_>) -> Result<()> {
    let Some(received) = batch.received_version else { return Ok(()) };
    let head = host.head()?;
    if received > head {
        let message =
            format!("this database was restored: the server has its changes up to version {received}, its log ends at {head}; {REPAIR}");
        return Err(Error::epoch_mismatch(message, &received.to_string(), &head.to_string()));
    }
    if let Some(theirs) = batch.received_mark.as_deref()
        && !is_own_push(host, received, theirs)?
    {
        let message = format!("the server has received other changes under this replica's versions: this database is {COPY}");
        return Err(Error::epoch_mismatch(message, &head.to_string(), &received.to_string()));
    }
    if received != state.last_push_version {
        // An answer to a push was lost; or the server lost what it had received, and gets it again.
        state.last_push_version = received;
        set_pushed(host, received)?;
    }
    Ok(())
}

/// Checks that a push speaks of this server's history.
pub fn admit_push(host: &mut dyn Host, state: &State, batch: &Batch<'_>) -> Result<Peer> {
    if let Some(epoch) = batch.server_epoch.as_deref().filter(|e| *e != state.epoch) {
        let message = "the sender has pulled from another server, or from this one before it was replaced; it must call sync_begin_resync()";
        return Err(Error::epoch_mismatch(message, epoch, &state.epoch));
    }
    let head = host.head()?;
    let seen = Cursor::from_number(batch.last_server_version);
    if seen.version > head {
        let message = format!(
            "this server was restored: the sender has pulled up to version {}, its log ends at {head}; the sender must call sync_begin_resync()",
            seen.version
        );
        return Err(Error::epoch_mismatch(message, &seen.version.to_string(), &head.to_string()));
    }
    // It may change a row whose delete it has not seen, when the tombstone that would tell is gone.
    state.check_cursor(seen)?;
    let id = origin_number(host, &batch.origin_id)?;
    let received = Received::load(host, id, batch.epoch.as_deref().unwrap_or_default())?;
    if let (Some(from), Some(to)) = (batch.from_version, batch.to_version)
        && !received.agrees((from, to), &batch.marks, &marks_of(host, id)?)
    {
        let message = format!("this server has received other changes under the sender's versions: the sender is {COPY}");
        return Err(Error::epoch_mismatch(message, &from.to_string(), &to.to_string()));
    }
    Ok(Peer { id, origin: Some(id), boundary: seen.version })
}

/// Leaves out what was received before and what is this replica's own; restamps what is too far ahead.
/// Returns the rest, and their newest stamp.
pub fn sift<'a>(
    host: &mut dyn Host,
    state: &State,
    batch: &Batch<'_>,
    changes: Vec<Change<'a>>,
    peer: &Peer,
    answer: &mut Answer,
) -> Result<(Vec<Change<'a>>, Option<i64>)> {
    let received = match batch.kind {
        BatchKind::Push => Received::load(host, peer.id, batch.epoch.as_deref().unwrap_or_default())?,
        BatchKind::Pull => Received::default(),
    };
    let marked = !batch.marks.is_empty();
    let limit = host.now().saturating_add(state.max_clock_skew);
    let hub_clock = host.clock()?;
    let mut newest: Option<i64> = None;
    let mut fresh = Vec::with_capacity(changes.len());
    for mut change in changes {
        let duplicate = match batch.kind {
            BatchKind::Pull => change.version <= state.cursor.version,
            BatchKind::Push => received.contains(change.version, change.stamp, marked),
        };
        let comes_back = batch.kind == BatchKind::Pull && (change.contested || state.resync);
        let echo = change.origin == state.origin_id && !comes_back;
        if duplicate || echo {
            answer.skipped += 1;
            continue;
        }
        if batch.kind == BatchKind::Push && change.stamp > limit {
            change.stamp = hub_clock;
            answer.restamped += 1;
        }
        newest = newest.max(Some(change.stamp));
        fresh.push(change);
    }
    Ok((fresh, newest))
}
