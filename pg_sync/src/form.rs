//! How a type's values look in JSON (TYPES.md), whatever the session's settings are, and as the core's values.
#![allow(unsafe_code)]

use crate::pinned::Pinned;
use crate::quote::owned;
use crate::spi::{text, with_bytes};
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::c_int;
use std::fmt::Write as _;
use sync_shared::{Portable, Result, Value, ValueRef, push_hex, write_payload, write_string};

/// Days from the Julian day 0 to 2000-01-01, from which the server counts.
const EPOCH_DAY: i32 = 2_451_545;
const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

unsafe extern "C-unwind" {
    fn j2date(day: c_int, year: *mut c_int, month: *mut c_int, of_month: *mut c_int);
}

/// What a type is, as far as its values on the wire go.
#[derive(Clone, Debug)]
pub enum Form {
    Boolean,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    /// text, varchar
    Text,
    /// char(n): its padding is not part of the value.
    Padded,
    Uuid,
    Timestamp,
    TimestampTz,
    Date,
    Json,
    Bytea,
    Array(Box<Element>),
    /// Everything else travels as its text, by this output function.
    Other { output: Oid, portable: Portable },
}

#[derive(Clone, Debug)]
pub struct Element {
    form: Form,
    oid: Oid,
    length: i16,
    by_value: bool,
    align: std::ffi::c_char,
    /// What stands between two elements in the text of an array.
    pub delimiter: char,
    /// Output function of the array itself.
    output: Oid,
}

impl Form {
    pub fn of(oid: Oid) -> Form {
        // SAFETY: a look-up in the catalogue.
        let base = unsafe { pg_sys::getBaseType(oid) };
        match base {
            pg_sys::BOOLOID => Form::Boolean,
            pg_sys::INT2OID => Form::Int2,
            pg_sys::INT4OID => Form::Int4,
            pg_sys::INT8OID => Form::Int8,
            pg_sys::FLOAT4OID => Form::Float4,
            pg_sys::FLOAT8OID => Form::Float8,
            pg_sys::NUMERICOID => Form::Numeric,
            pg_sys::TEXTOID | pg_sys::VARCHAROID => Form::Text,
            pg_sys::BPCHAROID => Form::Padded,
            pg_sys::UUIDOID => Form::Uuid,
            pg_sys::TIMESTAMPOID => Form::Timestamp,
            pg_sys::TIMESTAMPTZOID => Form::TimestampTz,
            pg_sys::DATEOID => Form::Date,
            pg_sys::JSONOID => Form::Json,
            pg_sys::BYTEAOID => Form::Bytea,
            pg_sys::JSONBOID => Form::Other { output: output_of(base), portable: Portable::Json },
            pg_sys::TIMEOID | pg_sys::TIMETZOID => Form::Other { output: output_of(base), portable: Portable::Time },
            _ => Form::array_or_other(base),
        }
    }

    fn array_or_other(base: Oid) -> Form {
        // SAFETY: look-ups in the catalogue.
        unsafe {
            let element = pg_sys::get_element_type(base);
            if element == Oid::INVALID {
                return Form::Other { output: output_of(base), portable: Portable::Text };
            }
            let (mut length, mut by_value, mut align, mut delimiter) = (0, false, 0, 0);
            let (mut parameter, mut function) = (Oid::INVALID, Oid::INVALID);
            let output = pg_sys::IOFuncSelector::IOFunc_output;
            pg_sys::get_type_io_data(element, output, &mut length, &mut by_value, &mut align, &mut delimiter, &mut parameter, &mut function);
            let delimiter = char::from(delimiter as u8);
            let (form, output) = (Form::of(element), output_of(base));
            Form::Array(Box::new(Element { form, oid: element, length, by_value, align, delimiter, output }))
        }
    }

    pub fn portable(&self) -> Portable {
        match self {
            Form::Boolean => Portable::Boolean,
            Form::Int2 | Form::Int4 | Form::Int8 => Portable::Int,
            Form::Float4 | Form::Float8 => Portable::Real,
            Form::Numeric => Portable::Decimal,
            Form::Text | Form::Padded => Portable::Text,
            Form::Uuid => Portable::Uuid,
            Form::Timestamp | Form::TimestampTz => Portable::Datetime,
            Form::Date => Portable::Date,
            Form::Json | Form::Array(_) => Portable::Json,
            Form::Bytea => Portable::Blob,
            Form::Other { portable, .. } => *portable,
        }
    }

