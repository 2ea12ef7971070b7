//! PostgreSQL as the core's host. Made for one call of an SQL function and dropped with it.
#![allow(unsafe_code)]

use crate::bookkeeping::{taken, translate};
use crate::definer::{Definer, SafePath};
use crate::error::caught;
use crate::extension::Extension;
use crate::held::Held;
use crate::quote::{c_string, rows_of};
use crate::references::Checks;
use crate::spi::{self, View};
use crate::tables::TablePlan;
use crate::transaction::{Unit, catch, in_subtransaction};
use crate::{counter, describe, fence, install, locks, log, orphans, references, relation, resolver, rights, rows, together};
use pgrx::pg_sys;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use sync_shared::{
    CaptureState, Catalog, Corrections, Description, Error, GroupRows, Host, Label, LogEntry, LogRange, Operation, PutRow, Result, Row, RowFailure, Scope,
    Table, Target, Together, Touched, Value, ValueRef, Violation, Written,
};

pub struct PgHost {
    pub(crate) extension: Rc<Extension>,
    units: Vec<Unit>,
    /// By `Table::id`.
    plans: HashMap<i64, Rc<TablePlan>>,
    pub(crate) held: Held,
    /// Rows are written in a subtransaction each: one of them has failed without.
    careful: bool,
    /// The innermost unit of work has failed and has to be undone.
    broken: bool,
    narrows: bool,
    /// When constraints that can wait are checked, and whether that was too late for the innermost unit of work.
    pub(crate) checks: Checks,
    pub(crate) check_sooner: bool,
    /// Rows of a group are written, which is done again if it fails.
    in_group: bool,
    self_id: Option<i64>,
    pub(crate) any_deferrable: Option<bool>,
    pub(crate) corrections: Corrections,
    /// Rows are read as the caller sees them; else all of them, for the log.
    pub(crate) reads_for_caller: bool,
}

impl PgHost {
    pub fn new(extension: Rc<Extension>) -> PgHost {
        PgHost {
            extension,
            units: Vec::new(),
            plans: HashMap::new(),
            held: Held::default(),
            careful: false,
            broken: false,
            narrows: false,
            checks: Checks::Late,
            check_sooner: false,
            in_group: false,
            self_id: None,
            any_deferrable: None,
            corrections: Corrections::default(),
            reads_for_caller: false,
        }
    }

    pub fn plan(&mut self, table: &Table) -> Result<Rc<TablePlan>> {
        if let Some(plan) = self.plans.get(&table.id) {
            return Ok(plan.clone());
        }
        let plan = Rc::new(TablePlan::new(table)?);
        self.plans.insert(table.id, plan.clone());
        Ok(plan)
    }

    pub fn forget_tables(&mut self) {
        self.plans.clear();
        self.any_deferrable = None;
    }

    /// This replica's id in `_sync_origins`.
    pub fn self_id(&mut self) -> Result<i64> {
        if let Some(known) = self.self_id {
            return Ok(known);
        }
        let mut id = 1;
        self.query("SELECT value FROM _sync_state WHERE key = 'self_id'", &[], &mut |row| {
            id = row.text(0)?.parse().map_err(Error::corrupt)?;
            Ok(false)
        })?;
        self.self_id = Some(id);
        Ok(id)
    }

    /// Runs what writes a row. What the server raises in it concerns this row, or ends the call. What a trigger has written that then ignored
    /// the row is undone as well: in a group, by doing that again with care.
    pub fn guarded<T>(&mut self, body: impl FnOnce(&mut PgHost) -> Result<T, RowFailure>) -> Result<T, RowFailure> {
        if self.careful {
            let unit = Unit::begin();
            let result = catch(|| body(self));
            unit.end(matches!(&result, Ok(done) if !is_refused(done)));
            return result.unwrap_or_else(|error| Err(Error::from(caught(error)).into()));
        }
        match catch(|| body(self)) {
            Ok(done) if self.in_group && is_ignored(&done) => {
                self.narrows = true;
                Err(RowFailure::Fatal(Error::corrupt("a trigger ignored a row, and nothing was done again")))
            }
            Ok(done) => done,
            Err(error) => {
                let error = caught(error);
                self.broken = true;
                self.narrows = error.scope == Scope::Row;
                Err(RowFailure::Fatal(error.into()))
            }
        }
    }

