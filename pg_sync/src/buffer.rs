//! Entries that are logged and not written yet: a statement that changes many rows has its entries written many at a time, which takes
//! one record of the write-ahead log for a page instead of one for a row.
//!
//! Nothing gets lost in it. What is here is written by the subtransaction that made it, before that ends; what an aborted one made is
//! dropped. While a subtransaction within runs, its own entries are written at once. If it reads the log, it writes what is here as its
//! own, and if it is undone then, its outer one writes them again.
#![allow(unsafe_code)]

use crate::error::raise;
use crate::extension::Extension;
use pgrx::pg_sys::{self, BulkInsertState, CommandId, Datum, HeapTuple, MemoryContext, Oid, Relation, SubTransactionId, TupleDesc, TupleTableSlot};
use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::rc::Rc;
use sync_shared::Error;

/// Entries that are kept at most, and their size in bytes.
const MOST_ENTRIES: usize = 500;
const MOST_BYTES: usize = 256 * 1024;
/// Columns of `_sync_log_data`.
pub const COLUMNS: usize = 11;

// Called many times a row, and within one boundary for errors.
unsafe extern "C-unwind" {
    fn GetCurrentSubTransactionId() -> SubTransactionId;
    fn GetCurrentCommandId(used: bool) -> CommandId;
    fn heap_form_tuple(shape: TupleDesc, values: *mut Datum, nulls: *mut bool) -> HeapTuple;
    fn heap_insert(log: Relation, tuple: HeapTuple, command: CommandId, options: c_int, state: BulkInsertState);
    fn heap_multi_insert(
        log: Relation,
        slots: *mut *mut TupleTableSlot,
        count: c_int,
        command: CommandId,
        options: c_int,
        state: BulkInsertState,
    );
    fn index_insert(
        index: Relation,
        values: *mut Datum,
        nulls: *mut bool,
        place: *mut pg_sys::ItemPointerData,
        log: Relation,
        check: pg_sys::IndexUniqueCheck::Type,
        unchanged: bool,
        info: *mut pg_sys::IndexInfo,
    ) -> bool;
    fn relation_open(oid: Oid, lock: c_int) -> Relation;
    fn relation_close(relation: Relation, lock: c_int);
    fn MakeSingleTupleTableSlot(shape: TupleDesc, kind: *const pg_sys::TupleTableSlotOps) -> *mut TupleTableSlot;
    fn ExecStoreHeapTuple(tuple: HeapTuple, slot: *mut TupleTableSlot, owned: bool) -> *mut TupleTableSlot;
    fn heap_freetuple(tuple: HeapTuple);
    fn MemoryContextReset(context: MemoryContext);
}

/// An entry as the log holds it.
#[derive(Clone, Copy)]
struct Formed {
    version: i64,
    tuple: HeapTuple,
}

struct Buffer {
    entries: Vec<Formed>,
    bytes: usize,
    /// Where they are.
    memory: MemoryContext,
    /// The log that they are for, and the form of its entries.
    log: Option<(Rc<Extension>, TupleDesc)>,
    /// The subtransaction that made them.
    owner: SubTransactionId,
    /// One within it, which has written them.
    written_by: Option<SubTransactionId>,
    /// The command in which the first was made: the next command sees them all.
    command: CommandId,
}

thread_local! {
    static BUFFER: RefCell<Buffer> = const { RefCell::new(Buffer {
        entries: Vec::new(),
        bytes: 0,
        memory: std::ptr::null_mut(),
        log: None,
        owner: 0,
        written_by: None,
        command: 0,
    }) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// How many entries were ever kept here.
pub fn count() -> u64 {
    COUNT.get()
}

/// The log that has entries here.
pub fn log() -> Option<Oid> {
    BUFFER.with_borrow(|buffer| match buffer.entries.is_empty() {
        true => None,
        false => buffer.log.as_ref().map(|(extension, _)| extension.log),
    })
}

/// Takes an entry, to be written later if that is allowed. The log is locked already, see [`crate::fence::enter`].
pub fn put(extension: &Rc<Extension>, version: i64, values: &mut [Datum; COLUMNS], nulls: &mut [bool; COLUMNS], may_wait: bool) {
    BUFFER.with_borrow_mut(|buffer| buffer.put(extension, version, values, nulls, may_wait));
}

/// Writes what is here.
pub fn write() {
    BUFFER.with_borrow_mut(Buffer::write);
}

/// Before a subtransaction is committed.
pub fn write_those_of(subtransaction: SubTransactionId) {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.owner == subtransaction {
            buffer.write();
        }
    });
}

pub fn committed(subtransaction: SubTransactionId, parent: SubTransactionId) {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.written_by == Some(subtransaction) {
            buffer.written_by = Some(parent);
            if buffer.owner == parent {
                buffer.clear();
            }
        }
    });
}

pub fn aborted(subtransaction: SubTransactionId) {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.written_by == Some(subtransaction) {
            buffer.written_by = None;
        }
        if buffer.owner == subtransaction {
            buffer.clear();
        }
    });
}

/// The transaction is over, or rolled back.
pub fn clear() {
    BUFFER.with_borrow_mut(Buffer::clear);
}

