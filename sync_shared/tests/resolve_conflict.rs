//! `sync_resolve_conflict`: both sides of a conflict name the same winner, and it comes back as it was given.

use proptest::prelude::*;
use serde_json::Value as Json;
use sync_shared::{Kind, canonical_json, resolve_conflict};

const ALICE: &str = "a11ce000-0000-4000-8000-000000000001";
const BOB: &str = "b0b00000-0000-4000-8000-000000000002";

fn change(version: i64, origin: &str, timestamp: &str, operation: &str, payload: &str) -> String {
    format!(
        "{{\"version\":{version},\"tableName\":\"t\",\"pkValue\":\"{{\\\"Id\\\":1}}\",\"operation\":\"{operation}\",\"payload\":{payload},\
         \"origin\":\"{origin}\",\"timestamp\":\"{timestamp}\"}}"
    )
}

fn row(fields: &str) -> String {
    Json::String(fields.to_owned()).to_string()
}

fn winner(local: &str, remote: &str, strategy: &str) -> String {
    let answer = resolve_conflict(local, remote, strategy).unwrap_or_else(|error| panic!("{error}: {local} {remote}"));
    let start = "{\"winner\":";
    let end = format!(",\"strategy\":\"{strategy}\"}}");
    assert!(serde_json::from_str::<Json>(&answer).is_ok() && answer.starts_with(start) && answer.ends_with(&end), "{answer}");
    answer[start.len()..answer.len() - end.len()].to_owned()
}

/// The fields of a winner's payload.
fn fields(winner: &str) -> String {
    let winner: Json = serde_json::from_str(winner).expect("a change");
    canonical_json(winner["payload"].as_str().expect("a text")).expect("an object")
}

/// An instant in one of the forms in which it may arrive: its milliseconds since midnight, and the text.
fn instant() -> impl Strategy<Value = (u32, String)> {
    (0u32..3, 0u32..3, prop::sample::select(vec!["", "0", "00", "0000"]), -3i32..4).prop_map(|(second, tenth, zeros, hours)| {
        let fraction = if tenth == 0 && zeros.is_empty() { String::new() } else { format!(".{tenth}{zeros}") };
        let zone = if hours == 0 { "Z".to_owned() } else { format!("{hours:+03}:00") };
        (second * 1000 + tenth * 100, format!("2025-01-15T{:02}:30:0{second}{fraction}{zone}", 10 + hours))
    })
}

