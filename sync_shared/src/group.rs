//! Applies changes as one group: in order, with foreign keys checked at the end, and without those that fail.
//!
//! A change that the engine refuses is tried again while others make progress. A row that still violates a foreign key at the end
//! is taken out and the group done again without it, so cyclic keys work and nothing is half applied. Changes of a row that waits queue
//! behind it.

use crate::batch::BatchKind;
use crate::change::{Change, Operation};
use crate::conflict::{Strategy, Verdict, agree, decide, record};
use crate::error::Result;
use crate::host::{Host, Label, LogRange, RowFailure, Touched, Written};
use crate::merge::{Sides, entry_values};
use crate::newest::NewestEntries;
use crate::payload::Bound;
use crate::rejection::{Reason, WAITS_FOR_PARENT};
use crate::session::Session;
use crate::table::RowHash;
use crate::unseen::{Peer, fold, forget, mark_won, unseen_entry};
use crate::value::Value;
use std::collections::{HashMap, HashSet};

/// A change that is to be applied.
pub struct Item<'a> {
    pub change: Change<'a>,
    /// Index into the catalogue's tables.
    pub table: usize,
    pub bound: Bound,
    /// Id of the change's origin in `_sync_origins`.
    pub origin: i64,
    pub peer: Peer,
    pub direction: BatchKind,
    /// It was rejected before.
    pub retried: bool,
}

/// How an item ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Applied { conflict: bool },
    Skipped { conflict: bool },
    Waits(Reason),
}

/// Applies the items; one outcome for each.
pub fn apply_group(host: &mut dyn Host, session: &mut Session, items: &[Item<'_>]) -> Result<Vec<Outcome>> {
    let mut out: HashMap<usize, Reason> = HashMap::new();
    loop {
        let newest = session.newest.clone();
        host.begin()?;
        host.begin_references()?;
        let mut attempt = Attempt { items, out: &out, outcomes: vec![None; items.len()], touched: Vec::new(), waiting: HashSet::new() };
        let result = attempt.run(host, session);
        let violations = match &result {
            Ok(()) => {
                let touched: Vec<Touched> = attempt.touched.iter().map(|(_, t)| t.clone()).collect();
                host.violations(&session.catalog, &touched)
            }
            Err(_) => Ok(Vec::new()),
        };
        host.end_references()?;
        let (violations, touched, outcomes) = match (result, violations) {
            (Ok(()), Ok(violations)) => (violations, attempt.touched, attempt.outcomes),
            (Err(error), _) | (_, Err(error)) => {
                host.end(false)?;
                return Err(error);
            }
        };
        if violations.is_empty() {
            host.end(true)?;
            return Ok(outcomes.into_iter().map(|o| o.unwrap_or(Outcome::Skipped { conflict: false })).collect());
        }
        host.end(false)?;
        session.newest = newest;
        for violation in violations {
            let item = touched[violation.row].0;
            let code = session.foreign_key_code.clone();
            let reason = Reason { kind: WAITS_FOR_PARENT, code, message: violation.message, waits_for: violation.missing };
            out.entry(item).or_insert(reason);
        }
    }
}

struct Attempt<'i, 'a> {
    items: &'i [Item<'a>],
    /// Items that are left out, and why.
    out: &'i HashMap<usize, Reason>,
    outcomes: Vec<Option<Outcome>>,
    /// (item, row) of what was written.
    touched: Vec<(usize, Touched)>,
    /// Rows with a change that waits.
    waiting: HashSet<RowHash>,
}

impl Attempt<'_, '_> {
    fn run(&mut self, host: &mut dyn Host, session: &mut Session) -> Result<()> {
        session.fold_all(host, self.items)?;
        session.entries = find_entries(host, session, self.items)?;
        let mut pending: Vec<usize> = (0..self.items.len()).collect();
        loop {
            let mut refused = Vec::new();
            self.waiting.clear();
            let tried = pending.len();
            for &index in &pending {
                let outcome = self.try_item(host, session, index)?;
                if let Outcome::Waits(reason) = &outcome {
                    self.waiting.insert(self.row_hash(session, index)?);
                    if reason.kind != "TypeMismatch" && !self.out.contains_key(&index) {
                        refused.push(index);
                    }
                }
                self.outcomes[index] = Some(outcome);
            }
            if refused.is_empty() || refused.len() == tried {
                return Ok(());
            }
            // Left-out items stay in the list: what follows on their rows has to wait behind them.
            refused.extend(self.out.keys());
            refused.sort_unstable();
            refused.dedup();
            if refused.len() == tried {
                return Ok(());
            }
            pending = refused;
        }
    }

    fn row_hash(&self, session: &Session, index: usize) -> Result<RowHash> {
        let item = &self.items[index];
        item.bound.row_hash(&session.catalog.tables[item.table])
    }

