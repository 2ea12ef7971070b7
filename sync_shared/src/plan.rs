//! What is to be done with a change: the rules of DESIGN.md, in their order.
//!
//! Most changes are judged by two look-ups: does the row hold something that the neighbour has not seen, and is the change newer than
//! everything its origin has sent. The others are judged by the newest entry of their row.

use crate::batch::BatchKind;
use crate::change::{Change, Operation};
use crate::conflict::{Strategy, Verdict, agree, decide, record};
use crate::error::Result;
use crate::group::Item;
use crate::host::{Host, LogRange};
use crate::merge::{Sides, entry_values};
use crate::newest::NewestEntries;
use crate::session::Session;
use crate::table::RowHash;
use crate::unseen::{UPSTREAM, unseen_entry};
use crate::value::Value;
use std::collections::HashMap;

/// What to do with an item.
pub struct Plan {
    pub action: Action,
    pub conflict: bool,
    /// The row's entry that the neighbour has not seen is superseded.
    pub settles: Option<RowHash>,
}

pub enum Action {
    Skip,
    Apply { contested: bool, log_unchanged: bool },
    /// A third row, as a local change; None deletes it.
    Merged(Option<Vec<Option<Value>>>),
}

impl Plan {
    fn skip() -> Plan {
        Plan { action: Action::Skip, conflict: false, settles: None }
    }

    fn apply(contested: bool, log_unchanged: bool) -> Plan {
        Plan { action: Action::Apply { contested, log_unchanged }, conflict: false, settles: None }
    }

    pub fn deletes(&self, item: &Item<'_>) -> bool {
        match &self.action {
            Action::Merged(row) => row.is_none(),
            _ => item.change.operation == Operation::Delete,
        }
    }
}

/// The rules of DESIGN.md, in their order.
pub fn plan(host: &mut dyn Host, session: &mut Session<'_>, item: &Item<'_>) -> Result<Plan> {
    if !item.retried && session.unseen.get(&item.peer.id).copied().unwrap_or(false) {
        let hash = item.bound.row_hash(&session.catalog.tables[item.table])?;
        match unseen_entry(host, item.peer.id, &hash)? {
            Some(entry) if entry.won => return Ok(Plan::apply(true, true)),
            Some(entry) => return plan_against_unseen(host, session, item, hash, entry.version),
            None => {}
        }
    }
    let newest = session.newest.get(&item.origin).copied().unwrap_or(i64::MIN);
    let own = item.origin == session.self_id;
    if !item.retried && (session.resync || (item.change.stamp >= newest && !own)) {
        // A change that is not newer than its origin's newest and alters nothing is one that is here already.
        let log_unchanged = !session.resync && item.change.stamp > newest;
        return Ok(Plan::apply(false, log_unchanged));
    }
    plan_by_entry(host, session, item)
}

/// For changes that waited, or came out of their origin's order: judges by the row's newest entry.
fn plan_by_entry(host: &mut dyn Host, session: &mut Session<'_>, item: &Item<'_>) -> Result<Plan> {
    let hash = item.bound.row_hash(&session.catalog.tables[item.table])?;
    let known = match &mut session.entries {
        Some(entries) => entries.of(host, &session.catalog, &hash)?,
        None => None,
    };
    let Some(known) = known else {
        // The tombstone of another's delete that the author has seen may be gone.
        let forgotten = item.retried && item.direction == BatchKind::Push && item.peer.boundary < session.purge_horizon;
        return Ok(Plan::apply(forgotten, true));
    };
    if item.direction == BatchKind::Pull && known.via == Some(UPSTREAM) {
        // Both came from one log and in its order, whatever their stamps say: a hub may have put one of them back.
        return Ok(Plan::apply(false, true));
    }
    let seen = known.version <= item.peer.boundary || item.peer.knows(known.origin, known.via);
    // What won here before goes back to the author, so what follows it has to go back too.
    let contested = item.direction == BatchKind::Push && known.contested && known.version > item.peer.boundary;
    if known.origin == item.origin {
        // A change that waited was never applied; of two with one stamp the later in the queue is the newer.
        return Ok(match (item.change.stamp, item.retried) <= (known.stamp, false) {
            true => Plan::skip(),
            false => Plan::apply(contested, true),
        });
    }
    if seen {
        return Ok(Plan::apply(contested, true));
    }
    if item.retried && item.direction == BatchKind::Pull && known.version <= session.last_push_version {
        // The server has taken a later edit of the row from here while this change of its own waited.
        return Ok(Plan::skip());
    }
    plan_against_unseen(host, session, item, hash, known.version)
}

