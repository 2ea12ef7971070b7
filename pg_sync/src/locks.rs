//! Locks that an apply takes before it decides: on rows that are there, and on tables where rows are not.

use crate::error::caught;
use crate::host::PgHost;
use crate::spi::{self, Parameter, View};
use crate::tables::TablePlan;
use crate::transaction::{Unit, catch};
use std::collections::BTreeMap;
use sync_shared::{Catalog, Operation, Result, Table, Target};

/// Locks the rows that are there, in the order of their keys. A delete of a row that is not there is logged all the same, and no lock
/// keeps another writer from inserting the row meanwhile: for that the table is locked, before any row is.
pub fn lock_rows(host: &mut PgHost, catalog: &Catalog, targets: &[Target<'_>]) -> Result<()> {
    let mut rows = Rows::new();
    for target in targets {
        let plan = host.plan(&catalog.tables[target.table])?;
        if !plan.folded.is_empty() && target.operation != Operation::Delete {
            host.corrections.note(&catalog.tables[target.table], target.key);
        }
        if let Some(key) = plan.key_if_possible(target.key) {
            let deletes = target.operation == Operation::Delete;
            let row = rows.entry((plan.id, plan.write_key(&key)?)).or_insert((target.table, key, false));
            row.2 |= deletes;
        }
    }
    loop {
        let unit = Unit::begin();
        let result = catch(|| lock_each(host, catalog, &rows));
        // Other writers may wait for rows that are locked here: none is while a table is waited for.
        unit.end(matches!(&result, Ok(Ok(tables)) if tables.is_empty()));
        let mut tables = result.unwrap_or_else(|error| Err(caught(error).into()))?;
        if tables.is_empty() {
            return Ok(());
        }
        tables.sort_unstable();
        for table in tables {
            lock_table(host, &catalog.tables[table])?;
        }
    }
}

type Rows = BTreeMap<(i64, String), (usize, Vec<Parameter>, bool)>;

/// Locks the rows that are there; returns the tables that have to be locked first.
fn lock_each(host: &mut PgHost, catalog: &Catalog, rows: &Rows) -> Result<Vec<usize>> {
    let mut tables: Vec<usize> = Vec::new();
    let mut of_table: Vec<(&String, &Parameter)> = Vec::new();
    let mut rest = rows.iter().peekable();
    while let Some(((id, pk_value), (table, key, _))) = rest.next() {
        let plan = host.plan(&catalog.tables[*table])?;
        if !plan.can_lock() {
            // Whoever may delete may lock the table.
            continue;
        }
        if let ([only], true) = (key.as_slice(), plan.has_array_of_keys()) {
            of_table.push((pk_value, only));
            if rest.peek().is_some_and(|((next, _), _)| next == id) {
                continue;
            }
            lock_together(host, &plan, &of_table)?;
            of_table.clear();
        } else if spi::execute(&plan.lock_row(), key)? > 0 {
            host.held.add_row(*id, pk_value);
        }
    }
    for ((id, pk_value), (table, _, deletes)) in rows {
        if *deletes && !host.held.has_row(*id, pk_value) && !host.held.has_table(*id) && !tables.contains(table) {
            // Who may not lock it may not delete from it either: the row is refused then.
            if host.plan(&catalog.tables[*table])?.can_lock_table() {
                tables.push(*table);
            }
        }
    }
    Ok(tables)
}

/// Locks the rows of a table whose key is one column, in one statement.
fn lock_together(host: &mut PgHost, plan: &TablePlan, keys: &[(&String, &Parameter)]) -> Result<()> {
    let parameters: Vec<Parameter> = keys.iter().map(|(_, key)| **key).collect();
    let Some(array) = spi::array(&parameters) else { return Ok(()) };
    let (_, held) = spi::run(&plan.lock_rows(), &[array], View::Statement, |rows| {
        let parameter = |row| Parameter { oid: parameters[0].oid, datum: rows.datum(row, 0) };
        (0..rows.len()).map(|row| plan.write_key(&[parameter(row)])).collect::<Result<Vec<String>>>()
    })?;
    held.iter().for_each(|pk_value| host.held.add_row(plan.id, pk_value));
    Ok(())
}

/// Keeps other writers away from a table.
pub fn lock_table(host: &mut PgHost, table: &Table) -> Result<()> {
    let plan = host.plan(table)?;
    spi::execute(&format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", plan.rows), &[])?;
    host.held.add_table(plan.id);
    Ok(())
}

/// Keeps other writers away from a table of this name, if there is one.
pub fn lock_named(name: &str) -> Result<()> {
    if let Some(oid) = crate::relation::by_name(name) {
        spi::execute(&format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", crate::quote::rows_of(oid)), &[])?;
    }
    Ok(())
}
