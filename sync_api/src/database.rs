//! The database behind the gateway. It only calls the contract's SQL functions: what syncs is decided there.

mod postgres;
mod sqlite;
mod statement;

pub use postgres::Postgres;
pub use sqlite::Sqlite;
pub use statement::{Argument, Statement};

use crate::error::Result;
use crate::options::Options;
use crate::wake::Wake;
use std::sync::Arc;

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

impl StartError {
    pub fn new(message: impl Into<String>) -> StartError {
        StartError(message.into())
    }
}

/// Where a call goes: reads of SQLite go on beside its one writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

pub enum Database {
    Sqlite(Sqlite),
    Postgres(Box<Postgres>),
}

impl Database {
    pub async fn open(options: &Options) -> Result<Database, StartError> {
        let scheme = options.database.split_once("://").map(|(scheme, _)| scheme);
        match scheme {
            None => Sqlite::open(&options.database, options.serve.pool, options.serve.timeout).map(Database::Sqlite),
            Some("postgres" | "postgresql") => Postgres::open(options).await.map(|postgres| Database::Postgres(Box::new(postgres))),
            Some(_) => Err(StartError::new("--database is a path of a SQLite file, or postgres://user@host/database")),
        }
    }

    /// The single text that a statement yields, run as this role.
    ///
    /// Errors: the contract's of the functions it calls; `Unavailable` when the database cannot answer now.
    pub async fn text(&self, access: Access, role: Option<&str>, statement: &'static Statement, arguments: Vec<Argument>) -> Result<Option<String>> {
        match self {
            Database::Sqlite(sqlite) => sqlite.text(access, statement, arguments).await,
            Database::Postgres(postgres) => postgres.text(role, statement, arguments).await,
        }
    }

    /// Wakes whoever follows the log, as long as the gateway runs.
    pub fn watch(&self, wake: Arc<Wake>) {
        match self {
            Database::Sqlite(sqlite) => sqlite.watch(wake),
            Database::Postgres(postgres) => postgres.watch(wake),
        }
    }

    pub fn has_roles(&self) -> bool {
        matches!(self, Database::Postgres(_))
    }
}
