//! sqlite_sync: offline-first two-way sync as a SQLite extension.
//!
//! Load it with `.load sqlite_sync` or any language's `load_extension`; linked as a library (feature `bundled`), call [`register`].
//! The decisions are in `sync_shared`; this crate is its host: capture in triggers, the log, rows, and the SQL functions.

mod bulk;
mod capture;
mod capture_state;
mod describe;
#[cfg(feature = "extension")]
mod entry;
mod error;
mod functions;
mod host;
mod log;
mod log_view;
#[cfg(feature = "net")]
mod net;
mod order;
mod quote;
mod raw;
mod references;
mod resolver;
mod rows;
mod scalar;
mod sets;
mod spelling;
mod statements;
mod sync_with;
mod transaction;
mod triggers;

pub use functions::register;
pub use host::SqliteHost;
