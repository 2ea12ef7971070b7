//! A tracked table as the core sees it: its name on the wire, its columns, its key.

use crate::canonical::write_escaped;
use crate::conflict::Strategy;
use crate::error::{Error, Result};
use crate::value::{ValueRef, write_canonical, write_payload};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The portable types of TYPES.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Portable {
    Boolean,
    Int,
    Real,
    Decimal,
    Text,
    Uuid,
    Datetime,
    Date,
    Time,
    Json,
    Blob,
}

impl Portable {
    /// The portable type of a type as declared in SQLite or named in PostgreSQL.
    pub fn of_declared(declared: &str) -> Portable {
        const BY_PART: [(&str, Portable); 18] = [
            ("BOOL", Portable::Boolean),
            ("DATETIME", Portable::Datetime),
            ("TIMESTAMP", Portable::Datetime),
            ("DATE", Portable::Date),
            ("TIME", Portable::Time),
            ("UUID", Portable::Uuid),
            ("GUID", Portable::Uuid),
            ("JSON", Portable::Json),
            ("INT", Portable::Int),
            ("CHAR", Portable::Text),
            ("CLOB", Portable::Text),
            ("TEXT", Portable::Text),
            ("BLOB", Portable::Blob),
            ("REAL", Portable::Real),
            ("FLOA", Portable::Real),
            ("DOUB", Portable::Real),
            ("NUMERIC", Portable::Decimal),
            ("DECIMAL", Portable::Decimal),
        ];
        let upper = declared.to_ascii_uppercase();
        // An array of PostgreSQL's, whose values are JSON, in a table that was made by the same statement.
        if upper.trim_end().ends_with("[]") {
            return Portable::Json;
        }
        BY_PART.iter().find(|(part, _)| upper.contains(part)).map_or(Portable::Text, |(_, portable)| *portable)
    }

    /// By its name in the options of `sync_track_table`.
    pub fn named(name: &str) -> Option<Portable> {
        serde_json::from_value(serde_json::Value::String(name.to_ascii_lowercase())).ok()
    }

    /// Its name in the options of `sync_track_table`.
    pub fn name(self) -> String {
        format!("{self:?}").to_ascii_lowercase()
    }
}

/// What a column does to a value that is stored in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Storage {
    /// Numbers become text.
    Text,
    /// Text that looks like a number becomes one.
    Number,
    /// As `Number`, and integers become floating point.
    Real,
    /// Values stay what they are.
    Any,
    /// A type of its own, which decides for itself: values keep the form that the portable type has in JSON.
    Typed,
}

/// Which texts a key column holds to be equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextFold {
    Exact,
    AsciiCase,
    TrailingSpace,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub declared: String,
    pub portable: Portable,
    pub storage: Storage,
    pub fold: TextFold,
    pub not_null: bool,
    /// The default as an SQL expression.
    pub default: Option<String>,
    /// `"name":` as it stands in a payload.
    pub member: String,
}

/// What a foreign key of a table refers to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// Columns of the referring table.
    pub columns: Vec<String>,
    /// The table referred to.
    pub parent: String,
    /// The columns referred to, in the order of `columns`.
    pub parent_columns: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationKind {
    Table,
    View,
    Virtual,
    Temporary,
    /// One of our own tables, or the engine's.
    System,
}

/// A table as the engine's catalogue has it, before it is tracked.
#[derive(Clone, Debug)]
pub struct Description {
    pub kind: RelationKind,
    /// The catalogue's spelling of the name.
    pub table_name: String,
    /// The name on the wire unless another is given.
    pub name: String,
    /// All columns but generated ones, in the table's order.
    pub columns: Vec<Column>,
    pub generated: Vec<String>,
    /// Indices into `columns`, in key order; empty without a primary key.
    pub key: Vec<usize>,
    /// Can a key column be NULL although it is part of the primary key?
    pub nullable_key: bool,
    pub references: Vec<Reference>,
    /// Columns of UNIQUE indexes besides the primary key.
    pub unique: Vec<Vec<String>>,
    /// Sentences on what the host cannot capture or keep exactly, each with a code and a fix.
    pub notes: Vec<(String, String, String)>,
}

