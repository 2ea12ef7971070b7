//! Subtransactions: what fails inside one is undone, and the transaction goes on.
#![allow(unsafe_code)]

use crate::error::caught;
use pgrx::PgTryBuilder;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;
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
