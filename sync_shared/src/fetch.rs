//! `sync_fetch_changes` and `sync_changes`: the log as batches for replicas downstream.

use crate::batch::{FULL_BYTES, MAX_CHANGES};
use crate::canonical::write_string;
use crate::catalog::Catalog;
use crate::change::Operation;
use crate::change_writer::{ChangeWriter, Fit, Oversized};
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::log_entry::{LogEntry, LogRange};
use crate::receive::received_version;
use crate::rejection;
use crate::stamp;
use crate::state::{State, known_origin, origin_names, parse_origin};
use crate::superseded::without_unreadable;
use crate::table::RowHash;
use crate::value::push_hex;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

/// The changes after `from_version` as a pull batch (JSON), at most `batch_size` of them.
///
/// What `exclude_origin` made or delivered itself is left out, but for changes that won a conflict here. A row that no batch has room for is
/// passed once the log has a newer entry of it.
/// Errors: `InvalidArgument`, `FullResyncRequired` if the cursor is below the purge horizon and not 0, `LimitExceeded` if the next change is of
/// such a row.
pub fn fetch_changes(host: &mut dyn Host, from_version: i64, batch_size: i64, exclude_origin: Option<&str>) -> Result<String> {
    let (state, catalog) = Catalog::open(host)?;
    let plan = Plan::new(host, (&state, &catalog), from_version, batch_size, exclude_origin)?;
    let (from, head) = (plan.from, host.head()?);
    let Sent { writer, mut excluded, mut to_version, has_more, mut to_anchor } =
        without_unreadable(host, &catalog, from.version, |host, superseded| send(host, &catalog, &plan, head, superseded))?;
    if !has_more && head > to_version {
        (to_version, to_anchor) = (head, None);
    }
    if let Some(client) = plan.exclude.filter(|_| !has_more) {
        // What the client has pushed and waits here is newer than what it had seen of the log.
        rejection::visit_newest_of(host, client, &mut |row, seen_version, operation, stamp| {
            write_excluded(&mut excluded, (seen_version, operation, stamp), row);
        })?;
    }
    let from_anchor = anchor_at(host, &catalog, from.version, &writer.origins)?;
    let to_anchor = match to_anchor {
        Some((origin, stamp)) => Some(anchor(&writer.origins, origin, stamp)),
        None if to_version == from.version => from_anchor.clone(),
        None => None,
    };
    let received = match plan.exclude {
        Some(id) => Some(received_version(host, id)?),
        None if exclude_origin.is_some() => Some((0, None)),
        None => None,
    };
    let to = match has_more && to_version < state.purge_horizon {
        true => Cursor::of_replay(to_version, state.purges),
        false => Cursor::at(to_version),
    };
    let mut head_members = format!(
        "{{\"kind\":\"pull\",\"originId\":\"{}\",\"epoch\":\"{}\",\"fromVersion\":{from_version},\"toVersion\":{},\"hasMore\":{has_more}",
        state.origin_id,
        state.epoch,
        to.number()
    );
    write!(head_members, ",\"maxVersion\":{head}").ok();
    for (name, value) in [("fromAnchor", from_anchor), ("toAnchor", to_anchor)] {
        if let Some(value) = value {
            write!(head_members, ",\"{name}\":").ok();
            write_string(&mut head_members, &value);
        }
    }
    if let Some((version, mark)) = received {
        write!(head_members, ",\"receivedVersion\":{version}").ok();
        if let Some(mark) = mark {
            head_members.push_str(",\"receivedMark\":");
            write_string(&mut head_members, &mark);
        }
    }
    if !excluded.is_empty() {
        write!(head_members, ",\"excluded\":[{excluded}]").ok();
    }
    Ok(writer.finish(head_members))
}

/// What of the log goes into a batch.
struct Sent {
    writer: ChangeWriter,
    excluded: String,
    to_version: i64,
    has_more: bool,
    /// Origin and stamp of the entry at `to_version`.
    to_anchor: Option<(i64, i64)>,
}

fn send(host: &mut dyn Host, catalog: &Catalog, plan: &Plan, head: i64, superseded: &HashSet<i64>) -> Result<Sent> {
    let from = plan.from.version;
    let mut sent = Sent { writer: ChangeWriter::new(host)?, excluded: String::new(), to_version: from, has_more: false, to_anchor: None };
    loop {
        let mut oversized: Option<Oversized> = None;
        host.read_log(catalog, LogRange { upto: head, for_caller: true, ..LogRange::after(sent.to_version) }, &mut |entry| {
            if plan.hides(entry) || superseded.contains(&entry.version) {
                // The cursor passes it.
            } else if plan.excludes(entry) {
                if sent.writer.out.len() + sent.excluded.len() >= FULL_BYTES {
                    sent.has_more = true;
                    return Ok(false);
                }
                write_excluded(&mut sent.excluded, (entry.version, entry.operation, entry.stamp), &entry.row_hash()?);
            } else if sent.writer.count >= plan.batch_size {
                sent.has_more = true;
                return Ok(false);
            } else {
                match sent.writer.write_if_it_fits(entry, None, sent.excluded.len())? {
                    Fit::Taken => {}
                    Fit::Full => {
                        sent.has_more = true;
                        return Ok(false);
                    }
                    Fit::Never(row) => {
                        oversized = Some(row);
                        return Ok(false);
                    }
                }
            }
            sent.to_version = entry.version;
            sent.to_anchor = Some((entry.origin, entry.stamp));
            Ok(true)
        })?;
        let Some(row) = oversized else { return Ok(sent) };
        if is_superseded(host, catalog, &row, head)? {
            // What became of the row follows.
            sent.to_version = row.version;
            sent.to_anchor = Some(row.anchor);
        } else if sent.to_version > from {
            sent.has_more = true;
            return Ok(sent);
        } else {
            return Err(row.error());
        }
    }
}

