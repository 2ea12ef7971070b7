//! The replicas that pull from here, and how far they are. Tombstones are kept until all of them have passed.

use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::host::{Host, in_transaction};
use crate::stamp;
use crate::state::{State, parse_origin};
use crate::value::ValueRef;
use serde_json::json;

const MILLISECONDS_PER_DAY: i64 = 24 * 60 * 60 * 1000;

#[derive(Clone, Debug)]
pub struct Client {
    pub origin_id: String,
    pub last_sync_version: i64,
    pub last_sync_timestamp: String,
    pub created_at: String,
}

/// Registers a client, or moves a known one forward; it never goes back. Returns the client as JSON.
///
/// Errors: `InvalidArgument` for a bad UUID or a version below 0 or above the log's highest.
pub fn register_client(host: &mut dyn Host, origin_id: &str, last_sync_version: i64) -> Result<String> {
    let origin = parse_origin(origin_id).ok_or_else(|| Error::argument(format!("origin id {origin_id:?} is not a UUID")))?;
    State::load(host)?;
    in_transaction(host, |host| {
        let head = host.head()?;
        let version = Cursor::from_number(last_sync_version).version;
        if !(0..=head).contains(&version) {
            return Err(Error::argument(format!("version {version} is not within 0 and {head}")));
        }
        let now = stamp::format(host.now());
        host.execute(
            "INSERT INTO _sync_clients (origin_id, last_sync_version, last_sync_timestamp, created_at) VALUES (?1, ?2, ?3, ?3) \
             ON CONFLICT (origin_id) DO UPDATE SET last_sync_version = CASE WHEN excluded.last_sync_version > _sync_clients.last_sync_version \
             THEN excluded.last_sync_version ELSE _sync_clients.last_sync_version END, last_sync_timestamp = excluded.last_sync_timestamp",
            &[ValueRef::Text(&origin), ValueRef::Integer(version), ValueRef::Text(&now)],
        )?;
        let client = clients(host)?.into_iter().find(|c| c.origin_id == origin);
        let client = client.ok_or_else(|| Error::corrupt("a client just registered"))?;
        Ok(json!({
            "originId": client.origin_id,
            "lastSyncVersion": client.last_sync_version,
            "lastSyncTimestamp": client.last_sync_timestamp,
            "createdAt": client.created_at,
        })
        .to_string())
    })
}

/// All clients, the one furthest behind first.
pub fn clients(host: &mut dyn Host) -> Result<Vec<Client>> {
    State::load(host)?;
    let mut clients = Vec::new();
    host.query(
        "SELECT origin_id, last_sync_version, last_sync_timestamp, created_at FROM _sync_clients ORDER BY last_sync_version, origin_id",
        &[],
        &mut |row| {
            clients.push(Client {
                origin_id: row.text(0)?.to_owned(),
                last_sync_version: row.integer(1)?,
                last_sync_timestamp: row.text(2)?.to_owned(),
                created_at: row.text(3)?.to_owned(),
            });
            Ok(true)
        },
    )?;
    Ok(clients)
}

/// Forgets a client: tombstones wait for it no longer. False if it was not known.
pub fn remove_client(host: &mut dyn Host, origin_id: &str) -> Result<bool> {
    State::load(host)?;
    let origin = parse_origin(origin_id).ok_or_else(|| Error::argument(format!("origin id {origin_id:?} is not a UUID")))?;
    in_transaction(host, |host| {
        Ok(host.execute("DELETE FROM _sync_clients WHERE origin_id = ?1", &[ValueRef::Text(&origin)])? > 0)
    })
}

/// Clients that were not heard of for more than `inactive_days`. A client whose timestamp cannot be read counts as one.
pub fn stale_clients(host: &mut dyn Host, inactive_days: i64) -> Result<Vec<Client>> {
    if inactive_days < 0 {
        return Err(Error::argument(format!("{inactive_days} days is negative")));
    }
    let limit = host.now().saturating_sub(inactive_days.saturating_mul(MILLISECONDS_PER_DAY));
    let stale = |c: &Client| stamp::parse(&c.last_sync_timestamp).is_none_or(|heard| heard < limit);
    Ok(clients(host)?.into_iter().filter(stale).collect())
}
