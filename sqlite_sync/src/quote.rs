//! The one way an identifier or a literal gets into SQL.

use std::fmt::{Display, Formatter, Result};

/// A quoted identifier.
#[derive(Clone, Copy)]
pub struct Identifier<'a>(pub &'a str);

/// The name of a table of the database itself, whatever temporary table hides behind the same name. The tables of ours need no such care.
#[derive(Clone, Copy)]
pub struct TableName<'a>(pub &'a str);

/// A quoted text literal. A NUL character cannot stand in SQL; names do not hold one.
#[derive(Clone, Copy)]
pub struct Literal<'a>(pub &'a str);

impl Display for Identifier<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

impl Display for TableName<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "main.{}", Identifier(self.0))
    }
}

impl Display for Literal<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "'{}'", self.0.replace('\'', "''"))
    }
}

/// Quoted identifiers with commas between.
pub fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|n| Identifier(n).to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_inside_names_are_doubled() {
        assert_eq!(Identifier("a\"b").to_string(), "\"a\"\"b\"");
        assert_eq!(Literal("it's").to_string(), "'it''s'");
    }
}
