//! Runs: consecutive changes of one table that the host may write together.
//!
//! A run comes to what its changes come to one by one: only changes that are judged by their stamps alone, with different keys. A run
//! that is refused is halved until what was refused in it is found, which is then judged by itself in its place.

use crate::attempt::Attempt;
use crate::batch::BatchKind;
use crate::change::Operation;
use crate::error::Result;
use crate::group::{Item, Outcome};
use crate::host::Host;
use crate::log_entry::Label;
use crate::row_write::{PutRow, Together, Violation, Written};
use crate::plan::{Action, plan_by_stamp};
use crate::rejection::{Reason, WAITS_FOR_PARENT};
use crate::session::Session;
use crate::unseen::unseen_entry;
use crate::value::Value;
use std::collections::{HashMap, HashSet};

/// Fewer rows are not worth a run, each of which the host may have to undo by itself.
const LEAST_ROWS: usize = 16;
const MOST_ROWS: usize = 1000;
/// Bytes of payload in a run, unless a single change has more.
const MOST_BYTES: usize = 4 << 20;
/// Of so many rows one may make a run be refused; when more do, the rest is written one by one.
const ROWS_TO_A_REFUSAL: usize = 8;

impl Attempt<'_, '_> {
    /// Tries every item, in order, but for those that refer to a row that is not there.
    pub fn run_all(&mut self, host: &mut dyn Host, session: &mut Session<'_>, pending: &[usize]) -> Result<()> {
        self.orphans.clear();
        let mut rest = pending;
        while let Some(&first) = rest.first() {
            if !host.puts_together(&session.catalog.tables[self.items[first].table])? {
                self.put_singly(host, session, &[first])?;
                rest = &rest[1..];
                continue;
            }
            let (mut run, taken) = self.next_run(host, session, rest)?;
            rest = &rest[taken..];
            if run.len() >= LEAST_ROWS {
                self.leave_orphans(host, session, &mut run)?;
            }
            let mut refusals = run.len() / ROWS_TO_A_REFUSAL + 1;
            self.put_run(host, session, &run, &mut refusals)?;
        }
        Ok(())
    }

    /// The items at the beginning that may be written together, at least one; and how many items that takes. Items that are held back
    /// are passed over: they write nothing.
    fn next_run(&mut self, host: &mut dyn Host, session: &Session<'_>, pending: &[usize]) -> Result<(Vec<usize>, usize)> {
        let items = self.items;
        let (mut run, mut keys, mut bytes) = (Vec::new(), HashSet::new(), 0);
        for (taken, &index) in pending.iter().enumerate() {
            let item = &items[index];
            let is_known = !keys.insert(item.change.pk_value.as_ref());
            if let Some(reason) = self.held_back(session, index)?.filter(|_| !is_known) {
                self.note(session, index, Outcome::Waits(reason))?;
                continue;
            }
            // Also the first item stands for its table: those that were passed over may be of others.
            let first = &items[run.first().copied().unwrap_or(pending[0])];
            let goes_on = first.table == item.table && (run.is_empty() || same_columns(first, item));
            bytes += item.change.payload.as_ref().map_or(0, |payload| payload.len());
            if run.len() == MOST_ROWS || (bytes > MOST_BYTES && !run.is_empty()) || is_known || !goes_on || !is_plain(host, session, item)? {
                return Ok(match run.is_empty() {
                    true => (vec![index], taken + 1),
                    false => (run, taken),
                });
            }
            run.push(index);
        }
        Ok((run, pending.len()))
    }

