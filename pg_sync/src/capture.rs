//! Capture: one trigger function for every tracked table. It appends the row as JSON to the log, in the writer's own transaction.
//!
//! It needs no right on the log, depends on no setting of the session, and is cheap: what it has to know of a table is kept until the
//! table changes. The argument of the trigger is the table's id in `_sync_tables`.
#![allow(unsafe_code)]

use crate::append::{Entry, append};
use crate::captured::{Captured, attribute};
use crate::definer::Definer;
use crate::error::raise;
use crate::extension::Extension;
use crate::living;
use crate::pending::{self, Logged};
use crate::quote::{list, owned, qualified};
use crate::spi::{self, Aim, Session};
use pgrx::pg_sys::{self, Datum, HeapTuple, TriggerData};
use pgrx::prelude::*;
use std::rc::Rc;
use sync_shared::{Error, Label, Operation, Result};

/// The calling convention of [`sync_capture`].
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_sync_capture() -> &'static pg_sys::Pg_finfo_record {
    const RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &RECORD
}

/// The trigger function `_sync_capture`.
///
/// # Safety
/// Called by the server.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sync_capture(fcinfo: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: the context of a trigger function is its trigger data.
    let data = unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context.cast::<pg_sys::Node>()).type_ != pg_sys::NodeTag::T_TriggerData {
            raise(Error::argument("_sync_capture is called by the triggers of tracked tables only"));
        }
        &*context.cast::<TriggerData>()
    };
    let extension = Extension::of(fcinfo);
    if let Err(error) = capture(&extension, data) {
        raise(error);
    }
    Datum::null()
}

fn capture(extension: &Rc<Extension>, data: &TriggerData) -> Result<()> {
    // SAFETY: the server's own trigger data, valid during the call.
    let (captured, descriptor) = unsafe {
        let trigger = &*data.tg_trigger;
        let table = if trigger.tgnargs == 1 { owned(*trigger.tgargs).parse().unwrap_or(0) } else { 0 };
        (Captured::of(extension, data.tg_relation, table)?, (*data.tg_relation).rd_att)
    };
    let writer = Writer { extension, captured };
    match data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
        pg_sys::TRIGGER_EVENT_INSERT if !is_superseded(data.tg_trigtuple) => {
            living::note_put(writer.captured.table, data.tg_trigtuple);
            writer.row(Operation::Insert, None, &writer.captured.values(data.tg_trigtuple, descriptor))
        }
        pg_sys::TRIGGER_EVENT_UPDATE => {
            let old = writer.captured.values(data.tg_trigtuple, descriptor);
            let new = writer.captured.values(data.tg_newtuple, descriptor);
            writer.update((&old, data.tg_trigtuple), (&new, data.tg_newtuple))
        }
        pg_sys::TRIGGER_EVENT_DELETE => writer.gone(&writer.captured.values(data.tg_trigtuple, descriptor), data.tg_trigtuple),
        pg_sys::TRIGGER_EVENT_TRUNCATE => writer.truncate(data),
        _ => Ok(()),
    }
}

/// Has this transaction changed or deleted the row again? Then a trigger of the user's was first, and the row as it is since is in the
/// log already.
fn is_superseded(tuple: HeapTuple) -> bool {
    // SAFETY: a tuple that the server gave to the trigger.
    unsafe {
        let header = (*tuple).t_data;
        let mask = u32::from((*header).t_infomask);
        if mask & (pg_sys::HEAP_XMAX_INVALID | pg_sys::HEAP_XMAX_LOCK_ONLY) != 0 {
            return false;
        }
        let updater = match mask & pg_sys::HEAP_XMAX_IS_MULTI {
            0 => (*header).t_choice.t_heap.t_xmax,
            _ => pg_sys::HeapTupleGetUpdateXid(header),
        };
        pg_sys::TransactionIdIsCurrentTransactionId(updater)
    }
}

/// Was the tuple written by this transaction?
fn is_own(tuple: HeapTuple) -> bool {
    // SAFETY: as above.
    unsafe { pg_sys::TransactionIdIsCurrentTransactionId((*(*tuple).t_data).t_choice.t_heap.t_xmin) }
}

struct Writer<'e> {
    extension: &'e Rc<Extension>,
    captured: Rc<Captured>,
}

