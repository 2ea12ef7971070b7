//! What is known of a tracked table while one call works on it: its relation, the types of its columns, and its statements.
#![allow(unsafe_code)]

use crate::convert::ColumnType;
use crate::form::Form;
use crate::orphans::Key;
use crate::pending::{Written, WrittenColumns};
use crate::quote::{Identifier, list, qualified, rows_of};
use crate::relation;
use crate::sparing;
use crate::spi::{Parameter, Rows};
use crate::together::Sets;
use pgrx::pg_sys::{self, Oid};
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use sync_shared::{Error, Result, Table, Value};

pub struct TablePlan {
    pub id: i64,
    pub relation: Oid,
    /// Quoted, with its schema.
    pub name: String,
    /// As `name`, for a statement over its rows.
    pub rows: String,
    /// By column of the core's table.
    pub columns: Vec<ColumnType>,
    /// Indices into `columns`, in key order.
    pub key: Vec<usize>,
    /// The key's columns in the table's order.
    pub key_members: Vec<usize>,
    members: Vec<String>,
    /// The sequences that number columns.
    pub sequences: Vec<Option<Oid>>,
    /// Is the key one column, whose values are only equal if they are written in the same way?
    pub has_exact_key: bool,
    /// Can the key decide an ON CONFLICT?
    pub has_arbiter: bool,
    /// Found out when it is asked for.
    pub sets: Cell<Option<Sets>>,
    pub foreign_keys: OnceCell<Rc<[Key]>>,
    /// What [`TablePlan::written`] gave last.
    written: RefCell<Option<(Vec<usize>, WrittenColumns)>>,
}

impl TablePlan {
    pub fn new(table: &Table) -> Result<TablePlan> {
        let oid = relation::by_name(&table.table_name).ok_or_else(|| Error::not_found(&table.table_name))?;
        sparing::choose(oid, !table.user_triggers);
        let live = relation::columns(oid);
        let (mut columns, mut sequences) = (Vec::with_capacity(table.columns.len()), Vec::with_capacity(table.columns.len()));
        for column in &table.columns {
            let found = live.iter().find(|l| l.name == column.name);
            let found = found.ok_or_else(|| Error::corrupt(format!("table {:?} has no column {:?}", table.table_name, column.name)))?;
            columns.push(ColumnType::new(&found.name, found.oid, found.typmod));
            sequences.push(if found.has_default { relation::sequence_of(oid, &found.name)? } else { None });
        }
        let has_exact_key = match table.key.as_slice() {
            [only] => is_exact(&columns[*only], live.iter().find(|l| l.name == columns[*only].name).map_or(Oid::INVALID, |l| l.collation)),
            _ => false,
        };
        Ok(TablePlan {
            id: table.id,
            has_exact_key,
            relation: oid,
            name: qualified(oid),
            rows: rows_of(oid),
            columns,
            sequences,
            key: table.key.clone(),
            key_members: table.key_members.clone(),
            members: table.columns.iter().map(|c| c.member.clone()).collect(),
            has_arbiter: relation::key_is_immediate(oid),
            sets: Cell::new(None),
            foreign_keys: OnceCell::new(),
            written: RefCell::new(None),
        })
    }

    /// May the caller lock rows of the table?
    pub fn can_lock(&self) -> bool {
        self.may(pg_sys::ACL_SELECT) && self.may(pg_sys::ACL_UPDATE)
    }

    /// May the caller lock the whole table?
    pub fn can_lock_table(&self) -> bool {
        self.may(pg_sys::ACL_UPDATE) || self.may(pg_sys::ACL_DELETE)
    }

    /// Does row-level security apply to the caller?
    pub fn has_policies(&self) -> bool {
        // SAFETY: a look-up in the catalogue.
        unsafe { pg_sys::check_enable_rls(self.relation, pg_sys::GetUserId(), true) == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32 }
    }

    /// Has the caller this right on the whole table?
    pub fn may(&self, right: u32) -> bool {
        // SAFETY: look-ups in the catalogue.
        unsafe {
            let right = pg_sys::AclMode::from(right);
            pg_sys::pg_class_aclcheck(self.relation, pg_sys::GetUserId(), right) == pg_sys::AclResult::ACLCHECK_OK
        }
    }

    /// Is the key one column, of a type of which there are arrays?
    pub fn has_array_of_keys(&self) -> bool {
        // SAFETY: a look-up in the catalogue.
        self.key.len() == 1 && unsafe { pg_sys::get_array_type(self.columns[self.key[0]].oid) } != Oid::INVALID
    }

    /// The values of a key as parameters; the error is a sentence.
    pub fn key_parameters(&self, key: &[Value]) -> Result<Vec<Parameter>, String> {
        self.key.iter().zip(key).map(|(&c, value)| self.parameter(c, value)).collect()
    }

