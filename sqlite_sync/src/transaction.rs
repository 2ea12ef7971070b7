//! Nested units of work: a transaction outside, savepoints inside.

use crate::error::engine;
use rusqlite::{Connection, ffi};
use sync_shared::Result;

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Transaction,
    Savepoint,
}

/// The units of work that this call has open.
#[derive(Default)]
pub struct Transactions {
    open: Vec<Level>,
}

impl Transactions {
    /// Takes the write lock at once, so that nothing fails half-way for want of it.
    pub fn begin(&mut self, connection: &Connection) -> Result<()> {
        if connection.is_autocommit() {
            connection.execute_batch("BEGIN IMMEDIATE").map_err(engine)?;
            self.open.push(Level::Transaction);
            return Ok(());
        }
        connection.execute_batch(&format!("SAVEPOINT sync_{}", self.open.len())).map_err(engine)?;
        self.open.push(Level::Savepoint);
        Ok(())
    }

    /// Ends the innermost. If it cannot be kept it stays open, to be ended without keeping it.
    pub fn end(&mut self, connection: &Connection, keep: bool) -> Result<()> {
        let Some(&level) = self.open.last() else { return Ok(()) };
        let name = self.open.len() - 1;
        let statement = match (level, keep) {
            (Level::Transaction, true) => "COMMIT".to_owned(),
            (Level::Transaction, false) => "ROLLBACK".to_owned(),
            (Level::Savepoint, true) => format!("RELEASE sync_{name}"),
            (Level::Savepoint, false) => format!("ROLLBACK TO sync_{name}; RELEASE sync_{name}"),
        };
        let lost = connection.is_autocommit();
        let ended = match keep || !lost {
            true => connection.execute_batch(&statement).inspect_err(|_| forget_pages(connection)).map_err(engine),
            false => Ok(()),
        };
        // A rollback that fails is the affair of what is around it: SQLite has undone that as well, or its own rollback will.
        if ended.is_ok() || !keep {
            self.open.pop();
        }
        ended
    }

    /// Has something (a trigger's RAISE(ROLLBACK)) ended the transaction behind our back?
    pub fn is_lost(&self, connection: &Connection) -> bool {
        !self.open.is_empty() && connection.is_autocommit()
    }
}

/// Is no transaction open, of the application's or of a statement that reads? Then each unit of work ends with its own COMMIT, also
/// within the SELECT that calls us, and other connections can write in between.
#[cfg(feature = "net")]
#[allow(unsafe_code)]
pub fn is_free(connection: &Connection) -> bool {
    // SAFETY: the handle is that of an open connection; without a name all its databases are asked.
    connection.is_autocommit() && unsafe { ffi::sqlite3_txn_state(connection.handle(), std::ptr::null()) } == ffi::SQLITE_TXN_NONE
}

/// Has SQLite read every page anew. Where a rollback met an error of the disk it may keep pages that were to be undone, for as long as
/// the statement runs that has called us.
#[allow(unsafe_code)]
fn forget_pages(connection: &Connection) {
    // SAFETY: the handle is that of an open connection.
    unsafe { ffi::sqlite3_db_release_memory(connection.handle()) };
}
