//! A prepared statement that borrows its parameters while it runs instead of copying them, and reads each value with one look.
//!
//! rusqlite has SQLite copy every text and blob that is bound, and asks up to three times for a value, with the connection's mutex taken
//! each time; for a change or a row of a few microseconds that is much. A statement takes all its parameters anew with every run, so none
//! outlives the run that it was given for.
#![allow(unsafe_code)]

use crate::error::engine;
use rusqlite::{Connection, ffi};
use std::ffi::{CStr, c_int};
use std::marker::PhantomData;
use std::ptr::{NonNull, null_mut};
use sync_shared::{Error, Kind, Result, Row, ValueRef};

pub struct RawStatement<'c> {
    handle: NonNull<ffi::sqlite3_stmt>,
    db: *mut ffi::sqlite3,
    parameters: c_int,
    connection: PhantomData<&'c Connection>,
}

impl<'c> RawStatement<'c> {
    pub fn prepare(connection: &'c Connection, sql: &str) -> Result<RawStatement<'c>> {
        let length = c_int::try_from(sql.len()).map_err(Error::corrupt)?;
        let mut handle = null_mut();
        // SAFETY: the handle is that of an open connection, the text is as long as is said, and the tail is not asked for.
        let (db, code) = unsafe {
            let db = connection.handle();
            (db, ffi::sqlite3_prepare_v2(db, sql.as_ptr().cast(), length, &mut handle, null_mut()))
        };
        let Some(handle) = NonNull::new(handle).filter(|_| code == ffi::SQLITE_OK) else { return Err(failure(db, code)) };
        // SAFETY: the statement was prepared above.
        let parameters = unsafe { ffi::sqlite3_bind_parameter_count(handle.as_ptr()) };
        Ok(RawStatement { handle, db, parameters, connection: PhantomData })
    }

    /// How many parameters each run takes.
    pub fn parameters(&self) -> usize {
        usize::try_from(self.parameters).unwrap_or(0)
    }

    /// Runs a statement that yields no rows; returns the rows changed by itself.
    pub fn run<'v>(&mut self, values: impl Iterator<Item = ValueRef<'v>>) -> Result<u64> {
        self.bind_all(values)?;
        // SAFETY: the statement is valid, and every parameter was bound above to a value that `values` borrows past this call.
        let (code, changes) = unsafe {
            let code = ffi::sqlite3_step(self.handle.as_ptr());
            (code, ffi::sqlite3_changes(self.db))
        };
        let result = match code {
            ffi::SQLITE_DONE => Ok(u64::try_from(changes).unwrap_or(0)),
            _ => Err(failure(self.db, code)),
        };
        // SAFETY: the statement is valid. What it answers is the code of the step.
        unsafe { ffi::sqlite3_reset(self.handle.as_ptr()) };
        result
    }

    /// Runs a query until `visit` returns false.
    pub fn each_row<'v>(
        &mut self,
        values: impl Iterator<Item = ValueRef<'v>>,
        visit: &mut dyn FnMut(&RawRow<'_>) -> Result<bool>,
    ) -> Result<()> {
        self.bind_all(values)?;
        let result = loop {
            // SAFETY: as in `run`.
            match unsafe { ffi::sqlite3_step(self.handle.as_ptr()) } {
                ffi::SQLITE_ROW => match visit(&RawRow { statement: self }) {
                    Ok(true) => {}
                    Ok(false) => break Ok(()),
                    Err(error) => break Err(error),
                },
                ffi::SQLITE_DONE => break Ok(()),
                code => break Err(failure(self.db, code)),
            }
        };
        // SAFETY: the statement is valid. What it answers is the code of the last step.
        unsafe { ffi::sqlite3_reset(self.handle.as_ptr()) };
        result
    }

    /// Binds every parameter: none of an earlier run is left.
    fn bind_all<'v>(&mut self, values: impl Iterator<Item = ValueRef<'v>>) -> Result<()> {
        let mut place = 0;
        for value in values {
            place += 1;
            self.bind(place, value)?;
        }
        match place == self.parameters {
            true => Ok(()),
            false => Err(Error::corrupt(format!("a statement of {} parameters was given {place}", self.parameters))),
        }
    }

    fn bind(&mut self, place: c_int, value: ValueRef<'_>) -> Result<()> {
        let statement = self.handle.as_ptr();
        let length = |bytes: usize| c_int::try_from(bytes).map_err(Error::corrupt);
        // SAFETY: the statement is valid and not running. Texts and blobs are as long as is said, and are read by the run only that they
        // are bound for: the next one begins only when every parameter was bound anew.
        let code = unsafe {
            match value {
                ValueRef::Null => ffi::sqlite3_bind_null(statement, place),
                ValueRef::Integer(i) => ffi::sqlite3_bind_int64(statement, place, i),
                ValueRef::Real(r) => ffi::sqlite3_bind_double(statement, place, r),
                ValueRef::Text(t) => {
                    ffi::sqlite3_bind_text(statement, place, t.as_ptr().cast(), length(t.len())?, ffi::SQLITE_STATIC())
                }
                ValueRef::Blob(b) => {
                    ffi::sqlite3_bind_blob(statement, place, b.as_ptr().cast(), length(b.len())?, ffi::SQLITE_STATIC())
                }
            }
        };
        match code {
            ffi::SQLITE_OK => Ok(()),
            _ => Err(failure(self.db, code)),
        }
    }
}

