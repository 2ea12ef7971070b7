//! The network client of `sync_with`: a gateway over HTTP, or a PostgreSQL server itself.
//!
//! [`Remote`] is the server as the core sees it. It stays with SQLite's thread, waits, repeats and can be interrupted; the exchange itself
//! is done by a [`Link`] on a thread of its own, so the next batch is on its way while one is applied. The thread ends with the call:
//! SQLite may unload the extension after it.

mod failure;
mod http;
mod patience;
mod postgres;
mod remote;
mod tls;
mod transport;
mod worker;

use failure::Failure;
pub use remote::Remote;
use rusqlite::Connection;
use std::sync::Arc;
use sync_shared::{Error, Result, SyncOptions};

/// What is asked of a server.
#[derive(PartialEq)]
pub enum Request {
    Fetch { from: i64, size: i64, origin: String },
    Apply { batch: String },
    Register { origin: String, version: i64 },
}

/// A way to a server. One exchange at a time; after a failure the next one begins with a new connection.
pub trait Link: Send {
    /// The server's answer. Gives up when its [`patience::Patience`] ends.
    fn run(&mut self, request: &Request) -> Result<String, Failure>;

    /// Where the server is, without credentials.
    fn name(&self) -> &str;

    /// Most changes of one fetch.
    fn largest_fetch(&self) -> i64;
}

/// The server at an address. Nothing is sent yet.
///
/// Errors: `InvalidArgument`.
pub fn connect<'c>(connection: &'c Connection, url: &str, options: &SyncOptions) -> Result<Remote<'c>> {
    let patience = Arc::new(patience::Patience::new(options.timeout));
    let scheme = url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase()).unwrap_or_default();
    let link: Box<dyn Link> = match scheme.as_str() {
        "http" | "https" => Box::new(http::HttpLink::new(url, options, &patience)?),
        "postgres" | "postgresql" => Box::new(postgres::PostgresLink::new(url, options, &patience)?),
        _ => return Err(Error::argument("the url is no path and no file:, http(s):// or postgres:// URL")),
    };
    Remote::new(connection, link, patience, options.timeout)
}
