//! What holds for any bytes that are taken as a batch or as JSON. The fuzz targets check it on what the fuzzer makes up,
//! `sync_shared/tests/seeds.rs` on the seeds and what lies near them.
//!
//! A property that does not hold is a panic; everything here goes through the public API.

use serde_json::Value as Json;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use sync_shared::{Batch, BatchKind, Error, Kind, MAX_BYTES, MAX_CHANGES, MAX_NESTING, Operation};

/// What decodes as a batch keeps the limits and the rules of the contract, reads back the same when it is written again, and has the
/// hash of what was read. What does not is `InvalidBatch` or `LimitExceeded`.
pub fn check_batch(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let batch = match sync_shared::decode_batch(text) {
        Ok(batch) => batch,
        Err(error) => return assert_kind(&error, &[Kind::InvalidBatch, Kind::LimitExceeded]),
    };
    assert!(text.len() <= MAX_BYTES && batch.changes.len() <= MAX_CHANGES);
    assert!(serde_json::from_str(text).map_or(0, |json| depth(&json)) <= MAX_NESTING);
    check_head(&batch);
    check_changes(&batch);
    let again_text = encode(&batch);
    let again = sync_shared::decode_batch(&again_text).unwrap_or_else(|error| panic!("{error}: {again_text}"));
    assert_eq!(batch.changes, again.changes);
    assert_eq!((batch.kind, &batch.origin_id), (again.kind, &again.origin_id));
    assert_eq!((batch.from_version, batch.to_version), (again.from_version, again.to_version));
    let expected = hash(&batch);
    for text in [text, &again_text] {
        assert_eq!(sync_shared::hash_batch(text).expect("a batch that decodes has a hash"), expected);
    }
}

/// The canonical form of JSON is its own canonical form and says the same; what has none is `InvalidArgument` or `LimitExceeded`.
pub fn check_canonical(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let json: Option<Json> = serde_json::from_str(text).ok();
    let canonical = match sync_shared::canonical_json(text) {
        Ok(canonical) => canonical,
        Err(error) => {
            assert_kind(&error, &[Kind::InvalidArgument, Kind::LimitExceeded]);
            let message = error.to_string();
            let excused = ["stands twice", "out of range"].iter().any(|why| message.contains(why));
            assert!(json.is_none() || excused || error.kind() == Some(Kind::LimitExceeded), "{message}");
            return;
        }
    };
    assert_eq!(sync_shared::canonical_json(&canonical).expect("canonical JSON is JSON"), canonical);
    assert!(same(text.trim(), &canonical), "{text} is not {canonical}");
}

fn assert_kind(error: &Error, kinds: &[Kind]) {
    assert!(error.kind().is_some_and(|kind| kinds.contains(&kind)), "{error}");
}

fn check_head(batch: &Batch<'_>) {
    assert!(is_origin(&batch.origin_id));
    let versions = [batch.from_version, batch.to_version, batch.max_version, batch.received_version, Some(batch.last_server_version)];
    assert!(versions.into_iter().flatten().all(|version| version >= 0));
    if batch.kind == BatchKind::Pull {
        assert!(batch.from_version.is_some() && batch.to_version.is_some());
    }
}

fn check_changes(batch: &Batch<'_>) {
    let mut last = 0;
    for change in &batch.changes {
        assert!(change.version > last);
        last = change.version;
        assert!(!change.table_name.is_empty() && change.table_name.len() <= 1024);
        assert!(is_origin(&change.origin));
        assert!(change.operation == Operation::Delete || change.payload.is_some());
    }
    if let (BatchKind::Push, Some(from), Some(to)) = (batch.kind, batch.from_version, batch.to_version) {
        let within = |version| from < version && version <= to;
        assert!(from <= to && batch.changes.iter().all(|change| within(change.version)));
    }
}

fn is_origin(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f' | b'-'))
}

/// The batch in the contract's own spelling.
fn encode(batch: &Batch<'_>) -> String {
    let kind = if batch.kind == BatchKind::Pull { "pull" } else { "push" };
    let mut text = format!("{{\"kind\":\"{kind}\",\"originId\":\"{}\"", batch.origin_id);
    for (name, version) in [("fromVersion", batch.from_version), ("toVersion", batch.to_version)] {
        if let Some(version) = version {
            write!(text, ",\"{name}\":{version}").expect("a string takes everything");
        }
    }
    let changes: Vec<String> = batch.changes.iter().map(|change| change.to_json()).collect();
    text + ",\"changes\":[" + &changes.join(",") + "]}"
}

/// SHA-256 as the contract describes it.
fn hash(batch: &Batch<'_>) -> String {
    let mut digest = Sha256::new();
    for change in &batch.changes {
        let operation = match change.operation {
            Operation::Insert => "insert",
            Operation::Update => "update",
            Operation::Delete => "delete",
        };
        let payload = change.payload.as_deref().unwrap_or("null");
        digest.update(format!("{}:{}:{}:{operation}:{payload}\n", change.version, change.table_name, change.pk_value));
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn depth(json: &Json) -> usize {
    match json {
        Json::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Json::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Do two JSON texts say the same? Numbers are compared as the nearest floating point numbers.
fn same(a: &str, b: &str) -> bool {
    let members = |text| serde_json::from_str::<BTreeMap<String, &RawValue>>(text).expect("an object");
    let items = |text| serde_json::from_str::<Vec<&RawValue>>(text).expect("an array");
    match (a.as_bytes()[0], b.as_bytes()[0]) {
        (b'{', b'{') => {
            let (a, b) = (members(a), members(b));
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.0 == b.0 && same(a.1.get(), b.1.get()))
        }
        (b'[', b'[') => {
            let (a, b) = (items(a), items(b));
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| same(a.get(), b.get()))
        }
        (b'"', b'"') => serde_json::from_str::<String>(a).expect("a string") == serde_json::from_str::<String>(b).expect("a string"),
        (b'0'..=b'9' | b'-', b'0'..=b'9' | b'-') => a.parse::<f64>().expect("a number") == b.parse::<f64>().expect("a number"),
        _ => a == b,
    }
}
