//! What can go wrong on the way: worth another try, or not; and as which error it arrives in SQLite.
//!
//! The contract's kinds are for what a server has decided. That a server cannot be reached is an error of the engine as a disk's is:
//! SQLITE_IOERR. That it has no time now is SQLITE_BUSY. No message holds a token, a password or the address as it was given.

use rusqlite::ffi;
use std::time::Duration;
use sync_shared::{EngineError, Error, Kind, Scope};

pub enum Failure {
    /// May go well the next time; the server may have said after how long.
    Passing(Error, Option<Duration>),
    Lasting(Error),
}

impl Failure {
    /// The server cannot be reached, or was lost on the way.
    pub fn unreachable(server: &str, why: impl std::fmt::Display) -> Failure {
        Failure::Passing(unreachable(server, why), None)
    }

    /// The server is there and has no time.
    pub fn busy(server: &str, why: impl std::fmt::Display, after: Option<Duration>) -> Failure {
        let message = format!("sync: the server at {server} is busy: {why}");
        Failure::Passing(of_engine(ffi::SQLITE_BUSY, "SQLITE_BUSY", message), after)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Lasting(error)
    }
}

/// The server cannot be reached.
pub fn unreachable(server: &str, why: impl std::fmt::Display) -> Error {
    of_engine(ffi::SQLITE_IOERR, "SQLITE_IOERR", format!("sync: the server at {server} cannot be reached: {why}"))
}

/// The server has refused for a reason that the contract has no kind for.
pub fn refused(server: &str, why: impl std::fmt::Display) -> Error {
    of_engine(ffi::SQLITE_ERROR, "SQLITE_ERROR", format!("sync: the server at {server} refuses: {why}"))
}

/// The call was interrupted.
pub fn interrupted() -> Error {
    of_engine(ffi::SQLITE_INTERRUPT, "SQLITE_INTERRUPT", "interrupted".to_owned())
}

/// An error of the contract's, as the server has raised it.
pub fn of_contract(kind: Kind, message: &str, data: Option<serde_json::Value>) -> Error {
    let error = Error::new(kind, message);
    match data {
        Some(data) if data.is_object() => error.with_data(data),
        _ => error,
    }
}

fn of_engine(number: i32, code: &str, message: String) -> Error {
    EngineError { number, code: code.to_owned(), message, scope: Scope::Call, kind: "Unreachable" }.into()
}
