//! `sync_with`, `sync_pull` and `sync_push`: which server an address means, and what has to hold before it is asked.

use crate::error::engine;
use crate::host::SqliteHost;
use crate::order;
use rusqlite::{Connection, OpenFlags};
use std::time::Duration;
use sync_shared::{Direction, Error, HostServer, Result, SyncOptions};

/// How long another writer of the other database is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Syncs with the server at an address; the totals as JSON.
pub fn sync_with(host: &mut SqliteHost<'_>, url: &str, direction: Direction, options: Option<&str>) -> Result<String> {
    let options = SyncOptions::parse(options)?;
    if url.is_empty() {
        return Err(Error::argument("the url is empty; give a path, or a file:, http(s):// or postgres:// URL"));
    }
    match url.split_once("://") {
        Some((scheme, _)) if !scheme.eq_ignore_ascii_case("file") => with_network(host, url, direction, &options),
        _ => with_file(host, url, direction, &options),
    }
}

fn with_file(host: &mut SqliteHost<'_>, url: &str, direction: Direction, options: &SyncOptions) -> Result<String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let server = Connection::open_with_flags(url, flags).map_err(engine)?;
    server.busy_timeout(BUSY_TIMEOUT).map_err(engine)?;
    order::register(&server).map_err(engine)?;
    let name = url.split('?').next().unwrap_or_default();
    sync_shared::sync_with(host, &mut HostServer(&mut SqliteHost::new(&server)), name, direction, options)
}

#[cfg(feature = "net")]
fn with_network(host: &mut SqliteHost<'_>, url: &str, direction: Direction, options: &SyncOptions) -> Result<String> {
    let mut server = crate::net::connect(host.connection, url, options)?;
    if !crate::transaction::is_free(host.connection) {
        return Err(Error::argument(
            "a transaction is open, or a statement that reads, and would be held while the network is waited for: \
             call this outside of a transaction, as SELECT sync_with(url, options) without a table",
        ));
    }
    let name = server.name().to_owned();
    sync_shared::sync_with(host, &mut server, &name, direction, options)
}

#[cfg(not(feature = "net"))]
fn with_network(_: &mut SqliteHost<'_>, _: &str, _: Direction, _: &SyncOptions) -> Result<String> {
    Err(Error::argument("this build of the extension has no network client (feature net); give a path or a file: URL"))
}
