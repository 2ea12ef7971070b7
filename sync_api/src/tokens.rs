//! Bearer tokens in the synced database, so that all gateways before it know the same. Only their hashes are kept.

use crate::answer::parse;
use crate::database::{Access, Argument, Database, Statement};
use crate::error::{ApiError, Result};
use crate::parameters::parse_origin;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use uuid::Uuid;

/// What every token begins with, so that it is known when it turns up where it should not.
const PREFIX: &str = "sync_";

/// Who a token stands for.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Caller {
    pub name: String,
    /// The client's origin id. Without one it may read, and push nothing.
    pub origin: Option<String>,
    /// It pushes changes that others made.
    #[serde(default)]
    pub relay: bool,
    /// PostgreSQL: the role under which its statements run.
    pub role: Option<String>,
    /// Nobody has made a token: whoever reaches the gateway may do everything.
    #[serde(skip)]
    pub open: bool,
}

/// What `sync_api token add` was told.
pub struct NewToken {
    pub name: String,
    pub origin: Option<String>,
    pub relay: bool,
    pub role: Option<String>,
    pub days: Option<u32>,
}

static EXISTS: Statement = Statement::differing(
    "SELECT CAST(EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_sync_api_tokens') AS TEXT)",
    "SELECT CASE WHEN pg_catalog.to_regclass('sync_api.tokens') IS NULL THEN '0' ELSE '1' END",
);
static ANY: Statement = Statement::differing(
    "SELECT CAST(EXISTS (SELECT 1 FROM _sync_api_tokens) AS TEXT)",
    "SELECT CASE WHEN EXISTS (SELECT 1 FROM sync_api.tokens) THEN '1' ELSE '0' END",
);
static FIND: Statement = Statement::differing(
    "SELECT (SELECT json_object('name', name, 'origin', origin, 'relay', json(iif(relay, 'true', 'false')), 'role', role) \
     FROM _sync_api_tokens WHERE hash = ?1 AND revoked_at IS NULL \
     AND (expires_at IS NULL OR expires_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))",
    "SELECT (SELECT json_build_object('name', name, 'origin', origin, 'relay', relay, 'role', role)::text \
     FROM sync_api.tokens WHERE hash = ?1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()))",
);
static ADD: Statement = Statement::differing(
    "INSERT INTO _sync_api_tokens (name, hash, origin, relay, role, expires_at) \
     VALUES (?1, ?2, ?3, ?4, ?5, CASE WHEN ?6 > 0 THEN strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?6 || ' days') END) \
     ON CONFLICT (name) DO NOTHING RETURNING name",
    "WITH added AS (INSERT INTO sync_api.tokens (name, hash, origin, relay, role, expires_at) \
     VALUES (?1, ?2, ?3, ?4, ?5, CASE WHEN ?6 > 0 THEN now() + make_interval(days => ?6) END) \
     ON CONFLICT (name) DO NOTHING RETURNING name) SELECT (SELECT name FROM added)",
);
static REVOKE: Statement = Statement::differing(
    "UPDATE _sync_api_tokens SET revoked_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') \
     WHERE name = ?1 AND revoked_at IS NULL RETURNING name",
    "WITH ended AS (UPDATE sync_api.tokens SET revoked_at = now() WHERE name = ?1 AND revoked_at IS NULL RETURNING name) \
     SELECT (SELECT name FROM ended)",
);
static LIST: Statement = Statement::differing(
    "SELECT coalesce(group_concat(name || char(9) || coalesce(origin, '-') || char(9) || iif(relay, 'relay', '-') || char(9) || coalesce(role, '-') \
     || char(9) || created_at || char(9) || coalesce('revoked ' || revoked_at, 'expires ' || expires_at, 'valid'), char(10)), '') \
     FROM (SELECT * FROM _sync_api_tokens ORDER BY created_at, name)",
    "SELECT coalesce(string_agg(concat_ws(chr(9), name, coalesce(origin, '-'), CASE WHEN relay THEN 'relay' ELSE '-' END, \
     coalesce(role, '-'), created_at, coalesce('revoked ' || revoked_at, 'expires ' || expires_at, 'valid')), chr(10) \
     ORDER BY created_at, name), '') FROM sync_api.tokens",
);

/// Makes the table when it is missing. In PostgreSQL whoever does owns it, and a gateway that runs as another user needs SELECT on it.
pub async fn create(database: &Database) -> Result<()> {
    match database {
        Database::Sqlite(sqlite) => sqlite.execute(include_str!("../../sql/sqlite/api_tokens.sql")).await,
        Database::Postgres(postgres) => match exists(database).await? {
            true => Ok(()),
            false => postgres.execute(include_str!("../../sql/postgres/api_tokens.sql")).await,
        },
    }
}

/// Is there a table of tokens?
pub async fn exists(database: &Database) -> Result<bool> {
    is_one(database.text(Access::Read, None, &EXISTS, Vec::new()).await?)
}

/// Was a token ever made? One that was revoked counts: its end opens nothing. The table has to be there.
pub async fn any(database: &Database) -> Result<bool> {
    is_one(database.text(Access::Read, None, &ANY, Vec::new()).await?)
}

/// Whom a token stands for, if it is valid.
pub async fn find(database: &Database, token: &str) -> Result<Option<Caller>> {
    let found = database.text(Access::Read, None, &FIND, vec![Argument::Text(Some(hash(token)))]).await?;
    found.as_deref().map(parse).transpose()
}

/// Makes a token and returns it. It cannot be had again. None if the name is taken.
///
/// Errors: `InvalidArgument` for an origin that is no UUID, or a role where there are none.
pub async fn add(database: &Database, new: NewToken) -> Result<Option<String>> {
    let origin = new.origin.as_deref().map(|origin| parse_origin("the origin", origin)).transpose()?;
    if new.role.is_some() && !database.has_roles() {
        return Err(ApiError::argument("SQLite has no roles"));
    }
    create(database).await?;
    let token = format!("{PREFIX}{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let arguments = vec![
        Argument::Text(Some(new.name)),
        Argument::Text(Some(hash(&token))),
        Argument::Text(origin),
        Argument::Bool(new.relay),
        Argument::Text(new.role),
        Argument::Int(new.days.unwrap_or(0).try_into().map_err(|_| ApiError::argument("too many days"))?),
    ];
    Ok(database.text(Access::Write, None, &ADD, arguments).await?.map(|_| token))
}

/// One line a token, its columns parted by tabs: name, origin, relay, role, made at, state.
pub async fn list(database: &Database) -> Result<String> {
    create(database).await?;
    Ok(database.text(Access::Read, None, &LIST, Vec::new()).await?.unwrap_or_default())
}

/// Ends a token. False if there is no valid one of this name.
pub async fn revoke(database: &Database, name: &str) -> Result<bool> {
    create(database).await?;
    Ok(database.text(Access::Write, None, &REVOKE, vec![Argument::Text(Some(name.to_owned()))]).await?.is_some())
}

fn is_one(text: Option<String>) -> Result<bool> {
    Ok(text.as_deref() == Some("1"))
}

/// A token holds 244 random bits: a plain hash cannot be reversed.
fn hash(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
