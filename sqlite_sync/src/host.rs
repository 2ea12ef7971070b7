//! SQLite as the core's host. Made for one call of an SQL function and dropped with it.

use crate::bulk::{self, Bulk};
use crate::error::engine;
use crate::log::{LabelRun, flush_labels};
use crate::references::{self, Saved};
use crate::rows::{self, RowPlan};
use crate::statements::Statements;
use crate::transaction::Transactions;
use crate::triggers;
use crate::{capture, capture_state, describe, log, log_view, resolver};
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::{Connection, OptionalExtension};
use std::collections::HashMap;
use std::rc::Rc;
use sync_shared::{
    CaptureState, Catalog, Corrections, Description, Error, GroupRows, Host, Label, LogEntry, LogRange, Operation, Result, Row, RowFailure, Table, Target,
    Touched, Value, ValueRef, Violation, Written,
};

const SCHEMA: &str = include_str!("../../sql/sqlite/schema.sql");

/// Statements that would end or leave the transaction of the call.
const FORBIDDEN: [&str; 10] =
    ["BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "ATTACH", "DETACH", "VACUUM", "PRAGMA"];

pub struct SqliteHost<'c> {
    pub(crate) connection: &'c Connection,
    pub(crate) statements: Statements<'c>,
    pub(crate) transactions: Transactions,
    /// By layout.
    pub(crate) plans: HashMap<i64, Rc<RowPlan>>,
    /// The log's highest version, if it is known.
    pub(crate) log_position: Option<i64>,
    /// Log entries that still carry the label of a local change.
    pub(crate) label_run: Option<LabelRun>,
    /// Rows are written past the triggers.
    pub(crate) bulk: Option<Bulk<'c>>,
    pub(crate) saved_references: Option<Saved>,
    pub(crate) any_references: Option<bool>,
    pub(crate) corrections: Corrections,
}

impl<'c> SqliteHost<'c> {
    pub fn new(connection: &'c Connection) -> Self {
        SqliteHost {
            connection,
            statements: Statements::new(connection),
            transactions: Transactions::default(),
            plans: HashMap::new(),
            log_position: None,
            label_run: None,
            bulk: None,
            saved_references: None,
            any_references: None,
            corrections: Corrections::default(),
        }
    }

    /// What was learnt about the schema may not hold any more.
    fn forget_schema(&mut self) {
        self.plans.clear();
        self.statements.forget_hot();
        self.any_references = None;
        self.forget_position();
    }
}

