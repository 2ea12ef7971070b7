//! The versions and the clock of the log: two sequences, whose pages are read and moved here under their locks.
//!
//! A version and its stamp are given out together, while the page of the versions is held, so along the log neither ever goes back, in
//! whichever order transactions commit. What a sequence does itself is kept: it is logged some steps ahead, so that a crash skips
//! numbers rather than giving one out twice, and it does not roll back.
#![allow(unsafe_code)]

use crate::extension::Extension;
use pgrx::pg_sys::{self, Buffer, Relation};
use std::time::{SystemTime, UNIX_EPOCH};

/// Versions that are logged ahead.
const VERSIONS_AHEAD: i64 = 32;
/// How far the clock is logged ahead. Milliseconds.
const CLOCK_AHEAD: i64 = 100;

/// The wall clock, milliseconds since 1970.
pub fn wall_clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// The row of a sequence's page.
#[repr(C)]
struct SequenceRow {
    last_value: i64,
    /// How many numbers above `last_value` the write-ahead log has already.
    log_count: i64,
    is_called: bool,
}

/// The page of a sequence, locked.
struct Page {
    relation: Relation,
    buffer: Buffer,
}

impl Page {
    fn open(sequence: pg_sys::Oid, lock: u32) -> Page {
        // SAFETY: the relation stays open until Drop; its only page is there from its creation on.
        unsafe {
            let relation = pg_sys::relation_open(sequence, pg_sys::AccessShareLock as i32);
            let buffer = pg_sys::ReadBuffer(relation, 0);
            pg_sys::LockBuffer(buffer, lock as i32);
            Page { relation, buffer }
        }
    }

    fn row(&self, page: pg_sys::Page) -> *mut SequenceRow {
        // SAFETY: a sequence's page holds one tuple without nulls.
        unsafe {
            let item = pg_sys::PageGetItemId(page, 1);
            let tuple = pg_sys::PageGetItem(page, item).cast::<pg_sys::HeapTupleHeaderData>();
            tuple.cast::<u8>().add(usize::from((*tuple).t_hoff)).cast()
        }
    }

    fn page(&self) -> pg_sys::Page {
        // SAFETY: the buffer is pinned.
        unsafe { pg_sys::BufferGetPage(self.buffer) }
    }

    /// The last number given out; 0 if none was.
    fn last(&self) -> i64 {
        // SAFETY: the page is locked.
        unsafe {
            let row = self.row(self.page());
            if (*row).is_called { (*row).last_value } else { 0 }
        }
    }

    /// Moves to a greater number; the page is locked exclusively.
    fn set(&self, value: i64, ahead: i64) {
        // SAFETY: the page is locked exclusively, and written with its log record or within what the last record covers.
        unsafe {
            let row = self.row(self.page());
            let covered = if (*row).is_called { (*row).last_value.saturating_add((*row).log_count) } else { 0 };
            let since_checkpoint = page_lsn(self.page()) > pg_sys::GetRedoRecPtr();
            let mut reserve = covered - value;
            if reserve < 0 || !since_checkpoint {
                reserve = ahead;
                let state = pg_sys::GenericXLogStart(self.relation);
                let copy = pg_sys::GenericXLogRegisterBuffer(state, self.buffer, pg_sys::GENERIC_XLOG_FULL_IMAGE as i32);
                let logged = self.row(copy);
                (*logged).last_value = value.saturating_add(ahead);
                (*logged).log_count = 0;
                (*logged).is_called = true;
                pg_sys::GenericXLogFinish(state);
            }
            (*row).last_value = value;
            (*row).log_count = reserve;
            (*row).is_called = true;
            pg_sys::MarkBufferDirty(self.buffer);
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // SAFETY: ends what `open` began. The relation stays locked until the transaction ends.
        unsafe {
            pg_sys::UnlockReleaseBuffer(self.buffer);
            pg_sys::relation_close(self.relation, pg_sys::NoLock as i32);
        }
    }
}

fn page_lsn(page: pg_sys::Page) -> u64 {
    // SAFETY: a page begins with its header.
    unsafe {
        let header = page.cast::<pg_sys::PageHeaderData>();
        u64::from((*header).pd_lsn.xlogid) << 32 | u64::from((*header).pd_lsn.xrecoff)
    }
}

/// The last version that was given out.
pub fn last_version(extension: &Extension) -> i64 {
    Page::open(extension.versions, pg_sys::BUFFER_LOCK_SHARE).last()
}

/// The next version, and the stamp of a local change that has it: the wall clock, but never below anything this replica has seen.
pub fn next(extension: &Extension) -> (i64, i64) {
    let versions = Page::open(extension.versions, pg_sys::BUFFER_LOCK_EXCLUSIVE);
    let clock = Page::open(extension.clock, pg_sys::BUFFER_LOCK_EXCLUSIVE);
    let (version, floor) = (versions.last() + 1, clock.last());
    let stamp = wall_clock().max(floor);
    if stamp > floor {
        clock.set(stamp, CLOCK_AHEAD);
    }
    versions.set(version, VERSIONS_AHEAD);
    (version, stamp)
}

/// No later number of a sequence is at or below this.
pub fn raise_sequence(sequence: pg_sys::Oid, value: i64) {
    let page = Page::open(sequence, pg_sys::BUFFER_LOCK_EXCLUSIVE);
    if value > page.last() {
        page.set(value, VERSIONS_AHEAD);
    }
}

/// The local clock.
pub fn clock(extension: &Extension) -> i64 {
    Page::open(extension.clock, pg_sys::BUFFER_LOCK_SHARE).last().max(wall_clock())
}

/// No later local change is stamped at or below this.
pub fn raise_clock(extension: &Extension, stamp: i64) {
    let clock = Page::open(extension.clock, pg_sys::BUFFER_LOCK_EXCLUSIVE);
    let above = stamp.saturating_add(1);
    if above > clock.last() {
        clock.set(above, CLOCK_AHEAD);
    }
}
