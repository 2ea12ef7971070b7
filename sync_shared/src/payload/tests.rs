//! What a table writes as key and payload binds to the same values at a table like it, and nothing else binds.

use super::*;
use crate::table::tests::table;
use crate::table::{Column, Portable, Storage};
use crate::value::ValueRef;
use proptest::prelude::*;
use std::borrow::Cow;

const NAMES: [&str; 5] = ["Id", "Größe \"x\"", "a\tb", "$blob", "line"];

fn change<'a>(operation: Operation, pk_value: &'a str, payload: Option<&'a str>) -> Change<'a> {
    Change {
        version: 1,
        table_name: Cow::Borrowed("t"),
        pk_value: Cow::Borrowed(pk_value),
        operation,
        payload: payload.map(Cow::Borrowed),
        origin: Cow::Borrowed("00000000-0000-4000-8000-000000000001"),
        stamp: 0,
        contested: false,
        seen_version: None,
    }
}

/// Two key columns, not in their order, and columns of every storage.
fn person_table() -> Table {
    let storages = [Storage::Any, Storage::Any, Storage::Number, Storage::Real, Storage::Any];
    table(NAMES.iter().zip(storages).map(|(name, storage)| Column::new(name, "", storage)).collect(), &[4, 0])
}

fn bound(operation: Operation, pk_value: &str, payload: Option<&str>) -> Result<Bound, Unbound> {
    Bound::new(&person_table(), &change(operation, pk_value, payload))
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::Integer),
        any::<u64>().prop_map(f64::from_bits).prop_filter("SQLite stores no NaN", |r| !r.is_nan()).prop_map(Value::Real),
        any::<String>().prop_map(Value::Text),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Blob),
    ]
}

/// A row of [`person_table`]; a column of numbers holds numbers, and a field may be left out.
fn row() -> impl Strategy<Value = Vec<Option<Value>>> {
    let field = |value: BoxedStrategy<Value>| prop_oneof![1 => Just(None), 1 => Just(Some(Value::Null)), 6 => value.prop_map(Some)];
    let integer = any::<i64>().prop_map(Value::Integer);
    let real = any::<f64>().prop_map(Value::Real);
    (value(), field(value().boxed()), field(integer.boxed()), field(real.boxed()), value())
        .prop_map(|(id, a, b, c, line)| vec![Some(id), a, b, c, Some(line)])
}

fn written(table: &Table, row: &[Option<Value>]) -> (String, String) {
    let (mut key, mut payload) = (String::new(), String::new());
    table.write_key(&mut key, |c| Ok(row[c].as_ref().map_or(ValueRef::Null, Value::as_ref))).expect("a key");
    table.write_row(&mut payload, |c| Ok(row[c].as_ref().map(Value::as_ref))).expect("a row");
    (key, payload)
}

