//! Guards under which statements of ours run: as somebody else, and with a search path that nobody can put anything into.
//!
//! What a guard changed is put back when it is dropped. After an error the server puts it back itself, as it aborts the transaction or
//! the subtransaction. Nothing of the extension's owner's is run on a user's table, whose types may have casts and operators of the
//! user's: what has to be read of it whole is read as its owner, as the server's own checks of foreign keys do.
#![allow(unsafe_code)]

use pgrx::pg_sys::{self, Oid};
use std::ffi::CStr;

const SAFE_PATH: &CStr = c"pg_catalog, pg_temp";
/// Where a function is that a table's owner names without its schema: where a table is that is named so.
const DEFAULT_PATH: &CStr = c"pg_catalog, public, pg_temp";

/// Names mean the same whatever the caller's search path is.
pub struct SafePath {
    nest_level: Option<i32>,
}

impl SafePath {
    pub fn enter() -> SafePath {
        SafePath::of(SAFE_PATH)
    }

    pub fn with_public() -> SafePath {
        SafePath::of(DEFAULT_PATH)
    }

    /// As [`SafePath::enter`], and a query that can use an index uses it, whatever the planner believes of the size of a table.
    pub fn by_index() -> SafePath {
        // SAFETY: plain state of the backend, restored by Drop or by the server's abort.
        unsafe {
            let level = pg_sys::NewGUCNestLevel();
            set(c"search_path", SAFE_PATH);
            set(c"enable_seqscan", c"off");
            SafePath { nest_level: Some(level) }
        }
    }

    fn of(wanted: &CStr) -> SafePath {
        // SAFETY: plain state of the backend, restored by Drop or by the server's abort.
        unsafe {
            let path = pg_sys::namespace_search_path;
            let is_safe = !path.is_null() && CStr::from_ptr(path) == wanted;
            let nest_level = (!is_safe).then(|| {
                let level = pg_sys::NewGUCNestLevel();
                set(c"search_path", wanted);
                level
            });
            SafePath { nest_level }
        }
    }
}

impl Drop for SafePath {
    fn drop(&mut self) {
        if let Some(level) = self.nest_level.filter(|_| !std::thread::panicking()) {
            // SAFETY: ends what `enter` began.
            unsafe { pg_sys::AtEOXact_GUC(true, level) };
        }
    }
}

/// Statements run as another user, on the safe path.
pub struct Definer {
    user: Oid,
    context: i32,
    _path: SafePath,
}

impl Definer {
    /// As the owner of the extension: for our own tables, and for the catalogue.
    pub fn enter(owner: Oid) -> Definer {
        Definer::become_user(owner, pg_sys::SECURITY_LOCAL_USERID_CHANGE)
    }

    /// As the owner of a user's table, who sees all its rows.
    pub fn owner_of(relation: Oid) -> Definer {
        Definer::become_user(crate::rights::owner_of(relation), pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_NOFORCE_RLS)
    }

    fn become_user(wanted: Oid, flags: u32) -> Definer {
        let path = SafePath::enter();
        let (mut user, mut context) = (Oid::INVALID, 0);
        // SAFETY: plain state of the backend, restored by Drop or by the server's abort.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
            pg_sys::SetUserIdAndSecContext(wanted, context | flags as i32);
        }
        Definer { user, context, _path: path }
    }
}

impl Drop for Definer {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: ends what `become_user` began.
            unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) };
        }
    }
}

/// Sets a setting until the current nest level ends.
///
/// # Safety
/// Within a nest level that the caller ends.
pub unsafe fn set(name: &CStr, value: &CStr) {
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
    }
}
