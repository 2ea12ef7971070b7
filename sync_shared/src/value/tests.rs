//! A value arrives exactly or is refused: properties over all numbers, texts and bytes.

use super::*;
use proptest::prelude::*;

const STORAGES: [Storage; 4] = [Storage::Text, Storage::Number, Storage::Real, Storage::Any];

fn column(storage: Storage) -> Column {
    Column::new("c", "", storage)
}

fn payload_of(value: ValueRef<'_>) -> String {
    let mut out = String::new();
    write_payload(&mut out, value);
    out
}

fn canonical_of(value: ValueRef<'_>, portable: Portable) -> String {
    let mut out = String::new();
    write_canonical(&mut out, value, portable);
    out
}

/// Sends a value through a payload to a column.
fn arrived(value: ValueRef<'_>, storage: Storage) -> Result<Value, String> {
    value_for_column(&payload_of(value), &column(storage))
}

fn storage() -> impl Strategy<Value = Storage> {
    prop::sample::select(STORAGES.to_vec())
}

fn any_double() -> impl Strategy<Value = f64> {
    prop_oneof![any::<u64>().prop_map(f64::from_bits), any::<i64>().prop_map(|i| i as f64), -1e6..1e6]
}

/// A number as JSON may write it, long ones and extreme ones among them.
fn any_number() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?",
        1 => any::<i64>().prop_map(|i| i.to_string()),
        1 => any::<f64>().prop_filter("finite", |r| r.is_finite()).prop_map(|r| format!("{r:e}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn an_integer_arrives(i in any::<i64>()) {
        for storage in [Storage::Number, Storage::Any] {
            prop_assert_eq!(arrived(ValueRef::Integer(i), storage), Ok(Value::Integer(i)));
        }
        prop_assert_eq!(arrived(ValueRef::Integer(i), Storage::Text), Ok(Value::Text(i.to_string())));
        match arrived(ValueRef::Integer(i), Storage::Real) {
            Ok(value) => prop_assert!(value == Value::Integer(i) && (i as f64) as i128 == i128::from(i)),
            Err(why) => prop_assert!((i as f64) as i128 != i128::from(i) && why.contains("exactly")),
        }
    }

    #[test]
    fn a_real_arrives_bit_for_bit(r in any_double()) {
        for storage in [Storage::Number, Storage::Real, Storage::Any] {
            match arrived(ValueRef::Real(r), storage) {
                Ok(Value::Real(there)) => prop_assert_eq!(there.to_bits(), r.to_bits()),
                other => prop_assert!(r.is_nan() && other.is_err(), "{} became {:?}", r, other),
            }
        }
        if !r.is_finite() {
            prop_assert!(arrived(ValueRef::Real(r), Storage::Text).is_err());
        }
    }

    #[test]
    fn a_text_arrives_where_the_engine_keeps_it_a_text(text in any::<String>()) {
        for storage in [Storage::Text, Storage::Any] {
            prop_assert_eq!(arrived(ValueRef::Text(&text), storage), Ok(Value::Text(text.clone())));
        }
    }

    /// A column of numbers turns text that looks like one into one: another value, so it is not taken. In a column of JSON it is the same.
    #[test]
    fn a_text_in_a_column_of_numbers_stays_or_is_refused_unless_it_is_json(
        text in prop_oneof![any::<String>(), any_number(), r"[ \t]?[+-]?[0-9.]{0,4}([eE][+-]?[0-9]{0,2})?[ \n]?"],
        storage in prop::sample::select(vec![Storage::Number, Storage::Real]),
    ) {
        let numeric = looks_numeric(&text);
        match arrived(ValueRef::Text(&text), storage) {
            Ok(Value::Text(there)) => prop_assert!(there == text && !numeric),
            Ok(number) => prop_assert!(false, "{} became {:?}", text, number),
            Err(_) => prop_assert!(numeric),
        }
        let json = Column { portable: Portable::Json, ..column(storage) };
        match value_for_column(&payload_of(ValueRef::Text(&text)), &json) {
            Ok(Value::Text(there)) => prop_assert!(there == text && !numeric),
            Ok(number) => {
                prop_assert!(storage == Storage::Number);
                prop_assert_eq!(canonical_of(number.as_ref(), Portable::Json), canonical_of(ValueRef::Text(&text), Portable::Json));
            }
            Err(_) => prop_assert!(numeric),
        }
    }

    #[test]
    fn a_blob_arrives(bytes in prop::collection::vec(any::<u8>(), 0..200), storage in storage()) {
        prop_assert_eq!(arrived(ValueRef::Blob(&bytes), storage), Ok(Value::Blob(bytes)));
    }

    /// A number is never rounded: what is stored has the same canonical form, or nothing is.
    #[test]
    fn a_number_arrives_with_all_its_digits_or_is_refused(number in any_number(), storage in storage()) {
        match value_for_column(&number, &column(storage)) {
            Ok(Value::Text(there)) => prop_assert!(storage == Storage::Text && there == number),
            Ok(there) => {
                prop_assert_eq!(Some(canonical_of(there.as_ref(), Portable::Decimal)), canonical_number(&number));
            }
            Err(why) => prop_assert!(storage != Storage::Text && why.contains("exactly"), "{}", why),
        }
    }

    #[test]
    fn equal_numbers_have_one_canonical_form_whatever_holds_them(i in -(1i64 << 53)..=1 << 53) {
        let forms = [ValueRef::Integer(i), ValueRef::Real(i as f64)].map(|value| canonical_of(value, Portable::Int));
        prop_assert!(forms.iter().all(|form| *form == i.to_string()));
    }

    #[test]
    fn a_canonical_real_is_the_shortest_text_that_reads_back(r in any_double().prop_filter("finite", |r| r.is_finite())) {
        let canonical = canonical_of(ValueRef::Real(r), Portable::Real);
        prop_assert_eq!(canonical.parse::<f64>().ok(), Some(r));
        let digits = |text: &str| {
            let mantissa = text.split('e').next().unwrap_or_default().replace(['-', '.'], "");
            mantissa.trim_matches('0').len()
        };
        prop_assert_eq!(digits(&canonical), digits(&format!("{r:e}")), "{}", canonical);
    }

    #[test]
    fn a_datum_of_json_is_hashed_in_canonical_form(number in any_number(), text in any::<String>()) {
        let canonical = |json: String| canonical_of(ValueRef::Text(&json), Portable::Json);
        let mut quoted = String::new();
        write_string(&mut quoted, &text);
        prop_assert_eq!(
            canonical(format!("{{\"b\":{number},\"a\":{quoted}}}")),
            canonical(format!(" {{ \"a\" : {quoted} ,\n\"b\":{number} }} "))
        );
    }
}

