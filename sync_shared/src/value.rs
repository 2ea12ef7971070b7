//! Values on their way between the engines: how a stored value becomes JSON, and how JSON becomes a value for a column.
//!
//! Nothing is rounded: a number that the column cannot hold exactly, or text that the engine would turn into another value,
//! is an error that names the reason. The JSON forms are those of TYPES.md.

use crate::canonical::{canonical_number, write_number, write_string};
use crate::table::{Column, Portable, Storage};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

/// A value as a host stores it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

/// A borrowed [`Value`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(&'a str),
    Blob(&'a [u8]),
}

impl Value {
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Value::Null => ValueRef::Null,
            Value::Integer(i) => ValueRef::Integer(*i),
            Value::Real(r) => ValueRef::Real(*r),
            Value::Text(t) => ValueRef::Text(t),
            Value::Blob(b) => ValueRef::Blob(b),
        }
    }
}

impl ValueRef<'_> {
    pub fn to_owned(self) -> Value {
        match self {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(i) => Value::Integer(i),
            ValueRef::Real(r) => Value::Real(r),
            ValueRef::Text(t) => Value::Text(t.to_owned()),
            ValueRef::Blob(b) => Value::Blob(b.to_vec()),
        }
    }
}

/// Appends the payload form of a value: the storage class survives, REAL bit for bit (the shortest digits that read back).
pub fn write_payload(out: &mut String, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => out.push_str("null"),
        ValueRef::Integer(i) => out.push_str(itoa::Buffer::new().format(i)),
        ValueRef::Real(r) if r.is_finite() => out.push_str(ryu::Buffer::new().format_finite(r)),
        ValueRef::Real(r) => write_special_real(out, r),
        ValueRef::Text(t) => write_string(out, t),
        ValueRef::Blob(b) => write_blob(out, b),
    }
}

/// Appends the canonical form that hashes and row keys are taken over: the same on both engines for the same datum. A number in a column of
/// JSON is that JSON's text.
pub fn write_canonical(out: &mut String, value: ValueRef<'_>, portable: Portable) {
    match value {
        ValueRef::Null => out.push_str("null"),
        ValueRef::Integer(_) | ValueRef::Real(_) if portable == Portable::Json => {
            out.push('"');
            write_canonical(out, value, Portable::Real);
            out.push('"');
        }
        ValueRef::Integer(i) => write_number(out, itoa::Buffer::new().format(i)),
        ValueRef::Real(r) if r.is_finite() => write_canonical_real(out, r),
        ValueRef::Real(r) => write_special_real(out, r),
        ValueRef::Text(t) => write_canonical_text(out, t, portable),
        ValueRef::Blob(b) => write_blob(out, b),
    }
}

/// What a payload member holds for a column: the value, or why this column cannot hold it exactly.
///
/// `raw` is the member's JSON text. The error is a sentence for `_sync_rejections`.
pub fn value_for_column(raw: &str, column: &Column) -> Result<Value, String> {
    if column.storage == Storage::Typed {
        return crate::typed::typed_value(raw, column);
    }
    match raw.as_bytes().first() {
        Some(b'n') => Ok(Value::Null),
        Some(b't') => text_or_integer(1, column),
        Some(b'f') => text_or_integer(0, column),
        Some(b'"') => {
            let text: Cow<'_, str> = match serde_json::from_str(raw) {
                Ok(Str(text)) => text,
                Err(error) => return Err(format!("column {:?}: {error}", column.name)),
            };
            text_for_column(text, column)
        }
        Some(b'{') => tagged_value(raw, column),
        Some(b'[') => nested_json(raw, column),
        _ => number_for_column(raw, column),
    }
}

/// As [`value_for_column`] for a text that has no escapes if it is a string; None if the column cannot hold it.
pub fn plain_value(raw: &str, column: &Column) -> Option<Value> {
    match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(text) => text_for_column(Cow::Borrowed(text), column).ok(),
        None => value_for_column(raw, column).ok(),
    }
}

/// A string that borrows from its JSON text where it holds no escapes.
#[derive(serde::Deserialize)]
pub struct Str<'a>(#[serde(borrow)] pub Cow<'a, str>);

