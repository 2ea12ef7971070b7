//! The rows that an apply writes: what a host is told of them, and what it answers.

use crate::change::Operation;
use crate::error::{EngineError, Error, Result, Scope};
use crate::log_entry::Label;
use crate::rejection::Reason;
use crate::table::{RowHash, Table};
use crate::value::Value;

/// What writing a row did.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// The log entry of the row itself; None if nothing changed and nothing was to be logged.
    pub version: Option<i64>,
    pub changed: bool,
    /// Versions of the entries of what cascades and the user's triggers wrote besides, also to the row itself.
    pub caused: Vec<i64>,
}

/// Why a row could not be written.
#[derive(Clone, Debug)]
pub enum RowFailure {
    /// The row is refused; nothing of it was written.
    Refused(Box<Reason>),
    /// A trigger ended the whole transaction over this row.
    Lost(Box<EngineError>),
    /// Another writer made the row after it was looked at: it has to be judged again.
    Overtaken,
    /// The whole call has to fail.
    Fatal(Error),
}

impl RowFailure {
    /// The host itself refuses the row; `code` is the one that the engine would give.
    pub fn refused(kind: &'static str, code: &str, message: impl Into<String>) -> RowFailure {
        RowFailure::Refused(Box::new(Reason { code: code.to_owned(), ..Reason::new(kind, message.into()) }))
    }

    /// Why the row alone is refused, where nobody else can write meanwhile; every other failure is the call's.
    pub fn into_reason(self) -> Result<Reason> {
        match self {
            RowFailure::Refused(reason) => Ok(*reason),
            RowFailure::Lost(error) => Err(Error::Engine(error)),
            RowFailure::Overtaken => Err(Error::corrupt("a locked table that another writer changed")),
            RowFailure::Fatal(error) => Err(error),
        }
    }
}

impl From<Error> for RowFailure {
    fn from(error: Error) -> Self {
        match error {
            Error::Engine(error) if error.scope == Scope::Row => RowFailure::Refused(Box::new(Reason::of_engine(*error))),
            other => RowFailure::Fatal(other),
        }
    }
}

/// A row that an apply wrote, for the check of foreign keys.
#[derive(Clone, Debug)]
pub struct Touched {
    /// Index into the catalogue's tables.
    pub table: usize,
    pub key: Vec<Value>,
    pub deleted: bool,
}

/// A row that is to be put, and the label of its entry.
#[derive(Clone, Copy, Debug)]
pub struct PutRow<'a> {
    /// By column; None where nothing is said.
    pub values: &'a [Option<Value>],
    pub label: Label,
    pub log_unchanged: bool,
}

/// What became of rows that were to be put together.
#[derive(Clone, Debug)]
pub enum Together {
    Written(Vec<Written>),
    /// At least one of them was refused or has to be looked at by itself; nothing was written.
    Refused,
}

/// What a group of changes is about to write.
pub struct GroupRows<'a> {
    /// The tables that the changes are of.
    pub tables: Vec<&'a Table>,
    pub changes: usize,
    /// Every change but a delete has a value for every column.
    pub whole: bool,
}

/// A row that is about to be written.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Index into the catalogue's tables.
    pub table: usize,
    pub key: &'a [Value],
    pub operation: Operation,
}

/// A foreign key that a row still violates.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Index into the rows that were asked about.
    pub row: usize,
    pub message: String,
    /// The row that is missing, if the key refers to a tracked table's primary key.
    pub missing: Option<RowHash>,
}