#[test]
fn the_edges_arrive() {
    for i in [i64::MIN, i64::MIN + 1, -1, 0, 1, (1 << 53) + 1, i64::MAX] {
        assert_eq!(arrived(ValueRef::Integer(i), Storage::Number), Ok(Value::Integer(i)));
    }
    for r in [f64::MIN, f64::MIN_POSITIVE, f64::from_bits(1), f64::MAX, f64::EPSILON, 0.1 + 0.2, f64::INFINITY, f64::NEG_INFINITY, -0.0] {
        for storage in [Storage::Number, Storage::Real, Storage::Any] {
            let Ok(Value::Real(there)) = arrived(ValueRef::Real(r), storage) else { panic!("{r} in {storage:?}") };
            assert_eq!(there.to_bits(), r.to_bits());
        }
    }
    for text in ["", "\0", "a\0b", "\u{1}\u{1f}\u{7f}", "\u{feff}", "😀\u{10ffff}", "\"\\/\r\n", "null", "{}"] {
        assert_eq!(arrived(ValueRef::Text(text), Storage::Text), Ok(Value::Text(text.to_owned())));
    }
    assert_eq!(arrived(ValueRef::Null, Storage::Any), Ok(Value::Null));
}

#[test]
fn a_number_beyond_what_a_column_holds_is_refused() {
    for number in ["9223372036854775808", "12345678901234567890.0123456789", "1e309", "1e-400", "0.1000000000000000001"] {
        for storage in [Storage::Number, Storage::Real, Storage::Any] {
            assert!(value_for_column(number, &column(storage)).is_err(), "{number} in {storage:?}");
        }
        assert_eq!(value_for_column(number, &column(Storage::Text)), Ok(Value::Text(number.to_owned())));
    }
    assert!(value_for_column("9007199254740993", &column(Storage::Real)).is_err());
}

#[test]
fn a_truth_value_is_one_or_zero() {
    for (raw, bit) in [("true", 1), ("false", 0)] {
        assert_eq!(value_for_column(raw, &column(Storage::Number)), Ok(Value::Integer(bit)));
        assert_eq!(value_for_column(raw, &column(Storage::Any)), Ok(Value::Integer(bit)));
        assert_eq!(value_for_column(raw, &column(Storage::Real)), Ok(Value::Real(bit as f64)));
        assert_eq!(value_for_column(raw, &column(Storage::Text)), Ok(Value::Text(bit.to_string())));
    }
}

