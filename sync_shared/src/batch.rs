//! A batch: decoding, limits and structural checks. Lenient in form, strict in content.
//!
//! Nothing here touches a database. What decodes is whole and in order; everything else is `InvalidBatch` or `LimitExceeded`.

use crate::canonical::{MAX_NESTING, nesting, write_string};
use crate::change::{Change, Operation};
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::stamp;
use crate::state::parse_origin;
use crate::value::Str;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Most changes in one batch.
pub const MAX_CHANGES: usize = 10_000;
/// Most bytes of a batch's text.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;
/// A fetch closes its batch at this many bytes, so that no batch exceeds [`MAX_BYTES`] but for one huge row.
pub const FULL_BYTES: usize = 32 * 1024 * 1024;
/// Most marks of a batch.
pub const MAX_MARKS: usize = 100;
/// Longest table name, in bytes.
const MAX_NAME: usize = 1024;

const OVER_LIMIT: &str = "more than 10,000 changes";

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

/// A member's name in the contract's spelling, whatever its case and underscores.
fn member(name: &str) -> Cow<'_, str> {
    const KNOWN: [&str; 26] = [
        "version", "tableName", "pkValue", "operation", "payload", "origin", "timestamp", "contested", "seenVersion", "kind",
        "originId", "epoch", "fromVersion", "toVersion", "hasMore", "hash", "changes", "lastServerVersion", "serverEpoch",
        "maxVersion", "marks", "fromAnchor", "toAnchor", "receivedVersion", "receivedMark", "excluded",
    ];
    if KNOWN.contains(&name) {
        return Cow::Borrowed(name);
    }
    let folded: String = name.chars().filter(|c| *c != '_').collect();
    KNOWN.into_iter().find(|known| known.eq_ignore_ascii_case(&folded)).map_or(Cow::Borrowed(name), Cow::Borrowed)
}

/// Fills a member once, though it be with null.
fn fill<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    map: &mut A,
    slot: &mut Option<T>,
    name: &str,
) -> std::result::Result<(), A::Error> {
    if slot.is_some() {
        return Err(A::Error::custom(format!("member {name:?} stands twice")));
    }
    *slot = Some(map.next_value()?);
    Ok(())
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

struct Changes<'a>(Vec<Change<'a>>);

impl<'a> Changes<'a> {
    fn read<A: SeqAccess<'a>>(mut seq: A) -> std::result::Result<Self, A::Error> {
        let mut changes = Vec::new();
        while let Some(WireChange(change)) = seq.next_element()? {
            if changes.len() == MAX_CHANGES {
                return Err(A::Error::custom(OVER_LIMIT));
            }
            changes.push(change);
        }
        Ok(Changes(changes))
    }
}

impl<'de> Deserialize<'de> for Changes<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Changes<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of changes")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> std::result::Result<Self::Value, A::Error> {
                Changes::read(seq)
            }
        }
        deserializer.deserialize_seq(Visit)
    }
}

struct WireChange<'a>(Change<'a>);

impl<'de> Deserialize<'de> for WireChange<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = WireChange<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a change")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut version: Option<i64> = None;
                let (mut table_name, mut origin, mut timestamp): (Option<Str<'de>>, Option<Str<'de>>, Option<Str<'de>>) =
                    (None, None, None);
                let (mut pk_value, mut payload): (Option<JsonText<'de>>, Option<Option<JsonText<'de>>>) = (None, None);
                let mut operation: Option<&'de RawValue> = None;
                let (mut contested, mut seen_version): (Option<Option<bool>>, Option<Option<i64>>) = (None, None);
                while let Some(Str(name)) = map.next_key()? {
                    match member(&name).as_ref() {
                        "version" => fill(&mut map, &mut version, "version")?,
                        "tableName" => fill(&mut map, &mut table_name, "tableName")?,
                        "pkValue" => fill(&mut map, &mut pk_value, "pkValue")?,
                        "operation" => fill(&mut map, &mut operation, "operation")?,
                        "payload" => fill(&mut map, &mut payload, "payload")?,
                        "origin" => fill(&mut map, &mut origin, "origin")?,
                        "timestamp" => fill(&mut map, &mut timestamp, "timestamp")?,
                        "contested" => fill(&mut map, &mut contested, "contested")?,
                        "seenVersion" => fill(&mut map, &mut seen_version, "seenVersion")?,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                let missing = |name: &'static str| A::Error::missing_field(name);
                let operation = operation.ok_or_else(|| missing("operation"))?;
                let change = Change {
                    version: version.ok_or_else(|| missing("version"))?,
                    table_name: table_name.ok_or_else(|| missing("tableName"))?.0,
                    pk_value: pk_value.ok_or_else(|| missing("pkValue"))?.0,
                    operation: Operation::parse_json(operation.get())
                        .ok_or_else(|| A::Error::custom(format!("there is no operation {}", operation.get())))?,
                    payload: payload.flatten().map(|JsonText(text)| text),
                    origin: origin.ok_or_else(|| missing("origin"))?.0,
                    stamp: {
                        let Str(text) = timestamp.ok_or_else(|| missing("timestamp"))?;
                        stamp::parse(&text).ok_or_else(|| {
                            A::Error::custom(format!("timestamp {text:?} is not an ISO 8601 instant with Z or an offset"))
                        })?
                    },
                    contested: contested.flatten().unwrap_or(false),
                    seen_version: seen_version.flatten(),
                };
                checked(change).map(WireChange).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

/// The JSON text of an object that is given as text or as JSON itself.
struct JsonText<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for JsonText<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = JsonText<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object, or the text of one")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> std::result::Result<Self::Value, E> {
                Ok(JsonText(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> std::result::Result<Self::Value, E> {
                Ok(JsonText(Cow::Owned(text.to_owned())))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut text = String::from("{");
                while let Some(Str(name)) = map.next_key()? {
                    if text.len() > 1 {
                        text.push(',');
                    }
                    write_string(&mut text, &name);
                    text.push(':');
                    let raw: &'de RawValue = map.next_value()?;
                    text.push_str(raw.get());
                }
                text.push('}');
                Ok(JsonText(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

fn checked(mut change: Change<'_>) -> std::result::Result<Change<'_>, String> {
    if change.version < 1 {
        return Err(format!("version {} is not positive", change.version));
    }
    if change.seen_version.is_some_and(|seen| seen < 0) {
        return Err("seenVersion is negative".to_owned());
    }
    if change.table_name.is_empty() || change.table_name.len() > MAX_NAME {
        return Err("tableName is empty or too long".to_owned());
    }
    let is_plain = change.origin.len() == 36 && change.origin.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f' | b'-'));
    match parse_origin(&change.origin) {
        None => return Err(format!("origin {:?} is not a UUID", change.origin)),
        Some(_) if is_plain => {}
        Some(origin) => change.origin = Cow::Owned(origin),
    }
    match (change.operation, &change.payload) {
        (Operation::Insert | Operation::Update, None) => {
            Err(format!("the {} of version {} has no payload", change.operation.lower(), change.version))
        }
        _ => Ok(change),
    }
}

/// Nests a payload's or key's text deeper than is taken? Most hold no nesting at all.
pub fn is_too_deep(text: &str) -> bool {
    let brackets = text.bytes().filter(|b| matches!(b, b'{' | b'[')).count();
    brackets > MAX_NESTING && nesting(text) > MAX_NESTING
}
