//! `sync_fetch_changes` and `sync_changes`: the log as batches for replicas downstream.

use crate::batch::{FULL_BYTES, MAX_CHANGES};
use crate::canonical::{is_plain, write_escaped, write_string};
use crate::catalog::Catalog;
use crate::change::{ChangeHead, Operation, write_tail};
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::log_entry::{LogEntry, LogRange, LogText};
use crate::receive::received_version;
use crate::rejection;
use crate::stamp;
use crate::state::{State, known_origin, origin_names, parse_origin};
use crate::table::RowHash;
use crate::value::{ValueRef, push_hex, write_payload};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt::Write as _;

/// Lines are hashed in pieces of about this many bytes.
const PIECE: usize = 16 * 1024;

/// The changes after `from_version` as a pull batch (JSON), at most `batch_size` of them.
///
/// What `exclude_origin` made or delivered itself is left out, but for changes that won a conflict here.
/// Errors: `InvalidArgument`, `FullResyncRequired` if the cursor is below the purge horizon and not 0.
pub fn fetch_changes(host: &mut dyn Host, from_version: i64, batch_size: i64, exclude_origin: Option<&str>) -> Result<String> {
    let (state, catalog) = Catalog::open(host)?;
    let plan = Plan::new(host, (&state, &catalog), from_version, batch_size, exclude_origin)?;
    let (from, head) = (plan.from, host.head()?);
    let mut writer = ChangeWriter::new(host)?;
    let mut excluded = String::new();
    let (mut to_version, mut has_more) = (from.version, false);
    let mut to_anchor: Option<(i64, i64)> = None;
    host.read_log(&catalog, LogRange { upto: head, for_caller: true, ..LogRange::after(from.version) }, &mut |entry| {
        if plan.hides(entry) {
            // The cursor passes it.
        } else if plan.excludes(entry) {
            write_excluded(&mut excluded, (entry.version, entry.operation, entry.stamp), &entry.row_hash()?);
        } else if writer.count >= plan.batch_size || writer.out.len() >= FULL_BYTES {
            has_more = true;
            return Ok(false);
        } else {
            writer.write(entry, None)?;
        }
        to_version = entry.version;
        to_anchor = Some((entry.origin, entry.stamp));
        Ok(true)
    })?;
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
    let mut count = 0;
    let head = host.head()?;
    host.read_log(&catalog, LogRange { upto: head, for_caller: true, ..LogRange::after(plan.from.version) }, &mut |entry| {
        if plan.hides(entry) || plan.excludes(entry) {
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
        count += 1;
        Ok(count < plan.batch_size)
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

/// Writes log entries as the `changes` of a batch, and their hash.
pub struct ChangeWriter {
    pub out: String,
    pub count: usize,
    pub origins: HashMap<i64, String>,
    hash: Sha256,
    /// What is to be hashed next: whole lines.
    hashed: String,
    stamp: (i64, String),
}

impl ChangeWriter {
    pub fn new(host: &mut dyn Host) -> Result<ChangeWriter> {
        Ok(ChangeWriter {
            out: String::with_capacity(64 * 1024),
            count: 0,
            origins: origin_names(host)?,
            hash: Sha256::new(),
            hashed: String::with_capacity(2 * PIECE),
            stamp: (i64::MIN, String::new()),
        })
    }

    /// Appends an entry. What is hashed is written first, and what is sent is copied from it: neither is formatted twice.
    /// `seen_version`: as in [`crate::change::Change`].
    pub fn write(&mut self, entry: &LogEntry<'_>, seen_version: Option<i64>) -> Result<()> {
        if self.hashed.len() >= PIECE {
            self.hash.update(self.hashed.as_bytes());
            self.hashed.clear();
        }
        let table = &entry.table.name;
        self.hashed.push_str(itoa::Buffer::new().format(entry.version));
        self.hashed.push(':');
        self.hashed.push_str(table);
        self.hashed.push(':');
        let pk = self.hashed.len();
        entry.write_key(&mut self.hashed).map_err(|e| unreadable(entry, &self.hashed[pk..], e))?;
        let pk = pk..self.hashed.len();
        self.hashed.push(':');
        self.hashed.push_str(entry.operation.lower());
        self.hashed.push(':');
        if self.count > 0 {
            self.out.push(',');
        }
        let head = ChangeHead { version: entry.version, table_name: table, operation: entry.operation };
        head.write(&mut self.out, &self.hashed[pk.clone()]);
        if entry.operation == Operation::Delete {
            self.hashed.push_str("null");
            self.out.push_str("null");
        } else {
            self.out.push('"');
            write_payload_twice(entry, &mut self.hashed, &mut self.out).map_err(|e| unreadable(entry, &self.hashed[pk], e))?;
            self.out.push('"');
        }
        self.hashed.push('\n');
        if self.stamp.0 != entry.stamp {
            self.stamp = (entry.stamp, stamp::format(entry.stamp));
        }
        let origin = self.origins.get(&entry.origin).map_or("", String::as_str);
        write_tail(&mut self.out, origin, &self.stamp.1, entry.contested, seen_version);
        self.count += 1;
        Ok(())
    }

    /// The whole batch; `head` is an open object with the members that go before.
    pub fn finish(mut self, mut head: String) -> String {
        self.hash.update(self.hashed.as_bytes());
        head.push_str(",\"hash\":\"");
        push_hex(&mut head, &self.hash.finalize());
        head.push_str("\",\"changes\":[");
        // Moved within its memory: fresh memory for so much text costs more.
        self.out.insert_str(0, &head);
        self.out.push_str("]}");
        self.out
    }
}

/// Appends a payload as it is to `plain`, and as it stands in a JSON string to `escaped`.
fn write_payload_twice(entry: &LogEntry<'_>, plain: &mut String, escaped: &mut String) -> Result<()> {
    if let Some(LogText { payload: Some(payload), .. }) = entry.text {
        plain.push_str(payload);
        write_escaped(escaped, payload);
        return Ok(());
    }
    let mut lead = "{";
    for (column, definition) in entry.table.columns.iter().enumerate() {
        let Some(value) = entry.fields.value(column)? else { continue };
        plain.push_str(lead);
        escaped.push_str(lead);
        lead = ",";
        plain.push_str(&definition.member);
        escaped.push_str(&entry.table.escaped_members[column]);
        let on_wire = match value {
            ValueRef::Text(text) => Some(entry.table.text_on_wire(column, text)),
            _ => None,
        };
        match on_wire.as_deref() {
            Some(text) if is_plain(text) => {
                for (out, quote) in [(&mut *plain, "\""), (&mut *escaped, "\\\"")] {
                    out.push_str(quote);
                    out.push_str(text);
                    out.push_str(quote);
                }
            }
            _ => {
                let from = plain.len();
                write_payload(plain, on_wire.as_deref().map_or(value, ValueRef::Text));
                write_escaped(escaped, &plain[from..]);
            }
        }
    }
    let end = if lead == "{" { "{}" } else { "}" };
    plain.push_str(end);
    escaped.push_str(end);
    Ok(())
}

/// Names the row that cannot be sent.
fn unreadable(entry: &LogEntry<'_>, pk: &str, mut error: Error) -> Error {
    if let Error::Sync(error) = &mut error {
        error.message = format!("version {} of table {:?}, row {pk}: {}", entry.version, entry.table.table_name, error.message);
    }
    error
}

/// Appends what a change adds to the hash of its batch.
pub fn write_hashed(out: &mut String, version: i64, table: &str, pk: &str, operation: &str, payload: Option<&str>) {
    out.push_str(itoa::Buffer::new().format(version));
    for part in [table, pk, operation, payload.unwrap_or("null")] {
        out.push(':');
        out.push_str(part);
    }
    out.push('\n');
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