    /// Leaves those out of a run that refer to a row that is not there.
    fn leave_orphans(&mut self, host: &mut dyn Host, session: &mut Session<'_>, run: &mut Vec<usize>) -> Result<()> {
        let items = self.items;
        let table = &session.catalog.tables[items[run[0]].table];
        let rows: Vec<&[Option<Value>]> = run.iter().map(|&index| items[index].bound.values.as_slice()).collect();
        let mut found: HashMap<usize, Violation> = host.orphans(&session.catalog, table, &rows)?.into_iter().map(|v| (v.row, v)).collect();
        if found.is_empty() {
            return Ok(());
        }
        let newest = session.newest.clone();
        let mut left = Vec::with_capacity(run.len());
        for (place, &index) in run.iter().enumerate() {
            let item = &items[index];
            match found.remove(&place) {
                // A change that is not to be written at all is refused by nobody.
                Some(orphan) if !matches!(plan_by_stamp(host, session, item)?.action, Action::Skip) => {
                    self.orphans.insert(index, orphan.missing);
                    let code = session.foreign_key_code.clone();
                    let reason = Reason { kind: WAITS_FOR_PARENT, code, message: orphan.message, waits_for: orphan.missing };
                    self.note(session, index, Outcome::Waits(reason))?;
                }
                _ => {
                    session.note_newest(item.origin, item.change.stamp);
                    left.push(index);
                }
            }
        }
        session.newest = newest;
        *run = left;
        Ok(())
    }

    /// Writes a run, together as far as that goes. `refusals`: how many more are worth it.
    fn put_run(&mut self, host: &mut dyn Host, session: &mut Session<'_>, run: &[usize], refusals: &mut usize) -> Result<()> {
        if run.len() < LEAST_ROWS || *refusals == 0 {
            return self.put_singly(host, session, run);
        }
        let items = self.items;
        let newest = session.newest.clone();
        let (mut plans, mut rows) = (Vec::with_capacity(run.len()), Vec::with_capacity(run.len()));
        for &index in run {
            let item = &items[index];
            let plan = plan_by_stamp(host, session, item)?;
            session.note_newest(item.origin, item.change.stamp);
            if let Action::Apply { log_unchanged, .. } = plan.action {
                let contested = item.direction == BatchKind::Pull && item.change.contested;
                let label = Label { origin: item.origin, stamp: item.change.stamp, via: Some(item.peer.id), contested };
                rows.push(PutRow { values: &item.bound.values, label, log_unchanged });
            }
            plans.push(plan);
        }
        let table = &session.catalog.tables[items[run[0]].table];
        let mut written = match host.put_rows(table, &rows)? {
            Together::Written(written) => written.into_iter(),
            Together::Refused => {
                session.newest = newest;
                *refusals -= 1;
                let (first, second) = run.split_at(run.len() / 2);
                self.put_run(host, session, first, refusals)?;
                return self.put_run(host, session, second, refusals);
            }
        };
        for (&index, plan) in run.iter().zip(&plans) {
            let written = match plan.action {
                Action::Apply { .. } => written.next().unwrap_or_default(),
                _ => Written::default(),
            };
            session.extra_entries |= items[index].retried;
            let outcome = self.written(session, index, plan, written);
            self.note(session, index, outcome)?;
        }
        Ok(())
    }

    fn put_singly(&mut self, host: &mut dyn Host, session: &mut Session<'_>, run: &[usize]) -> Result<()> {
        for &index in run {
            let outcome = match self.held_back(session, index)? {
                Some(reason) => Outcome::Waits(reason),
                None => self.try_item(host, session, index)?,
            };
            self.note(session, index, outcome)?;
        }
        Ok(())
    }
}

/// Is an item judged by its stamp alone, and does it put a row?
fn is_plain(host: &mut dyn Host, session: &Session<'_>, item: &Item<'_>) -> Result<bool> {
    if item.change.operation == Operation::Delete || item.is_behind() {
        return Ok(false);
    }
    Ok(match session.unseen.get(&item.peer.id) {
        Some(true) => unseen_entry(host, item.peer.id, &item.row_hash(&session.catalog)?)?.is_none(),
        _ => true,
    })
}

fn same_columns(a: &Item<'_>, b: &Item<'_>) -> bool {
    a.bound.values.iter().zip(&b.bound.values).all(|(a, b)| a.is_some() == b.is_some())
}