    /// From now on a row that is refused undoes nothing but itself.
    pub fn be_careful(&mut self) {
        self.careful = true;
    }

    /// Undoes every unit of work that is open. An error that leaves one open would leave the session in a transaction of its own.
    pub fn abandon(&mut self) {
        while let Some(unit) = self.units.pop() {
            unit.end(false);
            self.held.unit_ends(false);
        }
    }

    /// What was written past SQL is seen by what follows.
    pub fn make_visible(&mut self) {
        // SAFETY: between two statements.
        unsafe { pg_sys::CommandCounterIncrement() }
    }
}

impl Host for PgHost {
    fn execute(&mut self, sql: &str, parameters: &[ValueRef<'_>]) -> Result<u64> {
        let (sql, parameters) = translate(&self.extension.schema_name, sql, parameters)?;
        let _definer = Definer::enter(self.extension.owner);
        spi::execute(&sql, &parameters)
    }

    fn execute_all(&mut self, sql: &str, all: &[Vec<ValueRef<'_>>]) -> Result<()> {
        let _definer = Definer::enter(self.extension.owner);
        // NULL is written into a statement: there is one for each set of columns that have it.
        let mut translated: HashMap<Vec<bool>, String> = HashMap::new();
        for parameters in all {
            let nulls = parameters.iter().map(|p| matches!(p, ValueRef::Null)).collect();
            let sql = match translated.entry(nulls) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(translate(&self.extension.schema_name, sql, parameters)?.0),
            };
            spi::execute(sql, &taken(parameters)?)?;
        }
        Ok(())
    }

    fn query(
        &mut self,
        sql: &str,
        parameters: &[ValueRef<'_>],
        visit: &mut dyn FnMut(&dyn Row) -> Result<bool>,
    ) -> Result<()> {
        let (sql, parameters) = translate(&self.extension.schema_name, sql, parameters)?;
        let _definer = Definer::enter(self.extension.owner);
        spi::run(&sql, &parameters, View::Latest, |rows| {
            for at in 0..rows.len() {
                if !visit(&rows.row(at)?)? {
                    break;
                }
            }
            Ok(())
        })
        .map(|_| ())
    }

    fn execute_user(&mut self, statement: &str) -> Result<u64> {
        self.forget_tables();
        let text = c_string(statement);
        // SAFETY: the parser and the executor of the server; the statement is the caller's, with the caller's rights.
        unsafe {
            let statements = pg_sys::pg_parse_query(text.as_ptr());
            match if statements.is_null() { 0 } else { (*statements).length } {
                0 => return Err(Error::argument("there is no statement to run")),
                1 => {}
                _ => return Err(Error::argument("more than one statement")),
            }
            if pg_sys::SPI_execute(text.as_ptr(), false, 0) < 0 {
                return Err(Error::argument("this statement cannot be run here"));
            }
            Ok(pg_sys::SPI_processed)
        }
    }

    fn is_in_transaction(&mut self) -> bool {
        true
    }

    fn begin(&mut self) -> Result<()> {
        self.units.push(Unit::begin());
        self.held.unit_begins();
        Ok(())
    }

    fn end(&mut self, keep: bool) -> Result<()> {
        let Some(unit) = self.units.pop() else { return Ok(()) };
        unit.end(keep && !self.broken);
        self.held.unit_ends(keep);
        if keep {
            self.checks = Checks::Late;
        } else {
            self.broken = false;
            self.self_id = None;
            self.forget_tables();
        }
        Ok(())
    }

    fn now(&mut self) -> i64 {
        counter::wall_clock()
    }

    fn is_initialized(&mut self) -> Result<bool> {
        let mut found = false;
        self.query("SELECT 1 FROM _sync_state WHERE key = 'origin_id'", &[], &mut |_| {
            found = true;
            Ok(false)
        })?;
        Ok(found)
    }

    fn create_schema(&mut self) -> Result<()> {
        Ok(())
    }

    fn schema_cookie(&mut self) -> Result<i64> {
        let sql = "SELECT hashtextextended(coalesce(string_agg(concat_ws(' ', t.table_id, c.relname, c.relnamespace, \
                   (SELECT string_agg(concat_ws(' ', a.attname, a.atttypid, a.atttypmod, a.attnotnull, a.attgenerated, a.atthasdef), ',' ORDER BY a.attnum) \
                   FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), \
                   (SELECT string_agg(i.indkey::text, ',') FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary), \
                   (SELECT count(*) FROM pg_inherits AS h WHERE h.inhparent = c.oid), \
                   CASE WHEN c.relkind = 'p' THEN (SELECT count(*) FROM pg_partition_tree(c.oid)) END, \
                   (SELECT string_agg(concat_ws(' ', g.tgname, g.tgenabled), ',' ORDER BY g.tgname) FROM pg_trigger AS g \
                   WHERE g.tgrelid = c.oid AND strpos(g.tgname, '_sync_') > 0)), ';' ORDER BY t.table_id), ''), 0) \
                   FROM _sync_tables AS t LEFT JOIN pg_class AS c ON c.oid = t.relation WHERE t.tracked = 1";
        let mut cookie = 0;
        self.query(sql, &[], &mut |row| {
            cookie = row.integer(0)?;
            Ok(false)
        })?;
        Ok(cookie)
    }

    fn describe(&mut self, table: &str) -> Result<Option<Description>> {
        describe::describe(self, table)
    }

    fn install_capture(&mut self, _catalog: &Catalog, table: &Table) -> Result<()> {
        install::install(self, table)
    }

    fn remove_capture(&mut self, table: &Table) -> Result<()> {
        install::remove(self, table)
    }

    fn capture_state(&mut self, table: &Table) -> Result<CaptureState> {
        install::state(self, table)
    }

    fn publish_log(&mut self, _catalog: &Catalog) -> Result<()> {
        Ok(())
    }

    fn backfill(&mut self, table: &Table) -> Result<u64> {
        log::backfill(self, table)
    }

    fn read_log(
        &mut self,
        catalog: &Catalog,
        range: LogRange,
        visit: &mut dyn FnMut(&LogEntry<'_>) -> Result<bool>,
    ) -> Result<()> {
        log::read_log(self, catalog, range, visit)
    }

    fn delete_entries(&mut self, _catalog: &Catalog, versions: &[i64]) -> Result<()> {
        log::delete_entries(self, versions)
    }

    fn head(&mut self) -> Result<i64> {
        fence::settled(&self.extension)
    }

    fn tip(&mut self) -> Result<i64> {
        Ok(counter::last_version(&self.extension))
    }

    fn held_back_since(&mut self) -> Result<Option<i64>> {
        let mut since = None;
        self.query(fence::HELD_SINCE, &[], &mut |row| {
            since = match row.value(0)? {
                ValueRef::Integer(milliseconds) => Some(milliseconds),
                _ => None,
            };
            Ok(false)
        })?;
        Ok(since)
    }

    fn writes_alone(&self) -> bool {
        false
    }

    fn lock_rows(&mut self, catalog: &Catalog, rows: &[Target<'_>]) -> Result<()> {
        locks::lock_rows(self, catalog, rows)
    }

    fn lock_tables(&mut self, catalog: &Catalog) -> Result<()> {
        for (_, table) in catalog.tracked() {
            if relation::by_name(&table.table_name).is_some() {
                locks::lock_table(self, table)?;
            }
        }
        Ok(())
    }

    fn narrows(&mut self) -> bool {
        if std::mem::take(&mut self.check_sooner)
            && let Some(sooner) = self.checks.sooner()
        {
            self.checks = sooner;
            self.careful = true;
            return true;
        }
        let narrows = std::mem::take(&mut self.narrows) && !self.careful;
        self.careful |= narrows;
        narrows
    }

    fn may_read(&mut self, table: &Table) -> Result<bool> {
        rights::access(self, table).map(|access| access.is_some())
    }

    fn clock(&mut self) -> Result<i64> {
        Ok(counter::clock(&self.extension))
    }

    fn raise_clock(&mut self, stamp: i64) -> Result<()> {
        counter::raise_clock(&self.extension, stamp);
        Ok(())
    }

    fn foreign_key_code(&self) -> &'static str {
        "23503"
    }

    fn log_bytes(&mut self) -> Result<Option<i64>> {
        let mut bytes = None;
        self.query("SELECT pg_total_relation_size('_sync_log_data'::regclass)", &[], &mut |row| {
            bytes = Some(row.integer(0)?);
            Ok(false)
        })?;
        Ok(bytes)
    }

    fn put_row(
        &mut self,
        table: &Table,
        values: &[Option<Value>],
        label: Option<&Label>,
        log_unchanged: bool,
    ) -> Result<Written, RowFailure> {
        rows::put_row(self, table, values, label, log_unchanged)
    }

    fn puts_together(&mut self, table: &Table) -> Result<bool> {
        together::puts_together(self, table)
    }

    fn put_rows(&mut self, table: &Table, rows: &[PutRow<'_>]) -> Result<Together> {
        together::put_rows(self, table, rows)
    }

    fn orphans(&mut self, catalog: &Catalog, table: &Table, rows: &[&[Option<Value>]]) -> Result<Vec<Violation>> {
        orphans::orphans(self, catalog, table, rows)
    }

    fn remove_row(
        &mut self,
        table: &Table,
        key: &[Value],
        label: Option<&Label>,
        log_unchanged: bool,
    ) -> Result<Written, RowFailure> {
        rows::remove_row(self, table, key, label, log_unchanged)
    }

    fn log_row(&mut self, table: &Table, key: &[Value], operation: Operation, label: Option<&Label>) -> Result<i64> {
        log::log_row(self, table, key, operation, label)
    }

    fn read_row(&mut self, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>> {
        rows::read_row(self, table, key)
    }

    fn stream_rows(&mut self, table: &Table, visit: &mut dyn FnMut(&dyn Row) -> Result<bool>) -> Result<()> {
        rows::stream_rows(self, table, visit)
    }

    fn count_rows(&mut self, table: &Table) -> Result<i64> {
        let Some(oid) = relation::by_name(&table.table_name) else { return Ok(0) };
        spi::run(&format!("SELECT pg_catalog.count(*) FROM {}", rows_of(oid)), &[], View::Latest, |rows| rows.row(0)?.integer(0)).map(|(_, n)| n)
    }

    fn can_spare_triggers(&self) -> bool {
        !cfg!(feature = "pg13")
    }

    fn begin_references(&mut self) -> Result<()> {
        references::begin(self)
    }

    fn end_references(&mut self) -> Result<()> {
        Ok(())
    }

    fn begin_rows(&mut self, _rows: &GroupRows<'_>) -> Result<()> {
        self.in_group = true;
        Ok(())
    }

    fn end_rows(&mut self) {
        self.corrections.clear();
        self.in_group = false;
    }

    fn violations(&mut self, catalog: &Catalog, touched: &[Touched]) -> Result<Vec<Violation>> {
        references::violations(self, catalog, touched)
    }

    fn column_defaults(&mut self, table: &Table) -> Result<Vec<Value>> {
        let plan = self.plan(table)?;
        let _path = SafePath::enter();
        let default = |(column, definition): (usize, &sync_shared::Column)| {
            let Some(expression) = definition.default.as_deref().filter(|_| plan.sequences[column].is_none()) else { return Value::Null };
            // A default that cannot be evaluated by itself is that of no row.
            let evaluated = in_subtransaction(|| {
                let sql = format!("SELECT ({expression})::{}", definition.declared);
                let value = |rows: &spi::Rows| rows.datum(0, 0).map(|d| plan.columns[column].form.value(d)).transpose();
                spi::run(&sql, &[], View::Latest, value).map(|(_, value)| value)
            });
            evaluated.ok().and_then(Result::ok).flatten().unwrap_or(Value::Null)
        };
        Ok(table.columns.iter().enumerate().map(default).collect())
    }

    fn check_resolver(&mut self, resolver: &str) -> Result<()> {
        resolver::find(resolver).map(|_| ())
    }

    fn run_resolver(&mut self, resolver: &str, local: &str, remote: &str) -> Result<String> {
        resolver::run(resolver, local, remote)
    }
}

fn is_refused<T>(done: &Result<T, RowFailure>) -> bool {
    matches!(done, Err(RowFailure::Refused(_)))
}

/// Only then has anything been written of a row that the server did not raise an error over.
fn is_ignored<T>(done: &Result<T, RowFailure>) -> bool {
    matches!(done, Err(RowFailure::Refused(reason)) if reason.code == rows::IGNORED)
}
