//! Capture put on a table and taken off: its triggers, and the columns they see.
#![allow(unsafe_code)]

use crate::definer::Definer;
use crate::host::PgHost;
use crate::quote::{Identifier, Literal, owned, qualified};
use crate::relation;
use crate::spi::{self, Aim, Parameter, View};
use pgrx::pg_sys::{self, Oid};
use sync_shared::{CaptureState, Error, Kind, Result, Row as _, Table, ValueRef};

/// What a trigger is fired by, and whether for every row.
const TRIGGERS: [(&str, &str); 3] = [("insert", "AFTER INSERT"), ("update", "AFTER UPDATE"), ("delete", "AFTER DELETE")];
const TRUNCATE: &str = "truncate";

/// A trigger's name; one that is too long is cut before its ending, which tells the triggers of a table apart.
fn trigger_name(table: &str, operation: &str) -> String {
    const MOST_BYTES: usize = 63;
    let ending = format!("_sync_{operation}");
    let mut length = table.len().min(MOST_BYTES - ending.len());
    while !table.is_char_boundary(length) {
        length -= 1;
    }
    format!("{}{ending}", &table[..length])
}

/// Puts a table's triggers in place of those it has, and notes which columns they see.
pub fn install(host: &mut PgHost, table: &Table) -> Result<()> {
    let oid = relation::by_name(&table.table_name).ok_or_else(|| Error::not_found(&table.table_name))?;
    let extension = host.extension.clone();
    let _definer = Definer::enter(extension.owner);
    drop_triggers(table)?;
    let name = relation_name(oid);
    let call = format!("EXECUTE FUNCTION {}._sync_capture({})", extension.schema_name, Literal(&table.id.to_string()));
    for (operation, event) in TRIGGERS {
        create_trigger(oid, &trigger_name(&name, operation), event, &format!("ROW {call}"))?;
    }
    let leaves = leaves(oid)?;
    for &leaf in &leaves {
        create_trigger(leaf, &trigger_name(&relation_name(leaf), TRUNCATE), "BEFORE TRUNCATE", &format!("STATEMENT {call}"))?;
    }
    let before = attributes(host, table)?;
    let is_same = relation_of(host, table)? == Some(oid);
    let numbers: Vec<(i16, String)> = relation::columns(oid)
        .into_iter()
        .filter(|c| table.columns.iter().any(|t| t.name == c.name))
        .map(|c| (c.number, c.name))
        .collect();
    let leaves: Vec<String> = leaves.iter().map(|leaf| leaf.to_u32().to_string()).collect();
    let sql = format!(
        "UPDATE {}._sync_tables SET relation = $2::oid::regclass, attributes = $3, leaves = $4::oid[]::regclass[] WHERE table_id = $1",
        extension.schema_name
    );
    let parameters = [
        Parameter::of(ValueRef::Integer(table.id))?,
        Parameter::of(ValueRef::Integer(i64::from(oid.to_u32())))?,
        Parameter::of(ValueRef::Text(&serde_json::json!(numbers).to_string()))?,
        Parameter::of(ValueRef::Text(&format!("{{{}}}", leaves.join(","))))?,
    ];
    spi::execute(&sql, &parameters)?;
    // Another table in the place of one that is gone has numbers of its own.
    let name_now = |(number, old): &(i16, String)| {
        let column = numbers.iter().find(|(n, name)| if is_same { n == number } else { name == old });
        column.map(|(_, name)| name.clone())
    };
    let changed = before.into_iter().map(|column| (name_now(&column), column.1)).filter(|(now, old)| now.as_ref() != Some(old));
    let changed: Vec<(String, Option<String>)> = changed.map(|(now, old)| (old, now)).collect();
    if !changed.is_empty() {
        follow_in_log(host, table, &changed)?;
    }
    host.forget_tables();
    Ok(())
}

