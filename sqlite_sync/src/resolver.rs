//! Custom resolvers: an SQL expression over `:local` and `:remote` (JSON text, NULL for a deleted row) that yields the merged row.

use crate::error::engine;
use rusqlite::types::{Null, Value as SqlValue};
use rusqlite::{Connection, Statement};
use sync_shared::{Error, Result};

/// Refuses what is no expression over the two sides.
pub fn check(connection: &Connection, resolver: &str) -> Result<()> {
    let statement = prepare(connection, resolver).map_err(|e| Error::argument(format!("the resolver does not compile: {e}")))?;
    for place in 1..=statement.parameter_count() {
        match statement.parameter_name(place) {
            Some(":local" | ":remote") => {}
            other => return Err(Error::argument(format!("the resolver has the parameter {other:?}; it may use :local and :remote"))),
        }
    }
    Ok(())
}

/// Runs a resolver; `null` means that the row is to be deleted.
pub fn run(connection: &Connection, resolver: &str, local: &str, remote: &str) -> Result<String> {
    let mut statement = prepare(connection, resolver)?;
    for (name, side) in [(":local", local), (":remote", remote)] {
        if let Some(place) = statement.parameter_index(name).map_err(engine)? {
            match side {
                "null" => statement.raw_bind_parameter(place, Null),
                json => statement.raw_bind_parameter(place, json),
            }
            .map_err(engine)?;
        }
    }
    let mut rows = statement.raw_query();
    let row = rows.next().map_err(engine)?.ok_or_else(|| Error::argument("it yields no row"))?;
    match row.get::<_, SqlValue>(0).map_err(engine)? {
        SqlValue::Text(json) => Ok(json),
        SqlValue::Null => Ok("null".to_owned()),
        other => Err(Error::argument(format!("it yields {other:?}, not JSON text"))),
    }
}

fn prepare<'c>(connection: &'c Connection, resolver: &str) -> Result<Statement<'c>> {
    let statement = connection.prepare(&format!("SELECT (\n{resolver}\n)")).map_err(engine)?;
    match statement.readonly() && statement.column_count() == 1 {
        true => Ok(statement),
        false => Err(Error::argument("it is not one expression that only reads")),
    }
}
