//! PostgreSQL behind the gateway: a pool of connections for calls, and one that listens.

use super::{Argument, StartError, Statement};
use crate::error::{ApiError, Result};
use crate::options::Options;
use crate::wake::Wake;
use deadpool_postgres::{Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, Timeouts};
use futures_util::future::poll_fn;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long the gateway waits for a database that starts at the same time as it does.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a call waits for a connection of the pool.
const WAIT: Duration = Duration::from_secs(10);
/// How often a listening connection that hears nothing is asked whether it is alive.
const ALIVE: Duration = Duration::from_secs(30);

pub struct Postgres {
    pool: Pool,
    config: Config,
    tls: MakeRustlsConnect,
    /// The extension's, quoted.
    schema: String,
    timeout: Duration,
}

impl Postgres {
    pub async fn open(options: &Options) -> Result<Postgres, StartError> {
        let mut config: Config =
            options.database.parse().map_err(|_| StartError::new("--database is no connection string that PostgreSQL has"))?;
        if let (None, Ok(password)) = (config.get_password(), std::env::var("PGPASSWORD")) {
            config.password(password);
        }
        let timeout = Duration::from_secs(options.serve.timeout.into());
        // A little less than the gateway waits, so that the server is the one that stops.
        let settings = format!("-c statement_timeout={} {}", timeout.as_millis(), config.get_options().unwrap_or_default());
        config.options(settings.trim()).application_name("sync_api").connect_timeout(WAIT);
        let tls = MakeRustlsConnect::new(tls_config(options)?);
        let manager = Manager::from_config(config.clone(), tls.clone(), ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let pool = Pool::builder(manager)
            .max_size(options.serve.pool.into())
            .timeouts(Timeouts { wait: Some(WAIT), create: Some(WAIT), recycle: Some(WAIT) })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|_| StartError::new("the pool of connections cannot be made"))?;
        let schema = find_extension(&pool).await?;
        Ok(Postgres { pool, config, tls, schema, timeout })
    }

    pub async fn text(&self, role: Option<&str>, statement: &'static Statement, arguments: Vec<Argument>) -> Result<Option<String>> {
        let call = self.call(role, statement, &arguments);
        // The server's own limit comes first, but for one that is out of reach.
        match tokio::time::timeout(self.timeout + WAIT, call).await {
            Ok(answer) => answer,
            Err(_) => Err(ApiError::unavailable("the database took too long")),
        }
    }

    async fn call(&self, role: Option<&str>, statement: &'static Statement, arguments: &[Argument]) -> Result<Option<String>> {
        let mut client = self.pool.get().await.map_err(pool_error)?;
        let parameters: Vec<&(dyn ToSql + Sync)> = arguments.iter().map(Argument::as_sql).collect();
        let sql = statement.postgres(&self.schema);
        let row = match role {
            None => {
                let prepared = client.prepare_cached(sql).await.map_err(api_error)?;
                client.query_one(&prepared, &parameters).await.map_err(api_error)?
            }
            Some(role) => {
                // It rolls back when it is dropped, also when the request is given up.
                let transaction = client.transaction().await.map_err(api_error)?;
                transaction.batch_execute(&format!("SET LOCAL ROLE {}", quoted(role))).await.map_err(api_error)?;
                let prepared = transaction.prepare_cached(sql).await.map_err(api_error)?;
                let row = transaction.query_one(&prepared, &parameters).await.map_err(api_error)?;
                transaction.commit().await.map_err(api_error)?;
                row
            }
        };
        row.try_get(0).map_err(api_error)
    }

    /// Runs statements that yield nothing.
    pub async fn execute(&self, script: &str) -> Result<()> {
        let client = self.pool.get().await.map_err(pool_error)?;
        client.batch_execute(script).await.map_err(api_error)
    }

