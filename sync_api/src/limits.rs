//! How much one caller may ask for.

use crate::error::{ApiError, Result};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::num::NonZeroU32;

/// Above this many callers those that were quiet for a minute are forgotten.
const MANY: usize = 10_000;

pub struct Limits {
    requests: Option<DefaultKeyedRateLimiter<String>>,
    /// Live subscriptions of one caller.
    pub subscriptions: usize,
}

impl Limits {
    /// `requests` in a minute, 0 for no limit.
    pub fn new(requests: u32, subscriptions: usize) -> Limits {
        let requests = NonZeroU32::new(requests).map(|limit| RateLimiter::keyed(Quota::per_minute(limit)));
        Limits { requests, subscriptions }
    }

    /// Counts a request of this caller.
    pub fn check_request(&self, caller: &str) -> Result<()> {
        let Some(requests) = &self.requests else { return Ok(()) };
        if requests.len() > MANY {
            requests.retain_recent();
        }
        requests.check_key(&caller.to_owned()).map_err(|refused| {
            let wait = refused.wait_time_from(DefaultClock::default().now());
            ApiError::too_many_requests("too many requests in this minute", wait.as_secs() + 1)
        })
    }
}