impl Writer<'_> {
    fn row(&self, operation: Operation, old: Option<&[Option<Datum>]>, values: &[Option<Datum>]) -> Result<()> {
        let (mut pk_value, mut payload) = (String::with_capacity(64), String::with_capacity(256));
        self.captured.write_key(&mut pk_value, values)?;
        self.captured.write_row(&mut payload, values)?;
        let label = pending::label_for(&self.captured, &pk_value, Some(values))?;
        let image = old.map(|old| self.captured.image(old)).transpose()?.flatten();
        self.append(operation, &pk_value, (Some(&payload), image.as_deref()), label)
    }

    /// Logs that a row has gone from its key; or the row that has the key now.
    fn gone(&self, values: &[Option<Datum>], tuple: HeapTuple) -> Result<()> {
        let mut pk_value = String::with_capacity(64);
        self.captured.write_key(&mut pk_value, values)?;
        let (pending, label) = pending::label_for(&self.captured, &pk_value, None)?;
        let image = self.captured.image(values)?;
        let living = match living::may_live_on(&self.captured, tuple) {
            true => self.captured.living(&pk_value, values)?,
            false => None,
        };
        match living {
            None => self.append(Operation::Delete, &pk_value, (None, image.as_deref()), (pending, label)),
            // Whatever was to be done to the key, this was not.
            Some(payload) => self.append(Operation::Update, &pk_value, (Some(&payload), image.as_deref()), (pending, None)),
        }
    }

    fn update(&self, (old, old_tuple): (&[Option<Datum>], HeapTuple), (new, new_tuple): (&[Option<Datum>], HeapTuple)) -> Result<()> {
        let captured = &self.captured;
        let is_superseded = is_superseded(new_tuple);
        if !captured.agree(captured.key.iter().map(|&c| &captured.columns[c]), old, new) {
            self.gone(old, old_tuple)?;
            if !is_superseded {
                living::note_put(captured.table, new_tuple);
                self.row(Operation::Insert, None, new)?;
            }
            return Ok(());
        }
        if is_superseded {
            return Ok(());
        }
        living::note_put(captured.table, new_tuple);
        // What this transaction wrote before may have been left to this entry to log, see `is_superseded`.
        if captured.agree(captured.columns.iter(), old, new) && !is_own(old_tuple) {
            return Ok(());
        }
        self.row(Operation::Update, Some(old), new)
    }

    /// Logs every row as deleted, before it is.
    fn truncate(&self, data: &TriggerData) -> Result<()> {
        // SAFETY: an open relation.
        let (relation, descriptor) = unsafe { ((*data.tg_relation).rd_id, (*data.tg_relation).rd_att) };
        let columns = self.captured.needed_to_delete();
        let names = columns.iter().map(|&place| {
            // SAFETY: the descriptor of an open relation.
            owned(unsafe { attribute(descriptor, place) }.attname.data.as_ptr())
        });
        let names: Vec<String> = names.collect();
        let sql = format!("SELECT {} FROM ONLY {}", list(names.iter().map(String::as_str)), qualified(relation));
        // SAFETY: as above.
        let width = unsafe { (*descriptor).natts as usize };
        let mut gone: Vec<(String, Option<String>)> = Vec::new();
        {
            let _session = Session::open();
            let _definer = Definer::owner_of(relation);
            spi::stream(&sql, &[], Aim::AllRows, |rows, row| {
                let mut values = vec![None; width];
                columns.iter().enumerate().for_each(|(at, &place)| values[place] = rows.datum(row, at));
                let mut pk_value = String::new();
                self.captured.write_key(&mut pk_value, &values)?;
                gone.push((pk_value, self.captured.image(&values)?));
                Ok(true)
            })?;
        }
        gone.iter().try_for_each(|(pk_value, image)| self.append(Operation::Delete, pk_value, (None, image.as_deref()), (false, None)))
    }

    fn append(
        &self,
        operation: Operation,
        pk_value: &str,
        (payload, image): (Option<&str>, Option<&str>),
        (pending, label): (bool, Option<Label>),
    ) -> Result<()> {
        let (table, origin) = (self.captured.table, self.captured.origin);
        let entry = Entry { table, operation, origin, label: label.as_ref(), pk_value, payload, image };
        let version = append(self.extension, &entry);
        if label.is_none() {
            pending::note_caused(version);
        }
        if pending {
            pending::fulfil(Logged { version, labelled: label.is_some() });
        }
        Ok(())
    }
}
