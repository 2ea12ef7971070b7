//! sqlite_sync: offline-first two-way sync as a SQLite extension.
//!
//! Load it with `.load sqlite_sync` or any language's `load_extension`; linked as a library (feature `bundled`), call [`register`].
//! The decisions are in `sync_shared`; this crate is its host: capture in triggers, the log, rows, and the SQL functions.

mod bulk;
mod capture;
mod capture_state;
mod describe;
mod error;
mod functions;
mod host;
mod log;
mod log_view;
#[cfg(feature = "net")]
mod net;
mod quote;
mod raw;
mod references;
mod resolver;
mod rows;
mod sets;
mod spelling;
mod statements;
mod sync_with;
mod transaction;

pub use functions::register;
pub use host::SqliteHost;

#[cfg(feature = "extension")]
mod entry {
    #![allow(unsafe_code)]

    use rusqlite::{Connection, Result, ffi};
    use std::ffi::{c_char, c_int};

    /// The entry point that SQLite looks for first.
    ///
    /// # Safety
    /// Called by SQLite with a valid connection and its API.
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn sqlite3_extension_init(
        db: *mut ffi::sqlite3,
        message: *mut *mut c_char,
        api: *mut ffi::sqlite3_api_routines,
    ) -> c_int {
        // SAFETY: the arguments are passed on as SQLite gave them.
        unsafe { Connection::extension_init2(db, message, api, init) }
    }

    /// The entry point by the file's name, for programs that load several extensions.
    ///
    /// # Safety
    /// As [`sqlite3_extension_init`].
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn sqlite3_sqlitesync_init(
        db: *mut ffi::sqlite3,
        message: *mut *mut c_char,
        api: *mut ffi::sqlite3_api_routines,
    ) -> c_int {
        // SAFETY: the arguments are passed on as SQLite gave them.
        unsafe { sqlite3_extension_init(db, message, api) }
    }

    fn init(connection: Connection) -> Result<bool> {
        crate::register(&connection)?;
        // Not to be kept loaded after the connection is closed.
        Ok(false)
    }
}
