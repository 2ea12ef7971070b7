//! `GET /sync/subscribe`: every committed change of a table or a row as a server-sent event, once and in the order of versions.
//!
//! A subscription knows one thing: the version up to which it has sent. What is before the feed's page it reads from the log itself
//! (replay); a page is sent from there on. So there is neither gap nor duplicate between what was and what comes, and a consumer
//! that is too slow for the feed falls back to replay: nothing is dropped, and nothing piles up for it. `id:` is the version, and any
//! gateway goes on from it.

use crate::error::{ApiError, Result};
use crate::feed::{Feed, PAGE, Position};
use crate::filter::Filter;
use crate::gateway::Shared;
use crate::page::{Event, Page};
use crate::parameters::Parameters;
use crate::registry::Place;
use crate::tokens::Caller;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use futures_util::stream;
use serde_json::json;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use sync_shared::Kind;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use uuid::Uuid;

/// Between two signs of life, and two looks whether the token is still good.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Milliseconds after which a client is to connect again.
const RETRY: u32 = 1000;

/// A live subscription. Dropped when its client is gone.
struct Subscription {
    gateway: Shared,
    caller: Caller,
    headers: HeaderMap,
    uri: Uri,
    place: Place,
    filter: Filter,
    /// It is read as long as somebody holds it.
    _feed: Arc<Feed>,
    pages: Receiver<Arc<Page>>,
    epoch: String,
    /// Everything up to here was sent. A number of the contract's cursor during a replay.
    cursor: i64,
    /// The version that the client knows to have.
    told: i64,
    is_replaying: bool,
    has_ended: bool,
    /// When the next sign of life is due, however much is sent.
    beat_at: Instant,
    /// To be sent next.
    ready: VecDeque<Bytes>,
}

