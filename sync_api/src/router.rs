//! Which function answers what, and through which layers a request goes.

use crate::answer::json;
use crate::auth::authenticate;
use crate::body::is_known_encoding;
use crate::database::{Access, Statement};
use crate::error::{ApiError, Result};
use crate::gateway::Shared;
use crate::metrics::{metrics, observe};
use crate::{changes, clients, reports, subscription};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use std::any::Any;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::decompression::RequestDecompressionLayer;

static HEALTH: Statement = Statement::new("SELECT @sync_version()");

/// What every answer carries; the page loads nothing from elsewhere.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
    ),
];

pub fn router(gateway: Shared) -> Router {
    let known = Router::new()
        .route("/sync/changes", get(changes::pull).post(changes::push))
        .route("/sync/clients", get(reports::clients).post(clients::register))
        .route("/sync/state", get(reports::state))
        .route("/sync/status", get(reports::status))
        .route("/sync/tables", get(reports::tables))
        .route("/sync/hash", get(reports::hash))
        .route("/sync/conflicts", get(reports::conflicts))
        .route("/sync/rejections", get(reports::rejections))
        .route("/sync/subscribe", get(subscription::subscribe))
        .route("/sync/subscribe/{id}", delete(subscription::unsubscribe))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi))
        .method_not_allowed_fallback(wrong_method)
        .fallback(nothing_here)
        .layer(from_fn_with_state(gateway.clone(), authenticate));
    let open = Router::new()
        .route("/health", get(health))
        .route("/", get(page))
        .method_not_allowed_fallback(wrong_method);
    let layers = ServiceBuilder::new()
        .layer(from_fn_with_state(gateway.clone(), observe))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(check_form))
        .layer(CompressionLayer::new().gzip(true).zstd(true))
        .layer(RequestDecompressionLayer::new().gzip(true).zstd(true))
        .layer(DefaultBodyLimit::disable());
    open.merge(known).layer(layers).with_state(gateway)
}

/// `GET /health`: is the database there?
async fn health(State(gateway): State<Shared>) -> Response {
    match gateway.database.text(Access::Read, None, &HEALTH, Vec::new()).await {
        Ok(version) => Json(serde_json::json!({ "status": "Healthy", "version": version })).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, Json(serde_json::json!({ "status": "Unhealthy" }))).into_response(),
    }
}

/// `GET /`: the live page. It holds no data; where a token is needed it asks for it, and the status says so.
async fn page(State(gateway): State<Shared>, request: Request) -> Result<Response> {
    let page = Html(include_str!("page.html"));
    let mut response = match gateway.auth.caller(request.headers(), request.uri()).await {
        Ok(_) => page.into_response(),
        Err(error) if error.status == StatusCode::UNAUTHORIZED => {
            (error.status, [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))], page).into_response()
        }
        Err(error) => return Err(error),
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn openapi() -> Response {
    let document = include_str!("openapi.json").replacen("\"0.0.0\"", &format!("\"{}\"", env!("CARGO_PKG_VERSION")), 1);
    json(document)
}

async fn nothing_here() -> ApiError {
    ApiError::not_found("there is nothing under this path")
}

async fn wrong_method(method: Method) -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", format!("{method} is not for this path"))
}

/// Refuses what no handler could read, and adds the headers of every answer.
async fn check_form(request: Request, next: Next) -> Response {
    let mut response = match is_known_encoding(request.headers()) {
        true => next.run(request).await,
        false => {
            let message = "send the body as it is, or with Content-Encoding gzip or zstd";
            ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message).into_response()
        }
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a broken invariant was met while a request was answered");
    ApiError::internal().into_response()
}
