//! How keys are spelled. A row is the same row on every replica when its key has the same wire form, to the byte, whatever an engine
//! holds to be equal.
//!
//! A UUID and a date with a time have one wire form for several spellings. In a database that keeps texts as they are written a
//! spelling has it only if the row can be found again by it: [`Column::spellings`] are looked for, by an index. Every other text is its own
//! wire form. What a column would send on in another way than it has come is refused before anything is judged ([`Table::misspelled`]).

use crate::stamp::canonical_datetime;
use crate::table::{Column, Portable, Storage, Table, TextFold};
use crate::value::Value;
use std::borrow::Cow;
use std::collections::HashMap;

impl Column {
    /// Are there texts that have another form on the wire, where they stand in a key or refer to one?
    pub fn respells(&self) -> bool {
        matches!(self.portable, Portable::Uuid | Portable::Datetime)
    }

    /// The wire form of a text of a key.
    pub fn on_wire<'t>(&self, text: &'t str) -> Cow<'t, str> {
        // A type of its own holds the value, and an index that ignores case finds every case of it.
        let any_case = self.storage == Storage::Typed || self.fold == TextFold::AsciiCase;
        match self.portable {
            Portable::Uuid if is_uuid(text) && (any_case || !text.bytes().any(|b| b.is_ascii_lowercase())) => {
                match text.bytes().any(|b| b.is_ascii_uppercase()) {
                    true => Cow::Owned(text.to_ascii_lowercase()),
                    false => Cow::Borrowed(text),
                }
            }
            Portable::Datetime => {
                let canonical = canonical_datetime(text);
                let is_found = canonical != text && (self.storage == Storage::Typed || self.spellings(&canonical).iter().any(|s| s == text));
                if is_found { Cow::Owned(canonical) } else { Cow::Borrowed(text) }
            }
            _ => Cow::Borrowed(text),
        }
    }

    /// Every spelling, in a database that keeps texts as they are written, of what has this form on the wire; that form first.
    pub fn spellings(&self, wire: &str) -> Vec<String> {
        match self.portable {
            Portable::Uuid => vec![wire.to_owned(), wire.to_ascii_uppercase()],
            Portable::Datetime => datetime_spellings(wire),
            _ => vec![wire.to_owned()],
        }
    }
}

impl Table {
    /// Why a key cannot be taken as it is spelled: it would be sent on in another way, and its sender would take that for another row.
    pub fn misspelled(&self, key: &[Value]) -> Option<String> {
        self.key.iter().zip(key).find_map(|(&k, value)| {
            let (column, Value::Text(text)) = (&self.columns[k], value) else { return None };
            if !column.respells() {
                return None;
            }
            let wire = column.on_wire(text);
            (wire != *text).then(|| misspelling(column, text, &wire))
        })
    }

    /// Do two keys, which the engine holds to be equal, name one row?
    pub fn is_same_key(&self, a: &[Value], b: &[Value]) -> bool {
        self.key.iter().zip(a.iter().zip(b)).all(|(&k, pair)| match pair {
            (Value::Text(a), Value::Text(b)) => self.columns[k].on_wire(a) == self.columns[k].on_wire(b),
            _ => true,
        })
    }
}

/// The keys that a group of changes puts in tables whose engine holds keys to be equal that differ in case or in spaces.
///
/// Who corrects a key deletes its row and inserts another, for all that others can tell. Where both keys are equal to the engine, and both
/// changes are of one group, the row is kept and gets the other key: what refers to it refers to it still, and nothing cascades.
#[derive(Default)]
pub struct Corrections {
    puts: HashMap<(i64, String), Vec<Value>>,
}

impl Corrections {
    pub fn note(&mut self, table: &Table, key: &[Value]) {
        self.puts.insert((table.id, folded(key)), key.to_vec());
    }

    /// The key that may be that of a deleted row from now on: whether the engine holds it to be equal, it must say itself.
    pub fn of(&self, table: &Table, deleted: &[Value]) -> Option<&[Value]> {
        match self.puts.is_empty() {
            true => None,
            false => self.puts.get(&(table.id, folded(deleted))).map(Vec::as_slice).filter(|put| *put != deleted),
        }
    }

    pub fn clear(&mut self) {
        self.puts.clear();
    }
}

fn folded(key: &[Value]) -> String {
    let mut text = String::new();
    for value in key {
        match value {
            Value::Text(t) => crate::canonical::write_string(&mut text, &t.trim_end_matches(' ').to_lowercase()),
            value => crate::value::write_payload(&mut text, value.as_ref()),
        }
        text.push(',');
    }
    text
}

