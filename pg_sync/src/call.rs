//! How a function of ours runs: with a host, in this database's own state, and with nothing left open when it fails.

use crate::error::raise;
use crate::extension::Extension;
use crate::fence;
use crate::host::PgHost;
use crate::spi::Session;
use crate::transaction::catch;
use pgrx::pg_sys::{self, FunctionCallInfo};
use std::cell::Cell;
use std::rc::Rc;
use sync_shared::{Host as _, Result, ValueRef};

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
    let _session = Session::open();
    let mut host = PgHost::new(extension);
    let result = catch(|| body(&mut host));
    result.unwrap_or_else(|error| {
        host.abandon();
        error.rethrow()
    })
    .unwrap_or_else(|error| raise(error))
}

/// As [`call`], one at a time in this database: for what changes the state of the replica.
pub fn call_alone<T>(fcinfo: FunctionCallInfo, body: impl FnOnce(&mut PgHost) -> Result<T>) -> T {
    call(fcinfo, |host| {
        fence::lock_applies();
        body(host)
    })
}

/// As [`call`], for what is handed out: it outlives a crash.
pub fn call_and_flush<T>(fcinfo: FunctionCallInfo, body: impl FnOnce(&mut PgHost) -> Result<T>) -> T {
    let answer = call(fcinfo, body);
    fence::flush();
    answer
}

/// Whose state the tables of ours hold.
#[derive(PartialEq)]
pub enum Home {
    /// Nobody's yet.
    Nowhere,
    /// This database's.
    Here,
    /// That of another, from which this one was restored or copied.
    Elsewhere,
}

/// This database: of this cluster, by its number there.
fn address() -> String {
    // SAFETY: set when the backend starts.
    #[allow(unsafe_code)]
    unsafe {
        format!("{}/{}", pg_sys::GetSystemIdentifier(), pg_sys::MyDatabaseId.to_u32())
    }
}

pub fn home(host: &mut PgHost) -> Result<Home> {
    let (mut home, mut origin) = (String::new(), false);
    host.query("SELECT key, value FROM _sync_state WHERE key = 'home' OR key = 'origin_id'", &[], &mut |row| {
        match row.text(0)? {
            "home" => row.text(1)?.clone_into(&mut home),
            _ => origin = true,
        }
        Ok(true)
    })?;
    Ok(match origin {
        false => Home::Nowhere,
        true if home == address() => Home::Here,
        true => Home::Elsewhere,
    })
}

/// The first call of any function makes this replica what `sync_init` makes it, and tells a copy from the original by its epoch.
fn initialize(host: &mut PgHost) -> Result<()> {
    if home(host)? == Home::Here {
        return Ok(());
    }
    fence::lock_applies();
    settle_home(host, None).map(|_| ())
}

pub fn settle_home(host: &mut PgHost, origin_id: Option<&str>) -> Result<String> {
    let came_from_elsewhere = home(host)? == Home::Elsewhere;
    let origin = sync_shared::init(host, origin_id)?;
    if came_from_elsewhere {
        host.execute("UPDATE _sync_state SET value = gen_random_uuid()::text WHERE key = 'epoch'", &[])?;
    }
    let sql = "INSERT INTO _sync_state (key, value) VALUES ('home', ?1) ON CONFLICT (key) DO UPDATE SET value = excluded.value \
               WHERE _sync_state.value <> excluded.value";
    host.execute(sql, &[ValueRef::Text(&address())])?;
    Ok(origin)
}
