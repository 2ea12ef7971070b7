//! Which rows refer to a row that is not there, found out for many at a time before they are put.
//!
//! The server refuses them when they are put, one error each, and with them all that is put together with them. This only foresees it: an
//! orphan is still the server's to refuse. A table that is referred to is looked into as its owner, as the server does.

use crate::definer::{Definer, SafePath};
use crate::host::PgHost;
use crate::quote::{Identifier, rows_of};
use crate::references::parent_hash;
use crate::spi::{self, Parameter, View};
use crate::tables::TablePlan;
use pgrx::pg_sys::Oid;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use sync_shared::{Catalog, Reference, Result, Row as _, Table, Value, ValueRef, Violation, write_payload};

/// A foreign key that is checked at once.
pub struct Key {
    parent: Oid,
    /// Does it refer to the table itself?
    is_own: bool,
    reference: Reference,
    /// The referring columns: indices into the table's.
    columns: Vec<usize>,
    /// The columns referred to, where the table refers to itself.
    own_columns: Vec<usize>,
    /// How the columns are compared, with its schema: the one referred to stands at the left.
    operators: Vec<String>,
    /// Are equal values always the same in their canonical form?
    is_exact: bool,
}

pub fn orphans(host: &mut PgHost, catalog: &Catalog, table: &Table, rows: &[&[Option<Value>]]) -> Result<Vec<Violation>> {
    let plan = host.plan(table)?;
    let mut found: HashMap<usize, Violation> = HashMap::new();
    for key in keys(&plan, table)?.iter() {
        for row in key.without_parent(&plan, rows)? {
            let reference = &key.reference;
            let message = format!("FOREIGN KEY ({}): there is no such row in {:?}", reference.columns.join(", "), reference.parent);
            let values: Vec<Value> = rows[row].iter().map(|value| value.clone().unwrap_or(Value::Null)).collect();
            let missing = if key.is_exact { parent_hash(catalog, table, reference, &values)? } else { None };
            found.entry(row).or_insert(Violation { row, message, missing });
        }
    }
    if !found.is_empty() {
        // They will be tried by themselves in the end, and fail: that must not undo the others.
        host.be_careful();
    }
    Ok(found.into_values().collect())
}

/// The foreign keys of a table that are checked at once.
fn keys(plan: &TablePlan, table: &Table) -> Result<Rc<[Key]>> {
    if let Some(known) = plan.foreign_keys.get() {
        return Ok(known.clone());
    }
    let sql = "SELECT c.oid, c.confrelid, a.attname::text, p.attname::text, n.nspname::text, o.oprname::text, \
               a.atttypid = p.atttypid OR (a.atttypid IN (20, 21, 23) AND p.atttypid IN (20, 21, 23)), \
               coalesce(l.collisdeterministic, true) AND p.atttypid IN (16, 17, 20, 21, 23, 25, 1043, 2950) \
               FROM pg_constraint AS c \
               CROSS JOIN LATERAL ROWS FROM (unnest(c.conkey), unnest(c.confkey), unnest(c.conpfeqop)) \
               WITH ORDINALITY AS k (child, parent, operator, place) \
               JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.child \
               JOIN pg_attribute AS p ON p.attrelid = c.confrelid AND p.attnum = k.parent \
               LEFT JOIN pg_collation AS l ON l.oid = p.attcollation \
               JOIN pg_operator AS o ON o.oid = k.operator JOIN pg_namespace AS n ON n.oid = o.oprnamespace \
               WHERE c.conrelid = $1::oid AND c.contype = 'f' AND NOT c.condeferrable ORDER BY c.conname, c.oid, k.place";
    let _path = SafePath::enter();
    let mut keys: Vec<(i64, Key)> = Vec::new();
    spi::run(sql, &[Parameter::of(ValueRef::Integer(i64::from(plan.relation.to_u32())))?], View::Latest, |rows| {
        for at in 0..rows.len() {
            let row = rows.row(at)?;
            let (id, parent) = (row.integer(0)?, Oid::from_u32(row.integer(1)? as u32));
            if keys.last().is_none_or(|(last, _)| *last != id) {
                let reference = Reference { columns: Vec::new(), parent: crate::relation::name_of(parent), parent_columns: Vec::new() };
                let is_own = parent == plan.relation;
                let (columns, own_columns, operators) = (Vec::new(), Vec::new(), Vec::new());
                keys.push((id, Key { parent, is_own, reference, columns, own_columns, operators, is_exact: true }));
            }
            let Some((_, key)) = keys.last_mut() else { continue };
            let place = |name: &str| table.columns.iter().position(|c| c.name == name);
            key.columns.extend(place(row.text(2)?));
            key.own_columns.extend(place(row.text(3)?));
            key.operators.push(format!("OPERATOR({}.{})", Identifier(row.text(4)?), row.text(5)?));
            key.is_exact &= row.integer(6)? != 0 && row.integer(7)? != 0;
            key.reference.columns.push(row.text(2)?.to_owned());
            key.reference.parent_columns.push(row.text(3)?.to_owned());
        }
        Ok(())
    })?;
    // A column that is not synced has its value from elsewhere.
    let known = keys.into_iter().map(|(_, key)| key).filter(|key| key.columns.len() == key.reference.columns.len());
    let keys: Rc<[Key]> = known.collect();
    plan.foreign_keys.set(keys.clone()).ok();
    Ok(keys)
}

