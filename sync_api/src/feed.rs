//! The log as it grows, read once for all who see the same of it: a page of changes at a time, to any number of subscriptions.
//!
//! A role of PostgreSQL sees what its rights show, so there is a feed for each. A feed promises: its pages follow each other without gap
//! or overlap, in the order of versions, and hold every change that its role sees. Who misses pages reads the log for itself.

use crate::database::Database;
use crate::error::{ApiError, Result};
use crate::page::Page;
use crate::wake::Wake;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;

/// Changes of one page.
pub const PAGE: i32 = 1000;
/// Pages that wait for the slowest subscription; it reads the log when it is further behind.
const PAGES: usize = 64;
/// Least time between two pages: what is committed within it goes into one.
const PACE: Duration = Duration::from_millis(3);
/// How often the log is looked at though nothing was announced.
const SELDOM: Duration = Duration::from_secs(5);
/// Between two looks for a version that was announced and is not settled yet; doubled each time.
const SOON: Duration = Duration::from_millis(2);
const NOT_SO_SOON: Duration = Duration::from_millis(250);
/// After the database could not be read.
const AFTER_FAILURE: Duration = Duration::from_millis(500);
/// How long `catch_up` waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// A feed that nobody follows any more ends after this time.
const LEFT: Duration = Duration::from_secs(60);

/// How far a feed has read.
#[derive(Clone, Debug, Default)]
pub struct Position {
    /// All up to here was in a page, or was there before the feed began.
    pub version: i64,
    pub epoch: String,
    /// Requests that this position answers.
    served: u64,
}

/// The feeds of all roles that somebody follows.
pub struct Feeds {
    database: Arc<Database>,
    wake: Arc<Wake>,
    feeds: Arc<Mutex<HashMap<Option<String>, Arc<Feed>>>>,
}

impl Feeds {
    pub fn new(database: Arc<Database>, wake: Arc<Wake>) -> Feeds {
        Feeds { database, wake, feeds: Arc::default() }
    }

    /// The feed of a role, read up to what is committed now.
    pub async fn follow(&self, role: Option<&str>) -> Result<Arc<Feed>> {
        let role = role.map(str::to_owned);
        let feed = {
            let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
            match feeds.get(&role) {
                Some(feed) => feed.clone(),
                None => {
                    let feed = Arc::new(Feed::default());
                    feeds.insert(role.clone(), feed.clone());
                    self.wake.set_followers(feeds.len());
                    tokio::spawn(run(feed.clone(), role, self.database.clone(), self.wake.clone(), self.feeds.clone()));
                    feed
                }
            }
        };
        feed.catch_up().await?;
        Ok(feed)
    }
}

pub struct Feed {
    pages: broadcast::Sender<Arc<Page>>,
    position: watch::Sender<Position>,
    requests: AtomicU64,
    asked: Notify,
}

impl Default for Feed {
    fn default() -> Feed {
        Feed {
            pages: broadcast::Sender::new(PAGES),
            position: watch::Sender::new(Position::default()),
            requests: AtomicU64::new(0),
            asked: Notify::new(),
        }
    }
}

impl Feed {
    /// The pages from now on.
    pub fn pages(&self) -> broadcast::Receiver<Arc<Page>> {
        self.pages.subscribe()
    }

    pub fn position(&self) -> Position {
        self.position.borrow().clone()
    }

    /// Returns when there is something after this version, or after `patience`.
    pub async fn wait_beyond(&self, version: i64, patience: Duration) {
        let mut position = self.position.subscribe();
        let _ = tokio::time::timeout(patience, position.wait_for(|position| position.version > version)).await;
    }

    /// Waits until the feed has read what was committed before the call.
    async fn catch_up(&self) -> Result<()> {
        let mut position = self.position.subscribe();
        let request = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        self.asked.notify_one();
        match tokio::time::timeout(PATIENCE, position.wait_for(|position| position.served >= request)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(ApiError::unavailable("the database cannot be read now")),
        }
    }

    /// Does nobody hold the feed but the map and its own task?
    fn is_left(self: &Arc<Feed>) -> bool {
        Arc::strong_count(self) <= 2 && self.pages.receiver_count() == 0
    }
}

/// Reads the log for as long as somebody follows.
async fn run(
    feed: Arc<Feed>,
    role: Option<String>,
    database: Arc<Database>,
    wake: Arc<Wake>,
    feeds: Arc<Mutex<HashMap<Option<String>, Arc<Feed>>>>,
) {
    let mut woken = wake.follow();
    let mut pause = SOON;
    let mut followed = Instant::now();
    loop {
        woken.borrow_and_update();
        let served = feed.requests.load(Ordering::SeqCst);
        let before = feed.position();
        match read(&feed, &before, role.as_deref(), &database, &wake).await {
            Ok(has_more) => {
                let is_behind = wake.announced() > feed.position().version;
                feed.position.send_modify(|position| position.served = served.max(position.served));
                if has_more {
                    continue;
                }
                tokio::time::sleep(PACE).await;
                // An older transaction is still open: when it ends without a change, nothing says so.
                pause = if is_behind { (pause * 2).min(NOT_SO_SOON) } else { SOON };
                let wait = if is_behind { pause } else { SELDOM };
                tokio::select! {
                    _ = woken.changed() => pause = SOON,
                    () = feed.asked.notified() => {}
                    () = tokio::time::sleep(wait) => {}
                }
            }
            Err(error) => {
                tracing::warn!(kind = error.kind, code = error.code.as_deref().unwrap_or_default(), "the log cannot be read");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
        let mut all = feeds.lock().unwrap_or_else(PoisonError::into_inner);
        if !feed.is_left() {
            followed = Instant::now();
        } else if followed.elapsed() > LEFT {
            all.remove(&role);
            wake.set_followers(all.len());
            return;
        }
    }
}

/// Reads one page and hands it out. Is there more?
async fn read(feed: &Feed, before: &Position, role: Option<&str>, database: &Database, wake: &Wake) -> Result<bool> {
    if before.epoch.is_empty() {
        begin(feed, role, database).await?;
        return Ok(true);
    }
    let page = match Page::read(database, role, before.version, PAGE).await {
        Ok(page) => page,
        // The feed was away for long, and what it has not read was purged: who follows it finds that out as well.
        Err(error) if error.kind == "FullResyncRequired" => {
            begin(feed, role, database).await?;
            return Ok(true);
        }
        Err(error) => return Err(error),
    };
    if page.epoch != before.epoch || page.max_version < before.version {
        // Another history: the database was restored or replaced.
        wake.forget_announced();
        begin(feed, role, database).await?;
        return Ok(true);
    }
    let has_more = page.has_more;
    if page.to > before.version {
        // First the position: who takes it from here on has no need of the page. The other way round one who comes between the two would
        // begin before a page that it never gets.
        feed.position.send_modify(|position| position.version = page.to);
        let _ = feed.pages.send(Arc::new(page));
    }
    Ok(has_more)
}

/// Begins at the end of the log as it is.
async fn begin(feed: &Feed, role: Option<&str>, database: &Database) -> Result<()> {
    // Every batch says where the log ends. `sync_state()` says it as well, and counts all entries.
    let first = Page::read(database, role, 0, 1).await?;
    feed.position.send_modify(|position| {
        position.version = first.max_version;
        position.epoch = first.epoch;
    });
    Ok(())
}
