//! `GET /sync/changes` and `POST /sync/changes`: pull and push.

use crate::answer::{json, parse};
use crate::body::LONGEST_PUSH;
use crate::database::{Access, Argument, Statement};
use crate::error::{ApiError, Result};
use crate::gateway::Shared;
use crate::page::FETCH;
use crate::parameters::{Parameters, parse_origin};
use crate::push::Push;
use crate::tokens::Caller;
use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::time::Duration;
use tokio::time::Instant;

/// Most changes of a pull.
const MOST: i64 = 5000;
const USUAL: i64 = 1000;
/// Longest wait for a change, in milliseconds.
const LONGEST_WAIT: i64 = 60_000;

static APPLY: Statement = Statement::new("SELECT @sync_apply_batch(?1)");

/// What a pull's answer says of itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    to_version: i64,
    changes: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Counts {
    applied: u64,
    conflicts: u64,
    rejected: u64,
    deferred: u64,
}

/// `GET /sync/changes?fromVersion&batchSize[&excludeOrigin][&waitMs]`: a batch for a replica, as `sync_fetch_changes` gives it.
///
/// With `waitMs` an answer without changes is held back for so long, or until there is one. `If-None-Match` takes the `ETag` of an earlier
/// answer. Errors: 400, 401, 403, 410.
pub async fn pull(
    State(gateway): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response> {
    let parameters = Parameters::parse(&uri, &["fromVersion", "batchSize", "excludeOrigin", "waitMs"])?;
    let from = parameters.integer("fromVersion", 0..=i64::MAX)?.unwrap_or(0);
    let size = parameters.integer("batchSize", 1..=MOST)?.unwrap_or(USUAL);
    let wait = parameters.integer("waitMs", 0..=LONGEST_WAIT)?.unwrap_or(0);
    let exclude = parameters.text("excludeOrigin").map(|origin| parse_origin("excludeOrigin", origin)).transpose()?;
    if let Some(origin) = &exclude {
        caller.must_be(origin)?;
    }
    let deadline = Instant::now() + Duration::from_millis(wait.unsigned_abs());
    let text = loop {
        let feed = if wait > 0 { Some(gateway.feeds.follow(caller.role.as_deref()).await?) } else { None };
        let arguments = vec![Argument::Big(from), Argument::Int(size as i32), Argument::Text(exclude.clone())];
        let text = gateway.database.text(Access::Read, caller.role.as_deref(), &FETCH, arguments).await?.unwrap_or_default();
        let outline: Outline = parse(&text)?;
        let rest = deadline.saturating_duration_since(Instant::now());
        match feed {
            Some(feed) if outline.changes.is_empty() && !rest.is_zero() => {
                tokio::select! {
                    () = feed.wait_beyond(outline.to_version, rest) => {}
                    () = gateway.stopping.cancelled() => break text,
                }
            }
            _ => {
                gateway.metrics.pulled.inc_by(outline.changes.len() as u64);
                break text;
            }
        }
    };
    let tag = entity_tag(&text);
    let mut response = match is_known(&headers, &tag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => json(text),
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// `POST /sync/changes`: applies a push, as `sync_apply_batch` does, and answers with its result. The same batch again changes nothing.
///
/// Errors: 400, 401, 403, 409, 410, 413, 415, 422, 503; nothing was changed then.
pub async fn push(State(gateway): State<Shared>, Extension(caller): Extension<Caller>, request: Request) -> Result<Response> {
    // What has begun is finished, also when the client does not wait for the answer.
    let work = tokio::spawn(async move {
        let (text, _share) = gateway.bodies.read(request, LONGEST_PUSH).await?;
        let sender = caller.clone();
        let push = tokio::task::spawn_blocking(move || Push::read(text, &sender)).await.map_err(|_| ApiError::internal())??;
        let answer = gateway.database.text(Access::Write, caller.role.as_deref(), &APPLY, vec![Argument::Text(Some(push.text))]).await?;
        let answer = answer.unwrap_or_default();
        let counts: Counts = parse(&answer)?;
        let metrics = &gateway.metrics;
        metrics.pushed.inc_by(push.changes as u64);
        metrics.applied.inc_by(counts.applied);
        metrics.conflicts.inc_by(counts.conflicts);
        metrics.rejected.inc_by(counts.rejected + counts.deferred);
        Ok(json(answer))
    });
    work.await.map_err(|_| ApiError::internal())?
}

/// Names an answer by its content. Weak, for it can be sent compressed or not.
fn entity_tag(text: &str) -> String {
    let mut tag = String::from("W/\"");
    for byte in &Sha256::digest(text.as_bytes())[..16] {
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    tag
}

fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let given = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    given.flat_map(|value| value.split(',')).any(|value| value.trim() == "*" || opaque(value) == opaque(tag))
}