impl Drop for RawStatement<'_> {
    fn drop(&mut self) {
        // SAFETY: the statement is valid and finalized once; its connection is open for as long as `'c`.
        unsafe { ffi::sqlite3_finalize(self.handle.as_ptr()) };
    }
}

/// The row that a query has come to.
pub struct RawRow<'r> {
    statement: &'r RawStatement<'r>,
}

impl RawRow<'_> {
    /// The bytes of a text that is not valid UTF-8; None for any other value.
    pub fn unreadable(&self, column: usize) -> Option<&[u8]> {
        let column = c_int::try_from(column).ok()?;
        // SAFETY: as in `value`.
        let bytes = unsafe {
            let value = ffi::sqlite3_column_value(self.statement.handle.as_ptr(), column);
            let text = if ffi::sqlite3_value_type(value) == ffi::SQLITE_TEXT { ffi::sqlite3_value_text(value) } else { std::ptr::null() };
            if text.is_null() {
                return None;
            }
            std::slice::from_raw_parts(text, usize::try_from(ffi::sqlite3_value_bytes(value)).ok()?)
        };
        std::str::from_utf8(bytes).is_err().then_some(bytes)
    }
}

impl Row for RawRow<'_> {
    /// Text that is not valid UTF-8 is an error.
    fn value(&self, column: usize) -> Result<ValueRef<'_>> {
        let column = c_int::try_from(column).map_err(Error::corrupt)?;
        // SAFETY: the statement is valid and stands on a row, which it leaves only when this borrow has ended. The value is read while the
        // connection is this thread's alone: within a call of ours, which SQLite makes with the connection's mutex held, or on a
        // connection that no one else has. Text and blob are as long as SQLite says; an empty blob may have no address.
        unsafe {
            let value = ffi::sqlite3_column_value(self.statement.handle.as_ptr(), column);
            let bytes = |start: *const u8| match usize::try_from(ffi::sqlite3_value_bytes(value)) {
                Ok(length) if !start.is_null() => Ok(std::slice::from_raw_parts(start, length)),
                Ok(0) => Ok(&[][..]),
                _ => Err(failure(self.statement.db, ffi::SQLITE_NOMEM)),
            };
            Ok(match ffi::sqlite3_value_type(value) {
                ffi::SQLITE_INTEGER => ValueRef::Integer(ffi::sqlite3_value_int64(value)),
                ffi::SQLITE_FLOAT => ValueRef::Real(ffi::sqlite3_value_double(value)),
                ffi::SQLITE_TEXT => ValueRef::Text(std::str::from_utf8(bytes(ffi::sqlite3_value_text(value))?).map_err(|_| not_utf8())?),
                ffi::SQLITE_BLOB => ValueRef::Blob(bytes(ffi::sqlite3_value_blob(value).cast())?),
                _ => ValueRef::Null,
            })
        }
    }
}

fn not_utf8() -> Error {
    Error::new(Kind::InvalidArgument, "a text is not valid UTF-8; sync_check_table names the row: store it as a BLOB, or correct it")
}

/// The texts of the connection's statements that are running.
pub fn running(connection: &Connection) -> Vec<String> {
    let mut texts = Vec::new();
    // SAFETY: the handle is that of an open connection; a statement and its text are valid until it is finalized, and none is here.
    unsafe {
        let db = connection.handle();
        let mut statement = ffi::sqlite3_next_stmt(db, null_mut());
        while !statement.is_null() {
            let text = ffi::sqlite3_sql(statement);
            if ffi::sqlite3_stmt_busy(statement) != 0 {
                texts.push(if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() });
            }
            statement = ffi::sqlite3_next_stmt(db, statement);
        }
    }
    texts
}

/// What the connection says about a call that failed.
fn failure(db: *mut ffi::sqlite3, code: c_int) -> Error {
    // SAFETY: the handle is that of an open connection; the message is valid until its next use and copied here.
    let message = unsafe { CStr::from_ptr(ffi::sqlite3_errmsg(db)).to_string_lossy().into_owned() };
    engine(rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(message)))
}
