//! What is to be done with a change: the rules of DESIGN.md, in their order.
//!
//! Most changes are judged by two look-ups: does the row hold something that the neighbour has not seen, and is the change newer than
//! everything its origin has sent. The others are judged by the newest entry of their row.

use crate::ancestor::{Fields, fields_of};
use crate::batch::BatchKind;
use crate::change::{Change, Operation};
use crate::conflict::{Conflict, Strategy, Verdict, agree, decide};
use crate::error::Result;
use crate::group::Item;
use crate::host::Host;
use crate::log_entry::LogRange;
use crate::merge::{Sides, merge_fields, same_row};
use crate::newest::{NewestEntries, Wanted};
use crate::session::Session;
use crate::table::RowHash;
use crate::unseen::unseen_entry;
use std::cmp::Ordering;
use std::collections::HashMap;

/// What to do with an item.
pub struct Plan {
    pub action: Action,
    /// To be recorded once it is done.
    pub conflict: Option<Conflict>,
    /// The row's entry that the neighbour has not seen is superseded.
    pub settles: bool,
}

pub enum Action {
    Skip,
    Apply { contested: bool, log_unchanged: bool },
    /// A third row, as a local change; None deletes it.
    Merged(Option<Fields>),
    /// What the neighbour's earlier changes have caused here, and this one on top of it, as a local change.
    Joined(Fields),
}

impl Plan {
    fn skip() -> Plan {
        Plan { action: Action::Skip, conflict: None, settles: false }
    }

    fn apply(contested: bool, log_unchanged: bool) -> Plan {
        Plan { action: Action::Apply { contested, log_unchanged }, conflict: None, settles: false }
    }

    pub fn deletes(&self, item: &Item<'_>) -> bool {
        match &self.action {
            Action::Merged(row) => row.is_none(),
            _ => item.change.operation == Operation::Delete,
        }
    }
}