    /// Appends a value as it stands in a payload.
    pub fn write_json(&self, out: &mut String, datum: Datum) -> Result<()> {
        match self {
            Form::Boolean => out.push_str(if datum.value() != 0 { "true" } else { "false" }),
            Form::Text => with_bytes(datum, |bytes| match std::str::from_utf8(bytes) {
                Ok(text) => {
                    write_string(out, text);
                    Ok(())
                }
                Err(_) => text_error(),
            })?,
            Form::Bytea => with_bytes(datum, |bytes| {
                out.push_str("{\"$blob\":\"");
                push_hex(out, bytes);
                out.push_str("\"}");
            }),
            Form::Float4 => write_float4(out, f32::from_bits(datum.value() as u32)),
            Form::Numeric => {
                let digits = digits_of(datum);
                match digits.as_bytes().last() {
                    Some(b'0'..=b'9') => out.push_str(&digits),
                    _ => {
                        write!(out, "{{\"$decimal\":\"{digits}\"}}").ok();
                    }
                }
            }
            _ => write_payload(out, self.value(datum)?.as_ref()),
        }
        Ok(())
    }

    /// A value as the core compares and hashes it: one for every datum.
    pub fn value(&self, datum: Datum) -> Result<Value> {
        Ok(match self {
            Form::Boolean => Value::Integer(i64::from(datum.value() != 0)),
            Form::Int2 => Value::Integer(i64::from(datum.value() as i16)),
            Form::Int4 => Value::Integer(i64::from(datum.value() as i32)),
            Form::Int8 => Value::Integer(datum.value() as i64),
            Form::Float4 => Value::Real(widened(f32::from_bits(datum.value() as u32))),
            Form::Float8 => Value::Real(f64::from_bits(datum.value() as u64)),
            Form::Text => Value::Text(text(datum)?),
            Form::Padded => Value::Text(text(datum)?.trim_end_matches(' ').to_owned()),
            Form::Json => Value::Text(text(datum)?),
            Form::Bytea => Value::Blob(with_bytes(datum, <[u8]>::to_vec)),
            Form::Uuid => Value::Text(uuid(datum)),
            Form::Timestamp => Value::Text(timestamp(datum.value() as i64, "")),
            Form::TimestampTz => Value::Text(timestamp(datum.value() as i64, "Z")),
            Form::Date => Value::Text(date(datum.value() as i32)),
            Form::Numeric => Value::Text(digits_of(datum)),
            Form::Array(element) => Value::Text(element.array(datum)?),
            Form::Other { output: function, .. } => Value::Text(output(*function, datum)),
        })
    }
}

impl Element {
    /// Is the type the server's own, with nobody else's casts?
    pub fn is_builtin(&self) -> bool {
        self.oid.to_u32() < pg_sys::FirstNormalObjectId
    }

    /// The array as canonical JSON; one whose bounds do not begin at 1 as its text.
    fn array(&self, datum: Datum) -> Result<String> {
        // SAFETY: the datum is an array of this element type.
        unsafe {
            let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            let count = (*array).ndim as usize;
            let dimensions = std::slice::from_raw_parts(array.add(1).cast::<i32>(), 2 * count);
            if dimensions[count..].iter().any(|&lowest| lowest != 1) {
                return Ok(output(self.output, datum));
            }
            let (mut values, mut nulls, mut length) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
            pg_sys::deconstruct_array(
                array, self.oid, i32::from(self.length), self.by_value, self.align, &mut values, &mut nulls, &mut length,
            );
            let mut out = String::from(if count == 0 { "[" } else { "" });
            for place in 0..length as usize {
                if place > 0 {
                    out.push(',');
                }
                // Where a row of an inner dimension begins, its bracket opens.
                let mut run = 1;
                for &size in dimensions[..count].iter().rev() {
                    run *= size as usize;
                    if place.is_multiple_of(run) {
                        out.push('[');
                    }
                }
                match *nulls.add(place) {
                    true => out.push_str("null"),
                    false => self.form.write_json(&mut out, *values.add(place))?,
                }
                let mut run = 1;
                for &size in dimensions[..count].iter().rev() {
                    run *= size as usize;
                    if (place + 1).is_multiple_of(run) {
                        out.push(']');
                    }
                }
            }
            out.push_str(if count == 0 { "]" } else { "" });
            Ok(out)
        }
    }
}

