//! Appends an entry to the log, past SQL: whoever may write a table logs its changes without any right on the log.
#![allow(unsafe_code)]

use crate::extension::Extension;
use crate::spi::varlena;
use crate::{counter, fence, notify};
use pgrx::pg_sys::{self, Datum, Relation};
use std::cell::Cell;
use sync_shared::{Label, Operation};

/// An entry to be logged.
pub struct Entry<'a> {
    pub table: i64,
    pub operation: Operation,
    /// This replica; overridden by the label.
    pub origin: i64,
    pub label: Option<&'a Label>,
    pub pk_value: &'a str,
    pub payload: Option<&'a str>,
    /// What the row was before, as far as the table's policies ask for it.
    pub image: Option<&'a str>,
}

thread_local! {
    static APPENDED: Cell<u64> = const { Cell::new(0) };
}

/// How many entries this backend has ever logged.
pub fn count() -> u64 {
    APPENDED.get()
}

/// Logs an entry; returns its version. Without a label it is a local change of this moment.
pub fn append(extension: &Extension, entry: &Entry<'_>) -> i64 {
    fence::enter(extension);
    let (version, clock) = counter::next(extension);
    notify::note(version);
    APPENDED.set(APPENDED.get() + 1);
    let operation: i16 = match entry.operation {
        Operation::Insert => 0,
        Operation::Update => 1,
        Operation::Delete => 2,
    };
    let label = entry.label;
    // In the order of the columns of _sync_log_data.
    let values: [Option<Datum>; 11] = [
        Some(Datum::from(version)),
        Some(Datum::from(clock)),
        label.map(|l| Datum::from(l.stamp)),
        Some(Datum::from(entry.table as i32)),
        Some(Datum::from(label.map_or(entry.origin, |l| l.origin) as i32)),
        label.and_then(|l| l.via).map(|via| Datum::from(via as i32)),
        Some(Datum::from(operation)),
        label.filter(|l| l.contested).map(|_| Datum::from(1i16)),
        Some(varlena(entry.pk_value.as_bytes())),
        entry.payload.map(|text| varlena(text.as_bytes())),
        entry.image.map(|text| varlena(text.as_bytes())),
    ];
    // SAFETY: the values are in the order and of the types of the log's columns; the log has no trigger and no constraint but its key.
    unsafe {
        let log = pg_sys::relation_open(extension.log, pg_sys::RowExclusiveLock as i32);
        let mut datums: Vec<Datum> = values.iter().map(|v| v.unwrap_or(Datum::null())).collect();
        let mut nulls: Vec<bool> = values.iter().map(Option::is_none).collect();
        let tuple = pg_sys::heap_form_tuple((*log).rd_att, datums.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::simple_heap_insert(log, tuple);
        insert_into_key(extension, log, values[0], &mut (*tuple).t_self);
        pg_sys::heap_freetuple(tuple);
        for value in [values[8], values[9], values[10]].into_iter().flatten() {
            pg_sys::pfree(value.cast_mut_ptr());
        }
        pg_sys::relation_close(log, pg_sys::NoLock as i32);
    }
    version
}

/// The log's only index. A version is never given out twice, so nothing is looked for.
///
/// # Safety
/// The log is open, and the place is that of its new tuple.
unsafe fn insert_into_key(extension: &Extension, log: Relation, version: Option<Datum>, place: &mut pg_sys::ItemPointerData) {
    unsafe {
        let key = pg_sys::index_open(extension.log_key, pg_sys::RowExclusiveLock as i32);
        let (mut values, mut nulls) = ([version.unwrap_or(Datum::null())], [false]);
        pg_sys::index_insert(
            key,
            values.as_mut_ptr(),
            nulls.as_mut_ptr(),
            place,
            log,
            pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO,
            #[cfg(not(feature = "pg13"))]
            false,
            std::ptr::null_mut(),
        );
        pg_sys::index_close(key, pg_sys::NoLock as i32);
    }
}
