//! `sync_execute_untracked`: one statement that capture does not see.
//!
//! Capture is taken off and put on again around the statement, in one transaction, so no other connection ever writes without it.
//! It is also the way to `ALTER TABLE ... DROP COLUMN` in SQLite, which refuses to drop a column that a trigger names.

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::host::{Host, in_transaction};
use crate::refresh::{definition_of, settle, store_definition};

/// Runs one statement without capturing what it changes; returns the number of rows.
pub fn execute_untracked(host: &mut dyn Host, statement: &str) -> Result<i64> {
    in_transaction(host, |host| {
        let (_, catalog) = Catalog::open(host)?;
        for (_, table) in catalog.tracked() {
            host.remove_capture(table)?;
        }
        let rows = host.execute_user(statement)?;
        for (_, table) in catalog.tracked() {
            let Some(description) = host.describe(&table.table_name)? else { continue };
            let definition = definition_of(&description, &table.exclude, &table.types, table.user_triggers);
            if definition.key.is_empty() {
                return Err(Error::argument(format!("the statement would leave table {:?} without its key", table.table_name)));
            }
            store_definition(host, table.id, table.layout, &definition)?;
        }
        let catalog = Catalog::load(host)?;
        for (_, table) in catalog.tracked() {
            if host.describe(&table.table_name)?.is_some() {
                host.install_capture(&catalog, table)?;
            }
        }
        settle(host)?;
        Ok(rows as i64)
    })
}