fn output_of(oid: Oid) -> Oid {
    let (mut function, mut is_varlena) = (Oid::INVALID, false);
    // SAFETY: a look-up in the catalogue.
    unsafe { pg_sys::getTypeOutputInfo(oid, &mut function, &mut is_varlena) };
    function
}

/// A value by its output function, with the settings that it may depend on held fixed.
fn output(function: Oid, datum: Datum) -> String {
    let _pinned = Pinned::enter();
    // SAFETY: the function is the output function of the datum's type; what it returns is freed.
    unsafe {
        let given = pg_sys::OidOutputFunctionCall(function, datum);
        let text = owned(given);
        pg_sys::pfree(given.cast());
        text
    }
}

/// A numeric's digits, which depend on no setting.
fn digits_of(datum: Datum) -> String {
    // SAFETY: the function's text is copied and freed.
    unsafe {
        let given = pgrx::direct_function_call_as_datum(pg_sys::numeric_out, &[Some(datum)]);
        let text = given.map_or(std::ptr::null_mut(), |d| d.cast_mut_ptr::<std::ffi::c_char>());
        let digits = owned(text);
        pg_sys::pfree(text.cast());
        digits
    }
}

fn text_error() -> Result<()> {
    Err(sync_shared::Error::argument("a text is not valid UTF-8; the database has to be in the encoding UTF8"))
}

fn write_float4(out: &mut String, real: f32) {
    match real.is_finite() {
        true => out.push_str(ryu::Buffer::new().format_finite(real)),
        false => write_payload(out, ValueRef::Real(f64::from(real))),
    }
}

/// The double precision number that has the same shortest digits.
fn widened(real: f32) -> f64 {
    match real.is_finite() {
        true => ryu::Buffer::new().format_finite(real).parse().unwrap_or(f64::from(real)),
        false => f64::from(real),
    }
}

fn uuid(datum: Datum) -> String {
    // SAFETY: a uuid is 16 bytes by reference.
    let bytes = unsafe { std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), 16) };
    let mut out = String::with_capacity(36);
    for (place, byte) in bytes.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        push_hex(&mut out, &[*byte]);
    }
    out
}

/// A number with leading zeros.
fn push_digits(out: &mut String, number: i32, width: u32) {
    for place in (0..width).rev() {
        out.push(char::from(b'0' + (number / 10i32.pow(place) % 10) as u8));
    }
}

/// A year before Christ is written as the server does: positive, with BC at the end.
fn write_day(out: &mut String, day: i32) -> &'static str {
    let (mut year, mut month, mut of_month) = (0, 0, 0);
    // SAFETY: plain arithmetic, which raises nothing.
    unsafe { j2date(day.wrapping_add(EPOCH_DAY), &mut year, &mut month, &mut of_month) };
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    match year {
        0..=9999 => push_digits(out, year, 4),
        _ => out.push_str(&year.to_string()),
    }
    out.push('-');
    push_digits(out, month, 2);
    out.push('-');
    push_digits(out, of_month, 2);
    era
}

fn date(day: i32) -> String {
    match day {
        i32::MAX => "infinity".to_owned(),
        i32::MIN => "-infinity".to_owned(),
        _ => {
            let mut out = String::with_capacity(10);
            let era = write_day(&mut out, day);
            out.push_str(era);
            out
        }
    }
}

fn timestamp(microseconds: i64, zone: &str) -> String {
    if microseconds == i64::MAX || microseconds == i64::MIN {
        return if microseconds > 0 { "infinity" } else { "-infinity" }.to_owned();
    }
    let (day, time) = (microseconds.div_euclid(MICROSECONDS_PER_DAY), microseconds.rem_euclid(MICROSECONDS_PER_DAY));
    let mut out = String::with_capacity(27);
    let era = write_day(&mut out, day as i32);
    let (seconds, fraction) = (time / 1_000_000, time % 1_000_000);
    for (lead, part) in [('T', seconds / 3600), (':', seconds / 60 % 60), (':', seconds % 60)] {
        out.push(lead);
        push_digits(&mut out, part as i32, 2);
    }
    out.push('.');
    match fraction % 1000 {
        0 => push_digits(&mut out, (fraction / 1000) as i32, 3),
        _ => push_digits(&mut out, fraction as i32, 6),
    }
    out.push_str(zone);
    out.push_str(era);
    out
}
