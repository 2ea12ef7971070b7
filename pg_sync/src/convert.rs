//! The core's values as values of a column: exactly, or not at all.
//!
//! What has no direct form goes through the type's input function, and what came out of it has to be, in canonical form, what went in.
#![allow(unsafe_code)]

use crate::form::Form;
use crate::pinned::Pinned;
use crate::quote::{Identifier, c_string, owned};
use crate::spi::varlena;
use crate::transaction::in_subtransaction;
use pgrx::pg_sys::{self, Datum, Oid};
use sync_shared::{Value, write_canonical, write_string};

/// A column's type as values are converted to it.
#[derive(Clone, Debug)]
pub struct ColumnType {
    /// Of the column, for messages.
    pub name: String,
    pub oid: Oid,
    pub typmod: i32,
    pub form: Form,
    /// How values of the type are compared for equality, with its schema: no search path can put another in its place.
    pub equals: String,
    input: Oid,
    io_parameter: Oid,
}

impl ColumnType {
    pub fn new(name: &str, oid: Oid, typmod: i32) -> ColumnType {
        let (mut input, mut io_parameter) = (Oid::INVALID, Oid::INVALID);
        // SAFETY: a look-up in the catalogue.
        unsafe { pg_sys::getTypeInputInfo(oid, &mut input, &mut io_parameter) };
        ColumnType { name: name.to_owned(), oid, typmod, form: Form::of(oid), equals: equality(oid), input, io_parameter }
    }

    /// The value for the column; None for NULL. The error is a sentence. The input function may raise as well.
    pub fn datum(&self, value: &Value) -> Result<Option<Datum>, String> {
        let direct = match (value, &self.form) {
            (Value::Null, _) => return Ok(None),
            (Value::Integer(bit @ 0..=1), Form::Boolean) => Some(Datum::from(*bit == 1)),
            (Value::Integer(i), Form::Int2) => i16::try_from(*i).ok().map(Datum::from),
            (Value::Integer(i), Form::Int4) => i32::try_from(*i).ok().map(Datum::from),
            (Value::Integer(i), Form::Int8) => Some(Datum::from(*i)),
            (Value::Real(r), Form::Float8) => Some(Datum::from(r.to_bits())),
            (Value::Blob(bytes), Form::Bytea) => Some(varlena(bytes)),
            (Value::Text(text), Form::Text) if self.typmod < 0 && !text.contains('\0') => Some(varlena(text.as_bytes())),
            _ => None,
        };
        // A domain has constraints of its own, which only its input function checks.
        if let Some(datum) = direct.filter(|_| !self.is_domain()) {
            return Ok(Some(datum));
        }
        let text = match (value, &self.form) {
            (Value::Text(text), Form::Array(element)) => array_literal(text, element.delimiter).unwrap_or_else(|| text.clone()),
            (Value::Text(text), _) => text.clone(),
            (Value::Integer(i), _) => i.to_string(),
            (Value::Real(r), Form::Float4 | Form::Float8) => r.to_string(),
            (Value::Real(r), Form::Int2 | Form::Int4 | Form::Int8) if r.fract() == 0.0 => r.to_string(),
            (Value::Blob(bytes), Form::Bytea) => {
                let mut hex = String::from("\\x");
                sync_shared::push_hex(&mut hex, bytes);
                hex
            }
            _ => return Err(self.refusal(value)),
        };
        if text.contains('\0') {
            return Err(format!("column {:?}: PostgreSQL cannot hold a NUL character", self.name));
        }
        let datum = {
            let _pinned = Pinned::enter();
            // SAFETY: the type's own input function.
            unsafe { pg_sys::OidInputFunctionCall(self.input, c_string(&text).as_ptr().cast_mut(), self.io_parameter, self.typmod) }
        };
        match self.is_same(value, datum) {
            true => Ok(Some(datum)),
            false => Err(self.refusal(value)),
        }
    }

