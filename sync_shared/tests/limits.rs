//! Each limit at its border and one beyond.

use std::fmt::Write as _;
use sync_shared::{Kind, MAX_BYTES, MAX_CHANGES, MAX_NESTING, decode_batch, hash_batch};

const ALICE: &str = "a11ce000-0000-4000-8000-000000000001";

fn change(version: usize, table_name: &str, payload: &str) -> String {
    format!(
        "{{\"version\":{version},\"tableName\":\"{table_name}\",\"pkValue\":{{\"Id\":{version}}},\"operation\":\"Insert\",\"payload\":{payload},\
         \"origin\":\"{ALICE}\",\"timestamp\":\"2025-01-15T10:30:00.000Z\"}}"
    )
}

fn changes(count: usize) -> String {
    let mut text = String::from("[");
    for version in 1..=count {
        let comma = if version > 1 { "," } else { "" };
        write!(text, "{comma}{}", change(version, "t", "{}")).expect("a string takes everything");
    }
    text + "]"
}

fn nested(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

/// What a batch's text gives, decoded as a batch and for its hash alike.
fn outcome(text: &str) -> Result<usize, Option<Kind>> {
    let decoded = decode_batch(text).map(|batch| batch.changes.len()).map_err(|error| error.kind());
    assert_eq!(hash_batch(text).err().map(|error| error.kind()), decoded.err());
    decoded
}

const TOO_MUCH: Result<usize, Option<Kind>> = Err(Some(Kind::LimitExceeded));

#[test]
fn the_limits_are_those_of_the_contract() {
    assert_eq!((MAX_CHANGES, MAX_BYTES, MAX_NESTING), (10_000, 64 * 1024 * 1024, 32));
}

#[test]
fn the_number_of_changes() {
    assert_eq!(outcome(&changes(MAX_CHANGES)), Ok(MAX_CHANGES));
    assert_eq!(outcome(&changes(MAX_CHANGES + 1)), TOO_MUCH);
    let batch = |count| format!("{{\"originId\":\"{ALICE}\",\"changes\":{}}}", changes(count));
    assert_eq!(outcome(&batch(MAX_CHANGES)), Ok(MAX_CHANGES));
    assert_eq!(outcome(&batch(MAX_CHANGES + 1)), TOO_MUCH);
}

#[test]
fn the_bytes_of_the_text() {
    let good = format!("[{}]", change(1, "t", "{\"a\":\"M\"}"));
    let of_bytes = |bytes: usize| good.replace("\"M\"", &format!("\"{}\"", "M".repeat(bytes - good.len() + 1)));
    assert_eq!(of_bytes(MAX_BYTES).len(), MAX_BYTES);
    assert_eq!(outcome(&of_bytes(MAX_BYTES)), Ok(1));
    assert_eq!(outcome(&of_bytes(MAX_BYTES + 1)), TOO_MUCH);
    // White space counts too.
    let padded = |bytes: usize| " ".repeat(bytes - good.len()) + &good;
    assert_eq!(outcome(&padded(MAX_BYTES)), Ok(1));
    assert_eq!(outcome(&padded(MAX_BYTES + 1)), TOO_MUCH);
}

#[test]
fn the_levels_of_nesting() {
    let beside = |levels| format!("{{\"originId\":\"{ALICE}\",\"changes\":[],\"x\":{}}}", nested(levels));
    assert_eq!(outcome(&beside(MAX_NESTING - 1)), Ok(0));
    assert_eq!(outcome(&beside(MAX_NESTING)), TOO_MUCH);
    // In a payload that is nested in its change, in an array: three levels.
    let within = |levels| format!("[{}]", change(1, "t", &format!("{{\"a\":{}}}", nested(levels))));
    assert_eq!(outcome(&within(MAX_NESTING - 3)), Ok(1));
    assert_eq!(outcome(&within(MAX_NESTING - 2)), TOO_MUCH);
    for endless in ["[", "{\"a\":", "[{\"changes\":"] {
        assert_eq!(outcome(&endless.repeat(1_000_000)), TOO_MUCH);
    }
    // Brackets in a text are no levels.
    let brackets = format!("[{}]", change(1, "t", &format!("{{\"a\":\"{}\"}}", "[{".repeat(1000))));
    assert_eq!(outcome(&brackets), Ok(1));
}

#[test]
fn the_length_of_a_name() {
    let named = |name: &str| outcome(&format!("[{}]", change(1, name, "{}")));
    assert_eq!(named(&"t".repeat(1024)), Ok(1));
    for name in ["", &"t".repeat(1025), &"ö".repeat(513)] {
        assert_eq!(named(name), Err(Some(Kind::InvalidBatch)));
    }
}

#[test]
fn the_greatest_version() {
    let versioned = |version: &str| outcome(&format!("[{}]", change(1, "t", "{}").replace("\"version\":1", &format!("\"version\":{version}"))));
    assert_eq!(versioned("9223372036854775807"), Ok(1));
    for version in ["9223372036854775808", "1e3", "1.0", "0", "-1", "-9223372036854775808", "\"1\"", "true"] {
        assert_eq!(versioned(version), Err(Some(Kind::InvalidBatch)), "{version}");
    }
}
