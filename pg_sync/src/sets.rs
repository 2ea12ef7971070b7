//! The contract's sets as set-returning functions: `SELECT * FROM sync_tables()`.

// The columns of a set stand in the type of what its function returns.
#![allow(clippy::type_complexity)]

use crate::call::{call, call_and_flush, call_reading};
use crate::caller::overseeing;
use crate::conflicts::Conflicts;
use crate::functions::table;
use crate::host::PgHost;
use pgrx::pg_sys::FunctionCallInfo;
use pgrx::prelude::*;
use sync_shared::{Client, Host as _, Result, Row};

#[pg_extern]
fn sync_check_table(
    table_name: Option<&str>,
    fcinfo: FunctionCallInfo,
) -> TableIterator<'static, (name!(severity, String), name!(code, String), name!(message, String), name!(fix, String))> {
    let findings = call_reading(fcinfo, |host| sync_shared::check_table(host, &table(table_name)?));
    TableIterator::new(findings.into_iter().map(|f| (f.severity.to_owned(), f.code, f.message, f.fix)))
}

#[pg_extern]
fn sync_tables(
    fcinfo: FunctionCallInfo,
) -> TableIterator<
    'static,
    (
        name!(table_name, String),
        name!(name, String),
        name!(primary_key, String),
        name!(columns, String),
        name!(conflict_strategy, String),
        name!(entries, Option<i64>),
    ),
> {
    sync_tables_counted(Some(true), fcinfo)
}

/// A function of its own, for without an argument it is granted as `sync_tables()`.
#[pg_extern(name = "sync_tables")]
fn sync_tables_counted(
    counted: Option<bool>,
    fcinfo: FunctionCallInfo,
) -> TableIterator<
    'static,
    (
        name!(table_name, String),
        name!(name, String),
        name!(primary_key, String),
        name!(columns, String),
        name!(conflict_strategy, String),
        name!(entries, Option<i64>),
    ),
> {
    let tables = call(fcinfo, |host| sync_shared::tables(host, counted.unwrap_or(true)));
    TableIterator::new(tables.into_iter().map(|t| (t.table_name, t.name, t.primary_key, t.columns, t.conflict_strategy.to_owned(), t.entries)))
}

#[pg_extern]
fn sync_changes(
    from_version: default!(Option<i64>, 0),
    batch_size: default!(Option<i32>, 1000),
    exclude_origin: default!(Option<&str>, "NULL"),
    fcinfo: FunctionCallInfo,
) -> TableIterator<
    'static,
    (
        name!(version, i64),
        name!(table_name, String),
        name!(pk_value, String),
        name!(operation, String),
        name!(payload, Option<String>),
        name!(origin, String),
        name!(timestamp, String),
    ),
> {
    let changes = call_and_flush(fcinfo, |host| {
        let mut rows = Vec::new();
        let (from, size) = (from_version.unwrap_or(0), i64::from(batch_size.unwrap_or(1000)));
        sync_shared::visit_changes(host, from, size, exclude_origin, &mut |c| {
            rows.push((c.version, c.table_name.to_owned(), c.pk_value, c.operation.to_owned(), c.payload, c.origin.to_owned(), c.timestamp));
        })?;
        Ok(rows)
    });
    TableIterator::new(changes)
}

#[pg_extern]
fn sync_conflicts(
    fcinfo: FunctionCallInfo,
) -> TableIterator<
    'static,
    (
        name!(id, i64),
        name!(table_name, String),
        name!(pk_value, String),
        name!(local_change, String),
        name!(remote_change, String),
        name!(winner, String),
        name!(strategy, String),
        name!(detected_at, String),
    ),
> {
    let sql = "SELECT id, table_name, pk_value, local_change, remote_change, winner, strategy, detected_at FROM _sync_conflicts ORDER BY id";
    TableIterator::new(call(fcinfo, |host| {
        let all = stored(host, sql, |r| {
            Ok((r.integer(0)?, text(r, 1)?, text(r, 2)?, text(r, 3)?, text(r, 4)?, text(r, 5)?, text(r, 6)?, text(r, 7)?))
        })?;
        let mut conflicts = Conflicts::new(host)?;
        let mut shown = Vec::with_capacity(all.len());
        for conflict in all {
            if conflicts.shows(host, &conflict.1, &conflict.2, [&conflict.3, &conflict.4])? {
                shown.push(conflict);
            }
        }
        Ok(shown)
    }))
}

