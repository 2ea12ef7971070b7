//! What the caller may do with a tracked table.
#![allow(unsafe_code)]

use crate::definer::Definer;
use crate::extension::Extension;
use crate::host::PgHost;
use crate::quote::owned;
use crate::spi::{self, Parameter, View};
use crate::{install, relation};
use pgrx::pg_sys::{self, AclResult, Oid};
use sync_shared::{Catalog, Error, Kind, Result, Row as _, Table, ValueRef};

/// How much of a table the caller may read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Access {
    /// Its synced columns are granted one by one: what was synced of it before is not.
    pub columns: bool,
    /// The rows that its policies show.
    pub rows: bool,
}

impl Access {
    pub const WHOLE: Access = Access { columns: false, rows: false };
}

/// What the caller may read of a table; None without any right on it.
///
/// It is asked of the relation that was tracked, not of one that has its name now.
/// Errors: `PermissionDenied` if it may read some of its columns and others not.
pub fn access(host: &PgHost, table: &Table) -> Result<Option<Access>> {
    let relation = install::relation_of(host, table)?;
    // SAFETY: look-ups in the catalogue.
    unsafe {
        let user = pg_sys::GetUserId();
        let Some(oid) = relation else { return Ok(pg_sys::superuser_arg(user).then_some(Access::WHOLE)) };
        let select = pg_sys::AclMode::from(pg_sys::ACL_SELECT);
        let rows = pg_sys::check_enable_rls(oid, user, true) == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32;
        if pg_sys::pg_class_aclcheck(oid, user, select) == AclResult::ACLCHECK_OK {
            return Ok(Some(Access { columns: false, rows }));
        }
        let live = relation::columns(oid);
        let may = |name: &&str| {
            let column = live.iter().find(|l| l.name == *name);
            column.is_some_and(|c| pg_sys::pg_attribute_aclcheck(oid, c.number, user, select) == AclResult::ACLCHECK_OK)
        };
        let (readable, hidden): (Vec<&str>, Vec<&str>) = table.column_names().into_iter().partition(may);
        match (readable.is_empty(), hidden.first()) {
            (true, _) => Ok(None),
            (false, None) => Ok(Some(Access { columns: true, rows })),
            (false, Some(column)) => {
                let message = format!("you may not read column {column:?} of table {:?}; exclude it, or grant SELECT on it", table.table_name);
                Err(Error::new(Kind::PermissionDenied, message))
            }
        }
    }
}

/// A push says what this replica holds, not what the caller sees of it: it takes somebody who sees everything.
pub fn require_everything(host: &mut PgHost) -> Result<()> {
    let (_, catalog) = Catalog::open(host)?;
    for (_, table) in catalog.tracked() {
        if access(host, table)?.is_none_or(|access| access.rows) {
            let message = format!("you may not read every row of table {:?}, which a push needs", table.table_name);
            return Err(Error::new(Kind::PermissionDenied, message));
        }
    }
    Ok(())
}

/// May the caller say what this replica's own server has sent, and what that has received?
pub fn may_follow(extension: &Extension) -> Result<bool> {
    // SAFETY: plain state of the backend.
    let user = unsafe { pg_sys::GetUserId() };
    let _definer = Definer::enter(extension.owner);
    let sql = "SELECT bool_and(has_function_privilege($1::oid, p.oid, 'EXECUTE')) FROM pg_proc AS p \
               WHERE p.pronamespace = $2::oid AND p.proname = 'sync_acknowledge_push'";
    let number = |oid: Oid| Parameter::of(ValueRef::Integer(i64::from(oid.to_u32())));
    let (_, may) = spi::run(sql, &[number(user)?, number(extension.schema)?], View::Latest, |rows| rows.row(0)?.integer(0))?;
    Ok(may != 0)
}

/// How a table is synced is its owner's to say.
pub fn require_owner(relation: Oid) -> Result<()> {
    // SAFETY: a look-up in the catalogue.
    let owns = unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), owner_of(relation)) };
    match owns {
        true => Ok(()),
        false => {
            let name = crate::quote::qualified(relation);
            Err(Error::new(Kind::PermissionDenied, format!("only the owner of {name} may say whether and how it is synced")))
        }
    }
}

/// As [`require_owner`] for a name of the core's; a table that is not there is the core's to refuse.
pub fn require_owner_of(name: &str) -> Result<()> {
    relation::by_name(name).map_or(Ok(()), require_owner)
}

/// As [`require_owner`] for every tracked table.
pub fn require_owner_of_all(host: &mut PgHost) -> Result<()> {
    let catalog = Catalog::load(host)?;
    for (_, table) in catalog.tracked() {
        if let Some(relation) = install::relation_of(host, table)? {
            require_owner(relation)?;
        }
    }
    Ok(())
}

/// The owner of a relation.
pub fn owner_of(relation: Oid) -> Oid {
    // SAFETY: the tuple is released again.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, pg_sys::Datum::from(relation));
        if tuple.is_null() {
            return Oid::INVALID;
        }
        let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>()).relowner;
        pg_sys::ReleaseSysCache(tuple);
        owner
    }
}

pub fn is_superuser(user: Oid) -> bool {
    // SAFETY: a look-up in the catalogue.
    unsafe { pg_sys::superuser_arg(user) }
}

/// A role's name; empty if it is gone.
pub fn role_name(user: Oid) -> String {
    // SAFETY: a look-up in the catalogue.
    owned(unsafe { pg_sys::GetUserNameFromId(user, true) })
}
