//! The contract's sets as eponymous table-valued functions: `SELECT * FROM sync_tables()`.
//!
//! The rows are made when a query begins. rusqlite does not guard these callbacks, so every one of them is guarded here: no panic
//! reaches SQLite.
#![allow(unsafe_code)]

use crate::error::{panicked, result};
use crate::functions::exact_integer;
use crate::host::SqliteHost;
use rusqlite::types::Value as SqlValue;
use rusqlite::vtab::{
    Context, Filters, IndexConstraintOp, IndexInfo, Module, VTab, VTabConfig, VTabConnection, VTabCursor,
};
use rusqlite::{Connection, ffi};
use std::borrow::Cow;
use std::ffi::{CStr, CString, c_int};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use sync_shared::{Client, Error, Host as _, Result, ValueRef};

type Rows = Vec<Vec<SqlValue>>;

/// One set: its columns, its arguments, and how its rows are made.
pub struct Set {
    name: &'static str,
    columns: &'static [&'static str],
    arguments: &'static [&'static str],
    rows: fn(&mut SqliteHost<'_>, &[SqlValue]) -> Result<Rows>,
}

static SETS: [Set; 8] = [
    Set { name: "sync_check_table", columns: &["severity", "code", "message", "fix"], arguments: &["in_table_name"], rows: check_table },
    Set {
        name: "sync_tables",
        columns: &["table_name", "name", "primary_key", "columns", "conflict_strategy", "entries"],
        arguments: &["counted"],
        rows: tables,
    },
    Set {
        name: "sync_changes",
        columns: &["version", "table_name", "pk_value", "operation", "payload", "origin", "timestamp"],
        arguments: &["from_version", "batch_size", "exclude_origin"],
        rows: changes,
    },
    Set {
        name: "sync_conflicts",
        columns: &["id", "table_name", "pk_value", "local_change", "remote_change", "winner", "strategy", "detected_at"],
        arguments: &[],
        rows: |host, _| stored(host, "_sync_conflicts", SETS[3].columns),
    },
    Set {
        name: "sync_rejections",
        columns: &[
            "id", "table_name", "pk_value", "operation", "payload", "origin", "timestamp", "kind", "code", "message", "attempts",
            "rejected_at",
        ],
        arguments: &[],
        rows: |host, _| stored(host, "_sync_rejections", SETS[4].columns),
    },
    Set { name: "sync_clients", columns: CLIENT_COLUMNS, arguments: &[], rows: |host, _| sync_shared::clients(host).map(client_rows) },
    Set {
        name: "sync_stale_clients",
        columns: CLIENT_COLUMNS,
        arguments: &["inactive_days"],
        rows: |host, arguments| sync_shared::stale_clients(host, integer(arguments, 0, 90)?).map(client_rows),
    },
    Set {
        name: "sync_subscriptions",
        columns: &[
            "subscription_id", "origin_id", "subscription_type", "table_name", "filter", "created_at", "expires_at", "last_version",
        ],
        arguments: &[],
        rows: |host, _| stored(host, "_sync_subscriptions", SETS[7].columns),
    },
];

const CLIENT_COLUMNS: &[&str] = &["origin_id", "last_sync_version", "last_sync_timestamp", "created_at"];

/// Registers every set.
pub fn register(connection: &Connection) -> rusqlite::Result<()> {
    const MODULE: Module<'_, SetTable> = Module::eponymous_only_module();
    for set in &SETS {
        connection.create_module(set.name, &MODULE, Some(set))?;
    }
    Ok(())
}

fn check_table(host: &mut SqliteHost<'_>, arguments: &[SqlValue]) -> Result<Rows> {
    let name = text(arguments, 0)?.ok_or_else(|| Error::argument("table_name is missing"))?;
    let findings = sync_shared::check_table(host, name)?;
    let row = |f: sync_shared::Finding| vec![f.severity.to_owned().into(), f.code.into(), f.message.into(), f.fix.into()];
    Ok(findings.into_iter().map(row).collect())
}