    /// As [`TablePlan::key_parameters`]; None for a key that the columns cannot hold.
    pub fn key_if_possible(&self, key: &[Value]) -> Option<Vec<Parameter>> {
        let parameter = |(&c, value): (&usize, &Value)| {
            let column = &self.columns[c];
            column.datum_caught(value).ok().flatten().map(|datum| Parameter { oid: column.oid, datum: Some(datum) })
        };
        self.key.iter().zip(key).map(parameter).collect()
    }

    pub fn parameter(&self, column: usize, value: &Value) -> Result<Parameter, String> {
        let column = &self.columns[column];
        Ok(Parameter { oid: column.oid, datum: column.datum(value)? })
    }

    /// `pk_value` of a key.
    pub fn write_key(&self, key: &[Parameter]) -> Result<String> {
        let mut out = String::from("{");
        for (place, &column) in self.key_members.iter().enumerate() {
            let at = self.key.iter().position(|&k| k == column).unwrap_or(0);
            out.push_str(if place > 0 { "," } else { "" });
            self.write_member(&mut out, column, key[at].datum)?;
        }
        out.push('}');
        Ok(out)
    }

    /// `"name":value` of a column.
    pub fn write_member(&self, out: &mut String, column: usize, datum: Option<pg_sys::Datum>) -> Result<()> {
        out.push_str(&self.members[column]);
        match datum {
            None => out.push_str("null"),
            Some(datum) => self.columns[column].form.write_json(out, datum)?,
        }
        Ok(())
    }

    /// The payload of a row of [`TablePlan::select`].
    pub fn write_payload(&self, rows: &Rows, row: usize) -> Result<String> {
        let mut out = String::from("{");
        for column in 0..self.columns.len() {
            out.push_str(if column > 0 { "," } else { "" });
            self.write_member(&mut out, column, rows.datum(row, column))?;
        }
        out.push('}');
        Ok(out)
    }

    /// `pk_value` of a row of [`TablePlan::select`].
    pub fn write_key_of(&self, rows: &Rows, row: usize) -> Result<String> {
        let parameter = |&c: &usize| Parameter { oid: self.columns[c].oid, datum: rows.datum(row, c) };
        self.write_key(&self.key.iter().map(parameter).collect::<Vec<_>>())
    }

    pub fn values(&self, rows: &Rows, row: usize) -> Result<Vec<Value>> {
        let value = |column: usize| match rows.datum(row, column) {
            None => Ok(Value::Null),
            Some(datum) => self.columns[column].form.value(datum),
        };
        (0..self.columns.len()).map(value).collect()
    }

    /// The columns that are given, as what is pending has them.
    pub fn written(&self, given: &[usize]) -> WrittenColumns {
        let mut kept = self.written.borrow_mut();
        match &*kept {
            Some((of, written)) if of == given => written.clone(),
            _ => {
                let written = given.iter().map(|&c| Written { name: self.columns[c].name.clone(), form: self.columns[c].form.clone() });
                let written: WrittenColumns = written.collect();
                *kept = Some((given.to_vec(), written.clone()));
                written
            }
        }
    }

    // --- statements

    fn column_list(&self) -> String {
        list(self.columns.iter().map(|c| c.name.as_str()))
    }

    pub fn key_condition(&self, first: usize) -> String {
        let terms = self.key.iter().enumerate().map(|(place, &k)| self.equals(k, first + place));
        terms.collect::<Vec<_>>().join(" AND ")
    }

    /// A column against a parameter.
    fn equals(&self, column: usize, slot: usize) -> String {
        let column = &self.columns[column];
        format!("{} {} ${slot}", Identifier(&column.name), column.equals)
    }

    /// Every row.
    pub fn select(&self) -> String {
        format!("SELECT {} FROM {}", self.column_list(), self.rows)
    }

    /// Every row in the order of TYPES.md.
    pub fn select_in_order(&self) -> String {
        let order = self.key.iter().map(|&k| {
            let (name, form) = (Identifier(&self.columns[k].name), &self.columns[k].form);
            // In the order of their texts, whose fraction is of three digits or six: the day as it is written, the time, and those before Christ last.
            let moment = |format: &str, padding: &str, end: &str| {
                let day = format!("pg_catalog.split_part(pg_catalog.format('%s', {name}), ' ', 1)");
                let time = format!("pg_catalog.regexp_replace(pg_catalog.to_char({name}, '{format}'), '{padding}', '{end}')");
                format!("{day} COLLATE pg_catalog.\"C\", {time} COLLATE pg_catalog.\"C\", {name} DESC")
            };
            match form {
                Form::Timestamp => moment("HH24:MI:SS.US", "000$", ""),
                Form::TimestampTz => moment("HH24:MI:SS.US\"Z\"", "000Z$", "Z"),
                Form::Text => format!("{name} COLLATE pg_catalog.\"C\""),
                Form::Padded | Form::Json => format!("({name})::pg_catalog.text COLLATE pg_catalog.\"C\""),
                // As canonical JSON, which is what other engines order.
                Form::Array(element) if element.is_builtin() => format!("pg_catalog.array_to_json({name})::pg_catalog.text COLLATE pg_catalog.\"C\""),
                // A cast may be code of whoever made the type.
                Form::Date | Form::Array(_) | Form::Other { .. } => format!("pg_catalog.format('%s', {name}) COLLATE pg_catalog.\"C\""),
                _ => name.to_string(),
            }
        });
        format!("{} ORDER BY {}", self.select(), order.collect::<Vec<_>>().join(", "))
    }

