//! Runs bookkeeping as the owner of the extension, with a search path that nobody else can put anything into.
//!
//! It is a guard: what it changed is put back when it is dropped. After an error the server puts it back itself, as it aborts the
//! transaction or the subtransaction.
#![allow(unsafe_code)]

use pgrx::pg_sys::{self, Oid};

const SAFE_PATH: &std::ffi::CStr = c"pg_catalog, pg_temp";

pub struct Definer {
    user: Oid,
    context: i32,
    nest_level: Option<i32>,
}

impl Definer {
    pub fn enter(owner: Oid) -> Definer {
        let (mut user, mut context) = (Oid::INVALID, 0);
        // SAFETY: plain state of the backend, restored by Drop or by the server's abort.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
            pg_sys::SetUserIdAndSecContext(owner, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32);
            let path = pg_sys::namespace_search_path;
            let is_safe = !path.is_null() && std::ffi::CStr::from_ptr(path) == SAFE_PATH;
            let nest_level = (!is_safe).then(|| {
                let level = pg_sys::NewGUCNestLevel();
                set(c"search_path", SAFE_PATH);
                level
            });
            Definer { user, context, nest_level }
        }
    }
}

impl Drop for Definer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // SAFETY: ends what `enter` began.
        unsafe {
            if let Some(level) = self.nest_level {
                pg_sys::AtEOXact_GUC(true, level);
            }
            pg_sys::SetUserIdAndSecContext(self.user, self.context);
        }
    }
}

/// Sets a setting until the current nest level ends.
///
/// # Safety
/// Within a nest level that the caller ends.
pub unsafe fn set(name: &std::ffi::CStr, value: &std::ffi::CStr) {
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
