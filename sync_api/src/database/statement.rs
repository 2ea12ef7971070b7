//! One SQL text for both engines: `@` stands before each function of ours (PostgreSQL: its schema), `?1` is the first argument.

use std::sync::OnceLock;

/// An argument of a statement.
#[derive(Clone, Debug)]
pub enum Argument {
    Text(Option<String>),
    /// bigint
    Big(i64),
    /// int
    Int(i32),
    Bool(bool),
}

/// A statement that yields one text.
pub struct Statement {
    sql: &'static str,
    /// Where the engines differ.
    postgres: Option<&'static str>,
    rendered: OnceLock<String>,
}

impl Statement {
    pub const fn new(sql: &'static str) -> Statement {
        Statement { sql, postgres: None, rendered: OnceLock::new() }
    }

    pub const fn differing(sqlite: &'static str, postgres: &'static str) -> Statement {
        Statement { sql: sqlite, postgres: Some(postgres), rendered: OnceLock::new() }
    }

    /// For SQLite.
    pub fn sqlite(&self) -> &str {
        self.rendered.get_or_init(|| self.sql.replace('@', ""))
    }

    /// For PostgreSQL, with the extension's schema, quoted.
    pub fn postgres(&self, schema: &str) -> &str {
        self.rendered.get_or_init(|| self.postgres.unwrap_or(self.sql).replace('@', &format!("{schema}.")).replace('?', "$"))
    }
}
