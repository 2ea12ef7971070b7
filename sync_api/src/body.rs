//! Bodies that come in: JSON, up to a limit after decompression, and not too many at once.

use crate::error::{ApiError, Result};
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use std::time::Duration;
use sync_shared::MAX_BYTES;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes of bodies that are in memory at the same time; who comes later waits.
const BUDGET: usize = 512 * 1024 * 1024;
const UNIT: usize = 64 * 1024;
/// How long a body may take to arrive.
const SLOWEST: Duration = Duration::from_secs(60);

/// Memory for bodies.
pub struct BodyBudget(Semaphore);

impl Default for BodyBudget {
    fn default() -> BodyBudget {
        BodyBudget(Semaphore::new(BUDGET / UNIT))
    }
}

impl BodyBudget {
    /// The JSON text of a request of at most `limit` bytes, and its share of the budget, to be held while the text is.
    ///
    /// Errors: 400, 408, 413 or 415.
    pub async fn read(&self, request: Request, limit: usize) -> Result<(String, SemaphorePermit<'_>)> {
        let headers = request.headers();
        check_type(headers)?;
        let declared = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        let too_large = || ApiError::too_large(format!("the body has more than {limit} bytes; send smaller batches"));
        // How large a compressed body becomes is not known, and may be anything.
        let expected = match declared {
            Some(length) if length > limit => return Err(too_large()),
            Some(length) if !headers.contains_key(header::CONTENT_ENCODING) => length,
            _ => limit,
        };
        let units = expected.div_ceil(UNIT).max(1) as u32;
        let permit = self.0.acquire_many(units).await.map_err(|_| ApiError::unavailable("the gateway is stopping"))?;
        let arrived = tokio::time::timeout(SLOWEST, to_bytes(request.into_body(), limit)).await;
        let bytes = arrived
            .map_err(|_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "Timeout", "the body took too long to arrive"))?
            .map_err(|error| match is_over_limit(&error) {
                true => too_large(),
                false => ApiError::argument("the body is cut off or not compressed as it says"),
            })?;
        let text = String::from_utf8(bytes.into()).map_err(|_| ApiError::argument("the body is not UTF-8"))?;
        Ok((text, permit))
    }
}

/// The longest body of a push.
pub const LONGEST_PUSH: usize = MAX_BYTES;
/// The longest of everything else.
pub const LONGEST: usize = 64 * 1024;

/// A page of a foreign site can make a browser send anything but JSON without asking.
fn check_type(headers: &HeaderMap) -> Result<()> {
    let unsupported = |message: &str| ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message);
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind != "application/json" && !(kind.starts_with("application/") && kind.ends_with("+json")) {
        return Err(unsupported("send JSON: Content-Type: application/json"));
    }
    Ok(())
}

fn is_over_limit(error: &axum::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.to_string().contains("length limit exceeded") {
            return true;
        }
        source = error.source();
    }
    false
}

/// Encodings that a body may come in.
pub fn is_known_encoding(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().all(|encoding| {
        encoding.to_str().is_ok_and(|encoding| matches!(encoding.trim().to_ascii_lowercase().as_str(), "gzip" | "zstd" | "identity" | ""))
    })
}