    /// Does the order of the rows depend on how the session writes values?
    pub fn is_ordered_by_output(&self) -> bool {
        self.key.iter().any(|&k| matches!(self.columns[k].form, Form::Timestamp | Form::TimestampTz | Form::Date | Form::Array(_) | Form::Other { .. }))
    }

    pub fn select_row(&self) -> String {
        format!("{} WHERE {}", self.select(), self.key_condition(1))
    }

    /// As `select_row`, for the keys of an array, where the key is one column.
    pub fn select_rows(&self) -> String {
        let key = &self.columns[self.key[0]];
        format!("{} WHERE {} {} ANY ($1)", self.select(), Identifier(&key.name), key.equals)
    }

    pub fn lock_row(&self) -> String {
        format!("SELECT 1 FROM {} WHERE {} FOR NO KEY UPDATE", self.rows, self.key_condition(1))
    }

    /// As `lock_row`, for the keys of an array, where the key is one column.
    pub fn lock_rows(&self) -> String {
        let (key, equals) = (Identifier(&self.columns[self.key[0]].name), &self.columns[self.key[0]].equals);
        format!("SELECT {key} FROM {} WHERE {key} {equals} ANY ($1) ORDER BY {key} FOR NO KEY UPDATE", self.rows)
    }

    pub fn find_row(&self) -> String {
        format!("SELECT 1 FROM {} WHERE {}", self.rows, self.key_condition(1))
    }

    pub fn delete_row(&self) -> String {
        format!("DELETE FROM {} WHERE {}", self.rows, self.key_condition(1))
    }

    /// Inserts these columns, unless a row with the key is there.
    pub fn insert_row(&self, given: &[usize]) -> String {
        let columns = list(given.iter().map(|&c| self.columns[c].name.as_str()));
        let slots: Vec<String> = (1..=given.len()).map(|slot| format!("${slot}")).collect();
        let key = list(self.key.iter().map(|&k| self.columns[k].name.as_str()));
        let conflict = if self.has_arbiter { format!(" ON CONFLICT ({key}) DO NOTHING") } else { String::new() };
        format!("INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE VALUES ({}){conflict}", self.name, slots.join(", "))
    }

    /// As `insert_row`, for the rows of an array of the table's own type, in their order.
    pub fn insert_rows(&self, given: &[usize]) -> String {
        let columns = list(given.iter().map(|&c| self.columns[c].name.as_str()));
        let values: Vec<String> = given.iter().map(|&c| format!("u.{}", Identifier(&self.columns[c].name))).collect();
        let key = list(self.key.iter().map(|&k| self.columns[k].name.as_str()));
        format!(
            "INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {} FROM pg_catalog.unnest($1) AS u ON CONFLICT ({key}) DO NOTHING",
            self.name,
            values.join(", ")
        )
    }

    /// Updates these columns; None if only the key is given.
    pub fn update_row(&self, given: &[usize]) -> Option<String> {
        let slot = |column: usize| given.iter().position(|&g| g == column).map_or(0, |place| place + 1);
        let set: Vec<String> = given
            .iter()
            .filter(|c| !self.key.contains(c))
            .map(|&c| format!("{} = ${}", Identifier(&self.columns[c].name), slot(c)))
            .collect();
        let key: Vec<String> = self.key.iter().map(|&k| self.equals(k, slot(k))).collect();
        (!set.is_empty()).then(|| format!("UPDATE {} SET {} WHERE {}", self.rows, set.join(", "), key.join(" AND ")))
    }
}

/// Are values of a column only equal if they are written in the same way?
fn is_exact(column: &ColumnType, collation: Oid) -> bool {
    match column.form {
        Form::Boolean | Form::Int2 | Form::Int4 | Form::Int8 | Form::Uuid | Form::Date | Form::Timestamp | Form::TimestampTz | Form::Bytea => true,
        // SAFETY: a look-up in the catalogue.
        Form::Text => collation == Oid::INVALID || unsafe { pg_sys::get_collation_isdeterministic(collation) },
        _ => false,
    }
}
