//! Constraints that can be checked late, during an apply. They are checked at its end, so that order does not matter.
//!
//! Who violates a foreign key is found and named. Who violates another constraint (a unique or exclusion constraint, a constraint trigger)
//! only the server knows: the changes are written again with that checked at once, so that it refuses the row. Foreign keys that cannot
//! wait are the server's from the first: the row is tried again as long as others make progress. A table is looked into as its owner, as
//! the server does.

use crate::definer::{Definer, SafePath};
use crate::host::PgHost;
use crate::quote::{Identifier, rows_of};
use crate::relation;
use crate::spi::{self, Parameter, View};
use crate::transaction::in_subtransaction;
use sync_shared::{Catalog, EngineError, Reference, Result, Row as _, RowHash, Scope, Table, Touched, Value, ValueRef, Violation};

/// When what can be checked late is checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Checks {
    /// At the end.
    Late,
    /// Foreign keys at the end, the rest with the row.
    OnlyKeysLate,
    /// With the row.
    AtOnce,
    /// At the end, and what is found then is not for us to judge: it did not hold before we wrote anything.
    Callers,
}

impl Checks {
    /// After late checks have failed and nobody was found who did it.
    pub fn sooner(self) -> Option<Checks> {
        match self {
            Checks::Late => Some(Checks::OnlyKeysLate),
            Checks::OnlyKeysLate => Some(Checks::AtOnce),
            Checks::AtOnce | Checks::Callers => None,
        }
    }
}

/// Is there a constraint that can wait?
fn any_deferrable(host: &mut PgHost) -> Result<bool> {
    if let Some(known) = host.any_deferrable {
        return Ok(known);
    }
    let _path = SafePath::enter();
    let sql = "SELECT 1 FROM pg_catalog.pg_constraint WHERE condeferrable LIMIT 1";
    let (_, any) = spi::run(sql, &[], View::Latest, |rows| Ok(rows.len() > 0))?;
    host.any_deferrable = Some(any);
    Ok(any)
}

pub fn begin(host: &mut PgHost) -> Result<()> {
    if !any_deferrable(host)? {
        return Ok(());
    }
    if host.checks != Checks::Late && failure()?.is_some() {
        host.checks = Checks::Callers;
    }
    spi::execute("SET CONSTRAINTS ALL DEFERRED", &[])?;
    match host.checks {
        Checks::Late | Checks::Callers => {}
        Checks::OnlyKeysLate => {
            if let Some(others) = others_than_keys()? {
                spi::execute(&format!("SET CONSTRAINTS {others} IMMEDIATE"), &[])?;
            }
        }
        Checks::AtOnce => {
            spi::execute("SET CONSTRAINTS ALL IMMEDIATE", &[])?;
        }
    }
    Ok(())
}

/// The names of the constraints that can wait and are no foreign keys, as far as the caller can name them: what they lead to runs as the
/// caller.
fn others_than_keys() -> Result<Option<String>> {
    let _path = SafePath::enter();
    let sql = "SELECT string_agg(DISTINCT format('%I.%I', n.nspname, c.conname), ', ') FROM pg_constraint AS c \
               JOIN pg_namespace AS n ON n.oid = c.connamespace WHERE c.condeferrable AND c.contype <> 'f' AND has_schema_privilege(n.oid, 'USAGE')";
    spi::run(sql, &[], View::Latest, |rows| rows.row(0)?.optional_text(0)).map(|(_, names)| names)
}

/// What the server finds when it checks now what was to be checked late; None if all holds. Nothing of a check that fails is kept.
fn failure() -> Result<Option<EngineError>> {
    let checked = in_subtransaction(|| {
        spi::execute("SET CONSTRAINTS ALL IMMEDIATE", &[])?;
        spi::execute("SET CONSTRAINTS ALL DEFERRED", &[])
    });
    match checked {
        Ok(done) => done.map(|_| None),
        Err(error) if error.scope == Scope::Call => Err(error.into()),
        Err(error) => Ok(Some(error)),
    }
}

/// Which of the rows violate a foreign key as things stand. An error that narrows if it is something else that does not hold.
pub fn violations(host: &mut PgHost, catalog: &Catalog, touched: &[Touched]) -> Result<Vec<Violation>> {
    if host.checks == Checks::AtOnce || !any_deferrable(host)? {
        return Ok(Vec::new());
    }
    let Some(error) = failure()? else { return Ok(Vec::new()) };
    let found = who_violates(host, catalog, touched)?;
    if found.is_empty() && host.checks != Checks::Callers {
        host.check_sooner = true;
        return Err(error.into());
    }
    Ok(found)
}

