//! Applies changes as one group: in order, with foreign keys checked at the end, and without those that fail.
//!
//! A change that the engine refuses is tried again while others make progress. A row that still violates a foreign key at the end
//! is taken out and the group done again without it, so cyclic keys work and nothing is half applied. What the same neighbour sends
//! of a row that waits queues behind it.

use crate::ancestor::Ancestors;
use crate::batch::BatchKind;
use crate::catalog::Catalog;
use crate::change::{Change, Operation};
use crate::error::{Error, Result};
use crate::host::{GroupRows, Host, Label, RowFailure, Target, Touched, Written, try_in_transaction};
use crate::newest::Wanted;
use crate::payload::Bound;
use crate::plan::{Action, Plan, find_ancestors, find_entries, plan};
use crate::rejection::{NeighbourRow, Reason, WAITS_FOR_PARENT};
use crate::session::Session;
use crate::table::RowHash;
use crate::unseen::{Peer, forget, mark_won};
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
    /// Of a pushed change that was rejected before: how far the log was searched for what its author had not seen.
    pub searched: Option<Wanted>,
}

impl Item<'_> {
    pub fn row_hash(&self, catalog: &Catalog) -> Result<RowHash> {
        self.bound.row_hash(&catalog.tables[self.table])
    }

    pub fn neighbour_row(&self, catalog: &Catalog) -> Result<NeighbourRow> {
        Ok((self.peer.id, self.row_hash(catalog)?))
    }

    /// Had its author seen less of the row than its sender of the log?
    pub fn is_behind(&self) -> bool {
        self.direction == BatchKind::Push && (self.retried || self.change.seen_version.is_some())
    }

    /// Can it be no older than what is here of its origin, the newest of which has this stamp? What a server sends is in the order
    /// of the server's log.
    pub fn is_in_order(&self, newest: i64) -> bool {
        let by_server = self.direction == BatchKind::Pull && (self.retried || self.change.contested);
        by_server || self.change.stamp >= newest
    }

    fn target(&self) -> Target<'_> {
        Target { table: self.table, key: &self.bound.key, operation: self.change.operation }
    }
}

/// How an item ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Applied { conflict: bool },
    Skipped { conflict: bool },
    Waits(Reason),
}

/// Applies the items; one outcome for each.
pub fn apply_group(host: &mut dyn Host, session: &mut Session<'_>, items: &[Item<'_>]) -> Result<Vec<Outcome>> {
    let mut out: HashMap<usize, Reason> = HashMap::new();
    loop {
        let newest = session.newest.clone();
        host.begin()?;
        if let Err(error) = host.begin_references() {
            host.end(false)?;
            return Err(error);
        }
        let mut attempt = Attempt {
            items,
            out: &out,
            outcomes: vec![None; items.len()],
            touched: Vec::new(),
            waiting: HashSet::new(),
        };
        let result = host.begin_rows(&rows_of(session, items)).and_then(|()| attempt.run(host, session));
        host.end_rows();
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
                if host.narrows() {
                    session.newest = newest;
                    session.ancestors = Ancestors::default();
                    continue;
                }
                return Err(error);
            }
        };
        if violations.is_empty() {
            host.end(true)?;
            return Ok(outcomes.into_iter().map(|o| o.unwrap_or(Outcome::Skipped { conflict: false })).collect());
        }
        host.end(false)?;
        session.newest = newest;
        session.ancestors = Ancestors::default();
        for violation in violations {
            let item = touched[violation.row].0;
            let code = session.foreign_key_code.clone();
            let reason = Reason { kind: WAITS_FOR_PARENT, code, message: violation.message, waits_for: violation.missing };
            out.entry(item).or_insert(reason);
        }
    }
}

/// What the items write: every table of theirs, once.
fn rows_of<'s>(session: &'s Session<'_>, items: &[Item<'_>]) -> GroupRows<'s> {
    let mut places: Vec<usize> = Vec::new();
    for item in items {
        if !places.contains(&item.table) {
            places.push(item.table);
        }
    }
    GroupRows {
        tables: places.into_iter().map(|place| &session.catalog.tables[place]).collect(),
        changes: items.len(),
        whole: items.iter().all(|item| item.bound.values.iter().all(Option::is_some)),
    }
}

/// Changes on which a trigger ended the whole transaction, by neighbour and version, and why.
pub type Condemned = HashMap<(i64, i64), Reason>;

