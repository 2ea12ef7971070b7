//! Changes that could not be applied yet: kept whole in `_sync_rejections`, tried again, never lost and never overtaken.

use crate::change::{Change, Operation};
use crate::error::{EngineError, Error, Result};
use crate::host::Host;
use crate::stamp;
use crate::table::RowHash;
use crate::value::ValueRef;
use std::borrow::Cow;
use std::collections::HashSet;

/// The kind of a change that waits for the row of a foreign key.
pub const WAITS_FOR_PARENT: &str = "ForeignKeyViolation";
/// The kind of a change that waits behind another of the same row.
pub const QUEUED: &str = "Queued";

/// Up to so many rejections are all tried by every apply, for a local write may have removed the cause as well.
const ALWAYS_TRIED: usize = 1000;

/// Why a change was not applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    pub kind: &'static str,
    pub code: String,
    pub message: String,
    /// The row it waits for.
    pub waits_for: Option<RowHash>,
}

impl Reason {
    pub fn new(kind: &'static str, message: String) -> Reason {
        Reason { kind, code: String::new(), message, waits_for: None }
    }

    /// The engine refused the row.
    pub fn of_engine(error: &EngineError) -> Reason {
        Reason { kind: error.kind, code: error.code.clone(), message: error.message.clone(), waits_for: None }
    }

    pub fn queued() -> Reason {
        Reason::new(QUEUED, "an earlier change of the same row has not been applied yet".to_owned())
    }

    /// It waits for other rows rather than being refused.
    pub fn is_deferral(&self) -> bool {
        self.kind == WAITS_FOR_PARENT || self.kind == QUEUED
    }
}

/// A stored rejection.
#[derive(Clone, Debug)]
pub struct Rejection {
    pub id: i64,
    pub change: Change<'static>,
    /// The neighbour that delivered it.
    pub via: i64,
    /// What the neighbour had seen of this log then.
    pub seen_version: i64,
    pub row_hash: RowHash,
    pub kind: String,
    pub code: String,
    pub message: String,
    pub waits_for: Option<RowHash>,
}

/// All rejections, oldest first.
pub fn load(host: &mut dyn Host) -> Result<Vec<Rejection>> {
    let mut rejections = Vec::new();
    host.query(
        "SELECT id, table_name, pk_value, operation, payload, origin, timestamp, version, via, seen_version, row_hash, waits_for, kind, code, message, \
         contested FROM _sync_rejections ORDER BY id",
        &[],
        &mut |row| {
            let hash = |column| match row.value(column)? {
                ValueRef::Blob(bytes) => Ok(RowHash::try_from(bytes).ok()),
                _ => Ok::<_, Error>(None),
            };
            rejections.push(Rejection {
                id: row.integer(0)?,
                change: Change {
                    version: row.integer(7)?,
                    table_name: Cow::Owned(row.text(1)?.to_owned()),
                    pk_value: Cow::Owned(row.text(2)?.to_owned()),
                    operation: Operation::parse(row.text(3)?).ok_or_else(damaged)?,
                    payload: row.optional_text(4)?.map(Cow::Owned),
                    origin: Cow::Owned(row.text(5)?.to_owned()),
                    stamp: stamp::parse(row.text(6)?).ok_or_else(damaged)?,
                    contested: row.integer(15)? != 0,
                },
                via: row.integer(8)?,
                seen_version: row.integer(9)?,
                row_hash: hash(10)?.ok_or_else(damaged)?,
                waits_for: hash(11)?,
                kind: row.text(12)?.to_owned(),
                code: row.text(13)?.to_owned(),
                message: row.text(14)?.to_owned(),
            });
            Ok(true)
        },
    )?;
    Ok(rejections)
}

/// The newest waiting change of every row that a neighbour has delivered: the row, what it does, and its stamp.
pub fn visit_newest_of(host: &mut dyn Host, via: i64, visit: &mut dyn FnMut(&RowHash, Operation, i64)) -> Result<()> {
    let sql = "SELECT row_hash, operation, timestamp FROM _sync_rejections AS r WHERE via = ?1 AND id = \
               (SELECT max(id) FROM _sync_rejections AS s WHERE s.row_hash = r.row_hash AND s.via = r.via) ORDER BY id";
    host.query(sql, &[ValueRef::Integer(via)], &mut |row| {
        let hash = match row.value(0)? {
            ValueRef::Blob(bytes) => RowHash::try_from(bytes).ok(),
            _ => None,
        };
        let parts = (hash, Operation::parse(row.text(1)?), stamp::parse(row.text(2)?));
        let (Some(hash), Some(operation), Some(stamp)) = parts else { return Err(damaged()) };
        visit(&hash, operation, stamp);
        Ok(true)
    })
}