fn tables(host: &mut SqliteHost<'_>, arguments: &[SqlValue]) -> Result<Rows> {
    let row = |t: sync_shared::TrackedSummary| {
        vec![
            t.table_name.into(),
            t.name.into(),
            t.primary_key.into(),
            t.columns.into(),
            t.conflict_strategy.to_owned().into(),
            t.entries.into(),
        ]
    };
    Ok(sync_shared::tables(host, integer(arguments, 0, 1)? != 0)?.into_iter().map(row).collect())
}

fn changes(host: &mut SqliteHost<'_>, arguments: &[SqlValue]) -> Result<Rows> {
    let (from, size) = (integer(arguments, 0, 0)?, integer(arguments, 1, 1000)?);
    let mut rows = Rows::new();
    sync_shared::visit_changes(host, from, size, text(arguments, 2)?, &mut |change| {
        rows.push(vec![
            change.version.into(),
            change.table_name.to_owned().into(),
            change.pk_value.into(),
            change.operation.to_owned().into(),
            change.payload.map_or(SqlValue::Null, SqlValue::Text),
            change.origin.to_owned().into(),
            change.timestamp.into(),
        ]);
    })?;
    Ok(rows)
}

/// The rows of one of our own tables.
fn stored(host: &mut SqliteHost<'_>, table: &str, columns: &[&str]) -> Result<Rows> {
    sync_shared::last_server_version(host)?;
    let mut rows = Rows::new();
    host.query(&format!("SELECT {} FROM {table} ORDER BY 1", columns.join(", ")), &[], &mut |row| {
        let values = (0..columns.len()).map(|column| {
            Ok(match row.value(column)? {
                ValueRef::Null => SqlValue::Null,
                ValueRef::Integer(i) => SqlValue::Integer(i),
                ValueRef::Real(r) => SqlValue::Real(r),
                ValueRef::Text(t) => SqlValue::Text(t.to_owned()),
                ValueRef::Blob(b) => SqlValue::Blob(b.to_vec()),
            })
        });
        rows.push(values.collect::<Result<_>>()?);
        Ok(true)
    })?;
    Ok(rows)
}

fn client_rows(clients: Vec<Client>) -> Rows {
    let row = |c: Client| vec![c.origin_id.into(), c.last_sync_version.into(), c.last_sync_timestamp.into(), c.created_at.into()];
    clients.into_iter().map(row).collect()
}

fn text(arguments: &[SqlValue], place: usize) -> Result<Option<&str>> {
    match arguments.get(place) {
        None | Some(SqlValue::Null) => Ok(None),
        Some(SqlValue::Text(text)) => Ok(Some(text)),
        Some(_) => Err(Error::argument(format!("argument {} must be a text", place + 1))),
    }
}

fn integer(arguments: &[SqlValue], place: usize, default: i64) -> Result<i64> {
    let given = match arguments.get(place) {
        None | Some(SqlValue::Null) => return Ok(default),
        Some(SqlValue::Integer(i)) => Some(*i),
        Some(SqlValue::Real(r)) => exact_integer(*r),
        Some(_) => None,
    };
    given.ok_or_else(|| Error::argument(format!("argument {} must be an integer", place + 1)))
}

/// Runs a callback; a panic becomes an error.
fn guarded<T>(body: impl FnOnce() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| Err(panicked()))
}

#[repr(C)]
struct SetTable {
    /// Has to be first.
    base: ffi::sqlite3_vtab,
    set: &'static Set,
    db: *mut ffi::sqlite3,
}

// SAFETY: the struct begins with SQLite's own and is laid out as C does.
unsafe impl<'vtab> VTab<'vtab> for SetTable {
    type Aux = &'static Set;
    type Cursor = SetCursor<'vtab>;

