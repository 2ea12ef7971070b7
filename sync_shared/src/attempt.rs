//! One attempt at a group: its items in order, again as long as some that wait may succeed after others did.
//!
//! What can be written together is (`runs.rs`); the rest is judged and written one by one. A row that refers to one that is not there is
//! left for when the others are written, and then tried by itself: it is the engine that refuses it.

use crate::batch::BatchKind;
use crate::change::Operation;
use crate::error::{Error, Result};
use crate::group::{Item, Outcome};
use crate::host::Host;
use crate::log_entry::Label;
use crate::row_write::{RowFailure, Target, Touched, Written};
use crate::plan::{Action, Plan, find_ancestors, find_entries, plan};
use crate::rejection::{NeighbourRow, QUEUED, Reason, WAITS_FOR_PARENT};
use crate::session::Session;
use crate::superseded::is_unreadable;
use crate::table::RowHash;
use crate::unseen::{forget, mark_won};
use std::collections::{HashMap, HashSet};

pub struct Attempt<'i, 'a> {
    pub items: &'i [Item<'a>],
    /// Items that are left out, and why.
    out: &'i HashMap<usize, Reason>,
    pub outcomes: Vec<Option<Outcome>>,
    /// (item, row) of what was written.
    pub touched: Vec<(usize, Touched)>,
    /// Rows of a neighbour's with a change that waits.
    pub waiting: HashSet<NeighbourRow>,
    /// Items that refer to a row that is not there, and the row if it is known.
    pub orphans: HashMap<usize, Option<RowHash>>,
    /// Has any table a foreign key?
    any_references: bool,
}

