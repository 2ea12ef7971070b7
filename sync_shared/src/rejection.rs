//! Changes that could not be applied yet: kept whole in `_sync_rejections`, tried again, never lost and never overtaken.

use crate::change::{Change, Operation};
use crate::error::{EngineError, Error, Result};
use crate::host::{Host, Row};
use crate::newest::Wanted;
use crate::stamp;
use crate::table::RowHash;
use crate::value::ValueRef;
use std::borrow::Cow;
use std::collections::HashSet;

/// The kind of a change that waits for the row of a foreign key.
pub const WAITS_FOR_PARENT: &str = "ForeignKeyViolation";
/// The kind of a change that waits behind another of the same row.
pub const QUEUED: &str = "Queued";

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
    pub fn of_engine(EngineError { kind, code, message, .. }: EngineError) -> Reason {
        Reason { kind, code, message, waits_for: None }
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
    pub change: Change<'static>,
    /// The neighbour that delivered it.
    pub via: i64,
    /// What the neighbour had seen of this log then.
    pub seen_version: i64,
    /// How far the log was searched above that.
    pub searched: Wanted,
    pub row_hash: RowHash,
    pub kind: String,
    pub code: String,
    pub message: String,
}

/// A row of a neighbour's.
pub type NeighbourRow = (i64, RowHash);

/// What says when a rejection is worth trying.
#[derive(Clone, Debug)]
pub struct Outline {
    pub id: i64,
    pub row: NeighbourRow,
    pub waits_for_parent: bool,
    /// The row it waits for, if that is known.
    pub parent: Option<RowHash>,
}

/// All rejections without their content, oldest first.
pub fn outlines(host: &mut dyn Host) -> Result<Vec<Outline>> {
    outlines_after(host, 0)
}

/// As [`outlines`], of those that came after one.
pub fn outlines_after(host: &mut dyn Host, id: i64) -> Result<Vec<Outline>> {
    let mut outlines = Vec::new();
    let sql = "SELECT id, via, row_hash, kind, waits_for FROM _sync_rejections WHERE id > ?1 ORDER BY id";
    host.query(sql, &[ValueRef::Integer(id)], &mut |row| {
        let kind = row.text(3)?;
        outlines.push(Outline {
            id: row.integer(0)?,
            row: (row.integer(1)?, hash_at(row, 2)?.ok_or_else(damaged)?),
            waits_for_parent: kind == WAITS_FOR_PARENT,
            parent: hash_at(row, 4)?,
        });
        Ok(true)
    })?;
    Ok(outlines)
}

/// The rejection of an id.
pub fn load(host: &mut dyn Host, id: i64) -> Result<Rejection> {
    let mut found = None;
    host.query(
        "SELECT table_name, pk_value, operation, payload, origin, timestamp, version, contested, sender_seen, via, seen_version, \
         searched_version, met_version, row_hash, kind, code, message FROM _sync_rejections WHERE id = ?1",
        &[ValueRef::Integer(id)],
        &mut |row| {
            let optional = |column| match row.value(column)? {
                ValueRef::Null => Ok::<_, Error>(None),
                _ => row.integer(column).map(Some),
            };
            found = Some(Rejection {
                change: Change {
                    version: row.integer(6)?,
                    table_name: Cow::Owned(row.text(0)?.to_owned()),
                    pk_value: Cow::Owned(row.text(1)?.to_owned()),
                    operation: Operation::parse(row.text(2)?).ok_or_else(damaged)?,
                    payload: row.optional_text(3)?.map(Cow::Owned),
                    origin: Cow::Owned(row.text(4)?.to_owned()),
                    stamp: stamp::parse(row.text(5)?).ok_or_else(damaged)?,
                    contested: row.integer(7)? != 0,
                    seen_version: optional(8)?,
                },
                via: row.integer(9)?,
                seen_version: row.integer(10)?,
                searched: Wanted { above: row.integer(11)?, met: optional(12)? },
                row_hash: hash_at(row, 13)?.ok_or_else(damaged)?,
                kind: row.text(14)?.to_owned(),
                code: row.text(15)?.to_owned(),
                message: row.text(16)?.to_owned(),
            });
            Ok(false)
        },
    )?;
    found.ok_or_else(damaged)
}

fn hash_at(row: &dyn Row, column: usize) -> Result<Option<RowHash>> {
    match row.value(column)? {
        ValueRef::Blob(bytes) => RowHash::try_from(bytes).map(Some).map_err(|_| damaged()),
        _ => Ok(None),
    }
}

