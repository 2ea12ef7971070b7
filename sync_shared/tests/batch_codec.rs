//! Every change that can be written reads back equal, in every form that the contract takes; and a batch's hash is that of the contract.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};
use std::borrow::Cow;
use sync_shared::{BatchKind, Change, Kind, Operation, decode_batch, hash_batch, verify_hash};

const SENDER: &str = "a11ce000-0000-4000-8000-000000000001";

fn quoted(text: &str) -> String {
    Json::String(text.to_owned()).to_string()
}

/// Compact JSON of one level, some of it with numbers that no float holds.
fn object() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?",
        any::<String>().prop_map(|text| quoted(&text)),
        Just("{\"$blob\":\"00ff\"}".to_owned()),
        Just("[1,{\"a\":[]}]".to_owned()),
    ];
    prop::collection::btree_map(any::<String>(), value, 0..5).prop_map(|members| {
        let members: Vec<String> = members.iter().map(|(name, value)| format!("{}:{value}", quoted(name))).collect();
        format!("{{{}}}", members.join(","))
    })
}

fn origin() -> impl Strategy<Value = String> {
    "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
}

fn change() -> impl Strategy<Value = Change<'static>> {
    let operation = prop::sample::select(vec![Operation::Insert, Operation::Update, Operation::Delete]);
    let name = any::<String>().prop_filter("a name", |name| !name.is_empty() && name.len() <= 1024);
    // From the first to the last millisecond that a stamp names.
    let stamp = prop_oneof![-62_167_219_200_000i64..=253_402_300_799_999, Just(253_402_300_799_999), Just(0)];
    let seen_version = prop::option::of(0..i64::MAX);
    (name, object(), operation, object(), origin(), stamp, any::<bool>(), seen_version, any::<bool>()).prop_map(
        |(table_name, pk_value, operation, payload, origin, stamp, contested, seen_version, says_what_it_deletes)| Change {
            version: 0,
            table_name: Cow::Owned(table_name),
            pk_value: Cow::Owned(pk_value),
            operation,
            payload: (operation != Operation::Delete || says_what_it_deletes).then_some(Cow::Owned(payload)),
            origin: Cow::Owned(origin),
            stamp,
            contested,
            seen_version,
        },
    )
}

/// Changes with versions in order and with gaps. They stay below 2^52: above it, a pull's numbers are the cursors of replays.
fn changes() -> impl Strategy<Value = Vec<Change<'static>>> {
    prop::collection::vec((change(), prop_oneof![4 => 1i64..3, 1 => 1i64..1 << 49]), 0..6).prop_map(|changes| {
        let mut version = 0;
        let number = |(change, step)| {
            version += step;
            Change { version, ..change }
        };
        changes.into_iter().map(number).collect()
    })
}

/// How a sender writes.
#[derive(Clone, Debug)]
struct Form {
    rename: fn(&str) -> String,
    operation: fn(Operation) -> String,
    nested: bool,
    escaped: bool,
    spaced: bool,
    says_null: bool,
    shouts_origins: bool,
    turn: Index,
}

fn snake(name: &str) -> String {
    name.chars().flat_map(|c| if c.is_uppercase() { vec!['_', c.to_ascii_lowercase()] } else { vec![c] }).collect()
}

fn form() -> impl Strategy<Value = Form> {
    let rename: Vec<fn(&str) -> String> = vec![
        str::to_owned,
        snake,
        str::to_lowercase,
        str::to_uppercase,
        |name| snake(name).to_uppercase(),
        |name| name[..1].to_uppercase() + &name[1..],
    ];
    let operation: Vec<fn(Operation) -> String> = vec![
        |operation| format!("\"{operation:?}\""),
        |operation| format!("\"{operation:?}\"").to_lowercase(),
        |operation| format!("\"{operation:?}\"").to_uppercase(),
        |operation| (operation as i32).to_string(),
    ];
    let styles = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<Index>());
    (prop::sample::select(rename), prop::sample::select(operation), styles).prop_map(
        |(rename, operation, (nested, escaped, spaced, says_null, shouts_origins, turn))| Form {
            rename,
            operation,
            nested,
            escaped,
            spaced,
            says_null,
            shouts_origins,
            turn,
        },
    )
}

impl Form {
    fn string(&self, text: &str) -> String {
        match self.escaped {
            true => format!("\"{}\"", text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect::<String>()),
            false => quoted(text),
        }
    }

    fn json(&self, object: &str) -> String {
        if self.nested { object.to_owned() } else { self.string(object) }
    }

    fn origin(&self, id: &str) -> String {
        self.string(&if self.shouts_origins { id.to_uppercase() } else { id.to_owned() })
    }