/// A tracked table.
#[derive(Clone, Debug)]
pub struct Table {
    pub id: i64,
    /// Its name in this database.
    pub table_name: String,
    /// Its name on the wire.
    pub name: String,
    /// The columns that are synced, in the table's order.
    pub columns: Vec<Column>,
    /// Indices into `columns`, in key order.
    pub key: Vec<usize>,
    /// The key's columns in the table's order, as `pk_value` has them.
    pub key_members: Vec<usize>,
    /// The key's columns by canonical name, as the row hash has them.
    key_canonical: Vec<usize>,
    /// `\\"name\\":` of each column, as it stands in the text of a payload within a batch.
    pub escaped_members: Vec<String>,
    pub exclude: Vec<String>,
    pub references: Vec<Reference>,
    pub nullable_key: bool,
    /// The portable types that the options of `sync_track_table` gave.
    pub types: BTreeMap<String, Portable>,
    /// Do applied rows fire the user's triggers?
    pub user_triggers: bool,
    pub strategy: Strategy,
    pub resolver: Option<String>,
    /// False: it was untracked; its log entries are still read.
    pub tracked: bool,
    /// The layout that new log entries have.
    pub layout: i64,
}

/// What `c1..cn` of a log entry hold.
#[derive(Clone, Debug)]
pub struct Layout {
    pub layout: i64,
    /// Index into the catalogue's tables; None if the table is not tracked any more.
    pub table: Option<usize>,
    /// For each column of the table as it is now, its place in the layout.
    pub places: Vec<Option<usize>>,
    /// The columns' names in the layout's order.
    pub names: Vec<String>,
}

/// Identifies a row of a table on every replica: 128 bits of SHA-256.
pub type RowHash = [u8; 16];

/// The part of a table that is stored as JSON in `_sync_tables.definition`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    pub columns: Vec<Column>,
    pub key: Vec<usize>,
    pub exclude: Vec<String>,
    pub references: Vec<Reference>,
    pub nullable_key: bool,
    /// The portable types that the options of `sync_track_table` gave.
    pub types: BTreeMap<String, Portable>,
    /// Do applied rows fire the user's triggers?
    #[serde(default = "fires")]
    pub user_triggers: bool,
}

fn fires() -> bool {
    true
}

impl Column {
    pub fn new(name: &str, declared: &str, storage: Storage) -> Column {
        let mut member = String::with_capacity(name.len() + 3);
        crate::canonical::write_string(&mut member, name);
        member.push(':');
        Column {
            name: name.to_owned(),
            declared: declared.to_owned(),
            portable: Portable::of_declared(declared),
            storage,
            fold: TextFold::Exact,
            not_null: false,
            default: None,
            member,
        }
    }
}

impl Table {
    pub fn new(
        (id, layout, tracked): (i64, i64, bool),
        (table_name, name): (String, String),
        definition: Definition,
        (strategy, resolver): (Strategy, Option<String>),
    ) -> Table {
        let mut key_members = definition.key.clone();
        key_members.sort_unstable();
        let mut key_canonical = definition.key.clone();
        key_canonical.sort_by_key(|&c| definition.columns[c].name.to_ascii_lowercase());
        let escaped = |column: &Column| {
            let mut member = String::new();
            write_escaped(&mut member, &column.member);
            member
        };
        Table {
            id,
            table_name,
            name,
            escaped_members: definition.columns.iter().map(escaped).collect(),
            columns: definition.columns,
            key: definition.key,
            key_members,
            key_canonical,
            exclude: definition.exclude,
            references: definition.references,
            nullable_key: definition.nullable_key,
            types: definition.types,
            user_triggers: definition.user_triggers,
            strategy,
            resolver,
            tracked,
            layout,
        }
    }

