//! What Prometheus reads at `/metrics`.

use crate::answer::parse;
use crate::database::{Access, Statement};
use crate::error::{ApiError, Result};
use crate::gateway::Shared;
use crate::reports::CLIENTS;
use crate::tokens::Caller;
use axum::Extension;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use serde::Deserialize;
use std::time::Instant;

/// Seconds.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

static WAITING: Statement = Statement::differing(
    "SELECT json_array((SELECT count(*) FROM @sync_conflicts()), (SELECT count(*) FROM @sync_rejections()))",
    "SELECT json_build_array((SELECT count(*) FROM @sync_conflicts()), (SELECT count(*) FROM @sync_rejections()))::text",
);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientLine {
    origin_id: String,
    last_sync_version: i64,
}

pub struct Metrics {
    registry: Registry,
    requests: HistogramVec,
    pub pulled: IntCounter,
    pub pushed: IntCounter,
    pub applied: IntCounter,
    pub conflicts: IntCounter,
    pub rejected: IntCounter,
    pub events: IntCounter,
    pub subscriptions: IntGauge,
    stored_conflicts: IntGauge,
    stored_rejections: IntGauge,
    max_version: IntGauge,
    lag: IntGaugeVec,
}

impl Metrics {
    pub fn new() -> prometheus::Result<Metrics> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| IntCounter::new(name, help).and_then(|metric| kept(&registry, metric));
        let gauge = |name: &str, help: &str| IntGauge::new(name, help).and_then(|metric| kept(&registry, metric));
        let times = HistogramOpts::new("sync_request_seconds", "Time until the head of an answer.").buckets(BUCKETS.to_vec());
        let lag = Opts::new("sync_client_lag", "Versions that a client has not pulled yet, by its origin id.");
        Ok(Metrics {
            requests: kept(&registry, HistogramVec::new(times, &["method", "route", "status"])?)?,
            pulled: counter("sync_changes_pulled_total", "Changes sent in answers to pulls.")?,
            pushed: counter("sync_changes_pushed_total", "Changes received in pushes that were taken.")?,
            applied: counter("sync_changes_applied_total", "Pushed changes that were applied.")?,
            conflicts: counter("sync_push_conflicts_total", "Conflicts that pushes met.")?,
            rejected: counter("sync_push_rejections_total", "Pushed changes that wait because they were refused.")?,
            events: counter("sync_events_total", "Changes sent to live subscriptions.")?,
            subscriptions: gauge("sync_subscriptions", "Live subscriptions of this gateway.")?,
            stored_conflicts: gauge("sync_conflicts", "Conflicts that the database has recorded.")?,
            stored_rejections: gauge("sync_rejections", "Changes that wait in the database because they were refused.")?,
            max_version: gauge("sync_log_version", "Highest settled version of the log.")?,
            lag: kept(&registry, IntGaugeVec::new(lag, &["origin"])?)?,
            registry,
        })
    }
}

fn kept<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> prometheus::Result<M> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// `GET /metrics`: as far as the caller may see the database.
pub async fn metrics(State(gateway): State<Shared>, Extension(caller): Extension<Caller>) -> Result<Response> {
    let metrics = &gateway.metrics;
    let role = caller.role.as_deref();
    let clients = gateway.database.text(Access::Read, role, &CLIENTS, Vec::new()).await?.unwrap_or_default();
    let waiting = gateway.database.text(Access::Read, role, &WAITING, Vec::new()).await?.unwrap_or_default();
    let head = gateway.feeds.follow(role).await?.position().version;
    let clients: Vec<ClientLine> = parse(&clients)?;
    let (conflicts, rejections): (i64, i64) = parse(&waiting)?;
    metrics.max_version.set(head);
    metrics.stored_conflicts.set(conflicts);
    metrics.stored_rejections.set(rejections);
    metrics.lag.reset();
    for client in clients {
        metrics.lag.with_label_values(&[&client.origin_id]).set((head - client.last_sync_version).max(0));
    }
    let text = TextEncoder::new().encode_to_string(&metrics.registry.gather()).map_err(|_| ApiError::internal())?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"))], text).into_response())
}

/// Measures and logs every request: method, route and status, never its query, headers or body.
pub async fn observe(State(gateway): State<Shared>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    let (status, took) = (response.status(), begun.elapsed());
    // Whatever else a client calls its method, it is one label.
    let method = if matches!(method.as_str(), "GET" | "POST" | "DELETE" | "HEAD" | "OPTIONS" | "PUT" | "PATCH") { method.as_str() } else { "other" };
    gateway.metrics.requests.with_label_values(&[method, &route, status.as_str()]).observe(took.as_secs_f64());
    tracing::info!(method, route, status = status.as_u16(), milliseconds = took.as_millis() as u64, "request");
    response
}
