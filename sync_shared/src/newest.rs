//! The newest log entries of the rows that cannot be judged by stamps alone: of changes that waited or came out of their origin's order.
//!
//! One pass over the log finds them all, however many there are, and a look at its tail before every question keeps them true
//! while changes are applied. Memory: about 60 bytes per row.

use crate::catalog::Catalog;
use crate::error::Result;
use crate::host::{Host, LogEntry, LogRange};
use crate::table::RowHash;
use std::collections::HashMap;

/// What is known of a log entry.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub version: i64,
    /// Id in `_sync_origins`.
    pub origin: i64,
    pub stamp: i64,
    pub via: Option<i64>,
    pub contested: bool,
}

impl Known {
    fn of(entry: &LogEntry<'_>) -> Known {
        Known { version: entry.version, origin: entry.origin, stamp: entry.stamp, via: entry.via, contested: entry.contested }
    }
}

/// The newest entries of some rows.
pub struct NewestEntries {
    rows: HashMap<RowHash, Option<Known>>,
    read_to: i64,
}

impl NewestEntries {
    /// Looks for these rows; of each only above a version.
    pub fn find(host: &mut dyn Host, catalog: &Catalog, wanted: &HashMap<RowHash, i64>) -> Result<NewestEntries> {
        let read_to = host.head()?;
        let mut rows: HashMap<RowHash, Option<Known>> = wanted.keys().map(|row| (*row, None)).collect();
        let floor = wanted.values().copied().min().unwrap_or(i64::MAX);
        let mut missing = rows.len();
        let range = LogRange { newest_first: true, upto: read_to, ..LogRange::after(floor) };
        if missing > 0 {
            host.read_log(catalog, range, &mut |entry| {
                let row = entry.row_hash()?;
                if let Some(known @ None) = rows.get_mut(&row)
                    && wanted.get(&row).is_some_and(|&above| entry.version > above)
                {
                    *known = Some(Known::of(entry));
                    missing -= 1;
                }
                Ok(missing > 0)
            })?;
        }
        Ok(NewestEntries { rows, read_to })
    }

    /// The newest entry of a row that was looked for.
    pub fn of(&mut self, host: &mut dyn Host, catalog: &Catalog, row: &RowHash) -> Result<Option<Known>> {
        let head = host.head()?;
        if head > self.read_to {
            let rows = &mut self.rows;
            host.read_log(catalog, LogRange { upto: head, ..LogRange::after(self.read_to) }, &mut |entry| {
                if let Some(known) = rows.get_mut(&entry.row_hash()?) {
                    *known = Some(Known::of(entry));
                }
                Ok(true)
            })?;
            self.read_to = head;
        }
        Ok(self.rows.get(row).copied().flatten())
    }
}
