//! `sync_fetch_local_changes` and `sync_acknowledge_push`: what goes upstream.

use crate::batch::MAX_MARKS;
use crate::catalog::Catalog;
use crate::change_writer::{ChangeWriter, Fit};
use crate::error::{Error, Result};
use crate::fetch::checked_batch_size;
use crate::host::{Host, in_transaction, query_integer, query_value};
use crate::log_entry::{LogEntry, LogRange};
use crate::state::{self, State};
use crate::superseded::without_unreadable;
use crate::unseen::{Peer, UPSTREAM, fold};
use crate::value::{Value, ValueRef};
use std::fmt::Write as _;
use uuid::Uuid;

/// The newest entry of every row that the server has not seen, as a push batch (JSON), at most `batch_size` of them.
///
/// Errors: `InvalidArgument`, `LimitExceeded` if the first is too large for any batch.
pub fn fetch_local_changes(host: &mut dyn Host, batch_size: i64) -> Result<String> {
    let batch_size = checked_batch_size(batch_size)?;
    in_transaction(host, |host| {
        let (state, catalog) = Catalog::open(host)?;
        state.uncaptured.check_all(&catalog)?;
        let peer = Peer::upstream(host, &state)?;
        let head = host.head()?;
        fold(host, &catalog, &peer, &[])?;
        let mut unseen = unseen_versions(host, (state.last_push_version, head), batch_size + 1)?;
        let all = unseen.len();
        unseen.truncate(batch_size);
        let (writer, end) = without_unreadable(host, &catalog, state.last_push_version, |host, superseded| {
            let needed: Vec<Unseen> = unseen.iter().filter(|u| !superseded.contains(&u.version)).copied().collect();
            let mut writer = ChangeWriter::new(host)?;
            let taken = write_entries(host, &catalog, &needed, &mut writer)?;
            Ok((writer, if taken < needed.len() { needed[..taken].last().map(|u| u.version) } else { None }))
        })?;
        // Where the batch had no room for more, or the changes were too many.
        let end = end.or(unseen.last().map(|u| u.version).filter(|_| all > unseen.len()));
        let has_more = end.is_some();
        let to_version = end.unwrap_or(head);
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
        mark_push(host, to_version)?;
        write!(members, ",\"marks\":[{}]", marks_since(host, state.last_push_version, to_version)?).ok();
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
            set_pushed(host, acknowledged)?;
        }
        Ok(acknowledged)
    })
}

/// Moves `last_push_version`.
pub fn set_pushed(host: &mut dyn Host, version: i64) -> Result<()> {
    state::set_integer(host, "last_push_version", version)?;
    host.execute("DELETE FROM _sync_pushes WHERE to_version < ?1", &[ValueRef::Integer(version)])?;
    Ok(())
}

/// Was a batch with this mark handed out here up to a version? True as well if that is too long ago to tell.
pub fn is_own_push(host: &mut dyn Host, to_version: i64, mark: &str) -> Result<bool> {
    match mark_of_push(host, to_version)? {
        Some(known) => Ok(known == mark),
        None => {
            let later = "SELECT EXISTS (SELECT 1 FROM _sync_pushes WHERE to_version > ?1) AND \
                         NOT EXISTS (SELECT 1 FROM _sync_pushes WHERE to_version < ?1)";
            Ok(query_integer(host, later, &[ValueRef::Integer(to_version)])? != 0)
        }
    }
}

fn mark_of_push(host: &mut dyn Host, to_version: i64) -> Result<Option<String>> {
    match query_value(host, "SELECT mark FROM _sync_pushes WHERE to_version = ?1", &[ValueRef::Integer(to_version)])? {
        Some(Value::Text(mark)) => Ok(Some(mark)),
        _ => Ok(None),
    }
}

/// Gives the batches up to a version their mark, if they have none.
fn mark_push(host: &mut dyn Host, to_version: i64) -> Result<()> {
    let mark = Uuid::new_v4().to_string();
    host.execute(
        "INSERT INTO _sync_pushes (to_version, mark) VALUES (?1, ?2) ON CONFLICT (to_version) DO NOTHING",
        &[ValueRef::Integer(to_version), ValueRef::Text(&mark)],
    )?;
    Ok(())
}

