//! `POST /sync/clients`: who pulls from here, and how far they are.

use crate::answer::json;
use crate::body::LONGEST;
use crate::database::{Access, Argument, Statement};
use crate::error::{ApiError, Result};
use crate::gateway::Shared;
use crate::parameters::parse_origin;
use crate::tokens::Caller;
use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Map, Value};

static REGISTER: Statement = Statement::new("SELECT @sync_register_client(?1, ?2)");

/// `POST /sync/clients` with `{"originId","lastSyncVersion"}`: registers a client or moves it forward, as `sync_register_client` does.
///
/// Errors: 400, 401, 403.
pub async fn register(State(gateway): State<Shared>, Extension(caller): Extension<Caller>, request: Request) -> Result<Response> {
    let (text, _share) = gateway.bodies.read(request, LONGEST).await?;
    let members: Map<String, Value> = serde_json::from_str(&text).map_err(|_| ApiError::argument("the body is not a JSON object"))?;
    let (mut origin, mut version) = (None, 0);
    for (name, value) in members {
        match name.replace('_', "").to_ascii_lowercase().as_str() {
            "originid" => origin = value.as_str().map(str::to_owned),
            "lastsyncversion" => version = value.as_i64().ok_or_else(|| ApiError::argument("lastSyncVersion must be a whole number"))?,
            _ => return Err(ApiError::argument(format!("there is no member {name:?}"))),
        }
    }
    let origin = parse_origin("originId", &origin.ok_or_else(|| ApiError::argument("originId is missing"))?)?;
    caller.must_be(&origin)?;
    let arguments = vec![Argument::Text(Some(origin)), Argument::Big(version)];
    let answer = gateway.database.text(Access::Write, caller.role.as_deref(), &REGISTER, arguments).await?;
    Ok(json(answer.unwrap_or_default()))
}