/// A trigger that also fires for what logical replication writes, and that DROP EXTENSION takes along.
fn create_trigger(relation: Oid, trigger: &str, event: &str, for_each: &str) -> Result<()> {
    if let Some(is_ours) = trigger_there(relation, trigger)? {
        let table = qualified(relation);
        let reason = match is_ours {
            true => format!("{table} is a partition of a tracked table, and would be logged twice if it or a table of it was tracked as well; track one of them"),
            false => format!("{table} has a trigger of the name {trigger:?}, which capture needs; rename that trigger"),
        };
        return Err(Error::new(Kind::UnsupportedTable, reason));
    }
    let (trigger, relation) = (Identifier(trigger), qualified(relation));
    spi::execute(&format!("CREATE TRIGGER {trigger} {event} ON {relation} FOR EACH {for_each}"), &[])?;
    spi::execute(&format!("ALTER TABLE {relation} ENABLE ALWAYS TRIGGER {trigger}"), &[])?;
    spi::execute(&format!("ALTER TRIGGER {trigger} ON {relation} DEPENDS ON EXTENSION pg_sync"), &[])?;
    Ok(())
}

/// Is there a trigger of this name on a relation, and is it one of ours?
fn trigger_there(relation: Oid, trigger: &str) -> Result<Option<bool>> {
    let sql = "SELECT p.proname = '_sync_capture' FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid \
               WHERE t.tgrelid = $1::oid AND t.tgname = $2";
    let parameters = [Parameter::of(ValueRef::Integer(i64::from(relation.to_u32())))?, Parameter::of(ValueRef::Text(trigger))?];
    spi::run(sql, &parameters, View::Latest, |rows| if rows.len() > 0 { rows.row(0)?.integer(0).map(|ours| Some(ours != 0)) } else { Ok(None) })
        .map(|(_, found)| found)
}

/// The log holds the columns of now under the names of now: who pulls from the beginning has no others. `changed`: the names of before,
/// and those of now or None for a column that is gone.
fn follow_in_log(host: &PgHost, table: &Table, changed: &[(String, Option<String>)]) -> Result<()> {
    /// Entries that are in memory at a time.
    const AT_A_TIME: usize = 1000;
    let log = format!("{}._sync_log_data", host.extension.schema_name);
    let select = format!("SELECT version, pk_value, payload, image FROM {log} WHERE table_id = $1 AND version > $2 ORDER BY version");
    let update = format!("UPDATE {log} SET pk_value = $2, payload = $3, image = $4 WHERE version = $1");
    let mut last = 0;
    loop {
        let mut texts: Vec<(i64, String, [Option<String>; 2])> = Vec::new();
        let bounds = [Parameter::of(ValueRef::Integer(table.id))?, Parameter::of(ValueRef::Integer(last))?];
        spi::stream(&select, &bounds, Aim::FirstRows, |rows, at| {
            let row = rows.row(at)?;
            let follow = |column: usize, kept: bool| row.optional_text(column)?.map(|text| follow_in_text(&text, changed, kept)).transpose();
            let pk_value = follow(1, true)?.ok_or_else(|| Error::corrupt("a log entry without a key"))?;
            texts.push((row.integer(0)?, pk_value, [follow(2, false)?, follow(3, true)?]));
            Ok(texts.len() < AT_A_TIME)
        })?;
        for (version, pk_value, [payload, image]) in &texts {
            let optional = |text: &Option<String>| Parameter::of(text.as_deref().map_or(ValueRef::Null, ValueRef::Text));
            let parameters =
                [Parameter::of(ValueRef::Integer(*version))?, Parameter::of(ValueRef::Text(pk_value))?, optional(payload)?, optional(image)?];
            spi::execute(&update, &parameters)?;
            last = *version;
        }
        if texts.len() < AT_A_TIME {
            return Ok(());
        }
    }
}

/// A text of the log with the names of now. `kept`: also what is gone stays, which keys and what policies asked for cannot do without.
fn follow_in_text(json: &str, changed: &[(String, Option<String>)], kept: bool) -> Result<String> {
    let mut out = String::with_capacity(json.len() + 16);
    for (name, raw) in sync_shared::object_members(json).map_err(Error::corrupt)? {
        let now = match changed.iter().find(|(old, _)| *old == name) {
            Some((_, None)) if !kept => continue,
            Some((_, Some(now))) => now.as_str(),
            _ => name.as_ref(),
        };
        out.push(if out.is_empty() { '{' } else { ',' });
        sync_shared::write_string(&mut out, now);
        out.push(':');
        out.push_str(raw);
    }
    out.push_str(if out.is_empty() { "{}" } else { "}" });
    Ok(out)
}

