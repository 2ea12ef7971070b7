//! Subtransactions: what fails inside one is undone, and the transaction goes on.
#![allow(unsafe_code)]

use crate::error::caught;
use pgrx::PgTryBuilder;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::panic::AssertUnwindSafe;
use sync_shared::EngineError;

/// A nested unit of work that is open.
pub struct Unit {
    context: pg_sys::MemoryContext,
    owner: pg_sys::ResourceOwner,
}

impl Unit {
    pub fn begin() -> Unit {
        // SAFETY: memory goes on being taken from the caller's context, as in the server's own languages.
        unsafe {
            let unit = Unit { context: pg_sys::CurrentMemoryContext, owner: pg_sys::CurrentResourceOwner };
            pg_sys::BeginInternalSubTransaction(std::ptr::null());
            pg_sys::MemoryContextSwitchTo(unit.context);
            unit
        }
    }

    pub fn end(self, keep: bool) {
        // SAFETY: ends what `begin` began.
        unsafe {
            match keep {
                true => pg_sys::ReleaseCurrentSubTransaction(),
                false => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
            }
            pg_sys::MemoryContextSwitchTo(self.context);
            pg_sys::CurrentResourceOwner = self.owner;
        }
    }
}

/// Runs `body`; what is raised in it is returned. The (sub)transaction around it is broken then, and has to be undone.
pub fn catch<T>(body: impl FnOnce() -> T) -> Result<T, Box<CaughtError>> {
    // SAFETY: where memory is taken from is put back after an error.
    let context = unsafe { pg_sys::CurrentMemoryContext };
    let _watch = CodeWatch::begin();
    let result = PgTryBuilder::new(AssertUnwindSafe(|| Ok(body()))).catch_others(|error| Err(Box::new(error))).execute();
    if result.is_err() {
        // SAFETY: as above.
        unsafe { pg_sys::MemoryContextSwitchTo(context) };
    }
    result
}

/// Runs `body` in a subtransaction, which is undone if the server raises.
pub fn in_subtransaction<T>(body: impl FnOnce() -> T) -> Result<T, EngineError> {
    let unit = Unit::begin();
    let result = catch(body);
    unit.end(result.is_ok());
    result.map_err(caught)
}

thread_local! {
    static CODE: Cell<i32> = const { Cell::new(0) };
}

/// The SQLSTATE of what was raised last within [`catch`]: pgrx knows the server's own codes only, and a trigger may raise any.
pub fn last_code() -> i32 {
    CODE.get()
}

/// While it lives, the server tells the code of whatever is raised.
struct CodeWatch(Box<pg_sys::ErrorContextCallback>);

impl CodeWatch {
    fn begin() -> CodeWatch {
        // SAFETY: the server calls it for as long as it is the first of its list or behind others, which Drop ends.
        unsafe {
            let previous = pg_sys::error_context_stack;
            let mut callback = Box::new(pg_sys::ErrorContextCallback { previous, callback: Some(note_code), arg: std::ptr::null_mut() });
            pg_sys::error_context_stack = &raw mut *callback;
            CODE.set(0);
            CodeWatch(callback)
        }
    }
}

impl Drop for CodeWatch {
    fn drop(&mut self) {
        // SAFETY: what was there before.
        unsafe { pg_sys::error_context_stack = self.0.previous };
    }
}

/// Within the server's own reporting: nothing may be raised here.
unsafe extern "C-unwind" fn note_code(_argument: *mut c_void) {
    unsafe extern "C-unwind" {
        fn geterrcode() -> c_int;
    }
    // SAFETY: in an error callback.
    CODE.set(unsafe { geterrcode() });
}