pub fn store(
    host: &mut dyn Host,
    change: &Change<'_>,
    (via, seen_version): (i64, i64),
    row_hash: &RowHash,
    reason: &Reason,
) -> Result<()> {
    let now = stamp::format(host.now());
    host.execute(
        "INSERT INTO _sync_rejections (table_name, pk_value, operation, payload, origin, timestamp, version, via, seen_version, \
         row_hash, waits_for, kind, code, message, attempts, rejected_at, contested) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, 1, ?15, ?16)",
        &[
            ValueRef::Text(&change.table_name),
            ValueRef::Text(&change.pk_value),
            ValueRef::Text(change.operation.lower()),
            change.payload.as_deref().map_or(ValueRef::Null, ValueRef::Text),
            ValueRef::Text(&change.origin),
            ValueRef::Text(&stamp::format(change.stamp)),
            ValueRef::Integer(change.version),
            ValueRef::Integer(via),
            ValueRef::Integer(seen_version),
            ValueRef::Blob(row_hash),
            reason.waits_for.as_ref().map_or(ValueRef::Null, |h| ValueRef::Blob(h)),
            ValueRef::Text(reason.kind),
            ValueRef::Text(&reason.code),
            ValueRef::Text(&reason.message),
            ValueRef::Text(&now),
            ValueRef::Integer(i64::from(change.contested)),
        ],
    )?;
    Ok(())
}

/// Another attempt failed.
pub fn update(host: &mut dyn Host, id: i64, reason: &Reason) -> Result<()> {
    host.execute(
        "UPDATE _sync_rejections SET kind = ?2, code = ?3, message = ?4, waits_for = ?5, attempts = attempts + 1 WHERE id = ?1",
        &[
            ValueRef::Integer(id),
            ValueRef::Text(reason.kind),
            ValueRef::Text(&reason.code),
            ValueRef::Text(&reason.message),
            reason.waits_for.as_ref().map_or(ValueRef::Null, |h| ValueRef::Blob(h)),
        ],
    )?;
    Ok(())
}

/// Removes all that one neighbour has delivered.
pub fn remove_all_of(host: &mut dyn Host, via: i64) -> Result<()> {
    host.execute("DELETE FROM _sync_rejections WHERE via = ?1", &[ValueRef::Integer(via)])?;
    Ok(())
}

fn damaged() -> Error {
    Error::corrupt("a row of _sync_rejections")
}

pub fn remove(host: &mut dyn Host, id: i64) -> Result<bool> {
    Ok(host.execute("DELETE FROM _sync_rejections WHERE id = ?1", &[ValueRef::Integer(id)])? > 0)
}

/// Which rejections may succeed now: all that do not wait for a parent, and those whose parent is among the rows that were
/// written or that are tried now. What queues behind one of them comes along.
pub fn worth_trying(rejections: Vec<Rejection>, written: &HashSet<RowHash>) -> Vec<Rejection> {
    if rejections.len() <= ALWAYS_TRIED {
        return rejections;
    }
    let mut rows: HashSet<RowHash> = written.clone();
    let waits = |r: &Rejection| r.kind == WAITS_FOR_PARENT && r.waits_for.is_some();
    rows.extend(rejections.iter().filter(|r| !waits(r) && r.kind != QUEUED).map(|r| r.row_hash));
    // A parent that is itself parked may come with its children: keys can be cyclic.
    let parked: HashSet<RowHash> = rejections.iter().map(|r| r.row_hash).collect();
    loop {
        let before = rows.len();
        for rejection in rejections.iter().filter(|r| waits(r)) {
            let wakes = rejection.waits_for.is_some_and(|parent| rows.contains(&parent) || parked.contains(&parent));
            if wakes {
                rows.insert(rejection.row_hash);
            }
        }
        if rows.len() == before {
            break;
        }
    }
    let first_of_row = |r: &Rejection| match waits(r) {
        true => r.waits_for.is_some_and(|parent| rows.contains(&parent) || parked.contains(&parent)),
        false => true,
    };
    let mut tried_rows: HashSet<RowHash> = HashSet::new();
    let mut blocked_rows: HashSet<RowHash> = HashSet::new();
    rejections
        .into_iter()
        .filter(|r| {
            if blocked_rows.contains(&r.row_hash) {
                return false;
            }
            if tried_rows.contains(&r.row_hash) || r.kind == QUEUED || first_of_row(r) {
                tried_rows.insert(r.row_hash);
                return true;
            }
            blocked_rows.insert(r.row_hash);
            false
        })
        .collect()
}