pub fn remove(host: &mut PgHost, table: &Table) -> Result<()> {
    if relation_of(host, table)?.is_some() {
        let _definer = Definer::enter(host.extension.owner);
        drop_triggers(table)?;
    }
    host.forget_tables();
    Ok(())
}

/// Is capture as `install` would make it? It follows the table's columns by itself, so nothing is ever missed.
pub fn state(host: &mut PgHost, table: &Table) -> Result<CaptureState> {
    let Some(oid) = relation_of(host, table)? else {
        let table_name = relation::by_name(&table.table_name).map(relation::name_of);
        return Ok(CaptureState { table_name, columns: None, intact: false, suspect: true, made_here: None });
    };
    let _definer = Definer::enter(host.extension.owner);
    let sql = "SELECT count(*) FROM pg_catalog.pg_trigger WHERE tgrelid = $1::oid AND tgname IN ($2, $3, $4) AND tgenabled = 'A'";
    let name = relation_name(oid);
    let mut parameters = vec![Parameter::of(ValueRef::Integer(i64::from(oid.to_u32())))?];
    for (operation, _) in TRIGGERS {
        parameters.push(Parameter::of(ValueRef::Text(&trigger_name(&name, operation)))?);
    }
    let (_, count) = spi::run(sql, &parameters, View::Latest, |rows| rows.row(0)?.integer(0))?;
    let mut truncates = 0;
    let leaves = leaves(oid)?;
    for &leaf in &leaves {
        let sql = "SELECT count(*) FROM pg_catalog.pg_trigger WHERE tgrelid = $1::oid AND tgname = $2 AND tgenabled = 'A'";
        let parameters = [
            Parameter::of(ValueRef::Integer(i64::from(leaf.to_u32())))?,
            Parameter::of(ValueRef::Text(&trigger_name(&relation_name(leaf), TRUNCATE)))?,
        ];
        truncates += spi::run(sql, &parameters, View::Latest, |rows| rows.row(0)?.integer(0))?.1;
    }
    let whole = count == TRIGGERS.len() as i64;
    // Rows came or went with a partition that was attached, detached or dropped.
    let strays = our_triggers(table)?.iter().any(|(relation, _)| *relation != oid && !leaves.contains(relation));
    let strays = strays || known_leaves(host, table)?.iter().any(|known| !leaves.contains(known));
    let intact = whole && !strays && truncates == leaves.len() as i64;
    Ok(CaptureState { table_name: Some(relation::name_of(oid)), columns: captured_columns(host, table, oid)?, intact, suspect: !intact || types_changed(table, oid), made_here: None })
}

/// The columns that were captured when capture was installed: attribute numbers, and the names they had.
fn attributes(host: &PgHost, table: &Table) -> Result<Vec<(i16, String)>> {
    let sql = format!("SELECT attributes FROM {}._sync_tables WHERE table_id = $1", host.extension.schema_name);
    let parameters = [Parameter::of(ValueRef::Integer(table.id))?];
    let (_, text) = spi::run(&sql, &parameters, View::Latest, |rows| rows.row(0)?.optional_text(0))?;
    text.map_or(Ok(Vec::new()), |text| serde_json::from_str(&text).map_err(Error::corrupt))
}

/// The tables that held the table's rows when capture was installed.
fn known_leaves(host: &PgHost, table: &Table) -> Result<Vec<Oid>> {
    let sql = format!("SELECT pg_catalog.unnest(leaves)::oid FROM {}._sync_tables WHERE table_id = $1", host.extension.schema_name);
    let parameters = [Parameter::of(ValueRef::Integer(table.id))?];
    let (_, leaves) = spi::run(&sql, &parameters, View::Latest, |rows| {
        Ok((0..rows.len()).filter_map(|at| rows.datum(at, 0)).map(|oid| Oid::from_u32(oid.value() as u32)).collect())
    })?;
    Ok(leaves)
}