    /// Listens for `NOTIFY pg_sync`, and goes on after a connection was lost.
    pub fn watch(&self, wake: Arc<Wake>) {
        let (config, tls) = (self.config.clone(), self.tls.clone());
        tokio::spawn(async move {
            loop {
                if let Err(error) = listen(&config, &tls, &wake).await {
                    tracing::warn!(code = code_of(&error), "the connection that listens was lost");
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
}

impl Argument {
    fn as_sql(&self) -> &(dyn ToSql + Sync) {
        match self {
            Argument::Text(text) => text,
            Argument::Big(number) => number,
            Argument::Int(number) => number,
            Argument::Bool(truth) => truth,
        }
    }
}

/// The schema of the extension, quoted. Waits for a server that is still starting.
async fn find_extension(pool: &Pool) -> Result<String, StartError> {
    const QUERY: &str = "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e \
                         JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_sync'";
    let begun = tokio::time::Instant::now();
    loop {
        let error = match pool.get().await {
            Ok(client) => match client.query_opt(QUERY, &[]).await {
                Ok(Some(row)) => return row.try_get(0).map_err(|_| StartError::new("the extension's schema cannot be read")),
                Ok(None) => return Err(StartError::new("the database has no pg_sync: CREATE EXTENSION pg_sync;")),
                Err(error) => code_of(&error).to_owned(),
            },
            Err(PoolError::Backend(error)) => code_of(&error).to_owned(),
            Err(_) => "unreachable".to_owned(),
        };
        // 28: authentication; 3D: no such database.
        if error.starts_with("28") || error.starts_with("3D") || begun.elapsed() > PATIENCE {
            return Err(StartError::new(format!("cannot use the database ({error})")));
        }
        tracing::warn!(code = error, "the database cannot be reached yet");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn listen(config: &Config, tls: &MakeRustlsConnect, wake: &Wake) -> Result<(), tokio_postgres::Error> {
    let (client, mut connection) = config.connect(tls.clone()).await?;
    let alive = async {
        client.batch_execute("LISTEN pg_sync").await?;
        // What was committed while nobody listened.
        wake.wake(None);
        loop {
            tokio::time::sleep(ALIVE).await;
            client.batch_execute("").await?;
        }
    };
    let hear = async {
        loop {
            match poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notification(note))) => wake.wake(note.payload().parse().ok()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            }
        }
    };
    tokio::select! {
        result = alive => result,
        result = hear => result,
    }
}

fn tls_config(options: &Options) -> Result<rustls::ClientConfig, StartError> {
    let mut roots = RootCertStore::empty();
    let unusable = || StartError::new("--database-ca holds no usable certificate");
    if let Some(path) = &options.database_ca {
        for certificate in CertificateDer::pem_file_iter(path).map_err(|_| unusable())? {
            roots.add(certificate.map_err(|_| unusable())?).map_err(|_| unusable())?;
        }
        if roots.is_empty() {
            return Err(unusable());
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    Ok(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The SQLSTATE, or that there is none.
fn code_of(error: &tokio_postgres::Error) -> &str {
    error.code().map_or("unreachable", SqlState::code)
}

fn pool_error(error: PoolError) -> ApiError {
    match error {
        PoolError::Backend(error) => api_error(error),
        PoolError::Timeout(_) => ApiError::unavailable("all connections to the database are in use"),
        _ => ApiError::unavailable("the database cannot be reached"),
    }
}

fn api_error(error: tokio_postgres::Error) -> ApiError {
    let Some(database) = error.as_db_error() else {
        if error.is_closed() || std::error::Error::source(&error).is_some_and(|source| source.is::<std::io::Error>()) {
            return ApiError::unavailable("the database cannot be reached");
        }
        tracing::error!("the gateway and the database misunderstood each other");
        return ApiError::internal();
    };
    if let Some(sync) = ApiError::of_sync(database.message(), database.detail()) {
        return sync;
    }
    let code = database.code().code();
    let known = match code {
        "40001" | "40P01" | "55P03" => ApiError::unavailable("another transaction was in the way; send it again"),
        "57014" => ApiError::unavailable("the database took too long"),
        "42501" => ApiError::forbidden("the role of this token lacks a right that this takes"),
        "25006" => ApiError::unavailable("the database is read-only"),
        _ if matches!(&code[..2], "08" | "53" | "57" | "58") => ApiError::unavailable("the database cannot answer now"),
        _ => ApiError::internal(),
    };
    tracing::error!(code, "the database refused a statement");
    ApiError { code: Some(code.to_owned()), ..known }
}
