//! The live subscriptions of this gateway. Each lives in its connection; here is only who may end it.

use crate::error::{ApiError, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

struct Entry {
    owner: String,
    end: CancellationToken,
}

#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<HashMap<Uuid, Entry>>>);

/// A subscription's place; it is left when this is dropped.
pub struct Place {
    pub id: Uuid,
    /// Cancelled when somebody ends the subscription.
    pub end: CancellationToken,
    registry: Registry,
}

impl Registry {
    /// Errors: `TooManyRequests` when the owner has `most` already.
    pub fn enter(&self, owner: &str, most: usize) -> Result<Place> {
        let mut entries = self.lock();
        if entries.values().filter(|entry| entry.owner == owner).count() >= most {
            return Err(ApiError::too_many_requests(format!("there are {most} live subscriptions of this caller already"), 1));
        }
        let place = Place { id: Uuid::new_v4(), end: CancellationToken::new(), registry: self.clone() };
        entries.insert(place.id, Entry { owner: owner.to_owned(), end: place.end.clone() });
        Ok(place)
    }

    /// Ends a subscription of this owner. False if there is none.
    pub fn end(&self, id: Uuid, owner: &str) -> bool {
        let mut entries = self.lock();
        if entries.get(&id).is_none_or(|entry| entry.owner != owner) {
            return false;
        }
        entries.remove(&id).is_some_and(|entry| {
            entry.end.cancel();
            true
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.id);
    }
}
