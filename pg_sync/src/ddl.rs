//! Follows DDL: capture is brought in line with a tracked table in the very transaction that changes the table.
//!
//! It does nothing in a database that was restored and not used yet: its tables are still being built.
#![allow(unsafe_code)]

use crate::call::{guarded, is_inside};
use crate::extension::Extension;
use crate::home::{Home, home};
use crate::quote::owned;
use crate::relation;
use pgrx::pg_sys::{self, Datum};
use pgrx::prelude::*;
use sync_shared::{Catalog, Defaults, Host as _, Result, ValueRef, reconcile};

/// The calling convention of [`sync_follow_ddl`].
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_sync_follow_ddl() -> &'static pg_sys::Pg_finfo_record {
    const RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &RECORD
}

/// The event trigger function `_sync_follow_ddl`.
///
/// # Safety
/// Called by the server.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sync_follow_ddl(fcinfo: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: the context of an event trigger function is its data.
    let (renames_label, new_name) = unsafe {
        let data = (*fcinfo).context.cast::<pg_sys::EventTriggerData>();
        let is_known = !data.is_null() && (*data).type_ == pg_sys::NodeTag::T_EventTriggerData && !(*data).parsetree.is_null();
        if is_known { (renames_label((*data).parsetree), new_name((*data).parsetree)) } else { (false, None) }
    };
    // The DDL of our own functions, this one among them, is theirs to follow.
    if !is_inside() {
        guarded(Extension::of(fcinfo), |host| match home(host)? {
            Home::Here | Home::Earlier if renames_label => follow_label(host),
            Home::Here | Home::Earlier => {
                follow(host)?;
                new_name.map_or(Ok(()), |name| warn_of_exchange(host, &name))
            }
            _ => Ok(()),
        });
    }
    Datum::null()
}

fn follow(host: &mut crate::host::PgHost) -> Result<()> {
    // A table that is gone is not tracked any more; its entries are still served.
    host.execute(
        "UPDATE _sync_tables SET tracked = 0 WHERE tracked = 1 AND NOT EXISTS (SELECT 1 FROM pg_class AS c WHERE c.oid = relation)",
        &[],
    )?;
    host.forget_tables();
    Catalog::open(host).map(|_| ())
}

/// Does a statement give a label of an enumeration another name?
///
/// # Safety
/// The server's own statement.
unsafe fn renames_label(statement: *mut pg_sys::Node) -> bool {
    // SAFETY: as above.
    unsafe {
        let is_enum = (*statement).type_ == pg_sys::NodeTag::T_AlterEnumStmt;
        is_enum && !(*statement.cast::<pg_sys::AlterEnumStmt>()).oldVal.is_null()
    }
}

/// The rows that have the label read differently now, and nothing has written them: what differs is logged.
fn follow_label(host: &mut crate::host::PgHost) -> Result<()> {
    let mut tables: Vec<String> = Vec::new();
    // Also columns of what is made of the type: domains, arrays, composite types and ranges.
    host.query(
        "WITH RECURSIVE changed AS (SELECT objid AS id FROM pg_event_trigger_ddl_commands() WHERE classid = 'pg_type'::regclass UNION \
         SELECT t.oid FROM changed JOIN pg_type AS t ON t.typelem = changed.id OR t.typbasetype = changed.id \
         OR t.oid IN (SELECT rngtypid FROM pg_range WHERE rngsubtype = changed.id) \
         OR t.typrelid IN (SELECT attrelid FROM pg_attribute WHERE atttypid = changed.id AND NOT attisdropped)) \
         SELECT s.table_name FROM _sync_tables AS s WHERE s.tracked = 1 AND EXISTS (SELECT 1 FROM pg_attribute AS a JOIN changed ON changed.id = a.atttypid \
         WHERE a.attrelid = s.relation AND a.attnum > 0 AND NOT a.attisdropped) ORDER BY s.table_id",
        &[],
        &mut |row| {
            tables.push(row.text(0)?.to_owned());
            Ok(true)
        },
    )?;
    tables.iter().try_for_each(|table| reconcile(host, table, Defaults::Left).map(|_| ()))
}

/// The new name that a statement gives to a table.
///
/// # Safety
/// The server's own statement.
unsafe fn new_name(statement: *mut pg_sys::Node) -> Option<String> {
    // SAFETY: as above.
    unsafe {
        let rename = statement.cast::<pg_sys::RenameStmt>();
        let is_table = (*statement).type_ == pg_sys::NodeTag::T_RenameStmt && (*rename).renameType == pg_sys::ObjectType::OBJECT_TABLE;
        is_table.then(|| owned((*rename).newname))
    }
}

/// A table that takes the name of a tracked one, which was renamed, does not take its place: whoever has meant that is told.
fn warn_of_exchange(host: &mut crate::host::PgHost, name: &str) -> Result<()> {
    let mut before = None;
    host.query("SELECT table_name FROM _sync_tables WHERE tracked = 1 AND name = ?1 AND table_name <> ?1", &[ValueRef::Text(name)], &mut |row| {
        before = Some(row.text(0)?.to_owned());
        Ok(false)
    })?;
    if let Some(before) = before.filter(|_| relation::by_name(name).is_some()) {
        ereport!(
            WARNING,
            PgSqlErrorCode::ERRCODE_WARNING,
            format!("pg_sync: {name:?} is not tracked: what clients know by this name is {before:?} now"),
            format!("If {name:?} takes its place: SELECT sync_untrack_table('{before}'); SELECT sync_track_table('{name}');")
        );
    }
    Ok(())
}
