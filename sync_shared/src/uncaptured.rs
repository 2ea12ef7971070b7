//! Tracked tables whose capture is off, because they cannot be captured as they are, or because it would mean to delete what nobody deleted.
//!
//! Noted when capture follows the schema. Who would hand out this replica's changes, or apply one to such a table, fails instead: what is
//! written to the table is not logged. Everything else goes on.

use crate::catalog::Catalog;
use crate::error::{Error, Kind, Result};
use crate::host::Host;
use crate::state;
use crate::table::Table;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Its key in `_sync_state`.
pub const KEY: &str = "uncaptured";

/// Why a table is not captured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Cause {
    /// It could not be tracked as it is now: this is the reason, and what to do.
    Unsupported(String, String),
    /// It was dropped and made again without the rows that the log has.
    RowsGone,
}

/// The tables that are not captured, by their ids.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Uncaptured(BTreeMap<i64, Cause>);

impl Uncaptured {
    /// Reads what [`Uncaptured::store`] has written; nothing for an empty text.
    pub fn parse(text: &str) -> Result<Uncaptured> {
        match text {
            "" => Ok(Uncaptured::default()),
            _ => serde_json::from_str(text).map_err(Error::corrupt),
        }
    }

    pub fn store(&self, host: &mut dyn Host) -> Result<()> {
        state::set(host, KEY, &serde_json::to_string(self).map_err(Error::corrupt)?)
    }

    pub fn set(&mut self, table: &Table, cause: Option<Cause>) {
        match cause {
            Some(cause) => self.0.insert(table.id, cause),
            None => self.0.remove(&table.id),
        };
    }

    pub fn has_lost_rows(&self, table: &Table) -> bool {
        self.0.get(&table.id) == Some(&Cause::RowsGone)
    }

    /// Errors: `UnsupportedTable` or `SchemaMismatch` if the table is not captured.
    pub fn check(&self, table: &Table) -> Result<()> {
        let name = &table.table_name;
        match self.0.get(&table.id) {
            None => Ok(()),
            Some(Cause::Unsupported(reason, fix)) => Err(Error::new(
                Kind::UnsupportedTable,
                format!("{reason}, so nothing that is written to it is recorded; {fix}, or give it up with sync_untrack_table('{name}')"),
            )),
            Some(Cause::RowsGone) => Err(Error::new(
                Kind::SchemaMismatch,
                format!(
                    "table {name:?} was dropped and made again without the rows of its log, which is not taken for their delete; call \
                     sync_begin_resync() to put them back, or sync_reconcile('{name}') to delete them everywhere"
                ),
            )),
        }
    }

    /// As [`Uncaptured::check`] for all tracked tables.
    pub fn check_all(&self, catalog: &Catalog) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        catalog.tracked().try_for_each(|(_, table)| self.check(table))
    }
}
