//! `sync_init` and `sync_regenerate_origin`: who this replica is.

use crate::error::{Error, Result};
use crate::host::{Host, in_transaction};
use crate::refresh::reinstall_all;
use crate::state::{self, State, parse_origin};
use crate::value::ValueRef;
use uuid::Uuid;

/// Creates what is missing and returns this replica's origin id. A given id is kept for good.
///
/// Errors: `InvalidArgument` if `origin_id` is not a UUID, or another one than is set.
pub fn init(host: &mut dyn Host, origin_id: Option<&str>) -> Result<String> {
    let wanted = match origin_id {
        None => None,
        Some(text) => Some(parse_origin(text).ok_or_else(|| Error::argument(format!("origin id {text:?} is not a UUID")))?),
    };
    if host.is_initialized()? {
        let state = State::load(host)?;
        return match wanted {
            Some(wanted) if wanted != state.origin_id => Err(Error::argument(format!(
                "this replica's origin id is {} and stays; a copied database gets a new one by sync_regenerate_origin()",
                state.origin_id
            ))),
            _ => Ok(state.origin_id),
        };
    }
    let origin = wanted.unwrap_or_else(|| Uuid::new_v4().to_string());
    in_transaction(host, |host| {
        host.create_schema()?;
        host.execute(
            "INSERT INTO _sync_origins (id, origin) VALUES (1, ?1) ON CONFLICT DO NOTHING",
            &[ValueRef::Text(&origin)],
        )?;
        for (key, value) in [
            ("schema_version", "1"),
            ("self_id", "1"),
            ("origin_id", origin.as_str()),
            ("epoch", &Uuid::new_v4().to_string()),
            ("last_server_version", "0"),
            ("last_push_version", "0"),
            ("purge_horizon", "0"),
        ] {
            state::set(host, key, value)?;
        }
        let cookie = host.schema_cookie()?;
        state::set_integer(host, "schema_cookie", cookie)
    })?;
    Ok(origin)
}

/// Gives a copied database an identity of its own and returns the new origin id.
///
/// What the copy has not pushed becomes its own; what was pushed before stays the original's. Its clients have to resync.
pub fn regenerate_origin(host: &mut dyn Host) -> Result<String> {
    let state = State::load(host)?;
    let origin = Uuid::new_v4().to_string();
    in_transaction(host, |host| {
        let id = state::origin_number(host, &origin)?;
        let head = host.head()?;
        if state.last_push_version < head {
            host.execute(
                "UPDATE _sync_log_data SET origin = ?1 WHERE version > ?2 AND origin = ?3 AND via IS NULL",
                &[ValueRef::Integer(id), ValueRef::Integer(state.last_push_version), ValueRef::Integer(state.self_id)],
            )?;
        }
        state::set_integer(host, "self_id", id)?;
        state::set(host, "origin_id", &origin)?;
        state::set(host, "epoch", &Uuid::new_v4().to_string())?;
        // What neighbours know of the old identity says nothing about the new one.
        for statement in ["DELETE FROM _sync_received", "DELETE FROM _sync_marks", "DELETE FROM _sync_pushes", "DELETE FROM _sync_clients", "DELETE FROM _sync_peers", "DELETE FROM _sync_unseen"] {
            host.execute(statement, &[])?;
        }
        reinstall_all(host)
    })?;
    Ok(origin)
}