fn who_violates(host: &mut PgHost, catalog: &Catalog, touched: &[Touched]) -> Result<Vec<Violation>> {
    let children: Vec<(usize, Reference)> = catalog
        .tracked()
        .flat_map(|(index, table)| table.references.iter().map(move |reference| (index, reference.clone())))
        .collect();
    let mut found = Vec::new();
    for (row, touch) in touched.iter().enumerate() {
        let table = &catalog.tables[touch.table];
        let violation = match touch.deleted {
            false => missing_parent(host, catalog, table, &touch.key)?,
            true => remaining_child(host, catalog, table, &children, &touch.key)?.map(|message| (message, None)),
        };
        if let Some((message, missing)) = violation {
            found.push(Violation { row, message, missing });
        }
    }
    Ok(found)
}

fn missing_parent(
    host: &mut PgHost,
    catalog: &Catalog,
    table: &Table,
    key: &[Value],
) -> Result<Option<(String, Option<RowHash>)>> {
    let plan = host.plan(table)?;
    let row = match crate::rows::read_row(host, table, key)? {
        None => return Ok(None),
        Some(row) => row,
    };
    for reference in &table.references {
        let Some(parent) = relation::by_name(&reference.parent) else { continue };
        let column = |name: &String| table.columns.iter().position(|c| c.name == *name);
        let columns: Vec<usize> = reference.columns.iter().filter_map(column).collect();
        if columns.len() != reference.columns.len() || columns.iter().any(|&c| row[c] == Value::Null) {
            continue;
        }
        let values = columns.iter().map(|&c| plan.parameter(c, &row[c])).collect::<Result<Vec<Parameter>, String>>();
        let values = values.map_err(sync_shared::Error::corrupt)?;
        let _definer = Definer::owner_of(parent);
        let terms = reference.parent_columns.iter().enumerate().map(|(place, p)| format!("{} = ${}", Identifier(p), place + 1));
        let sql = format!("SELECT 1 FROM {} WHERE {}", rows_of(parent), terms.collect::<Vec<_>>().join(" AND "));
        let (_, violated) = spi::run(&sql, &values, View::Latest, |rows| Ok(rows.len() == 0))?;
        if violated {
            let message = format!(
                "FOREIGN KEY ({}) of {:?}: there is no such row in {:?}; the change waits for it",
                reference.columns.join(", "),
                table.table_name,
                reference.parent
            );
            return Ok(Some((message, parent_hash(catalog, table, reference, &row)?)));
        }
    }
    Ok(None)
}

/// The row that is missing, if the reference is to the primary key of a tracked table.
pub fn parent_hash(catalog: &Catalog, table: &Table, reference: &Reference, row: &[Value]) -> Result<Option<RowHash>> {
    let Some((_, parent)) = catalog.tracked().find(|(_, t)| t.table_name == reference.parent) else { return Ok(None) };
    let value = |column: usize| {
        let place = reference.parent_columns.iter().position(|c| *c == parent.columns[column].name)?;
        let here = table.columns.iter().position(|c| c.name == reference.columns[place])?;
        row.get(here)
    };
    if parent.key.len() != reference.parent_columns.len() || parent.key.iter().any(|&k| value(k).is_none()) {
        return Ok(None);
    }
    parent.row_hash(|c| Ok(value(c).map_or(ValueRef::Null, Value::as_ref))).map(Some)
}

/// A row that still refers to one that was deleted.
fn remaining_child(
    host: &mut PgHost,
    catalog: &Catalog,
    table: &Table,
    children: &[(usize, Reference)],
    key: &[Value],
) -> Result<Option<String>> {
    let plan = host.plan(table)?;
    let Some(parameters) = plan.key_if_possible(key) else { return Ok(None) };
    for (child, reference) in children.iter().filter(|(_, r)| r.parent == table.table_name) {
        let child = &catalog.tables[*child];
        let Some(relation) = relation::by_name(&child.table_name) else { continue };
        let place = |column: &String| table.key.iter().position(|&k| table.columns[k].name == *column);
        let pairs = reference.columns.iter().zip(&reference.parent_columns);
        let terms: Vec<String> =
            pairs.filter_map(|(column, parent)| place(parent).map(|p| format!("{} = ${}", Identifier(column), p + 1))).collect();
        if terms.len() != table.key.len() || terms.len() != reference.columns.len() {
            continue;
        }
        let sql = format!("SELECT 1 FROM {} WHERE {} LIMIT 1", rows_of(relation), terms.join(" AND "));
        let _definer = Definer::owner_of(relation);
        let (_, any) = spi::run(&sql, &parameters, View::Latest, |rows| Ok(rows.len() > 0))?;
        if any {
            return Ok(Some(format!("rows of {:?} still refer to this row of {:?}", child.table_name, table.table_name)));
        }
    }
    Ok(None)
}
