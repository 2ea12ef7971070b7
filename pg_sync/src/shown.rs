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
use crate::spi::{self, Parameter};
use crate::tables::TablePlan;
use std::collections::HashMap;
use std::rc::Rc;
use sync_shared::{Catalog, Error, Kind, LogEntry, LogRange, LogText, Operation, Result, Value};

/// Entries that are looked at together: few at first, for often not many are asked for.
const FIRST_AT_A_TIME: usize = 32;
const MOST_AT_A_TIME: usize = 512;

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
    let (mut after, mut at_a_time) = (range.after, FIRST_AT_A_TIME);
    loop {
        let kept = keep(host, catalog, LogRange { after, ..range }, at_a_time)?;
        let mut rows = visible_rows(&views, catalog, &kept)?;
        for (entry, row) in kept.iter().zip(&mut rows) {
            let shown = match views.get(&catalog.tables[entry.table].id) {
                None => Shown::AsLogged,
                Some(View::Hidden) => Shown::Nothing,
                Some(View::Columns) => Shown::Columns,
                Some(View::Rows(_, policy)) => match (row.take(), &entry.image) {
                    (Some(row), _) => Shown::Row(row),
                    (None, Some(image)) if policy.shows(image)? => Shown::Gone,
                    _ => Shown::Nothing,
                },
            };
            if !show(catalog, entry, &shown, visit)? {
                return Ok(());
            }
        }
        match kept.last() {
            Some(last) if kept.len() == at_a_time => after = last.version,
            _ => return Ok(()),
        }
        at_a_time = MOST_AT_A_TIME.min(2 * at_a_time);
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
            Ok(None) => View::Hidden,
            Err(error) if error.kind() == Some(Kind::PermissionDenied) => View::Hidden,
            Err(error) => return Err(error),
        };
        views.insert(table.id, view);
    }
    Ok(views)
}

fn keep(host: &mut PgHost, catalog: &Catalog, range: LogRange, at_a_time: usize) -> Result<Vec<Kept>> {
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
        Ok(kept.len() < at_a_time)
    })?;
    Ok(kept)
}

/// For each entry that is no delete, of a table with row-level security: the payload of its row, if the caller may see it.
fn visible_rows(views: &HashMap<i64, View>, catalog: &Catalog, kept: &[Kept]) -> Result<Vec<Option<String>>> {
    let mut found: Vec<Option<String>> = kept.iter().map(|_| None).collect();
    for (index, table) in catalog.tables.iter().enumerate() {
        let Some(View::Rows(plan, _)) = views.get(&table.id) else { continue };
        let (mut keys, mut places): (Vec<Parameter>, Vec<(String, usize)>) = (Vec::new(), Vec::new());
        for (place, entry) in kept.iter().enumerate().filter(|(_, entry)| entry.table == index && entry.operation != Operation::Delete) {
            let key = Stored::new(table, &entry.pk_value).key()?;
            match plan.key_if_possible(&key).as_deref() {
                Some([only]) if plan.has_exact_key && plan.has_array_of_keys() => {
                    places.push((plan.write_key(&[*only])?, place));
                    keys.push(*only);
                }
                _ => found[place] = visible_row(plan, &key)?,
            }
        }
        let Some(array) = spi::array(&keys) else { continue };
        let rows: HashMap<String, String> = spi::read_sheltered(&plan.select_rows(), &[array], spi::EVERY_ROW, |rows| {
            (0..rows.len()).map(|row| Ok((plan.write_key_of(rows, row)?, plan.write_payload(rows, row)?))).collect()
        })?;
        places.iter().for_each(|(text, place)| found[*place] = rows.get(text).cloned());
    }
    Ok(found)
}

/// The payload of a row that the caller may see.
pub fn visible_row(plan: &TablePlan, key: &[Value]) -> Result<Option<String>> {
    let Some(key) = plan.key_if_possible(key) else { return Ok(None) };
    spi::read_sheltered(&plan.select_row(), &key, 1, |rows| match rows.len() {
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
