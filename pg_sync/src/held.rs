//! Locks that a call holds: rows that are there, and tables.

use std::collections::HashMap;

/// Each lock has the number of units of work that were open when it was taken: it goes with the unit that it was taken in.
#[derive(Default)]
pub struct Held {
    units: usize,
    /// By `Table::id` and key.
    rows: HashMap<i64, HashMap<String, usize>>,
    /// By `Table::id`.
    tables: HashMap<i64, usize>,
}

impl Held {
    pub fn has_row(&self, table: i64, pk_value: &str) -> bool {
        self.rows.get(&table).is_some_and(|rows| rows.contains_key(pk_value))
    }

    pub fn add_row(&mut self, table: i64, pk_value: &str) {
        self.rows.entry(table).or_default().entry(pk_value.to_owned()).or_insert(self.units);
    }

    /// The row is not there any more.
    pub fn forget_row(&mut self, table: i64, pk_value: &str) {
        if let Some(rows) = self.rows.get_mut(&table) {
            rows.remove(pk_value);
        }
    }

    pub fn has_table(&self, table: i64) -> bool {
        self.tables.contains_key(&table)
    }

    pub fn add_table(&mut self, table: i64) {
        self.tables.entry(table).or_insert(self.units);
    }

    pub fn unit_begins(&mut self) {
        self.units += 1;
    }

    /// A lock that was taken within the unit goes with it, or is the outer one's.
    pub fn unit_ends(&mut self, keep: bool) {
        self.units -= 1;
        let outer = self.units;
        for locks in self.rows.values_mut() {
            pass_on(locks, outer, keep);
        }
        pass_on(&mut self.tables, outer, keep);
    }
}

fn pass_on<K>(locks: &mut HashMap<K, usize>, outer: usize, keep: bool) {
    locks.retain(|_, units| keep || *units <= outer);
    locks.values_mut().for_each(|units| *units = outer.min(*units));
}
