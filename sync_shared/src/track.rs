//! `sync_track_table` and `sync_untrack_table`.

use crate::catalog::Catalog;
use crate::check::{unsupported, warnings};
use crate::check_keys::{SAMPLE, spelled_keys};
use crate::conflict::Strategy;
use crate::error::{Error, Kind, Result};
use crate::host::{CaptureState, Host, in_transaction, query_integer};
use crate::init::init;
use crate::reconcile::{Defaults, reconcile_table};
use crate::refresh::{definition_of, forget_hashes, is_another_key, settle, store_definition};
use crate::remade::has_lost_rows;
use crate::state::State;
use crate::table::{Description, Portable, Table};
use crate::uncaptured::Cause;
use crate::value::ValueRef;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;

/// Starts tracking a table, or refreshes capture and options of a tracked one; returns what is tracked as JSON.
///
/// Errors: `TableNotFound`, `UnsupportedTable`, `InvalidArgument`, `SchemaMismatch` for a table that has lost its rows. On an error nothing changed.
pub fn track_table(host: &mut dyn Host, table_name: &str, options: Option<&str>) -> Result<String> {
    let given = parse_options(options)?;
    in_transaction(host, |host| {
        let Some(description) = host.describe(table_name)? else { return Err(Error::not_found(table_name)) };
        if let Some((reason, fix)) = unsupported(&description) {
            return Err(Error::new(Kind::UnsupportedTable, format!("{reason}; {fix}")));
        }
        init(host, None)?;
        let (State { uncaptured, .. }, catalog) = Catalog::open(host)?;
        let mut known = catalog.known(host, &description.table_name)?.map(|index| &catalog.tables[index]);
        known.map_or(Ok(()), |table| uncaptured.check(table))?;
        if known.is_none() {
            known = predecessor(host, &catalog, given.name.as_deref().unwrap_or(&description.table_name))?;
        }
        let wanted = Wanted::new(host, given, known, &description)?;
        if let Some(other) = catalog.tables.iter().find(|t| t.name.eq_ignore_ascii_case(&wanted.name))
            && known.is_none_or(|k| k.id != other.id)
        {
            let (name, there) = (&wanted.name, &other.table_name);
            return Err(Error::argument(format!(
                "the name {name:?} is already that of table {there:?}; give another name, or call sync_untrack_table({there:?}) first if this table \
                 takes its place"
            )));
        }
        let backfilled = apply_tracking(host, &description, known, &wanted)?;
        settle(host)?;
        answer(host, &description, backfilled)
    })
}

/// A table that had this name on the wire, is not tracked any more or is gone, and whose place another takes: its log is gone on with, so
/// that whoever has its rows gets the differences.
fn predecessor<'c>(host: &mut dyn Host, catalog: &'c Catalog, name: &str) -> Result<Option<&'c Table>> {
    let Some(table) = catalog.tables.iter().find(|t| t.name.eq_ignore_ascii_case(name)) else { return Ok(None) };
    let is_left = !table.tracked || host.describe(&table.table_name)?.is_none();
    Ok(is_left.then_some(table))
}

/// Stops tracking. Log entries stay and are still served. False if the table was not tracked.
pub fn untrack_table(host: &mut dyn Host, table_name: &str) -> Result<bool> {
    in_transaction(host, |host| {
        let (State { mut uncaptured, .. }, catalog) = Catalog::open(host)?;
        let index = match catalog.by_name(host, table_name) {
            Ok(index) => index,
            Err(error) if error.kind() == Some(Kind::TableNotTracked) => return Ok(false),
            Err(error) => return Err(error),
        };
        let table = &catalog.tables[index];
        host.remove_capture(table)?;
        uncaptured.set(table, None);
        uncaptured.store(host)?;
        host.execute("UPDATE _sync_tables SET tracked = 0 WHERE table_id = ?1", &[ValueRef::Integer(table.id)])?;
        settle(host)?;
        Ok(true)
    })
}

