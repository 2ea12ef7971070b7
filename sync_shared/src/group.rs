//! Applies changes as one group: in order, with foreign keys checked at the end, and without those that fail.
//!
//! A change that the engine refuses is tried again while others make progress. A row that still violates a foreign key at the end
//! is taken out and the group done again without it, so cyclic keys work and nothing is half applied. Of a delete and a row that refers
//! to what it deletes the delete is taken out, of several changes of one row the last. What the same neighbour sends of a row that waits
//! queues behind it.

use crate::ancestor::Ancestors;
use crate::attempt::Attempt;
use crate::batch::BatchKind;
use crate::catalog::Catalog;
use crate::change::Change;
use crate::error::Result;
use crate::host::{Host, try_in_transaction};
use crate::row_write::{GroupRows, Target, Touched, Violation};
use crate::newest::Wanted;
use crate::payload::Bound;
use crate::rejection::{NeighbourRow, Reason, WAITS_FOR_PARENT};
use crate::session::Session;
use crate::table::RowHash;
use crate::unseen::Peer;
use std::collections::HashMap;

/// How often a group is done again without as few changes as possible; then all that have to do with a violation are taken out.
const EXACT_ROUNDS: usize = 16;

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

    pub fn target(&self) -> Target<'_> {
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
    let mut round = 0;
    loop {
        let newest = session.newest.clone();
        host.begin()?;
        if let Err(error) = host.begin_references() {
            host.end(false)?;
            return Err(error);
        }
        let mut attempt = Attempt::new(items, &out);
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
        let (mut violations, touched, outcomes) = match (result, violations) {
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
        if round < EXACT_ROUNDS {
            violations = to_blame(session, items, &touched, violations)?;
        }
        round += 1;
        for violation in violations {
            let item = touched[violation.row].0;
            let code = session.foreign_key_code.clone();
            let reason = Reason { kind: WAITS_FOR_PARENT, code, message: violation.message, waits_for: violation.missing };
            out.entry(item).or_insert(reason);
        }
    }
}

/// Those that have to be taken out in any case. A row is as the last of its changes has left it, so an earlier one may be as it should; and
/// so may be what refers to the row of a delete, if that stays.
fn to_blame(
    session: &Session<'_>,
    items: &[Item<'_>],
    touched: &[(usize, Touched)],
    violations: Vec<Violation>,
) -> Result<Vec<Violation>> {
    let mut last: HashMap<RowHash, usize> = HashMap::new();
    let rows = touched.iter().map(|(item, _)| items[*item].row_hash(&session.catalog)).collect::<Result<Vec<RowHash>>>()?;
    rows.iter().enumerate().for_each(|(place, row)| {
        last.insert(*row, place);
    });
    let is_last = |violation: &&Violation| last.get(&rows[violation.row]) == Some(&violation.row);
    let deletes = |violation: &&Violation| touched[violation.row].1.deleted;
    let any_last = violations.iter().any(|violation| is_last(&violation));
    let candidates = violations.iter().filter(|violation| !any_last || is_last(violation));
    let any_deletes = candidates.clone().any(|violation| deletes(&violation));
    Ok(candidates.filter(|violation| !any_deletes || deletes(violation)).cloned().collect())
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
