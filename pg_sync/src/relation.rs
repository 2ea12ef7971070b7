//! Relations by the names that the core and its callers have for them.
//!
//! The core's name of a table is its own name, with its schema in front unless that is `public`; in the catalogue's case, and unquoted
//! but for a name that has a dot in it or begins with a quote: no two relations have the same.
#![allow(unsafe_code)]

use crate::captured::attribute;
use crate::quote::{Identifier, c_string, owned};
use crate::spi::{self, Parameter, View};
use crate::transaction::in_subtransaction;
use pgrx::pg_sys::{self, Oid};
use sync_shared::{Result, ValueRef};

/// The relation of a name of the core's.
pub fn by_name(name: &str) -> Option<Oid> {
    if name.contains('\0') {
        return None;
    }
    let (first, rest) = part(name)?;
    let (schema, table) = match rest.strip_prefix('.') {
        Some(rest) => (first, part(rest).filter(|(_, rest)| rest.is_empty())?.0),
        None => ("public".to_owned(), first),
    };
    // SAFETY: look-ups in the catalogue.
    let oid = unsafe {
        let schema = pg_sys::get_namespace_oid(c_string(&schema).as_ptr(), true);
        pg_sys::get_relname_relid(c_string(&table).as_ptr(), schema)
    };
    (oid != Oid::INVALID).then_some(oid)
}

/// The first part of a core's name, and what follows it.
fn part(name: &str) -> Option<(String, &str)> {
    let Some(quoted) = name.strip_prefix('"') else {
        let (first, rest) = name.split_at(name.find('.').unwrap_or(name.len()));
        return Some((first.to_owned(), rest));
    };
    let mut end = 0;
    loop {
        end += quoted[end..].find('"')? + 1;
        if !quoted[end..].starts_with('"') {
            break;
        }
        end += 1;
    }
    Some((quoted[..end - 1].replace("\"\"", "\""), &quoted[end..]))
}

/// The core's name of a relation.
pub fn name_of(relation: Oid) -> String {
    let written = |part: String| if part.contains('.') || part.starts_with('"') { Identifier(&part).to_string() } else { part };
    with_schema(relation, written)
}

/// The name that a relation has on the wire if it is given no other.
pub fn wire_name_of(relation: Oid) -> String {
    with_schema(relation, |part| part)
}

fn with_schema(relation: Oid, written: impl Fn(String) -> String) -> String {
    // SAFETY: look-ups in the catalogue.
    let (schema, name) =
        unsafe { (owned(pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation))), owned(pg_sys::get_rel_name(relation))) };
    if schema == "public" { written(name) } else { format!("{}.{}", written(schema), written(name)) }
}

/// The core's name of what a caller means: read like a regclass, by the caller's search path. What is no relation stays as it is.
pub fn meant(name: &str) -> String {
    let Ok(parameter) = Parameter::of(ValueRef::Text(name)) else { return name.to_owned() };
    let found = in_subtransaction(|| {
        let sql = "SELECT pg_catalog.to_regclass($1)::pg_catalog.oid";
        spi::run(sql, &[parameter], View::Latest, |rows| Ok(rows.datum(0, 0))).ok().and_then(|(_, oid)| oid)
    });
    match found {
        Ok(Some(oid)) => name_of(Oid::from_u32(oid.value() as u32)),
        _ => name.to_owned(),
    }
}

pub struct LiveColumn {
    pub name: String,
    pub oid: Oid,
    pub typmod: i32,
    pub collation: Oid,
    pub number: i16,
    /// It numbers itself, or has another default.
    pub has_default: bool,
}

/// The columns of a relation that hold data of their own.
pub fn columns(relation: Oid) -> Vec<LiveColumn> {
    // SAFETY: the relation is open while its descriptor is read.
    unsafe {
        let open = pg_sys::relation_open(relation, pg_sys::AccessShareLock as i32);
        let descriptor = (*open).rd_att;
        let mut columns = Vec::new();
        for place in 0..(*descriptor).natts as usize {
            let attribute = attribute(descriptor, place);
            if attribute.attisdropped || attribute.attgenerated != 0 {
                continue;
            }
            let (oid, typmod, collation, number) = (attribute.atttypid, attribute.atttypmod, attribute.attcollation, attribute.attnum);
            let has_default = attribute.atthasdef || attribute.attidentity != 0;
            columns.push(LiveColumn { name: owned(attribute.attname.data.as_ptr()), oid, typmod, collation, number, has_default });
        }
        pg_sys::relation_close(open, pg_sys::NoLock as i32);
        columns
    }
}

/// A type as DDL names it.
pub fn type_name(oid: Oid, typmod: i32) -> String {
    // SAFETY: a look-up in the catalogue.
    owned(unsafe { pg_sys::format_type_with_typemod(oid, typmod) })
}

/// The sequence that numbers a column.
pub fn sequence_of(relation: Oid, column: &str) -> Result<Option<Oid>> {
    let sql = "SELECT pg_catalog.pg_get_serial_sequence($1, $2)::pg_catalog.regclass::pg_catalog.oid";
    let parameters = [Parameter::of(ValueRef::Text(&crate::quote::qualified(relation)))?, Parameter::of(ValueRef::Text(column))?];
    let (_, sequence) = spi::run(sql, &parameters, View::Latest, |rows| Ok(rows.datum(0, 0)))?;
    Ok(sequence.map(|oid| Oid::from_u32(oid.value() as u32)))
}

/// Is the primary key checked at once, so that it can decide an ON CONFLICT?
pub fn key_is_immediate(relation: Oid) -> bool {
    // SAFETY: the relation is open while its index is looked up.
    unsafe {
        let open = pg_sys::relation_open(relation, pg_sys::AccessShareLock as i32);
        pg_sys::RelationGetIndexList(open);
        let key = (*open).rd_pkindex;
        pg_sys::relation_close(open, pg_sys::NoLock as i32);
        if key == Oid::INVALID {
            return false;
        }
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::INDEXRELID as i32, pg_sys::Datum::from(key));
        if tuple.is_null() {
            return false;
        }
        let immediate = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_index>()).indimmediate;
        pg_sys::ReleaseSysCache(tuple);
        immediate
    }
}
