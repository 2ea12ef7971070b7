//! What capture knows of a relation: its synced columns as they are now. Kept per backend until the relation changes.
#![allow(unsafe_code)]

use crate::convert::member;
use crate::definer::Definer;
use crate::extension::Extension;
use crate::form::Form;
use crate::living::FindLiving;
use crate::pinned::Pinned;
use crate::policy::Image;
use crate::quote::owned;
use crate::relation;
use crate::spi::{self, Parameter, Session, View};
use pgrx::pg_sys::{self, Datum, HeapTuple, Oid, Relation, TupleDesc};
use serde_json::Value as Json;
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use sync_shared::{Error, Result, Row as _, ValueRef};

/// A column as capture writes it.
#[derive(Debug)]
pub struct Column {
    /// Its place in the relation's tuples.
    pub place: usize,
    pub name: String,
    /// `"name":`
    pub member: String,
    pub form: Form,
    pub by_value: bool,
    pub length: i16,
}

/// A tracked table, or a partition of one.
#[derive(Debug)]
pub struct Captured {
    /// `_sync_tables.table_id`
    pub table: i64,
    /// This replica's id in `_sync_origins`.
    pub origin: i64,
    /// In the order of a payload.
    pub columns: Vec<Column>,
    /// The key's columns in the order of `pk_value`: indices into `columns`.
    pub key: Vec<usize>,
    /// What the policies of the table refer to; None without row-level security.
    kept: Option<Vec<KeptColumn>>,
    /// The tracked table itself.
    pub root: Oid,
    /// Is the primary key checked late?
    pub is_key_late: bool,
    find_living: OnceCell<FindLiving>,
}

/// A column that policies refer to.
#[derive(Debug)]
struct KeptColumn {
    name: String,
    /// In the tuples of this relation.
    place: usize,
    output: Oid,
}

