//! SQLite's errors in the core's words, and the core's in SQLite's.

use rusqlite::ffi;
use sync_shared::{EngineError, Error, Scope};

/// SQLITE_CONSTRAINT_DATATYPE, which is newer than the oldest SQLite this builds against.
const CONSTRAINT_DATATYPE: i32 = ffi::SQLITE_CONSTRAINT | (12 << 8);

/// An error of SQLite as the core sees it.
pub fn engine(error: rusqlite::Error) -> Error {
    let (number, message) = match error {
        rusqlite::Error::SqliteFailure(failure, message) => {
            (failure.extended_code, message.unwrap_or_else(|| failure.to_string()))
        }
        other => (ffi::SQLITE_ERROR, other.to_string()),
    };
    let scope = match number & 0xff {
        ffi::SQLITE_CONSTRAINT | ffi::SQLITE_MISMATCH | ffi::SQLITE_TOOBIG | ffi::SQLITE_ERROR => Scope::Row,
        _ => Scope::Call,
    };
    EngineError { number, code: code_name(number), message, scope, kind: kind(number) }.into()
}

/// The extended code of the error that a connection met last: without it a constraint does not tell which.
#[allow(unsafe_code)]
pub fn with_extended_code(connection: &rusqlite::Connection, error: Error) -> Error {
    let Error::Engine(mut engine) = error else { return error };
    // SAFETY: the handle is that of an open connection.
    let extended = unsafe { ffi::sqlite3_extended_errcode(connection.handle()) };
    if extended & 0xff == engine.number & 0xff {
        (engine.number, engine.code, engine.kind) = (extended, code_name(extended), kind(extended));
    }
    Error::Engine(engine)
}

/// An error of the core as the result of an SQL function.
pub fn result(error: Error) -> rusqlite::Error {
    let (number, message) = match error {
        Error::Engine(engine) => (engine.number, engine.message),
        sync @ Error::Sync(_) => (ffi::SQLITE_ERROR, sync.to_string()),
    };
    rusqlite::Error::SqliteFailure(ffi::Error::new(number), Some(message))
}

/// A panic that was caught at the border to SQLite.
pub fn panicked() -> rusqlite::Error {
    let message = "sync: a broken invariant was met; nothing was changed by this call".to_owned();
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_INTERNAL), Some(message))
}

fn kind(number: i32) -> &'static str {
    match number {
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "ForeignKeyViolation",
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => "UniqueViolation",
        ffi::SQLITE_CONSTRAINT_NOTNULL => "NotNullViolation",
        ffi::SQLITE_CONSTRAINT_CHECK => "CheckViolation",
        CONSTRAINT_DATATYPE | ffi::SQLITE_MISMATCH | ffi::SQLITE_TOOBIG => "TypeMismatch",
        _ => "ConstraintViolation",
    }
}

fn code_name(number: i32) -> String {
    let name = match number {
        ffi::SQLITE_CONSTRAINT_CHECK => "SQLITE_CONSTRAINT_CHECK",
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "SQLITE_CONSTRAINT_FOREIGNKEY",
        ffi::SQLITE_CONSTRAINT_NOTNULL => "SQLITE_CONSTRAINT_NOTNULL",
        ffi::SQLITE_CONSTRAINT_PRIMARYKEY => "SQLITE_CONSTRAINT_PRIMARYKEY",
        ffi::SQLITE_CONSTRAINT_ROWID => "SQLITE_CONSTRAINT_ROWID",
        ffi::SQLITE_CONSTRAINT_TRIGGER => "SQLITE_CONSTRAINT_TRIGGER",
        ffi::SQLITE_CONSTRAINT_UNIQUE => "SQLITE_CONSTRAINT_UNIQUE",
        CONSTRAINT_DATATYPE => "SQLITE_CONSTRAINT_DATATYPE",
        _ => match number & 0xff {
            ffi::SQLITE_ERROR => "SQLITE_ERROR",
            ffi::SQLITE_BUSY => "SQLITE_BUSY",
            ffi::SQLITE_LOCKED => "SQLITE_LOCKED",
            ffi::SQLITE_NOMEM => "SQLITE_NOMEM",
            ffi::SQLITE_READONLY => "SQLITE_READONLY",
            ffi::SQLITE_INTERRUPT => "SQLITE_INTERRUPT",
            ffi::SQLITE_IOERR => "SQLITE_IOERR",
            ffi::SQLITE_CORRUPT => "SQLITE_CORRUPT",
            ffi::SQLITE_FULL => "SQLITE_FULL",
            ffi::SQLITE_TOOBIG => "SQLITE_TOOBIG",
            ffi::SQLITE_CONSTRAINT => "SQLITE_CONSTRAINT",
            ffi::SQLITE_MISMATCH => "SQLITE_MISMATCH",
            _ => return format!("SQLITE_{number}"),
        },
    };
    name.to_owned()
}
