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
    /// None: the log holds no such version, or it is a delete. With the id of the row's table.
    known: HashMap<NeighbourRow, Option<(i64, Fields)>>,
}

impl Ancestors {
    /// Looks for the newest entries of these rows that their neighbours have seen.
    pub fn find(&mut self, host: &mut dyn Host, catalog: &Catalog, mut wanted: HashMap<NeighbourRow, Peer>) -> Result<()> {
        wanted.retain(|row, _| !self.has(row));
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
                        let fields = if entry.operation == Operation::Delete { None } else { Some((entry.table.id, fields_of(entry)?)) };
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

    /// Was it looked for?
    pub fn has(&self, row: &NeighbourRow) -> bool {
        self.known.contains_key(row)
    }

    /// The last version of a row that a neighbour has seen. A column that was added since has in it what ADD COLUMN gave to the row.
    pub fn of(&mut self, host: &mut dyn Host, catalog: &Catalog, row: NeighbourRow, peer: Peer) -> Result<Option<Fields>> {
        if !self.has(&row) {
            self.find(host, catalog, HashMap::from([(row, peer)]))?;
        }
        let Some((table, mut fields)) = self.known.get(&row).cloned().flatten() else { return Ok(None) };
        if let Some(table) = catalog.tables.iter().find(|t| t.id == table).filter(|_| fields.contains(&None)) {
            fill(&mut fields, &host.column_defaults(table)?);
        }
        Ok(Some(fields))
    }
}

fn fill(fields: &mut Fields, defaults: &[Value]) {
    for (field, default) in fields.iter_mut().zip(defaults) {
        field.get_or_insert_with(|| default.clone());
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
