//! Follows DDL: capture is brought in line with a tracked table in the very transaction that changes the table.
//!
//! It does nothing in a database that was restored and not used yet: its tables are still being built.
#![allow(unsafe_code)]

use crate::call::{guarded, is_inside};
use crate::extension::Extension;
use crate::home::{Home, home};
use pgrx::pg_sys::{self, Datum};
use pgrx::prelude::*;
use sync_shared::{Catalog, Host as _, Result};

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
    // The DDL of our own functions, this one among them, is theirs to follow.
    if !is_inside() {
        guarded(Extension::of(fcinfo), |host| match home(host)? {
            Home::Here | Home::Earlier => follow(host),
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