/// The rules of DESIGN.md, in their order. `rest`: what comes after the item.
pub fn plan(host: &mut dyn Host, session: &mut Session<'_>, item: &Item<'_>, rest: &[Item<'_>]) -> Result<Plan> {
    if item.is_behind() {
        return plan_behind(host, session, item);
    }
    if session.unseen.get(&item.peer.id).copied().unwrap_or(false) {
        let hash = item.row_hash(&session.catalog)?;
        match unseen_entry(host, item.peer.id, &hash)? {
            // What goes back to the author is followed by what it has done since.
            Some(entry) if entry.won => return Ok(Plan::apply(true, true)),
            Some(entry) if entry.caused => return plan_against_caused(host, session, item, rest, entry.version),
            Some(entry) => return plan_against_unseen(host, session, item, entry.version),
            None => {}
        }
    }
    plan_by_stamp(host, session, item)
}

/// For changes of rows that hold nothing their neighbour has not seen.
pub fn plan_by_stamp(host: &mut dyn Host, session: &mut Session<'_>, item: &Item<'_>) -> Result<Plan> {
    if session.resync {
        return Ok(Plan::apply(false, false));
    }
    let newest = session.newest.get(&item.origin).copied().unwrap_or(i64::MIN);
    if item.is_in_order(newest) {
        // A change that is not newer than its origin's newest and alters nothing is one that is here already.
        let log_unchanged = item.change.stamp > newest || item.retried || item.change.contested;
        return Ok(Plan::apply(false, log_unchanged));
    }
    let Some(known) = newest_entry(host, session, item)?.filter(|known| known.origin == item.origin) else {
        return Ok(Plan::apply(false, true));
    };
    Ok(match item.change.stamp.cmp(&known.stamp) {
        Ordering::Less => Plan::skip(),
        // Two edits of one millisecond, unless it can be the same that arrives again.
        Ordering::Equal if session.comes_once => Plan::apply(false, false),
        Ordering::Equal => Plan::skip(),
        Ordering::Greater => Plan::apply(false, true),
    })
}

/// For pushed changes whose author had seen less of the row than their sender of the log: they waited here, or what the sender had
/// received waited there.
fn plan_behind(host: &mut dyn Host, session: &mut Session<'_>, item: &Item<'_>) -> Result<Plan> {
    match newest_entry(host, session, item)?.filter(|known| known.version > item.peer.boundary) {
        // A tombstone that the author has not seen may be gone.
        None => Ok(Plan::apply(item.peer.boundary < session.purge_horizon, true)),
        Some(known) if known.origin == item.origin && known.stamp > item.change.stamp => Ok(Plan::skip()),
        Some(known) if item.peer.knows(known.origin, known.via) => Ok(Plan::apply(known.contested, true)),
        Some(known) => plan_against_unseen(host, session, item, known.version),
    }
}

fn plan_against_unseen(host: &mut dyn Host, session: &mut Session<'_>, item: &Item<'_>, version: i64) -> Result<Plan> {
    let push = item.direction == BatchKind::Push;
    let applied = |conflict: Option<Conflict>| Plan {
        action: Action::Apply { contested: push && conflict.is_some(), log_unchanged: true },
        conflict,
        settles: true,
    };
    let Some((local, local_origin, local_values)) = local_side(host, session, version)? else { return Ok(applied(None)) };
    if local_origin == item.origin {
        return Ok(if item.change.stamp > local.stamp { applied(None) } else { Plan::skip() });
    }
    let strategy = session.strategy_of(item);
    let base = match strategy {
        Strategy::Merge => session.ancestors.of(host, &session.catalog, item.neighbour_row(&session.catalog)?, item.peer)?,
        _ => None,
    };
    let sides = Sides {
        table: &session.catalog.tables[item.table],
        direction: item.direction,
        local: &local,
        local_values: &local_values,
        remote: &item.change,
        remote_values: &item.bound.values,
        base: base.as_deref(),
    };
    if agree(&sides) {
        return Ok(if push { Plan::skip() } else { applied(None) });
    }
    let verdict = decide(host, &sides, strategy)?;
    let conflict = Some(Conflict::new(&sides, &verdict, strategy));
    Ok(match verdict {
        Verdict::Local => Plan { conflict, ..Plan::skip() },
        Verdict::Remote => applied(conflict),
        Verdict::Merged(row) => Plan { action: Action::Merged(row), conflict, settles: false },
    })
}

/// For changes that meet what an earlier change of the same neighbour has caused here. Their author made them after its own: they are
/// no conflict with it, whatever the strategy. What a cascade or a trigger made of the other fields stays.
fn plan_against_caused(
    host: &mut dyn Host,
    session: &mut Session<'_>,
    item: &Item<'_>,
    rest: &[Item<'_>],
    version: i64,
) -> Result<Plan> {
    let push = item.direction == BatchKind::Push;
    let applied = Plan { action: Action::Apply { contested: push, log_unchanged: true }, conflict: None, settles: true };
    let Some((local, _, local_values)) = local_side(host, session, version)? else { return Ok(applied) };
    if local.operation == Operation::Delete || item.change.operation == Operation::Delete {
        return Ok(applied);
    }
    let row = item.neighbour_row(&session.catalog)?;
    if !session.ancestors.has(&row) {
        find_bases(host, session, item, rest)?;
    }
    let base = session.ancestors.of(host, &session.catalog, row, item.peer)?;
    Ok(match merge_fields(&local_values, &item.bound.values, base.as_deref(), true) {
        merged if same_row(&merged, &item.bound.values) => applied,
        merged => Plan { action: Action::Joined(merged), conflict: None, settles: false },
    })
}

/// Finds the last versions that both sides knew of an item's row and of those of its table that come after it: where one meets what was
/// caused, others will, and one pass over the log serves all.
fn find_bases(host: &mut dyn Host, session: &mut Session<'_>, item: &Item<'_>, rest: &[Item<'_>]) -> Result<()> {
    let table = &session.catalog.tables[item.table];
    let mut wanted = HashMap::from([(item.neighbour_row(&session.catalog)?, item.peer)]);
    for other in rest.iter().filter(|other| other.table == item.table && other.change.operation != Operation::Delete && !other.is_behind()) {
        // A row that is not there has no last version, and to look for it would take the whole log.
        if host.read_row(table, &other.bound.key)?.is_some() {
            wanted.insert(other.neighbour_row(&session.catalog)?, other.peer);
        }
    }
    session.ancestors.find(host, &session.catalog, wanted)
}

type LocalSide = (Change<'static>, i64, Fields);

/// The local side of a conflict, from its log entry.
fn local_side(host: &mut dyn Host, session: &Session<'_>, version: i64) -> Result<Option<LocalSide>> {
    let mut found = None;
    host.read_log(&session.catalog, LogRange::exactly(version), &mut |entry| {
        let change = entry.to_change(session.origin_name(entry.origin))?;
        let values = if entry.operation == Operation::Delete { Vec::new() } else { fields_of(entry)? };
        found = Some((change, entry.origin, values));
        Ok(false)
    })?;
    Ok(found)
}

fn newest_entry(host: &mut dyn Host, session: &mut Session<'_>, item: &Item<'_>) -> Result<Option<crate::newest::Known>> {
    let hash = item.row_hash(&session.catalog)?;
    match &mut session.entries {
        Some(entries) => entries.of(host, &session.catalog, &hash),
        None => Ok(None),
    }
}

/// The newest entries of the rows whose changes need them; None if none does.
pub fn find_entries(host: &mut dyn Host, session: &Session<'_>, items: &[Item<'_>]) -> Result<Option<NewestEntries>> {
    let mut newest = session.newest.clone();
    let mut wanted: HashMap<RowHash, Wanted> = HashMap::new();
    for item in items {
        let known = newest.entry(item.origin).or_insert(i64::MIN);
        let in_order = item.is_in_order(*known);
        *known = item.change.stamp.max(*known);
        let want = match item.is_behind() {
            true => item.searched.unwrap_or(Wanted::above(item.peer.boundary)),
            false if session.resync || in_order => continue,
            false => Wanted::above(0),
        };
        wanted.entry(item.row_hash(&session.catalog)?).and_modify(|known| known.widen(&want)).or_insert(want);
    }
    if wanted.is_empty() { Ok(None) } else { NewestEntries::find(host, &session.catalog, &wanted).map(Some) }
}

/// Finds the last versions that both sides knew of the rows that are to be merged.
pub fn find_ancestors(host: &mut dyn Host, session: &mut Session<'_>, items: &[Item<'_>]) -> Result<()> {
    let mut wanted = HashMap::new();
    for item in items.iter().filter(|item| session.strategy_of(item) == Strategy::Merge && item.change.operation != Operation::Delete) {
        let row = item.neighbour_row(&session.catalog)?;
        let meets = match item.is_behind() {
            true => true,
            false if !session.unseen.get(&item.peer.id).copied().unwrap_or(false) => false,
            false => unseen_entry(host, item.peer.id, &row.1)?.is_some_and(|entry| !entry.won),
        };
        if meets {
            wanted.insert(row, item.peer);
        }
    }
    session.ancestors.find(host, &session.catalog, wanted)
}
