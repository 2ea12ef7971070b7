//! What an answer says when something went wrong: the contract's error as JSON, with the status that fits.
//!
//! Nothing of a database's own message leaves the gateway but for messages of ours (`sync: <Kind>: ..`): others can hold SQL or data.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sync_shared::{Error, Kind};

pub type Result<T, E = ApiError> = std::result::Result<T, E>;

/// Seconds after which a client may try again when the database is busy or out of reach.
const RETRY_AFTER: u64 = 1;

/// An answer that is an error: `{"kind","code","message","data"}`.
#[derive(Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub kind: &'static str,
    /// SQLSTATE, where the database has said one.
    pub code: Option<String>,
    pub message: String,
    /// The contract's data, such as `{"clientVersion","oldestVersion"}`.
    pub data: Option<Value>,
    /// Seconds.
    pub retry_after: Option<u64>,
}

impl ApiError {
    pub fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status, kind, code: None, message: message.into(), data: None, retry_after: None }
    }

    pub fn of_kind(kind: Kind, message: impl Into<String>) -> ApiError {
        ApiError { code: Some(kind.sqlstate().to_owned()), ..ApiError::new(status(kind), kind.name(), message) }
    }

    pub fn argument(message: impl Into<String>) -> ApiError {
        ApiError::of_kind(Kind::InvalidArgument, message)
    }

    pub fn forbidden(message: impl Into<String>) -> ApiError {
        ApiError::of_kind(Kind::PermissionDenied, message)
    }

    pub fn unauthorized(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, "Unauthorized", message)
    }

    pub fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    pub fn too_large(message: impl Into<String>) -> ApiError {
        ApiError::of_kind(Kind::LimitExceeded, message)
    }

    /// The database cannot answer now; the same request may succeed later.
    pub fn unavailable(message: impl Into<String>) -> ApiError {
        let error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", message);
        ApiError { retry_after: Some(RETRY_AFTER), ..error }
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after: u64) -> ApiError {
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message);
        ApiError { retry_after: Some(retry_after.max(1)), ..error }
    }

    /// A failure of the gateway or the database that is nobody's request's fault. What it was is in the log only.
    pub fn internal() -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal", "the request failed for an internal reason; it is in the gateway's log")
    }

    /// A batch that was read here before the database saw it.
    pub fn of_batch(error: &Error) -> ApiError {
        match ApiError::of_contract(error) {
            // The original's answer to too many changes and to what is no batch.
            Some(found) if matches!(found.kind, "InvalidBatch" | "LimitExceeded") => ApiError { status: StatusCode::BAD_REQUEST, ..found },
            Some(found) => found,
            None => ApiError::internal(),
        }
    }

    /// An error of ours as a database reports it: its message, and the JSON object of PostgreSQL's detail.
    pub fn of_sync(message: &str, detail: Option<&str>) -> Option<ApiError> {
        ApiError::of_contract(&Error::parse(message, detail)?)
    }

    /// None for an error of an engine.
    fn of_contract(error: &Error) -> Option<ApiError> {
        let Error::Sync(error) = error else { return None };
        let data = error.data.as_deref().and_then(|data| serde_json::from_str(data).ok());
        Some(ApiError { data, ..ApiError::of_kind(error.kind, error.message.as_str()) })
    }

    /// As `{"kind","code","message","data"}`.
    pub fn body(&self) -> Value {
        let mut body = json!({ "kind": self.kind, "message": self.message });
        if let Some(code) = &self.code {
            body["code"] = json!(code);
        }
        if let Some(data) = &self.data {
            body["data"] = data.clone();
        }
        body
    }
}

/// The one place that says which status a kind has.
fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::InvalidArgument => StatusCode::BAD_REQUEST,
        Kind::InvalidBatch | Kind::HashMismatch | Kind::SchemaMismatch | Kind::UnsupportedTable => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::TableNotFound | Kind::TableNotTracked => StatusCode::NOT_FOUND,
        Kind::PermissionDenied => StatusCode::FORBIDDEN,
        Kind::UnresolvedConflict => StatusCode::CONFLICT,
        Kind::FullResyncRequired | Kind::EpochMismatch => StatusCode::GONE,
        Kind::LimitExceeded => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::NotInitialized => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
