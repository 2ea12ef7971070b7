//! The log as a caller may see it who may not read its tables whole.
//!
//! Only the scan of the log runs as somebody else; what is handed out of a row is read from the table, as the caller. On a table with
//! row-level security a change of a row that the caller sees is shown with the row as it is now. A row that it does not see, or that is
//! gone, is shown as a delete of its key, if the table's policies would have shown the row as it was before the change; else not at all.
//! A caller whom only columns are granted gets the synced columns, whatever was synced of the table before.

use crate::host::PgHost;
use crate::log::{self, Stored};
use crate::policy::Policy;
use crate::rights::{Access, access};
use crate::spi;
use crate::tables::TablePlan;
use std::collections::HashMap;
use std::rc::Rc;
use sync_shared::{Catalog, Error, Kind, LogEntry, LogRange, LogText, Operation, Result, Value};

/// Entries that are looked at together.
const AT_A_TIME: usize = 500;

enum View {
    Hidden,
    Columns,
    Rows(Rc<TablePlan>, Policy),
}

/// An entry taken out of the log.
struct Kept {
    /// Index into the catalogue's tables.
    table: usize,
    version: i64,
    operation: Operation,
    origin: i64,
    stamp: i64,
    via: Option<i64>,
    contested: bool,
    pk_value: String,
    payload: Option<String>,
    image: Option<String>,
}

/// What is shown of an entry.
enum Shown {
    AsLogged,
    Columns,
    Row(String),
    Gone,
    Nothing,
}

pub fn read(host: &mut PgHost, catalog: &Catalog, range: LogRange, visit: &mut dyn FnMut(&LogEntry<'_>) -> Result<bool>) -> Result<()> {
    let views = views(host, catalog)?;
    if views.is_empty() {
        return log::read(host, catalog, range, &mut |entry, _| visit(entry));
    }
    let mut after = range.after;
    loop {
        let kept = keep(host, catalog, LogRange { after, ..range })?;
        for entry in &kept {
            let shown = match views.get(&catalog.tables[entry.table].id) {
                None => Shown::AsLogged,
                Some(View::Hidden) => Shown::Nothing,
                Some(View::Columns) => Shown::Columns,
                Some(View::Rows(plan, policy)) => look_at(plan, policy, catalog, entry)?,
            };
            if !show(catalog, entry, &shown, visit)? {
                return Ok(());
            }
        }
        match kept.last() {
            Some(last) if kept.len() == AT_A_TIME => after = last.version,
            _ => return Ok(()),
        }
    }
}

/// By table, where the caller may not see all of it.
fn views(host: &mut PgHost, catalog: &Catalog) -> Result<HashMap<i64, View>> {
    let mut views = HashMap::new();
    for table in &catalog.tables {
        let view = match access(host, table) {
            Ok(Some(Access::WHOLE)) => continue,
            Ok(Some(Access { rows: true, .. })) => View::Rows(host.plan(table)?, Policy::of(host, table)?),
            Ok(Some(_)) => View::Columns,
            Ok(None) | Err(Error::Sync { kind: Kind::PermissionDenied, .. }) => View::Hidden,
            Err(error) => return Err(error),
        };
        views.insert(table.id, view);
    }
    Ok(views)
}

fn keep(host: &mut PgHost, catalog: &Catalog, range: LogRange) -> Result<Vec<Kept>> {
    let mut kept = Vec::new();
    log::read(host, catalog, range, &mut |entry, image| {
        let text = entry.text.ok_or_else(|| Error::corrupt("an entry without its text"))?;
        kept.push(Kept {
            table: catalog.tables.iter().position(|t| t.id == entry.table.id).unwrap_or(0),
            version: entry.version,
            operation: entry.operation,
            origin: entry.origin,
            stamp: entry.stamp,
            via: entry.via,
            contested: entry.contested,
            pk_value: text.pk_value.to_owned(),
            payload: text.payload.map(str::to_owned),
            image: image.map(str::to_owned),
        });
        Ok(kept.len() < AT_A_TIME)
    })?;
    Ok(kept)
}

fn look_at(plan: &TablePlan, policy: &Policy, catalog: &Catalog, entry: &Kept) -> Result<Shown> {
    if entry.operation != Operation::Delete {
        let key = Stored::new(&catalog.tables[entry.table], &entry.pk_value).key()?;
        if let Some(row) = visible_row(plan, &key)? {
            return Ok(Shown::Row(row));
        }
    }
    match &entry.image {
        Some(image) if policy.shows(image)? => Ok(Shown::Gone),
        _ => Ok(Shown::Nothing),
    }
}

/// The payload of a row that the caller may see.
pub fn visible_row(plan: &TablePlan, key: &[Value]) -> Result<Option<String>> {
    let Some(key) = plan.key_if_possible(key) else { return Ok(None) };
    spi::read_sheltered(&plan.select_row(), &key, |rows| match rows.len() {
        0 => Ok(None),
        _ => plan.write_payload(rows, 0).map(Some),
    })
}

fn show(catalog: &Catalog, kept: &Kept, shown: &Shown, visit: &mut dyn FnMut(&LogEntry<'_>) -> Result<bool>) -> Result<bool> {
    let table = &catalog.tables[kept.table];
    let payload = match shown {
        Shown::Row(row) => Some(row.as_str()),
        Shown::Gone | Shown::Nothing => None,
        Shown::AsLogged | Shown::Columns => kept.payload.as_deref(),
    };
    let fields = Stored::new(table, payload.unwrap_or(&kept.pk_value));
    visit(&LogEntry {
        version: kept.version,
        table,
        operation: if matches!(shown, Shown::Gone | Shown::Nothing) { Operation::Delete } else { kept.operation },
        origin: kept.origin,
        stamp: kept.stamp,
        via: kept.via,
        contested: kept.contested,
        shown: !matches!(shown, Shown::Nothing),
        // Without its text an entry is written from the columns that are synced now.
        text: (!matches!(shown, Shown::Columns)).then_some(LogText { pk_value: &kept.pk_value, payload }),
        fields: &fields,
    })
}
