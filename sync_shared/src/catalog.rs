//! The tracked tables and the layouts of the log, read once per call.

use crate::conflict::Strategy;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::refresh::refresh;
use crate::state::State;
use crate::table::{Definition, Layout, Table};
use std::collections::HashMap;

#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub tables: Vec<Table>,
    pub layouts: HashMap<i64, Layout>,
}

impl Catalog {
    pub fn load(host: &mut dyn Host) -> Result<Catalog> {
        let mut tables: Vec<Table> = Vec::new();
        host.query(
            "SELECT table_id, table_name, name, definition, conflict_strategy, resolver, layout, tracked FROM _sync_tables ORDER BY table_id",
            &[],
            &mut |row| {
                let definition: Definition = serde_json::from_str(row.text(3)?).map_err(Error::corrupt)?;
                let strategy = Strategy::named(row.text(4)?)
                    .ok_or_else(|| Error::corrupt("an unknown conflict strategy in _sync_tables"))?;
                tables.push(Table::new(
                    (row.integer(0)?, row.integer(6)?, row.integer(7)? != 0),
                    (row.text(1)?.to_owned(), row.text(2)?.to_owned()),
                    definition,
                    (strategy, row.optional_text(5)?),
                ));
                Ok(true)
            },
        )?;
        let mut layouts = HashMap::new();
        host.query("SELECT layout, table_id, columns FROM _sync_layouts", &[], &mut |row| {
            let names: Vec<String> = serde_json::from_str(row.text(2)?).map_err(Error::corrupt)?;
            let (layout, table_id) = (row.integer(0)?, row.integer(1)?);
            let table = tables.iter().position(|t| t.id == table_id);
            let places = table.map_or_else(Vec::new, |t| {
                let place = |column: &str| names.iter().position(|n| n.eq_ignore_ascii_case(column));
                tables[t].columns.iter().map(|c| place(&c.name)).collect()
            });
            layouts.insert(layout, Layout { layout, table, places, names });
            Ok(true)
        })?;
        Ok(Catalog { tables, layouts })
    }

    /// State and catalogue, after capture has followed whatever happened to the tables' definitions.
    pub fn open(host: &mut dyn Host) -> Result<(State, Catalog)> {
        let state = State::load(host)?;
        if host.schema_cookie()? == state.schema_cookie {
            return Ok((state, Catalog::load(host)?));
        }
        refresh(host)?;
        Ok((State::load(host)?, Catalog::load(host)?))
    }

    /// The table of a name on the wire: exactly, else without regard to ASCII case, else by its name here.
    pub fn by_wire_name(&self, name: &str) -> Option<usize> {
        let find = |matches: &dyn Fn(&Table) -> bool| self.tables.iter().position(|t| t.tracked && matches(t));
        find(&|t| t.name == name)
            .or_else(|| find(&|t| t.name.eq_ignore_ascii_case(name)))
            .or_else(|| find(&|t| t.table_name.eq_ignore_ascii_case(name)))
    }

    /// The tracked tables, by index.
    pub fn tracked(&self) -> impl Iterator<Item = (usize, &Table)> {
        self.tables.iter().enumerate().filter(|(_, t)| t.tracked)
    }

    /// The tracked table that a caller of this database means. Whether the case of a name counts is for the engine to say.
    pub fn by_name(&self, host: &mut dyn Host, name: &str) -> Result<usize> {
        if let Some((index, _)) = self.tracked().find(|(_, t)| t.table_name == name) {
            return Ok(index);
        }
        let meant = host.describe(name)?.map(|description| description.table_name);
        match self.known(host, meant.as_deref().unwrap_or(name))? {
            Some(index) if self.tables[index].tracked => Ok(index),
            _ => Err(if meant.is_some() { Error::not_tracked(name) } else { Error::not_found(name) }),
        }
    }

    /// The table of a name as the engine's catalogue spells it, tracked or not any more. One of another case is the same table if
    /// there is none in the database that is spelled like that.
    pub fn known(&self, host: &mut dyn Host, table_name: &str) -> Result<Option<usize>> {
        if let Some(index) = self.tables.iter().position(|t| t.table_name == table_name) {
            return Ok(Some(index));
        }
        for (index, table) in self.tables.iter().enumerate() {
            if table.table_name.eq_ignore_ascii_case(table_name)
                && host.describe(&table.table_name)?.is_none_or(|other| other.table_name != table.table_name)
            {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }
}

/// Why a name is not that of a tracked table.
pub fn missing_table(host: &mut dyn Host, name: &str) -> Result<Error> {
    let exists = host.describe(name)?.is_some();
    Ok(if exists { Error::not_tracked(name) } else { Error::not_found(name) })
}
