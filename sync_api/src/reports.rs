//! What the database says of itself: `GET /sync/state`, and what the live page shows.

use crate::answer::json;
use crate::database::{Access, Argument, Statement};
use crate::error::Result;
use crate::gateway::Shared;
use crate::parameters::Parameters;
use crate::tokens::Caller;
use axum::Extension;
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;

/// Most rows of a list.
const MOST: i64 = 1000;
const USUAL: i64 = 100;

static STATE: Statement = Statement::new("SELECT @sync_state()");
static STATUS: Statement = Statement::new("SELECT @sync_status()");
static HASH: Statement = Statement::new("SELECT @sync_hash(?1)");
pub static CLIENTS: Statement = Statement::differing(
    "SELECT json_group_array(json_object('originId', origin_id, 'lastSyncVersion', last_sync_version, \
     'lastSyncTimestamp', last_sync_timestamp, 'createdAt', created_at)) FROM @sync_clients()",
    "SELECT coalesce(json_agg(json_build_object('originId', origin_id, 'lastSyncVersion', last_sync_version, \
     'lastSyncTimestamp', last_sync_timestamp, 'createdAt', created_at)), '[]')::text FROM @sync_clients()",
);
static TABLES: Statement = Statement::differing(
    "SELECT json_group_array(json_object('tableName', table_name, 'name', name, 'primaryKey', json(primary_key), 'columns', json(columns), \
     'conflictStrategy', conflict_strategy, 'entries', entries)) FROM @sync_tables()",
    "SELECT coalesce(json_agg(json_build_object('tableName', table_name, 'name', name, 'primaryKey', primary_key::json, \
     'columns', columns::json, 'conflictStrategy', conflict_strategy, 'entries', entries)), '[]')::text FROM @sync_tables()",
);
static CONFLICTS: Statement = Statement::differing(
    "SELECT json_group_array(json_object('id', id, 'tableName', table_name, 'pkValue', pk_value, 'local', json(local_change), \
     'remote', json(remote_change), 'winner', winner, 'strategy', strategy, 'detectedAt', detected_at)) \
     FROM (SELECT * FROM @sync_conflicts() ORDER BY id DESC LIMIT ?1)",
    "SELECT coalesce(json_agg(json_build_object('id', id, 'tableName', table_name, 'pkValue', pk_value, 'local', local_change::json, \
     'remote', remote_change::json, 'winner', winner, 'strategy', strategy, 'detectedAt', detected_at)), '[]')::text \
     FROM (SELECT * FROM @sync_conflicts() ORDER BY id DESC LIMIT ?1) newest",
);
static REJECTIONS: Statement = Statement::differing(
    "SELECT json_group_array(json_object('id', id, 'tableName', table_name, 'pkValue', pk_value, 'operation', operation, \
     'payload', payload, 'origin', origin, 'timestamp', timestamp, 'kind', kind, 'code', code, 'message', message, \
     'attempts', attempts, 'rejectedAt', rejected_at)) FROM (SELECT * FROM @sync_rejections() ORDER BY id DESC LIMIT ?1)",
    "SELECT coalesce(json_agg(json_build_object('id', id, 'tableName', table_name, 'pkValue', pk_value, 'operation', operation, \
     'payload', payload, 'origin', origin, 'timestamp', timestamp, 'kind', kind, 'code', code, 'message', message, \
     'attempts', attempts, 'rejectedAt', rejected_at)), '[]')::text FROM (SELECT * FROM @sync_rejections() ORDER BY id DESC LIMIT ?1) newest",
);

type Asked = (State<Shared>, Extension<Caller>, Uri);

/// `GET /sync/state`: `sync_state()`.
pub async fn state((State(gateway), Extension(caller), uri): Asked) -> Result<Response> {
    Parameters::parse(&uri, &[])?;
    answer(&gateway, &caller, &STATE, Vec::new()).await
}

/// `GET /sync/status`: `sync_status()`.
pub async fn status((State(gateway), Extension(caller), uri): Asked) -> Result<Response> {
    Parameters::parse(&uri, &[])?;
    answer(&gateway, &caller, &STATUS, Vec::new()).await
}

/// `GET /sync/hash[?tableName]`: `{"hash"}` of `sync_hash()`.
pub async fn hash((State(gateway), Extension(caller), uri): Asked) -> Result<Response> {
    let parameters = Parameters::parse(&uri, &["tableName"])?;
    let table = Argument::Text(parameters.text("tableName").map(str::to_owned));
    let hash = gateway.database.text(Access::Read, caller.role.as_deref(), &HASH, vec![table]).await?;
    Ok(json(serde_json::json!({ "hash": hash }).to_string()))
}

/// `GET /sync/clients`: `sync_clients()`.
pub async fn clients((State(gateway), Extension(caller), uri): Asked) -> Result<Response> {
    Parameters::parse(&uri, &[])?;
    answer(&gateway, &caller, &CLIENTS, Vec::new()).await
}

/// `GET /sync/tables`: `sync_tables()`.
pub async fn tables((State(gateway), Extension(caller), uri): Asked) -> Result<Response> {
    Parameters::parse(&uri, &[])?;
    answer(&gateway, &caller, &TABLES, Vec::new()).await
}

/// `GET /sync/conflicts[?limit]`: the newest of `sync_conflicts()`.
pub async fn conflicts((State(gateway), Extension(caller), uri): Asked) -> Result<Response> {
    answer(&gateway, &caller, &CONFLICTS, limit(&uri)?).await
}

/// `GET /sync/rejections[?limit]`: the newest of `sync_rejections()`.
pub async fn rejections((State(gateway), Extension(caller), uri): Asked) -> Result<Response> {
    answer(&gateway, &caller, &REJECTIONS, limit(&uri)?).await
}

fn limit(uri: &Uri) -> Result<Vec<Argument>> {
    let parameters = Parameters::parse(uri, &["limit"])?;
    Ok(vec![Argument::Big(parameters.integer("limit", 1..=MOST)?.unwrap_or(USUAL))])
}

async fn answer(gateway: &Shared, caller: &Caller, statement: &'static Statement, arguments: Vec<Argument>) -> Result<Response> {
    let text = gateway.database.text(Access::Read, caller.role.as_deref(), statement, arguments).await?;
    Ok(json(text.unwrap_or_default()))
}
