//! How a function of ours runs: with a host, in this database's own state, and with nothing left open when it fails.

use crate::caller::Caller;
use crate::error::raise;
use crate::extension::Extension;
use crate::fence;
use crate::home::initialize;
use crate::host::PgHost;
use crate::spi::Session;
use crate::statement::Suspended;
use crate::transaction::catch;
use pgrx::pg_sys::FunctionCallInfo;
use std::cell::Cell;
use std::rc::Rc;
use sync_shared::{Catalog, Result};

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Is one of our functions running?
pub fn is_inside() -> bool {
    DEPTH.get() > 0
}

/// Runs the body of a function with a host; an error ends the statement.
pub fn call<T>(fcinfo: FunctionCallInfo, body: impl FnOnce(&mut PgHost) -> Result<T>) -> T {
    guarded(Extension::of(fcinfo), |host| initialize(host).and_then(|()| body(host)))
}

/// Runs a body with a host; an error undoes every unit of work that it had begun, and ends the statement.
pub fn guarded<T>(extension: Rc<Extension>, body: impl FnOnce(&mut PgHost) -> Result<T>) -> T {
    /// One call may lead to another: by triggers, by DDL.
    struct Inside;
    impl Drop for Inside {
        fn drop(&mut self) {
            DEPTH.set(DEPTH.get() - 1);
        }
    }
    DEPTH.set(DEPTH.get() + 1);
    let _inside = Inside;
    let _suspended = Suspended::enter();
    let _caller = Caller::enter();
    let _session = Session::open();
    let mut host = PgHost::new(extension);
    let result = catch(|| body(&mut host));
    result.unwrap_or_else(|error| {
        host.abandon();
        error.rethrow()
    })
    .unwrap_or_else(|error| raise(error))
}

/// As [`call`], for what looks at rows as the caller sees them. Capture has followed the tables before.
pub fn call_reading<T>(fcinfo: FunctionCallInfo, body: impl FnOnce(&mut PgHost) -> Result<T>) -> T {
    call(fcinfo, |host| {
        Catalog::open(host)?;
        host.reads_for_caller = true;
        body(host)
    })
}

/// As [`call`], one at a time in this database: for what changes the state of the replica.
pub fn call_alone<T>(fcinfo: FunctionCallInfo, body: impl FnOnce(&mut PgHost) -> Result<T>) -> T {
    call(fcinfo, |host| {
        fence::lock_applies()?;
        body(host)
    })
}

/// As [`call`], for what is handed out: it outlives a crash.
pub fn call_and_flush<T>(fcinfo: FunctionCallInfo, body: impl FnOnce(&mut PgHost) -> Result<T>) -> T {
    let answer = call(fcinfo, body);
    fence::flush();
    answer
}
