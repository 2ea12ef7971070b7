//! This replica's cursors, identities and settings, read once per call.

use crate::cursor::{Cursor, full_resync};
use crate::error::{Error, Kind, Result};
use crate::host::{Host, query_integer};
use crate::progress;
use crate::uncaptured::{self, Uncaptured};
use crate::value::ValueRef;
use serde_json::json;
use std::collections::HashMap;

/// A stamp further ahead than this is restamped, unless `_sync_state` says otherwise. Milliseconds.
const DEFAULT_MAX_CLOCK_SKEW: i64 = 5 * 60 * 1000;

#[derive(Clone, Debug)]
pub struct State {
    pub origin_id: String,
    /// Id of `origin_id` in `_sync_origins`.
    pub self_id: i64,
    pub epoch: String,
    /// How far the server's log was followed.
    pub cursor: Cursor,
    pub last_push_version: i64,
    /// Whom this replica pulls from; empty before the first pull.
    pub server_origin: String,
    pub server_epoch: String,
    /// Origin and stamp of the server's log entry at `last_server_version`.
    pub server_anchor: String,
    /// The highest version of the server's log that was heard of.
    pub server_max: i64,
    /// Highest version of a tombstone that was purged.
    pub purge_horizon: i64,
    /// How often the horizon has moved.
    pub purges: i64,
    /// Up to here the log was looked at for what may let a rejected change succeed; None: it has to be tried.
    pub retried_version: Option<i64>,
    /// A full resync is under way.
    pub resync: bool,
    /// Milliseconds.
    pub max_clock_skew: i64,
    pub schema_cookie: i64,
    /// The tracked tables whose capture is off.
    pub uncaptured: Uncaptured,
    /// How far the last `sync_with` came, as JSON; empty before the first.
    pub progress: String,
}

impl State {
    pub fn load(host: &mut dyn Host) -> Result<State> {
        if !host.is_initialized()? {
            return Err(Error::new(Kind::NotInitialized, "call sync_init() or sync_track_table(...) first"));
        }
        let mut values: HashMap<String, String> = HashMap::new();
        host.query("SELECT key, value FROM _sync_state", &[], &mut |row| {
            values.insert(row.text(0)?.to_owned(), row.text(1)?.to_owned());
            Ok(true)
        })?;
        let text = |key: &str| values.get(key).cloned().unwrap_or_default();
        let integer = |key: &str, default: i64| match values.get(key) {
            None => Ok(default),
            Some(value) => value
                .parse::<i64>()
                .map_err(|_| Error::corrupt(format!("_sync_state.{key} is {value:?}, not a number"))),
        };
        Ok(State {
            origin_id: text("origin_id"),
            self_id: integer("self_id", 1)?,
            epoch: text("epoch"),
            cursor: Cursor::from_number(integer("last_server_version", 0)?),
            last_push_version: integer("last_push_version", 0)?,
            server_origin: text("server_origin"),
            server_epoch: text("server_epoch"),
            server_anchor: text("server_anchor"),
            server_max: integer("server_max", 0)?,
            purge_horizon: integer("purge_horizon", 0)?,
            purges: integer("purges", 0)?,
            retried_version: Some(integer("retried_version", -1)?).filter(|&v| v >= 0),
            resync: integer("resync", 0)? != 0,
            max_clock_skew: integer("max_clock_skew", DEFAULT_MAX_CLOCK_SKEW)?,
            schema_cookie: integer("schema_cookie", -1)?,
            uncaptured: Uncaptured::parse(&text(uncaptured::KEY))?,
            progress: text(progress::KEY),
        })
    }

    /// Checks that whoever is at a cursor in this log has missed nothing that was purged.
    ///
    /// Errors: `FullResyncRequired`.
    pub fn check_cursor(&self, cursor: Cursor) -> Result<()> {
        match cursor.is_above(self.purge_horizon) || cursor.is_replay(self.purges) {
            true => Ok(()),
            false => Err(full_resync(cursor, self.purge_horizon)),
        }
    }
}

/// Stores one value of `_sync_state`.
pub fn set(host: &mut dyn Host, key: &str, value: &str) -> Result<()> {
    host.execute(
        "INSERT INTO _sync_state (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        &[ValueRef::Text(key), ValueRef::Text(value)],
    )?;
    Ok(())
}

pub fn set_integer(host: &mut dyn Host, key: &str, value: i64) -> Result<()> {
    set(host, key, &value.to_string())
}

/// The cursor in the server's log.
pub fn last_server_version(host: &mut dyn Host) -> Result<i64> {
    State::load(host).map(|s| s.cursor.number())
}

/// The version up to which the local log was pushed.
pub fn last_push_version(host: &mut dyn Host) -> Result<i64> {
    State::load(host).map(|s| s.last_push_version)
}

/// `sync_state()`.
pub fn state_json(host: &mut dyn Host) -> Result<String> {
    let state = State::load(host)?;
    let (min, entries) = (lowest_version(host)?, entry_count(host)?);
    let server = (!state.server_origin.is_empty()).then_some(state.server_origin);
    Ok(json!({
        "originId": state.origin_id,
        "epoch": state.epoch,
        "lastServerVersion": state.cursor.number(),
        "lastPushVersion": state.last_push_version,
        "maxVersion": host.head()?,
        "minVersion": min,
        "entries": entries,
        "serverOriginId": server,
    })
    .to_string())
}

fn lowest_version(host: &mut dyn Host) -> Result<i64> {
    query_integer(host, "SELECT min(version) FROM _sync_log_data WHERE version > 0 AND operation < 3", &[])
}

fn entry_count(host: &mut dyn Host) -> Result<i64> {
    query_integer(host, "SELECT count(*) FROM _sync_log_data WHERE version > 0 AND operation < 3", &[])
}

/// The small number of a replica, made if it is new.
pub fn origin_number(host: &mut dyn Host, origin: &str) -> Result<i64> {
    let known = query_integer(host, "SELECT id FROM _sync_origins WHERE origin = ?1", &[ValueRef::Text(origin)])?;
    if known != 0 {
        return Ok(known);
    }
    host.execute("INSERT INTO _sync_origins (origin) VALUES (?1)", &[ValueRef::Text(origin)])?;
    query_integer(host, "SELECT id FROM _sync_origins WHERE origin = ?1", &[ValueRef::Text(origin)])
}

/// The small number of a replica, if it is known here.
pub fn known_origin(host: &mut dyn Host, origin: &str) -> Result<Option<i64>> {
    let id = query_integer(host, "SELECT id FROM _sync_origins WHERE origin = ?1", &[ValueRef::Text(origin)])?;
    Ok((id != 0).then_some(id))
}

/// All replicas by their small numbers.
pub fn origin_names(host: &mut dyn Host) -> Result<HashMap<i64, String>> {
    let mut names = HashMap::new();
    host.query("SELECT id, origin FROM _sync_origins", &[], &mut |row| {
        names.insert(row.integer(0)?, row.text(1)?.to_owned());
        Ok(true)
    })?;
    Ok(names)
}

/// A UUID in lower case with hyphens, as an origin has to be.
pub fn parse_origin(text: &str) -> Option<String> {
    (text.len() == 36).then(|| uuid::Uuid::try_parse(text).ok()).flatten().map(|id| id.to_string())
}