thread_local! {
    static KNOWN: RefCell<HashMap<Oid, Rc<Captured>>> = RefCell::new(HashMap::new());
    /// Where the server puts a tuple's values.
    static DEFORMED: RefCell<(Vec<Datum>, Vec<bool>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// A relation changed: what was known of it is not true any more.
pub fn forget(relation: Oid) {
    KNOWN.with_borrow_mut(|known| match relation {
        Oid::INVALID => known.clear(),
        _ => {
            known.retain(|oid, captured| *oid != relation && captured.root != relation);
        }
    });
}

impl Captured {
    /// What is known of a relation that belongs to a table of this id.
    pub fn of(extension: &Extension, relation: Relation, table: i64) -> Result<Rc<Captured>> {
        // SAFETY: an open relation.
        let oid = unsafe { (*relation).rd_id };
        if let Some(known) = KNOWN.with_borrow(|known| known.get(&oid).cloned()).filter(|k| k.table == table) {
            return Ok(known);
        }
        let captured = Rc::new(Captured::load(extension, relation, table)?);
        KNOWN.with_borrow_mut(|known| known.insert(oid, captured.clone()));
        Ok(captured)
    }

    fn load(extension: &Extension, relation: Relation, table: i64) -> Result<Captured> {
        // SAFETY: an open relation.
        let oid = unsafe { (*relation).rd_id };
        let (definition, origin) = stored(extension, oid, table)?;
        let names = |member: &str| -> Vec<String> {
            let items = definition[member].as_array().map_or(&[][..], Vec::as_slice);
            items.iter().filter_map(|c| c.as_str().or(c["name"].as_str()).map(str::to_owned)).collect()
        };
        let (known, exclude) = (names("columns"), names("exclude"));
        // SAFETY: as above.
        let mut columns: Vec<Column> = unsafe { live_columns((*relation).rd_att) };
        columns.retain(|c| !exclude.iter().any(|e| e.eq_ignore_ascii_case(&c.name)));
        // A partition may have its columns in another order than the table.
        columns.sort_by_key(|c| known.iter().position(|k| *k == c.name).unwrap_or(usize::MAX));
        let key_places = definition["key"].as_array().cloned().unwrap_or_default();
        let key_names: Vec<&String> = key_places.iter().filter_map(|k| known.get(k.as_u64()? as usize)).collect();
        let key: Vec<usize> = (0..columns.len()).filter(|&c| key_names.contains(&&columns[c].name)).collect();
        if key.len() != key_names.len() || key.is_empty() {
            let name = crate::quote::qualified(oid);
            return Err(Error::new(
                sync_shared::Kind::SchemaMismatch,
                format!("a column of the key of {name} is gone; call sync_track_table or sync_untrack_table"),
            ));
        }
        let (root, kept) = kept_columns(extension, relation, table)?;
        let is_key_late = !relation::key_is_immediate(root);
        Ok(Captured { table, origin, columns, key, kept, root, is_key_late, find_living: OnceCell::new() })
    }

    /// The values of a tuple, by place.
    pub fn values(&self, tuple: HeapTuple, descriptor: TupleDesc) -> Vec<Option<Datum>> {
        DEFORMED.with_borrow_mut(|(values, nulls)| {
            // SAFETY: the tuple is one of this descriptor.
            unsafe {
                let width = (*descriptor).natts as usize;
                values.resize(width, Datum::null());
                nulls.resize(width, false);
                pg_sys::heap_deform_tuple(tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            }
            values.iter().zip(nulls).map(|(value, null)| (!*null).then_some(*value)).collect()
        })
    }

    /// Appends `pk_value`.
    pub fn write_key(&self, out: &mut String, values: &[Option<Datum>]) -> Result<()> {
        self.write(out, self.key.iter().map(|&c| &self.columns[c]), values)
    }

    /// Appends a payload.
    pub fn write_row(&self, out: &mut String, values: &[Option<Datum>]) -> Result<()> {
        self.write(out, self.columns.iter(), values)
    }

    fn write<'c>(&self, out: &mut String, columns: impl Iterator<Item = &'c Column>, values: &[Option<Datum>]) -> Result<()> {
        let mut separator = '{';
        for column in columns {
            out.push(separator);
            separator = ',';
            out.push_str(&column.member);
            column.write_value(out, values)?;
        }
        out.push('}');
        Ok(())
    }

    /// Places of the columns that a delete is logged with.
    pub fn needed_to_delete(&self) -> Vec<usize> {
        let key = self.key.iter().map(|&column| self.columns[column].place);
        let mut places: Vec<usize> = key.chain(self.kept.iter().flatten().map(|kept| kept.place)).collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// What is kept of a row that is about to be another, or gone; see [`crate::policy`].
    pub fn image(&self, values: &[Option<Datum>]) -> Result<Option<String>> {
        let Some(kept) = &self.kept else { return Ok(None) };
        let _pinned = Pinned::enter();
        let image = kept.iter().map(|column| {
            // SAFETY: the output function of the column's type.
            let text = |datum| unsafe { owned(pg_sys::OidOutputFunctionCall(column.output, datum)) };
            (column.name.clone(), values[column.place].map(text))
        });
        serde_json::to_string(&image.collect::<Image>()).map(Some).map_err(Error::corrupt)
    }

    /// The payload of the row that has the key of these values now, which is `pk_value`; see [`crate::living`].
    pub fn living(&self, pk_value: &str, values: &[Option<Datum>]) -> Result<Option<String>> {
        let find = self.find_living.get_or_init(|| {
            let names: Vec<&str> = self.columns.iter().map(|c| c.name.as_str()).collect();
            FindLiving::new(self.root, &names, &self.key)
        });
        find.payload(self, pk_value, values)
    }

    /// Do two tuples agree in these columns, bit for bit?
    pub fn agree<'c>(&self, columns: impl Iterator<Item = &'c Column>, a: &[Option<Datum>], b: &[Option<Datum>]) -> bool {
        let mut columns = columns;
        columns.all(|c| match (a[c.place], b[c.place]) {
            (None, None) => true,
            (Some(a), Some(b)) => same_image(a, b, c.by_value, c.length),
            _ => false,
        })
    }
}

impl Column {
    /// Appends the column's value as it stands in a payload.
    pub fn write_value(&self, out: &mut String, values: &[Option<Datum>]) -> Result<()> {
        match values[self.place] {
            None => out.push_str("null"),
            Some(datum) => self.form.write_json(out, datum)?,
        }
        Ok(())
    }
}

/// The columns of a relation that hold data of their own: not dropped, not generated.
///
/// # Safety
/// The descriptor is that of an open relation.
pub unsafe fn live_columns(descriptor: TupleDesc) -> Vec<Column> {
    let mut columns = Vec::new();
    for place in 0..unsafe { (*descriptor).natts } as usize {
        let attribute = unsafe { attribute(descriptor, place) };
        if attribute.attisdropped || attribute.attgenerated != 0 {
            continue;
        }
        let name = owned(attribute.attname.data.as_ptr());
        let (form, by_value, length) = (Form::of(attribute.atttypid), attribute.attbyval, attribute.attlen);
        columns.push(Column { place, member: member(&name), name, form, by_value, length });
    }
    columns
}

/// # Safety
/// The place is within the descriptor of an open relation.
pub unsafe fn attribute<'d>(descriptor: TupleDesc, place: usize) -> &'d pg_sys::FormData_pg_attribute {
    unsafe {
        #[cfg(not(feature = "pg18"))]
        let first = (*descriptor).attrs.as_ptr();
        #[cfg(feature = "pg18")]
        let first = (*descriptor)
            .compact_attrs
            .as_ptr()
            .add((*descriptor).natts as usize)
            .cast::<pg_sys::FormData_pg_attribute>();
        &*first.add(place)
    }
}

pub fn same_image(a: Datum, b: Datum, by_value: bool, length: i16) -> bool {
    // SAFETY: both are values of one type, which is stored in this way.
    unsafe {
        let bytes = |datum: Datum, size: usize| std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), size);
        match length {
            _ if by_value => a.value() == b.value(),
            -1 => {
                let size = |datum: Datum| pgrx::varsize_any(datum.cast_mut_ptr());
                (size(a) == size(b) && bytes(a, size(a)) == bytes(b, size(b)))
                    || spi::with_bytes(a, |a| spi::with_bytes(b, |b| a == b))
            }
            -2 => std::ffi::CStr::from_ptr(a.cast_mut_ptr()) == std::ffi::CStr::from_ptr(b.cast_mut_ptr()),
            size => bytes(a, size as usize) == bytes(b, size as usize),
        }
    }
}

