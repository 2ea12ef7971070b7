//! One change of one row, as it travels.

use crate::canonical::write_string;
use crate::stamp;
use crate::value::Str;
use std::borrow::Cow;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Insert,
    Update,
    Delete,
}

impl Operation {
    /// As the log and the hash of a batch have it.
    pub fn lower(self) -> &'static str {
        match self {
            Operation::Insert => "insert",
            Operation::Update => "update",
            Operation::Delete => "delete",
        }
    }

    /// As a batch has it.
    pub fn wire(self) -> &'static str {
        match self {
            Operation::Insert => "Insert",
            Operation::Update => "Update",
            Operation::Delete => "Delete",
        }
    }

    /// In any case, or as the original's number.
    pub fn parse(text: &str) -> Option<Operation> {
        let known = [Operation::Insert, Operation::Update, Operation::Delete];
        known.into_iter().find(|o| o.lower().eq_ignore_ascii_case(text)).or(match text {
            "0" => Some(Operation::Insert),
            "1" => Some(Operation::Update),
            "2" => Some(Operation::Delete),
            _ => None,
        })
    }

    /// As a member of a change's JSON: a string or a number.
    pub fn parse_json(raw: &str) -> Option<Operation> {
        serde_json::from_str(raw).map_or_else(|_| Operation::parse(raw), |Str(text)| Operation::parse(&text))
    }

    /// As the log has it.
    pub fn number(self) -> i64 {
        match self {
            Operation::Insert => 0,
            Operation::Update => 1,
            Operation::Delete => 2,
        }
    }

    pub fn from_number(number: i64) -> Option<Operation> {
        match number {
            0 => Some(Operation::Insert),
            1 => Some(Operation::Update),
            2 => Some(Operation::Delete),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Change<'a> {
    /// In the sender's log.
    pub version: i64,
    /// On the wire.
    pub table_name: Cow<'a, str>,
    /// JSON object.
    pub pk_value: Cow<'a, str>,
    pub operation: Operation,
    /// JSON object; None for a delete.
    pub payload: Option<Cow<'a, str>>,
    /// UUID, lower case.
    pub origin: Cow<'a, str>,
    /// Milliseconds since 1970.
    pub stamp: i64,
    /// The sender took it in a conflict, so its author is sent it back.
    pub contested: bool,
    /// Push: the sender had applied the server's entries of this row up to this version only; what came after waits there.
    pub seen_version: Option<i64>,
}

impl Change<'_> {
    /// Appends the change as JSON.
    pub fn write_json(&self, out: &mut String) {
        ChangeHead { version: self.version, table_name: &self.table_name, operation: self.operation }.write(out, &self.pk_value);
        match &self.payload {
            Some(payload) => write_string(out, payload),
            None => out.push_str("null"),
        }
        write_tail(out, &self.origin, &stamp::format(self.stamp), self.contested, self.seen_version);
    }

    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(256);
        self.write_json(&mut out);
        out
    }

    pub fn into_owned(self) -> Change<'static> {
        Change {
            version: self.version,
            table_name: Cow::Owned(self.table_name.into_owned()),
            pk_value: Cow::Owned(self.pk_value.into_owned()),
            operation: self.operation,
            payload: self.payload.map(|p| Cow::Owned(p.into_owned())),
            origin: Cow::Owned(self.origin.into_owned()),
            stamp: self.stamp,
            contested: self.contested,
            seen_version: self.seen_version,
        }
    }
}

/// The first members of a change's JSON.
pub struct ChangeHead<'a> {
    pub version: i64,
    pub table_name: &'a str,
    pub operation: Operation,
}

impl ChangeHead<'_> {
    /// Appends everything up to and with `"payload":`.
    pub fn write(&self, out: &mut String, pk_value: &str) {
        out.push_str("{\"version\":");
        out.push_str(itoa::Buffer::new().format(self.version));
        out.push_str(",\"tableName\":");
        write_string(out, self.table_name);
        out.push_str(",\"pkValue\":");
        write_string(out, pk_value);
        out.push_str(",\"operation\":\"");
        out.push_str(self.operation.wire());
        out.push_str("\",\"payload\":");
    }
}

/// Appends what follows the payload in a change's JSON.
pub fn write_tail(out: &mut String, origin: &str, timestamp: &str, contested: bool, seen_version: Option<i64>) {
    out.push_str(",\"origin\":\"");
    out.push_str(origin);
    out.push_str("\",\"timestamp\":\"");
    out.push_str(timestamp);
    out.push('"');
    if contested {
        out.push_str(",\"contested\":true");
    }
    if let Some(version) = seen_version {
        out.push_str(",\"seenVersion\":");
        out.push_str(itoa::Buffer::new().format(version));
    }
    out.push('}');
}