    fn object(&self, mut members: Vec<(&str, String)>) -> String {
        let turn = self.turn.index(members.len());
        members.rotate_left(turn);
        let (colon, comma) = if self.spaced { (" :\t", " ,\r\n") } else { (":", ",") };
        let members: Vec<String> = members.into_iter().map(|(name, raw)| self.string(&(self.rename)(name)) + colon + &raw).collect();
        format!("{{{}}}", members.join(comma))
    }

    fn change(&self, change: &Change<'_>) -> String {
        let written: Map<String, Json> = serde_json::from_str(&change.to_json()).expect("a change is JSON");
        let mut members = vec![
            ("version", change.version.to_string()),
            ("tableName", self.string(&change.table_name)),
            ("pkValue", self.json(&change.pk_value)),
            ("operation", (self.operation)(change.operation)),
            ("origin", self.origin(&change.origin)),
            ("timestamp", self.string(written["timestamp"].as_str().expect("a stamp"))),
        ];
        match &change.payload {
            Some(payload) => members.push(("payload", self.json(payload))),
            None if self.says_null => members.push(("payload", "null".to_owned())),
            None => {}
        }
        if change.contested || self.says_null {
            members.push(("contested", change.contested.to_string()));
        }
        match change.seen_version {
            Some(version) => members.push(("seenVersion", version.to_string())),
            None if self.says_null => members.push(("seenVersion", "null".to_owned())),
            None => {}
        }
        members.push(("somethingElse", "[{\"version\":-1}]".to_owned()));
        self.object(members)
    }

