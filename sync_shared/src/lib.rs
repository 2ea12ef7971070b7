//! The host-independent core of pg_sync and sqlite_sync.
//!
//! It owns every decision: what a batch is, who has seen what, which change wins, what waits and why, what a hash is taken
//! over. It never talks to a database by itself: a host implements [`Host`] and the functions here work through it.
//! The modules are listed in the order a change travels.
#![forbid(unsafe_code)]

mod error;
mod host;
mod log_entry;
mod row_write;
mod schema;
mod typed;
mod value;

mod canonical;
mod stamp;

mod catalog;
mod cursor;
mod spelling;
mod state;
mod table;

mod check;
mod check_keys;
mod init;
mod reconcile;
mod refresh;
mod remade;
mod track;
mod uncaptured;
mod untracked;

mod wire;
mod batch;
mod change;
mod change_writer;
mod fetch;
mod fetch_local;
mod superseded;
mod payload;

mod admit;
mod ancestor;
mod apply;
mod attempt;
mod conflict;
mod gone;
mod group;
mod incoming;
mod merge;
mod newest;
mod plain;
mod plan;
mod receive;
mod rejection;
mod resolve;
mod runs;
mod session;
mod unseen;

mod clients;
mod purge;
mod resync;

mod hash;
mod status;
mod subscribe;

mod progress;
mod server;
mod sync_options;
mod sync_with;

pub use apply::{ApplyOptions, apply_batch, retry, discard};
pub use batch::{Batch, BatchKind, MAX_BYTES, MAX_CHANGES, decode_batch};
pub use canonical::{MAX_NESTING, canonical_json, canonical_number, write_string};
pub use catalog::Catalog;
pub use change::{Change, Operation};
pub use check::{Finding, check_table};
pub use clients::{Client, clients, register_client, remove_client, stale_clients};
pub use conflict::{Strategy, set_conflict_strategy};
pub use error::{EngineError, Error, Kind, Result, Scope};
pub use fetch::{fetch_changes, visit_changes, VisibleChange};
pub use fetch_local::{acknowledge_push, fetch_local_changes};
pub use hash::{hash, hash_batch, verify_hash};
pub use host::{CaptureState, Host, Row};
pub use init::{init, regenerate_origin};
pub use log_entry::{Fields, Label, LogEntry, LogRange, LogText};
pub use purge::{compact, purge_tombstones, safe_purge_version};
pub use reconcile::{Defaults, reconcile};
pub use resolve::resolve_conflict;
pub use resync::begin_resync;
pub use row_write::{GroupRows, PutRow, RowFailure, Target, Together, Touched, Violation, Written};
pub use schema::SCHEMA_TABLES;
pub use server::{HostServer, Server};
pub use spelling::Corrections;
pub use state::{last_push_version, last_server_version, state_json};
pub use status::{status, tables, TrackedSummary};
pub use subscribe::{poll, subscribe, unsubscribe};
pub use sync_options::{SyncOptions, Tls};
pub use sync_with::{Direction, sync_with};
pub use table::{Column, Description, Layout, Portable, Reference, RelationKind, RowHash, Storage, Table, TextFold};
pub use track::{track_table, untrack_table};
pub use untracked::execute_untracked;
pub use value::{Value, ValueRef, canonical_text, object_members, push_hex, value_for_column, write_canonical, write_payload};

/// The version of the core and of both extensions.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
