//! SQL functions as SQLite calls them. An error arrives with its message and with its result code.
//!
//! rusqlite sets the code first and the message second, which makes SQLITE_ERROR of every code: an application that waits and tries again
//! when the database is busy would not know that it is.
#![allow(unsafe_code)]

use crate::error::{engine, panicked, result};
use rusqlite::types::ValueRef as SqlRef;
use rusqlite::{Connection, ffi};
use std::ffi::{CString, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use sync_shared::Result;

/// What a function answers.
pub enum Answer {
    Text(String),
    Integer(i64),
}

/// A function by the way it is called.
pub trait Scalar: Sync + 'static {
    fn call(&self, connection: &Connection, given: &Given<'_>) -> Result<Answer>;
}

/// What a function was given.
pub struct Given<'a> {
    values: &'a [*mut ffi::sqlite3_value],
}

impl Given<'_> {
    /// The argument at a place; NULL if there are fewer. Text as SQLite has it, whether it is valid UTF-8 or not.
    pub fn value(&self, place: usize) -> SqlRef<'_> {
        let Some(&value) = self.values.get(place) else { return SqlRef::Null };
        // SAFETY: the values are SQLite's for as long as the call takes, and as long as it says; an empty one may have no address.
        unsafe {
            let bytes = |start: *const u8| match usize::try_from(ffi::sqlite3_value_bytes(value)) {
                Ok(length) if !start.is_null() => std::slice::from_raw_parts(start, length),
                _ => &[][..],
            };
            match ffi::sqlite3_value_type(value) {
                ffi::SQLITE_INTEGER => SqlRef::Integer(ffi::sqlite3_value_int64(value)),
                ffi::SQLITE_FLOAT => SqlRef::Real(ffi::sqlite3_value_double(value)),
                ffi::SQLITE_TEXT => SqlRef::Text(bytes(ffi::sqlite3_value_text(value))),
                ffi::SQLITE_BLOB => SqlRef::Blob(bytes(ffi::sqlite3_value_blob(value).cast())),
                _ => SqlRef::Null,
            }
        }
    }
}

/// Registers a function of so many arguments with a connection; `flags` are those of sqlite3_create_function.
pub fn register<S: Scalar>(connection: &Connection, name: &str, arity: c_int, flags: c_int, scalar: &'static S) -> rusqlite::Result<()> {
    let name = CString::new(name).map_err(|_| panicked())?;
    let data = std::ptr::from_ref(scalar).cast_mut().cast();
    // SAFETY: the handle is that of an open connection; the function and its data live as long as the library does.
    let code = unsafe {
        let (step, end, forget) = (None, None, None);
        ffi::sqlite3_create_function_v2(connection.handle(), name.as_ptr(), arity, flags | ffi::SQLITE_UTF8, data, Some(run::<S>), step, end, forget)
    };
    match code {
        ffi::SQLITE_OK => Ok(()),
        _ => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)),
    }
}

/// # Safety
/// Called by SQLite for a function that [`register`] has registered.
unsafe extern "C" fn run<S: Scalar>(context: *mut ffi::sqlite3_context, count: c_int, values: *mut *mut ffi::sqlite3_value) {
    let call = || {
        // SAFETY: the data is what `register` gave, and the arguments are as many as SQLite says. The connection is used within this call
        // only and not closed by it.
        let (scalar, values, connection) = unsafe {
            let values = match usize::try_from(count) {
                Ok(count) if count > 0 => std::slice::from_raw_parts(values, count),
                _ => &[][..],
            };
            let connection = Connection::from_handle(ffi::sqlite3_context_db_handle(context)).map_err(engine)?;
            (&*ffi::sqlite3_user_data(context).cast::<S>(), values, connection)
        };
        scalar.call(&connection, &Given { values })
    };
    // No panic may pass into SQLite.
    let answer = catch_unwind(AssertUnwindSafe(call));
    // SAFETY: the context is that of the running call.
    unsafe {
        match answer {
            Ok(Ok(Answer::Integer(i))) => ffi::sqlite3_result_int64(context, i),
            Ok(Ok(Answer::Text(text))) => match c_int::try_from(text.len()) {
                Ok(length) => ffi::sqlite3_result_text(context, text.as_ptr().cast(), length, ffi::SQLITE_TRANSIENT()),
                Err(_) => ffi::sqlite3_result_error_toobig(context),
            },
            Ok(Err(error)) => fail(context, result(error)),
            Err(_) => fail(context, panicked()),
        }
    }
}

/// # Safety
/// The context is that of a running call.
unsafe fn fail(context: *mut ffi::sqlite3_context, error: rusqlite::Error) {
    let (code, message) = match error {
        rusqlite::Error::SqliteFailure(failure, Some(message)) => (failure.extended_code, message),
        other => (ffi::SQLITE_ERROR, other.to_string()),
    };
    // SAFETY: the message is copied, and is as long as is said; the code keeps the message that was set before it.
    unsafe {
        ffi::sqlite3_result_error(context, message.as_ptr().cast(), c_int::try_from(message.len()).unwrap_or(0));
        ffi::sqlite3_result_error_code(context, code);
    }
}