fn text_or_integer(bit: i64, column: &Column) -> Result<Value, String> {
    match column.storage {
        Storage::Text => Ok(Value::Text(bit.to_string())),
        Storage::Real => Ok(Value::Real(bit as f64)),
        Storage::Number | Storage::Any | Storage::Typed => Ok(Value::Integer(bit)),
    }
}

fn text_for_column(text: Cow<'_, str>, column: &Column) -> Result<Value, String> {
    if !matches!(column.storage, Storage::Number | Storage::Real) || !looks_numeric(&text) {
        return Ok(Value::Text(text.into_owned()));
    }
    // A JSON text may be a number: then the number that the column makes of it is the same JSON, see `write_canonical`.
    if column.portable == Portable::Json && column.storage == Storage::Number && canonical_number(&text).is_some_and(|n| n == text) {
        return number_for_column(&text, column);
    }
    let shown: String = text.chars().take(60).collect();
    Err(format!("column {:?} would change the text {shown:?} into a number; declare it TEXT, and the change is taken", column.name))
}

fn number_for_column(raw: &str, column: &Column) -> Result<Value, String> {
    if column.storage == Storage::Text {
        return Ok(Value::Text(raw.to_owned()));
    }
    let integral = !raw.bytes().any(|b| matches!(b, b'.' | b'e' | b'E'));
    if integral && let Ok(i) = raw.parse::<i64>() {
        if column.storage == Storage::Real && (i as f64) as i128 != i as i128 {
            return Err(inexact(raw, column));
        }
        return Ok(Value::Integer(i));
    }
    let real: f64 = raw.parse().map_err(|_| inexact(raw, column))?;
    if ryu::Buffer::new().format(real) == raw {
        return Ok(Value::Real(real));
    }
    if !real.is_finite() || canonical_number(raw) != canonical_number(ryu::Buffer::new().format_finite(real)) {
        return Err(inexact(raw, column));
    }
    Ok(Value::Real(real))
}

pub fn inexact(raw: &str, column: &Column) -> String {
    let shown: String = raw.chars().take(60).collect();
    format!("column {:?} cannot hold {shown} exactly", column.name)
}

/// A value that JSON has no form of its own for.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Tagged {
    #[serde(rename = "$blob")]
    Blob(String),
    #[serde(rename = "$real")]
    Real(String),
    #[serde(rename = "$decimal")]
    Decimal(String),
}

fn tagged_value(raw: &str, column: &Column) -> Result<Value, String> {
    match serde_json::from_str(raw) {
        Ok(Tagged::Blob(hex)) => blob_of(&hex, column),
        Ok(Tagged::Real(name)) if column.storage != Storage::Text && name == "Infinity" => Ok(Value::Real(f64::INFINITY)),
        Ok(Tagged::Real(name)) if column.storage != Storage::Text && name == "-Infinity" => {
            Ok(Value::Real(f64::NEG_INFINITY))
        }
        Ok(Tagged::Real(name) | Tagged::Decimal(name)) => {
            Err(format!("column {:?} cannot hold the number {name}", column.name))
        }
        Err(_) => {
            refuse_unknown_tag(raw, column)?;
            nested_json(raw, column)
        }
    }
}

pub fn blob_of(hex: &str, column: &Column) -> Result<Value, String> {
    decode_hex(hex).map(Value::Blob).ok_or_else(|| format!("column {:?}: {hex:?} is not hexadecimal", column.name))
}

pub fn refuse_unknown_tag(raw: &str, column: &Column) -> Result<(), String> {
    match object_members(raw) {
        Ok(members) if members.iter().any(|(name, _)| name.starts_with('$')) => {
            Err(format!("column {:?} cannot hold a value of an unknown kind", column.name))
        }
        Ok(_) => Ok(()),
        Err(why) => Err(format!("column {:?}: {why}", column.name)),
    }
}

/// JSON travels as a string; a sender that nests it is understood where the column holds JSON.
pub fn nested_json(raw: &str, column: &Column) -> Result<Value, String> {
    match column.portable {
        Portable::Json => Ok(Value::Text(raw.to_owned())),
        _ => Err(format!("column {:?} does not hold JSON; send a JSON text as a string", column.name)),
    }
}