impl Buffer {
    fn put(
        &mut self,
        extension: &Rc<Extension>,
        version: i64,
        values: &mut [Datum; COLUMNS],
        nulls: &mut [bool; COLUMNS],
        may_wait: bool,
    ) {
        // SAFETY: plain state of the backend.
        let current = unsafe { GetCurrentSubTransactionId() };
        let is_known = self.log.as_ref().is_some_and(|(known, _)| Rc::ptr_eq(known, extension));
        let waits = may_wait && (self.entries.is_empty() || (self.owner == current && is_known));
        if !is_known && self.entries.is_empty() {
            self.learn(extension);
        }
        let place = match waits {
            true => self.memory,
            // SAFETY: as above.
            false => unsafe { pg_sys::CurrentMemoryContext },
        };
        let shape = self.log.as_ref().map_or(std::ptr::null_mut(), |(_, shape)| *shape);
        // SAFETY: the values are in the order and of the types of the log's columns.
        let entry = unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                let context = pg_sys::MemoryContextSwitchTo(place);
                let tuple = heap_form_tuple(shape, values.as_mut_ptr(), nulls.as_mut_ptr());
                pg_sys::MemoryContextSwitchTo(context);
                Formed { version, tuple }
            })
        };
        if !waits {
            // SAFETY: the tuple was made here.
            unsafe {
                insert(extension, shape, &mut [entry], GetCurrentCommandId(true));
                heap_freetuple(entry.tuple);
            }
            return;
        }
        if self.entries.is_empty() {
            self.owner = current;
            // SAFETY: plain state of the backend.
            self.command = unsafe { GetCurrentCommandId(true) };
        }
        COUNT.set(COUNT.get() + 1);
        self.entries.push(entry);
        // SAFETY: the tuple was made here.
        self.bytes += unsafe { (*entry.tuple).t_len } as usize;
        if self.entries.len() >= MOST_ENTRIES || self.bytes >= MOST_BYTES {
            self.write();
        }
    }

    /// What entries of the log look like. The form is kept in memory of this backend's own.
    fn learn(&mut self, extension: &Rc<Extension>) {
        // SAFETY: the log is locked; the form before it is used by nothing any more.
        unsafe {
            if self.memory.is_null() {
                self.memory = pg_sys::AllocSetContextCreateInternal(
                    pg_sys::TopMemoryContext,
                    c"entries of pg_sync".as_ptr(),
                    pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
                );
            }
            if let Some((_, shape)) = self.log.take() {
                pg_sys::FreeTupleDesc(shape);
            }
            let log = pg_sys::relation_open(extension.log, pg_sys::NoLock as c_int);
            if (*(*log).rd_att).natts as usize != COLUMNS {
                raise(Error::corrupt("_sync_log_data has other columns than this version of pg_sync writes"));
            }
            let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            let shape = pg_sys::CreateTupleDescCopy((*log).rd_att);
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::relation_close(log, pg_sys::NoLock as c_int);
            self.log = Some((extension.clone(), shape));
        }
    }

    fn write(&mut self) {
        let Some((extension, shape)) = self.log.as_ref().filter(|_| !self.entries.is_empty()) else { return };
        // SAFETY: the entries were made by a transaction that is running, and for this log.
        unsafe {
            let current = GetCurrentSubTransactionId();
            if self.written_by.is_none() {
                let context = pg_sys::MemoryContextSwitchTo(self.memory);
                insert(extension, *shape, &mut self.entries, self.command);
                pg_sys::MemoryContextSwitchTo(context);
            }
            match self.owner == current {
                true => self.clear(),
                false if self.written_by.is_none() => self.written_by = Some(current),
                false => {}
            }
        }
    }

    fn clear(&mut self) {
        self.written_by = None;
        self.bytes = 0;
        if !self.entries.is_empty() {
            self.entries.clear();
            // SAFETY: nothing refers to the entries any more.
            unsafe { MemoryContextReset(self.memory) };
        }
    }
}

/// Writes entries and their keys. A version is never given out twice, so nothing is looked for in the index.
///
/// # Safety
/// The log is locked, and the entries are of its shape.
unsafe fn insert(extension: &Extension, shape: TupleDesc, entries: &mut [Formed], command: CommandId) {
    let mut places: Vec<*mut TupleTableSlot> = Vec::with_capacity(entries.len());
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            let log = relation_open(extension.log, pg_sys::NoLock as c_int);
            let key = relation_open(extension.log_key, pg_sys::NoLock as c_int);
            if let [only] = entries {
                heap_insert(log, only.tuple, command, 0, std::ptr::null_mut());
                insert_key(key, log, only.version, &mut (*only.tuple).t_self);
            } else {
                for entry in entries.iter() {
                    let slot = MakeSingleTupleTableSlot(shape, &raw const pg_sys::TTSOpsHeapTuple);
                    places.push(ExecStoreHeapTuple(entry.tuple, slot, true));
                }
                heap_multi_insert(log, places.as_mut_ptr(), places.len() as c_int, command, 0, std::ptr::null_mut());
                for (entry, slot) in entries.iter().zip(&places) {
                    insert_key(key, log, entry.version, &mut (**slot).tts_tid);
                }
            }
            relation_close(key, pg_sys::NoLock as c_int);
            relation_close(log, pg_sys::NoLock as c_int);
        });
    }
}

/// # Safety
/// The log is open, and the place is that of its new tuple.
unsafe fn insert_key(key: Relation, log: Relation, version: i64, place: *mut pg_sys::ItemPointerData) {
    let (mut values, mut nulls) = ([Datum::from(version)], [false]);
    let unchecked = pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO;
    unsafe { index_insert(key, values.as_mut_ptr(), nulls.as_mut_ptr(), place, log, unchecked, false, std::ptr::null_mut()) };
}
