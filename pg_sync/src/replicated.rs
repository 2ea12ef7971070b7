//! Our own tables are not replicated: a publication FOR ALL TABLES has them too, but what they hold is true of one database only.
//!
//! A trigger that fires for logical replication alone leaves out what its workers would write to them. What is written within another
//! trigger is not the worker's: there the trigger is not asked (its WHEN).
#![allow(unsafe_code)]

use crate::error::raise;
use pgrx::pg_sys::{self, Datum, TriggerData};
use pgrx::prelude::*;
use sync_shared::Error;

/// The calling convention of [`sync_keep_own`].
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_sync_keep_own() -> &'static pg_sys::Pg_finfo_record {
    const RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &RECORD
}

/// The trigger function `_sync_keep_own`: the row, or none for a worker.
///
/// # Safety
/// Called by the server.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sync_keep_own(fcinfo: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: the context of a trigger function is its trigger data.
    unsafe {
        let data = (*fcinfo).context.cast::<TriggerData>();
        if data.is_null() || (*data).type_ != pg_sys::NodeTag::T_TriggerData {
            raise(Error::argument("_sync_keep_own is called by the triggers of pg_sync's own tables only"));
        }
        let tuple = match (*data).tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_UPDATE => (*data).tg_newtuple,
            _ => (*data).tg_trigtuple,
        };
        if pg_sys::IsLogicalWorker() { Datum::null() } else { Datum::from(tuple) }
    }
}