/// Runs a unit of work that applies changes. A trigger may end the transaction over one of them (RAISE(ROLLBACK)): then all is begun
/// again and that one refused. Within a transaction of the caller's, which is gone with it, this is an error.
pub fn apply_in_transaction<T>(
    host: &mut dyn Host,
    keep: bool,
    body: &mut dyn FnMut(&mut dyn Host, &mut Condemned) -> Result<T>,
) -> Result<T> {
    let ours = !host.is_in_transaction();
    let mut condemned = Condemned::new();
    loop {
        let known = condemned.len();
        match try_in_transaction(host, keep, |host| body(host, &mut condemned)) {
            Err(_) if ours && condemned.len() > known => {}
            result => return result,
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
    /// Rows of a neighbour's with a change that waits.
    waiting: HashSet<NeighbourRow>,
}

impl Attempt<'_, '_> {
    fn run(&mut self, host: &mut dyn Host, session: &mut Session<'_>) -> Result<()> {
        let rows: Vec<Target<'_>> = self.items.iter().map(Item::target).collect();
        host.lock_rows(&session.catalog, &rows)?;
        session.fold_all(host, self.items)?;
        session.entries = find_entries(host, session, self.items)?;
        find_ancestors(host, session, self.items)?;
        let mut pending: Vec<usize> = (0..self.items.len()).collect();
        loop {
            self.waiting.clear();
            for &index in &pending {
                let outcome = self.try_item(host, session, index)?;
                if matches!(outcome, Outcome::Waits(_)) {
                    self.waiting.insert(self.items[index].neighbour_row(&session.catalog)?);
                }
                self.outcomes[index] = Some(outcome);
            }
            let tried = pending.len();
            pending.retain(|&index| matches!(self.outcomes[index], Some(Outcome::Waits(_))));
            let may_succeed = |&index: &usize| match &self.outcomes[index] {
                Some(Outcome::Waits(reason)) => reason.kind != "TypeMismatch" && !self.out.contains_key(&index),
                _ => false,
            };
            if pending.len() == tried || !pending.iter().any(may_succeed) {
                return Ok(());
            }
        }
    }

    /// Another writer has made the row meanwhile.
    fn plan_again(&self, host: &mut dyn Host, session: &mut Session<'_>, item: &Item<'_>) -> Result<Plan> {
        host.lock_rows(&session.catalog, &[item.target()])?;
        session.fold_all(host, self.items)?;
        session.entries = find_entries(host, session, self.items)?;
        find_ancestors(host, session, self.items)?;
        plan(host, session, item)
    }

    fn try_item(&mut self, host: &mut dyn Host, session: &mut Session<'_>, index: usize) -> Result<Outcome> {
        if let Some(reason) = self.out.get(&index) {
            return Ok(Outcome::Waits(reason.clone()));
        }
        let items = self.items;
        let item = &items[index];
        if let Some(reason) = session.condemned.get(&(item.peer.id, item.change.version)) {
            return Ok(Outcome::Waits(reason.clone()));
        }
        if !self.waiting.is_empty() && self.waiting.contains(&item.neighbour_row(&session.catalog)?) {
            return Ok(Outcome::Waits(Reason::queued()));
        }
        let mut plan = plan(host, session, item)?;
        let written = loop {
            match write(host, session, item, &plan) {
                Ok(written) => break written,
                Err(RowFailure::Overtaken) => plan = self.plan_again(host, session, item)?,
                Err(RowFailure::Refused { kind, code, message }) => {
                    return Ok(Outcome::Waits(Reason { kind, code, message, waits_for: None }));
                }
                Err(RowFailure::Lost(error)) => {
                    session.condemned.insert((item.peer.id, item.change.version), Reason::of_engine(&error));
                    return Err(Error::Engine(error));
                }
                Err(RowFailure::Fatal(error)) => return Err(error),
            }
        };
        if let Some(conflict) = &plan.conflict {
            conflict.record(host)?;
        }
        session.note_newest(item.origin, item.change.stamp);
        if written.changed || written.caused_more {
            let deleted = plan.deletes(item);
            let key = item.bound.key.clone();
            if !session.catalog.tables.iter().all(|t| t.references.is_empty()) {
                self.touched.push((index, Touched { table: item.table, key, deleted }));
            }
        }
        let conflict = plan.conflict.is_some();
        Ok(match plan.action {
            Action::Skip => Outcome::Skipped { conflict },
            Action::Apply { .. } if written.version.is_none() && !written.changed => Outcome::Skipped { conflict },
            _ => Outcome::Applied { conflict },
        })
    }
}

fn write(host: &mut dyn Host, session: &mut Session<'_>, item: &Item<'_>, plan: &Plan) -> Result<Written, RowFailure> {
    let table = &session.catalog.tables[item.table];
    let mut goes_back = false;
    let written = match &plan.action {
        Action::Skip => Written::default(),
        Action::Apply { contested, log_unchanged } => {
            goes_back = *contested;
            let contested = *contested || (item.direction == BatchKind::Pull && item.change.contested);
            let label = Label { origin: item.origin, stamp: item.change.stamp, via: Some(item.peer.id), contested };
            match item.change.operation {
                Operation::Delete => host.remove_row(table, &item.bound.key, Some(&label), *log_unchanged)?,
                _ => host.put_row(table, &item.bound.values, Some(&label), *log_unchanged)?,
            }
        }
        Action::Merged(Some(values)) => host.put_row(table, values, None, true)?,
        Action::Merged(None) => host.remove_row(table, &item.bound.key, None, true)?,
    };
    if let Some(version) = written.version.filter(|_| goes_back) {
        mark_won(host, item.peer.id, &item.row_hash(&session.catalog)?, version)?;
        session.unseen.insert(item.peer.id, true);
    } else if plan.settles {
        forget(host, item.peer.id, &item.row_hash(&session.catalog)?)?;
    }
    if item.retried {
        // Others than the batch's sender may have delivered it.
        session.extra_entries = true;
    } else if written.caused_more || matches!(plan.action, Action::Merged(_)) {
        // What the write caused is a local change that the neighbour has not seen; later changes of this batch may meet it.
        session.extra_entries = true;
        session.fold_for(host, item)?;
    }
    Ok(written)
}
