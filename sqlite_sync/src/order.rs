//! Texts by their UTF-8 bytes, whatever the database keeps them in: SQLite's own order is by the bytes that are stored.

use crate::host::SqliteHost;
use rusqlite::Connection;
use sync_shared::{Result, Row as _};

const UTF8: &str = "sync_utf8";

/// Gives a connection the collation that [`collation`] may name.
pub fn register(connection: &Connection) -> rusqlite::Result<()> {
    connection.create_collation(UTF8, |one, other| one.cmp(other))
}

/// The collation that orders texts by their UTF-8 bytes: SQLite's own, which an index may have, unless the file is in UTF-16.
pub fn collation(host: &mut SqliteHost<'_>) -> Result<&'static str> {
    let mut name = "BINARY";
    host.statements.query("PRAGMA encoding", &[], &mut |row| {
        if row.text(0)? != "UTF-8" {
            name = UTF8;
        }
        Ok(false)
    })?;
    Ok(name)
}
