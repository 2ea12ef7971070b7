//! A batch: decoding, limits and structural checks. Lenient in form, strict in content.
//!
//! Nothing here touches a database. What decodes is whole and in order; everything else is `InvalidBatch` or `LimitExceeded`.

use crate::canonical::{MAX_NESTING, nesting};
use crate::change::Change;
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::state::parse_origin;
use crate::value::Str;
use crate::wire::{Changes, member};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Most changes in one batch.
pub const MAX_CHANGES: usize = 10_000;
/// Most bytes of a batch's text.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;
/// A fetch closes its batch before it has more bytes than this, but for one larger change by itself. So no batch exceeds [`MAX_BYTES`].
pub const FULL_BYTES: usize = 32 * 1024 * 1024;
/// Most marks of a batch.
pub const MAX_MARKS: usize = 100;

/// What a list of too many changes is called.
pub const OVER_LIMIT: &str = "more than 10000 changes";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    /// From the server.
    Pull,
    /// From a client.
    Push,
}

/// A random name that a sender gave to its log up to a version when it made a batch that ends there: `version@UUID` on the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    pub version: i64,
    pub mark: String,
}

impl<'de> Deserialize<'de> for Mark {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let Str(text) = Str::deserialize(deserializer)?;
        let parts = text.split_once('@').and_then(|(version, mark)| Some((version.parse().ok()?, parse_origin(mark)?)));
        let (version, mark) = parts.ok_or_else(|| D::Error::custom(format!("{text:?} is not a mark")))?;
        Ok(Mark { version, mark })
    }
}

/// A decoded batch. Members that a sender may leave out are options.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    pub kind: BatchKind,
    pub origin_id: String,
    pub epoch: Option<String>,
    /// Pull: the number of a [`Cursor`].
    pub from_version: Option<i64>,
    pub to_version: Option<i64>,
    pub has_more: bool,
    pub hash: Option<String>,
    /// Push: how far the sender had pulled, the number of a [`Cursor`].
    pub last_server_version: i64,
    /// Push: whose version that is.
    pub server_epoch: Option<String>,
    pub max_version: Option<i64>,
    /// Push: of this batch, and of all that the sender has handed out and does not know to have arrived.
    pub marks: Vec<Mark>,
    pub from_anchor: Option<String>,
    pub to_anchor: Option<String>,
    pub received_version: Option<i64>,
    /// The mark of the batch that brought it.
    pub received_mark: Option<String>,
    /// Entries that were left out, see ARCHITECTURE.md.
    pub excluded: Vec<String>,
    pub changes: Vec<Change<'a>>,
}

/// Decodes and checks a batch's text.
pub fn decode_batch(text: &str) -> Result<Batch<'_>> {
    decode_raw(text)?.check()
}

fn decode_raw(text: &str) -> Result<RawBatch<'_>> {
    if text.len() > MAX_BYTES {
        return Err(Error::limit(format!("the batch has {} bytes, more than {MAX_BYTES}; send smaller batches", text.len())));
    }
    if nesting(text) > MAX_NESTING {
        return Err(Error::limit(format!("the batch nests deeper than {MAX_NESTING} levels")));
    }
    serde_json::from_str(text).map_err(|error| match error.to_string() {
        message if message.contains(OVER_LIMIT) => Error::limit(format!("the batch has {OVER_LIMIT}; send smaller batches")),
        message => Error::batch(format!("not a batch: {message}")),
    })
}

/// The changes of a batch's text, whatever else it has.
pub fn decode_changes(text: &str) -> Result<Vec<Change<'_>>> {
    let raw = decode_raw(text)?;
    raw.changes.map(|changes| changes.0).ok_or_else(|| Error::batch("member \"changes\" is missing"))
}

#[derive(Default)]
struct RawBatch<'a> {
    kind: Option<String>,
    origin_id: Option<String>,
    epoch: Option<String>,
    from_version: Option<i64>,
    to_version: Option<i64>,
    has_more: Option<bool>,
    hash: Option<String>,
    last_server_version: Option<i64>,
    server_epoch: Option<String>,
    max_version: Option<i64>,
    marks: Option<Vec<Mark>>,
    from_anchor: Option<String>,
    to_anchor: Option<String>,
    received_version: Option<i64>,
    received_mark: Option<String>,
    excluded: Option<Vec<String>>,
    changes: Option<Changes<'a>>,
    bare: bool,
}

