//! Canonical JSON: one text for one datum, so that hashes are equal on every engine.
//!
//! Members sorted by the UTF-8 bytes of their names, no white space, minimal escapes, numbers as RFC 8785 prints them
//! (ECMAScript's `Number::toString`) but from the decimal digits as written, so that no digit of a long decimal is lost.

use crate::error::{Error, Result};
use crate::value::{Str, object_members};
use serde_json::value::RawValue;

/// Deepest nesting of a JSON text that is taken.
pub const MAX_NESTING: usize = 32;

/// The canonical form of any JSON text.
///
/// Errors: `InvalidArgument` if it is not JSON, has the same member twice or an exponent beyond int64, `LimitExceeded` if it nests deeper than
/// [`MAX_NESTING`].
pub fn canonical_json(text: &str) -> Result<String> {
    if nesting(text) > MAX_NESTING {
        return Err(Error::limit(format!("JSON nests deeper than {MAX_NESTING} levels")));
    }
    let raw: &RawValue = serde_json::from_str(text).map_err(|e| Error::argument(format!("not JSON: {e}")))?;
    let mut out = String::with_capacity(text.len());
    write_raw(&mut out, raw.get()).map_err(|e| Error::argument(format!("not JSON: {e}")))?;
    Ok(out)
}

/// The canonical form of a number's text, or None if it is not a number in JSON's syntax or its exponent is beyond int64.
pub fn canonical_number(text: &str) -> Option<String> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], &unsigned[at + 1..]),
        None => (unsigned, "0"),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (mantissa, ""),
    };
    let digits_only = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits_only(whole) || !digits_only(fraction) || (whole.len() > 1 && whole.starts_with('0')) {
        return None;
    }
    let exponent_digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if exponent_digits.is_empty() || !digits_only(exponent_digits) {
        return None;
    }
    let mut digits = String::with_capacity(whole.len() + fraction.len());
    digits.push_str(whole);
    digits.push_str(fraction);
    let leading = digits.len() - digits.trim_start_matches('0').len();
    let digits = digits[leading..].trim_end_matches('0');
    if digits.is_empty() {
        return Some("0".to_owned());
    }
    // The number is 0.DIGITS times ten to the power of `point`.
    let point = (whole.len() as i64 - leading as i64).checked_add(exponent.parse().ok()?)?;
    let mut out = String::with_capacity(digits.len() + 8);
    if text.starts_with('-') {
        out.push('-');
    }
    place_digits(&mut out, digits, point);
    Some(out)
}

/// Appends a number, canonically; what is not a number is appended as it is.
pub fn write_number(out: &mut String, text: &str) {
    let plain_integer = text.len() <= 19 && text.bytes().all(|b| b.is_ascii_digit());
    match plain_integer {
        true => out.push_str(text),
        false => out.push_str(&canonical_number(text).unwrap_or_else(|| text.to_owned())),
    }
}

/// Appends a JSON string with the escapes that JSON demands and no others.
pub fn write_string(out: &mut String, text: &str) {
    out.push('"');
    write_escaped(out, text);
    out.push('"');
}

/// The inside of [`write_string`].
pub fn write_escaped(out: &mut String, text: &str) {
    /// Which bytes cannot stand in a JSON string as they are.
    const ESCAPED: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 0x20 {
            table[byte] = true;
            byte += 1;
        }
        table[b'"' as usize] = true;
        table[b'\\' as usize] = true;
        table
    };
    if is_plain(text) {
        out.push_str(text);
        return;
    }
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 16);
    let mut clean = 0;
    while let Some(length) = bytes[clean..].iter().position(|&b| ESCAPED[b as usize]) {
        let at = clean + length;
        out.push_str(&text[clean..at]);
        clean = at + 1;
        match bytes[at] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x08 => out.push_str("\\b"),
            0x09 => out.push_str("\\t"),
            0x0a => out.push_str("\\n"),
            0x0c => out.push_str("\\f"),
            0x0d => out.push_str("\\r"),
            other => {
                out.push_str("\\u00");
                crate::value::push_hex(out, &[other]);
            }
        }
    }
    out.push_str(&text[clean..]);
}

/// Can a text stand in a JSON string as it is? Without a branch for each byte, so that many are looked at together.
pub fn is_plain(text: &str) -> bool {
    !text.bytes().fold(false, |found, byte| found | (byte < 0x20) | (byte == b'"') | (byte == b'\\'))
}

/// How deep arrays and objects nest in a text, brackets inside strings not counted.
pub fn nesting(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut depth, mut deepest, mut at) = (0usize, 0usize, 0usize);
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => at = string_end(bytes, at),
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Where a string ends whose inside begins at a place. Most of a batch is strings: this is the loop that its bytes go through.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn place_digits(out: &mut String, digits: &str, point: i64) {
    let count = digits.len() as i64;
    if count <= point && point <= 21 {
        out.push_str(digits);
        out.extend(std::iter::repeat_n('0', (point - count) as usize));
    } else if 0 < point && point <= 21 {
        out.push_str(&digits[..point as usize]);
        out.push('.');
        out.push_str(&digits[point as usize..]);
    } else if -6 < point && point <= 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', -point as usize));
        out.push_str(digits);
    } else {
        out.push_str(&digits[..1]);
        if count > 1 {
            out.push('.');
            out.push_str(&digits[1..]);
        }
        out.push('e');
        out.push_str(if point > 0 { "+" } else { "" });
        out.push_str(&(point - 1).to_string());
    }
}

fn write_raw(out: &mut String, raw: &str) -> std::result::Result<(), String> {
    match raw.as_bytes().first() {
        Some(b'{') => {
            let mut members = object_members(raw)?;
            members.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
            out.push('{');
            for (i, (name, value)) in members.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_string(out, name);
                out.push(':');
                write_raw(out, value)?;
            }
            out.push('}');
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(raw).map_err(|e| e.to_string())?;
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_raw(out, item.get())?;
            }
            out.push(']');
        }
        Some(b'"') => {
            let Str(text) = serde_json::from_str(raw).map_err(|e| e.to_string())?;
            write_string(out, &text);
        }
        Some(b't' | b'f' | b'n') => out.push_str(raw),
        _ => match canonical_number(raw) {
            Some(number) => out.push_str(&number),
            None => return Err(format!("the exponent of {} is out of range", raw.chars().take(60).collect::<String>())),
        },
    }
    Ok(())
}