    /// As [`ColumnType::datum`], but what the input function raises is an error too.
    pub fn datum_caught(&self, value: &Value) -> Result<Option<Datum>, String> {
        let cannot_raise = matches!(
            (value, &self.form),
            (Value::Null, _)
                | (Value::Integer(_), Form::Int2 | Form::Int4 | Form::Int8 | Form::Boolean)
                | (Value::Blob(_), Form::Bytea)
                | (Value::Text(_), Form::Text)
        );
        if cannot_raise && !self.is_domain() && (self.typmod < 0 || !matches!(self.form, Form::Text)) {
            return self.datum(value);
        }
        in_subtransaction(|| self.datum(value)).unwrap_or_else(|error| Err(error.message))
    }

    fn is_domain(&self) -> bool {
        // SAFETY: a look-up in the catalogue.
        unsafe { pg_sys::get_typtype(self.oid) as u8 == pg_sys::TYPTYPE_DOMAIN }
    }

    fn is_same(&self, value: &Value, datum: Datum) -> bool {
        let canonical = |value: &Value| {
            let mut out = String::new();
            write_canonical(&mut out, value.as_ref(), self.form.portable());
            out
        };
        self.form.value(datum).is_ok_and(|held| canonical(&held) == canonical(value))
    }

    fn refusal(&self, value: &Value) -> String {
        let mut shown = String::new();
        sync_shared::write_payload(&mut shown, value.as_ref());
        let shown: String = shown.chars().take(60).collect();
        format!("column {:?} cannot hold {shown} exactly", self.name)
    }
}

/// `OPERATOR(schema.=)` of a type.
fn equality(oid: Oid) -> String {
    // SAFETY: look-ups in the catalogue; the tuple is released again.
    unsafe {
        let operator = (*pg_sys::lookup_type_cache(oid, pg_sys::TYPECACHE_EQ_OPR as i32)).eq_opr;
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::OPEROID as i32, Datum::from(operator));
        if tuple.is_null() {
            return "=".to_owned();
        }
        let found = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_operator>();
        let schema = owned(pg_sys::get_namespace_name(found.oprnamespace));
        let name = owned(found.oprname.data.as_ptr());
        pg_sys::ReleaseSysCache(tuple);
        format!("OPERATOR({}.{name})", Identifier(&schema))
    }
}

/// A JSON array as the server writes arrays; None if it is none.
fn array_literal(json: &str, delimiter: char) -> Option<String> {
    let items: Vec<&serde_json::value::RawValue> = serde_json::from_str(json).ok()?;
    let mut out = String::from("{");
    for (place, item) in items.into_iter().enumerate() {
        if place > 0 {
            out.push(delimiter);
        }
        let raw = item.get();
        match raw.as_bytes().first()? {
            b'[' => out.push_str(&array_literal(raw, delimiter)?),
            b'n' => out.push_str("NULL"),
            b'"' => write_element(&mut out, &serde_json::from_str::<String>(raw).ok()?),
            b'{' => write_element(&mut out, &tagged(raw)?),
            _ => out.push_str(raw),
        }
    }
    out.push('}');
    Some(out)
}

/// What stands in `{"$blob":...}`, `{"$real":...}` or `{"$decimal":...}`.
fn tagged(raw: &str) -> Option<String> {
    let members: serde_json::Map<String, serde_json::Value> = serde_json::from_str(raw).ok()?;
    let (name, value) = members.iter().next()?;
    let text = value.as_str()?;
    match name.as_str() {
        "$blob" => Some(format!("\\x{text}")),
        "$real" | "$decimal" => Some(text.to_owned()),
        _ => None,
    }
}

fn write_element(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
}

/// A column's name as it stands before a member's value.
pub fn member(name: &str) -> String {
    let mut member = String::with_capacity(name.len() + 3);
    write_string(&mut member, name);
    member.push(':');
    member
}
