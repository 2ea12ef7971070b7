//! The SQL functions, in the contract's order: each a few lines over the core.

use crate::error::raise;
use crate::extension::Extension;
use crate::fence;
use crate::host::PgHost;
use crate::relation::meant;
use crate::spi::Session;
use crate::transaction::catch;
use pgrx::pg_sys::{self, FunctionCallInfo};
use pgrx::prelude::*;
use std::cell::Cell;
use std::rc::Rc;
use sync_shared::{ApplyOptions, Error, Host as _, Result, ValueRef};

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
fn call_alone<T>(fcinfo: FunctionCallInfo, body: impl FnOnce(&mut PgHost) -> Result<T>) -> T {
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

fn settle_home(host: &mut PgHost, origin_id: Option<&str>) -> Result<String> {
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

fn pure<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| raise(error))
}

fn needed<'a>(argument: Option<&'a str>, name: &str) -> Result<&'a str> {
    argument.ok_or_else(|| Error::argument(format!("{name} is missing")))
}

fn needed_number(argument: Option<i64>, name: &str) -> Result<i64> {
    argument.ok_or_else(|| Error::argument(format!("{name} is missing")))
}

/// A table as the caller names it, by the core's name.
pub fn table(argument: Option<&str>) -> Result<String> {
    needed(argument, "table_name").map(meant)
}

// Set-up

#[pg_extern(immutable, parallel_safe)]
fn sync_version() -> &'static str {
    sync_shared::VERSION
}

#[pg_extern]
fn sync_init(origin_id: default!(Option<&str>, "NULL"), fcinfo: FunctionCallInfo) -> String {
    guarded(Extension::of(fcinfo), |host| {
        fence::lock_applies();
        settle_home(host, origin_id)
    })
}

#[pg_extern]
fn sync_regenerate_origin(fcinfo: FunctionCallInfo) -> String {
    call_alone(fcinfo, |host| sync_shared::regenerate_origin(host))
}

#[pg_extern]
fn sync_track_table(table_name: Option<&str>, options: default!(Option<&str>, "NULL"), fcinfo: FunctionCallInfo) -> String {
    call_alone(fcinfo, |host| sync_shared::track_table(host, &table(table_name)?, options))
}

#[pg_extern]
fn sync_untrack_table(table_name: Option<&str>, fcinfo: FunctionCallInfo) -> bool {
    call_alone(fcinfo, |host| sync_shared::untrack_table(host, &table(table_name)?))
}

// Moving changes

#[pg_extern]
fn sync_fetch_changes(
    from_version: default!(Option<i64>, 0),
    batch_size: default!(Option<i32>, 1000),
    exclude_origin: default!(Option<&str>, "NULL"),
    fcinfo: FunctionCallInfo,
) -> String {
    call_and_flush(fcinfo, |host| {
        sync_shared::fetch_changes(host, from_version.unwrap_or(0), i64::from(batch_size.unwrap_or(1000)), exclude_origin)
    })
}

#[pg_extern]
fn sync_fetch_local_changes(batch_size: default!(Option<i32>, 1000), fcinfo: FunctionCallInfo) -> String {
    call_alone(fcinfo, |host| {
        let batch = sync_shared::fetch_local_changes(host, i64::from(batch_size.unwrap_or(1000)))?;
        fence::flush();
        Ok(batch)
    })
}

#[pg_extern]
fn sync_acknowledge_push(to_version: Option<i64>, fcinfo: FunctionCallInfo) -> i64 {
    call_alone(fcinfo, |host| sync_shared::acknowledge_push(host, needed_number(to_version, "to_version")?))
}

#[pg_extern]
fn sync_apply_batch(batch: Option<&str>, options: default!(Option<&str>, "NULL"), fcinfo: FunctionCallInfo) -> String {
    call_alone(fcinfo, |host| {
        let options = ApplyOptions::parse(options)?;
        sync_shared::apply_batch(host, needed(batch, "batch")?, options)
    })
}

#[pg_extern]
fn sync_state(fcinfo: FunctionCallInfo) -> String {
    call(fcinfo, |host| sync_shared::state_json(host))
}

#[pg_extern]
fn sync_status(fcinfo: FunctionCallInfo) -> String {
    call(fcinfo, |host| sync_shared::status(host))
}

#[pg_extern]
fn sync_last_server_version(fcinfo: FunctionCallInfo) -> i64 {
    call(fcinfo, |host| sync_shared::last_server_version(host))
}

#[pg_extern]
fn sync_last_push_version(fcinfo: FunctionCallInfo) -> i64 {
    call(fcinfo, |host| sync_shared::last_push_version(host))
}

#[pg_extern]
fn sync_begin_resync(fcinfo: FunctionCallInfo) -> bool {
    call_alone(fcinfo, |host| sync_shared::begin_resync(host))
}

// Conflicts and rejections