    fn changes(&self, changes: &[Change<'_>]) -> String {
        let changes: Vec<String> = changes.iter().map(|change| self.change(change)).collect();
        format!("[{}]", changes.join(","))
    }

    fn batch(&self, kind: &str, changes: &[Change<'_>]) -> String {
        let to = changes.last().map_or(0, |change| change.version);
        self.object(vec![
            ("kind", self.string(kind)),
            ("originId", self.origin(SENDER)),
            ("fromVersion", "0".to_owned()),
            ("toVersion", to.to_string()),
            ("hasMore", self.says_null.to_string()),
            ("lastServerVersion", "7".to_owned()),
            ("changes", self.changes(changes)),
        ])
    }
}

/// The hash's text as the contract has it.
fn hashed(changes: &[Change<'_>]) -> String {
    use sha2::{Digest, Sha256};
    let line = |c: &Change<'_>| {
        let operation = format!("{:?}", c.operation).to_lowercase();
        format!("{}:{}:{}:{operation}:{}\n", c.version, c.table_name, c.pk_value, c.payload.as_deref().unwrap_or("null"))
    };
    let digest = Sha256::digest(changes.iter().map(line).collect::<String>());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_change_reads_back_equal_in_every_form(changes in changes(), form in form(), pull in any::<bool>()) {
        let text = form.batch(if pull { "pull" } else { "PUSH" }, &changes);
        let batch = decode_batch(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        prop_assert_eq!(&batch.changes, &changes);
        prop_assert_eq!(batch.kind, if pull { BatchKind::Pull } else { BatchKind::Push });
        prop_assert_eq!((batch.origin_id.as_str(), batch.has_more, batch.last_server_version), (SENDER, form.says_null, 7));
        prop_assert_eq!(hash_batch(&text).expect("a hash"), hashed(&changes));
    }

    #[test]
    fn a_bare_array_is_a_push_of_its_first_author(changes in changes(), form in form()) {
        let text = form.changes(&changes);
        let batch = decode_batch(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        prop_assert_eq!(&batch.changes, &changes);
        prop_assert_eq!(batch.kind, BatchKind::Push);
        let author = changes.first().map_or("00000000-0000-0000-0000-000000000000", |change| change.origin.as_ref());
        prop_assert_eq!(batch.origin_id.as_str(), author);
        prop_assert_eq!(hash_batch(&text).expect("a hash"), hashed(&changes));
    }

    #[test]
    fn a_change_reads_back_from_its_own_json(change in change(), version in 1..=i64::MAX) {
        let change = Change { version, ..change };
        let text = format!("[{}]", change.to_json());
        prop_assert_eq!(&decode_batch(&text).expect("a batch").changes, std::slice::from_ref(&change));
    }

    /// Which member stands twice makes no difference, nor in which spelling or with which value.
    #[test]
    fn no_member_stands_twice(change in change(), form in form(), again in form(), at in any::<Index>(), null in any::<bool>()) {
        let text = form.changes(&[Change { version: 1, ..change }]);
        let members: Vec<(String, Box<RawValue>)> = members_of(&text[1..text.len() - 1]);
        let known: Vec<_> = members.iter().filter(|(name, _)| !name.to_lowercase().replace('_', "").starts_with("somethingelse")).collect();
        let (name, raw) = known[at.index(known.len())];
        let spelled = (again.rename)(&camel(name));
        let twice = |first: &str, second: &str| {
            let others: String = known.iter().filter(|(other, _)| other != name).map(|(other, raw)| format!(",{}:{raw}", quoted(other))).collect();
            format!("[{{{}:{first},{}:{second}{others}}}]", quoted(&spelled), quoted(name))
        };
        let value = if null { "null" } else { raw.get() };
        for text in [twice(raw.get(), value), twice(value, raw.get())] {
            let error = decode_batch(&text).expect_err(&text);
            prop_assert_eq!(error.kind(), Some(Kind::InvalidBatch));
        }
    }

    #[test]
    fn versions_are_positive_in_order_and_within_the_range(versions in prop::collection::vec(-1i64..7, 0..4), from in -1i64..4, to in -1i64..8, pull in any::<bool>()) {
        let change = |version: &i64| format!(
            "{{\"version\":{version},\"tableName\":\"t\",\"pkValue\":\"{{}}\",\"operation\":2,\"origin\":\"{SENDER}\",\"timestamp\":\"2025-01-15T10:30:00Z\"}}"
        );
        let changes: Vec<String> = versions.iter().map(change).collect();
        let text = format!(
            "{{\"kind\":\"{}\",\"originId\":\"{SENDER}\",\"fromVersion\":{from},\"toVersion\":{to},\"changes\":[{}]}}",
            if pull { "pull" } else { "push" },
            changes.join(",")
        );
        let in_order = versions.windows(2).all(|pair| pair[0] < pair[1]);
        let within = versions.iter().all(|&version| version > 0 && from < version && version <= to);
        let good = 0 <= from && from <= to && in_order && within;
        prop_assert_eq!(decode_batch(&text).map(|batch| batch.changes.len()).map_err(|e| e.kind()),
            if good { Ok(versions.len()) } else { Err(Some(Kind::InvalidBatch)) });
    }

    #[test]
    fn a_hash_is_verified_in_any_case(hash in "[0-9a-f]{64}", other in "[0-9a-f]{64}") {
        prop_assert!(verify_hash(&hash, &hash.to_uppercase()).is_ok_and(|equal| equal));
        prop_assume!(hash != other);
        prop_assert_eq!(verify_hash(&hash, &other).map_err(|e| e.kind()), Err(Some(Kind::HashMismatch)));
    }
}

/// The members of an object, each with its JSON text.
fn members_of(object: &str) -> Vec<(String, Box<RawValue>)> {
    serde_json::from_str::<std::collections::BTreeMap<String, Box<RawValue>>>(object).expect("an object").into_iter().collect()
}

/// A member's name in the contract's spelling.
fn camel(name: &str) -> String {
    let known = ["version", "tableName", "pkValue", "operation", "payload", "origin", "timestamp", "contested", "seenVersion"];
    let folded = name.replace('_', "");
    known.into_iter().find(|known| known.eq_ignore_ascii_case(&folded)).expect("a member of a change").to_owned()
}

/// TYPES.md.
#[test]
fn the_vectors_of_the_contract() {
    let change = |operation: &str, payload: &str| {
        let text = format!(
            "[{{\"version\":1,\"tableName\":\"Person\",\"pkValue\":\"{{\\\"Id\\\":\\\"1\\\"}}\",\"operation\":\"{operation}\",\"payload\":{payload},\
             \"origin\":\"{SENDER}\",\"timestamp\":\"2025-01-15T10:30:00.000Z\"}}]"
        );
        hash_batch(&text).expect("a hash")
    };
    let alice = quoted("{\"Id\":\"1\",\"Name\":\"Alice\"}");
    assert_eq!(hash_batch("[]").expect("a hash"), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(hash_batch("{\"changes\":[]}").expect("a hash"), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(change("Insert", &alice), "5b6ee2b21286027a76dec46ff52485005089f542a224faf4f126da7cc864eec2");
    assert_eq!(change("Delete", "null"), "6815d9722331e89baffda78afa471bf53fa617da838ab45d1bf21759eeeca6ee");
}

#[test]
fn operations_are_named_or_numbered() {
    for (text, operation) in [("insert", Operation::Insert), ("UPDATE", Operation::Update), ("Delete", Operation::Delete), ("2", Operation::Delete)] {
        assert_eq!(Operation::parse(text), Some(operation));
    }
    for text in ["", "3", "-1", "00", "1.0", "upsert", "insert ", "İnsert", "null"] {
        assert_eq!(Operation::parse(text), None, "{text}");
    }
}