    fn connect(
        db: &mut VTabConnection,
        aux: Option<&Self::Aux>,
        _module_name: &[u8],
        _database_name: &[u8],
        _table_name: &[u8],
        _args: &[&[u8]],
    ) -> rusqlite::Result<(Cow<'static, CStr>, Self)> {
        guarded(|| {
            let set: &'static Set = aux.ok_or_else(panicked)?;
            db.config(VTabConfig::DirectOnly)?;
            let arguments = set.arguments.iter().map(|a| format!("{a} HIDDEN"));
            let columns: Vec<String> = set.columns.iter().map(|c| (*c).to_owned()).chain(arguments).collect();
            let declaration = CString::new(format!("CREATE TABLE x({})", columns.join(", "))).map_err(|_| panicked())?;
            // SAFETY: the table lives no longer than the connection.
            let db = unsafe { db.handle() };
            Ok((Cow::Owned(declaration), SetTable { base: ffi::sqlite3_vtab::default(), set, db }))
        })
    }

    fn best_index(&self, info: &mut IndexInfo) -> rusqlite::Result<bool> {
        guarded(|| {
            let first = self.set.columns.len() as c_int;
            let mut places: Vec<Option<usize>> = vec![None; self.set.arguments.len()];
            for (index, constraint) in info.constraints().enumerate() {
                let is_equal = constraint.operator() == IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_EQ;
                if constraint.column() < first || !is_equal {
                    continue;
                }
                if !constraint.is_usable() {
                    return Ok(false);
                }
                places[(constraint.column() - first) as usize] = Some(index);
            }
            let (mut given, mut argument) = (0, 0);
            for (place, index) in places.iter().enumerate() {
                let Some(index) = index else { continue };
                argument += 1;
                given |= 1 << place;
                let mut usage = info.constraint_usage(*index);
                usage.set_argv_index(argument);
                usage.set_omit(true);
            }
            info.set_idx_num(given);
            info.set_estimated_cost(1000.0);
            info.set_estimated_rows(1000);
            Ok(true)
        })
    }

    fn open(&mut self) -> rusqlite::Result<SetCursor<'_>> {
        Ok(SetCursor {
            base: ffi::sqlite3_vtab_cursor::default(),
            set: self.set,
            db: self.db,
            rows: Rows::new(),
            arguments: Vec::new(),
            at: 0,
            table: PhantomData,
        })
    }
}

#[repr(C)]
struct SetCursor<'vtab> {
    /// Has to be first.
    base: ffi::sqlite3_vtab_cursor,
    set: &'static Set,
    db: *mut ffi::sqlite3,
    rows: Rows,
    arguments: Vec<SqlValue>,
    at: usize,
    table: PhantomData<&'vtab SetTable>,
}

// SAFETY: the struct begins with SQLite's own and is laid out as C does.
unsafe impl VTabCursor for SetCursor<'_> {
    fn filter(&mut self, given: c_int, _name: Option<&str>, values: &Filters<'_>) -> rusqlite::Result<()> {
        guarded(|| {
            let mut arguments = Vec::with_capacity(self.set.arguments.len());
            let mut next = 0;
            for place in 0..self.set.arguments.len() {
                if given & (1 << place) == 0 {
                    arguments.push(SqlValue::Null);
                    continue;
                }
                let not_text = || result(Error::argument(format!("argument {} is not valid UTF-8", place + 1)));
                arguments.push(values.get(next).map_err(|_| not_text())?);
                next += 1;
            }
            // SAFETY: the connection that the query runs on outlives the cursor; it is not closed here.
            let connection = unsafe { Connection::from_handle(self.db)? };
            let mut host = SqliteHost::new(&connection);
            self.rows = (self.set.rows)(&mut host, &arguments).map_err(result)?;
            self.arguments = arguments;
            self.at = 0;
            Ok(())
        })
    }

    fn next(&mut self) -> rusqlite::Result<()> {
        self.at += 1;
        Ok(())
    }

    fn eof(&self) -> bool {
        self.at >= self.rows.len()
    }

    fn column(&self, context: &mut Context, column: c_int) -> rusqlite::Result<()> {
        guarded(|| {
            let column = usize::try_from(column).unwrap_or(usize::MAX);
            let value = match column.checked_sub(self.set.columns.len()) {
                None => self.rows.get(self.at).and_then(|row| row.get(column)),
                Some(argument) => self.arguments.get(argument),
            };
            context.set_result(value.unwrap_or(&SqlValue::Null))
        })
    }

    fn rowid(&self) -> rusqlite::Result<i64> {
        Ok(self.at as i64)
    }
}
