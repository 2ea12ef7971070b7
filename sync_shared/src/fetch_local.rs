//! `sync_fetch_local_changes` and `sync_acknowledge_push`: what goes upstream.

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::fetch::{ChangeWriter, checked_batch_size};
use crate::host::{Host, LogRange, in_transaction};
use crate::state::{self, State};
use crate::unseen::{Peer, UPSTREAM, fold};
use crate::value::ValueRef;
use std::fmt::Write as _;

/// The newest entry of every row that the server has not seen, as a push batch (JSON), at most `batch_size` of them.
pub fn fetch_local_changes(host: &mut dyn Host, batch_size: i64) -> Result<String> {
    let batch_size = checked_batch_size(batch_size)?;
    in_transaction(host, |host| {
        let (state, catalog) = Catalog::open(host)?;
        let peer = Peer::upstream(host, &state)?;
        fold(host, &catalog, &peer)?;
        let mut versions = unseen_versions(host, state.last_push_version, batch_size + 1)?;
        let has_more = versions.len() > batch_size;
        versions.truncate(batch_size);
        let mut writer = ChangeWriter::new(host)?;
        write_entries(host, &catalog, &versions, &mut writer)?;
        let head = host.head()?;
        let to_version = match (has_more, versions.last()) {
            (true, Some(&last)) => last,
            _ => head,
        };
        let mut members = format!(
            "{{\"kind\":\"push\",\"originId\":\"{}\",\"epoch\":\"{}\",\"fromVersion\":{},\"toVersion\":{to_version},\"hasMore\":{has_more}",
            state.origin_id, state.epoch, state.last_push_version
        );
        // What a resync has fetched so far is not applied yet: its author has seen none of it.
        let seen = if state.resync { 0 } else { state.cursor.number() };
        write!(members, ",\"lastServerVersion\":{seen},\"maxVersion\":{head}").ok();
        if !state.server_epoch.is_empty() {
            write!(members, ",\"serverEpoch\":\"{}\"", state.server_epoch).ok();
        }
        Ok(writer.finish(members))
    })
}

/// Says that the server has everything up to `to_version`; returns the new `last_push_version`, which never goes back.
pub fn acknowledge_push(host: &mut dyn Host, to_version: i64) -> Result<i64> {
    if to_version < 0 {
        return Err(Error::argument(format!("version {to_version} is negative")));
    }
    in_transaction(host, |host| {
        let state = State::load(host)?;
        let acknowledged = to_version.min(host.head()?).max(state.last_push_version);
        if acknowledged > state.last_push_version {
            state::set_integer(host, "last_push_version", acknowledged)?;
        }
        Ok(acknowledged)
    })
}

fn unseen_versions(host: &mut dyn Host, after: i64, limit: usize) -> Result<Vec<i64>> {
    let mut versions = Vec::new();
    host.query(
        "SELECT version FROM _sync_unseen WHERE peer = ?1 AND version > ?2 AND won = 0 ORDER BY version LIMIT ?3",
        &[ValueRef::Integer(UPSTREAM), ValueRef::Integer(after), ValueRef::Integer(limit as i64)],
        &mut |row| {
            versions.push(row.integer(0)?);
            Ok(true)
        },
    )?;
    Ok(versions)
}

/// Writes the entries of ascending versions: in one pass where they lie close together, one by one where they do not.
fn write_entries(host: &mut dyn Host, catalog: &Catalog, versions: &[i64], writer: &mut ChangeWriter) -> Result<()> {
    let (Some(&first), Some(&last)) = (versions.first(), versions.last()) else { return Ok(()) };
    if last - first < 8 * versions.len() as i64 {
        let mut wanted = versions.iter().peekable();
        let range = LogRange { upto: last, ..LogRange::after(first - 1) };
        return host.read_log(catalog, range, &mut |entry| {
            if wanted.next_if_eq(&&entry.version).is_some() {
                writer.write(entry)?;
            }
            Ok(true)
        });
    }
    for &version in versions {
        host.read_log(catalog, LogRange::exactly(version), &mut |entry| writer.write(entry).map(|()| true))?;
    }
    Ok(())
}
