//! What is known and counted while changes are applied.

use crate::ancestor::Ancestors;
use crate::batch::BatchKind;
use crate::catalog::Catalog;
use crate::change::Change;
use crate::conflict::Strategy;
use crate::error::Result;
use crate::group::{Condemned, Item, Outcome};
use crate::host::Host;
use crate::newest::NewestEntries;
use crate::rejection::{QUEUED, Reason, Rejection, WAITS_FOR_PARENT};
use crate::state::{State, origin_names, origin_number};
use crate::uncaptured::Uncaptured;
use crate::unseen::fold;
use crate::value::ValueRef;
use serde_json::{Value as Json, json};
use std::collections::{HashMap, HashSet};

/// What is known while changes are applied.
pub struct Session<'s> {
    pub catalog: Catalog,
    /// The tables whose capture is off.
    pub uncaptured: Uncaptured,
    strategy: Option<Strategy>,
    /// What was received before is told by its version: nothing arrives twice.
    pub comes_once: bool,
    /// The batch belongs to a full resync: the server's log is the truth.
    pub resync: bool,
    /// Newest stamp received of each origin.
    pub newest: HashMap<i64, i64>,
    /// Newest entries of the rows whose changes cannot be judged by their stamps.
    pub entries: Option<NewestEntries>,
    /// What merges compare with.
    pub ancestors: Ancestors,
    /// Neighbours, and whether they have anything unseen.
    pub unseen: HashMap<i64, bool>,
    /// Changes that are refused without being tried.
    pub condemned: &'s mut Condemned,
    pub purge_horizon: i64,
    /// Up to here the log was looked at for what may let a rejected change succeed; None: try all.
    pub retried_version: Option<i64>,
    /// Local changes were captured on the way.
    pub extra_entries: bool,
    pub foreign_key_code: String,
    origins: HashMap<i64, String>,
    stored_newest: HashMap<i64, i64>,
}

impl<'s> Session<'s> {
    pub fn new(
        host: &mut dyn Host,
        state: &State,
        catalog: Catalog,
        (kind, strategy): (BatchKind, Option<Strategy>),
        condemned: &'s mut Condemned,
    ) -> Result<Session<'s>> {
        let mut newest = HashMap::new();
        host.query("SELECT id, newest_stamp FROM _sync_origins", &[], &mut |row| {
            newest.insert(row.integer(0)?, row.integer(1)?);
            Ok(true)
        })?;
        Ok(Session {
            catalog,
            uncaptured: state.uncaptured.clone(),
            strategy,
            comes_once: true,
            resync: state.resync && kind == BatchKind::Pull,
            stored_newest: newest.clone(),
            newest,
            entries: None,
            ancestors: Ancestors::default(),
            condemned,
            purge_horizon: state.purge_horizon,
            retried_version: state.retried_version,
            unseen: HashMap::new(),
            extra_entries: false,
            foreign_key_code: host.foreign_key_code().to_owned(),
            origins: origin_names(host)?,
        })
    }

    /// The strategy for an item: the batch's, else its table's.
    pub fn strategy_of(&self, item: &Item<'_>) -> Strategy {
        self.strategy.unwrap_or(self.catalog.tables[item.table].strategy)
    }

    pub fn origin_name(&self, id: i64) -> String {
        self.origins.get(&id).cloned().unwrap_or_default()
    }

    pub fn note_newest(&mut self, origin: i64, stamp: i64) {
        let newest = self.newest.entry(origin).or_insert(stamp);
        *newest = stamp.max(*newest);
    }

    /// Finds what the neighbours of these items have not seen.
    pub fn fold_all(&mut self, host: &mut dyn Host, items: &[Item<'_>]) -> Result<()> {
        let mut done = HashSet::new();
        for item in items.iter().filter(|item| !item.is_behind()) {
            if done.insert(item.peer.id) {
                self.fold_for(host, item, &[])?;
            }
        }
        Ok(())
    }

    /// Finds what the neighbour of an item has not seen, and of that what the item has just caused.
    pub fn fold_for(&mut self, host: &mut dyn Host, item: &Item<'_>, caused: &[i64]) -> Result<()> {
        let any = fold(host, &self.catalog, &item.peer, caused)?;
        self.unseen.insert(item.peer.id, any);
        Ok(())
    }

    pub fn origin_id(&mut self, host: &mut dyn Host, origin: &str) -> Result<i64> {
        let id = origin_number(host, origin)?;
        self.origins.entry(id).or_insert_with(|| origin.to_owned());
        Ok(id)
    }

    pub fn store_newest(&self, host: &mut dyn Host) -> Result<()> {
        for (&origin, &stamp) in &self.newest {
            if self.stored_newest.get(&origin) != Some(&stamp) {
                host.execute(
                    "UPDATE _sync_origins SET newest_stamp = ?2 WHERE id = ?1 AND newest_stamp < ?2",
                    &[ValueRef::Integer(origin), ValueRef::Integer(stamp)],
                )?;
            }
        }
        Ok(())
    }
}

/// The counters of the result.
#[derive(Default)]
pub struct Answer {
    applied: usize,
    pub skipped: usize,
    conflicts: usize,
    deferred: usize,
    rejected: usize,
    pub restamped: usize,
    rejections: Vec<Json>,
}

impl Answer {
    pub fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Applied { conflict } => {
                self.applied += 1;
                self.conflicts += usize::from(*conflict);
            }
            Outcome::Skipped { conflict: true } => self.conflicts += 1,
            Outcome::Skipped { conflict: false } => self.skipped += 1,
            Outcome::Waits(_) => {}
        }
    }

    pub fn reject(&mut self, change: &Change<'_>, reason: &Reason) {
        match reason.is_deferral() {
            true => self.deferred += 1,
            false => self.rejected += 1,
        }
        self.list(change, reason.kind, &reason.code, &reason.message);
    }

    /// A change that was reported as waiting in this call has been applied after all.
    pub fn settle(&mut self, change: &Change<'_>) {
        let same = |r: &Json| r["version"] == change.version && r["pkValue"] == change.pk_value.as_ref() && r["tableName"] == change.table_name.as_ref();
        if let Some(at) = self.rejections.iter().position(same) {
            let kind = self.rejections.remove(at)["kind"].clone();
            match kind == WAITS_FOR_PARENT || kind == QUEUED {
                true => self.deferred -= 1,
                false => self.rejected -= 1,
            }
        }
    }

    /// Reports a rejection that stays.
    pub fn report(&mut self, rejection: &Rejection) {
        let Rejection { change, kind, code, message, .. } = rejection;
        match *kind == WAITS_FOR_PARENT || *kind == QUEUED {
            true => self.deferred += 1,
            false => self.rejected += 1,
        }
        self.list(change, kind, code, message);
    }

    fn list(&mut self, change: &Change<'_>, kind: &str, code: &str, message: &str) {
        self.rejections.push(json!({
            "version": change.version,
            "tableName": change.table_name,
            "pkValue": change.pk_value,
            "kind": kind,
            "code": code,
            "message": message,
        }));
    }

    pub fn to_json(&self, from: i64, to: i64, has_more: bool) -> String {
        json!({
            "applied": self.applied,
            "skipped": self.skipped,
            "conflicts": self.conflicts,
            "deferred": self.deferred,
            "rejected": self.rejected,
            "restamped": self.restamped,
            "fromVersion": from,
            "toVersion": to,
            "hasMore": has_more,
            "rejections": self.rejections,
        })
        .to_string()
    }
}

