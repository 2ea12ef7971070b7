//! The parameters of a query: names in any case and with underscores, none twice, none unknown.

use crate::error::{ApiError, Result};
use axum::extract::Query;
use axum::http::Uri;
use std::ops::RangeInclusive;
use uuid::Uuid;

pub struct Parameters(Vec<(&'static str, String)>);

impl Parameters {
    /// Errors: `InvalidArgument` for a parameter that is not among `known` or stands twice.
    pub fn parse(uri: &Uri, known: &[&'static str]) -> Result<Parameters> {
        let given = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|_| ApiError::argument("the query cannot be read"))?.0;
        let mut found = Vec::new();
        for (name, value) in given {
            let plain = name.replace('_', "");
            let Some(known) = known.iter().find(|known| known.eq_ignore_ascii_case(&plain)) else {
                return Err(ApiError::argument(format!("there is no parameter {name:?}")));
            };
            if found.iter().any(|(name, _)| name == known) {
                return Err(ApiError::argument(format!("parameter {known} stands twice")));
            }
            found.push((*known, value));
        }
        Ok(Parameters(found))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    pub fn integer(&self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse::<i64>().ok().filter(|number| range.contains(number));
        let (low, high) = (range.start(), range.end());
        number.map(Some).ok_or_else(|| ApiError::argument(format!("{name} must be a whole number from {low} to {high}")))
    }
}

/// An origin id in its one form, of the parameter or member `name`.
pub fn parse_origin(name: &str, text: &str) -> Result<String> {
    Uuid::try_parse(text).map(|origin| origin.to_string()).map_err(|_| ApiError::argument(format!("{name} is not a UUID")))
}
