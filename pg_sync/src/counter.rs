//! The versions and the clock of the log: two sequences, whose pages are read and moved here under their locks.
//!
//! A version and its stamp are given out together, while the page of the versions is held, so along the log neither ever goes back, in
//! whichever order transactions commit. What a sequence does itself is kept: it is logged some steps ahead, so that a crash skips
//! numbers rather than giving one out twice, and it does not roll back.
//!
//! A statement that logs many rows takes many versions at a time. It has changed all its rows before it logs the first, so nobody else can
//! have changed one of them under a later version; what changes rows between two of its triggers makes it take new ones.
#![allow(unsafe_code)]

use crate::extension::Extension;
use pgrx::pg_sys::{self, Buffer, Relation};
use std::cell::Cell;
use std::ffi::c_int;
use std::time::{SystemTime, UNIX_EPOCH};

/// Versions that are logged ahead.
const VERSIONS_AHEAD: i64 = 512;
/// Rows of a statement that take their versions one by one, so that small statements leave no gaps.
const ALONE: i64 = 16;
/// Versions that a statement takes at a time at most.
const MOST_VERSIONS: i64 = 256;
/// How far the clock is logged ahead. Milliseconds.
const CLOCK_AHEAD: i64 = 100;

// Called for every row, and within one boundary for errors.
unsafe extern "C-unwind" {
    fn relation_open(oid: pg_sys::Oid, lock: c_int) -> Relation;
    fn relation_close(relation: Relation, lock: c_int);
    fn ReadBuffer(relation: Relation, block: pg_sys::BlockNumber) -> Buffer;
    fn LockBuffer(buffer: Buffer, mode: c_int);
    fn UnlockReleaseBuffer(buffer: Buffer);
    fn MarkBufferDirty(buffer: Buffer);
    fn GetRedoRecPtr() -> pg_sys::XLogRecPtr;
}

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

/// Versions that the running statement has in hand, all with one stamp.
#[derive(Clone, Copy)]
struct InHand {
    next: i64,
    /// The first that is not in hand.
    end: i64,
    stamp: i64,
    /// How many it has used so far.
    used: i64,
}

const NONE: InHand = InHand { next: 0, end: 0, stamp: 0, used: 0 };

thread_local! {
    static IN_HAND: Cell<InHand> = const { Cell::new(NONE) };
}

/// The page of a sequence, locked.
struct Page {
    relation: Relation,
    buffer: Buffer,
}

impl Page {
    fn open(sequence: pg_sys::Oid, lock: u32) -> Page {
        Page::open_under(sequence, lock, pg_sys::AccessShareLock)
    }

    /// The sequence is locked already, see [`crate::fence::enter`].
    fn open_again(sequence: pg_sys::Oid) -> Page {
        Page::open_under(sequence, pg_sys::BUFFER_LOCK_EXCLUSIVE, pg_sys::NoLock)
    }

    fn open_under(sequence: pg_sys::Oid, lock: u32, relation_lock: u32) -> Page {
        // SAFETY: the relation stays open until Drop; its only page is there from its creation on.
        unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                let relation = relation_open(sequence, relation_lock as c_int);
                let buffer = ReadBuffer(relation, 0);
                LockBuffer(buffer, lock as c_int);
                Page { relation, buffer }
            })
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
            let since_checkpoint = page_lsn(self.page()) > GetRedoRecPtr();
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
            MarkBufferDirty(self.buffer);
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
            UnlockReleaseBuffer(self.buffer);
            relation_close(self.relation, pg_sys::NoLock as c_int);
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
    take(extension, 1)
}

/// As [`next`], for a row that a statement has changed which has changed all its rows.
pub fn next_of_many(extension: &Extension) -> (i64, i64) {
    let mut hand = IN_HAND.get();
    if hand.next == hand.end {
        let count = if hand.used < ALONE { 1 } else { hand.used.min(MOST_VERSIONS) };
        let (first, stamp) = take(extension, count);
        hand = InHand { next: first, end: first + count, stamp, used: hand.used };
    }
    let version = hand.next;
    hand.next += 1;
    hand.used += 1;
    IN_HAND.set(hand);
    (version, hand.stamp)
}

/// What is in hand is not used any more: somebody else may have logged a later version of a row that is changed from now on.
pub fn give_up() {
    IN_HAND.set(NONE);
}

/// The first of that many versions, and their stamp. The sequences are locked.
fn take(extension: &Extension, count: i64) -> (i64, i64) {
    let versions = Page::open_again(extension.versions);
    let clock = Page::open_again(extension.clock);
    let (last, floor) = (versions.last(), clock.last());
    let stamp = wall_clock().max(floor);
    if stamp > floor {
        clock.set(stamp, CLOCK_AHEAD);
    }
    versions.set(last + count, VERSIONS_AHEAD);
    (last + 1, stamp)
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
