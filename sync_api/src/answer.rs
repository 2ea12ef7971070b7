//! What the database answers, which is JSON: sent on as it is, and read where the gateway has to know of it.

use crate::error::{ApiError, Result};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

/// An answer of JSON text, which holds for now only.
pub fn json(text: String) -> Response {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, JSON), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], text).into_response()
}

/// Reads what a function of the contract's has answered.
pub fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T> {
    serde_json::from_str(text).map_err(|_| ApiError::internal())
}