/// The newest waiting change of every row that a neighbour has delivered: the row, how far its author had followed the log, what it
/// does, and its stamp.
pub fn visit_newest_of(host: &mut dyn Host, via: i64, visit: &mut dyn FnMut(&RowHash, i64, Operation, i64)) -> Result<()> {
    let sql = "SELECT row_hash, operation, timestamp, seen_version FROM _sync_rejections AS r WHERE via = ?1 AND id = \
               (SELECT max(id) FROM _sync_rejections AS s WHERE s.row_hash = r.row_hash AND s.via = r.via) ORDER BY id";
    host.query(sql, &[ValueRef::Integer(via)], &mut |row| {
        let parts = (hash_at(row, 0)?, Operation::parse(row.text(1)?), stamp::parse(row.text(2)?));
        let (Some(hash), Some(operation), Some(stamp)) = parts else { return Err(damaged()) };
        visit(&hash, row.integer(3)?, operation, stamp);
        Ok(true)
    })
}

/// A change that is to wait.
pub struct New<'a> {
    pub change: &'a Change<'a>,
    pub via: i64,
    /// What the neighbour had seen of this log.
    pub seen_version: i64,
    pub row_hash: RowHash,
    pub reason: &'a Reason,
}

/// Keeps changes, in their order.
pub fn store(host: &mut dyn Host, all: &[New<'_>]) -> Result<()> {
    let now = stamp::format(host.now());
    let stamps: Vec<String> = all.iter().map(|new| stamp::format(new.change.stamp)).collect();
    let parameters = all.iter().zip(&stamps).map(|(New { change, via, seen_version, row_hash, reason }, stamp)| {
        vec![
            ValueRef::Text(&change.table_name),
            ValueRef::Text(&change.pk_value),
            ValueRef::Text(change.operation.lower()),
            change.payload.as_deref().map_or(ValueRef::Null, ValueRef::Text),
            ValueRef::Text(&change.origin),
            ValueRef::Text(stamp),
            ValueRef::Integer(change.version),
            ValueRef::Integer(i64::from(change.contested)),
            change.seen_version.map_or(ValueRef::Null, ValueRef::Integer),
            ValueRef::Integer(*via),
            ValueRef::Integer(*seen_version),
            ValueRef::Blob(row_hash),
            reason.waits_for.as_ref().map_or(ValueRef::Null, |h| ValueRef::Blob(h)),
            ValueRef::Text(reason.kind),
            ValueRef::Text(&reason.code),
            ValueRef::Text(&reason.message),
            ValueRef::Text(&now),
        ]
    });
    host.execute_all(
        "INSERT INTO _sync_rejections (table_name, pk_value, operation, payload, origin, timestamp, version, contested, sender_seen, via, \
         seen_version, searched_version, row_hash, waits_for, kind, code, message, attempts, rejected_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11, ?12, ?13, ?14, ?15, ?16, 1, ?17)",
        &parameters.collect::<Vec<_>>(),
    )
}

/// Another attempt failed, after the log was searched so far.
pub fn update(host: &mut dyn Host, id: i64, reason: &Reason, searched: Option<Wanted>) -> Result<()> {
    host.execute(
        "UPDATE _sync_rejections SET kind = ?2, code = ?3, message = ?4, waits_for = ?5, attempts = attempts + 1, \
         searched_version = coalesce(?6, searched_version), met_version = coalesce(?7, met_version) WHERE id = ?1",
        &[
            ValueRef::Integer(id),
            ValueRef::Text(reason.kind),
            ValueRef::Text(&reason.code),
            ValueRef::Text(&reason.message),
            reason.waits_for.as_ref().map_or(ValueRef::Null, |h| ValueRef::Blob(h)),
            searched.map_or(ValueRef::Null, |s| ValueRef::Integer(s.above)),
            searched.and_then(|s| s.met).map_or(ValueRef::Null, ValueRef::Integer),
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

/// Which rejections may succeed now: what waits for a parent only if that was touched or may itself succeed, all others always, and
/// what came to a row just now. What comes after another change of its row counts by its parent: the row ends with it.
pub fn worth_trying(outlines: &[Outline], touched: &HashSet<RowHash>, came: &HashSet<NeighbourRow>) -> Vec<i64> {
    let mut rows = HashSet::new();
    let in_order: Vec<(&Outline, bool)> = outlines.iter().map(|outline| (outline, rows.insert(outline.row))).collect();
    let mut woken = came.clone();
    let mut parents: HashSet<RowHash> = came.iter().map(|(_, row)| *row).collect();
    loop {
        let before = woken.len();
        for (outline, is_first) in &in_order {
            let there = |row: &RowHash| touched.contains(row) || parents.contains(row);
            let may_succeed = match is_first {
                true => !outline.waits_for_parent || outline.parent.as_ref().is_none_or(there) || touched.contains(&outline.row.1),
                false => outline.waits_for_parent && outline.parent.as_ref().is_some_and(there),
            };
            if may_succeed {
                woken.insert(outline.row);
                parents.insert(outline.row.1);
            }
        }
        if woken.len() == before {
            break;
        }
    }
    outlines.iter().filter(|o| woken.contains(&o.row)).map(|o| o.id).collect()
}
