//! The SQL functions, in the contract's order: each a few lines over the core.

use crate::error::engine;
use crate::host::SqliteHost;
use crate::scalar::{self, Answer, Given, Scalar};
use crate::{order, sets};
use crate::sync_with::sync_with;
use rusqlite::types::ValueRef as SqlRef;
use rusqlite::{Connection, ffi};
use sync_shared::{ApplyOptions, Defaults, Direction, Error, Portable, Result};

/// Registers every function and set with a connection.
pub fn register(connection: &Connection) -> rusqlite::Result<()> {
    for function in FUNCTIONS {
        for arity in function.least..=function.most {
            let flags = match function.purity {
                Purity::Pure => ffi::SQLITE_DETERMINISTIC | ffi::SQLITE_INNOCUOUS,
                Purity::Database => ffi::SQLITE_DIRECTONLY,
            };
            scalar::register(connection, function.name, arity, flags, function)?;
        }
    }
    order::register(connection)?;
    sets::register(connection)
}

/// Gives a connection `_sync_canonical_text(text, type)`, for a query that orders rows. It is no function for users, so it comes with the first query
/// that needs it.
pub fn register_canonical_text(connection: &Connection) -> Result<()> {
    let flags = ffi::SQLITE_DETERMINISTIC | ffi::SQLITE_INNOCUOUS;
    match scalar::register(connection, CANONICAL_TEXT.name, CANONICAL_TEXT.most, flags, &CANONICAL_TEXT) {
        // The connection has it, and a statement is running: it cannot be set again, nor need it be.
        Err(rusqlite::Error::SqliteFailure(failure, _)) if failure.code == rusqlite::ErrorCode::DatabaseBusy => Ok(()),
        other => other.map_err(engine),
    }
}

/// The integer that a floating point number stands for: JavaScript drivers bind every number as floating point.
pub fn exact_integer(real: f64) -> Option<i64> {
    /// Up to here every integer has a floating point number of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (real.fract() == 0.0 && real.abs() <= EXACT).then_some(real as i64)
}

enum Purity {
    /// Works on its arguments alone.
    Pure,
    /// Reads or changes the database: not to be called from triggers or views.
    Database,
}

struct Function {
    name: &'static str,
    least: i32,
    most: i32,
    purity: Purity,
    body: fn(&mut SqliteHost<'_>, &Arguments<'_>) -> Result<Answer>,
}

const fn database(
    name: &'static str,
    (least, most): (i32, i32),
    body: fn(&mut SqliteHost<'_>, &Arguments<'_>) -> Result<Answer>,
) -> Function {
    Function { name, least, most, purity: Purity::Database, body }
}

const fn pure(
    name: &'static str,
    (least, most): (i32, i32),
    body: fn(&mut SqliteHost<'_>, &Arguments<'_>) -> Result<Answer>,
) -> Function {
    Function { name, least, most, purity: Purity::Pure, body }
}

static CANONICAL_TEXT: Function = pure("_sync_canonical_text", (2, 2), |_, a| {
    let portable = Portable::named(a.text(1, "type")?).ok_or_else(|| Error::argument("an unknown portable type"))?;
    match a.given.value(0) {
        // What is not valid UTF-8 is found when the row is read.
        SqlRef::Text(bytes) => text(sync_shared::canonical_text(&String::from_utf8_lossy(bytes), portable)),
        _ => Err(Error::argument("there is no text")),
    }
});