/// Would an engine with numeric column affinity turn this text into a number?
fn looks_numeric(text: &str) -> bool {
    let t = text.trim_matches(|c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c'));
    let t = t.strip_prefix(['+', '-']).unwrap_or(t);
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match t.find(['e', 'E']) {
        Some(at) => (&t[..at], Some(&t[at + 1..])),
        None => (t, None),
    };
    let mantissa_ok = match mantissa.split_once('.') {
        Some((whole, fraction)) => {
            (digits(whole) || whole.is_empty()) && (digits(fraction) || fraction.is_empty()) && mantissa.len() > 1
        }
        None => digits(mantissa),
    };
    mantissa_ok && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}

fn write_canonical_real(out: &mut String, real: f64) {
    let mut buffer = ryu::Buffer::new();
    let shortest = buffer.format_finite(real);
    // Mostly the shortest digits are canonical as they stand.
    match shortest.strip_suffix(".0") {
        _ if real == 0.0 => out.push('0'),
        Some(whole) => out.push_str(whole),
        None if shortest.contains('e') => write_number(out, shortest),
        None => out.push_str(shortest),
    }
}

fn write_special_real(out: &mut String, real: f64) {
    let name = if real.is_nan() {
        "NaN"
    } else if real > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    out.push_str("{\"$real\":\"");
    out.push_str(name);
    out.push_str("\"}");
}

fn write_blob(out: &mut String, blob: &[u8]) {
    out.push_str("{\"$blob\":\"");
    push_hex(out, blob);
    out.push_str("\"}");
}

fn write_canonical_text(out: &mut String, text: &str, portable: Portable) {
    match portable {
        Portable::Decimal => match canonical_number(text) {
            Some(number) => out.push_str(&number),
            None => write_string(out, text),
        },
        _ => write_string(out, &canonical_text(text, portable)),
    }
}

/// The text that stands for a text in the canonical form, which rows are ordered by as well.
pub fn canonical_text(text: &str, portable: Portable) -> Cow<'_, str> {
    match portable {
        Portable::Uuid => Cow::Owned(text.to_ascii_lowercase()),
        Portable::Datetime => Cow::Owned(crate::stamp::canonical_datetime(text)),
        Portable::Time => crate::stamp::canonical_time(text),
        Portable::Json => crate::canonical::canonical_json(text).map_or(Cow::Borrowed(text), Cow::Owned),
        _ => Cow::Borrowed(text),
    }
}

/// Lower-case hexadecimal digits of `bytes`.
pub fn push_hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.push(DIGITS[(byte >> 4) as usize] as char);
        out.push(DIGITS[(byte & 15) as usize] as char);
    }
}

/// The bytes of hexadecimal digits in any case.
pub fn decode_hex(hex: &str) -> Option<Vec<u8>> {
    let nibble = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    if !hex.len().is_multiple_of(2) {
        return None;
    }
    hex.as_bytes().chunks(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect()
}

/// The members of a JSON object in their order, each with its raw JSON text.
///
/// The error is a sentence: not an object, or a member that stands twice.
pub fn object_members(text: &str) -> Result<Vec<(Cow<'_, str>, &str)>, String> {
    serde_json::from_str(text).map(|Members(members)| members).map_err(|error| error.to_string())
}

struct Members<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(Cow<'de, str>, &'de str)> = Vec::with_capacity(16);
                let mut names = HashSet::new();
                while let Some(Str(name)) = map.next_key()? {
                    let raw: &'de RawValue = map.next_value()?;
                    let twice = match members.len() {
                        0..16 => members.iter().any(|(known, _)| *known == name),
                        _ => {
                            if names.is_empty() {
                                names.extend(members.iter().map(|(known, _)| known.clone()));
                            }
                            !names.insert(name.clone())
                        }
                    };
                    if twice {
                        return Err(serde::de::Error::custom(format!("member {name:?} stands twice")));
                    }
                    members.push((name, raw.get()));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

#[cfg(test)]
mod tests;
