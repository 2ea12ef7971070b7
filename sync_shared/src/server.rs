//! The other side of `sync_with`: what a replica asks of the server it syncs with, wherever that is.
//!
//! Another database file is one behind its host ([`HostServer`]); what is reached over a network implements [`Server`] in the host crate.
//! Every method is one exchange that the server does whole or not at all. Asked again after an answer was lost, it does nothing twice.

use crate::apply::{ApplyOptions, apply_batch};
use crate::batch::MAX_CHANGES;
use crate::clients::register_client;
use crate::error::Result;
use crate::fetch::fetch_changes;
use crate::host::Host;

pub trait Server {
    /// What `sync_fetch_changes` answers: the changes behind a version, without those that this origin made or delivered.
    fn fetch_changes(&mut self, from: i64, size: i64, origin: &str) -> Result<String>;

    /// What `sync_apply_batch` answers to a push.
    fn apply_batch(&mut self, batch: String) -> Result<String>;

    fn register_client(&mut self, origin: &str, version: i64) -> Result<()>;

    /// This will be the next fetch, unless something comes between. A server that takes its time can begin with it.
    fn expect_fetch(&mut self, _from: i64, _size: i64, _origin: &str) {}

    /// Most changes of one fetch.
    fn largest_fetch(&self) -> i64 {
        MAX_CHANGES as i64
    }
}

/// A database that is reached as another host.
pub struct HostServer<'h>(pub &'h mut dyn Host);

impl Server for HostServer<'_> {
    fn fetch_changes(&mut self, from: i64, size: i64, origin: &str) -> Result<String> {
        fetch_changes(self.0, from, size, Some(origin))
    }

    fn apply_batch(&mut self, batch: String) -> Result<String> {
        apply_batch(self.0, &batch, ApplyOptions::parse(None)?)
    }

    fn register_client(&mut self, origin: &str, version: i64) -> Result<()> {
        register_client(self.0, origin, version).map(|_| ())
    }
}
