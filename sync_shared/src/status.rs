//! `sync_status()` and `sync_tables()`: what is tracked, and what waits.

use crate::catalog::Catalog;
use crate::change::Operation;
use crate::clients::clients;
use crate::error::{Kind, Result};
use crate::host::{Host, query_integer};
use crate::log_entry::LogRange;
use crate::progress;
use crate::stamp;
use crate::table::Table;
use crate::unseen::{Peer, count_unseen};
use serde_json::{Value as Json, json};

/// A row of `sync_tables()`.
pub struct TrackedSummary {
    pub table_name: String,
    pub name: String,
    /// JSON array.
    pub primary_key: String,
    /// JSON array.
    pub columns: String,
    pub conflict_strategy: &'static str,
    /// None: not counted.
    pub entries: Option<i64>,
}

/// The tracked tables that the caller may read. To count their entries the whole log is read.
pub fn tables(host: &mut dyn Host, counted: bool) -> Result<Vec<TrackedSummary>> {
    let (_, catalog) = Catalog::open(host)?;
    let counts = if counted { Some(count_entries(host, &catalog)?) } else { None };
    let readable = readable(host, &catalog)?;
    Ok(readable
        .into_iter()
        .map(|(index, table)| TrackedSummary {
            table_name: table.table_name.clone(),
            name: table.name.clone(),
            primary_key: json!(table.key_names()).to_string(),
            columns: json!(table.column_names()).to_string(),
            conflict_strategy: table.strategy.name(),
            entries: counts.as_ref().map(|counts| counts[index].0),
        })
        .collect())
}

/// Tables with rows, entries and tombstones; what waits; clients and their lag; the log's size; and what a transaction that is open keeps
/// from being fetched.
pub fn status(host: &mut dyn Host) -> Result<String> {
    let (state, catalog) = Catalog::open(host)?;
    let counts = count_entries(host, &catalog)?;
    let mut per_table: Vec<Json> = Vec::new();
    for (index, table) in readable(host, &catalog)? {
        let mut rows = 0i64;
        if host.describe(&table.table_name)?.is_some() {
            rows = host.count_rows(table)?;
        }
        let (entries, tombstones) = counts[index];
        let mut summary = json!({
            "table": table.table_name, "name": table.name, "rows": rows, "entries": entries, "tombstones": tombstones,
        });
        if let Err(error) = state.uncaptured.check(table) {
            summary["problem"] = Json::String(error.to_string());
        }
        per_table.push(summary);
    }
    let head = host.head()?;
    let clients: Vec<Json> = clients(host)?
        .into_iter()
        .map(|c| {
            json!({
                "originId": c.origin_id, "lastSyncVersion": c.last_sync_version, "lag": head - c.last_sync_version,
                "lastSyncTimestamp": c.last_sync_timestamp,
            })
        })
        .collect();
    let server = Peer::upstream(host, &state)?;
    let pending = count_unseen(host, &catalog, &server)?;
    let count = |host: &mut dyn Host, sql: &str| query_integer(host, sql, &[]);
    let mut answer = json!({
        "tables": per_table,
        "rejections": count(host, "SELECT count(*) FROM _sync_rejections")?,
        "conflicts": count(host, "SELECT count(*) FROM _sync_conflicts")?,
        "pendingPushes": pending,
        "resync": state.resync,
        "clients": clients,
        "maxVersion": head,
        "logBytes": host.log_bytes()?,
    });
    let tip = host.tip()?;
    if tip > head {
        let since = host.held_back_since()?.map(stamp::format);
        answer["heldBack"] = json!({ "versions": tip - head, "since": since });
    }
    if !state.progress.is_empty() {
        answer["sync"] = progress::read(&state.progress);
    }
    Ok(answer.to_string())
}

/// The tracked tables that the caller may read, by index.
fn readable<'c>(host: &mut dyn Host, catalog: &'c Catalog) -> Result<Vec<(usize, &'c Table)>> {
    let mut readable = Vec::new();
    for (index, table) in catalog.tracked() {
        match host.may_read(table) {
            Ok(true) => readable.push((index, table)),
            Ok(false) => {}
            Err(error) if error.kind() == Some(Kind::PermissionDenied) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(readable)
}

/// Entries and tombstones of every table, by index, as far as the caller may see them.
fn count_entries(host: &mut dyn Host, catalog: &Catalog) -> Result<Vec<(i64, i64)>> {
    let mut counts = vec![(0, 0); catalog.tables.len()];
    let places = |id: i64| catalog.tables.iter().position(|t| t.id == id);
    host.read_log(catalog, LogRange { for_caller: true, ..LogRange::after(0) }, &mut |entry| {
        if !entry.shown {
            return Ok(true);
        }
        if let Some(place) = places(entry.table.id) {
            counts[place].0 += 1;
            counts[place].1 += i64::from(entry.operation == Operation::Delete);
        }
        Ok(true)
    })?;
    Ok(counts)
}
