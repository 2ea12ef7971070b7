//! What the caller may read.
#![allow(unsafe_code)]

use crate::relation;
use pgrx::pg_sys::{self, AclResult};
use sync_shared::{Error, Kind, Result, Table};

/// May the caller read the changes of a table? False without any right on it.
///
/// Errors: `PermissionDenied` if some of its columns may be read and others not, or if row-level security would have to be applied to
/// past states of its rows.
pub fn may_read(table: &Table) -> Result<bool> {
    // SAFETY: look-ups in the catalogue.
    unsafe {
        let user = pg_sys::GetUserId();
        let Some(oid) = relation::by_name(&table.table_name) else { return Ok(pg_sys::superuser_arg(user)) };
        let select = pg_sys::AclMode::from(pg_sys::ACL_SELECT);
        if pg_sys::pg_class_aclcheck(oid, user, select) != AclResult::ACLCHECK_OK {
            let live = relation::columns(oid);
            let may = |name: &str| {
                let number = live.iter().find(|l| l.name == name).map_or(0, |l| l.number);
                pg_sys::pg_attribute_aclcheck(oid, number, user, select) == AclResult::ACLCHECK_OK
            };
            let (readable, hidden): (Vec<&str>, Vec<&str>) = table.column_names().into_iter().partition(|name| may(name));
            match (readable.is_empty(), hidden.first()) {
                (true, _) => return Ok(false),
                (false, Some(column)) => {
                    let message = format!("you may not read column {column:?} of table {:?}; exclude it, or grant SELECT on it", table.table_name);
                    return Err(Error::new(Kind::PermissionDenied, message));
                }
                (false, None) => {}
            }
        }
        if pg_sys::check_enable_rls(oid, user, true) == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32 {
            let message = format!(
                "table {:?} has row-level security, which cannot be applied to its changes; fetch as a role that bypasses it",
                table.table_name
            );
            return Err(Error::new(Kind::PermissionDenied, message));
        }
        Ok(true)
    }
}
