//! Every fuzz seed, and every text that is one with a piece missing, keeps the properties of the fuzz targets.

#[path = "../fuzz/src/lib.rs"]
mod properties;

use proptest::prelude::*;
use std::path::PathBuf;

/// Longer seeds are not cut at every byte.
const CUT_BELOW: usize = 1200;

fn seeds() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz_seeds");
    let entries = std::fs::read_dir(folder).expect("the seeds are there");
    let paths = entries.map(|entry| entry.expect("a seed").path());
    let mut seeds: Vec<_> = paths
        .map(|path| (path.file_stem().expect("a name").to_string_lossy().into_owned(), std::fs::read(&path).expect("a seed")))
        .collect();
    seeds.sort();
    seeds
}

/// The kind of error that decoding a seed gives, None if it decodes.
fn outcome(bytes: &[u8]) -> Option<&'static str> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Some("InvalidArgument") };
    let error = sync_shared::decode_batch(text).err()?;
    Some(error.kind().expect("a kind of the contract").name())
}

#[test]
fn every_seed_keeps_the_properties() {
    let seeds = seeds();
    assert!(seeds.len() >= 100);
    for (_, bytes) in &seeds {
        properties::check_batch(bytes);
        properties::check_canonical(bytes);
    }
}

/// What is refused for more than its form decodes, and what is accepted does so too.
#[test]
fn a_seed_that_is_no_batch_is_named_so() {
    for (name, bytes) in seeds() {
        match outcome(&bytes) {
            Some("LimitExceeded") => assert!(name.starts_with("limit_exceeded--"), "{name}"),
            Some("InvalidArgument") => assert!(name.starts_with("invalid_argument--"), "{name}"),
            Some(_) => assert!(name.starts_with("invalid_batch--"), "{name}"),
            None => assert!(!name.starts_with("limit_exceeded--") || name.contains("payload") || name.contains("key"), "{name}"),
        }
    }
}

#[test]
fn a_seed_cut_anywhere_keeps_the_properties() {
    for (_, bytes) in seeds().iter().filter(|(_, bytes)| bytes.len() < CUT_BELOW) {
        for end in 0..bytes.len() {
            properties::check_batch(&bytes[..end]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_seed_with_a_piece_replaced_keeps_the_properties(
        seed in prop::sample::select(seeds()),
        at in any::<prop::sample::Index>(),
        length in 0usize..12,
        piece in prop::sample::select(vec!["", "\"", "{", "}", "[", "]", ",", ":", "null", "0", "-1", "1e999", "\\", "\\u0000", "\0", "é", "99999999999999999999", "\"a\":1,"]),
    ) {
        let mut bytes = seed.1;
        let start = at.index(bytes.len() + 1);
        let end = (start + length).min(bytes.len());
        bytes.splice(start..end, piece.bytes());
        properties::check_batch(&bytes);
        properties::check_canonical(&bytes);
    }

    #[test]
    fn any_json_text_keeps_the_properties(text in r#"[\[\]{}",:0-9a-ntrue\\.eE+ -]{0,60}"#) {
        properties::check_batch(text.as_bytes());
        properties::check_canonical(text.as_bytes());
    }
}
