//! Rows of a table written together: those that are not there by one statement, in their order.
//!
//! It is done only where nobody can tell it from row by row: nothing of the user's runs when a row of the table is written, and nothing
//! but the rows themselves is written. Either all of them are written, each with its own labelled entry, or none.
#![allow(unsafe_code)]

use crate::captured::attribute;
use crate::definer::SafePath;
use crate::error::caught;
use crate::host::PgHost;
use crate::pending::{self, Pending, PendingRow};
use crate::rows::{Converted, convert, given, log_anyway, write_row};
use crate::spi::{self, Parameter, View};
use crate::tables::TablePlan;
use crate::transaction::{Unit, catch};
use pgrx::pg_sys::{self, Datum, Oid};
use sync_shared::{Error, Label, Operation, PutRow, Result, Row as _, RowFailure, Scope, Table, Together, Value, ValueRef, Written};

/// Fewer rows that are not there are inserted one by one.
const LEAST_ROWS: usize = 3;

/// What can be put together of a table.
#[derive(Clone, Copy, PartialEq)]
pub enum Sets {
    Never,
    /// Rows with a value for every synced column: the defaults of some call functions of the user's.
    Whole,
    Any,
}

/// Does nothing of the user's run when a row of the table is put, and may the caller put any?
pub fn puts_together(host: &mut PgHost, table: &Table) -> Result<bool> {
    Ok(sets(&*host.plan(table)?, table)? != Sets::Never)
}

fn sets(plan: &TablePlan, table: &Table) -> Result<Sets> {
    if let Some(known) = plan.sets.get() {
        return Ok(known);
    }
    let may = plan.has_arbiter && plan.can_lock() && plan.may(pg_sys::ACL_INSERT) && !plan.has_policies();
    let found = match may && is_undisturbed(plan.relation)? {
        false => Sets::Never,
        true => {
            let called = called_by_defaults(plan.relation)?;
            match called.iter().all(|name| table.columns.iter().any(|c| c.name == *name)) {
                _ if called.is_empty() => Sets::Any,
                true => Sets::Whole,
                false => Sets::Never,
            }
        }
    };
    plan.sets.set(Some(found));
    Ok(found)
}

/// Is there no rule, no trigger but ours, no partition elsewhere, no function of anybody's in a constraint, which may look at rows, and
/// no foreign key that would change other rows? What is in an index or a generated column looks at its own row only.
fn is_undisturbed(relation: Oid) -> Result<bool> {
    let sql = "WITH family AS (SELECT relid::oid AS id FROM pg_partition_tree($1::oid::regclass) UNION SELECT $1::oid) \
               SELECT NOT EXISTS (SELECT 1 FROM pg_class WHERE oid IN (SELECT id FROM family) AND (relhasrules OR relkind NOT IN ('r', 'p'))) \
               AND NOT EXISTS (SELECT 1 FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid \
               WHERE t.tgrelid IN (SELECT id FROM family) AND NOT t.tgisinternal AND p.prosrc <> 'sync_capture') \
               AND NOT EXISTS (SELECT 1 FROM pg_constraint AS c JOIN pg_depend AS d ON d.classid = 'pg_constraint'::regclass AND d.objid = c.oid \
               WHERE d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass) AND c.contype = 'c' AND (c.conrelid IN (SELECT id FROM family) \
               OR c.contypid IN (SELECT atttypid FROM pg_attribute WHERE attrelid = $1::oid AND NOT attisdropped AND atttypid <> 0))) \
               AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE contype = 'f' AND confrelid IN (SELECT id FROM family) AND confupdtype NOT IN ('a', 'r'))";
    let _path = SafePath::enter();
    spi::run(sql, &of(relation)?, View::Latest, |rows| rows.row(0)?.integer(0)).map(|(_, is_undisturbed)| is_undisturbed != 0)
}

/// The columns whose defaults call functions that are not the server's own.
fn called_by_defaults(relation: Oid) -> Result<Vec<String>> {
    let sql = "SELECT DISTINCT a.attname::text FROM pg_attrdef AS f JOIN pg_attribute AS a ON a.attrelid = f.adrelid AND a.attnum = f.adnum \
               JOIN pg_depend AS d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid \
               WHERE f.adrelid = $1::oid AND a.attgenerated = '' AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)";
    let _path = SafePath::enter();
    spi::run(sql, &of(relation)?, View::Latest, |rows| (0..rows.len()).map(|at| Ok(rows.row(at)?.text(0)?.to_owned())).collect())
        .map(|(_, names)| names)
}

fn of(relation: Oid) -> Result<[Parameter; 1]> {
    Ok([Parameter::of(ValueRef::Integer(i64::from(relation.to_u32())))?])
}