fn misspelling(column: &Column, sent: &str, kept: &str) -> String {
    let (name, portable) = (&column.name, if column.portable == Portable::Uuid { "uuid" } else { "datetime" });
    format!(
        "the key column {name:?} spells {sent:?} as {kept:?}, which its origin would take for another row; write it there as it is spelled \
         here, or track the table there with {{\"types\":{{{name:?}:\"{portable}\"}}}}"
    )
}

/// 36 characters, as every engine writes a UUID but for the case.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// With `T` or a space; with as many digits of a second as there are, without zeros at their end, or six; with `Z` or `+00:00`.
fn datetime_spellings(wire: &str) -> Vec<String> {
    let (local, zones): (&str, &[&str]) = match wire.strip_suffix('Z') {
        Some(local) => (local, &["Z", "+00:00"]),
        None => (wire, &[""]),
    };
    let (Some((date, time)), Some((whole, digits))) = (local.split_once('T'), local.rsplit_once('.')) else { return vec![wire.to_owned()] };
    let (clock, trimmed) = (&whole[(date.len() + 1).min(whole.len())..], digits.trim_end_matches('0'));
    let short = if trimmed.is_empty() { clock.to_owned() } else { format!("{clock}.{trimmed}") };
    let times = [time.to_owned(), short, format!("{clock}.{digits:0<6}")];
    let mut all = Vec::with_capacity(12);
    for separator in ["T", " "] {
        for time in &times {
            all.extend(zones.iter().map(|zone| format!("{date}{separator}{time}{zone}")));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UPPER: &str = "6242D466-6887-433A-923F-BCC1EC471740";
    const LOWER: &str = "6242d466-6887-433a-923f-bcc1ec471740";

    fn column(declared: &str, storage: Storage) -> Column {
        Column::new("id", declared, storage)
    }

    #[test]
    fn a_uuid_has_one_form_on_the_wire() {
        let kept = column("UUID", Storage::Number);
        assert_eq!(kept.on_wire(UPPER), LOWER);
        assert_eq!(kept.on_wire(LOWER), LOWER);
        assert!(kept.spellings(LOWER).contains(&UPPER.to_owned()));
        let mixed = UPPER.replace('A', "a");
        assert_eq!(kept.on_wire(&mixed), mixed, "no index finds it by its lower case");
        let folded = Column { fold: TextFold::AsciiCase, ..kept };
        assert_eq!(folded.on_wire(&mixed), LOWER);
        assert_eq!(folded.on_wire("Bob"), "Bob", "only a UUID is the same in either case");
        assert_eq!(column("uuid", Storage::Typed).on_wire(&mixed), LOWER);
        assert_eq!(column("TEXT", Storage::Text).on_wire(UPPER), UPPER);
    }

    #[test]
    fn a_date_and_time_has_one_form_on_the_wire() {
        let kept = column("DATETIME", Storage::Number);
        for text in ["2024-01-01T00:00:00.000Z", "2024-01-01 00:00:00Z", "2024-01-01T00:00:00+00:00", "2024-01-01 00:00:00.000000Z"] {
            assert_eq!(kept.on_wire(text), "2024-01-01T00:00:00.000Z");
        }
        assert_eq!(kept.on_wire("2024-01-01 00:00:00"), "2024-01-01T00:00:00.000");
        assert_eq!(kept.on_wire("2024-01-01T00:00:00.5"), "2024-01-01T00:00:00.500");
        for text in ["2024-01-01T01:00:00+01:00", "2024-01-01", "soon", ""] {
            assert_eq!(kept.on_wire(text), text, "no index finds it by another spelling");
        }
        assert_eq!(column("timestamp with time zone", Storage::Typed).on_wire("2024-01-01T01:00:00+01:00"), "2024-01-01T00:00:00.000Z");
    }

    proptest! {
        #[test]
        fn what_has_a_form_on_the_wire_is_found_by_it(
            text in r"[0-9]{4}-0[1-9]-0[1-9][T ][01][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|\+00:00|\+01:00)?",
            uuid in "[0-9A-F]{8}-[0-9A-F]{4}-[0-9a-f]{4}-[0-9A-F]{4}-[0-9A-F]{12}",
        ) {
            for (column, text) in [(column("DATETIME", Storage::Number), &text), (column("UUID", Storage::Number), &uuid)] {
                let wire = column.on_wire(text).into_owned();
                prop_assert_eq!(column.on_wire(&wire), wire.as_str());
                prop_assert!(column.spellings(&wire).contains(text));
            }
        }
    }
}
