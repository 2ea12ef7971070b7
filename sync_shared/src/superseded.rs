//! Entries of the log that cannot be read: a text in them is not valid UTF-8, which SQLite allows.
//!
//! As long as such an entry is what its row is, whoever asks for it gets the error that names the row. Once the row was corrected or deleted
//! a newer entry says all there is to say of it, and the old one is passed over.

use crate::catalog::Catalog;
use crate::change::Operation;
use crate::error::{Error, Kind, Result};
use crate::host::Host;
use crate::log_entry::LogRange;
use crate::table::RowHash;
use std::collections::{HashMap, HashSet};

/// Runs a pass over the log above a version, and once more without the superseded entries that cannot be read if it meets such a one.
/// The pass is told which to leave out.
///
/// Memory: about 40 bytes per row that the log has above the version, and only if there is an entry that cannot be read.
pub fn without_unreadable<T>(
    host: &mut dyn Host,
    catalog: &Catalog,
    after: i64,
    mut pass: impl FnMut(&mut dyn Host, &HashSet<i64>) -> Result<T>,
) -> Result<T> {
    match pass(host, &HashSet::new()) {
        Err(error) if is_unreadable(&error) => {
            let superseded = find_superseded(host, catalog, after)?;
            if superseded.is_empty() { Err(error) } else { pass(host, &superseded) }
        }
        done => done,
    }
}

/// Is this the error of a text that is not valid UTF-8?
pub fn is_unreadable(error: &Error) -> bool {
    error.kind() == Some(Kind::InvalidArgument)
}

/// The entries above a version that cannot be read and that nobody needs: their rows have newer ones, or they are deletes of rows that nobody
/// else can have.
fn find_superseded(host: &mut dyn Host, catalog: &Catalog, after: i64) -> Result<HashSet<i64>> {
    let mut newest: HashMap<RowHash, i64> = HashMap::new();
    let (mut unreadable, mut superseded) = (Vec::new(), HashSet::new());
    host.read_log(catalog, LogRange::after(after), &mut |entry| {
        let hash = entry.row_hash()?;
        newest.insert(hash, entry.version);
        let mut text = String::new();
        let written = match entry.operation {
            Operation::Delete => entry.write_key(&mut text),
            _ => entry.write_payload(&mut text),
        };
        match written {
            Err(error) if is_unreadable(&error) && entry.operation == Operation::Delete => {
                superseded.insert(entry.version);
            }
            Err(error) if is_unreadable(&error) => unreadable.push((hash, entry.version)),
            written => written?,
        }
        Ok(true)
    })?;
    superseded.extend(unreadable.into_iter().filter(|(hash, version)| newest.get(hash) > Some(version)).map(|(_, version)| version));
    Ok(superseded)
}
