//! The SQL functions, in the contract's order: each a few lines over the core.

use crate::call::{call, call_alone, call_and_flush, call_reading, guarded};
use crate::caller::{self, overseeing};
use crate::error::raise;
use crate::extension::Extension;
use crate::fence;
use crate::home::settle;
use crate::relation::meant;
use crate::rights;
use pgrx::pg_sys::FunctionCallInfo;
use pgrx::prelude::*;
use sync_shared::{ApplyOptions, Catalog, Defaults, Error, Result};

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
        fence::lock_applies()?;
        settle(host, origin_id)
    })
}

#[pg_extern]
fn sync_regenerate_origin(fcinfo: FunctionCallInfo) -> String {
    call_alone(fcinfo, |host| sync_shared::regenerate_origin(host))
}

#[pg_extern]
fn sync_track_table(table_name: Option<&str>, options: default!(Option<&str>, "NULL"), fcinfo: FunctionCallInfo) -> String {
    call_alone(fcinfo, |host| {
        let name = table(table_name)?;
        rights::require_owner_of(&name)?;
        sync_shared::track_table(host, &name, options)
    })
}

#[pg_extern]
fn sync_untrack_table(table_name: Option<&str>, fcinfo: FunctionCallInfo) -> bool {
    call_alone(fcinfo, |host| {
        let name = table(table_name)?;
        rights::require_owner_of(&name)?;
        sync_shared::untrack_table(host, &name)
    })
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
        rights::require_everything(host)?;
        let batch = sync_shared::fetch_local_changes(host, i64::from(batch_size.unwrap_or(1000)))?;
        fence::flush();
        // As does its mark, without which this replica would look like a copy of itself.
        fence::commit_durably();
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
        let pushes_only = !rights::may_follow(&host.extension)?;
        let options = ApplyOptions { pushes_only, ..ApplyOptions::parse(options)? };
        Catalog::open(host)?;
        caller::take_over(host)?;
        host.reads_for_caller = true;
        sync_shared::apply_batch(host, needed(batch, "batch")?, options)
    })
}

#[pg_extern]
fn sync_state(fcinfo: FunctionCallInfo) -> String {
    call(fcinfo, |host| sync_shared::state_json(host))
}

#[pg_extern]
fn sync_status(fcinfo: FunctionCallInfo) -> String {
    overseeing(|| call(fcinfo, |host| sync_shared::status(host)))
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
        let name = table(table_name)?;
        rights::require_owner_of(&name)?;
        sync_shared::set_conflict_strategy(host, &name, needed(strategy, "strategy")?, resolver)
    })
}

#[pg_extern(immutable, parallel_safe)]
fn sync_resolve_conflict(local: Option<&str>, remote: Option<&str>, strategy: default!(Option<&str>, "'last_write_wins'")) -> String {
    let strategy = strategy.unwrap_or("last_write_wins");
    pure(needed(local, "local").and_then(|local| sync_shared::resolve_conflict(local, needed(remote, "remote")?, strategy)))
}

#[pg_extern]
fn sync_retry(fcinfo: FunctionCallInfo) -> String {
    call_alone(fcinfo, |host| {
        caller::take_over(host)?;
        sync_shared::retry(host)
    })
}

#[pg_extern]
fn sync_discard(id: Option<i64>, fcinfo: FunctionCallInfo) -> bool {
    overseeing(|| call_alone(fcinfo, |host| sync_shared::discard(host, needed_number(id, "id")?)))
}

// Clients, tombstones, log

#[pg_extern]
fn sync_register_client(origin_id: Option<&str>, last_sync_version: default!(Option<i64>, 0), fcinfo: FunctionCallInfo) -> String {
    call(fcinfo, |host| sync_shared::register_client(host, needed(origin_id, "origin_id")?, last_sync_version.unwrap_or(0)))
}

#[pg_extern]
fn sync_remove_client(origin_id: Option<&str>, fcinfo: FunctionCallInfo) -> bool {
    call(fcinfo, |host| {
        fence::require_primary()?;
        sync_shared::remove_client(host, needed(origin_id, "origin_id")?)
    })
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
        rights::require_owner_of(&name)?;
        crate::locks::lock_named(&name)?;
        sync_shared::reconcile(host, &name, Defaults::Logged)
    })
}

#[pg_extern]
fn sync_execute_untracked(statement: Option<&str>, fcinfo: FunctionCallInfo) -> i64 {
    call_alone(fcinfo, |host| {
        rights::require_owner_of_all(host)?;
        sync_shared::execute_untracked(host, needed(statement, "statement")?)
    })
}

// Proof

#[pg_extern]
fn sync_hash(table_name: default!(Option<&str>, "NULL"), fcinfo: FunctionCallInfo) -> String {
    call_reading(fcinfo, |host| sync_shared::hash(host, table_name.map(meant).as_deref()))
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
    overseeing(|| {
        call(fcinfo, |host| {
            fence::require_primary()?;
            sync_shared::unsubscribe(host, needed(subscription_id, "subscription_id")?)
        })
    })
}

#[pg_extern]
fn sync_poll(subscription_id: Option<&str>, batch_size: default!(Option<i32>, 100), fcinfo: FunctionCallInfo) -> String {
    call_and_flush(fcinfo, |host| {
        sync_shared::poll(host, needed(subscription_id, "subscription_id")?, i64::from(batch_size.unwrap_or(100)))
    })
}