#[derive(Default)]
struct Given {
    name: Option<String>,
    exclude: Option<Vec<String>>,
    backfill: Option<bool>,
    strategy: Option<Strategy>,
    resolver: Option<String>,
    types: Option<BTreeMap<String, Portable>>,
    user_triggers: Option<bool>,
}

fn parse_options(options: Option<&str>) -> Result<Given> {
    let Some(text) = options else { return Ok(Given::default()) };
    let members: Map<String, Json> = serde_json::from_str(text)
        .map_err(|e| Error::argument(format!("the options are not a JSON object: {e}")))?;
    let mut given = Given::default();
    for (option, value) in members {
        let wrong = |what: &str| Error::argument(format!("option {option:?} must be {what}"));
        match option.as_str() {
            "name" => {
                let name = value.as_str().filter(|n| !n.is_empty()).ok_or_else(|| wrong("a text"))?;
                given.name = Some(name.to_owned());
            }
            "exclude" => {
                let names: Vec<String> = serde_json::from_value(value).map_err(|_| wrong("an array of column names"))?;
                given.exclude = Some(names);
            }
            "backfill" => given.backfill = Some(value.as_bool().ok_or_else(|| wrong("true or false"))?),
            "conflict" => {
                let strategy = value.as_str().and_then(Strategy::named);
                given.strategy = Some(strategy.ok_or_else(|| wrong(Strategy::NAMES))?);
            }
            "resolver" => given.resolver = Some(value.as_str().ok_or_else(|| wrong("a text"))?.to_owned()),
            "types" => {
                let names: BTreeMap<String, String> =
                    serde_json::from_value(value).map_err(|_| wrong("an object of column names and portable types"))?;
                let typed = names.into_iter().map(|(column, name)| match Portable::named(&name) {
                    Some(portable) => Ok((column, portable)),
                    None => Err(Error::argument(format!("there is no portable type {name:?}"))),
                });
                given.types = Some(typed.collect::<Result<_>>()?);
            }
            "userTriggers" => given.user_triggers = Some(value.as_bool().ok_or_else(|| wrong("true or false"))?),
            _ => return Err(Error::argument(format!("there is no option {option:?}"))),
        }
    }
    Ok(given)
}

/// The options in force: what was given, else what was, else the default.
struct Wanted {
    name: String,
    exclude: Vec<String>,
    backfill: bool,
    strategy: Strategy,
    resolver: Option<String>,
    types: BTreeMap<String, Portable>,
    user_triggers: bool,
}

impl Wanted {
    fn new(host: &mut dyn Host, given: Given, known: Option<&Table>, description: &Description) -> Result<Wanted> {
        let column = |name: &str| description.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name));
        for name in given.exclude.iter().flatten() {
            match column(name) {
                Some(index) if description.key.contains(&index) => {
                    return Err(Error::argument(format!("column {name:?} belongs to the primary key and cannot be excluded")));
                }
                Some(_) => {}
                // It is not synced anyway, but may be named by others.
                None if description.generated.iter().any(|g| g.eq_ignore_ascii_case(name)) => {}
                None => return Err(Error::argument(format!("there is no column {name:?} to exclude"))),
            }
        }
        if let Some(name) = given.types.iter().flatten().map(|(name, _)| name).find(|name| column(name).is_none()) {
            return Err(Error::argument(format!("there is no column {name:?} to give a type")));
        }
        if given.user_triggers == Some(false) && !host.can_spare_triggers() {
            return Err(Error::argument(
                "option \"userTriggers\" can be false in PostgreSQL only, from 14 on: SQLite switches all triggers off at once, those too that record \
                 what an applied row causes in other tables",
            ));
        }
        let strategy = given.strategy.or(known.map(|k| k.strategy)).unwrap_or_default();
        let resolver = given.resolver.or_else(|| known.and_then(|k| k.resolver.clone()));
        strategy.check_resolver(host, resolver.as_deref())?;
        Ok(Wanted {
            name: given.name.or_else(|| known.map(|k| k.name.clone())).unwrap_or_else(|| description.name.clone()),
            exclude: given.exclude.or_else(|| known.map(|k| k.exclude.clone())).unwrap_or_default(),
            backfill: given.backfill.unwrap_or(true),
            resolver: resolver.filter(|_| strategy == Strategy::Custom),
            strategy,
            types: given.types.or_else(|| known.map(|k| k.types.clone())).unwrap_or_default(),
            user_triggers: given.user_triggers.or_else(|| known.map(|k| k.user_triggers)).unwrap_or(true),
        })
    }
}

