//! Statements that fire triggers, from the first trigger to the last: meanwhile capture may keep entries to write them many at a time
//! (`buffer.rs`), and take versions many at a time (`counter.rs`). All hooks of the executor are here, also that of `sparing.rs`.
//!
//! Seen are the end of an ordinary statement and COPY. Nothing depends on seeing every statement: what is not seen is written at once.
//!
//! An error passes our hooks as the server raised it, with all its fields: they are frames without anything to drop, and what they have
//! changed is put back when the (sub)transaction is aborted.
#![allow(unsafe_code)]

use crate::{buffer, counter, sparing};
use pgrx::pg_sys::{self, QueryDesc, SubTransactionId};
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::ffi::{c_char, c_int, c_void};

unsafe extern "C-unwind" {
    fn standard_ExecutorStart(query: *mut QueryDesc, flags: c_int);
    fn standard_ExecutorFinish(query: *mut QueryDesc);
}

thread_local! {
    /// How many statements are firing triggers, one within the other.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// The depth at which each open subtransaction began.
    static BEGUN: RefCell<Vec<(SubTransactionId, usize)>> = const { RefCell::new(Vec::new()) };
    static NEXT_START: Cell<pg_sys::ExecutorStart_hook_type> = const { Cell::new(None) };
    static NEXT_FINISH: Cell<pg_sys::ExecutorFinish_hook_type> = const { Cell::new(None) };
    static NEXT_UTILITY: Cell<pg_sys::ProcessUtility_hook_type> = const { Cell::new(None) };
}

/// Follows statements and subtransactions from now on.
pub fn register() {
    // SAFETY: the hooks are functions of this library, which stays loaded.
    unsafe {
        NEXT_START.set(pg_sys::ExecutorStart_hook);
        NEXT_FINISH.set(pg_sys::ExecutorFinish_hook);
        NEXT_UTILITY.set(pg_sys::ProcessUtility_hook);
        pg_sys::ExecutorStart_hook = Some(executor_start);
        pg_sys::ExecutorFinish_hook = Some(executor_finish);
        pg_sys::ProcessUtility_hook = Some(process_utility);
        pg_sys::RegisterSubXactCallback(Some(subtransaction_turns), std::ptr::null_mut());
    }
}

/// Is a statement firing its triggers whose end is seen?
pub fn is_firing() -> bool {
    DEPTH.get() > 0
}

/// The transaction is over.
pub fn reset() {
    DEPTH.set(0);
    BEGUN.with_borrow_mut(Vec::clear);
    counter::give_up();
}

/// While one of our functions runs: it writes rows and logs them as it goes, not in triggers only.
pub struct Suspended(usize);

impl Suspended {
    pub fn enter() -> Suspended {
        counter::give_up();
        Suspended(DEPTH.replace(0))
    }
}

impl Drop for Suspended {
    fn drop(&mut self) {
        counter::give_up();
        DEPTH.set(self.0);
    }
}

/// A statement begins to fire its triggers. Versions that an outer one has in hand are below those of rows that this one has changed.
fn begin() -> u64 {
    counter::give_up();
    DEPTH.set(DEPTH.get() + 1);
    buffer::count()
}

/// It has fired them: what it has logged is there for the next.
fn end(before: u64) {
    counter::give_up();
    DEPTH.set(DEPTH.get().saturating_sub(1));
    if buffer::count() != before {
        write();
    }
}

#[pg_guard]
extern "C-unwind" fn write() {
    buffer::write();
}

/// Whoever reads the log sees what is in it, also a trigger of the statement that writes it.
unsafe extern "C-unwind" fn executor_start(query: *mut QueryDesc, flags: c_int) {
    // SAFETY: the server's own query, and the next function that hangs on its hook.
    unsafe {
        if let Some(log) = buffer::log()
            && pg_sys::list_member_oid((*(*query).plannedstmt).relationOids, log)
        {
            write();
        }
        match NEXT_START.get() {
            Some(next) => next(query, flags),
            None => standard_ExecutorStart(query, flags),
        }
        sparing::has_started(query);
    }
}

unsafe extern "C-unwind" fn executor_finish(query: *mut QueryDesc) {
    // SAFETY: as above.
    unsafe {
        let writes = (*query).operation != pg_sys::CmdType::CMD_SELECT || (*(*query).plannedstmt).hasModifyingCTE;
        let before = if writes { begin() } else { 0 };
        match NEXT_FINISH.get() {
            Some(next) => next(query),
            None => standard_ExecutorFinish(query),
        }
        if writes {
            end(before);
        }
    }
}

/// `ProcessUtility`: its arguments are named once, for the server's own function and for the hook. PostgreSQL 13 has none in brackets.
macro_rules! follow_utilities {
    ($statement:ident: $node:ty, $text:ident: $characters:ty, [$newer:ident: $flag:ty], $($argument:ident: $type:ty),*) => {
        #[cfg(not(feature = "pg13"))]
        follow_utilities!($statement: $node, $text: $characters, $newer: $flag, $($argument: $type),*);
        #[cfg(feature = "pg13")]
        follow_utilities!($statement: $node, $text: $characters, $($argument: $type),*);
    };
    ($statement:ident: $node:ty, $($argument:ident: $type:ty),*) => {
        unsafe extern "C-unwind" {
            fn standard_ProcessUtility($statement: $node, $($argument: $type),*);
        }

        #[allow(clippy::too_many_arguments)]
        unsafe extern "C-unwind" fn process_utility($statement: $node, $($argument: $type),*) {
            // SAFETY: as above.
            unsafe {
                let before = utility_begins($statement);
                match NEXT_UTILITY.get() {
                    Some(next) => next($statement, $($argument),*),
                    None => standard_ProcessUtility($statement, $($argument),*),
                }
                if let Some(before) = before {
                    end(before);
                }
            }
        }
    };
}

follow_utilities!(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    [read_only: bool],
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion
);

/// Some if it is a COPY that fires triggers.
///
/// # Safety
/// The server's own statement.
unsafe fn utility_begins(statement: *mut pg_sys::PlannedStmt) -> Option<u64> {
    counter::give_up();
    if buffer::log().is_some() {
        write();
    }
    // SAFETY: as above.
    let copies = unsafe {
        let node = (*statement).utilityStmt;
        (*node).type_ == pg_sys::NodeTag::T_CopyStmt && (*node.cast::<pg_sys::CopyStmt>()).is_from
    };
    copies.then(begin)
}

#[pg_guard]
unsafe extern "C-unwind" fn subtransaction_turns(
    event: pg_sys::SubXactEvent::Type,
    mine: SubTransactionId,
    parent: SubTransactionId,
    _argument: *mut c_void,
) {
    match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_START_SUB => BEGUN.with_borrow_mut(|begun| begun.push((mine, DEPTH.get()))),
        pg_sys::SubXactEvent::SUBXACT_EVENT_PRE_COMMIT_SUB => buffer::write_those_of(mine),
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => {
            forget(mine);
            buffer::committed(mine, parent);
        }
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => {
            counter::give_up();
            DEPTH.set(forget(mine).unwrap_or(0));
            buffer::aborted(mine);
        }
        _ => {}
    }
}

/// The depth at which a subtransaction began, if that was seen.
fn forget(subtransaction: SubTransactionId) -> Option<usize> {
    BEGUN.with_borrow_mut(|begun| {
        let at = begun.iter().position(|(id, _)| *id == subtransaction)?;
        let (_, depth) = begun[at];
        begun.truncate(at);
        Some(depth)
    })
}
