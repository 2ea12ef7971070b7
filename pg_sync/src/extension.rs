//! Where this extension lives: its schema, its owner, its log and its counters. Looked up once per backend and again after any of
//! them was dropped.
#![allow(unsafe_code)]

use crate::quote::{Identifier, c_string, owned};
use pgrx::pg_sys::{self, Oid};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The extension as it is installed in this database.
pub struct Extension {
    pub schema: Oid,
    /// Quoted.
    pub schema_name: String,
    pub owner: Oid,
    pub log: Oid,
    /// The index of its primary key.
    pub log_key: Oid,
    pub versions: Oid,
    pub clock: Oid,
}

thread_local! {
    static KNOWN: RefCell<Option<Rc<Extension>>> = const { RefCell::new(None) };
    /// The function that asked last: one of the known extension's.
    static ASKED: Cell<Oid> = const { Cell::new(Oid::INVALID) };
}

impl Extension {
    /// The extension that a function of ours belongs to.
    pub fn of(fcinfo: pg_sys::FunctionCallInfo) -> Rc<Extension> {
        // SAFETY: the server passes valid call information.
        let function = unsafe { (*(*fcinfo).flinfo).fn_oid };
        if ASKED.get() == function
            && let Some(known) = KNOWN.with_borrow(Clone::clone)
        {
            return known;
        }
        // SAFETY: a look-up in the catalogue.
        let schema = unsafe { pg_sys::get_func_namespace(function) };
        ASKED.set(function);
        if let Some(known) = KNOWN.with_borrow(Clone::clone).filter(|k| k.schema == schema) {
            return known;
        }
        let found = Rc::new(Extension::find(function, schema));
        KNOWN.set(Some(found.clone()));
        found
    }

    fn find(function: Oid, schema: Oid) -> Extension {
        let relation = |name: &str| unsafe { pg_sys::get_relname_relid(c_string(name).as_ptr(), schema) };
        // SAFETY: look-ups in the catalogue; the tuple is released again.
        unsafe {
            let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as i32, pg_sys::Datum::from(function));
            let owner = match tuple.is_null() {
                true => pg_sys::GetUserId(),
                false => (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>()).proowner,
            };
            if !tuple.is_null() {
                pg_sys::ReleaseSysCache(tuple);
            }
            Extension {
                schema,
                schema_name: Identifier(&owned(pg_sys::get_namespace_name(schema))).to_string(),
                owner,
                log: relation("_sync_log_data"),
                log_key: relation("_sync_log_data_pkey"),
                versions: relation("_sync_versions"),
                clock: relation("_sync_clock"),
            }
        }
    }

    /// A relation changed or is gone: look again.
    pub fn forget(relation: Oid) {
        KNOWN.with_borrow_mut(|known| {
            if known.as_ref().is_some_and(|k| relation == Oid::INVALID || [k.log, k.log_key, k.versions, k.clock].contains(&relation)) {
                *known = None;
                ASKED.set(Oid::INVALID);
            }
        });
    }
}