#[pg_extern]
fn sync_set_conflict_strategy(
    table_name: Option<&str>,
    strategy: Option<&str>,
    resolver: default!(Option<&str>, "NULL"),
    fcinfo: FunctionCallInfo,
) -> String {
    call_alone(fcinfo, |host| {
        sync_shared::set_conflict_strategy(host, &table(table_name)?, needed(strategy, "strategy")?, resolver)
    })
}

#[pg_extern(immutable, parallel_safe)]
fn sync_resolve_conflict(local: Option<&str>, remote: Option<&str>, strategy: default!(Option<&str>, "'last_write_wins'")) -> String {
    let strategy = strategy.unwrap_or("last_write_wins");
    pure(needed(local, "local").and_then(|local| sync_shared::resolve_conflict(local, needed(remote, "remote")?, strategy)))
}

#[pg_extern]
fn sync_retry(fcinfo: FunctionCallInfo) -> String {
    call_alone(fcinfo, |host| sync_shared::retry(host))
}

#[pg_extern]
fn sync_discard(id: Option<i64>, fcinfo: FunctionCallInfo) -> bool {
    call_alone(fcinfo, |host| sync_shared::discard(host, needed_number(id, "id")?))
}

// Clients, tombstones, log

#[pg_extern]
fn sync_register_client(origin_id: Option<&str>, last_sync_version: default!(Option<i64>, 0), fcinfo: FunctionCallInfo) -> String {
    call(fcinfo, |host| sync_shared::register_client(host, needed(origin_id, "origin_id")?, last_sync_version.unwrap_or(0)))
}

#[pg_extern]
fn sync_remove_client(origin_id: Option<&str>, fcinfo: FunctionCallInfo) -> bool {
    call(fcinfo, |host| sync_shared::remove_client(host, needed(origin_id, "origin_id")?))
}

#[pg_extern]
fn sync_safe_purge_version(fcinfo: FunctionCallInfo) -> i64 {
    call(fcinfo, |host| sync_shared::safe_purge_version(host))
}

#[pg_extern]
fn sync_purge_tombstones(up_to_version: default!(Option<i64>, "NULL"), fcinfo: FunctionCallInfo) -> i64 {
    call_alone(fcinfo, |host| sync_shared::purge_tombstones(host, up_to_version))
}

#[pg_extern]
fn sync_compact(fcinfo: FunctionCallInfo) -> i64 {
    call_alone(fcinfo, |host| sync_shared::compact(host))
}

#[pg_extern]
fn sync_reconcile(table_name: Option<&str>, fcinfo: FunctionCallInfo) -> i64 {
    call_alone(fcinfo, |host| {
        let name = table(table_name)?;
        crate::locks::lock_named(&name)?;
        sync_shared::reconcile(host, &name)
    })
}

#[pg_extern]
fn sync_execute_untracked(statement: Option<&str>, fcinfo: FunctionCallInfo) -> i64 {
    call_alone(fcinfo, |host| sync_shared::execute_untracked(host, needed(statement, "statement")?))
}

// Proof

#[pg_extern]
fn sync_hash(table_name: default!(Option<&str>, "NULL"), fcinfo: FunctionCallInfo) -> String {
    call(fcinfo, |host| sync_shared::hash(host, table_name.map(meant).as_deref()))
}

#[pg_extern(immutable, parallel_safe)]
fn sync_hash_batch(batch: Option<&str>) -> String {
    pure(needed(batch, "batch").and_then(sync_shared::hash_batch))
}

#[pg_extern(immutable, parallel_safe)]
fn sync_verify_hash(expected: Option<&str>, actual: Option<&str>) -> bool {
    pure(needed(expected, "expected").and_then(|expected| sync_shared::verify_hash(expected, needed(actual, "actual")?)))
}

#[pg_extern(immutable, parallel_safe)]
fn sync_canonical_json(value: Option<&str>) -> String {
    pure(needed(value, "value").and_then(sync_shared::canonical_json))
}

// Subscriptions

#[pg_extern]
fn sync_subscribe(
    table_name: Option<&str>,
    pk_value: default!(Option<&str>, "NULL"),
    options: default!(Option<&str>, "NULL"),
    fcinfo: FunctionCallInfo,
) -> String {
    call(fcinfo, |host| sync_shared::subscribe(host, &table(table_name)?, pk_value, options))
}

#[pg_extern]
fn sync_unsubscribe(subscription_id: Option<&str>, fcinfo: FunctionCallInfo) -> bool {
    call(fcinfo, |host| sync_shared::unsubscribe(host, needed(subscription_id, "subscription_id")?))
}

#[pg_extern]
fn sync_poll(subscription_id: Option<&str>, batch_size: default!(Option<i32>, 100), fcinfo: FunctionCallInfo) -> String {
    call_and_flush(fcinfo, |host| {
        sync_shared::poll(host, needed(subscription_id, "subscription_id")?, i64::from(batch_size.unwrap_or(100)))
    })
}