/// The mark of the batch up to a version, and those of the batches above another, as they stand in a JSON array.
fn marks_since(host: &mut dyn Host, above: i64, upto: i64) -> Result<String> {
    let mut marks: Vec<String> = Vec::new();
    host.query(
        "SELECT to_version, mark FROM _sync_pushes WHERE to_version > ?1 OR to_version = ?2 \
         ORDER BY CASE to_version WHEN ?2 THEN 0 ELSE 1 END, to_version DESC LIMIT ?3",
        &[ValueRef::Integer(above), ValueRef::Integer(upto), ValueRef::Integer(MAX_MARKS as i64)],
        &mut |row| {
            marks.push(format!("\"{}@{}\"", row.integer(0)?, row.text(1)?));
            Ok(true)
        },
    )?;
    Ok(marks.join(","))
}

/// An entry that the server has not seen.
#[derive(Clone, Copy)]
struct Unseen {
    version: i64,
    /// Below the first of the server's entries of the row that wait here.
    seen_version: Option<i64>,
}

fn unseen_versions(host: &mut dyn Host, (after, upto): (i64, i64), limit: usize) -> Result<Vec<Unseen>> {
    let mut unseen = Vec::new();
    host.query(
        "SELECT u.version, (SELECT min(r.version) - 1 FROM _sync_rejections AS r WHERE r.row_hash = u.row_hash AND r.via = u.peer) \
         FROM _sync_unseen AS u WHERE u.peer = ?1 AND u.version > ?2 AND u.version <= ?3 AND u.won = 0 ORDER BY u.version LIMIT ?4",
        &[ValueRef::Integer(UPSTREAM), ValueRef::Integer(after), ValueRef::Integer(upto), ValueRef::Integer(limit as i64)],
        &mut |row| {
            let seen_version = match row.value(1)? {
                ValueRef::Integer(version) => Some(version),
                _ => None,
            };
            unseen.push(Unseen { version: row.integer(0)?, seen_version });
            Ok(true)
        },
    )?;
    Ok(unseen)
}

/// Writes entries in the order of their versions: in one pass where they lie close together, one by one where they do not. Returns how
/// many of them are dealt with; the next has no room.
fn write_entries(host: &mut dyn Host, catalog: &Catalog, unseen: &[Unseen], writer: &mut ChangeWriter) -> Result<usize> {
    let (Some(first), Some(last)) = (unseen.first(), unseen.last()) else { return Ok(0) };
    let mut full: Option<usize> = None;
    let mut write = |entry: &LogEntry<'_>, place: usize| {
        match writer.write_if_it_fits(entry, unseen[place].seen_version, 0)? {
            Fit::Taken => return Ok(true),
            Fit::Never(row) if place == 0 => return Err(row.error()),
            Fit::Full | Fit::Never(_) => full = Some(place),
        }
        Ok(false)
    };
    if last.version - first.version < 8 * unseen.len() as i64 {
        let mut wanted = unseen.iter().enumerate().peekable();
        let range = LogRange { upto: last.version, ..LogRange::after(first.version - 1) };
        host.read_log(catalog, range, &mut |entry| {
            while wanted.next_if(|(_, u)| u.version < entry.version).is_some() {}
            match wanted.next_if(|(_, u)| u.version == entry.version) {
                Some((place, _)) => write(entry, place),
                None => Ok(true),
            }
        })?;
        return Ok(full.unwrap_or(unseen.len()));
    }
    for (place, found) in unseen.iter().enumerate() {
        let mut room = true;
        host.read_log(catalog, LogRange::exactly(found.version), &mut |entry| {
            room = write(entry, place)?;
            Ok(room)
        })?;
        if !room {
            break;
        }
    }
    Ok(full.unwrap_or(unseen.len()))
}