impl Key {
    /// The rows whose parent is neither there nor among the rows before them.
    fn without_parent(&self, plan: &TablePlan, rows: &[&[Option<Value>]]) -> Result<Vec<usize>> {
        let mut places: HashMap<String, usize> = HashMap::new();
        let (mut wanted, mut asking): (Vec<Vec<Parameter>>, Vec<(usize, usize)>) = (vec![Vec::new(); self.columns.len()], Vec::new());
        let mut before: HashSet<String> = HashSet::new();
        for (at, row) in rows.iter().enumerate() {
            // What is itself can refer to itself.
            if let Some(own) = self.own_columns_of(row) {
                before.insert(own);
            }
            let Some(text) = text_of(row, &self.columns).filter(|text| !before.contains(text)) else { continue };
            if let Some(&place) = places.get(&text) {
                asking.push((at, place));
                continue;
            }
            let values = self.columns.iter().map(|&c| {
                let value = row[c].as_ref()?;
                let datum = plan.columns[c].datum_caught(value).ok().flatten()?;
                Some(Parameter { oid: plan.columns[c].oid, datum: Some(datum) })
            });
            // What the column cannot hold is refused for that.
            let Some(values) = values.collect::<Option<Vec<Parameter>>>() else { continue };
            asking.push((at, places.len()));
            places.insert(text, places.len());
            wanted.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
        }
        if asking.is_empty() {
            return Ok(Vec::new());
        }
        let missing = self.missing(&wanted)?;
        Ok(asking.into_iter().filter(|(_, place)| missing.contains(place)).map(|(at, _)| at).collect())
    }

    fn own_columns_of(&self, row: &[Option<Value>]) -> Option<String> {
        if self.is_own && self.own_columns.len() == self.columns.len() { text_of(row, &self.own_columns) } else { None }
    }

    /// Which of these values, given by column, are in no row of the table that is referred to.
    fn missing(&self, wanted: &[Vec<Parameter>]) -> Result<HashSet<usize>> {
        let Some(arrays) = wanted.iter().map(|column| spi::array(column)).collect::<Option<Vec<Parameter>>>() else {
            return Ok(HashSet::new());
        };
        if arrays.iter().any(|array| array.oid == Oid::INVALID) {
            return Ok(HashSet::new());
        }
        let lists: Vec<String> = (1..=arrays.len()).map(|slot| format!("pg_catalog.unnest(${slot})")).collect();
        let names: Vec<String> = (1..=arrays.len()).map(|slot| format!("v{slot}")).collect();
        let terms = self.reference.parent_columns.iter().zip(&self.operators).zip(&names);
        let terms: Vec<String> = terms.map(|((parent, operator), name)| format!("p.{} {operator} u.{name}", Identifier(parent))).collect();
        // One look into the index for each: with OFFSET it stays a query of its own.
        let sql = format!(
            "SELECT u.place FROM ROWS FROM ({}) WITH ORDINALITY AS u ({}, place) WHERE NOT EXISTS (SELECT 1 FROM {} AS p WHERE {} OFFSET 0)",
            lists.join(", "),
            names.join(", "),
            rows_of(self.parent),
            terms.join(" AND ")
        );
        let _definer = Definer::owner_of(self.parent);
        let _path = SafePath::by_index();
        let (_, missing) = spi::run(&sql, &arrays, View::Latest, |rows| {
            Ok((0..rows.len()).filter_map(|row| rows.datum(row, 0)).map(|place| place.value() - 1).collect())
        })?;
        Ok(missing)
    }
}

/// Values of columns as a text that is equal if they are; None if one is NULL or not given.
fn text_of(row: &[Option<Value>], columns: &[usize]) -> Option<String> {
    let mut text = String::new();
    for &column in columns {
        match row.get(column)?.as_ref()? {
            Value::Null => return None,
            value => write_payload(&mut text, value.as_ref()),
        }
        text.push(',');
    }
    Some(text)
}