    /// The column of a name as a batch has it: exactly, else without regard to ASCII case.
    pub fn column_named(&self, name: &str) -> Option<usize> {
        self.columns
            .iter()
            .position(|c| c.name == name)
            .or_else(|| self.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name)))
    }

    pub fn excludes(&self, name: &str) -> bool {
        self.exclude.iter().any(|e| e.eq_ignore_ascii_case(name))
    }

    pub fn key_names(&self) -> Vec<&str> {
        self.key.iter().map(|&c| self.columns[c].name.as_str()).collect()
    }

    pub fn column_names(&self) -> Vec<&str> {
        self.columns.iter().map(|c| c.name.as_str()).collect()
    }

    /// Appends `pk_value`: the key as a JSON object in the table's column order.
    pub fn write_key<'v>(&self, out: &mut String, value: impl Fn(usize) -> Result<ValueRef<'v>>) -> Result<()> {
        out.push('{');
        for (i, &column) in self.key_members.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            out.push_str(&self.columns[column].member);
            write_payload(out, value(column)?);
        }
        out.push('}');
        Ok(())
    }

    /// Appends a payload: every column that has a value, in the table's order.
    pub fn write_row<'v>(&self, out: &mut String, value: impl Fn(usize) -> Result<Option<ValueRef<'v>>>) -> Result<()> {
        out.push('{');
        let mut first = true;
        for (i, column) in self.columns.iter().enumerate() {
            let Some(value) = value(i)? else { continue };
            if !first {
                out.push(',');
            }
            first = false;
            out.push_str(&column.member);
            write_payload(out, value);
        }
        out.push('}');
        Ok(())
    }

    /// The row's identity on every replica.
    pub fn row_hash<'v>(&self, value: impl Fn(usize) -> Result<ValueRef<'v>>) -> Result<RowHash> {
        let mut text = String::with_capacity(96);
        text.push_str(&self.name.to_ascii_lowercase());
        text.push('\n');
        for &column in &self.key_canonical {
            let definition = &self.columns[column];
            text.push_str(&definition.member.to_ascii_lowercase());
            match (value(column)?, definition.fold) {
                (ValueRef::Text(t), TextFold::AsciiCase) => {
                    write_canonical(&mut text, ValueRef::Text(&t.to_ascii_lowercase()), definition.portable);
                }
                (ValueRef::Text(t), TextFold::TrailingSpace) => {
                    write_canonical(&mut text, ValueRef::Text(t.trim_end_matches(' ')), definition.portable);
                }
                (value, _) => write_canonical(&mut text, value, definition.portable),
            }
        }
        let digest = Sha256::digest(text.as_bytes());
        digest[..16].try_into().map_err(|_| Error::corrupt("a digest of the wrong length"))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A tracked table `t` for the tests of other modules.
    pub fn table(columns: Vec<Column>, key: &[usize]) -> Table {
        let definition = Definition {
            columns,
            key: key.to_vec(),
            exclude: vec!["Secret".to_owned()],
            references: Vec::new(),
            nullable_key: false,
            types: BTreeMap::new(),
            user_triggers: true,
        };
        Table::new((1, 1, true), ("t".to_owned(), "t".to_owned()), definition, (Strategy::default(), None))
    }

    #[test]
    fn declared_types_have_the_portable_type_of_the_contract() {
        for (declared, portable) in [
            ("BOOLEAN", Portable::Boolean),
            ("bigint", Portable::Int),
            ("DOUBLE PRECISION", Portable::Real),
            ("DECIMAL(10,2)", Portable::Decimal),
            ("VARCHAR(20)", Portable::Text),
            ("", Portable::Text),
            ("uuid", Portable::Uuid),
            ("DATETIME", Portable::Datetime),
            ("timestamp with time zone", Portable::Datetime),
            ("DATE", Portable::Date),
            ("TIME", Portable::Time),
            ("jsonb", Portable::Json),
            ("numeric(10,2)[]", Portable::Json),
            ("BLOB", Portable::Blob),
        ] {
            assert_eq!(Portable::of_declared(declared), portable, "{declared}");
        }
    }
}
