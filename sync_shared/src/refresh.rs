//! Capture follows the tables' definitions: columns and tables that were added, dropped, renamed or rebuilt.
//!
//! Runs at the first sync call after a definition changed, in one transaction. What a changed definition let slip past capture
//! is found by a reconciliation of that table. Nothing is dropped: the log's entries keep their layouts. A table that cannot be followed
//! is noted (`uncaptured.rs`), so that nobody goes on as if it were.

use crate::catalog::Catalog;
use crate::check::unsupported;
use crate::error::Result;
use crate::host::{CaptureState, Host, in_transaction};
use crate::reconcile::{Defaults, reconcile_table};
use crate::remade::has_lost_rows;
use crate::resync::begin_resync;
use crate::state::{self, State};
use crate::table::{Column, Definition, Description, Portable, Table};
use crate::uncaptured::{Cause, Uncaptured};
use crate::value::ValueRef;
use std::collections::BTreeMap;

/// Brings capture in line with every tracked table as it is now.
pub fn refresh(host: &mut dyn Host) -> Result<()> {
    in_transaction(host, |host| {
        let before = State::load(host)?.uncaptured;
        let catalog = Catalog::load(host)?;
        let mut found = Vec::new();
        for (_, table) in catalog.tracked() {
            found.push((table.id, host.capture_state(table)?));
        }
        make_way(host, &catalog, &found)?;
        let mut uncaptured = Uncaptured::default();
        for ((_, table), (id, capture)) in catalog.tracked().zip(&found) {
            uncaptured.set(table, follow(host, *id, capture, &before)?);
        }
        if uncaptured != before {
            uncaptured.store(host)?;
        }
        settle(host)
    })
}

/// A table may have the name now that another had: tables that have swapped names, or one in the place of another that is gone or is not
/// tracked any more. Whoever had the name gives it up first, and its capture with it.
fn make_way(host: &mut dyn Host, catalog: &Catalog, found: &[(i64, CaptureState)]) -> Result<()> {
    let name_now = |id: i64| found.iter().find(|(i, _)| *i == id).and_then(|(_, capture)| capture.table_name.as_deref());
    let has_moved = |table: &Table| name_now(table.id).is_some_and(|now| !now.eq_ignore_ascii_case(&table.table_name));
    for table in catalog.tables.iter().filter(|table| has_moved(table)) {
        let is_in_the_way = |other: &&Table| other.id != table.id && name_now(table.id).is_some_and(|n| other.table_name.eq_ignore_ascii_case(n));
        let Some(other) = catalog.tables.iter().find(is_in_the_way) else { continue };
        if other.tracked {
            host.remove_capture(other)?;
        }
        let given_up = format!("{} (once, {})", other.table_name, other.id);
        host.execute(
            "UPDATE _sync_tables SET table_name = ?2, tracked = ?3 WHERE table_id = ?1",
            &[ValueRef::Integer(other.id), ValueRef::Text(&given_up), ValueRef::Integer(i64::from(other.tracked && has_moved(other)))],
        )?;
    }
    Ok(())
}

/// Installs the capture of every tracked table anew.
pub fn reinstall_all(host: &mut dyn Host) -> Result<()> {
    let catalog = Catalog::load(host)?;
    for (_, table) in catalog.tracked() {
        if host.describe(&table.table_name)?.is_some() {
            host.install_capture(&catalog, table)?;
        }
    }
    settle(host)
}

/// Publishes the log and notes the schema that capture now fits, and in which rejected changes may succeed.
pub fn settle(host: &mut dyn Host) -> Result<()> {
    let catalog = Catalog::load(host)?;
    host.publish_log(&catalog)?;
    state::set_integer(host, "retried_version", -1)?;
    let cookie = host.schema_cookie()?;
    state::set_integer(host, "schema_cookie", cookie)
}

