//! `NOTIFY pg_sync` once per committing transaction that logged changes, and what else a transaction's end means here.
#![allow(unsafe_code)]

use crate::quote::c_string;
use crate::{buffer, captured, extension, fence, living, statement};
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::prelude::*;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::cell::Cell;
use std::ffi::{c_char, c_void};

unsafe extern "C-unwind" {
    fn Async_Notify(channel: *const c_char, payload: *const c_char);
}

/// `pg_sync.notify`: a database in which nobody listens is spared what a notification costs its small transactions.
static IS_ON: GucSetting<bool> = GucSetting::<bool>::new(true);

thread_local! {
    static HIGHEST: Cell<i64> = const { Cell::new(0) };
}

/// The transaction has logged this version.
pub fn note(version: i64) {
    HIGHEST.set(version);
}

/// Follows transactions and the catalogue from now on.
pub fn register() {
    GucRegistry::define_bool_guc(
        c"pg_sync.notify",
        c"Sends NOTIFY pg_sync with every commit that logged changes.",
        c"The server lets such transactions commit one at a time. Where nobody listens it can be off.",
        &IS_ON,
        GucContext::Suset,
        GucFlags::default(),
    );
    // SAFETY: the callbacks are functions of this library, which stays loaded.
    unsafe {
        pg_sys::RegisterXactCallback(Some(transaction_ends), std::ptr::null_mut());
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), Datum::null());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn transaction_ends(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    match event {
        pg_sys::XactEvent::XACT_EVENT_PRE_PREPARE => buffer::write(),
        pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT if fence::is_entered() => {
            buffer::write();
            if !IS_ON.get() {
                return;
            }
            let payload = c_string(&HIGHEST.get().to_string());
            // SAFETY: the transaction is still running, and the server copies both texts.
            unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| Async_Notify(c"pg_sync".as_ptr(), payload.as_ptr())) };
        }
        pg_sys::XactEvent::XACT_EVENT_COMMIT | pg_sys::XactEvent::XACT_EVENT_ABORT | pg_sys::XactEvent::XACT_EVENT_PREPARE => {
            fence::leave();
            statement::reset();
            buffer::clear();
            living::reset();
        }
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn relation_changed(_argument: Datum, relation: Oid) {
    captured::forget(relation);
    extension::Extension::forget(relation);
}