/// Has the log a newer entry of this row?
fn is_superseded(host: &mut dyn Host, catalog: &Catalog, row: &Oversized, head: i64) -> Result<bool> {
    let mut found = false;
    host.read_log(catalog, LogRange { upto: head, newest_first: true, ..LogRange::after(row.version) }, &mut |entry| {
        found = entry.row_hash()? == row.hash;
        Ok(!found)
    })?;
    Ok(found)
}

/// Names an entry that is left out of a batch, see ARCHITECTURE.md.
fn write_excluded(out: &mut String, (version, operation, stamp): (i64, Operation, i64), row: &RowHash) {
    if !out.is_empty() {
        out.push(',');
    }
    out.push_str(if operation == Operation::Delete { "\"-" } else { "\"+" });
    push_hex(out, row);
    write!(out, "@{version}@{stamp}\"").ok();
}

/// A change as `sync_changes()` shows it.
pub struct VisibleChange<'a> {
    pub version: i64,
    pub table_name: &'a str,
    pub pk_value: String,
    pub operation: &'static str,
    pub payload: Option<String>,
    pub origin: &'a str,
    pub timestamp: String,
}

/// The same changes as [`fetch_changes`] gives, one by one.
pub fn visit_changes(
    host: &mut dyn Host,
    from_version: i64,
    batch_size: i64,
    exclude_origin: Option<&str>,
    visit: &mut dyn FnMut(VisibleChange<'_>),
) -> Result<()> {
    let (state, catalog) = Catalog::open(host)?;
    let plan = Plan::new(host, (&state, &catalog), from_version, batch_size, exclude_origin)?;
    let origins = origin_names(host)?;
    let (mut count, mut shown) = (0, plan.from.version);
    let head = host.head()?;
    without_unreadable(host, &catalog, plan.from.version, |host, superseded| {
        host.read_log(&catalog, LogRange { upto: head, for_caller: true, ..LogRange::after(shown) }, &mut |entry| {
            if plan.hides(entry) || plan.excludes(entry) || superseded.contains(&entry.version) {
                return Ok(true);
            }
            let mut change = VisibleChange {
                version: entry.version,
                table_name: &entry.table.name,
                pk_value: String::new(),
                operation: entry.operation.lower(),
                payload: None,
                origin: origins.get(&entry.origin).map_or("", String::as_str),
                timestamp: stamp::format(entry.stamp),
            };
            entry.write_key(&mut change.pk_value)?;
            if entry.operation != Operation::Delete {
                entry.write_payload(change.payload.insert(String::new()))?;
            }
            visit(change);
            (count, shown) = (count + 1, entry.version);
            Ok(count < plan.batch_size)
        })
    })
}

/// Checks the size of a batch that is asked for.
pub fn checked_batch_size(batch_size: i64) -> Result<usize> {
    match usize::try_from(batch_size) {
        Ok(size @ 1..=MAX_CHANGES) => Ok(size),
        _ => Err(Error::argument(format!("the batch size must be 1 to {MAX_CHANGES}, not {batch_size}"))),
    }
}

struct Plan {
    from: Cursor,
    batch_size: usize,
    /// Id in `_sync_origins`.
    exclude: Option<i64>,
    /// Tables that the caller may not read.
    hidden: Vec<i64>,
}

impl Plan {
    fn new(host: &mut dyn Host, (state, catalog): (&State, &Catalog), from: i64, batch_size: i64, exclude: Option<&str>) -> Result<Plan> {
        let batch_size = checked_batch_size(batch_size)?;
        state.uncaptured.check_all(catalog)?;
        if from < 0 {
            return Err(Error::argument(format!("version {from} is negative")));
        }
        let from = Cursor::from_number(from);
        state.check_cursor(from)?;
        let exclude = match exclude {
            None => None,
            Some(text) => {
                let origin = parse_origin(text).ok_or_else(|| Error::argument(format!("exclude_origin {text:?} is not a UUID")))?;
                known_origin(host, &origin)?
            }
        };
        let mut hidden = Vec::new();
        for table in &catalog.tables {
            if !host.may_read(table)? {
                hidden.push(table.id);
            }
        }
        Ok(Plan { from, batch_size, exclude, hidden })
    }

    fn hides(&self, entry: &LogEntry<'_>) -> bool {
        !entry.shown || (!self.hidden.is_empty() && self.hidden.contains(&entry.table.id))
    }

    fn excludes(&self, entry: &LogEntry<'_>) -> bool {
        match self.exclude {
            Some(id) => !entry.contested && (entry.origin == id || entry.via == Some(id)),
            None => false,
        }
    }
}

/// Names a log entry so that a log that was rolled back and went on is told from the one a client knew.
fn anchor(origins: &HashMap<i64, String>, origin: i64, stamp: i64) -> String {
    format!("{}@{}", origins.get(&origin).map_or("", String::as_str), stamp::format(stamp))
}

fn anchor_at(host: &mut dyn Host, catalog: &Catalog, version: i64, origins: &HashMap<i64, String>) -> Result<Option<String>> {
    let mut found = None;
    if version > 0 {
        host.read_log(catalog, LogRange::exactly(version), &mut |entry| {
            found = Some(anchor(origins, entry.origin, entry.stamp));
            Ok(false)
        })?;
    }
    Ok(found)
}
