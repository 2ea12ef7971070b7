//! A server behind a link, as the core sees it: waits for its answers, and asks again what may go well the next time.

use super::failure::{Failure, interrupted};
use super::patience::{Patience, TICK};
use super::worker::Worker;
use super::{Link, Request};
use rusqlite::Connection;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};
use sync_shared::{Result, Server};

/// Before the first repetition; each time twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub struct Remote<'c> {
    connection: &'c Connection,
    worker: Worker,
    name: String,
    largest_fetch: i64,
    /// How long one exchange is repeated.
    timeout: Duration,
    /// Was sent, and not answered yet.
    pending: Option<Arc<Request>>,
}

impl<'c> Remote<'c> {
    pub fn new(connection: &'c Connection, link: Box<dyn Link>, patience: Arc<Patience>, timeout: Duration) -> Result<Remote<'c>> {
        let (name, largest_fetch) = (link.name().to_owned(), link.largest_fetch());
        let worker = Worker::start(link, patience)?;
        Ok(Remote { connection, worker, name, largest_fetch, timeout, pending: None })
    }

    /// Where the server is, without credentials.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks until there is an answer, an error that stays, or no time left.
    fn exchange(&mut self, request: Request) -> Result<String> {
        let started = Instant::now();
        if self.pending.as_ref().is_some_and(|pending| **pending != request) {
            // What was expected came otherwise.
            self.answer()?.ok();
        }
        let request = Arc::new(request);
        let mut pause = FIRST_PAUSE;
        loop {
            if self.pending.is_none() {
                self.send(request.clone());
            }
            let (error, after) = match self.answer()? {
                Ok(answer) => return Ok(answer),
                Err(Failure::Lasting(error)) => return Err(error),
                Err(Failure::Passing(error, after)) => (error, after),
            };
            let wait = after.unwrap_or_else(|| jitter(pause));
            if started.elapsed() + wait >= self.timeout {
                return Err(error);
            }
            self.sleep(wait)?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn send(&mut self, request: Arc<Request>) {
        self.worker.send(request.clone());
        self.pending = Some(request);
    }

    /// The answer to what is pending. The link gives up by itself when nothing moves.
    fn answer(&mut self) -> Result<Result<String, Failure>> {
        loop {
            if let Some(answer) = self.worker.wait(TICK)? {
                self.pending = None;
                return Ok(answer);
            }
            self.check_interrupt()?;
        }
    }

    fn sleep(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        loop {
            self.check_interrupt()?;
            match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Ok(()),
                rest => std::thread::sleep(rest.min(TICK)),
            }
        }
    }

    /// Older libraries cannot say whether sqlite3_interrupt was called, but then refuse to run any statement.
    fn check_interrupt(&self) -> Result<()> {
        self.connection.query_row("SELECT 1", [], |_| Ok(())).map_err(|_| interrupted())
    }
}

impl Server for Remote<'_> {
    fn fetch_changes(&mut self, from: i64, size: i64, origin: &str) -> Result<String> {
        self.exchange(Request::Fetch { from, size, origin: origin.to_owned() })
    }

    fn apply_batch(&mut self, batch: String) -> Result<String> {
        self.exchange(Request::Apply { batch })
    }

    fn register_client(&mut self, origin: &str, version: i64) -> Result<()> {
        self.exchange(Request::Register { origin: origin.to_owned(), version }).map(|_| ())
    }

    fn expect_fetch(&mut self, from: i64, size: i64, origin: &str) {
        if self.pending.is_none() {
            self.send(Arc::new(Request::Fetch { from, size, origin: origin.to_owned() }));
        }
    }

    fn largest_fetch(&self) -> i64 {
        self.largest_fetch
    }
}

/// Between half of a time and all of it, so that clients which were cut off together do not come back together.
fn jitter(time: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) % 1000;
    time / 2 + time / 2 * (random as u32) / 1000
}
