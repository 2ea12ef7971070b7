//! The one way a name gets into SQL, and how SQLSTATEs are written.

use pgrx::pg_sys;
use std::ffi::{CStr, CString};
use std::fmt::{Display, Formatter, Result};

/// A quoted identifier.
#[derive(Clone, Copy)]
pub struct Identifier<'a>(pub &'a str);

/// A quoted literal.
#[derive(Clone, Copy)]
pub struct Literal<'a>(pub &'a str);

impl Display for Identifier<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

impl Display for Literal<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        // With backslashes doubled and the E in front it reads the same whatever standard_conforming_strings is.
        write!(f, "E'{}'", self.0.replace('\\', "\\\\").replace('\'', "''"))
    }
}

/// Quoted identifiers with commas between.
pub fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|n| Identifier(n).to_string()).collect::<Vec<_>>().join(", ")
}

/// A text for the server; one with a NUL inside ends there.
pub fn c_string(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}

/// A text of the server.
#[allow(unsafe_code)]
pub fn owned(text: *const std::ffi::c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the server ends its texts with NUL.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// `schema.table`, quoted, of a relation.
#[allow(unsafe_code)]
pub fn qualified(relation: pg_sys::Oid) -> String {
    // SAFETY: both look up the catalogue and give NULL for what is not there.
    let (schema, name) =
        unsafe { (owned(pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation))), owned(pg_sys::get_rel_name(relation))) };
    format!("{}.{}", Identifier(&schema), Identifier(&name))
}

/// The five characters of an SQLSTATE, six bits each, the first lowest.
pub fn sqlstate_name(number: i32) -> String {
    (0..5).map(|place| char::from((((number >> (6 * place)) & 0x3f) as u8) + b'0')).collect()
}

/// A relation's name in a statement over its rows. Those of tables that inherit from it are not its own: they have keys and triggers of theirs.
pub fn rows_of(relation: pg_sys::Oid) -> String {
    // SAFETY: a look-up in the catalogue.
    let is_partitioned = unsafe { pg_sys::get_rel_relkind(relation) } as u8 == pg_sys::RELKIND_PARTITIONED_TABLE;
    let name = qualified(relation);
    if is_partitioned { name } else { format!("ONLY {name}") }
}