/// The instant and origin of a change, and its text.
fn any_change() -> impl Strategy<Value = ((u32, String), String)> {
    let origins = prop::sample::select(vec![ALICE.to_owned(), BOB.to_owned(), BOB.to_uppercase()]);
    let contents = prop::sample::select(vec![
        ("Insert", row("{\"Id\":1,\"a\":1}")),
        ("Update", row("{\"Id\":1,\"a\":2,\"b\":3}")),
        ("update", "{\"Id\":1,\"b\":4}".to_owned()),
        ("Delete", "null".to_owned()),
        ("DELETE", row("{\"Id\":1,\"a\":9}")),
    ]);
    (1i64..3, origins, instant(), contents).prop_map(|(version, origin, (instant, timestamp), (operation, payload))| {
        ((instant, origin.to_lowercase()), change(version, &origin, &timestamp, operation, &payload))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn both_sides_name_the_same_winner((_, a) in any_change(), (_, b) in any_change()) {
        for strategy in ["last_write_wins", "merge"] {
            prop_assert_eq!(winner(&a, &b, strategy), winner(&b, &a, strategy));
        }
        prop_assert_eq!(winner(&a, &b, "server_wins"), winner(&b, &a, "client_wins"));
    }

    #[test]
    fn the_later_instant_wins_and_then_the_greater_origin((of_a, a) in any_change(), (of_b, b) in any_change()) {
        prop_assume!(of_a != of_b);
        prop_assert_eq!(winner(&a, &b, "last_write_wins"), if of_a > of_b { a } else { b });
    }

    #[test]
    fn the_winner_of_three_does_not_depend_on_who_met_first((_, a) in any_change(), (_, b) in any_change(), (_, c) in any_change()) {
        let last = |a: &str, b: &str| winner(a, b, "last_write_wins");
        prop_assert_eq!(last(&last(&a, &b), &c), last(&a, &last(&b, &c)));
    }

    #[test]
    fn server_and_client_win_whatever_the_stamps((_, a) in any_change(), (_, b) in any_change()) {
        prop_assert_eq!(winner(&a, &b, "server_wins"), b.clone());
        prop_assert_eq!(winner(&a, &b, "client_wins"), a);
    }

    #[test]
    fn hostile_text_is_refused_and_nothing_else_happens(a in any::<String>(), (_, b) in any_change(), strategy in any::<String>()) {
        prop_assert_eq!(resolve_conflict(&a, &b, "merge").map_err(|e| e.kind()), Err(Some(Kind::InvalidArgument)));
        prop_assert_eq!(resolve_conflict(&b, &a, "server_wins").map_err(|e| e.kind()), Err(Some(Kind::InvalidArgument)));
        prop_assert_eq!(resolve_conflict(&b, &b, &strategy).map_err(|e| e.kind()), Err(Some(Kind::InvalidArgument)));
    }
}

const EARLY: &str = "2025-01-15T10:30:00.000Z";
const LATE: &str = "2025-01-15T10:30:00.001Z";

#[test]
fn a_merge_keeps_the_fields_of_one_side_and_the_last_write_of_both() {
    let early = change(1, ALICE, EARLY, "Update", &row("{\"Id\":1,\"a\":1,\"b\":1}"));
    let late = change(2, BOB, LATE, "Update", &row("{\"Id\":1,\"c\":2,\"b\":2}"));
    for merged in [winner(&early, &late, "merge"), winner(&late, &early, "merge")] {
        assert_eq!(fields(&merged), "{\"Id\":1,\"a\":1,\"b\":2,\"c\":2}");
        let head: Json = serde_json::from_str(&merged).expect("a change");
        assert_eq!((head["origin"].as_str(), head["timestamp"].as_str()), (Some(BOB), Some(LATE)));
    }
}

#[test]
fn a_merge_finds_a_field_in_any_case() {
    let early = change(1, ALICE, EARLY, "Update", &row("{\"Id\":1,\"Name\":\"early\"}"));
    let late = change(1, BOB, LATE, "Update", &row("{\"id\":1,\"name\":\"late\"}"));
    assert_eq!(fields(&winner(&early, &late, "merge")), "{\"id\":1,\"name\":\"late\"}");
}

#[test]
fn a_delete_in_a_merge_wins_or_loses_as_a_whole() {
    let edit = |at| change(1, ALICE, at, "Update", &row("{\"Id\":1,\"a\":1}"));
    for payload in ["null".to_owned(), row("{\"Id\":1,\"b\":9}"), "{\"Id\":1,\"b\":9}".to_owned()] {
        for operation in ["Delete", "delete"] {
            let delete = |at| change(1, BOB, at, operation, &payload);
            assert_eq!(winner(&edit(EARLY), &delete(LATE), "merge"), delete(LATE));
            assert_eq!(winner(&edit(LATE), &delete(EARLY), "merge"), edit(LATE));
        }
    }
    let numbered = change(1, BOB, LATE, "Delete", &row("{\"Id\":1,\"b\":9}")).replace("\"Delete\"", "2");
    assert_eq!(winner(&edit(EARLY), &numbered, "merge"), numbered);
}

/// Parsing the change would round both numbers.
#[test]
fn the_winner_keeps_every_digit() {
    let exact = "{\"Id\":9007199254740993,\"a\":12345678901234567890.0123456789,\"b\":1.10}";
    for payload in [exact.to_owned(), row(exact)] {
        let (early, late) = (change(1, ALICE, EARLY, "Update", &payload), change(1, BOB, LATE, "Update", &payload));
        for strategy in ["last_write_wins", "server_wins", "client_wins"] {
            assert!([&early, &late].contains(&&winner(&early, &late, strategy)));
        }
        assert_eq!(fields(&winner(&early, &late, "merge")), canonical_json(exact).expect("an object"));
    }
}

/// One author's changes of one millisecond: the order of its log decides, and both sides agree.
#[test]
fn of_one_origin_and_stamp_the_later_in_the_log_wins() {
    let first = change(1, ALICE, EARLY, "Insert", &row("{\"Id\":1,\"a\":2}"));
    let second = change(2, ALICE, EARLY, "Update", &row("{\"Id\":1,\"a\":1}"));
    assert_eq!(winner(&first, &second, "last_write_wins"), second);
    assert_eq!(winner(&second, &first, "last_write_wins"), second);
}

#[test]
fn what_is_no_change_is_refused() {
    let good = change(1, ALICE, EARLY, "Update", &row("{\"Id\":1}"));
    for bad in [
        good.replace("timestamp", "time"),
        good.replace("origin", "author"),
        good.replace(EARLY, "yesterday"),
        good.replace(EARLY, "2025-02-30T00:00:00.000Z"),
        good.replace(&format!("\"{EARLY}\""), "5"),
        good.replace(&format!("\"{ALICE}\""), "null"),
        good.replace("\"version\":1", "\"origin\":\"twice\""),
        good[1..].to_owned(),
        format!("[{good}]"),
    ] {
        let error = resolve_conflict(&bad, &good, "last_write_wins").expect_err(&bad);
        assert_eq!(error.kind(), Some(Kind::InvalidArgument), "{bad}");
    }
    for payload in ["7".to_owned(), "[1]".to_owned(), row("[1]"), row("soon"), row("{\"a\":1,\"a\":2}")] {
        let bad = change(1, BOB, LATE, "Update", &payload);
        assert_eq!(resolve_conflict(&good, &bad, "merge").expect_err(&bad).kind(), Some(Kind::InvalidArgument));
    }
    let deep = good.replace("\"version\":1", &format!("\"x\":{}{}", "[".repeat(32), "]".repeat(32)));
    assert_eq!(resolve_conflict(&deep, &good, "server_wins").expect_err("too deep").kind(), Some(Kind::LimitExceeded));
    assert_eq!(resolve_conflict(&good, &good, "custom").expect_err("no table").kind(), Some(Kind::InvalidArgument));
}
