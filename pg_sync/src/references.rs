//! Foreign keys during an apply. Those that can be are checked at its end, so that order does not matter; who violates them is named.
//! The others are the server's: it refuses the row, which is tried again as long as others make progress.

use crate::definer::Definer;
use crate::host::PgHost;
use crate::quote::{Identifier, qualified};
use crate::relation;
use crate::spi::{self, View};
use crate::transaction::in_subtransaction;
use sync_shared::{Catalog, Reference, Result, RowHash, Table, Touched, Value, ValueRef, Violation};

/// Is there a foreign key that can wait?
fn any_deferrable(host: &mut PgHost) -> Result<bool> {
    if let Some(known) = host.any_deferrable {
        return Ok(known);
    }
    let sql = "SELECT 1 FROM pg_catalog.pg_constraint WHERE contype = 'f' AND condeferrable LIMIT 1";
    let (_, any) = spi::run(sql, &[], View::Latest, |rows| Ok(rows.len() > 0))?;
    host.any_deferrable = Some(any);
    Ok(any)
}

pub fn begin(host: &mut PgHost) -> Result<()> {
    if any_deferrable(host)? {
        spi::execute("SET CONSTRAINTS ALL DEFERRED", &[])?;
    }
    Ok(())
}

/// Which of the rows violate a foreign key as things stand.
pub fn violations(host: &mut PgHost, catalog: &Catalog, touched: &[Touched]) -> Result<Vec<Violation>> {
    if touched.is_empty() || !any_deferrable(host)? {
        return Ok(Vec::new());
    }
    // What is found here is found again at the commit: nothing of the check is kept.
    let mut holds = false;
    let checked = in_subtransaction(|| {
        spi::execute("SET CONSTRAINTS ALL IMMEDIATE", &[]).map(|_| ()).ok();
        holds = true;
        spi::execute("SET CONSTRAINTS ALL DEFERRED", &[]).map(|_| ()).ok();
    });
    match checked {
        Ok(()) if holds => return Ok(Vec::new()),
        Err(error) if error.scope == sync_shared::Scope::Call => return Err(error.into()),
        _ => {}
    }
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
    let Some(parameters) = plan.key_if_possible(key) else { return Ok(None) };
    let row = match crate::rows::read_row(host, table, key)? {
        None => return Ok(None),
        Some(row) => row,
    };
    let _definer = Definer::enter(host.extension.owner);
    for reference in &table.references {
        let Some(parent) = relation::by_name(&reference.parent) else { continue };
        let not_null: Vec<String> = reference.columns.iter().map(|c| format!("c.{} IS NOT NULL", Identifier(c))).collect();
        let joined = reference.columns.iter().zip(&reference.parent_columns);
        let joined: Vec<String> = joined.map(|(c, p)| format!("p.{} = c.{}", Identifier(p), Identifier(c))).collect();
        let sql = format!(
            "SELECT 1 FROM {} AS c WHERE {} AND {} AND NOT EXISTS (SELECT 1 FROM {} AS p WHERE {})",
            plan.name,
            plan.key_condition(1),
            not_null.join(" AND "),
            qualified(parent),
            joined.join(" AND ")
        );
        let (_, violated) = spi::run(&sql, &parameters, View::Latest, |rows| Ok(rows.len() > 0))?;
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
fn parent_hash(catalog: &Catalog, table: &Table, reference: &Reference, row: &[Value]) -> Result<Option<RowHash>> {
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
    let _definer = Definer::enter(host.extension.owner);
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
        let sql = format!("SELECT 1 FROM {} WHERE {} LIMIT 1", qualified(relation), terms.join(" AND "));
        let (_, any) = spi::run(&sql, &parameters, View::Latest, |rows| Ok(rows.len() > 0))?;
        if any {
            return Ok(Some(format!("rows of {:?} still refer to this row of {:?}", child.table_name, table.table_name)));
        }
    }
    Ok(None)
}
