//! Word that the log may have grown: from a commit of this process, `NOTIFY pg_sync`, or another process that wrote the SQLite file.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use tokio::sync::watch;

/// Shared by whoever notices a commit and by all who follow the log.
pub struct Wake {
    times: watch::Sender<u64>,
    /// The highest version that was announced. A transaction that began before and is still open can hide it for a while.
    announced: AtomicI64,
    /// Feeds that wait.
    followers: AtomicUsize,
}

impl Default for Wake {
    fn default() -> Wake {
        Wake { times: watch::Sender::new(0), announced: AtomicI64::new(0), followers: AtomicUsize::new(0) }
    }
}

impl Wake {
    /// Something was committed; `version` if it is known up to where.
    pub fn wake(&self, version: Option<i64>) {
        if let Some(version) = version {
            self.announced.fetch_max(version, Ordering::Relaxed);
        }
        self.times.send_modify(|times| *times += 1);
    }

    pub fn follow(&self) -> watch::Receiver<u64> {
        self.times.subscribe()
    }

    pub fn announced(&self) -> i64 {
        self.announced.load(Ordering::Relaxed)
    }

    /// What was announced belongs to a log that is gone.
    pub fn forget_announced(&self) {
        self.announced.store(0, Ordering::Relaxed);
    }

    /// Does anyone wait for changes?
    pub fn is_followed(&self) -> bool {
        self.followers.load(Ordering::Relaxed) > 0
    }

    pub fn set_followers(&self, count: usize) {
        self.followers.store(count, Ordering::Relaxed);
    }
}
