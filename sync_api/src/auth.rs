//! Who asks: a bearer token, or anybody on this machine as long as no token was ever made.

use crate::database::Database;
use crate::error::{ApiError, Result};
use crate::gateway::Shared;
use crate::jwt::JwtKey;
use crate::server::Client;
use crate::tokens::{self, Caller};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub struct Auth {
    database: Arc<Database>,
    jwt: Option<JwtKey>,
    /// The table of tokens was seen.
    has_table: AtomicBool,
    /// A token was seen: from then on one is asked for.
    is_closed: AtomicBool,
}

impl Auth {
    pub fn new(database: Arc<Database>, jwt: Option<JwtKey>) -> Auth {
        let is_closed = AtomicBool::new(jwt.is_some());
        Auth { database, jwt, has_table: AtomicBool::new(false), is_closed }
    }

    /// Does every caller need a token? Not before one was made.
    pub async fn is_closed(&self) -> Result<bool> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let closed = self.has_table().await? && tokens::any(&self.database).await?;
        if closed {
            self.is_closed.store(true, Ordering::Relaxed);
        }
        Ok(closed)
    }

    /// Who sent a request with these headers.
    ///
    /// Errors: `Unauthorized`, or `PermissionDenied` for a page of another site that asks this machine's gateway.
    pub async fn caller(&self, headers: &HeaderMap, uri: &Uri) -> Result<Caller> {
        if !self.is_closed().await? {
            if !is_local(headers, uri) {
                return Err(ApiError::forbidden("without a token the gateway answers under the names of this machine only"));
            }
            return Ok(Caller { name: "anybody".to_owned(), open: true, ..Caller::default() });
        }
        let token = bearer(headers).ok_or_else(|| ApiError::unauthorized("send a token: Authorization: Bearer <token>"))?;
        self.of_token(token).await?.ok_or_else(|| ApiError::unauthorized("the token is unknown, expired or revoked"))
    }

    async fn of_token(&self, token: &str) -> Result<Option<Caller>> {
        if let Some(jwt) = self.jwt.as_ref().filter(|_| token.contains('.')) {
            return jwt.caller(token, self.database.has_roles());
        }
        if !self.has_table().await? {
            return Ok(None);
        }
        tokens::find(&self.database, token).await
    }

    async fn has_table(&self) -> Result<bool> {
        if !self.has_table.load(Ordering::Relaxed) && tokens::exists(&self.database).await? {
            self.has_table.store(true, Ordering::Relaxed);
        }
        Ok(self.has_table.load(Ordering::Relaxed))
    }
}

/// Lets a request of a known caller pass, within the limits; the handlers find the [`Caller`] among its extensions.
pub async fn authenticate(State(gateway): State<Shared>, mut request: Request, next: Next) -> Result<Response> {
    let caller = match gateway.auth.caller(request.headers(), request.uri()).await {
        Ok(caller) => caller,
        // A database that cannot be asked is no guess.
        Err(error) if !error.status.is_client_error() => return Err(error),
        Err(error) => {
            // Guessing is limited as well.
            let client = request.extensions().get::<Client>().map(|client| client.0.ip().to_string()).unwrap_or_default();
            gateway.limits.check_request(&format!("address {client}"))?;
            return Err(error);
        }
    };
    gateway.limits.check_request(&caller.name)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// The token of `Authorization: Bearer <token>`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Was this machine asked by a name of its own? A page of a foreign site can make its name mean this machine, and is told by it.
fn is_local(headers: &HeaderMap, uri: &Uri) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).or(uri.authority().map(|a| a.as_str()));
    let Some(host) = host else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
