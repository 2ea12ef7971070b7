//! Log entries as the `changes` of a batch, with their hash, as many as there is room for.

use crate::batch::{FULL_BYTES, MAX_BYTES};
use crate::canonical::{is_plain, write_escaped};
use crate::change::{ChangeHead, Operation, write_tail};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::log_entry::{LogEntry, LogText};
use crate::stamp;
use crate::state::origin_names;
use crate::table::RowHash;
use crate::value::{ValueRef, push_hex, write_payload};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Lines are hashed in pieces of about this many bytes.
const PIECE: usize = 16 * 1024;
/// Most bytes of a change: a batch of it alone has room for its other members.
const LARGEST_CHANGE: usize = MAX_BYTES - 64 * 1024;
/// Most bytes of a key in a message.
const SHOWN_KEY: usize = 200;

/// Has a batch room for a change?
pub enum Fit {
    Taken,
    /// Not in this batch.
    Full,
    /// In no batch.
    Never(Oversized),
}

/// A log entry that is too large for any batch.
pub struct Oversized {
    pub version: i64,
    pub hash: RowHash,
    /// Id of its origin, and its stamp.
    pub anchor: (i64, i64),
    bytes: usize,
    table_name: String,
    pk_value: String,
}

impl Oversized {
    fn of(entry: &LogEntry<'_>, bytes: usize) -> Result<Oversized> {
        let mut pk_value = String::new();
        entry.write_key(&mut pk_value)?;
        pk_value.truncate(pk_value.floor_char_boundary(SHOWN_KEY));
        Ok(Oversized {
            version: entry.version,
            hash: entry.row_hash()?,
            anchor: (entry.origin, entry.stamp),
            bytes,
            table_name: entry.table.table_name.clone(),
            pk_value,
        })
    }

    pub fn error(&self) -> Error {
        Error::limit(format!(
            "version {} of table {:?}, row {}: the change has {} bytes, and a batch takes {LARGEST_CHANGE}; make the row smaller, delete it, or \
             exclude its column: what comes after it waits",
            self.version, self.table_name, self.pk_value, self.bytes
        ))
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

    /// Appends an entry, unless that would make the batch larger than [`FULL_BYTES`]; a change that is alone may be up to [`LARGEST_CHANGE`].
    /// `seen_version`: as in [`crate::change::Change`]. `beside`: bytes of the batch that are no changes.
    pub fn write_if_it_fits(&mut self, entry: &LogEntry<'_>, seen_version: Option<i64>, beside: usize) -> Result<Fit> {
        if self.out.len() + beside >= FULL_BYTES {
            return Ok(Fit::Full);
        }
        if self.hashed.len() >= PIECE {
            self.hash.update(self.hashed.as_bytes());
            self.hashed.clear();
        }
        let (sent, hashed, alone) = (self.out.len(), self.hashed.len(), self.count == 0 && beside == 0);
        self.write(entry, seen_version)?;
        let bytes = self.out.len() - sent;
        let fit = match bytes > LARGEST_CHANGE {
            true => Fit::Never(Oversized::of(entry, bytes)?),
            false if !alone && self.out.len() + beside > FULL_BYTES => Fit::Full,
            false => return Ok(Fit::Taken),
        };
        self.out.truncate(sent);
        self.hashed.truncate(hashed);
        self.count -= 1;
        Ok(fit)
    }

    /// Appends an entry. What is hashed is written first, and what is sent is copied from it: neither is formatted twice.
    fn write(&mut self, entry: &LogEntry<'_>, seen_version: Option<i64>) -> Result<()> {
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
