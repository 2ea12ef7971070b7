//! The changes of a batch as they come: members in any case and with underscores, `operation` by name or number, `pkValue` and
//! `payload` as JSON text or nested. What is read is a change; what lacks something or has it twice is an error of the text.

use crate::batch::{MAX_CHANGES, OVER_LIMIT};
use crate::canonical::write_string;
use crate::change::{Change, Operation};
use crate::stamp;
use crate::state::parse_origin;
use crate::value::Str;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Longest table name, in bytes.
const MAX_NAME: usize = 1024;

/// The member `changes`.
pub struct Changes<'a>(pub Vec<Change<'a>>);

impl<'a> Changes<'a> {
    pub fn read<A: SeqAccess<'a>>(mut seq: A) -> std::result::Result<Self, A::Error> {
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

/// A member's name in the contract's spelling, whatever its case and underscores.
pub fn member(name: &str) -> Cow<'_, str> {
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
