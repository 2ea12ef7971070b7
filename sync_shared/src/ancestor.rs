//! The last version of a row that both sides of a conflict knew: what a merge compares them with.
//!
//! One pass over the log, newest entries first, finds those of all rows of a batch that a merge may ask for; a row that no entry is
//! left of costs a pass to the log's beginning, but one for all. Memory: the rows of the batch.

use crate::catalog::Catalog;
use crate::error::Result;
use crate::host::Host;
use crate::log_entry::{LogEntry, LogRange};
use crate::change::Operation;
use crate::rejection::NeighbourRow;
use crate::unseen::Peer;
use crate::value::{Value, ValueRef};
use std::collections::HashMap;

/// A row by column; None for a column that the log entry does not know.
pub type Fields = Vec<Option<Value>>;

/// What was found so far, by neighbour and row.
#[derive(Default)]
pub struct Ancestors {
    /// None: the log holds no such version, or it is a delete.
    known: HashMap<NeighbourRow, Option<Fields>>,
}

impl Ancestors {
    /// Looks for the newest entries of these rows that their neighbours have seen.
    pub fn find(&mut self, host: &mut dyn Host, catalog: &Catalog, mut wanted: HashMap<NeighbourRow, Peer>) -> Result<()> {
        wanted.retain(|row, _| !self.known.contains_key(row));
        let mut neighbours: Vec<Peer> = wanted.values().copied().collect();
        neighbours.sort_unstable_by_key(|peer| peer.id);
        neighbours.dedup_by_key(|peer| peer.id);
        let range = LogRange { newest_first: true, ..LogRange::after(0) };
        if !wanted.is_empty() {
            host.read_log(catalog, range, &mut |entry| {
                let hash = entry.row_hash()?;
                for neighbour in &neighbours {
                    let row = (neighbour.id, hash);
                    let Some(peer) = wanted.get(&row) else { continue };
                    if entry.version <= peer.boundary || peer.knows(entry.origin, entry.via) {
                        let fields = if entry.operation == Operation::Delete { None } else { Some(fields_of(entry)?) };
                        self.known.insert(row, fields);
                        wanted.remove(&row);
                    }
                }
                Ok(!wanted.is_empty())
            })?;
        }
        self.known.extend(wanted.into_keys().map(|row| (row, None)));
        Ok(())
    }

    /// The last version of a row that a neighbour has seen.
    pub fn of(&mut self, host: &mut dyn Host, catalog: &Catalog, row: NeighbourRow, peer: Peer) -> Result<Option<Fields>> {
        if !self.known.contains_key(&row) {
            self.find(host, catalog, HashMap::from([(row, peer)]))?;
        }
        Ok(self.known.get(&row).cloned().flatten())
    }
}

/// The values of a log entry, by column of its table, as they go over the wire: what differs in its spelling only is the same.
pub fn fields_of(entry: &LogEntry<'_>) -> Result<Fields> {
    let value = |c| Ok(entry.fields.value(c)?.map(|value| match value {
        ValueRef::Text(text) => Value::Text(entry.table.text_on_wire(c, text).into_owned()),
        value => value.to_owned(),
    }));
    (0..entry.table.columns.len()).map(value).collect()
}
