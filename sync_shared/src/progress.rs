//! How far a `sync_with` is, for others to see in `sync_status()`: kept in `_sync_state`, not in the log of changes.
//!
//! It is written when a call begins and ends, and in between once in a while, so it costs no write per batch. That it cannot be written
//! stops nothing.

use crate::error::{Error, Result};
use crate::host::{Host, in_transaction};
use crate::stamp;
use crate::state;
use serde_json::{Value as Json, json};

/// Where it is kept in `_sync_state`.
pub const KEY: &str = "sync";
/// Milliseconds between two notes of a call that runs.
const SELDOM: i64 = 500;

#[derive(Clone, Copy, PartialEq)]
pub enum Phase {
    Pull,
    Push,
    Done,
    Failed,
}

#[derive(Default)]
pub struct Totals {
    pub pulled: i64,
    pub pushed: i64,
    pub applied: i64,
    pub conflicts: i64,
    pub rejected: i64,
    pub batches: i64,
}

pub struct Progress<'s> {
    /// Where the server is, without credentials.
    server: &'s str,
    phase: Phase,
    started: i64,
    noted: i64,
    pub totals: Totals,
}

impl<'s> Progress<'s> {
    pub fn begin(host: &mut dyn Host, server: &'s str, phase: Phase) -> Progress<'s> {
        let now = host.now();
        let mut progress = Progress { server, phase, started: now, noted: now, totals: Totals::default() };
        progress.note(host, None);
        progress
    }

    /// A batch was exchanged.
    pub fn batch(&mut self, host: &mut dyn Host, phase: Phase) {
        self.totals.batches += 1;
        self.phase = phase;
        if host.now() - self.noted >= SELDOM {
            self.note(host, None);
        }
    }

    pub fn end(&mut self, host: &mut dyn Host, error: Option<&Error>) {
        self.phase = if error.is_some() { Phase::Failed } else { Phase::Done };
        self.note(host, error);
    }

    fn note(&mut self, host: &mut dyn Host, error: Option<&Error>) {
        self.noted = host.now();
        let mut note = json!({
            "server": self.server,
            "phase": self.phase.name(),
            "batches": self.totals.batches,
            "pulled": self.totals.pulled,
            "pushed": self.totals.pushed,
            "startedAt": stamp::format(self.started),
            "updatedAt": stamp::format(self.noted),
        });
        if let Some(error) = error {
            note["error"] = json!(error.to_string());
        }
        // Who waits for this database's writer waits for it in the next batch; what cannot be noted now is noted then.
        in_transaction(host, |host| state::set(host, KEY, &note.to_string())).ok();
    }
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Phase::Pull => "pull",
            Phase::Push => "push",
            Phase::Done => "done",
            Phase::Failed => "failed",
        }
    }
}

/// What the last note says, as it is in `sync_status()`.
pub fn read(noted: &str) -> Json {
    serde_json::from_str(noted).unwrap_or(Json::Null)
}

impl Totals {
    /// Adds what a batch was answered; the answer.
    pub fn count(&mut self, answer: &str) -> Result<Json> {
        let answer: Json = serde_json::from_str(answer).map_err(|_| Error::batch("the server's answer to a push is none"))?;
        let member = |name: &str| answer[name].as_i64().unwrap_or(0);
        self.applied += member("applied");
        self.conflicts += member("conflicts");
        self.rejected += member("rejected") + member("deferred");
        Ok(answer)
    }
}
