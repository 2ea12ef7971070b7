//! Binds the changes of a batch to tables here before any of them is applied.

use crate::batch::BatchKind;
use crate::catalog::missing_table;
use crate::change::{Change, Operation};
use crate::error::{Error, Result};
use crate::group::Item;
use crate::host::Host;
use crate::payload::{Bound, Unbound, unbound_row_hash};
use crate::rejection::Reason;
use crate::session::Session;
use crate::table::{RowHash, Table};
use crate::unseen::Peer;
use std::collections::HashMap;

/// A change of a batch, bound or refused.
pub enum Incoming<'a> {
    Bound(Item<'a>),
    /// Its table here cannot take it (yet).
    Refused { change: Change<'a>, row: RowHash, reason: Reason },
}

/// Binds every change, in order.
///
/// Errors: `TableNotFound`, `TableNotTracked`, `InvalidBatch`, and those of [`Uncaptured::check`](crate::uncaptured::Uncaptured::check).
pub fn bind<'a>(
    host: &mut dyn Host,
    session: &mut Session<'_>,
    direction: BatchKind,
    changes: Vec<Change<'a>>,
    peer: &Peer,
) -> Result<Vec<Incoming<'a>>> {
    let mut tables: HashMap<String, usize> = HashMap::new();
    let mut origins: HashMap<String, i64> = HashMap::new();
    let mut incoming = Vec::with_capacity(changes.len());
    for change in changes {
        let table = match tables.get(change.table_name.as_ref()) {
            Some(&table) => table,
            None => {
                let Some(table) = session.catalog.by_wire_name(&change.table_name) else {
                    return Err(missing_table(host, &change.table_name)?);
                };
                let table_name = &session.catalog.tables[table].table_name;
                if host.describe(table_name)?.is_none() {
                    return Err(Error::not_found(table_name));
                }
                session.uncaptured.check(&session.catalog.tables[table])?;
                tables.insert(change.table_name.to_string(), table);
                table
            }
        };
        let origin = match origins.get(change.origin.as_ref()) {
            Some(&origin) => origin,
            None => {
                let origin = session.origin_id(host, &change.origin)?;
                origins.insert(change.origin.to_string(), origin);
                origin
            }
        };
        incoming.push(match Bound::new(&session.catalog.tables[table], &change) {
            Ok(bound) => {
                let peer = peer.of_change(&change);
                Incoming::Bound(Item { change, table, bound, origin, peer, direction, retried: false, searched: None })
            }
            Err(Unbound::Batch(error)) => return Err(error),
            Err(Unbound::Row(kind, message)) => {
                let row = row_of_refused(&session.catalog.tables[table], &change);
                Incoming::Refused { change, row, reason: Reason::new(kind, message) }
            }
        });
    }
    Ok(incoming)
}

/// The row of a change whose payload could not be bound: by its key, or if that cannot be bound either, by its text.
fn row_of_refused(table: &Table, change: &Change<'_>) -> RowHash {
    let key_only = Change { operation: Operation::Delete, payload: None, ..change.clone() };
    match Bound::new(table, &key_only) {
        Ok(bound) => bound.row_hash(table).unwrap_or_else(|_| unbound_row_hash(change)),
        Err(_) => unbound_row_hash(change),
    }
}