fn plan_against_unseen(host: &mut dyn Host, session: &mut Session<'_>, item: &Item<'_>, hash: RowHash, version: i64) -> Result<Plan> {
    let table = &session.catalog.tables[item.table];
    let push = item.direction == BatchKind::Push;
    let applied = |conflict| Plan {
        action: Action::Apply { contested: push && conflict, log_unchanged: true },
        conflict,
        settles: Some(hash),
    };
    let Some((local, local_origin, local_values)) = local_side(host, session, version)? else { return Ok(applied(false)) };
    if local_origin == item.origin {
        return Ok(if item.change.stamp > local.stamp { applied(false) } else { Plan::skip() });
    }
    let sides = Sides {
        table,
        direction: item.direction,
        peer: &item.peer,
        key: &item.bound.key,
        local: &local,
        local_values: &local_values,
        remote: &item.change,
        remote_values: &item.bound.values,
    };
    if agree(&sides) {
        return Ok(if push { Plan::skip() } else { applied(false) });
    }
    let strategy: Strategy = session.strategy.unwrap_or(table.strategy);
    let verdict = decide(host, &session.catalog, &sides, strategy)?;
    record(host, &sides, &verdict, strategy)?;
    Ok(match verdict {
        Verdict::Local => Plan { conflict: true, ..Plan::skip() },
        Verdict::Remote => applied(true),
        Verdict::Merged(row) => Plan { action: Action::Merged(row), conflict: true, settles: None },
    })
}

type LocalSide = (Change<'static>, i64, Vec<Option<Value>>);

/// The local side of a conflict, from its log entry.
fn local_side(host: &mut dyn Host, session: &Session<'_>, version: i64) -> Result<Option<LocalSide>> {
    let mut found = None;
    host.read_log(&session.catalog, LogRange::exactly(version), &mut |entry| {
        let change = entry.to_change(session.origin_name(entry.origin))?;
        let values = if entry.operation == Operation::Delete { Vec::new() } else { entry_values(entry)? };
        found = Some((change, entry.origin, values));
        Ok(false)
    })?;
    Ok(found)
}

/// The newest entries of the rows that [`plan_by_entry`] will ask for; None if it will not.
pub fn find_entries(host: &mut dyn Host, session: &Session<'_>, items: &[Item<'_>]) -> Result<Option<NewestEntries>> {
    let mut newest = session.newest.clone();
    let mut wanted: HashMap<RowHash, i64> = HashMap::new();
    for item in items {
        let known = newest.entry(item.origin).or_insert(i64::MIN);
        let in_order = item.change.stamp >= *known;
        *known = item.change.stamp.max(*known);
        if !item.retried && (session.resync || (in_order && item.origin != session.self_id)) {
            continue;
        }
        let table = &session.catalog.tables[item.table];
        // Of a row that is gone only a delete matters that the author of the change has not seen.
        let gone = item.retried && host.read_row(table, &item.bound.key)?.is_none();
        let above = if gone { item.peer.boundary } else { 0 };
        let row = wanted.entry(item.bound.row_hash(table)?).or_insert(above);
        *row = above.min(*row);
    }
    if wanted.is_empty() { Ok(None) } else { NewestEntries::find(host, &session.catalog, &wanted).map(Some) }
}
