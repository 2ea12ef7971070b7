//! `sync_with`: pull, then push, against a server in one call. Every batch is a transaction of its own on each side, so a call that is
//! stopped anywhere goes on where it was, and nothing is held while the server is waited for.

use crate::apply::{ApplyOptions, apply_counted};
use crate::error::{Error, Result};
use crate::fetch_local::{acknowledge_push, fetch_local_changes};
use crate::host::Host;
use crate::progress::{Phase, Progress};
use crate::server::Server;
use crate::state::{State, last_push_version, last_server_version};
use crate::sync_options::SyncOptions;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use std::time::{Duration, Instant};

/// Changes of the first batch unless the options say otherwise.
const BATCH_SIZE: i64 = 1000;
/// Changes of a batch once it has turned out that many wait.
const LARGE_BATCH_SIZE: i64 = 5000;
/// Between two attempts to write while another connection does.
const PAUSE: Duration = Duration::from_millis(25);

/// Which ways to sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Pull,
    Push,
    Both,
}

/// Syncs with a server, which is called `name` in `sync_status()`; the totals as JSON.
///
/// Errors: the contract's, of either side, and the engine's, or the network's. What was exchanged until then stays.
pub fn sync_with(
    client: &mut dyn Host,
    server: &mut dyn Server,
    name: &str,
    direction: Direction,
    options: &SyncOptions,
) -> Result<String> {
    let origin = State::load(client)?.origin_id;
    let first = if direction == Direction::Push { Phase::Push } else { Phase::Pull };
    let mut progress = Progress::begin(client, name, first);
    let ended = exchange(client, server, &origin, direction, options, &mut progress);
    progress.end(client, ended.as_ref().err());
    ended?;
    let totals = &progress.totals;
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

fn exchange(
    client: &mut dyn Host,
    server: &mut dyn Server,
    origin: &str,
    direction: Direction,
    options: &SyncOptions,
    progress: &mut Progress<'_>,
) -> Result<()> {
    if direction != Direction::Push {
        pull(client, server, origin, options, progress)?;
    }
    if direction != Direction::Pull {
        push(client, server, options, progress)?;
    }
    Ok(())
}

/// What has to be known of a batch before it is applied, or pushed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    to_version: i64,
    has_more: bool,
    changes: Vec<IgnoredAny>,
}

impl Outline {
    fn of(batch: &str) -> Result<Outline> {
        serde_json::from_str(batch).map_err(|_| Error::batch("what the server has answered is no batch"))
    }
}

fn pull(
    client: &mut dyn Host,
    server: &mut dyn Server,
    origin: &str,
    options: &SyncOptions,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let largest = server.largest_fetch();
    let mut size = options.batch_size.unwrap_or(BATCH_SIZE).min(largest);
    loop {
        let cursor = last_server_version(client)?;
        let batch = server.fetch_changes(cursor, size, origin)?;
        let outline = Outline::of(&batch)?;
        if outline.has_more {
            size = options.batch_size.unwrap_or(LARGE_BATCH_SIZE).min(largest);
            server.expect_fetch(outline.to_version, size, origin);
        }
        let (answer, changes) = in_turn(client, options, |client| apply_counted(client, &batch, ApplyOptions::parse(None)?))?;
        progress.totals.count(&answer)?;
        progress.totals.pulled += changes as i64;
        progress.batch(client, Phase::Pull);
        if !outline.has_more {
            return server.register_client(origin, last_server_version(client)?);
        }
    }
}

fn push(client: &mut dyn Host, server: &mut dyn Server, options: &SyncOptions, progress: &mut Progress<'_>) -> Result<()> {
    let mut size = options.batch_size.unwrap_or(BATCH_SIZE);
    loop {
        let batch = in_turn(client, options, |client| fetch_local_changes(client, size))?;
        let outline = Outline::of(&batch)?;
        let answer = server.apply_batch(batch)?;
        let answer = progress.totals.count(&answer)?;
        progress.totals.pushed += outline.changes.len() as i64;
        if answer["toVersion"].as_i64() != Some(outline.to_version) {
            return Err(Error::batch("the server has answered something else than what it was sent"));
        }
        in_turn(client, options, |client| acknowledge_push(client, outline.to_version))?;
        progress.batch(client, Phase::Push);
        if !outline.has_more {
            return Ok(());
        }
        size = options.batch_size.unwrap_or(LARGE_BATCH_SIZE);
    }
}

/// Does a step on the client once no other connection writes: whatever its own patience is, a batch that has come is not given up for it.
fn in_turn<T>(client: &mut dyn Host, options: &SyncOptions, mut step: impl FnMut(&mut dyn Host) -> Result<T>) -> Result<T> {
    let until = Instant::now() + options.timeout;
    loop {
        match step(client) {
            Err(error) if error.is_busy() && !client.is_in_transaction() && Instant::now() < until => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
}
