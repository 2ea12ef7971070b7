//! Payload members for columns whose type decides for itself what it takes, as PostgreSQL's do: the host converts, or refuses.

use crate::canonical::canonical_number;
use crate::table::{Column, Portable};
use crate::value::{Str, Tagged, Value, blob_of, inexact, nested_json, refuse_unknown_tag};

/// For a column whose type decides for itself what it takes: the value in the portable type's form where the text has it.
pub fn typed_value(raw: &str, column: &Column) -> Result<Value, String> {
    match raw.as_bytes().first() {
        Some(b'n') => Ok(Value::Null),
        Some(b't') => Ok(Value::Integer(1)),
        Some(b'f') => Ok(Value::Integer(0)),
        Some(b'"') => match serde_json::from_str(raw) {
            Ok(Str(text)) => Ok(Value::Text(text.into_owned())),
            Err(error) => Err(format!("column {:?}: {error}", column.name)),
        },
        Some(b'{') => match serde_json::from_str(raw) {
            Ok(Tagged::Blob(hex)) => blob_of(&hex, column),
            Ok(Tagged::Decimal(name)) => Ok(Value::Text(name)),
            Ok(Tagged::Real(name)) => match name.as_str() {
                "Infinity" => Ok(Value::Real(f64::INFINITY)),
                "-Infinity" => Ok(Value::Real(f64::NEG_INFINITY)),
                "NaN" => Ok(Value::Real(f64::NAN)),
                _ => Err(format!("column {:?} cannot hold the number {name}", column.name)),
            },
            Err(_) => {
                refuse_unknown_tag(raw, column)?;
                nested_json(raw, column)
            }
        },
        Some(b'[') => nested_json(raw, column),
        // A number that SQLite holds in a column of JSON is the text of that JSON.
        _ if matches!(column.portable, Portable::Decimal | Portable::Json) => Ok(Value::Text(raw.to_owned())),
        _ => typed_number(raw, column),
    }
}

fn typed_number(raw: &str, column: &Column) -> Result<Value, String> {
    let canonical = canonical_number(raw).ok_or_else(|| inexact(raw, column))?;
    if column.portable != Portable::Real
        && let Ok(integer) = raw.parse()
    {
        return Ok(Value::Integer(integer));
    }
    let real: f64 = raw.parse().map_err(|_| inexact(raw, column))?;
    match real.is_finite() && canonical_number(ryu::Buffer::new().format_finite(real)) == Some(canonical) {
        true => Ok(Value::Real(real)),
        false => Err(inexact(raw, column)),
    }
}