impl<'a> RawBatch<'a> {
    fn check(self) -> Result<Batch<'a>> {
        let missing = |name: &str| Error::batch(format!("member {name:?} is missing"));
        let changes = self.changes.ok_or_else(|| missing("changes"))?.0;
        let kind = match self.kind.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("push") => BatchKind::Push,
            Some("pull") => BatchKind::Pull,
            Some(other) => return Err(Error::batch(format!("there is no kind {other:?} of batch"))),
        };
        let sender = match (&self.origin_id, changes.first()) {
            (Some(id), _) => id.clone(),
            (None, Some(first)) if self.bare => first.origin.clone().into_owned(),
            (None, None) if self.bare => uuid::Uuid::nil().to_string(),
            (None, _) => return Err(missing("originId")),
        };
        let origin_id = parse_origin(&sender).ok_or_else(|| Error::batch(format!("originId {sender:?} is not a UUID")))?;
        if kind == BatchKind::Pull && (self.from_version.is_none() || self.to_version.is_none()) {
            return Err(missing(if self.from_version.is_none() { "fromVersion" } else { "toVersion" }));
        }
        for (name, version) in [
            ("fromVersion", self.from_version),
            ("toVersion", self.to_version),
            ("lastServerVersion", self.last_server_version),
            ("maxVersion", self.max_version),
            ("receivedVersion", self.received_version),
        ] {
            if version.is_some_and(|v| v < 0) {
                return Err(Error::batch(format!("{name} is negative")));
            }
        }
        let marks = self.marks.unwrap_or_default();
        if marks.len() > MAX_MARKS || (!marks.is_empty() && !marks.iter().any(|mark| Some(mark.version) == self.to_version)) {
            return Err(Error::batch(format!("marks are more than {MAX_MARKS}, or none is that of toVersion")));
        }
        let version = |number: Option<i64>| number.map(|n| if kind == BatchKind::Pull { Cursor::from_number(n).version } else { n });
        check_versions(&changes, version(self.from_version), version(self.to_version))?;
        Ok(Batch {
            kind,
            origin_id,
            epoch: self.epoch,
            from_version: self.from_version,
            to_version: self.to_version,
            has_more: self.has_more.unwrap_or(false),
            hash: self.hash,
            last_server_version: self.last_server_version.unwrap_or(0),
            server_epoch: self.server_epoch,
            max_version: self.max_version,
            marks,
            from_anchor: self.from_anchor,
            to_anchor: self.to_anchor,
            received_version: self.received_version,
            received_mark: self.received_mark,
            excluded: self.excluded.unwrap_or_default(),
            changes,
        })
    }
}

fn check_versions(changes: &[Change<'_>], from: Option<i64>, to: Option<i64>) -> Result<()> {
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return Err(Error::batch(format!("fromVersion {from} is above toVersion {to}")));
    }
    let mut last = from.unwrap_or(0);
    for change in changes {
        if change.version <= last {
            return Err(Error::batch(format!("version {} does not follow {last}", change.version)));
        }
        last = change.version;
    }
    match to {
        Some(to) if last > to => Err(Error::batch(format!("version {last} is above toVersion {to}"))),
        _ => Ok(()),
    }
}

impl<'de> Deserialize<'de> for RawBatch<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = RawBatch<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or an array of changes")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> std::result::Result<Self::Value, A::Error> {
                Ok(RawBatch { changes: Some(Changes::read(seq)?), bare: true, ..RawBatch::default() })
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut batch = RawBatch::default();
                let mut seen = Vec::new();
                while let Some(Str(name)) = map.next_key()? {
                    let name = member(&name).into_owned();
                    if seen.contains(&name) {
                        return Err(A::Error::custom(format!("member {name:?} stands twice")));
                    }
                    match name.as_str() {
                        "kind" => batch.kind = map.next_value()?,
                        "originId" => batch.origin_id = map.next_value()?,
                        "epoch" => batch.epoch = map.next_value()?,
                        "fromVersion" => batch.from_version = map.next_value()?,
                        "toVersion" => batch.to_version = map.next_value()?,
                        "hasMore" => batch.has_more = map.next_value()?,
                        "hash" => batch.hash = map.next_value()?,
                        "lastServerVersion" => batch.last_server_version = map.next_value()?,
                        "serverEpoch" => batch.server_epoch = map.next_value()?,
                        "maxVersion" => batch.max_version = map.next_value()?,
                        "fromAnchor" => batch.from_anchor = map.next_value()?,
                        "toAnchor" => batch.to_anchor = map.next_value()?,
                        "receivedVersion" => batch.received_version = map.next_value()?,
                        "receivedMark" => batch.received_mark = map.next_value()?,
                        "marks" => batch.marks = map.next_value()?,
                        "excluded" => batch.excluded = map.next_value()?,
                        "changes" => batch.changes = map.next_value()?,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    }
                    seen.push(name);
                }
                Ok(batch)
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

/// Nests a payload's or key's text deeper than is taken? Most hold no nesting at all.
pub fn is_too_deep(text: &str) -> bool {
    let brackets = text.bytes().filter(|b| matches!(b, b'{' | b'[')).count();
    brackets > MAX_NESTING && nesting(text) > MAX_NESTING
}
