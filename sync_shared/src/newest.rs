//! The newest log entries of the rows that cannot be judged by stamps alone: of changes that waited, that their sender had seen less
//! of than of the log, or that came out of their origin's order.
//!
//! One pass over the log finds them all, however many there are, and a look at its tail before every question keeps them true
//! while changes are applied. What was searched for a change that waits is not searched again. Memory: about 60 bytes per row.

use crate::catalog::Catalog;
use crate::error::Result;
use crate::host::Host;
use crate::log_entry::{LogEntry, LogRange};
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

/// Where to look for a row's newest entry.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Above this version only.
    pub above: i64,
    /// The newest one at or below it that matters, if there is one.
    pub met: Option<i64>,
}

impl Wanted {
    pub fn above(version: i64) -> Wanted {
        Wanted { above: version, met: None }
    }

    /// Two changes of one row ask.
    pub fn widen(&mut self, other: &Wanted) {
        if other.above < self.above {
            *self = Wanted { above: other.above, met: other.met };
        }
    }
}

/// The newest entries of some rows.
pub struct NewestEntries {
    rows: HashMap<RowHash, Option<Known>>,
    read_to: i64,
    /// Below this nothing can be added to the log any more.
    settled: i64,
}

impl NewestEntries {
    pub fn find(host: &mut dyn Host, catalog: &Catalog, wanted: &HashMap<RowHash, Wanted>) -> Result<NewestEntries> {
        let (settled, read_to) = (host.head()?, host.tip()?);
        let mut rows: HashMap<RowHash, Option<Known>> = wanted.keys().map(|row| (*row, None)).collect();
        let floor = wanted.values().map(|w| w.above).min().unwrap_or(i64::MAX);
        let mut missing = rows.len();
        let range = LogRange { newest_first: true, upto: read_to, ..LogRange::after(floor) };
        host.read_log(catalog, range, &mut |entry| {
            let row = entry.row_hash()?;
            if let Some(known @ None) = rows.get_mut(&row)
                && wanted.get(&row).is_some_and(|w| entry.version > w.above)
            {
                *known = Some(Known::of(entry));
                missing -= 1;
            }
            Ok(missing > 0)
        })?;
        for (row, known) in rows.iter_mut().filter(|(_, known)| known.is_none()) {
            if let Some(met) = wanted.get(row).and_then(|w| w.met) {
                host.read_log(catalog, LogRange::exactly(met), &mut |entry| {
                    *known = Some(Known::of(entry));
                    Ok(false)
                })?;
            }
        }
        Ok(NewestEntries { rows, read_to, settled })
    }

    /// The newest entry of a row that was looked for.
    pub fn of(&mut self, host: &mut dyn Host, catalog: &Catalog, row: &RowHash) -> Result<Option<Known>> {
        let tip = host.tip()?;
        if tip > self.read_to {
            self.settled = host.head()?;
            let rows = &mut self.rows;
            host.read_log(catalog, LogRange { upto: tip, ..LogRange::after(self.read_to) }, &mut |entry| {
                if let Some(known) = rows.get_mut(&entry.row_hash()?) {
                    *known = Some(Known::of(entry));
                }
                Ok(true)
            })?;
            self.read_to = tip;
        }
        Ok(self.rows.get(row).copied().flatten())
    }

    /// How far the log was searched, and the newest entry of a row above a version.
    pub fn searched(&self, row: &RowHash, above: i64) -> Wanted {
        let known = self.rows.get(row).copied().flatten();
        Wanted { above: self.read_to.min(self.settled), met: known.map(|k| k.version).filter(|&version| version > above) }
    }
}
