//! What can go wrong, in the contract's words.
//!
//! A [`Kind`] says whose fault it is and has one SQLSTATE; errors of the engine keep their own code and say whether they
//! concern one row (it can be set aside) or the whole call (nothing may move).

use serde_json::json;
use thiserror::Error as ThisError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kinds of the contract. The host turns them into its own error form with one total match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The caller used a sync function before `sync_init`.
    NotInitialized,
    /// The caller named a table that does not exist.
    TableNotFound,
    /// The table exists and is not tracked.
    TableNotTracked,
    /// The table cannot be tracked, whatever the options.
    UnsupportedTable,
    /// A bad argument of the caller.
    InvalidArgument,
    /// The batch is not one: the sender's fault.
    InvalidBatch,
    /// The batch is too large, too long or too deep.
    LimitExceeded,
    /// The batch was damaged on the way.
    HashMismatch,
    /// The client's cursor is below the purge horizon.
    FullResyncRequired,
    /// The other side was restored, copied or replaced.
    EpochMismatch,
    /// A custom resolver failed.
    UnresolvedConflict,
    /// A table's definition does not fit.
    SchemaMismatch,
    /// The caller lacks a right.
    PermissionDenied,
}

impl Kind {
    const ALL: [Kind; 13] = [
        Kind::NotInitialized,
        Kind::TableNotFound,
        Kind::TableNotTracked,
        Kind::UnsupportedTable,
        Kind::InvalidArgument,
        Kind::InvalidBatch,
        Kind::LimitExceeded,
        Kind::HashMismatch,
        Kind::FullResyncRequired,
        Kind::EpochMismatch,
        Kind::UnresolvedConflict,
        Kind::SchemaMismatch,
        Kind::PermissionDenied,
    ];

    /// The kind of this name, as an error's message has it.
    pub fn named(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::NotInitialized => "NotInitialized",
            Kind::TableNotFound => "TableNotFound",
            Kind::TableNotTracked => "TableNotTracked",
            Kind::UnsupportedTable => "UnsupportedTable",
            Kind::InvalidArgument => "InvalidArgument",
            Kind::InvalidBatch => "InvalidBatch",
            Kind::LimitExceeded => "LimitExceeded",
            Kind::HashMismatch => "HashMismatch",
            Kind::FullResyncRequired => "FullResyncRequired",
            Kind::EpochMismatch => "EpochMismatch",
            Kind::UnresolvedConflict => "UnresolvedConflict",
            Kind::SchemaMismatch => "SchemaMismatch",
            Kind::PermissionDenied => "PermissionDenied",
        }
    }

    pub fn sqlstate(self) -> &'static str {
        match self {
            Kind::NotInitialized | Kind::TableNotTracked => "55000",
            Kind::TableNotFound => "42P01",
            Kind::UnsupportedTable => "0A000",
            Kind::InvalidArgument | Kind::InvalidBatch => "22023",
            Kind::LimitExceeded => "54000",
            Kind::HashMismatch => "22000",
            Kind::FullResyncRequired | Kind::EpochMismatch => "55000",
            Kind::UnresolvedConflict => "40000",
            Kind::SchemaMismatch => "42804",
            Kind::PermissionDenied => "42501",
        }
    }
}

/// Whom an engine's error concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This row only: a constraint, a type, a trigger. The row is set aside.
    Row,
    /// The whole call: busy, out of memory, disk full, cancelled. Nothing may move.
    Call,
}

/// An error of the database engine, with its own code.
#[derive(Clone, Debug, ThisError)]
#[error("{message}")]
pub struct EngineError {
    /// The engine's numeric result code (SQLite's extended code, PostgreSQL's encoded SQLSTATE).
    pub number: i32,
    /// The code's name as users know it, such as `SQLITE_CONSTRAINT_UNIQUE` or `23505`.
    pub code: String,
    pub message: String,
    pub scope: Scope,
    /// The rejection kind of a row-scoped error, such as `UniqueViolation`.
    pub kind: &'static str,
}

/// An error of the contract: `sync: <Kind>: <what happened>`.
#[derive(Clone, Debug, ThisError)]
#[error("sync: {}: {message}{}", kind.name(), data.as_deref().map(|d| format!(" {d}")).unwrap_or_default())]
pub struct SyncError {
    pub kind: Kind,
    pub message: String,
    /// A JSON object: DETAIL in PostgreSQL, the end of the message in SQLite.
    pub data: Option<String>,
}