fn assert_invalid(outcome: Result<Bound, Unbound>, kind: crate::error::Kind) {
    match outcome {
        Err(Unbound::Batch(error)) => assert_eq!(error.kind(), Some(kind)),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn a_row_that_was_written_binds_to_the_same_row(row in row()) {
        let table = person_table();
        let (key, payload) = written(&table, &row);
        let bound = Bound::new(&table, &change(Operation::Insert, &key, Some(&payload))).expect("it binds");
        // Debug text tells -0.0 from 0.0.
        prop_assert_eq!(format!("{:?}", bound.values), format!("{row:?}"));
        prop_assert_eq!(&bound.key, &[row[4].clone().expect("a key"), row[0].clone().expect("a key")]);
        let gone = Bound::new(&table, &change(Operation::Delete, &key, None)).expect("it binds");
        prop_assert_eq!((&gone.key, gone.values.len()), (&bound.key, 0));
        prop_assert_eq!(gone.row_hash(&table).expect("a hash"), bound.row_hash(&table).expect("a hash"));
    }

    #[test]
    fn a_payload_of_another_key_is_no_change_of_the_row(row in row(), other in value()) {
        let table = person_table();
        let (key, payload) = written(&table, &row);
        let moved: Vec<_> = [Some(other)].into_iter().chain(row[1..].iter().cloned()).collect();
        prop_assume!(moved[0] != row[0]);
        let (other_key, _) = written(&table, &moved);
        prop_assume!(other_key != key);
        assert_invalid(Bound::new(&table, &change(Operation::Update, &other_key, Some(&payload))), crate::error::Kind::InvalidBatch);
    }
}

#[test]
fn columns_are_found_in_any_case_and_order_and_what_is_excluded_is_left_out() {
    let bound = bound(Operation::Insert, r#"{"LINE":2,"id":1}"#, Some(r#"{"A\tB":3,"line":2,"ID":1,"secret":{"a":1}}"#));
    let bound = bound.expect("it binds");
    assert_eq!(bound.values, [Some(Value::Integer(1)), None, Some(Value::Integer(3)), None, Some(Value::Integer(2))]);
}

#[test]
fn a_key_has_the_key_columns_once_each_and_no_null() {
    let good = Some(r#"{"Id":1,"line":2}"#);
    for key in [
        "", "null", "[]", "7", "\"Id\"", "{}", r#"{"Id":1}"#, r#"{"Id":1,"line":null}"#, r#"{"Id":1,"line":2,"line":2}"#,
        r#"{"Id":1,"id":1,"line":2}"#, r#"{"Id":1,"line":2,"$blob":3}"#, r#"{"Id":1,"line":2,"other":3}"#, r#"{"Id":1,"line":2} x"#,
    ] {
        for (operation, payload) in [(Operation::Insert, good), (Operation::Update, good), (Operation::Delete, None)] {
            assert_invalid(bound(operation, key, payload), crate::error::Kind::InvalidBatch);
        }
    }
}

#[test]
fn a_payload_has_the_key_and_every_column_at_most_once() {
    for payload in [
        "", "null", "[]", r#"{"Id":1}"#, r#"{"Id":1,"line":3}"#, r#"{"Id":"1","line":2}"#, r#"{"Id":1,"line":2,"a\tb":1,"A\tb":1}"#,
        r#"{"Id":1,"line":2,"Id":1}"#, r#"{"Id":1,"line":2"#,
    ] {
        assert_invalid(bound(Operation::Update, r#"{"Id":1,"line":2}"#, Some(payload)), crate::error::Kind::InvalidBatch);
    }
}

#[test]
fn a_row_that_this_table_cannot_hold_is_refused_by_itself() {
    let key = r#"{"Id":1,"line":2}"#;
    for (member, kind) in [
        (r#""unknown":1"#, "SchemaMismatch"),
        (r#""a\tb":1e400"#, "TypeMismatch"),
        (r#""a\tb":"1.50""#, "TypeMismatch"),
        (r#""a\tb":{"a":1}"#, "TypeMismatch"),
        (r#""$blob":[1]"#, "TypeMismatch"),
        (r#""$blob":{"$blob":"0"}"#, "TypeMismatch"),
    ] {
        match bound(Operation::Insert, key, Some(&format!("{{\"Id\":1,\"line\":2,{member}}}"))) {
            Err(Unbound::Row(found, _)) => assert_eq!(found, kind, "{member}"),
            other => panic!("{member}: {other:?}"),
        }
    }
    assert!(matches!(bound(Operation::Delete, r#"{"Id":{"a":1},"line":2}"#, None), Err(Unbound::Row("TypeMismatch", _))));
}

#[test]
fn nesting_in_a_payload_or_key_ends_at_the_limit() {
    let json = table(vec![Column::new("Id", "", Storage::Any), Column { portable: Portable::Json, ..Column::new("a", "", Storage::Any) }], &[0]);
    let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let with = |levels: usize| format!("{{\"Id\":1,\"a\":{}}}", nested(levels));
    let bound = Bound::new(&json, &change(Operation::Insert, "{\"Id\":1}", Some(&with(MAX_NESTING - 1)))).expect("it binds");
    assert_eq!(bound.values[1], Some(Value::Text(nested(MAX_NESTING - 1))));
    let key = format!("{{\"Id\":{}}}", nested(MAX_NESTING));
    for (key, payload) in [("{\"Id\":1}", with(MAX_NESTING)), (&key, with(1))] {
        assert_invalid(Bound::new(&json, &change(Operation::Insert, key, Some(&payload))), crate::error::Kind::LimitExceeded);
    }
}