static FUNCTIONS: &[Function] = &[
    // Set-up
    pure("sync_version", (0, 0), |_, _| text(sync_shared::VERSION)),
    database("sync_init", (0, 1), |host, a| sync_shared::init(host, a.optional_text(0)?).and_then(text)),
    database("sync_regenerate_origin", (0, 0), |host, _| sync_shared::regenerate_origin(host).and_then(text)),
    database("sync_track_table", (1, 2), |host, a| {
        sync_shared::track_table(host, a.text(0, "table_name")?, a.optional_text(1)?).and_then(text)
    }),
    database("sync_untrack_table", (1, 1), |host, a| sync_shared::untrack_table(host, a.text(0, "table_name")?).and_then(boolean)),
    // Moving changes
    database("sync_fetch_changes", (0, 3), |host, a| {
        sync_shared::fetch_changes(host, a.integer(0, 0)?, a.integer(1, 1000)?, a.optional_text(2)?).and_then(text)
    }),
    database("sync_fetch_local_changes", (0, 1), |host, a| sync_shared::fetch_local_changes(host, a.integer(0, 1000)?).and_then(text)),
    database("sync_acknowledge_push", (1, 1), |host, a| {
        sync_shared::acknowledge_push(host, a.required_integer(0, "to_version")?).and_then(integer)
    }),
    database("sync_apply_batch", (1, 2), |host, a| {
        let options = ApplyOptions::parse(a.optional_text(1)?)?;
        sync_shared::apply_batch(host, a.text(0, "batch")?, options).and_then(text)
    }),
    database("sync_state", (0, 0), |host, _| sync_shared::state_json(host).and_then(text)),
    database("sync_status", (0, 0), |host, _| sync_shared::status(host).and_then(text)),
    database("sync_last_server_version", (0, 0), |host, _| sync_shared::last_server_version(host).and_then(integer)),
    database("sync_last_push_version", (0, 0), |host, _| sync_shared::last_push_version(host).and_then(integer)),
    database("sync_begin_resync", (0, 0), |host, _| sync_shared::begin_resync(host).and_then(boolean)),
    // Conflicts and rejections
    database("sync_set_conflict_strategy", (2, 3), |host, a| {
        sync_shared::set_conflict_strategy(host, a.text(0, "table_name")?, a.text(1, "strategy")?, a.optional_text(2)?).and_then(text)
    }),
    pure("sync_resolve_conflict", (2, 3), |_, a| {
        let strategy = a.optional_text(2)?.unwrap_or("last_write_wins");
        sync_shared::resolve_conflict(a.text(0, "local")?, a.text(1, "remote")?, strategy).and_then(text)
    }),
    database("sync_retry", (0, 0), |host, _| sync_shared::retry(host).and_then(text)),
    database("sync_discard", (1, 1), |host, a| sync_shared::discard(host, a.required_integer(0, "id")?).and_then(boolean)),
    // Clients, tombstones, log
    database("sync_register_client", (1, 2), |host, a| {
        sync_shared::register_client(host, a.text(0, "origin_id")?, a.integer(1, 0)?).and_then(text)
    }),
    database("sync_remove_client", (1, 1), |host, a| sync_shared::remove_client(host, a.text(0, "origin_id")?).and_then(boolean)),
    database("sync_safe_purge_version", (0, 0), |host, _| sync_shared::safe_purge_version(host).and_then(integer)),
    database("sync_purge_tombstones", (0, 1), |host, a| {
        sync_shared::purge_tombstones(host, a.optional_integer(0)?).and_then(integer)
    }),
    database("sync_compact", (0, 0), |host, _| sync_shared::compact(host).and_then(integer)),
    database("sync_reconcile", (1, 1), |host, a| sync_shared::reconcile(host, a.text(0, "table_name")?, Defaults::Logged).and_then(integer)),
    database("sync_execute_untracked", (1, 1), |host, a| {
        sync_shared::execute_untracked(host, a.text(0, "statement")?).and_then(integer)
    }),
    // Proof
    database("sync_hash", (0, 1), |host, a| sync_shared::hash(host, a.optional_text(0)?).and_then(text)),
    pure("sync_hash_batch", (1, 1), |_, a| sync_shared::hash_batch(a.text(0, "batch")?).and_then(text)),
    pure("sync_verify_hash", (2, 2), |_, a| {
        sync_shared::verify_hash(a.text(0, "expected")?, a.text(1, "actual")?).and_then(boolean)
    }),
    pure("sync_canonical_json", (1, 1), |_, a| sync_shared::canonical_json(a.text(0, "value")?).and_then(text)),
    // Subscriptions
    database("sync_subscribe", (1, 3), |host, a| {
        sync_shared::subscribe(host, a.text(0, "table_name")?, a.optional_text(1)?, a.optional_text(2)?).and_then(text)
    }),
    database("sync_unsubscribe", (1, 1), |host, a| {
        sync_shared::unsubscribe(host, a.text(0, "subscription_id")?).and_then(boolean)
    }),
    database("sync_poll", (1, 2), |host, a| {
        sync_shared::poll(host, a.text(0, "subscription_id")?, a.integer(1, 100)?).and_then(text)
    }),
    // With another database
    database("sync_pull", (1, 2), |host, a| {
        sync_with(host, a.text(0, "url")?, Direction::Pull, a.optional_text(1)?).and_then(text)
    }),
    database("sync_push", (1, 2), |host, a| {
        sync_with(host, a.text(0, "url")?, Direction::Push, a.optional_text(1)?).and_then(text)
    }),
    database("sync_with", (1, 2), |host, a| {
        sync_with(host, a.text(0, "url")?, Direction::Both, a.optional_text(1)?).and_then(text)
    }),
];

impl Scalar for Function {
    fn call(&self, connection: &Connection, given: &Given<'_>) -> Result<Answer> {
        (self.body)(&mut SqliteHost::new(connection), &Arguments { given })
    }
}

/// The arguments of a call. NULL is as good as left out.
struct Arguments<'a> {
    given: &'a Given<'a>,
}

impl Arguments<'_> {
    fn optional_text(&self, place: usize) -> Result<Option<&str>> {
        match self.given.value(place) {
            SqlRef::Null => Ok(None),
            // readfile() yields a BLOB.
            SqlRef::Text(bytes) | SqlRef::Blob(bytes) => std::str::from_utf8(bytes)
                .map(Some)
                .map_err(|_| Error::argument(format!("argument {} is not valid UTF-8", place + 1))),
            _ => Err(Error::argument(format!("argument {} must be a text", place + 1))),
        }
    }

    fn text(&self, place: usize, name: &str) -> Result<&str> {
        self.optional_text(place)?.ok_or_else(|| Error::argument(format!("{name} is missing")))
    }

    fn optional_integer(&self, place: usize) -> Result<Option<i64>> {
        let given = match self.given.value(place) {
            SqlRef::Null => return Ok(None),
            SqlRef::Integer(i) => Some(i),
            SqlRef::Real(r) => exact_integer(r),
            _ => None,
        };
        given.map(Some).ok_or_else(|| Error::argument(format!("argument {} must be an integer", place + 1)))
    }

    fn integer(&self, place: usize, default: i64) -> Result<i64> {
        Ok(self.optional_integer(place)?.unwrap_or(default))
    }

    fn required_integer(&self, place: usize, name: &str) -> Result<i64> {
        self.optional_integer(place)?.ok_or_else(|| Error::argument(format!("{name} is missing")))
    }
}

fn text(value: impl Into<String>) -> Result<Answer> {
    Ok(Answer::Text(value.into()))
}

fn integer(value: i64) -> Result<Answer> {
    Ok(Answer::Integer(value))
}

fn boolean(value: bool) -> Result<Answer> {
    Ok(Answer::Integer(i64::from(value)))
}