    fn try_item(&mut self, host: &mut dyn Host, session: &mut Session, index: usize) -> Result<Outcome> {
        if let Some(reason) = self.out.get(&index) {
            return Ok(Outcome::Waits(reason.clone()));
        }
        if !self.waiting.is_empty() && self.waiting.contains(&self.row_hash(session, index)?) {
            return Ok(Outcome::Waits(Reason::queued()));
        }
        let items = self.items;
        let item = &items[index];
        let plan = plan(host, session, item)?;
        let written = match write(host, session, item, &plan) {
            Ok(written) => written,
            Err(RowFailure::Refused { kind, code, message }) => {
                return Ok(Outcome::Waits(Reason { kind, code, message, waits_for: None }));
            }
            Err(RowFailure::Fatal(error)) => return Err(error),
        };
        session.note_newest(item.origin, item.change.stamp);
        if written.changed || written.caused_more {
            let deleted = plan.deletes(item);
            let key = item.bound.key.clone();
            if !session.catalog.tables.iter().all(|t| t.references.is_empty()) {
                self.touched.push((index, Touched { table: item.table, key, deleted }));
            }
        }
        let conflict = plan.conflict;
        Ok(match plan.action {
            Action::Skip => Outcome::Skipped { conflict },
            Action::Apply { .. } if written.version.is_none() && !written.changed => Outcome::Skipped { conflict },
            _ => Outcome::Applied { conflict },
        })
    }
}

/// The newest entries of the rows that [`plan_by_entry`] will ask for; None if it will not.
fn find_entries(host: &mut dyn Host, session: &Session, items: &[Item<'_>]) -> Result<Option<NewestEntries>> {
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

/// What to do with an item.
struct Plan {
    action: Action,
    conflict: bool,
    /// The row's entry that the neighbour has not seen is superseded.
    settles: Option<RowHash>,
}

enum Action {
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

    fn deletes(&self, item: &Item<'_>) -> bool {
        match &self.action {
            Action::Merged(row) => row.is_none(),
            _ => item.change.operation == Operation::Delete,
        }
    }
}

/// The rules of DESIGN.md, in their order.
fn plan(host: &mut dyn Host, session: &mut Session, item: &Item<'_>) -> Result<Plan> {
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
fn plan_by_entry(host: &mut dyn Host, session: &mut Session, item: &Item<'_>) -> Result<Plan> {
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
    let seen = known.version <= item.peer.boundary || item.peer.knows(known.origin, known.via);
    if known.origin == item.origin {
        // A change that waited was never applied; of two with one stamp the later in the queue is the newer.
        return Ok(match (item.change.stamp, item.retried) <= (known.stamp, false) {
            true => Plan::skip(),
            false => Plan::apply(false, true),
        });
    }
    if seen {
        return Ok(Plan::apply(false, true));
    }
    if item.retried && item.direction == BatchKind::Pull && known.version <= session.last_push_version {
        // The server has taken a later edit of the row from here while this change of its own waited.
        return Ok(Plan::skip());
    }
    plan_against_unseen(host, session, item, hash, known.version)
}

fn plan_against_unseen(host: &mut dyn Host, session: &mut Session, item: &Item<'_>, hash: RowHash, version: i64) -> Result<Plan> {
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
fn local_side(host: &mut dyn Host, session: &Session, version: i64) -> Result<Option<LocalSide>> {
    let mut found = None;
    host.read_log(&session.catalog, LogRange::exactly(version), &mut |entry| {
        let change = entry.to_change(session.origin_name(entry.origin))?;
        let values = if entry.operation == Operation::Delete { Vec::new() } else { entry_values(entry)? };
        found = Some((change, entry.origin, values));
        Ok(false)
    })?;
    Ok(found)
}

fn write(host: &mut dyn Host, session: &mut Session, item: &Item<'_>, plan: &Plan) -> Result<Written, RowFailure> {
    let table = &session.catalog.tables[item.table];
    let written = match &plan.action {
        Action::Skip => Written::default(),
        Action::Apply { contested, log_unchanged } => {
            let label = Label { origin: item.origin, stamp: item.change.stamp, via: Some(item.peer.id), contested: *contested || item.change.contested };
            match item.change.operation {
                Operation::Delete => host.remove_row(table, &item.bound.key, Some(&label), *log_unchanged)?,
                _ => host.put_row(table, &item.bound.values, Some(&label), *log_unchanged)?,
            }
        }
        Action::Merged(Some(values)) => host.put_row(table, values, None, true)?,
        Action::Merged(None) => host.remove_row(table, &item.bound.key, None, true)?,
    };
    if let Some(hash) = &plan.settles {
        let settled = match plan.action {
            Action::Apply { contested: true, .. } => mark_won(host, item.peer.id, hash),
            _ => forget(host, item.peer.id, hash),
        };
        settled.map_err(RowFailure::Fatal)?;
    }
    if item.retried {
        // Others than the batch's sender may have delivered it.
        session.extra_entries = true;
    } else if written.caused_more || matches!(plan.action, Action::Merged(_)) {
        // What the write caused is a local change that the neighbour has not seen; later changes of this batch may meet it.
        session.extra_entries = true;
        let any = fold(host, &session.catalog, &item.peer).map_err(RowFailure::Fatal)?;
        session.unseen.insert(item.peer.id, any);
    }
    Ok(written)
}
