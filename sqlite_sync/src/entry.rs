//! The entry points of the loadable extension.
//!
//! A loadable extension calls SQLite through the functions that the library which loads it hands over, and holds one set of them. A second SQLite
//! library in the process (two drivers may bring one each) is refused for as long as a connection of the first is open: what either
//! calls in the other would crash.
#![allow(unsafe_code)]

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, Result, ffi};
use std::ffi::{c_char, c_int};
use std::sync::{Mutex, PoisonError};

/// The library whose functions are held, by their address, and how many of its connections are open.
static HELD: Mutex<(usize, usize)> = Mutex::new((0, 0));

/// A connection that has loaded the extension.
struct Held;

impl Drop for Held {
    fn drop(&mut self) {
        HELD.lock().unwrap_or_else(PoisonError::into_inner).1 -= 1;
    }
}

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
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let (library, connections) = &mut *held;
    if *connections > 0 && *library != api as usize {
        // SAFETY: the API is valid, and where SQLite gives a place for a message it takes one that its own allocator made.
        unsafe { refuse(message, api) };
        return ffi::SQLITE_ERROR;
    }
    *library = api as usize;
    // This call's own, so that no other library gets in between; `init` has one more for as long as the connection is open.
    *connections += 1;
    drop(held);
    let _own = Held;
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
    HELD.lock().unwrap_or_else(PoisonError::into_inner).1 += 1;
    let held = Held;
    // SQLite drops a function with its connection, and with it what it holds.
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("sync_version", 0, flags, move |_| {
        let _ = &held;
        Ok(sync_shared::VERSION)
    })?;
    // Not to be kept loaded after the connection is closed.
    Ok(false)
}

/// Says why, in memory of the library that asks: the functions of the other one cannot be used for that.
///
/// # Safety
/// `api` is valid, and `message` is null or a place for a pointer.
unsafe fn refuse(message: *mut *mut c_char, api: *mut ffi::sqlite3_api_routines) {
    const WHY: &str = "sync: InvalidArgument: another SQLite library of this process has loaded sqlite_sync; close its connections first, \
                       or use one SQLite library in a process\0";
    // SAFETY: by the contract of this function; what is written is as long as what was allocated.
    unsafe {
        let Some(malloc) = (*api).malloc.filter(|_| !message.is_null()) else { return };
        let text = malloc(WHY.len() as c_int).cast::<u8>();
        if !text.is_null() {
            text.copy_from_nonoverlapping(WHY.as_ptr(), WHY.len());
            *message = text.cast();
        }
    }
}