fn apply_tracking(host: &mut dyn Host, description: &Description, known: Option<&Table>, wanted: &Wanted) -> Result<u64> {
    let mut definition = definition_of(description, &wanted.exclude, &wanted.types, wanted.user_triggers);
    if let Some(table) = known {
        let another_key = is_another_key(table, &definition, &str::to_owned);
        definition.rekeyed = if another_key { host.tip()? } else { table.rekeyed };
        if another_key || !wanted.name.eq_ignore_ascii_case(&table.name) {
            forget_hashes(host)?;
        }
    }
    let (id, layout) = match known {
        Some(table) => (table.id, table.layout),
        None => {
            host.execute(
                "INSERT INTO _sync_tables (table_name, name, definition, conflict_strategy, tracked, layout) VALUES (?1, ?2, '', '', 1, 0)",
                &[ValueRef::Text(&description.table_name), ValueRef::Text(&wanted.name)],
            )?;
            let id = query_integer(
                host,
                "SELECT table_id FROM _sync_tables WHERE table_name = ?1",
                &[ValueRef::Text(&description.table_name)],
            )?;
            (id, 0)
        }
    };
    host.execute(
        "UPDATE _sync_tables SET table_name = ?5, name = ?2, conflict_strategy = ?3, resolver = ?4, tracked = 1 WHERE table_id = ?1",
        &[
            ValueRef::Integer(id),
            ValueRef::Text(&wanted.name),
            ValueRef::Text(wanted.strategy.name()),
            wanted.resolver.as_deref().map_or(ValueRef::Null, ValueRef::Text),
            ValueRef::Text(&description.table_name),
        ],
    )?;
    store_definition(host, id, layout, &definition)?;
    let catalog = Catalog::load(host)?;
    let index = catalog.tables.iter().position(|t| t.id == id).ok_or_else(|| Error::corrupt("a table just tracked"))?;
    let table = &catalog.tables[index];
    if known.is_some_and(|known| !known.tracked) && wanted.backfill {
        // Its rows may have been deleted one by one as well: only if none is left this is in doubt.
        let capture = host.capture_state(table)?;
        let capture = CaptureState { made_here: capture.made_here.map(|_| false), ..capture };
        if has_lost_rows(host, &catalog, index, &capture, false)? {
            let mut uncaptured = State::load(host)?.uncaptured;
            uncaptured.set(table, Some(Cause::RowsGone));
            uncaptured.store(host)?;
            return Ok(0);
        }
    }
    host.install_capture(&catalog, table)?;
    match (known, wanted.backfill) {
        (_, false) => Ok(0),
        (None, true) => host.backfill(table),
        (Some(_), true) => reconcile_table(host, &catalog, index, Defaults::Left).map(|n| n as u64),
    }
}

fn answer(host: &mut dyn Host, description: &Description, backfilled: u64) -> Result<String> {
    let catalog = Catalog::load(host)?;
    let index = catalog.by_name(host, &description.table_name)?;
    let table = &catalog.tables[index];
    let found = warnings(description).into_iter().chain(spelled_keys(host, description, &table.types, SAMPLE)?);
    let mut warnings: Vec<String> = found.map(|w| format!("{}: {}; {}", w.code, w.message, w.fix)).collect();
    warnings.extend(State::load(host)?.uncaptured.check(table).err().map(|error| error.to_string()));
    Ok(json!({
        "table": table.table_name,
        "name": table.name,
        "primaryKey": table.key_names(),
        "columns": table.column_names(),
        "userTriggers": table.user_triggers,
        "backfilled": backfilled,
        "warnings": warnings,
    })
    .to_string())
}
