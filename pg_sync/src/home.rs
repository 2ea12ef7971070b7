//! Where the state of this replica belongs: to one database of one cluster, on one timeline of its history.
//!
//! In a database that was restored or copied, and on a standby that was promoted, the first call makes a new epoch: whoever followed the
//! original may have seen what is not here.
#![allow(unsafe_code)]

use crate::extension::Extension;
use crate::fence;
use crate::host::PgHost;
use pgrx::pg_sys;
use sync_shared::{Host as _, Result, ValueRef};

/// Whose state the tables of ours hold.
#[derive(Clone, Copy, PartialEq)]
pub enum Home {
    /// Nobody's yet.
    Nowhere,
    /// This database's.
    Here,
    /// This database's, before the cluster was promoted or recovered to a point in time.
    Earlier,
    /// That of another, from which this one was restored or copied.
    Elsewhere,
}

/// This extension of this database of this cluster, by their numbers: a dump that is restored over its own database makes another one.
fn address(extension: &Extension) -> String {
    // SAFETY: set when the backend starts.
    let (cluster, database) = unsafe { (pg_sys::GetSystemIdentifier(), pg_sys::MyDatabaseId) };
    format!("{cluster}/{}/{}", database.to_u32(), extension.log.to_u32())
}

/// The branch of the cluster's history that is written now; none on a standby, which writes none.
fn timeline() -> Option<String> {
    if fence::is_standby() {
        return None;
    }
    // SAFETY: recovery is over, so the number is set and stays.
    #[cfg(not(any(feature = "pg13", feature = "pg14")))]
    let timeline = unsafe { pg_sys::GetWALInsertionTimeLine() };
    // SAFETY: as above.
    #[cfg(any(feature = "pg13", feature = "pg14"))]
    let timeline = unsafe { pg_sys::ThisTimeLineID };
    Some(timeline.to_string())
}

pub fn home(host: &mut PgHost) -> Result<Home> {
    let (mut home, mut written, mut origin) = (String::new(), String::new(), false);
    let sql = "SELECT key, value FROM _sync_state WHERE key = 'home' OR key = 'timeline' OR key = 'origin_id'";
    host.query(sql, &[], &mut |row| {
        match row.text(0)? {
            "home" => row.text(1)?.clone_into(&mut home),
            "timeline" => row.text(1)?.clone_into(&mut written),
            _ => origin = true,
        }
        Ok(true)
    })?;
    Ok(match origin {
        false => Home::Nowhere,
        true if home != address(&host.extension) => Home::Elsewhere,
        true if timeline().is_some_and(|now| now != written) => Home::Earlier,
        true => Home::Here,
    })
}

/// The first call of any function makes this replica what `sync_init` makes it, and tells a copy from the original by its epoch.
pub fn initialize(host: &mut PgHost) -> Result<()> {
    if home(host)? == Home::Here {
        return Ok(());
    }
    fence::lock_applies()?;
    settle(host, None).map(|_| ())
}

/// As `sync_init`; returns the origin id.
pub fn settle(host: &mut PgHost, origin_id: Option<&str>) -> Result<String> {
    let before = home(host)?;
    let origin = sync_shared::init(host, origin_id)?;
    if matches!(before, Home::Earlier | Home::Elsewhere) {
        host.execute("UPDATE _sync_state SET value = gen_random_uuid()::text WHERE key = 'epoch'", &[])?;
    }
    if before != Home::Here {
        // The epoch goes out with the first batch.
        fence::commit_durably();
        for (key, value) in [("home", address(&host.extension)), ("timeline", timeline().unwrap_or_default())] {
            let sql = "INSERT INTO _sync_state (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
            host.execute(sql, &[ValueRef::Text(key), ValueRef::Text(&value)])?;
        }
    }
    Ok(origin)
}
