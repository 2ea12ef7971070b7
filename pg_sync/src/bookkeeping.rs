//! The core's SQL on our own tables, as PostgreSQL takes it: parameters `$1`, tables with their schema.

use crate::spi::Parameter;
use std::fmt::Write as _;
use sync_shared::{Result, ValueRef};

/// The parameters of a statement of the core's: those that are not NULL.
pub fn taken(parameters: &[ValueRef<'_>]) -> Result<Vec<Parameter>> {
    parameters.iter().filter(|p| !matches!(p, ValueRef::Null)).map(|value| Parameter::of(*value)).collect()
}

/// A statement of the core and its parameters. NULL is written out, so that it takes the type of its place.
pub fn translate(schema: &str, sql: &str, parameters: &[ValueRef<'_>]) -> Result<(String, Vec<Parameter>)> {
    let mut count = 0;
    let numbers: Vec<Option<usize>> = parameters
        .iter()
        .map(|parameter| {
            let is_taken = !matches!(parameter, ValueRef::Null);
            count += usize::from(is_taken);
            is_taken.then_some(count)
        })
        .collect();
    let mut out = String::with_capacity(sql.len() + 64);
    let mut rest = sql;
    let mut inside_word = false;
    while let Some(character) = rest.chars().next() {
        if character == '?' {
            let digits = rest[1..].bytes().take_while(u8::is_ascii_digit).count();
            let number: usize = rest[1..1 + digits].parse().unwrap_or(0);
            match numbers.get(number.wrapping_sub(1)).copied().flatten() {
                Some(number) => write!(out, "${number}").ok(),
                None => write!(out, "NULL").ok(),
            };
            rest = &rest[1 + digits..];
            continue;
        }
        if !inside_word && rest.starts_with("_sync_") {
            out.push_str(schema);
            out.push('.');
        }
        inside_word = character.is_ascii_alphanumeric() || character == '_';
        out.push(character);
        rest = &rest[character.len_utf8()..];
    }
    Ok((out, taken(parameters)?))
}
