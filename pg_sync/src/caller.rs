//! On whose behalf one of our functions runs. What somebody has left here (changes that wait, subscriptions) is theirs alone: a change
//! that was refused to one role is never applied with the rights of another.
#![allow(unsafe_code)]

use crate::host::PgHost;
use crate::rights;
use crate::spi::{text, varlena};
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::prelude::*;
use std::cell::Cell;
use sync_shared::{Host as _, Result, ValueRef};

thread_local! {
    /// None outside of our functions.
    static CALLER: Cell<Option<Oid>> = const { Cell::new(None) };
    static OVERSEES: Cell<bool> = const { Cell::new(false) };
}

/// Who has called, until it is dropped; also by an error.
pub struct Caller {
    before: Option<Oid>,
}

impl Caller {
    pub fn enter() -> Caller {
        // SAFETY: plain state of the backend.
        Caller { before: CALLER.replace(Some(unsafe { pg_sys::GetUserId() })) }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        CALLER.set(self.before);
    }
}

/// Runs what only looks, or throws away: a superuser sees what is everybody's.
pub fn overseeing<T>(body: impl FnOnce() -> T) -> T {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            OVERSEES.set(self.0);
        }
    }
    let _before = Before(OVERSEES.replace(true));
    body()
}

/// The core notes up to where it has looked for what lets waiting changes succeed. It has looked for one role only: for the next one all
/// that waits is tried.
pub fn take_over(host: &mut PgHost) -> Result<()> {
    let (role, mut last) = (rights::role_name(caller()), String::new());
    host.query("SELECT value FROM _sync_state WHERE key = 'retried_role'", &[], &mut |row| {
        row.text(0)?.clone_into(&mut last);
        Ok(false)
    })?;
    if role == last {
        return Ok(());
    }
    let sql = "INSERT INTO _sync_state (key, value) VALUES ('retried_role', ?1) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    host.execute(sql, &[ValueRef::Text(&role)])?;
    host.execute("UPDATE _sync_state SET value = '-1' WHERE key = 'retried_version'", &[]).map(|_| ())
}

fn caller() -> Oid {
    // SAFETY: plain state of the backend.
    CALLER.get().unwrap_or_else(|| unsafe { pg_sys::GetUserId() })
}

/// The calling convention of [`sync_caller`].
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_sync_caller() -> &'static pg_sys::Pg_finfo_record {
    const RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &RECORD
}

/// `_sync_caller()`: the name of the role that has called.
///
/// # Safety
/// Called by the server.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sync_caller(_fcinfo: pg_sys::FunctionCallInfo) -> Datum {
    varlena(rights::role_name(caller()).as_bytes())
}

/// The calling convention of [`sync_is_callers`].
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_sync_is_callers() -> &'static pg_sys::Pg_finfo_record {
    const RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &RECORD
}

/// `_sync_is_callers(role)`: is what this role has left for the caller to see?
///
/// # Safety
/// Called by the server, as a strict function of one text.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sync_is_callers(fcinfo: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: the function is strict, so its argument is there.
    let role = unsafe { (*fcinfo).args.as_slice(1)[0].value };
    let oversees = (OVERSEES.get() || CALLER.get().is_none()) && rights::is_superuser(caller());
    Datum::from(oversees || text(role).is_ok_and(|role| role == rights::role_name(caller())))
}