pub fn put_rows(host: &mut PgHost, table: &Table, rows: &[PutRow<'_>]) -> Result<Together> {
    let plan = host.plan(table)?;
    let mut inserted = Vec::new();
    let unit = Unit::begin();
    let done = catch(|| write(host, &plan, table, rows, &mut inserted));
    unit.end(matches!(done, Ok(Ok(_))));
    let failure = match done {
        Ok(Ok(written)) => return Ok(Together::Written(written)),
        Ok(Err(failure)) => failure,
        Err(error) => RowFailure::Fatal(caught(error).into()),
    };
    inserted.iter().for_each(|pk_value| host.held.forget_row(plan.id, pk_value));
    match failure {
        RowFailure::Fatal(Error::Engine(error)) if error.scope == Scope::Row => {}
        RowFailure::Fatal(error) => return Err(error),
        _ => {}
    }
    // One of them will be tried by itself and fail: that must not undo the others.
    host.be_careful();
    Ok(Together::Refused)
}

/// Writes the rows; `inserted` are those that were not there before, also if it fails.
fn write(
    host: &mut PgHost,
    plan: &TablePlan,
    table: &Table,
    rows: &[PutRow<'_>],
    inserted: &mut Vec<String>,
) -> Result<Vec<Written>, RowFailure> {
    let Some(first) = rows.first() else { return Ok(Vec::new()) };
    let given = given(first.values);
    let converted = rows.iter().map(|row| convert(plan, &given, row.values)).collect::<Result<Vec<Converted>, RowFailure>>()?;
    let is_whole = given.len() == table.columns.len() || plan.sets.get() == Some(Sets::Any);
    let mut written = Vec::with_capacity(rows.len());
    while written.len() < rows.len() {
        let at = written.len();
        let new = converted[at..].iter().take_while(|row| !host.held.has_row(plan.id, &row.pk_value)).count();
        if new >= LEAST_ROWS && is_whole {
            let labels = rows[at..at + new].iter().map(|row| row.label);
            written.extend(insert(host, plan, &given, &converted[at..at + new], labels, inserted)?);
            continue;
        }
        let (row, put) = (&converted[at], &rows[at]);
        if new > 0 {
            inserted.push(row.pk_value.clone());
        }
        let one = write_row(host, plan, &given, row, Some(&put.label))?;
        let key = || table.key.iter().map(|&k| put.values[k].clone().unwrap_or(Value::Null)).collect();
        let one = log_anyway(host, table, key, Operation::Update, one, Some(&put.label), put.log_unchanged)?;
        if !one.caused.is_empty() {
            return Err(RowFailure::Overtaken);
        }
        written.push(one);
    }
    Ok(written)
}

/// Inserts rows that are not there. If one is there after all, or anything else is written or logged than these rows, it fails.
fn insert(
    host: &mut PgHost,
    plan: &TablePlan,
    given: &[usize],
    rows: &[Converted],
    labels: impl Iterator<Item = Label>,
    inserted: &mut Vec<String>,
) -> Result<Vec<Written>, RowFailure> {
    let Some(array) = as_array(plan, given, rows) else { return Ok(Vec::new()) };
    let pending = rows.iter().zip(labels).map(|(row, label)| {
        let values = row.values.iter().map(|value| value.datum).collect();
        PendingRow { pk_value: row.pk_value.clone(), values: Some(values), label: Some(label) }
    });
    let pending = Pending { table: plan.id, columns: plan.written(given), rows: pending.collect() };
    let mut count = Ok(0);
    let (entries, caused) = pending::with(pending, || count = spi::execute(&plan.insert_rows(given), &[array]));
    let versions: Vec<i64> = entries.iter().flatten().filter(|entry| entry.labelled).map(|entry| entry.version).collect();
    let is_all = versions.len() == rows.len() && caused.is_empty();
    if count? != rows.len() as u64 || !is_all || !versions.is_sorted() {
        return Err(RowFailure::Overtaken);
    }
    for row in rows {
        host.held.add_row(plan.id, &row.pk_value);
        inserted.push(row.pk_value.clone());
        crate::identity::advance(plan, given, &row.values);
    }
    Ok(versions.into_iter().map(|version| Written { version: Some(version), changed: true, caused: Vec::new() }).collect())
}

/// The rows as an array of the table's type.
fn as_array(plan: &TablePlan, given: &[usize], rows: &[Converted]) -> Option<Parameter> {
    // SAFETY: the relation is open while its descriptor is used; the values are of its columns' types.
    unsafe {
        let oid = pg_sys::get_rel_type_id(plan.relation);
        let open = pg_sys::relation_open(plan.relation, pg_sys::AccessShareLock as i32);
        let descriptor = (*open).rd_att;
        let width = (*descriptor).natts as usize;
        let place = |name: &str| {
            (0..width).find(|&place| {
                let attribute = attribute(descriptor, place);
                !attribute.attisdropped && crate::quote::owned(attribute.attname.data.as_ptr()) == name
            })
        };
        let places: Vec<usize> = given.iter().filter_map(|&c| place(&plan.columns[c].name)).collect();
        let (mut values, mut nulls) = (vec![Datum::null(); width], vec![true; width]);
        let elements = rows.iter().map(|row| {
            for (&place, value) in places.iter().zip(&row.values) {
                values[place] = value.datum.unwrap_or(Datum::null());
                nulls[place] = value.datum.is_none();
            }
            let tuple = pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            let datum = pg_sys::heap_copy_tuple_as_datum(tuple, descriptor);
            pg_sys::heap_freetuple(tuple);
            Parameter { oid, datum: Some(datum) }
        });
        let array = (places.len() == given.len()).then(|| elements.collect::<Vec<_>>()).and_then(|elements| spi::array(&elements));
        pg_sys::relation_close(open, pg_sys::NoLock as i32);
        array
    }
}
