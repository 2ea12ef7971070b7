//! An entry of the log as a host reads it, and what is said about one that is written.

use crate::change::{Change, Operation};
use crate::error::Result;
use crate::superseded::is_unreadable;
use crate::table::{RowHash, Table};
use crate::value::{ValueRef, write_payload};
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// The values of a log entry, by the columns of its table as the table is now.
pub trait Fields {
    /// None: the entry was logged before the table had this column.
    fn value(&self, column: usize) -> Result<Option<ValueRef<'_>>>;

    /// The bytes of a value that cannot be read, because it is a text that is not valid UTF-8.
    fn unreadable(&self, _column: usize) -> Option<&[u8]> {
        None
    }
}

/// A log entry's row as the JSON text that a batch has, where the log holds it so.
#[derive(Clone, Copy)]
pub struct LogText<'a> {
    pub pk_value: &'a str,
    /// None for a delete.
    pub payload: Option<&'a str>,
}

/// One entry of the log.
pub struct LogEntry<'a> {
    pub version: i64,
    pub table: &'a Table,
    pub operation: Operation,
    /// Id in `_sync_origins`.
    pub origin: i64,
    /// Milliseconds since 1970.
    pub stamp: i64,
    /// The neighbour that delivered it; None for a local change.
    pub via: Option<i64>,
    pub contested: bool,
    /// False: the caller may not know of this change. Only where the range is read [`LogRange::for_caller`].
    pub shown: bool,
    pub text: Option<LogText<'a>>,
    pub fields: &'a dyn Fields,
}

impl LogEntry<'_> {
    pub fn key_value(&self, column: usize) -> Result<ValueRef<'_>> {
        Ok(self.fields.value(column)?.unwrap_or(ValueRef::Null))
    }

    /// Identifies the row. One whose key cannot be read is told from others as well, though no other replica can have it.
    pub fn row_hash(&self) -> Result<RowHash> {
        match self.table.row_hash(|c| self.key_value(c)) {
            Err(error) if is_unreadable(&error) => self.hash_of_unreadable(),
            hash => hash,
        }
    }

    fn hash_of_unreadable(&self) -> Result<RowHash> {
        let mut hash = Sha256::new();
        hash.update(&self.table.name);
        for &column in &self.table.key {
            match self.fields.unreadable(column) {
                Some(bytes) => hash.update(bytes),
                None => {
                    let mut text = String::new();
                    write_payload(&mut text, self.key_value(column)?);
                    hash.update(text);
                }
            }
            hash.update("\n");
        }
        let digest = hash.finalize();
        Ok(std::array::from_fn(|i| digest[i]))
    }

    pub fn write_key(&self, out: &mut String) -> Result<()> {
        match self.text {
            Some(LogText { pk_value, .. }) => out.push_str(pk_value),
            None => self.table.write_key(out, |c| self.key_value(c))?,
        }
        Ok(())
    }

    pub fn write_payload(&self, out: &mut String) -> Result<()> {
        match self.text {
            Some(LogText { payload: Some(payload), .. }) => out.push_str(payload),
            _ => self.table.write_row(out, |c| self.fields.value(c))?,
        }
        Ok(())
    }

    /// The entry as a change; `origin` is the name of its origin.
    pub fn to_change(&self, origin: String) -> Result<Change<'static>> {
        let (mut pk_value, mut payload) = (String::new(), None);
        self.write_key(&mut pk_value)?;
        if self.operation != Operation::Delete {
            self.write_payload(payload.insert(String::new()))?;
        }
        Ok(Change {
            version: self.version,
            table_name: Cow::Owned(self.table.name.clone()),
            pk_value: Cow::Owned(pk_value),
            operation: self.operation,
            payload: payload.map(Cow::Owned),
            origin: Cow::Owned(origin),
            stamp: self.stamp,
            contested: false,
            seen_version: None,
        })
    }
}

/// Which entries to read: `after < version <= upto`, of all tables or one, oldest or newest first.
#[derive(Clone, Copy, Debug)]
pub struct LogRange {
    pub after: i64,
    pub upto: i64,
    /// `Table::id`
    pub table: Option<i64>,
    pub newest_first: bool,
    /// What is read is handed out: rows are as the caller may see them, and what it may not see is not `shown`.
    pub for_caller: bool,
}

impl LogRange {
    pub fn after(after: i64) -> LogRange {
        LogRange { after, upto: i64::MAX, table: None, newest_first: false, for_caller: false }
    }

    pub fn exactly(version: i64) -> LogRange {
        LogRange { after: version - 1, upto: version, table: None, newest_first: false, for_caller: false }
    }
}

/// Whose change a log entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    pub origin: i64,
    pub stamp: i64,
    pub via: Option<i64>,
    pub contested: bool,
}