impl<'i, 'a> Attempt<'i, 'a> {
    pub fn new(items: &'i [Item<'a>], out: &'i HashMap<usize, Reason>) -> Attempt<'i, 'a> {
        Attempt {
            items,
            out,
            outcomes: vec![None; items.len()],
            touched: Vec::new(),
            waiting: HashSet::new(),
            orphans: HashMap::new(),
            any_references: false,
        }
    }

    pub fn run(&mut self, host: &mut dyn Host, session: &mut Session<'_>) -> Result<()> {
        let rows: Vec<Target<'_>> = self.items.iter().map(Item::target).collect();
        host.lock_rows(&session.catalog, &rows)?;
        session.fold_all(host, self.items)?;
        session.entries = find_entries(host, session, self.items)?;
        find_ancestors(host, session, self.items)?;
        self.any_references = session.catalog.tables.iter().any(|t| !t.references.is_empty());
        let mut pending: Vec<usize> = (0..self.items.len()).collect();
        let mut spare_orphans = true;
        loop {
            self.waiting.clear();
            match spare_orphans {
                true => self.run_all(host, session, &pending)?,
                false => self.try_orphans(host, session, &pending)?,
            }
            let tried = pending.len();
            pending.retain(|&index| matches!(self.outcomes[index], Some(Outcome::Waits(_))));
            let may_succeed = |&index: &usize| match &self.outcomes[index] {
                Some(Outcome::Waits(reason)) => reason.kind != "TypeMismatch" && !self.out.contains_key(&index),
                _ => false,
            };
            if pending.len() < tried && pending.iter().any(may_succeed) {
                spare_orphans = true;
            } else if spare_orphans && !self.orphans.is_empty() {
                spare_orphans = false;
            } else {
                return Ok(());
            }
        }
    }

    /// Nothing else can be done: the engine judges the rows that refer to nothing.
    fn try_orphans(&mut self, host: &mut dyn Host, session: &mut Session<'_>, pending: &[usize]) -> Result<()> {
        for &index in pending {
            let outcome = match (self.held_back(session, index)?, self.outcomes[index].clone()) {
                (Some(reason), _) => Outcome::Waits(reason),
                (None, Some(known)) if !self.orphans.contains_key(&index) && !is_queued(&known) => known,
                _ => self.try_item(host, session, index)?,
            };
            self.note(session, index, outcome)?;
        }
        Ok(())
    }

    /// Another writer has made the row meanwhile.
    fn plan_again(&self, host: &mut dyn Host, session: &mut Session<'_>, index: usize) -> Result<Plan> {
        let item = &self.items[index];
        host.lock_rows(&session.catalog, &[item.target()])?;
        session.fold_all(host, self.items)?;
        session.entries = find_entries(host, session, self.items)?;
        find_ancestors(host, session, self.items)?;
        plan(host, session, item, &self.items[index + 1..])
    }

    /// Why an item is not tried now.
    pub fn held_back(&self, session: &Session<'_>, index: usize) -> Result<Option<Reason>> {
        if let Some(reason) = self.out.get(&index) {
            return Ok(Some(reason.clone()));
        }
        let item = &self.items[index];
        if let Some(reason) = session.condemned.get(&(item.peer.id, item.change.version)) {
            return Ok(Some(reason.clone()));
        }
        let queues = !self.waiting.is_empty() && self.waiting.contains(&item.neighbour_row(&session.catalog)?);
        Ok(queues.then(Reason::queued))
    }

    /// Judges and writes an item by itself.
    pub fn try_item(&mut self, host: &mut dyn Host, session: &mut Session<'_>, index: usize) -> Result<Outcome> {
        let items = self.items;
        let item = &items[index];
        let mut plan = match plan(host, session, item, &items[index + 1..]) {
            // A row that cannot be read here holds up what comes for it, and nothing else.
            Err(error) if is_unreadable(&error) => return Ok(Outcome::Waits(Reason::new("TypeMismatch", error.to_string()))),
            plan => plan?,
        };
        let written = loop {
            match write(host, session, item, &plan) {
                Ok(written) => break written,
                Err(RowFailure::Overtaken) => plan = self.plan_again(host, session, index)?,
                Err(RowFailure::Refused(reason)) => {
                    let waits_for = self.orphans.get(&index).copied().flatten().filter(|_| reason.kind == WAITS_FOR_PARENT);
                    return Ok(Outcome::Waits(Reason { waits_for, ..*reason }));
                }
                Err(RowFailure::Lost(error)) => {
                    session.condemned.insert((item.peer.id, item.change.version), Reason::of_engine(*error.clone()));
                    return Err(Error::Engine(error));
                }
                Err(RowFailure::Fatal(error)) => return Err(error),
            }
        };
        if let Some(conflict) = &plan.conflict {
            conflict.record(host)?;
        }
        Ok(self.written(session, index, &plan, written))
    }

    /// An item was written, or left out as it was to be.
    pub fn written(&mut self, session: &mut Session<'_>, index: usize, plan: &Plan, written: Written) -> Outcome {
        let item = &self.items[index];
        session.note_newest(item.origin, item.change.stamp);
        if (written.changed || !written.caused.is_empty()) && self.any_references {
            let touched = Touched { table: item.table, key: item.bound.key.clone(), deleted: plan.deletes(item) };
            self.touched.push((index, touched));
        }
        let conflict = plan.conflict.is_some();
        match plan.action {
            Action::Skip => Outcome::Skipped { conflict },
            Action::Apply { .. } if written.version.is_none() && !written.changed => Outcome::Skipped { conflict },
            _ => Outcome::Applied { conflict },
        }
    }

    /// Notes how an item ended for now.
    pub fn note(&mut self, session: &Session<'_>, index: usize, outcome: Outcome) -> Result<()> {
        if matches!(outcome, Outcome::Waits(_)) {
            self.waiting.insert(self.items[index].neighbour_row(&session.catalog)?);
        }
        self.outcomes[index] = Some(outcome);
        Ok(())
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
        Action::Joined(values) => {
            let mut written = host.put_row(table, values, None, true)?;
            // The neighbour's changes have caused it as they have caused what it holds.
            written.caused.extend(written.version);
            written
        }
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
    } else if !written.caused.is_empty() || matches!(plan.action, Action::Merged(_)) {
        // What the write caused is a local change that the neighbour has not seen; later changes of this batch may meet it.
        session.extra_entries = true;
        session.fold_for(host, item, &written.caused)?;
    }
    Ok(written)
}

fn is_queued(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Waits(reason) if reason.kind == QUEUED)
}
