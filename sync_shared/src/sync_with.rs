//! `sync_with`: pull, then push, against another database in one call. Every batch is a transaction of its own on each side, so a call
//! that is stopped anywhere goes on where it was.

use crate::apply::{ApplyOptions, apply_counted};
use crate::clients::register_client;
use crate::error::{Error, Result};
use crate::fetch::fetch_changes;
use crate::fetch_local::{acknowledge_push, fetch_local_changes};
use crate::host::Host;
use crate::state::{State, last_push_version, last_server_version};
use serde_json::{Map, Value as Json, json};

/// Changes per batch unless the options say otherwise.
const BATCH_SIZE: i64 = 1000;

/// Which ways to sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Pull,
    Push,
    Both,
}

#[derive(Default)]
struct Totals {
    pulled: i64,
    pushed: i64,
    applied: i64,
    conflicts: i64,
    rejected: i64,
    batches: i64,
}

/// Syncs with a server that is reached as another host; the totals as JSON.
pub fn sync_with(client: &mut dyn Host, server: &mut dyn Host, direction: Direction, options: Option<&str>) -> Result<String> {
    let batch_size = parse_options(options)?;
    let origin = State::load(client)?.origin_id;
    State::load(server)?;
    let mut totals = Totals::default();
    if direction != Direction::Push {
        pull(client, server, &origin, batch_size, &mut totals)?;
    }
    if direction != Direction::Pull {
        push(client, server, batch_size, &mut totals)?;
    }
    Ok(json!({
        "pulled": totals.pulled,
        "pushed": totals.pushed,
        "applied": totals.applied,
        "conflicts": totals.conflicts,
        "rejected": totals.rejected,
        "batches": totals.batches,
        "lastServerVersion": last_server_version(client)?,
        "lastPushVersion": last_push_version(client)?,
    })
    .to_string())
}

fn parse_options(options: Option<&str>) -> Result<i64> {
    let Some(text) = options else { return Ok(BATCH_SIZE) };
    let members: Map<String, Json> =
        serde_json::from_str(text).map_err(|e| Error::argument(format!("the options are not a JSON object: {e}")))?;
    let mut batch_size = BATCH_SIZE;
    for (option, value) in &members {
        match option.as_str() {
            "batchSize" => {
                batch_size = value.as_i64().ok_or_else(|| Error::argument("option \"batchSize\" must be a number"))?;
            }
            "token" | "timeoutMs" | "tls" => {}
            _ => return Err(Error::argument(format!("there is no option {option:?}"))),
        }
    }
    Ok(batch_size)
}

fn pull(client: &mut dyn Host, server: &mut dyn Host, origin: &str, batch_size: i64, totals: &mut Totals) -> Result<()> {
    loop {
        let cursor = last_server_version(client)?;
        let batch = fetch_changes(server, cursor, batch_size, Some(origin))?;
        let (answer, changes) = apply_counted(client, &batch, ApplyOptions::parse(None)?)?;
        let answer = totals.count(&answer)?;
        totals.pulled += changes as i64;
        let cursor = last_server_version(client)?;
        if answer["hasMore"] != true {
            register_client(server, origin, cursor)?;
            return Ok(());
        }
    }
}

fn push(client: &mut dyn Host, server: &mut dyn Host, batch_size: i64, totals: &mut Totals) -> Result<()> {
    loop {
        let batch = fetch_local_changes(client, batch_size)?;
        let (answer, changes) = apply_counted(server, &batch, ApplyOptions::parse(None)?)?;
        let answer = totals.count(&answer)?;
        totals.pushed += changes as i64;
        acknowledge_push(client, answer["toVersion"].as_i64().unwrap_or(0))?;
        if answer["hasMore"] != true {
            return Ok(());
        }
    }
}

impl Totals {
    fn count(&mut self, answer: &str) -> Result<Json> {
        let answer: Json = serde_json::from_str(answer).map_err(Error::corrupt)?;
        let member = |name: &str| answer[name].as_i64().unwrap_or(0);
        self.applied += member("applied");
        self.conflicts += member("conflicts");
        self.rejected += member("rejected") + member("deferred");
        self.batches += 1;
        Ok(answer)
    }
}
