//! The rows that an apply is writing just now, so that their log entries get the labels of their changes.
//!
//! It is memory of this backend and holds for one statement: capture takes a label when it meets the very row with the very values.
//! Whatever else is written meanwhile, by cascades or by triggers, also to a row itself, is a local change and is logged as one.

use crate::captured::{Captured, same_image};
use crate::form::Form;
use pgrx::pg_sys::Datum;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use sync_shared::{Label, Result};

/// The rows of one table that one statement writes.
pub struct Pending {
    pub table: i64,
    /// The columns that are written.
    pub columns: WrittenColumns,
    pub rows: Vec<PendingRow>,
}

/// A column that is written, and how its values are written as JSON.
#[derive(Debug)]
pub struct Written {
    pub name: String,
    pub form: Form,
}

pub type WrittenColumns = Rc<[Written]>;

/// What is written of a row.
#[derive(Clone, Debug)]
pub struct PendingRow {
    pub pk_value: String,
    /// By [`Pending::columns`]; None for a delete.
    pub values: Option<Vec<Option<Datum>>>,
    /// None: the row is a local change, of which only the entry is asked for.
    pub label: Option<Label>,
}

/// The entry that was logged for a row.
#[derive(Clone, Copy, Debug)]
pub struct Logged {
    pub version: i64,
    /// False: a trigger has made something else of the row, so the entry is a local change.
    pub labelled: bool,
}

/// The statement that is running.
struct Running {
    pending: Pending,
    /// By row; what became of it.
    entries: Vec<Option<Logged>>,
    /// Versions of what else was logged.
    caused: Vec<i64>,
    /// The row that is expected next: a statement writes its rows in their order.
    next: usize,
    /// The row that capture has asked for.
    asked: usize,
    /// Places by key; made when rows come in another order.
    places: Option<HashMap<String, usize>>,
    /// Where the written columns are in a relation: indices into its columns.
    relation: Option<(Rc<Captured>, Vec<usize>)>,
}

thread_local! {
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

/// Runs `body`, one statement that writes the rows; returns their entries, and the versions of what cascades and triggers logged besides,
/// in their order. A row of a change that a trigger has made something else of is among these.
pub fn with(pending: Pending, body: impl FnOnce()) -> (Vec<Option<Logged>>, Vec<i64>) {
    /// Whatever ends the statement, nothing is pending after it.
    struct Clear;
    impl Drop for Clear {
        fn drop(&mut self) {
            RUNNING.set(None);
        }
    }
    let entries = vec![None; pending.rows.len()];
    RUNNING.set(Some(Running { pending, entries, caused: Vec::new(), next: 0, asked: 0, places: None, relation: None }));
    let _clear = Clear;
    body();
    let Some(Running { pending, entries, mut caused, .. }) = RUNNING.take() else { return Default::default() };
    let local: Vec<i64> = pending.rows.iter().zip(&entries).filter(|(row, _)| row.label.is_none()).filter_map(|(_, e)| Some(e.as_ref()?.version)).collect();
    caused.retain(|version| !local.contains(version));
    (entries, caused)
}

/// The label of the change that a row's tuple holds, if it is one of those that are being written; and whether it is such a row at all.
/// `values`: None for a delete.
pub fn label_for(captured: &Rc<Captured>, pk_value: &str, values: Option<&[Option<Datum>]>) -> Result<(bool, Option<Label>)> {
    RUNNING.with_borrow_mut(|running| {
        let Some(running) = running.as_mut().filter(|r| r.pending.table == captured.table) else { return Ok((false, None)) };
        let Some(place) = running.place_of(pk_value) else { return Ok((false, None)) };
        running.asked = place;
        let same = running.holds(captured, place, values)?;
        Ok((true, running.pending.rows[place].label.filter(|_| same)))
    })
}

/// The row's entry was logged.
pub fn fulfil(logged: Logged) {
    RUNNING.with_borrow_mut(|running| {
        if let Some(running) = running {
            running.entries[running.asked] = Some(logged);
            if logged.labelled {
                running.next = running.asked + 1;
            }
        }
    });
}

/// A local change was logged: if a statement is running, it has caused it.
pub fn note_caused(version: i64) {
    RUNNING.with_borrow_mut(|running| {
        if let Some(running) = running {
            running.caused.push(version);
        }
    });
}

impl Running {
    /// The row of a key, if its own entry is not there yet.
    fn place_of(&mut self, pk_value: &str) -> Option<usize> {
        let rows = &self.pending.rows;
        let place = match rows.get(self.next) {
            Some(row) if row.pk_value == pk_value => self.next,
            _ if rows.len() == 1 => (rows[0].pk_value == pk_value).then_some(0)?,
            _ => {
                let by_key = || rows.iter().enumerate().map(|(place, row)| (row.pk_value.clone(), place)).collect();
                *self.places.get_or_insert_with(by_key).get(pk_value)?
            }
        };
        self.entries[place].is_none_or(|entry| !entry.labelled).then_some(place)
    }

    /// Does a tuple have the values that are written to a row?
    fn holds(&mut self, captured: &Rc<Captured>, place: usize, values: Option<&[Option<Datum>]>) -> Result<bool> {
        if !self.relation.as_ref().is_some_and(|(known, _)| Rc::ptr_eq(known, captured)) {
            let found = |written: &Written| captured.columns.iter().position(|c| c.name == written.name);
            let Some(places) = self.pending.columns.iter().map(found).collect() else { return Ok(false) };
            self.relation = Some((captured.clone(), places));
        }
        let (wanted, values, places) = match (&self.pending.rows[place].values, values, &self.relation) {
            (None, None, _) => return Ok(true),
            (Some(wanted), Some(values), Some((_, places))) => (wanted, values, places),
            _ => return Ok(false),
        };
        let (mut as_wanted, mut as_held) = (String::new(), String::new());
        for ((wanted, written), &column) in wanted.iter().zip(self.pending.columns.iter()).zip(places) {
            let column = &captured.columns[column];
            match (wanted, values[column.place]) {
                (None, None) => {}
                (Some(wanted), Some(held)) if same_image(*wanted, held, column.by_value, column.length) => {}
                (Some(wanted), Some(_)) => {
                    as_wanted.clear();
                    written.form.write_json(&mut as_wanted, *wanted)?;
                    as_held.clear();
                    column.write_value(&mut as_held, values)?;
                    if as_wanted != as_held {
                        return Ok(false);
                    }
                }
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}
