//! Would a table's policies show the caller a row that is not there any more?
//!
//! Capture keeps of a row what the policies of its table refer to, as it was before a change (`Captured::image`). Their expressions are
//! asked of that, as the caller. What cannot be asked is not shown.
#![allow(unsafe_code)]

use crate::definer::Definer;
use crate::host::PgHost;
use crate::pinned::Pinned;
use crate::quote::{Identifier, c_string, owned};
use crate::spi::{self, Parameter, View};
use crate::transaction::in_subtransaction;
use crate::{captured, install};
use pgrx::pg_sys::{self, Datum, Oid};
use std::collections::BTreeMap;
use sync_shared::{Error, Result, Row as _, Scope, Table, ValueRef};

/// What a row was, by columns; NULL is None.
pub type Image = BTreeMap<String, Option<String>>;

pub struct Policy {
    relation: Oid,
    /// A query that has a row if the policies show the row in `$1`; None if none shows any.
    sql: Option<String>,
    /// The columns that it refers to.
    needed: Vec<String>,
}

impl Policy {
    /// What the policies of a table say to the caller who reads it.
    pub fn of(host: &mut PgHost, table: &Table) -> Result<Policy> {
        let relation = install::relation_of(host, table)?.ok_or_else(|| Error::not_found(&table.table_name))?;
        // SAFETY: plain state of the backend.
        let user = unsafe { pg_sys::GetUserId() };
        let _definer = Definer::enter(host.extension.owner);
        let (mut any, mut every, mut needed) = (Vec::new(), Vec::new(), Vec::new());
        let sql = "SELECT pg_get_expr(p.polqual, p.polrelid), p.polpermissive, \
                   (SELECT json_agg(a.attname)::text FROM pg_depend AS d JOIN pg_attribute AS a ON a.attrelid = p.polrelid \
                   AND a.attnum = d.refobjsubid WHERE d.classid = 'pg_policy'::regclass AND d.objid = p.oid \
                   AND d.refclassid = 'pg_class'::regclass AND d.refobjid = p.polrelid AND d.refobjsubid > 0) \
                   FROM pg_policy AS p WHERE p.polrelid = $1::oid AND p.polcmd IN ('r', '*') AND p.polqual IS NOT NULL \
                   AND EXISTS (SELECT 1 FROM unnest(p.polroles) AS r (role) WHERE r.role = 0 OR pg_has_role($2::oid, r.role, 'USAGE'))";
        let number = |oid: Oid| Parameter::of(ValueRef::Integer(i64::from(oid.to_u32())));
        spi::run(sql, &[number(relation)?, number(user)?], View::Latest, |rows| {
            for at in 0..rows.len() {
                let row = rows.row(at)?;
                let terms = if row.integer(1)? != 0 { &mut any } else { &mut every };
                terms.push(format!("({})", row.text(0)?));
                if let Some(names) = row.optional_text(2)? {
                    needed.extend(serde_json::from_str::<Vec<String>>(&names).map_err(Error::corrupt)?);
                }
            }
            Ok(())
        })?;
        // A whole row is more than what was kept of it.
        let is_whole = any.iter().chain(&every).any(|term| term.contains(".*"));
        let sql = (!any.is_empty() && !is_whole).then(|| {
            every.push(format!("({})", any.join(" OR ")));
            // SAFETY: a look-up in the catalogue.
            let name = owned(unsafe { pg_sys::get_rel_name(relation) });
            format!("SELECT 1 FROM pg_catalog.unnest(ARRAY[$1]) AS {} WHERE {}", Identifier(&name), every.join(" AND "))
        });
        Ok(Policy { relation, sql, needed })
    }

    /// Would the caller have seen a row that was this?
    pub fn shows(&self, image: &str) -> Result<bool> {
        let image: Image = serde_json::from_str(image).map_err(Error::corrupt)?;
        self.shows_image(&image)
    }

    pub fn shows_image(&self, image: &Image) -> Result<bool> {
        let Some(sql) = self.sql.as_deref().filter(|_| self.needed.iter().all(|name| image.contains_key(name))) else { return Ok(false) };
        let asked = in_subtransaction(|| {
            let row = Parameter { oid: self.row_type(), datum: Some(self.row(image)) };
            spi::read_sheltered(sql, &[row], 1, |rows| Ok(rows.len() > 0))
        });
        match asked {
            Ok(shows) => shows,
            Err(error) if error.scope == Scope::Call => Err(error.into()),
            Err(_) => Ok(false),
        }
    }

    fn row_type(&self) -> Oid {
        // SAFETY: a look-up in the catalogue.
        unsafe { pg_sys::get_rel_type_id(self.relation) }
    }

    /// A row of the table's type with these values.
    fn row(&self, image: &Image) -> Datum {
        let _pinned = Pinned::enter();
        // SAFETY: the relation is open while its descriptor is used; the values are made by the columns' own input functions.
        unsafe {
            let open = pg_sys::relation_open(self.relation, pg_sys::AccessShareLock as i32);
            let descriptor = (*open).rd_att;
            let width = (*descriptor).natts as usize;
            let (mut values, mut nulls) = (vec![Datum::null(); width], vec![true; width]);
            for place in 0..width {
                let attribute = captured::attribute(descriptor, place);
                let name = owned(attribute.attname.data.as_ptr());
                let Some(Some(text)) = image.get(&name).filter(|_| !attribute.attisdropped) else { continue };
                let (mut input, mut io_parameter) = (Oid::INVALID, Oid::INVALID);
                pg_sys::getTypeInputInfo(attribute.atttypid, &mut input, &mut io_parameter);
                let text = c_string(text);
                values[place] = pg_sys::OidInputFunctionCall(input, text.as_ptr().cast_mut(), io_parameter, attribute.atttypmod);
                nulls[place] = false;
            }
            let tuple = pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            let row = pg_sys::heap_copy_tuple_as_datum(tuple, descriptor);
            pg_sys::relation_close(open, pg_sys::NoLock as i32);
            row
        }
    }
}
