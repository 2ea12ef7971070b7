//! SQL from within the server: statements prepared once per backend, results in the core's values.
//!
//! A failing statement raises: it ends the call, unless a subtransaction around it catches it.
#![allow(unsafe_code)]

use crate::definer::SafePath;
use crate::quote::{c_string, owned};
use crate::sparing;
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_char;
use sync_shared::{Error, Result, Row, Value, ValueRef};

/// A connection to the server's own SQL interface, for one call.
pub struct Session;

impl Session {
    pub fn open() -> Session {
        // SAFETY: closed by Drop, or by the server when it aborts.
        unsafe { pg_sys::SPI_connect() };
        Session
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: `open` connected.
            unsafe { pg_sys::SPI_finish() };
        }
    }
}

/// A parameter as the server takes it.
#[derive(Clone, Copy)]
pub struct Parameter {
    pub oid: Oid,
    /// None: NULL.
    pub datum: Option<Datum>,
}

impl Parameter {
    /// NULL has no type of its own: see [`crate::host`], which writes it into the statement.
    pub fn of(value: ValueRef<'_>) -> Result<Parameter> {
        let (oid, datum) = match value {
            ValueRef::Null => (pg_sys::TEXTOID, None),
            ValueRef::Integer(i) => (pg_sys::INT8OID, Some(Datum::from(i))),
            ValueRef::Real(r) => (pg_sys::FLOAT8OID, Some(Datum::from(r.to_bits()))),
            ValueRef::Text(t) if t.contains('\0') => return Err(Error::argument("a text has a NUL character, which PostgreSQL cannot hold")),
            ValueRef::Text(t) => (pg_sys::TEXTOID, Some(varlena(t.as_bytes()))),
            ValueRef::Blob(b) => (pg_sys::BYTEAOID, Some(varlena(b))),
        };
        Ok(Parameter { oid, datum })
    }
}

/// Bytes as a value of variable length, in the current memory context.
pub fn varlena(bytes: &[u8]) -> Datum {
    // SAFETY: the server copies that many bytes.
    let copied = unsafe { pg_sys::cstring_to_text_with_len(bytes.as_ptr().cast::<c_char>(), bytes.len() as i32) };
    Datum::from(copied)
}

/// Values of one type as an array; None without any.
pub fn array(elements: &[Parameter]) -> Option<Parameter> {
    let oid = elements.first()?.oid;
    let mut datums: Vec<Datum> = elements.iter().filter_map(|p| p.datum).collect();
    // SAFETY: look-ups in the catalogue; the server copies the elements.
    unsafe {
        let (mut length, mut by_value, mut align) = (0, false, 0);
        pg_sys::get_typlenbyvalalign(oid, &mut length, &mut by_value, &mut align);
        let array = pg_sys::construct_array(datums.as_mut_ptr(), datums.len() as i32, oid, i32::from(length), by_value, align);
        Some(Parameter { oid: pg_sys::get_array_type(oid), datum: Some(Datum::from(array)) })
    }
}

/// Which rows a statement sees.
#[derive(Clone, Copy, PartialEq)]
pub enum View {
    /// Everything that is committed now, whatever the transaction's isolation; for reading.
    Latest,
    /// As a statement of the caller's would; for writing.
    Statement,
}

thread_local! {
    static PLANS: RefCell<HashMap<Vec<u8>, pg_sys::SPIPlanPtr>> = RefCell::new(HashMap::new());
}

/// Prepared statements that are kept at most; beyond that all are given up.
const MOST_PLANS: usize = 500;

/// What of its result a query is planned for.
#[derive(Clone, Copy, PartialEq)]
pub enum Aim {
    /// The first rows soon, for often no more of them are read.
    FirstRows,
    AllRows,
}

fn plan(sql: &str, parameters: &[Parameter], aim: Aim) -> pg_sys::SPIPlanPtr {
    let options = if aim == Aim::FirstRows { pg_sys::CURSOR_OPT_FAST_PLAN as i32 } else { 0 };
    let mut key = Vec::with_capacity(sql.len() + 4 * parameters.len() + 1);
    key.push(aim as u8);
    parameters.iter().for_each(|p| key.extend(p.oid.to_u32().to_le_bytes()));
    key.extend(sql.as_bytes());
    if let Some(known) = PLANS.with_borrow(|plans| plans.get(&key).copied()) {
        return known;
    }
    let mut types: Vec<Oid> = parameters.iter().map(|p| p.oid).collect();
    let text = c_string(sql);
    // SAFETY: text and types live through the call; the plan is moved out of this connection's memory.
    let plan = unsafe {
        let plan = pg_sys::SPI_prepare_cursor(text.as_ptr(), types.len() as i32, types.as_mut_ptr(), options);
        if plan.is_null() {
            pgrx::error!("sync: a statement cannot be prepared: {sql}");
        }
        pg_sys::SPI_keepplan(plan);
        plan
    };
    PLANS.with_borrow_mut(|plans| {
        if plans.len() >= MOST_PLANS {
            sparing::forget_statements();
            // SAFETY: none of them is running: they are not used outside of one call.
            plans.drain().for_each(|(_, plan)| unsafe {
                pg_sys::SPI_freeplan(plan);
            });
        }
        plans.insert(key, plan);
        sparing::know(plan);
    });
    plan
}