/// The part of a description that is kept, with columns left out and types overridden.
pub fn definition_of(description: &Description, exclude: &[String], types: &BTreeMap<String, Portable>, user_triggers: bool) -> Definition {
    let excluded = |c: &Column| exclude.iter().any(|e| e.eq_ignore_ascii_case(&c.name));
    let mut columns: Vec<Column> = description.columns.iter().filter(|c| !excluded(c)).cloned().collect();
    for column in &mut columns {
        if let Some((_, portable)) = types.iter().find(|(name, _)| name.eq_ignore_ascii_case(&column.name)) {
            column.portable = *portable;
        }
    }
    let place = |&k: &usize| columns.iter().position(|c| c.name == description.columns[k].name);
    Definition {
        key: description.key.iter().filter_map(place).collect(),
        columns,
        exclude: exclude.to_vec(),
        generated: description.generated.clone(),
        references: description.references.clone(),
        nullable_key: description.nullable_key,
        types: types.clone(),
        user_triggers,
        rekeyed: 0,
    }
}

/// Would a table get another primary key by this definition? A key whose columns only have other names than before is no other.
pub fn is_another_key(table: &Table, definition: &Definition, new_name: &dyn Fn(&str) -> String) -> bool {
    let mut before: Vec<String> = table.key_names().into_iter().map(|name| new_name(name).to_ascii_lowercase()).collect();
    let mut now: Vec<String> = definition.key.iter().map(|&k| definition.columns[k].name.to_ascii_lowercase()).collect();
    before.sort_unstable();
    now.sort_unstable();
    before != now
}

/// Rows are told apart by other hashes than before. What was noted by those is found again from the log, and a resync begins again.
pub fn forget_hashes(host: &mut dyn Host) -> Result<()> {
    host.execute("UPDATE _sync_peers SET folded_from = ?1", &[ValueRef::Integer(i64::MAX)])?;
    if State::load(host)?.resync {
        begin_resync(host)?;
    }
    Ok(())
}

/// Stores a table's definition, with a new layout if its columns changed.
pub fn store_definition(host: &mut dyn Host, table_id: i64, layout: i64, definition: &Definition) -> Result<()> {
    let names: Vec<&str> = definition.columns.iter().map(|c| c.name.as_str()).collect();
    let names = serde_json::json!(names).to_string();
    let mut same = false;
    host.query("SELECT columns FROM _sync_layouts WHERE layout = ?1", &[ValueRef::Integer(layout)], &mut |row| {
        same = row.text(0)? == names;
        Ok(false)
    })?;
    let mut layout = layout;
    if !same {
        host.execute(
            "INSERT INTO _sync_layouts (layout, table_id, columns) SELECT coalesce(max(layout), 0) + 1, ?1, ?2 FROM _sync_layouts",
            &[ValueRef::Integer(table_id), ValueRef::Text(&names)],
        )?;
        layout = crate::host::query_integer(host, "SELECT max(layout) FROM _sync_layouts", &[])?;
    }
    let definition = serde_json::to_string(definition).map_err(crate::error::Error::corrupt)?;
    host.execute(
        "UPDATE _sync_tables SET definition = ?2, layout = ?3 WHERE table_id = ?1",
        &[ValueRef::Integer(table_id), ValueRef::Text(&definition), ValueRef::Integer(layout)],
    )?;
    Ok(())
}

