//! `sync_resolve_conflict`: the rules by themselves, without a database. Seen from a client: remote is the server.

use crate::canonical::write_string;
use crate::conflict::Strategy;
use crate::error::{Error, Result};
use crate::stamp;
use crate::value::object_members;
use serde_json::{Map, Value as Json, json};

/// `{"winner":{change},"strategy":name}` for two changes of one row as JSON.
///
/// Errors: `InvalidArgument`; `custom` needs a tracked table and is refused.
pub fn resolve_conflict(local: &str, remote: &str, strategy: &str) -> Result<String> {
    let (local, remote) = (parse("local", local)?, parse("remote", remote)?);
    let unknown = || Error::argument(format!("there is no strategy {strategy:?}; it is one of {}", Strategy::NAMES));
    let winner = match Strategy::named(strategy).ok_or_else(unknown)? {
        Strategy::ServerWins => remote,
        Strategy::ClientWins => local,
        Strategy::LastWriteWins => newer(local, remote)?,
        Strategy::Merge => merged(local, remote)?,
        Strategy::Custom => return Err(Error::argument("custom is run by sync_apply_batch for a tracked table only")),
    };
    Ok(json!({"winner": winner, "strategy": strategy}).to_string())
}

fn parse(side: &str, text: &str) -> Result<Map<String, Json>> {
    serde_json::from_str(text).map_err(|e| Error::argument(format!("{side} is not a change: {e}")))
}

fn newer(local: Map<String, Json>, remote: Map<String, Json>) -> Result<Map<String, Json>> {
    Ok(if order(&remote)? > order(&local)? { remote } else { local })
}

fn order(change: &Map<String, Json>) -> Result<(i128, String)> {
    let member = |name: &str| {
        let text = change.get(name).and_then(Json::as_str);
        text.ok_or_else(|| Error::argument(format!("the change has no {name}")))
    };
    let timestamp = member("timestamp")?;
    let instant = stamp::parse_nanoseconds(timestamp)
        .ok_or_else(|| Error::argument(format!("timestamp {timestamp:?} is not an ISO 8601 instant with Z or an offset")))?;
    Ok((instant, member("origin")?.to_owned()))
}

/// Without the version both knew, every field that differs goes with the last write; fields of one side only are kept.
fn merged(local: Map<String, Json>, remote: Map<String, Json>) -> Result<Map<String, Json>> {
    let winner = newer(local.clone(), remote.clone())?;
    let text = |change: &Map<String, Json>| match change.get("payload") {
        Some(Json::String(text)) => Some(text.clone()),
        Some(Json::Object(members)) => Some(Json::Object(members.clone()).to_string()),
        _ => None,
    };
    let (Some(mine), Some(theirs), Some(newest)) = (text(&local), text(&remote), text(&winner)) else { return Ok(winner) };
    let mut row: Vec<(String, String)> = Vec::new();
    for side in [&mine, &theirs, &newest] {
        for (name, raw) in object_members(side).map_err(|e| Error::argument(format!("a payload is not an object: {e}")))? {
            match row.iter_mut().find(|(known, _)| *known == name) {
                Some((_, value)) => raw.clone_into(value),
                None => row.push((name.into_owned(), raw.to_owned())),
            }
        }
    }
    let mut payload = String::from("{");
    for (name, raw) in &row {
        if payload.len() > 1 {
            payload.push(',');
        }
        write_string(&mut payload, name);
        payload.push(':');
        payload.push_str(raw);
    }
    payload.push('}');
    let mut winner = winner;
    winner.insert("payload".to_owned(), Json::String(payload));
    Ok(winner)
}
