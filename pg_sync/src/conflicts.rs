//! Which conflicts the caller may see: those of tables that it may read. Where it may not read a table whole, both sides have to be rows
//! that it may see.

use crate::host::PgHost;
use crate::policy::{Image, Policy};
use crate::quote::owned;
use crate::rights::{self, Access, access};
use crate::shown::visible_row;
use crate::tables::TablePlan;
use crate::{log::Stored, pinned::Pinned, relation};
use pgrx::pg_sys::{self, Oid};
use serde_json::Value as Json;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use sync_shared::{Catalog, Error, Kind, Result, Table, object_members, value_for_column};

enum View {
    Whole,
    Columns,
    Rows(Rc<TablePlan>, Policy),
    Hidden,
}

/// What the caller may see of each table's conflicts, looked up as they come.
pub struct Conflicts {
    catalog: Catalog,
    views: HashMap<i64, View>,
    sees_all: bool,
}

impl Conflicts {
    pub fn new(host: &mut PgHost) -> Result<Conflicts> {
        let (_, catalog) = Catalog::open(host)?;
        // SAFETY: plain state of the backend.
        #[allow(unsafe_code)]
        let user = unsafe { pg_sys::GetUserId() };
        Ok(Conflicts { catalog, views: HashMap::new(), sees_all: rights::is_superuser(user) })
    }

    /// May the caller see a conflict of the row of a key in a table, by its name on the wire? The sides are changes, as JSON.
    pub fn shows(&mut self, host: &mut PgHost, name: &str, pk_value: &str, sides: [&str; 2]) -> Result<bool> {
        if self.sees_all {
            return Ok(true);
        }
        let Some(table) = self.catalog.tables.iter().find(|t| t.name == name) else { return Ok(false) };
        let view = match self.views.entry(table.id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(view(host, table)?),
        };
        let payloads = || sides.iter().filter_map(|side| payload_of(side));
        match view {
            View::Whole => Ok(true),
            View::Hidden => Ok(false),
            View::Columns => {
                for payload in payloads() {
                    let members = object_members(&payload).map_err(Error::corrupt)?;
                    if members.iter().any(|(name, _)| table.column_named(name).is_none()) {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            View::Rows(plan, policy) => {
                let mut count = 0;
                for payload in payloads() {
                    count += 1;
                    let image = image(plan, table, &payload)?;
                    if !image.map_or(Ok(false), |image| policy.shows_image(&image))? {
                        return Ok(false);
                    }
                }
                Ok(count > 0 || visible_row(plan, &Stored::new(table, pk_value).key()?)?.is_some())
            }
        }
    }
}

fn view(host: &mut PgHost, table: &Table) -> Result<View> {
    match access(host, table) {
        Ok(Some(Access::WHOLE)) => Ok(View::Whole),
        Ok(Some(Access { rows: true, .. })) => Ok(View::Rows(host.plan(table)?, Policy::of(host, table)?)),
        Ok(Some(_)) => Ok(View::Columns),
        Ok(None) => Ok(View::Hidden),
        Err(error) if error.kind() == Some(Kind::PermissionDenied) => Ok(View::Hidden),
        Err(error) => Err(error),
    }
}

/// The payload of a change; None for a delete.
fn payload_of(change: &str) -> Option<String> {
    let change: Json = serde_json::from_str(change).ok()?;
    match &change["payload"] {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        nested => Some(nested.to_string()),
    }
}

/// A payload as policies are asked about it; None if the table cannot hold it now.
fn image(plan: &TablePlan, table: &Table, payload: &str) -> Result<Option<Image>> {
    let live = relation::columns(plan.relation);
    let mut image = Image::new();
    for (name, raw) in object_members(payload).map_err(Error::corrupt)? {
        let Some(column) = table.column_named(&name) else { return Ok(None) };
        let Ok(value) = value_for_column(raw, &table.columns[column]) else { return Ok(None) };
        let Ok(datum) = plan.columns[column].datum_caught(&value) else { return Ok(None) };
        let Some(found) = live.iter().find(|l| l.name == table.columns[column].name) else { return Ok(None) };
        image.insert(found.name.clone(), datum.map(|datum| text_of(found.oid, datum)));
    }
    Ok(Some(image))
}

#[allow(unsafe_code)]
fn text_of(type_: Oid, datum: pg_sys::Datum) -> String {
    let _pinned = Pinned::enter();
    let (mut output, mut is_varlena) = (Oid::INVALID, false);
    // SAFETY: a value of the type, written by the type's own output function.
    unsafe {
        pg_sys::getTypeOutputInfo(type_, &mut output, &mut is_varlena);
        owned(pg_sys::OidOutputFunctionCall(output, datum))
    }
}