/// The tracked table of an id, and what its policies refer to.
fn kept_columns(extension: &Extension, relation: Relation, table: i64) -> Result<(Oid, Option<Vec<KeptColumn>>)> {
    let _session = Session::open();
    let _definer = Definer::enter(extension.owner);
    let sql = format!(
        "SELECT c.oid, c.relrowsecurity, a.attname FROM {}._sync_tables AS t JOIN pg_class AS c ON c.oid = t.relation \
         LEFT JOIN (pg_policy AS p JOIN pg_depend AS d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid \
         AND d.refclassid = 'pg_class'::regclass AND d.refobjid = p.polrelid AND d.refobjsubid > 0 \
         JOIN pg_attribute AS a ON a.attrelid = p.polrelid AND a.attnum = d.refobjsubid) ON p.polrelid = c.oid WHERE t.table_id = $1",
        extension.schema_name
    );
    let (mut root, mut kept) = (Oid::INVALID, None);
    spi::run(&sql, &[Parameter::of(ValueRef::Integer(table))?], View::Latest, |rows| {
        for at in 0..rows.len() {
            let row = rows.row(at)?;
            root = Oid::from_u32(row.integer(0)? as u32);
            if row.integer(1)? == 0 {
                continue;
            }
            let kept: &mut Vec<KeptColumn> = kept.get_or_insert_default();
            let name = row.text(2)?;
            if !name.is_empty() && kept.iter().all(|k| k.name != name) {
                // SAFETY: an open relation.
                kept.extend(unsafe { kept_column((*relation).rd_att, name) });
            }
        }
        Ok(())
    })?;
    Ok((root, kept))
}

/// # Safety
/// The descriptor is that of an open relation.
unsafe fn kept_column(descriptor: TupleDesc, name: &str) -> Option<KeptColumn> {
    unsafe {
        let mut places = 0..(*descriptor).natts as usize;
        let place = places.find(|&place| {
            let attribute = attribute(descriptor, place);
            !attribute.attisdropped && owned(attribute.attname.data.as_ptr()) == name
        })?;
        let (mut output, mut is_varlena) = (Oid::INVALID, false);
        pg_sys::getTypeOutputInfo(attribute(descriptor, place).atttypid, &mut output, &mut is_varlena);
        Some(KeptColumn { name: name.to_owned(), place, output })
    }
}

/// The stored definition of a table that a relation is, or is a partition of; and who this replica is.
fn stored(extension: &Extension, relation: Oid, table: i64) -> Result<(Json, i64)> {
    let _session = Session::open();
    let _definer = Definer::enter(extension.owner);
    let schema = &extension.schema_name;
    let sql = format!(
        "SELECT t.definition, (SELECT s.value::bigint FROM {schema}._sync_state AS s WHERE s.key = 'self_id') \
         FROM {schema}._sync_tables AS t WHERE t.table_id = $1 AND (t.relation = $2::oid OR t.relation IN \
         (SELECT a.relid FROM pg_catalog.pg_partition_ancestors($2::oid) AS a))"
    );
    let parameters = [Parameter::of(ValueRef::Integer(table))?, Parameter::of(ValueRef::Integer(i64::from(relation.to_u32())))?];
    let (_, found) = spi::run(&sql, &parameters, View::Latest, |rows| match rows.len() {
        0 => Ok(None),
        _ => rows.row(0).map(Some),
    })?;
    let row = found.ok_or_else(|| {
        let name = crate::quote::qualified(relation);
        Error::new(
            sync_shared::Kind::TableNotTracked,
            format!("{name} has a capture trigger but is not tracked; drop its triggers named _sync_, or call sync_track_table"),
        )
    })?;
    let text = sync_shared::Row::text(&row, 0)?;
    let origin = sync_shared::Row::integer(&row, 1)?;
    Ok((serde_json::from_str(text).map_err(Error::corrupt)?, origin))
}
