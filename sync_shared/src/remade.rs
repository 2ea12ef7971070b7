//! A tracked table that is there without its triggers: was it rebuilt, or dropped and made again?
//!
//! A rebuilt table (a new one, filled from the old, which it replaces) has the rows of the old one, but for those that were deleted on the
//! way. To take a table that was dropped and made again for one would delete its rows on every replica, so in doubt the caller is asked:
//! `sync_reconcile` says that the rows are gone, `sync_begin_resync` puts them back, as the log has them.

use crate::catalog::Catalog;
use crate::error::{Error, Kind, Result};
use crate::host::{CaptureState, Host};
use crate::log_entry::LogRange;
use crate::reconcile::{Defaults, find_missing, reconcile_table};
use crate::refresh::settle;
use crate::state::State;
use crate::value::{Value, ValueRef};

/// Are so many of a table's rows gone that it is no rebuilt one? Not one is left; or, if the table was made under its name and not
/// renamed to it, fewer than are gone. `known`: this was said of the table before.
pub fn has_lost_rows(host: &mut dyn Host, catalog: &Catalog, index: usize, capture: &CaptureState, known: bool) -> Result<bool> {
    let Some(made_here) = capture.made_here.filter(|_| capture.columns.is_none()) else { return Ok(false) };
    let missing = find_missing(host, catalog, index)?;
    let gone = missing.gone.len();
    Ok(gone > 0 && (known || missing.kept == 0 || (made_here && gone > missing.kept)))
}

/// Captures the tables again that have lost their rows, after these were put back.
///
/// Errors: `SchemaMismatch` if the table does not take a row any more.
pub fn put_back_all(host: &mut dyn Host) -> Result<()> {
    let (State { mut uncaptured, .. }, catalog) = Catalog::open(host)?;
    let lost: Vec<usize> = catalog.tracked().filter(|(_, table)| uncaptured.has_lost_rows(table)).map(|(index, _)| index).collect();
    if lost.is_empty() {
        return Ok(());
    }
    // Parents may come after their children.
    host.begin_references()?;
    let put_back = lost.iter().try_for_each(|&index| put_back(host, &catalog, index));
    host.end_references()?;
    put_back?;
    for index in lost {
        let table = &catalog.tables[index];
        host.install_capture(&catalog, table)?;
        reconcile_table(host, &catalog, index, Defaults::Left)?;
        uncaptured.set(table, None);
    }
    uncaptured.store(host)?;
    settle(host)
}

/// Nothing is logged: the table has no triggers, and the log has the rows already.
fn put_back(host: &mut dyn Host, catalog: &Catalog, index: usize) -> Result<()> {
    let table = &catalog.tables[index];
    for version in find_missing(host, catalog, index)?.gone {
        let (mut row, mut key) = (Vec::new(), String::new());
        host.read_log(catalog, LogRange::exactly(version), &mut |entry| {
            let value = |column| Ok(entry.fields.value(column)?.map(ValueRef::to_owned));
            row = (0..table.columns.len()).map(value).collect::<Result<Vec<Option<Value>>>>()?;
            entry.write_key(&mut key)?;
            Ok(true)
        })?;
        if let Err(failure) = host.put_row(table, &row, None, false) {
            let message = format!("row {key} of table {:?} cannot be put back: {}", table.table_name, failure.into_reason()?.message);
            return Err(Error::new(Kind::SchemaMismatch, message));
        }
    }
    Ok(())
}
