//! Does the key of a row that has gone live on in another row? Then what is logged of the key is that row.
//!
//! It may where a trigger of the user's was first and has put a row back, and where the primary key is checked late, so that in one
//! statement, or until the transaction ends, another row takes a key before the row that has it lets it go. Only then is the table asked.
#![allow(unsafe_code)]

use crate::captured::Captured;
use crate::convert::ColumnType;
use crate::definer::Definer;
use crate::quote::{Identifier, list, rows_of};
use crate::relation;
use crate::spi::{self, Parameter, Session, View};
use pgrx::pg_sys::{self, CommandId, Datum, HeapTuple, HeapTupleHeader, Oid};
use std::cell::RefCell;
use sync_shared::Result;

// Called for every row, and they do not raise.
unsafe extern "C-unwind" {
    fn HeapTupleHeaderGetCmin(tuple: HeapTupleHeader) -> CommandId;
    fn HeapTupleHeaderGetCmax(tuple: HeapTupleHeader) -> CommandId;
}

thread_local! {
    /// By tracked table, the last command of this transaction that has put a row which capture has met. The table of the last is the first.
    static LAST_PUTS: RefCell<Vec<(i64, CommandId)>> = const { RefCell::new(Vec::new()) };
}

/// The transaction is over.
pub fn reset() {
    LAST_PUTS.with_borrow_mut(Vec::clear);
}

/// Capture has met a row that this transaction has put.
pub fn note_put(table: i64, tuple: HeapTuple) {
    // SAFETY: a tuple that the server gave to the trigger, written by this transaction.
    let command = unsafe { HeapTupleHeaderGetCmin((*tuple).t_data) };
    LAST_PUTS.with_borrow_mut(|puts| {
        let at = puts.iter().position(|(known, _)| *known == table).unwrap_or_else(|| {
            puts.push((table, command));
            puts.len() - 1
        });
        puts.swap(0, at);
        puts[0].1 = puts[0].1.max(command);
    });
}

/// May the key of a tuple that this transaction has changed or deleted live on? Commands count upwards, so one that puts a row between the
/// change and its trigger has a higher number than the change.
pub fn may_live_on(captured: &Captured, tuple: HeapTuple) -> bool {
    // SAFETY: as above; changed or deleted by this transaction.
    let change = unsafe { HeapTupleHeaderGetCmax((*tuple).t_data) };
    captured.is_key_late || LAST_PUTS.with_borrow(|puts| puts.iter().any(|(table, put)| *table == captured.table && *put > change))
}

/// The statement that finds a row by its key.
#[derive(Debug)]
pub struct FindLiving {
    sql: String,
    /// Types of the key's columns.
    key: Vec<Oid>,
}

impl FindLiving {
    /// For a table whose key are these of the columns.
    pub fn new(root: Oid, columns: &[&str], key: &[usize]) -> FindLiving {
        let live = relation::columns(root);
        let types: Vec<ColumnType> = key
            .iter()
            .filter_map(|&k| live.iter().find(|l| l.name == columns[k]))
            .map(|l| ColumnType::new(&l.name, l.oid, l.typmod))
            .collect();
        let terms = types.iter().enumerate().map(|(at, column)| format!("{} {} ${}", Identifier(&column.name), column.equals, at + 1));
        let terms = terms.collect::<Vec<_>>().join(" AND ");
        let sql = format!("SELECT {} FROM {} WHERE {terms}", list(columns.iter().copied()), rows_of(root));
        FindLiving { sql, key: types.iter().map(|column| column.oid).collect() }
    }

    /// The payload of the row that has the key of these values now, written as in `pk_value`.
    pub fn payload(&self, captured: &Captured, pk_value: &str, values: &[Option<Datum>]) -> Result<Option<String>> {
        let datums = captured.key.iter().map(|&k| values[captured.columns[k].place]);
        let key: Vec<Parameter> = self.key.iter().zip(datums).map(|(&oid, datum)| Parameter { oid, datum }).collect();
        // SAFETY: in a trigger: what the statement that fires it has written is to be seen.
        unsafe { pg_sys::CommandCounterIncrement() };
        let _session = Session::open();
        let _definer = Definer::owner_of(captured.root);
        let (_, payload) = spi::run(&self.sql, &key, View::Latest, |rows| {
            for at in 0..rows.len() {
                let mut found = vec![None; values.len()];
                captured.columns.iter().enumerate().for_each(|(column, c)| found[c.place] = rows.datum(at, column));
                let (mut its_key, mut payload) = (String::new(), String::new());
                captured.write_key(&mut its_key, &found)?;
                // Equal under a collation is not the same key.
                if its_key == pk_value {
                    captured.write_row(&mut payload, &found)?;
                    return Ok(Some(payload));
                }
            }
            Ok(None)
        })?;
        Ok(payload)
    }
}