#[test]
fn a_value_of_no_kind_is_refused_by_every_column() {
    let nothing = [
        r#"{"$blob":"abc"}"#, r#"{"$blob":"zz"}"#, r#"{"$blob":1}"#, r#"{"$blob":"00","$real":"NaN"}"#, r#"{"$blob":"00","a":1}"#,
        r#"{"$real":"Huge"}"#, r#"{"$real":"NaN"}"#, r#"{"$decimal":"NaN"}"#, r#"{"$colour":"red"}"#, r#"{"a":1,"$b":2}"#,
    ];
    for storage in STORAGES {
        for portable in [Portable::Text, Portable::Json] {
            let column = Column { portable, ..column(storage) };
            for raw in nothing {
                assert!(value_for_column(raw, &column).is_err(), "{raw} in {storage:?}");
            }
        }
    }
    assert!(value_for_column(r#"{"$real":"Infinity"}"#, &column(Storage::Text)).is_err());
}

/// TYPES.md: JSON travels as a string that holds its text. A sender that nests it instead is understood by a column of JSON.
#[test]
fn a_nested_value_is_the_text_of_a_json_column_and_no_others() {
    for raw in ["{}", r#"{"a":1}"#, "[]", "[1]", r#"[{"$blob":"00"}]"#] {
        for storage in STORAGES {
            let json = Column { portable: Portable::Json, ..column(storage) };
            assert_eq!(value_for_column(raw, &json), Ok(Value::Text(raw.to_owned())));
            let why = value_for_column(raw, &column(storage)).expect_err(raw);
            assert!(why.contains("\"c\""), "{why}");
        }
    }
}

/// IEEE 754 bits and the text that RFC 8785, appendix B, prints for them.
#[test]
fn reals_are_printed_as_rfc_8785_prints_them() {
    for (bits, text) in [
        (0x0000000000000000u64, "0"),
        (0x8000000000000000, "0"),
        (0x0000000000000001, "5e-324"),
        (0x8000000000000001, "-5e-324"),
        (0x7fefffffffffffff, "1.7976931348623157e+308"),
        (0xffefffffffffffff, "-1.7976931348623157e+308"),
        (0x4340000000000000, "9007199254740992"),
        (0xc340000000000000, "-9007199254740992"),
        (0x4430000000000000, "295147905179352830000"),
        (0x44b52d02c7e14af5, "9.999999999999997e+22"),
        (0x44b52d02c7e14af6, "1e+23"),
        (0x44b52d02c7e14af7, "1.0000000000000001e+23"),
        (0x444b1ae4d6e2ef4e, "999999999999999700000"),
        (0x444b1ae4d6e2ef4f, "999999999999999900000"),
        (0x444b1ae4d6e2ef50, "1e+21"),
        (0x3eb0c6f7a0b5ed8c, "9.999999999999997e-7"),
        (0x3eb0c6f7a0b5ed8d, "0.000001"),
        (0x41b3de4355555553, "333333333.3333332"),
        (0x41b3de4355555554, "333333333.33333325"),
        (0x41b3de4355555555, "333333333.3333333"),
        (0x41b3de4355555556, "333333333.3333334"),
        (0x41b3de4355555557, "333333333.33333343"),
        (0xbecbf647612f3696, "-0.0000033333333333333333"),
        (0x43143ff3c1cb0959, "1424953923781206.2"),
    ] {
        assert_eq!(canonical_of(ValueRef::Real(f64::from_bits(bits)), Portable::Real), text);
        assert_eq!(canonical_of(ValueRef::Real(f64::from_bits(bits)), Portable::Decimal), text);
    }
}

#[test]
fn portable_types_have_the_canonical_form_of_the_contract() {
    for (value, portable, canonical) in [
        (Value::Text("A11CE000-0000-4000-8000-00000000000A".to_owned()), Portable::Uuid, r#""a11ce000-0000-4000-8000-00000000000a""#),
        (Value::Text("2024-05-06 09:08:09+02:00".to_owned()), Portable::Datetime, r#""2024-05-06T07:08:09.000Z""#),
        (Value::Text("2024-05-06".to_owned()), Portable::Date, r#""2024-05-06""#),
        (Value::Text("{\"b\":1.0,\"a\":[ ]}".to_owned()), Portable::Json, r#""{\"a\":[],\"b\":1}""#),
        (Value::Text("not json".to_owned()), Portable::Json, r#""not json""#),
        (Value::Text("10.50".to_owned()), Portable::Decimal, "10.5"),
        (Value::Text("10.50".to_owned()), Portable::Text, r#""10.50""#),
        (Value::Integer(1), Portable::Boolean, "1"),
        (Value::Blob(vec![0, 0xAB]), Portable::Blob, r#"{"$blob":"00ab"}"#),
        (Value::Null, Portable::Text, "null"),
    ] {
        assert_eq!(canonical_of(value.as_ref(), portable), canonical);
    }
}
