//! The plain case of a key or payload: the columns that are expected, in their order, no escapes and nothing nested.
//!
//! That is what replicas write for each other, and it is read here in one pass. Whatever is not plain is not judged: the general way, which
//! takes every JSON object and names what is wrong with one, reads it again.

use crate::table::Table;

/// The JSON texts of these columns' values, if an object has exactly these members and is plain.
pub fn plain_members<'t>(text: &'t str, table: &Table, columns: impl Iterator<Item = usize>) -> Option<Vec<&'t str>> {
    let mut rest = text.strip_prefix('{')?;
    let mut values = Vec::with_capacity(table.columns.len());
    for column in columns {
        if !values.is_empty() {
            rest = rest.strip_prefix(',')?;
        }
        rest = rest.strip_prefix(table.columns[column].member.as_str())?;
        let (value, after) = rest.split_at(plain_length(rest.as_bytes())?);
        values.push(value);
        rest = after;
    }
    (rest == "}").then_some(values)
}

/// How long the plain value is that a text begins with: a string without escapes, a number, true, false or null.
fn plain_length(text: &[u8]) -> Option<usize> {
    match text.first()? {
        b'"' => {
            let end = 1 + text[1..].iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20)?;
            (text[end] == b'"').then_some(end + 1)
        }
        b'n' => text.starts_with(b"null").then_some(4),
        b't' => text.starts_with(b"true").then_some(4),
        b'f' => text.starts_with(b"false").then_some(5),
        _ => number_length(text),
    }
}

/// How long the number is that a text begins with, by the grammar of JSON.
fn number_length(text: &[u8]) -> Option<usize> {
    let digits = |from: usize| text[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = usize::from(text.first() == Some(&b'-'));
    let whole = digits(at);
    if whole == 0 || (whole > 1 && text[at] == b'0') {
        return None;
    }
    at += whole;
    if text.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1 + usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at);
        if exponent == 0 {
            return None;
        }
        at += exponent;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::plain_length;
    use proptest::prelude::*;

    /// What stands behind a value in an object.
    fn length(value: &str) -> Option<usize> {
        plain_length(format!("{value},\"next\":1}}").as_bytes())
    }

    #[test]
    fn values_are_as_long_as_they_are() {
        for value in ["\"\"", "\"text, {}[]: \u{e9}\"", "null", "true", "false", "0", "-0", "12", "-1.5", "1e5", "1E+5", "1.25e-7"] {
            assert_eq!(length(value), Some(value.len()), "{value}");
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_general_way() {
        for value in ["", "\"\\n\"", "\"\n\"", "\"open", "{}", "[1]", "nil", "+1", "-", "01", ".5", "1.", "1e", "1e+", "NaN"] {
            let taken = length(value);
            assert!(taken.is_none_or(|length| length > value.len()), "{value}: {taken:?}");
        }
    }

    proptest! {
        #[test]
        fn a_plain_number_is_a_number_of_json(text in "-?[0-9]{0,4}(\\.[0-9]{0,3})?([eE][+-]?[0-9]{0,2})?") {
            let whole = length(&text) == Some(text.len());
            let json = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            prop_assert_eq!(whole, json);
        }
    }
}
