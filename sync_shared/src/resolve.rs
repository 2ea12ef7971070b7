//! `sync_resolve_conflict`: the rules by themselves, without a database. Seen from a client: remote is the server.
//!
//! The winner is the text that was given, so that no number of it is rounded on the way.

use crate::batch::is_too_deep;
use crate::canonical::{MAX_NESTING, write_string};
use crate::change::Operation;
use crate::conflict::Strategy;
use crate::error::{Error, Result};
use crate::stamp;
use crate::value::{Str, object_members};
use std::borrow::Cow;

/// `{"winner":{change},"strategy":name}` for two changes of one row as JSON.
///
/// Errors: `InvalidArgument`, `LimitExceeded`; `custom` needs a tracked table and is refused.
pub fn resolve_conflict(local: &str, remote: &str, strategy: &str) -> Result<String> {
    let (local, remote) = (Side::parse("local", local)?, Side::parse("remote", remote)?);
    let unknown = || Error::argument(format!("there is no strategy {strategy:?}; it is one of {}", Strategy::NAMES));
    let winner = match Strategy::named(strategy).ok_or_else(unknown)? {
        Strategy::ServerWins => Cow::Borrowed(remote.text),
        Strategy::ClientWins => Cow::Borrowed(local.text),
        Strategy::LastWriteWins => Cow::Borrowed(by_last_write(&local, &remote)?.0.text),
        Strategy::Merge => merged(&local, &remote)?,
        Strategy::Custom => return Err(Error::argument("custom is run by sync_apply_batch for a tracked table only")),
    };
    Ok(format!("{{\"winner\":{winner},\"strategy\":\"{strategy}\"}}"))
}

type Members<'a> = Vec<(Cow<'a, str>, &'a str)>;

/// One of the two changes.
struct Side<'a> {
    text: &'a str,
    members: Members<'a>,
}

impl<'a> Side<'a> {
    fn parse(side: &str, text: &'a str) -> Result<Side<'a>> {
        if is_too_deep(text) {
            return Err(Error::limit(format!("{side} nests deeper than {MAX_NESTING} levels")));
        }
        let members = object_members(text).map_err(|e| Error::argument(format!("{side} is not a change: {e}")))?;
        Ok(Side { text: text.trim(), members })
    }

    /// The JSON text of a member.
    fn raw(&self, name: &str) -> Option<&'a str> {
        self.members.iter().find(|(known, _)| known == name).map(|(_, raw)| *raw)
    }

    fn text(&self, name: &str) -> Result<Cow<'a, str>> {
        let text = self.raw(name).and_then(|raw| serde_json::from_str(raw).ok());
        text.map(|Str(text)| text).ok_or_else(|| Error::argument(format!("the change has no {name}")))
    }

    /// The greater is the newer. The origin breaks ties; of one author's changes of one instant the later in its log is the newer.
    fn order(&self) -> Result<(i128, String, i64, &'a str)> {
        let timestamp = self.text("timestamp")?;
        let instant = stamp::parse_nanoseconds(&timestamp)
            .ok_or_else(|| Error::argument(format!("timestamp {timestamp:?} is not an ISO 8601 instant with Z or an offset")))?;
        let version = self.raw("version").and_then(|raw| raw.parse().ok()).unwrap_or(0);
        Ok((instant, self.text("origin")?.to_ascii_lowercase(), version, self.text))
    }

    /// The members of its payload, given as text or nested; None for a delete.
    fn payload(&self) -> Result<Option<Cow<'a, str>>> {
        let deletes = self.raw("operation").and_then(Operation::parse_json) == Some(Operation::Delete);
        match self.raw("payload") {
            Some(raw) if !deletes && raw.starts_with('{') => Ok(Some(Cow::Borrowed(raw))),
            Some(raw) if !deletes && raw != "null" => self.text("payload").map(Some),
            _ => Ok(None),
        }
    }
}

/// The newer change, then the older.
fn by_last_write<'s, 'a>(local: &'s Side<'a>, remote: &'s Side<'a>) -> Result<(&'s Side<'a>, &'s Side<'a>)> {
    Ok(if remote.order()? > local.order()? { (remote, local) } else { (local, remote) })
}

/// Without the version both knew, every field that differs goes with the last write; fields of one side only are kept.
fn merged<'a>(local: &Side<'a>, remote: &Side<'a>) -> Result<Cow<'a, str>> {
    let (newer, older) = by_last_write(local, remote)?;
    let (Some(newest), Some(known)) = (newer.payload()?, older.payload()?) else { return Ok(Cow::Borrowed(newer.text)) };
    let fields = |payload| object_members(payload).map_err(|e| Error::argument(format!("a payload is not an object: {e}")));
    let mut row: Members<'_> = fields(&newest)?;
    for (name, raw) in fields(&known)? {
        if !row.iter().any(|(other, _)| other.eq_ignore_ascii_case(&name)) {
            row.push((name, raw));
        }
    }
    let mut payload = String::new();
    write_string(&mut payload, &object(&row));
    let members = newer.members.iter().map(|(name, raw)| (name.clone(), if name == "payload" { &payload } else { *raw }));
    Ok(Cow::Owned(object(&members.collect())))
}

/// The JSON object of these members.
fn object(members: &Members<'_>) -> String {
    let mut out = String::from("{");
    for (name, raw) in members {
        if out.len() > 1 {
            out.push(',');
        }
        write_string(&mut out, name);
        out.push(':');
        out.push_str(raw);
    }
    out.push('}');
    out
}
