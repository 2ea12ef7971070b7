//! The one row that an apply is writing just now, so that its log entry gets the label of the change.
//!
//! It is memory of this backend and holds for one statement: capture takes it when it meets the very row with the very values. Whatever
//! else is written meanwhile, by cascades or by triggers, also to the row itself, is a local change and is logged as one.

use crate::captured::Captured;
use pgrx::pg_sys::Datum;
use std::cell::RefCell;
use sync_shared::{Label, Result};

/// What is being written, and what became of it.
#[derive(Clone, Debug)]
pub struct Pending {
    pub table: i64,
    pub pk_value: String,
    /// The columns that are written, and their values as a payload has them; None for a delete.
    pub values: Option<Vec<(String, String)>>,
    pub label: Label,
    /// The entry of the row.
    pub entry: Option<Logged>,
}

/// The entry that was logged for the row.
#[derive(Clone, Copy, Debug)]
pub struct Logged {
    pub version: i64,
    /// False: a trigger has made something else of the row, so the entry is a local change.
    pub labelled: bool,
}

thread_local! {
    static PENDING: RefCell<Option<Pending>> = const { RefCell::new(None) };
}

/// Runs `body`, one statement that writes the row; returns the row's entry.
pub fn with(pending: Pending, body: impl FnOnce()) -> Option<Logged> {
    /// Whatever ends the statement, nothing is pending after it.
    struct Clear;
    impl Drop for Clear {
        fn drop(&mut self) {
            PENDING.set(None);
        }
    }
    PENDING.set(Some(pending));
    let _clear = Clear;
    body();
    PENDING.with_borrow(|pending| pending.as_ref().and_then(|p| p.entry))
}

/// The label of the change that a row's tuple holds, if it is the one that is being written; and whether it is that row at all.
/// `values`: None for a delete.
pub fn label_for(captured: &Captured, pk_value: &str, values: Option<&[Option<Datum>]>) -> Result<(bool, Option<Label>)> {
    PENDING.with_borrow(|pending| {
        let is_open = |p: &&Pending| p.entry.is_none_or(|e| !e.labelled);
        let Some(pending) = pending.as_ref().filter(|p| p.table == captured.table && p.pk_value == pk_value).filter(is_open) else {
            return Ok((false, None));
        };
        let same = match (&pending.values, values) {
            (None, None) => true,
            (Some(wanted), Some(values)) => holds(captured, wanted, values)?,
            _ => false,
        };
        Ok((true, same.then_some(pending.label)))
    })
}

/// The row's entry was logged.
pub fn fulfil(logged: Logged) {
    PENDING.with_borrow_mut(|pending| {
        if let Some(pending) = pending {
            pending.entry = Some(logged);
        }
    });
}

fn holds(captured: &Captured, wanted: &[(String, String)], values: &[Option<Datum>]) -> Result<bool> {
    let mut text = String::new();
    for (name, json) in wanted {
        let Some(column) = captured.columns.iter().find(|c| c.name == *name) else { return Ok(false) };
        text.clear();
        column.write_value(&mut text, values)?;
        if text != *json {
            return Ok(false);
        }
    }
    Ok(true)
}
