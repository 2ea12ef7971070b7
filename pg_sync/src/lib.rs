//! pg_sync: offline-first two-way sync as a PostgreSQL extension.
//!
//! The decisions are in `sync_shared`; this crate is its host: capture in a trigger function, the fence that keeps fetches behind what
//! commits later, the log, rows, and the SQL functions.
#![allow(unsafe_code)]

use pgrx::prelude::*;

mod append;
mod bookkeeping;
mod buffer;
mod call;
mod caller;
mod capture;
mod captured;
mod conflicts;
mod convert;
mod counter;
mod ddl;
mod definer;
mod describe;
mod error;
mod extension;
mod fence;
mod form;
mod functions;
mod held;
mod home;
mod host;
mod identity;
mod install;
mod living;
mod locks;
mod log;
mod notify;
mod orphans;
mod pending;
mod pinned;
mod policy;
mod quote;
mod references;
mod relation;
mod replicated;
mod resolver;
mod rights;
mod rows;
mod sets;
mod shown;
mod sparing;
mod spelling;
mod spi;
mod statement;
mod tables;
mod together;
mod transaction;

pgrx::pg_module_magic!();

extension_sql_file!("../../sql/postgres/schema.sql", name = "schema", bootstrap);
extension_sql_file!("../../sql/postgres/callers.sql", name = "callers", requires = ["schema"]);
extension_sql_file!("../../sql/postgres/client.sql", name = "client", requires = ["callers"]);
extension_sql_file!("../../sql/postgres/rights.sql", name = "rights", finalize);

/// Called by the server when it loads the library.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    error::take_no_stacks();
    notify::register();
    statement::register();
}