fn arrays(parameters: &[Parameter]) -> (Vec<Datum>, Vec<c_char>) {
    let values = parameters.iter().map(|p| p.datum.unwrap_or(Datum::null())).collect();
    let nulls = parameters.iter().map(|p| if p.datum.is_some() { b' ' } else { b'n' } as c_char).collect();
    (values, nulls)
}

/// Runs a statement; returns the rows it changed or returned, and gives its result to `visit`.
pub fn run<T>(sql: &str, parameters: &[Parameter], view: View, visit: impl FnOnce(&Rows) -> Result<T>) -> Result<(u64, T)> {
    let plan = plan(sql, parameters, Aim::AllRows);
    let (mut values, nulls) = arrays(parameters);
    // SAFETY: plan, values and nulls fit each other; the result is freed below.
    unsafe {
        let snapshot = if view == View::Latest { pg_sys::GetLatestSnapshot() } else { std::ptr::null_mut() };
        let read_only = view == View::Latest;
        let code =
            pg_sys::SPI_execute_snapshot(plan, values.as_mut_ptr(), nulls.as_ptr(), snapshot, std::ptr::null_mut(), read_only, true, 0);
        if code < 0 {
            pgrx::error!("sync: {} in {sql}", owned(pg_sys::SPI_result_code_string(code)));
        }
        let (count, table) = (pg_sys::SPI_processed, pg_sys::SPI_tuptable);
        let result = visit(&Rows { table });
        if !table.is_null() {
            pg_sys::SPI_freetuptable(table);
        }
        result.map(|value| (count, value))
    }
}

/// Runs a statement for what it changes.
pub fn execute(sql: &str, parameters: &[Parameter]) -> Result<u64> {
    run(sql, parameters, View::Statement, |_| Ok(())).map(|(count, ())| count)
}

/// Reads a query some rows at a time, of everything that is committed now, until `visit` returns false. What is allocated in the server's
/// memory meanwhile is given up with the rows: it does not grow with their number.
pub fn stream(
    sql: &str,
    parameters: &[Parameter],
    aim: Aim,
    mut visit: impl FnMut(&Rows, usize) -> Result<bool>,
) -> Result<()> {
    const AT_A_TIME: std::ffi::c_long = 500;
    let plan = plan(sql, parameters, aim);
    let (mut values, nulls) = arrays(parameters);
    // SAFETY: the cursor is closed at the end; what is read of it is freed piece by piece.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let portal = pg_sys::SPI_cursor_open(std::ptr::null(), plan, values.as_mut_ptr(), nulls.as_ptr(), true);
        pg_sys::PopActiveSnapshot();
        let scratch = pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"rows of pg_sync".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        let mut result = Ok(true);
        while matches!(result, Ok(true)) {
            pg_sys::SPI_cursor_fetch(portal, true, AT_A_TIME);
            let (count, table) = (pg_sys::SPI_processed as usize, pg_sys::SPI_tuptable);
            let rows = Rows { table };
            let context = pg_sys::MemoryContextSwitchTo(scratch);
            for row in 0..count {
                result = visit(&rows, row);
                if !matches!(result, Ok(true)) {
                    break;
                }
            }
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::MemoryContextReset(scratch);
            pg_sys::SPI_freetuptable(table);
            if count == 0 {
                break;
            }
        }
        pg_sys::MemoryContextDelete(scratch);
        pg_sys::SPI_cursor_close(portal);
        result.map(|_| ())
    }
}

/// As the number of rows that are read at most.
pub const EVERY_ROW: std::ffi::c_long = std::ffi::c_long::MAX;