impl Host for SqliteHost<'_> {
    fn execute(&mut self, sql: &str, parameters: &[ValueRef<'_>]) -> Result<u64> {
        flush_labels(self)?;
        self.statements.execute(sql, parameters)
    }

    fn query(
        &mut self,
        sql: &str,
        parameters: &[ValueRef<'_>],
        visit: &mut dyn FnMut(&dyn Row) -> Result<bool>,
    ) -> Result<()> {
        flush_labels(self)?;
        self.statements.query(sql, parameters, &mut |row| visit(row))
    }

    fn execute_user(&mut self, statement: &str) -> Result<u64> {
        flush_labels(self)?;
        self.forget_schema();
        let mut batch = rusqlite::Batch::new(self.connection, statement);
        let Some(mut first) = batch.next().map_err(engine)? else {
            return Err(Error::argument("there is no statement to run"));
        };
        let text = first.expanded_sql().unwrap_or_default();
        let keyword = first_keyword(&text);
        if FORBIDDEN.iter().any(|f| f.eq_ignore_ascii_case(&keyword)) {
            return Err(Error::argument(format!("{keyword} cannot be run here")));
        }
        let mut rows = 0;
        if first.column_count() > 0 {
            let mut result = first.raw_query();
            while result.next().map_err(engine)?.is_some() {
                rows += 1;
            }
        } else {
            // What changes no row leaves the count of the statement before.
            let before = self.connection.total_changes();
            let changes = first.raw_execute().map_err(engine)? as u64;
            rows = if self.connection.total_changes() == before { 0 } else { changes };
        }
        drop(first);
        match batch.next().map_err(engine)? {
            Some(_) => Err(Error::argument("more than one statement")),
            None => Ok(rows),
        }
    }

    fn is_in_transaction(&mut self) -> bool {
        !self.connection.is_autocommit()
    }

    fn begin(&mut self) -> Result<()> {
        flush_labels(self)?;
        if self.connection.is_autocommit() {
            // Since this call's last transaction others may have written, and changed tables.
            self.forget_schema();
        }
        self.transactions.begin(self.connection)
    }

    fn end(&mut self, keep: bool) -> Result<()> {
        if keep {
            flush_labels(self)?;
        } else {
            // What is undone needs no label.
            self.label_run = None;
            self.forget_schema();
        }
        self.transactions.end(self.connection, keep)
    }

    fn now(&mut self) -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |d| d.as_millis() as i64)
    }

    fn is_initialized(&mut self) -> Result<bool> {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('_sync_state', '_sync_log_data')";
        Ok(self.statements.integer(sql, &[])? == Some(2))
    }

    fn create_schema(&mut self) -> Result<()> {
        self.connection.execute_batch(SCHEMA).map_err(engine)?;
        log_view::publish(self.connection, &Catalog::default())
    }

    fn schema_cookie(&mut self) -> Result<i64> {
        self.connection.query_row("PRAGMA main.schema_version", [], |row| row.get(0)).map_err(engine)
    }

    fn describe(&mut self, table: &str) -> Result<Option<Description>> {
        let mut description = describe::describe(self.connection, table)?;
        if let Some(description) = &mut description {
            description.notes.extend(triggers::note_on_temporary(self, &description.table_name)?);
        }
        Ok(description)
    }

    fn install_capture(&mut self, _catalog: &Catalog, table: &Table) -> Result<()> {
        flush_labels(self)?;
        let self_id = self.self_id()?;
        self.forget_schema();
        capture::install(self.connection, table, self_id)
    }

    fn remove_capture(&mut self, table: &Table) -> Result<()> {
        flush_labels(self)?;
        self.forget_schema();
        capture::remove(self.connection, table)
    }

    fn capture_state(&mut self, table: &Table) -> Result<CaptureState> {
        let self_id = self.self_id()?;
        capture_state::capture_state(self.connection, table, self_id)
    }

    fn publish_log(&mut self, catalog: &Catalog) -> Result<()> {
        log_view::publish(self.connection, catalog)
    }

    fn backfill(&mut self, table: &Table) -> Result<u64> {
        flush_labels(self)?;
        self.forget_position();
        log::backfill(self, table)
    }

    fn read_log(
        &mut self,
        catalog: &Catalog,
        range: LogRange,
        visit: &mut dyn FnMut(&LogEntry<'_>) -> Result<bool>,
    ) -> Result<()> {
        flush_labels(self)?;
        log::read_log(self, catalog, range, visit)
    }

    fn delete_entries(&mut self, catalog: &Catalog, versions: &[i64]) -> Result<()> {
        flush_labels(self)?;
        log::delete_entries(self, catalog, versions)
    }

    fn head(&mut self) -> Result<i64> {
        log::head(self)
    }

    fn tip(&mut self) -> Result<i64> {
        log::head(self)
    }

    fn held_back_since(&mut self) -> Result<Option<i64>> {
        Ok(None)
    }

    fn writes_alone(&self) -> bool {
        true
    }

    fn lock_rows(&mut self, catalog: &Catalog, rows: &[Target<'_>]) -> Result<()> {
        for Target { table, key, operation } in rows {
            let table = &catalog.tables[*table];
            if *operation != Operation::Delete && table.folds() {
                self.corrections.note(table, key);
            }
        }
        Ok(())
    }

    fn lock_tables(&mut self, _catalog: &Catalog) -> Result<()> {
        Ok(())
    }

    fn narrows(&mut self) -> bool {
        false
    }

    fn may_read(&mut self, _table: &Table) -> Result<bool> {
        Ok(true)
    }

    fn clock(&mut self) -> Result<i64> {
        flush_labels(self)?;
        log::clock(self)
    }

    fn raise_clock(&mut self, stamp: i64) -> Result<()> {
        flush_labels(self)?;
        log::raise_clock(self, stamp)
    }

    fn foreign_key_code(&self) -> &'static str {
        "SQLITE_CONSTRAINT_FOREIGNKEY"
    }

    fn log_bytes(&mut self) -> Result<Option<i64>> {
        // dbstat is not compiled into every SQLite.
        let sql = "SELECT sum(pgsize) FROM dbstat WHERE name = '_sync_log_data'";
        let bytes = self.connection.prepare(sql).and_then(|mut s| s.query_row([], |row| row.get(0)).optional());
        Ok(bytes.ok().flatten())
    }

    fn put_row(
        &mut self,
        table: &Table,
        values: &[Option<Value>],
        label: Option<&Label>,
        log_unchanged: bool,
    ) -> Result<Written, RowFailure> {
        match self.bulk {
            Some(_) => bulk::put_row(self, table, values, label, log_unchanged),
            None => rows::put_row(self, table, values, label, log_unchanged),
        }
    }

    fn remove_row(
        &mut self,
        table: &Table,
        key: &[Value],
        label: Option<&Label>,
        log_unchanged: bool,
    ) -> Result<Written, RowFailure> {
        match self.bulk {
            Some(_) => bulk::remove_row(self, table, key, label, log_unchanged),
            None => rows::remove_row(self, table, key, label, log_unchanged),
        }
    }

    fn log_row(&mut self, table: &Table, key: &[Value], operation: Operation, label: Option<&Label>) -> Result<i64> {
        flush_labels(self)?;
        self.forget_position();
        log::log_row(self, table, key, operation, label)
    }

    fn read_row(&mut self, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>> {
        rows::read_row(self, table, key)
    }

    fn stream_rows(&mut self, table: &Table, visit: &mut dyn FnMut(&dyn Row) -> Result<bool>) -> Result<()> {
        rows::stream_rows(self, table, visit)
    }

    fn count_rows(&mut self, table: &Table) -> Result<i64> {
        let sql = format!("SELECT count(*) FROM {}", crate::quote::TableName(&table.table_name));
        Ok(self.statements.integer(&sql, &[])?.unwrap_or(0))
    }

    fn can_spare_triggers(&self) -> bool {
        false
    }

    fn begin_references(&mut self) -> Result<()> {
        references::begin(self)
    }

    fn end_references(&mut self) -> Result<()> {
        references::end(self)
    }

    fn begin_rows(&mut self, rows: &GroupRows<'_>) -> Result<()> {
        bulk::begin(self, rows)
    }

    fn end_rows(&mut self) {
        self.bulk = None;
        self.corrections.clear();
    }

    fn violations(&mut self, catalog: &Catalog, touched: &[Touched]) -> Result<Vec<Violation>> {
        flush_labels(self)?;
        references::violations(self, catalog, touched)
    }

    fn column_defaults(&mut self, table: &Table) -> Result<Vec<Value>> {
        let mut defaults = Vec::with_capacity(table.columns.len());
        for column in &table.columns {
            let Some(expression) = &column.default else {
                defaults.push(Value::Null);
                continue;
            };
            let mut value = Value::Null;
            // A default that cannot be evaluated by itself is that of no row.
            let evaluated = self.statements.query(&format!("SELECT ({expression})"), &[], &mut |row| {
                value = row.value(0)?.to_owned();
                Ok(false)
            });
            defaults.push(evaluated.map_or(Value::Null, |()| value));
        }
        Ok(defaults)
    }

    fn check_resolver(&mut self, resolver: &str) -> Result<()> {
        resolver::check(self.connection, resolver)
    }

    fn run_resolver(&mut self, resolver: &str, local: &str, remote: &str) -> Result<String> {
        resolver::run(self.connection, resolver, local, remote)
    }
}

/// The first word of a statement, comments and white space left out.
fn first_keyword(sql: &str) -> String {
    let mut rest = sql.trim_start();
    loop {
        rest = match rest {
            _ if rest.starts_with("--") => rest.split_once('\n').map_or("", |(_, after)| after).trim_start(),
            _ if rest.starts_with("/*") => rest.split_once("*/").map_or("", |(_, after)| after).trim_start(),
            _ => return rest.chars().take_while(char::is_ascii_alphabetic).collect(),
        };
    }
}
