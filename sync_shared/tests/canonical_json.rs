//! Canonical JSON against vectors that were not made by this code, and against what it promises for any JSON.

use proptest::prelude::*;
use std::cmp::Ordering;
use sync_shared::{Kind, MAX_NESTING, canonical_json, canonical_number};

fn canonical(text: &str) -> String {
    canonical_json(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn nested(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

/// Section 3.2.2, but for the first number: it keeps the digits it was written with.
#[test]
fn the_example_of_rfc_8785() {
    let text = r#"{
        "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
        "literals": [null, true, false]
    }"#;
    let expected = r#"{"literals":[null,true,false],"numbers":[333333333.33333329,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}"#;
    assert_eq!(canonical(text), expected);
}

/// The names of section 3.2.3. RFC 8785 sorts by UTF-16 and so has the emoji before U+FB33; the contract sorts by UTF-8.
#[test]
fn names_are_sorted_by_their_utf8_bytes() {
    let text = r#"{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}"#;
    assert_eq!(canonical(text), "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"ö\":7,\"€\":1,\"\u{fb33}\":3,\"😀\":5}");
    assert_eq!(canonical(r#"{"b":1,"a":{"d":[{"z":1,"y":2}],"c":3},"B":2,"aa":4,"":5}"#), r#"{"":5,"B":2,"a":{"c":3,"d":[{"y":2,"z":1}]},"aa":4,"b":1}"#);
}

#[test]
fn numbers_have_the_digits_of_the_contract() {
    for (text, expected) in [
        ("10.50", "10.5"),
        ("10.5", "10.5"),
        ("1.0", "1"),
        ("-0.0", "0"),
        ("-0", "0"),
        ("0e99", "0"),
        ("0.000", "0"),
        ("1E2", "100"),
        ("1e+2", "100"),
        ("120e-1", "12"),
        ("-12.300e1", "-123"),
        ("9223372036854775808", "9223372036854775808"),
        ("12345678901234567890.01234567890", "12345678901234567890.0123456789"),
        ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
        // The borders of an integral number without exponent.
        ("1e20", "100000000000000000000"),
        ("999999999999999999999", "999999999999999999999"),
        ("-999999999999999999999", "-999999999999999999999"),
        ("999999999999999999999.5", "999999999999999999999.5"),
        ("1000000000000000000000", "1e+21"),
        ("1e21", "1e+21"),
        ("1234567890123456789012", "1.234567890123456789012e+21"),
        // And of a fraction without exponent.
        ("0.000001", "0.000001"),
        ("1e-6", "0.000001"),
        ("0.0000001", "1e-7"),
        ("0.00000123", "0.00000123"),
        ("1.5e-7", "1.5e-7"),
        ("1e400", "1e+400"),
        ("1e-400", "1e-400"),
    ] {
        assert_eq!(canonical(text), expected, "{text}");
    }
}

/// What would not be compared digit by digit has no canonical form.
#[test]
fn an_exponent_is_counted_however_long_or_refused() {
    let zeros = "0".repeat(400);
    for (text, expected) in [
        (format!("1e{zeros}2"), "100"),
        (format!("1{zeros}e-400"), "1"),
        (format!("0.{zeros}1e+401"), "1"),
        ("1E9223372036854775806".to_owned(), "1e+9223372036854775806"),
        ("0e99999999999999999999".to_owned(), "0"),
        ("-0.0E-99999999999999999999".to_owned(), "0"),
    ] {
        assert_eq!(canonical(&text), expected, "{text}");
    }
    for text in ["1e9223372036854775808", "[10e99999999999999999999]", "1E-99999999999999999999"] {
        assert_eq!(canonical_json(text).expect_err(text).kind(), Some(Kind::InvalidArgument));
    }
    for text in ["0e", "0e+", "1e+-5", "1e5 ", "0ex", "1e1.5"] {
        assert_eq!(canonical_number(text), None, "{text}");
    }
}

#[test]
fn strings_are_escaped_only_where_they_must_be() {
    for (text, expected) in [
        (r#""\u0000\u0001\u001f\u007f""#, "\"\\u0000\\u0001\\u001f\u{7f}\""),
        (r#""\b\t\n\f\r\"\\\/""#, r#""\b\t\n\f\r\"\\/""#),
        (r#""\u0008\u0009\u000a\u000C\u000D""#, r#""\b\t\n\f\r""#),
        (r#""\u003c\u2028\u00e9\ud83d\ude00""#, "\"<\u{2028}é😀\""),
    ] {
        assert_eq!(canonical(text), expected);
    }
}

#[test]
fn what_is_no_json_is_refused() {
    for text in [
        "", " ", "nul", "01", "1.", ".5", "+1", "-", "1e", "0x1", "NaN", "Infinity", "'a'", "{a:1}", "[1,]", "{\"a\":1,}", "[1]x", "\"\\ud800\"",
        "\"\\x\"", "\"\n\"", "\u{feff}1", "/**/1", "{\"a\":1,\"a\":1}", "[{\"a\":1,\"\\u0061\":2}]", "{\"a\"}", "[1 2]",
    ] {
        let error = canonical_json(text).expect_err(text);
        assert_eq!(error.kind(), Some(Kind::InvalidArgument), "{text}");
    }
}

#[test]
fn nesting_ends_at_the_limit() {
    assert_eq!(canonical(&nested(MAX_NESTING)), nested(MAX_NESTING));
    for text in [nested(MAX_NESTING + 1), "[".repeat(1_000_000), "{\"a\":".repeat(100_000)] {
        assert_eq!(canonical_json(&text).expect_err("too deep").kind(), Some(Kind::LimitExceeded));
    }
    // Brackets in a string nest nothing.
    let text = format!("[\"{}\\\"{}\"]", "[".repeat(100), "{".repeat(100));
    assert_eq!(canonical(&text), text);
}

/// The digits of a number without zeros around them, and the power of ten of the first one.
fn decimal(text: &str) -> (bool, String, i64) {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let unsigned = mantissa.trim_start_matches('-');
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    let power = exponent.parse::<i64>().expect("an exponent") + whole.len() as i64 - (all.len() - digits.len()) as i64;
    match digits.trim_end_matches('0') {
        "" => (false, String::new(), 0),
        digits => (mantissa.starts_with('-'), digits.to_owned(), power),
    }
}

fn number() -> impl Strategy<Value = String> {
    r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?"
}

fn json() -> impl Strategy<Value = String> {
    let quoted = |text: String| serde_json::Value::String(text).to_string();
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        number(),
        any::<String>().prop_map(quoted)
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let members = prop::collection::btree_map(any::<String>(), inner.clone(), 0..6);
        let object = members.prop_map(move |members| {
            let members: Vec<String> = members.into_iter().map(|(name, value)| format!("{}:{value}", quoted(name))).collect();
            format!("{{{}}}", members.join(","))
        });
        prop_oneof![prop::collection::vec(inner, 0..6).prop_map(|items| format!("[{}]", items.join(","))), object]
    })
}

/// The same JSON with its members in reverse, white space around every token, and all of every string escaped.
fn written_differently(text: &str) -> String {
    use serde_json::value::RawValue;
    match text.as_bytes()[0] {
        b'{' => {
            let members: Vec<(String, Box<RawValue>)> =
                serde_json::from_str::<std::collections::BTreeMap<String, Box<RawValue>>>(text).expect("an object").into_iter().rev().collect();
            let members: Vec<String> =
                members.iter().map(|(name, value)| format!("{}\t:{}", escaped(name), written_differently(value.get()))).collect();
            format!("{{ {}\n}}", members.join(" , "))
        }
        b'[' => {
            let items: Vec<Box<RawValue>> = serde_json::from_str(text).expect("an array");
            let items: Vec<String> = items.iter().map(|item| written_differently(item.get())).collect();
            format!("[\r\n{} ]", items.join(",\n"))
        }
        b'"' => escaped(&serde_json::from_str::<String>(text).expect("a string")),
        _ => text.to_owned(),
    }
}

fn escaped(text: &str) -> String {
    let units: Vec<String> = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
    format!("\"{}\"", units.join(""))
}

proptest! {
    #[test]
    fn one_datum_has_one_text(json in json()) {
        let text = canonical(&json);
        prop_assert_eq!(&canonical(&text), &text);
        prop_assert_eq!(&canonical(&written_differently(&json)), &text);
        prop_assert_eq!(&canonical(&format!(" {json}\n")), &text);
    }

    #[test]
    fn a_canonical_number_keeps_every_digit(number in number()) {
        let text = canonical_number(&number).expect("a number");
        prop_assert_eq!(decimal(&text), decimal(&number));
        prop_assert_eq!(canonical(&number), text);
    }

    #[test]
    fn a_number_has_one_text_however_its_point_is_placed(digits in "[1-9][0-9]{0,24}", power in -40i64..40, shift in 0usize..30) {
        let plain = canonical_number(&format!("{digits}e{power}"));
        let shifted = canonical_number(&format!("0.{}{digits}000e{}", "0".repeat(shift), power + (shift + digits.len()) as i64));
        prop_assert_eq!(plain, shifted);
    }

    #[test]
    fn an_exponent_stands_only_outside_the_borders(number in number()) {
        let text = canonical_number(&number).expect("a number");
        let (_, digits, power) = decimal(&number);
        let plain = digits.is_empty() || (-5..=21).contains(&power);
        prop_assert_eq!(text.contains('e'), !plain, "{}", text);
        prop_assert!(!text.contains('.') || !text.split('e').next().unwrap_or_default().ends_with('0'));
    }

    #[test]
    fn members_come_in_the_order_of_their_bytes(names in prop::collection::hash_set(any::<String>(), 2..8)) {
        let members: Vec<String> = names.iter().map(|name| format!("{}:0", escaped(name))).collect();
        let text = canonical(&format!("{{{}}}", members.join(",")));
        let mut sorted: Vec<&String> = names.iter().collect();
        sorted.sort_by(|a, b| bytes_in_order(a.as_bytes(), b.as_bytes()));
        let places: Vec<usize> = sorted
            .iter()
            .map(|name| format!("{}:0", canonical(&escaped(name))))
            .scan(1, |from, member| {
                let at = *from;
                *from += member.len() + 1;
                text[at..].starts_with(&member).then_some(at)
            })
            .collect();
        prop_assert_eq!(places.len(), names.len(), "{}", text);
    }
}

fn bytes_in_order(a: &[u8], b: &[u8]) -> Ordering {
    for (a, b) in a.iter().zip(b) {
        if a != b {
            return if a < b { Ordering::Less } else { Ordering::Greater };
        }
    }
    a.len().cmp(&b.len())
}