/// Brings the capture of one table in line with it; returns why it is off, if it is.
fn follow(host: &mut dyn Host, id: i64, capture: &CaptureState, before: &Uncaptured) -> Result<Option<Cause>> {
    let catalog = Catalog::load(host)?;
    let Some(table) = catalog.tracked().map(|(_, t)| t).find(|t| t.id == id) else { return Ok(None) };
    let Some(table_name) = capture.table_name.clone() else { return Ok(None) };
    let Some(description) = host.describe(&table_name)? else { return Ok(None) };
    let is_captured = capture.columns.is_some();
    if let Some((reason, fix)) = unsupported(&description).filter(|_| !is_captured) {
        return Ok(Some(Cause::Unsupported(reason, fix)));
    }
    let renamed = capture.columns.as_deref().map_or_else(Vec::new, |now| renamed_columns(table, now));
    let new_name = |name: &str| {
        renamed.iter().find(|(old, _)| old.eq_ignore_ascii_case(name)).map_or_else(|| name.to_owned(), |(_, new)| new.clone())
    };
    let types = table.types.iter().map(|(name, portable)| (new_name(name), *portable)).collect();
    let mut definition = definition_of(&description, &table.exclude, &types, table.user_triggers);
    if definition.key.len() != description.key.len() || definition.key.is_empty() {
        return Ok(None);
    }
    let another_key = is_another_key(table, &definition, &new_name);
    definition.rekeyed = if another_key { host.tip()? } else { table.rekeyed };
    if another_key || table.key_names().iter().any(|name| new_name(name) != *name) {
        forget_hashes(host)?;
    }
    if !renamed.is_empty() {
        rename_in_layouts(host, table, &renamed)?;
    }
    if table_name != table.table_name {
        host.remove_capture(table)?;
        host.execute(
            "UPDATE _sync_tables SET table_name = ?2 WHERE table_id = ?1",
            &[ValueRef::Integer(id), ValueRef::Text(&table_name)],
        )?;
    }
    let kept_names: Vec<String> = table.columns.iter().map(|c| new_name(&c.name)).collect();
    let added = definition.columns.iter().any(|c| !kept_names.iter().any(|k| k.eq_ignore_ascii_case(&c.name)));
    let changed = definition.columns != table.columns || definition.key != table.key;
    store_definition(host, id, table.layout, &definition)?;
    if capture.intact && !changed && table_name == table.table_name {
        return Ok(None);
    }
    let catalog = Catalog::load(host)?;
    let Some(index) = catalog.tables.iter().position(|t| t.id == id) else { return Ok(None) };
    if has_lost_rows(host, &catalog, index, capture, before.has_lost_rows(&catalog.tables[index]))? {
        return Ok(Some(Cause::RowsGone));
    }
    host.install_capture(&catalog, &catalog.tables[index])?;
    if capture.suspect || added || another_key {
        reconcile_table(host, &catalog, index, Defaults::Left)?;
    }
    Ok(None)
}

/// Columns whose name changed, as (old, new): capture has the same number of columns under other names.
fn renamed_columns(table: &Table, now: &[String]) -> Vec<(String, String)> {
    if now.len() != table.columns.len() {
        return Vec::new();
    }
    let pairs = table.columns.iter().map(|c| &c.name).zip(now);
    pairs.filter(|(old, new)| old != new).map(|(old, new)| (old.clone(), new.clone())).collect()
}

fn rename_in_layouts(host: &mut dyn Host, table: &Table, renamed: &[(String, String)]) -> Result<()> {
    let mut layouts: Vec<(i64, Vec<String>)> = Vec::new();
    host.query(
        "SELECT layout, columns FROM _sync_layouts WHERE table_id = ?1",
        &[ValueRef::Integer(table.id)],
        &mut |row| {
            let names = serde_json::from_str(row.text(1)?).map_err(crate::error::Error::corrupt)?;
            layouts.push((row.integer(0)?, names));
            Ok(true)
        },
    )?;
    for (layout, mut names) in layouts {
        for name in &mut names {
            if let Some((_, new)) = renamed.iter().find(|(old, _)| old.eq_ignore_ascii_case(name)) {
                name.clone_from(new);
            }
        }
        let names = serde_json::json!(names).to_string();
        host.execute(
            "UPDATE _sync_layouts SET columns = ?2 WHERE layout = ?1",
            &[ValueRef::Integer(layout), ValueRef::Text(&names)],
        )?;
    }
    Ok(())
}