/// Reads at most so many rows as the caller. What is written in the query means the same whatever the caller's search path is; the
/// functions that it leads to, in policies for one, run under the caller's.
pub fn read_sheltered<T>(
    sql: &str,
    parameters: &[Parameter],
    most_rows: std::ffi::c_long,
    visit: impl FnOnce(&Rows) -> Result<T>,
) -> Result<T> {
    let (mut values, nulls) = arrays(parameters);
    // SAFETY: as in `stream`. A query is analysed when its cursor is opened, and not again.
    unsafe {
        let portal = {
            let _path = SafePath::enter();
            let plan = plan(sql, parameters, Aim::AllRows);
            pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
            let portal = pg_sys::SPI_cursor_open(std::ptr::null(), plan, values.as_mut_ptr(), nulls.as_ptr(), true);
            pg_sys::PopActiveSnapshot();
            portal
        };
        pg_sys::SPI_cursor_fetch(portal, true, most_rows);
        let table = pg_sys::SPI_tuptable;
        let result = visit(&Rows { table });
        pg_sys::SPI_freetuptable(table);
        pg_sys::SPI_cursor_close(portal);
        result
    }
}

/// The rows of a result.
pub struct Rows {
    table: *mut pg_sys::SPITupleTable,
}

impl Rows {
    pub fn len(&self) -> usize {
        // SAFETY: the table lives as long as the result is visited.
        if self.table.is_null() { 0 } else { unsafe { (*self.table).numvals as usize } }
    }

    pub fn width(&self) -> usize {
        // SAFETY: as above.
        if self.table.is_null() { 0 } else { unsafe { (*(*self.table).tupdesc).natts as usize } }
    }

    /// A value as the server holds it; None for NULL.
    pub fn datum(&self, row: usize, column: usize) -> Option<Datum> {
        let mut is_null = false;
        // SAFETY: row and column are within the result.
        let datum = unsafe {
            let tuple = *(*self.table).vals.add(row);
            pg_sys::SPI_getbinval(tuple, (*self.table).tupdesc, column as i32 + 1, &mut is_null)
        };
        (!is_null).then_some(datum)
    }

    fn oid(&self, column: usize) -> Oid {
        // SAFETY: the column is within the result.
        unsafe { pg_sys::SPI_gettypeid((*self.table).tupdesc, column as i32 + 1) }
    }

    /// A value of one of the few types that our own tables have.
    pub fn value(&self, row: usize, column: usize) -> Result<Value> {
        let Some(datum) = self.datum(row, column) else { return Ok(Value::Null) };
        Ok(match self.oid(column) {
            pg_sys::BOOLOID => Value::Integer(i64::from(datum.value() != 0)),
            pg_sys::INT2OID => Value::Integer(i64::from(datum.value() as i16)),
            pg_sys::INT4OID => Value::Integer(i64::from(datum.value() as i32)),
            pg_sys::INT8OID => Value::Integer(datum.value() as i64),
            pg_sys::OIDOID => Value::Integer(i64::from(datum.value() as u32)),
            pg_sys::FLOAT8OID => Value::Real(f64::from_bits(datum.value() as u64)),
            pg_sys::BYTEAOID => Value::Blob(with_bytes(datum, <[u8]>::to_vec)),
            pg_sys::TEXTOID | pg_sys::VARCHAROID => Value::Text(text(datum)?),
            pg_sys::NAMEOID => Value::Text(owned(datum.cast_mut_ptr())),
            other => return Err(Error::corrupt(format!("a column of type {} in a table of ours", other.to_u32()))),
        })
    }

    /// A row as the core reads it.
    pub fn row(&self, row: usize) -> Result<OwnedRow> {
        (0..self.width()).map(|column| self.value(row, column)).collect::<Result<_>>().map(OwnedRow)
    }
}

/// The bytes of a value of variable length, decompressed if need be.
pub fn with_bytes<T>(datum: Datum, read: impl FnOnce(&[u8]) -> T) -> T {
    // SAFETY: the datum is of variable length; a copy that was made is freed again.
    unsafe {
        let given = datum.cast_mut_ptr::<pg_sys::varlena>();
        let plain = pg_sys::pg_detoast_datum_packed(given);
        let bytes = std::slice::from_raw_parts(pgrx::vardata_any(plain).cast::<u8>(), pgrx::varsize_any_exhdr(plain));
        let result = read(bytes);
        if plain != given {
            pg_sys::pfree(plain.cast());
        }
        result
    }
}

pub fn text(datum: Datum) -> Result<String> {
    with_bytes(datum, |bytes| match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(Error::argument("a text is not valid UTF-8; the database has to be in the encoding UTF8")),
    })
}

/// A row whose values were taken out of the server.
pub struct OwnedRow(pub Vec<Value>);

impl Row for OwnedRow {
    fn value(&self, column: usize) -> Result<ValueRef<'_>> {
        Ok(self.0.get(column).map_or(ValueRef::Null, Value::as_ref))
    }
}