/// The captured columns under their names of now; None if one of them is gone.
fn captured_columns(host: &PgHost, table: &Table, oid: Oid) -> Result<Option<Vec<String>>> {
    let known = attributes(host, table)?;
    let live = relation::columns(oid);
    let name_now = |column: &sync_shared::Column| {
        let (number, _) = known.iter().find(|(_, name)| *name == column.name)?;
        live.iter().find(|l| l.number == *number).map(|l| l.name.clone())
    };
    Ok(table.columns.iter().map(name_now).collect())
}

/// Has a column another type than when it was tracked? Then its rows were rewritten without a trigger being fired.
fn types_changed(table: &Table, oid: Oid) -> bool {
    let live = relation::columns(oid);
    table.columns.iter().any(|column| {
        live.iter().find(|l| l.name == column.name).is_some_and(|l| relation::type_name(l.oid, l.typmod) != column.declared)
    })
}

/// The table's relation, whatever its name is now.
pub fn relation_of(host: &PgHost, table: &Table) -> Result<Option<Oid>> {
    let _definer = Definer::enter(host.extension.owner);
    let sql = format!(
        "SELECT c.oid FROM {}._sync_tables AS t JOIN pg_catalog.pg_class AS c ON c.oid = t.relation WHERE t.table_id = $1",
        host.extension.schema_name
    );
    let (_, oid) = spi::run(&sql, &[Parameter::of(ValueRef::Integer(table.id))?], View::Latest, |rows| {
        Ok(if rows.len() > 0 { rows.datum(0, 0) } else { None })
    })?;
    Ok(oid.map(|oid| Oid::from_u32(oid.value() as u32)))
}

fn drop_triggers(table: &Table) -> Result<()> {
    for (relation, name) in our_triggers(table)? {
        spi::execute(&format!("DROP TRIGGER {} ON {}", Identifier(&name), qualified(relation)), &[])?;
    }
    Ok(())
}

/// The capture triggers of a table, also those on what was a partition of it once.
fn our_triggers(table: &Table) -> Result<Vec<(Oid, String)>> {
    let sql = "SELECT t.tgrelid, t.tgname::text FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid \
               WHERE p.proname = '_sync_capture' AND t.tgparentid = 0 AND t.tgargs = pg_catalog.convert_to($1, 'UTF8') || pg_catalog.decode('00', 'hex')";
    let (_, triggers) = spi::run(sql, &[Parameter::of(ValueRef::Text(&table.id.to_string()))?], View::Latest, |rows| {
        let trigger = |at| {
            let row = rows.row(at)?;
            Ok((Oid::from_u32(row.integer(0)? as u32), row.text(1)?.to_owned()))
        };
        (0..rows.len()).map(trigger).collect::<Result<Vec<_>>>()
    })?;
    Ok(triggers)
}

/// The tables that hold a table's rows: its partitions, or itself.
pub fn leaves(relation: Oid) -> Result<Vec<Oid>> {
    let sql = "SELECT relid::oid FROM pg_catalog.pg_partition_tree($1::oid::regclass) WHERE isleaf UNION SELECT $1::oid WHERE NOT EXISTS \
               (SELECT 1 FROM pg_catalog.pg_partition_tree($1::oid::regclass))";
    let parameters = [Parameter::of(ValueRef::Integer(i64::from(relation.to_u32())))?];
    let (_, leaves) = spi::run(sql, &parameters, View::Latest, |rows| {
        let oids = (0..rows.len()).filter_map(|at| rows.datum(at, 0));
        Ok(oids.map(|oid| Oid::from_u32(oid.value() as u32)).collect())
    })?;
    Ok(leaves)
}

fn relation_name(relation: Oid) -> String {
    // SAFETY: a look-up in the catalogue.
    owned(unsafe { pg_sys::get_rel_name(relation) })
}