#[pg_extern]
fn sync_rejections(
    fcinfo: FunctionCallInfo,
) -> TableIterator<
    'static,
    (
        name!(id, i64),
        name!(table_name, String),
        name!(pk_value, String),
        name!(operation, String),
        name!(payload, Option<String>),
        name!(origin, String),
        name!(timestamp, String),
        name!(kind, String),
        name!(code, String),
        name!(message, String),
        name!(attempts, i64),
        name!(rejected_at, String),
    ),
> {
    let sql = "SELECT id, table_name, pk_value, operation, payload, origin, timestamp, kind, code, message, attempts, rejected_at \
               FROM _sync_rejections ORDER BY id";
    TableIterator::new(overseeing(|| call(fcinfo, |host| {
        stored(host, sql, |r| {
            let (payload, attempts) = (r.optional_text(4)?, r.integer(10)?);
            Ok((
                r.integer(0)?, text(r, 1)?, text(r, 2)?, text(r, 3)?, payload, text(r, 5)?, text(r, 6)?, text(r, 7)?, text(r, 8)?, text(r, 9)?,
                attempts, text(r, 11)?,
            ))
        })
    })))
}

#[pg_extern]
fn sync_clients(
    fcinfo: FunctionCallInfo,
) -> TableIterator<
    'static,
    (name!(origin_id, String), name!(last_sync_version, i64), name!(last_sync_timestamp, String), name!(created_at, String)),
> {
    TableIterator::new(client_rows(call(fcinfo, |host| sync_shared::clients(host))))
}

#[pg_extern]
fn sync_stale_clients(
    inactive_days: default!(Option<i32>, 90),
    fcinfo: FunctionCallInfo,
) -> TableIterator<
    'static,
    (name!(origin_id, String), name!(last_sync_version, i64), name!(last_sync_timestamp, String), name!(created_at, String)),
> {
    TableIterator::new(client_rows(call(fcinfo, |host| sync_shared::stale_clients(host, i64::from(inactive_days.unwrap_or(90))))))
}

#[pg_extern]
fn sync_subscriptions(
    fcinfo: FunctionCallInfo,
) -> TableIterator<
    'static,
    (
        name!(subscription_id, String),
        name!(origin_id, String),
        name!(subscription_type, String),
        name!(table_name, String),
        name!(filter, Option<String>),
        name!(created_at, String),
        name!(expires_at, Option<String>),
        name!(last_version, i64),
    ),
> {
    let sql = "SELECT subscription_id, origin_id, subscription_type, table_name, filter, created_at, expires_at, last_version \
               FROM _sync_subscriptions ORDER BY 1";
    TableIterator::new(overseeing(|| call(fcinfo, |host| {
        stored(host, sql, |r| {
            Ok((text(r, 0)?, text(r, 1)?, text(r, 2)?, text(r, 3)?, r.optional_text(4)?, text(r, 5)?, r.optional_text(6)?, r.integer(7)?))
        })
    })))
}

fn client_rows(clients: Vec<Client>) -> impl Iterator<Item = (String, i64, String, String)> {
    clients.into_iter().map(|c| (c.origin_id, c.last_sync_version, c.last_sync_timestamp, c.created_at))
}

fn stored<T>(host: &mut PgHost, sql: &str, row: impl Fn(&dyn Row) -> Result<T>) -> Result<Vec<T>> {
    let mut rows = Vec::new();
    host.query(sql, &[], &mut |found| {
        rows.push(row(found)?);
        Ok(true)
    })?;
    Ok(rows)
}

fn text(row: &dyn Row, column: usize) -> Result<String> {
    row.text(column).map(str::to_owned)
}