/// The one error type of the core. Boxed, so that what goes well, which is nearly everything, is returned in registers.
#[derive(Clone, Debug, ThisError)]
pub enum Error {
    #[error(transparent)]
    Sync(Box<SyncError>),
    #[error(transparent)]
    Engine(Box<EngineError>),
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        Error::Engine(Box::new(error))
    }
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error::Sync(Box::new(SyncError { kind, message: message.into(), data: None }))
    }

    /// The contract's error that the message of an engine is, `sync: <Kind>: <what happened>`. Its JSON object ends the message, as in
    /// SQLite, or stands in `detail`, as in PostgreSQL. None for any other message.
    pub fn parse(message: &str, detail: Option<&str>) -> Option<Self> {
        let (kind, said) = message.strip_prefix("sync: ")?.split_once(": ")?;
        let kind = Kind::named(kind)?;
        let object = |text: &str| serde_json::from_str(text).ok().filter(serde_json::Value::is_object);
        let at_end = said.match_indices(" {").find_map(|(at, _)| Some((&said[..at], object(&said[at + 1..])?)));
        let (said, data) = match at_end {
            Some((said, data)) => (said, Some(data)),
            None => (said, detail.and_then(object)),
        };
        let error = Self::new(kind, said);
        Some(match data {
            Some(data) => error.with_data(data),
            None => error,
        })
    }

    pub fn argument(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, message)
    }

    pub fn batch(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidBatch, message)
    }

    pub fn limit(message: impl Into<String>) -> Self {
        Self::new(Kind::LimitExceeded, message)
    }

    pub fn with_data(mut self, value: serde_json::Value) -> Self {
        if let Error::Sync(error) = &mut self {
            error.data = Some(value.to_string());
        }
        self
    }

    pub fn hash_mismatch(expected: &str, actual: &str) -> Self {
        Self::new(Kind::HashMismatch, "the hashes differ: the data was changed on the way; fetch it again")
            .with_data(json!({"expected": expected, "actual": actual}))
    }

    pub fn epoch_mismatch(message: impl Into<String>, expected: &str, actual: &str) -> Self {
        Self::new(Kind::EpochMismatch, message).with_data(json!({"expected": expected, "actual": actual}))
    }

    pub fn not_tracked(table: &str) -> Self {
        Self::new(Kind::TableNotTracked, format!("table {table:?} is not tracked; call sync_track_table first"))
    }

    pub fn not_found(table: &str) -> Self {
        Self::new(Kind::TableNotFound, format!("there is no table {table:?}"))
    }

    /// A broken invariant of our own: stored state that nobody but us writes does not read back.
    pub fn corrupt(what: impl std::fmt::Display) -> Self {
        Self::new(Kind::SchemaMismatch, format!("the sync tables are damaged: {what}"))
    }

    /// Another writer of the database has its turn.
    pub fn is_busy(&self) -> bool {
        matches!(self, Error::Engine(engine) if engine.code == "SQLITE_BUSY")
    }

    pub fn kind(&self) -> Option<Kind> {
        match self {
            Error::Sync(error) => Some(error.kind),
            Error::Engine(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back_as_the_error_that_it_was() {
        let errors = [Error::argument("no {brackets} matter"), Error::hash_mismatch("a", "b"), Error::limit("more: than that")];
        for error in errors {
            let message = error.to_string();
            assert_eq!(Error::parse(&message, None).map(|parsed| parsed.to_string()), Some(message));
        }
    }

    #[test]
    fn data_may_stand_beside_the_message() {
        let parsed = Error::parse("sync: HashMismatch: they differ", Some(r#"{"expected":"a"}"#)).map(|error| error.to_string());
        assert_eq!(parsed.as_deref(), Some(r#"sync: HashMismatch: they differ {"expected":"a"}"#));
    }

    #[test]
    fn other_messages_are_no_errors_of_ours() {
        for message in ["", "disk full", "sync: Nonsense: x", "sync: HashMismatch", "a sync: HashMismatch: x"] {
            assert!(Error::parse(message, None).is_none(), "{message}");
        }
    }
}