/// `GET /sync/subscribe?tableName[&pkValue][&fromVersion]`: from `Last-Event-ID`, else from `fromVersion`, else from now on.
///
/// `tableName=*` is every table. Errors: 400, 401, 403, 404, 410, 429.
pub async fn subscribe(
    State(gateway): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response> {
    let parameters = Parameters::parse(&uri, &["tableName", "pkValue", "fromVersion"])?;
    let table = parameters.text("tableName").filter(|name| !name.is_empty());
    let table = table.ok_or_else(|| ApiError::argument("tableName is missing; * is every table"))?;
    let role = caller.role.as_deref();
    let last = headers.get("last-event-id").filter(|id| !id.is_empty());
    let last = last.map(|id| id.to_str().ok().and_then(|id| id.parse::<i64>().ok()).filter(|id| *id >= 0));
    let from = match last {
        Some(Some(version)) => Some(version),
        Some(None) => return Err(ApiError::argument("Last-Event-ID is not a version")),
        None => parameters.integer("fromVersion", 0..=i64::MAX)?,
    };
    let filter = Filter::make(&gateway.database, role, table, parameters.text("pkValue")).await?;
    let place = gateway.registry.enter(&caller.name, gateway.limits.subscriptions)?;
    let feed = gateway.feeds.follow(role).await?;
    // First the pages, then the position: what comes between is in both, and is sent once.
    let pages = feed.pages();
    let Position { version, epoch, .. } = feed.position();
    let connected = frame("connected", &json!({ "subscriptionId": place.id.to_string() }).to_string());
    gateway.metrics.subscriptions.inc();
    let mut subscription = Subscription {
        gateway,
        caller,
        headers,
        uri,
        place,
        filter,
        _feed: feed,
        pages,
        epoch,
        cursor: version,
        told: -1,
        is_replaying: false,
        has_ended: false,
        beat_at: Instant::now() + HEARTBEAT,
        ready: VecDeque::from([connected]),
    };
    match from {
        None => subscription.tell(),
        Some(from) => subscription.begin_at(from).await?,
    }
    let body = stream::unfold(subscription, |mut subscription| async move {
        let bytes = subscription.next().await?;
        Some((Ok::<_, Infallible>(bytes), subscription))
    });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // A proxy is not to collect what is to arrive at once.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// `DELETE /sync/subscribe/{id}`: ends a subscription of the caller's at this gateway. Errors: 404.
pub async fn unsubscribe(State(gateway): State<Shared>, Extension(caller): Extension<Caller>, Path(id): Path<String>) -> Result<Response> {
    let ended = Uuid::try_parse(&id).is_ok_and(|id| gateway.registry.end(id, &caller.name));
    match ended {
        true => Ok(Json(json!({ "unsubscribed": true })).into_response()),
        false => Err(ApiError::not_found("there is no such subscription of this caller")),
    }
}

impl Subscription {
    /// Begins after a version that the client names. What cannot be had is an error before the stream begins.
    async fn begin_at(&mut self, from: i64) -> Result<()> {
        let page = Page::read(&self.gateway.database, self.caller.role.as_deref(), from, PAGE).await?;
        if page.to > page.max_version && !page.has_more {
            return Err(mismatch("this version is beyond the log: the server was restored or replaced; pull from 0"));
        }
        self.is_replaying = page.has_more;
        self.send(&page, i64::MIN);
        self.tell();
        Ok(())
    }

    /// What is sent next; None at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.collect() {
                return Some(bytes);
            }
            if self.has_ended || self.place.end.is_cancelled() {
                return None;
            }
            if self.gateway.stopping.is_cancelled() {
                let hint = format!("retry: {RETRY}\nevent: reconnect\ndata: {{\"reason\":\"the gateway is stopping\"}}\n\n");
                self.ready.push_back(Bytes::from(hint));
                self.has_ended = true;
            } else if self.beat_at <= Instant::now() {
                self.beat_at = Instant::now() + HEARTBEAT;
                self.beat().await;
            } else if self.is_replaying {
                self.replay().await;
            } else {
                self.wait().await;
            }
        }
    }

    /// All that is ready, in one piece.
    fn collect(&mut self) -> Option<Bytes> {
        if self.ready.len() < 2 {
            return self.ready.pop_front();
        }
        let mut whole = Vec::with_capacity(self.ready.iter().map(Bytes::len).sum());
        self.ready.drain(..).for_each(|bytes| whole.extend_from_slice(&bytes));
        Some(Bytes::from(whole))
    }

    async fn replay(&mut self) {
        match Page::read(&self.gateway.database, self.caller.role.as_deref(), self.cursor, PAGE).await {
            Ok(page) if page.epoch != self.epoch => self.fail_epoch(),
            Ok(page) => {
                self.is_replaying = page.has_more;
                self.send(&page, i64::MIN);
                self.tell();
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Until there is something to look at.
    async fn wait(&mut self) {
        tokio::select! {
            () = self.place.end.cancelled() => {}
            () = self.gateway.stopping.cancelled() => {}
            () = tokio::time::sleep_until(self.beat_at) => {}
            page = self.pages.recv() => match page {
                Ok(page) if page.epoch != self.epoch => self.fail_epoch(),
                Ok(page) if page.to <= self.cursor => {}
                // Pages are missing between: the log has them.
                Ok(page) if page.from > self.cursor => self.is_replaying = true,
                Ok(page) => self.send(&page, self.cursor),
                Err(RecvError::Lagged(_)) => self.is_replaying = true,
                Err(RecvError::Closed) => self.has_ended = true,
            },
        }
    }

    /// Sends what of a page is beyond `after`.
    fn send(&mut self, page: &Page, after: i64) {
        let before = self.ready.len();
        let events = page.events.partition_point(|event| event.version <= after);
        self.ready.extend(frames(&page.events[events..], &self.filter));
        self.gateway.metrics.events.inc_by((self.ready.len() - before) as u64);
        self.cursor = page.to;
        if let Some(last) = page.events.last().filter(|_| self.ready.len() > before) {
            self.told = last.version.min(self.cursor);
        }
    }

    /// Moves the client's `Last-Event-ID` past changes that were not for it.
    fn tell(&mut self) {
        if self.told != self.cursor {
            self.told = self.cursor;
            self.ready.push_back(cursor_frame(self.cursor));
        }
    }

    /// A sign of life; and a token that was revoked ends the stream.
    async fn beat(&mut self) {
        match self.gateway.auth.caller(&self.headers, &self.uri).await {
            Err(error) if error.status.is_client_error() => self.fail(&error),
            // A database that is out of reach ends nothing.
            _ => {
                self.tell();
                self.ready.push_back(Bytes::from_static(b": heartbeat\n\n"));
            }
        }
    }

    fn fail_epoch(&mut self) {
        self.fail(&mismatch("the server was restored or replaced; pull again"));
    }

    fn fail(&mut self, error: &ApiError) {
        self.ready.push_back(frame("failure", &error.body().to_string()));
        self.has_ended = true;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.gateway.metrics.subscriptions.dec();
    }
}

fn mismatch(message: &str) -> ApiError {
    ApiError::of_kind(Kind::EpochMismatch, message)
}

fn frames<'e>(events: &'e [Event], filter: &'e Filter) -> impl Iterator<Item = Bytes> + 'e {
    events.iter().filter(|event| filter.passes(event)).map(|event| event.frame.clone())
}

fn frame(event: &str, data: &str) -> Bytes {
    Bytes::from(format!("event: {event}\ndata: {data}\n\n"))
}

/// An event without data is not seen by a client, but its id is kept.
fn cursor_frame(version: i64) -> Bytes {
    Bytes::from(format!("id: {version}\n\n"))
}
