//! Appends an entry to the log, past SQL: whoever may write a table logs its changes without any right on the log.
#![allow(unsafe_code)]

use crate::error::raise;
use crate::extension::Extension;
use crate::{buffer, counter, fence, notify, statement};
use pgrx::pg_sys::Datum;
use std::cell::RefCell;
use std::rc::Rc;
use sync_shared::{Error, Kind, Label, Operation};

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
    /// The texts of an entry, as the server takes them.
    static TEXTS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Logs an entry; returns its version. Without a label it is a local change of this moment.
pub fn append(extension: &Rc<Extension>, entry: &Entry<'_>) -> i64 {
    fence::enter(extension);
    let may_wait = statement::is_firing();
    let (version, clock) = if may_wait { counter::next_of_many(extension) } else { counter::next(extension) };
    notify::note(version);
    let operation: i16 = match entry.operation {
        Operation::Insert => 0,
        Operation::Update => 1,
        Operation::Delete => 2,
    };
    let label = entry.label;
    let texts = [Some(entry.pk_value), entry.payload, entry.image];
    with_texts(texts, |[pk_value, payload, image]| {
        // In the order of the columns of _sync_log_data.
        let given: [Option<Datum>; buffer::COLUMNS] = [
            Some(Datum::from(version)),
            Some(Datum::from(clock)),
            label.map(|l| Datum::from(l.stamp)),
            Some(Datum::from(entry.table as i32)),
            Some(Datum::from(label.map_or(entry.origin, |l| l.origin) as i32)),
            label.and_then(|l| l.via).map(|via| Datum::from(via as i32)),
            Some(Datum::from(operation)),
            label.filter(|l| l.contested).map(|_| Datum::from(1i16)),
            pk_value,
            payload,
            image,
        ];
        let mut values = given.map(|value| value.unwrap_or(Datum::null()));
        let mut nulls = given.map(|value| value.is_none());
        buffer::put(extension, version, &mut values, &mut nulls, may_wait);
    });
    version
}

/// Texts as values of variable length, for as long as `body` runs.
fn with_texts<const N: usize>(texts: [Option<&str>; N], body: impl FnOnce([Option<Datum>; N])) {
    const WORD: usize = size_of::<u64>();
    const HEADER: usize = size_of::<u32>();
    /// Memory that is kept for the next entry at most. Words.
    const MOST_KEPT: usize = 64 * 1024 / WORD;
    /// What a size can say. Bytes.
    const MOST_BYTES: usize = (1 << 30) - 1;
    if let Some(text) = texts.iter().flatten().find(|text| HEADER + text.len() > MOST_BYTES) {
        raise(Error::new(Kind::LimitExceeded, format!("a row of {} bytes as JSON is too large for the log", text.len())));
    }
    TEXTS.with_borrow_mut(|memory| {
        let words = |text: &str| (HEADER + text.len()).div_ceil(WORD);
        let needed: usize = texts.iter().flatten().map(|text| words(text)).sum();
        if memory.len() < needed {
            memory.resize(needed, 0);
        }
        let mut rest = memory.as_mut_slice();
        let values = texts.map(|text| {
            let text = text?;
            let (place, others) = std::mem::take(&mut rest).split_at_mut(words(text));
            rest = others;
            let place = place.as_mut_ptr().cast::<u8>();
            // SAFETY: the place has room for both. A value of variable length begins with its size.
            unsafe {
                pgrx::set_varsize_4b(place.cast(), (HEADER + text.len()) as i32);
                std::ptr::copy_nonoverlapping(text.as_ptr(), place.add(HEADER), text.len());
            }
            Some(Datum::from(place))
        });
        body(values);
        if memory.len() > MOST_KEPT {
            *memory = Vec::new();
        }
    });
}
