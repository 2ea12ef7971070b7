//! A PostgreSQL server without a gateway: the extension's functions, called as the database user of the address.
//!
//! The asynchronous client on a runtime of its own, not the synchronous one over it: that cannot give up waiting for an answer.

use super::failure::{self, Failure};
use super::patience::{Patience, TICK};
use super::{Link, Request, tls};
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;
use sync_shared::{Error, Kind, MAX_CHANGES, Result, SyncOptions};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::DbError;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long the server is waited for to notice that the session ends.
const FAREWELL: Duration = Duration::from_millis(500);
/// After so long without an answer the system asks whether the server is there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// The shortest time that the system takes for that.
const SECOND: Duration = Duration::from_secs(1);

const FIND_SCHEMA: &str = "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e \
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace WHERE e.extname OPERATOR(pg_catalog.=) 'pg_sync'";
/// Has the server end what it does for a client that is gone. It is only a help: not every server takes it.
const NOTICE_ABSENCE: &str = "SET client_connection_check_interval = '2s'";

pub struct PostgresLink {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    patience: Arc<Patience>,
    name: String,
    runtime: Runtime,
    session: Option<Session>,
}

struct Session {
    client: Client,
    /// Quoted.
    schema: String,
    connection: JoinHandle<()>,
}

impl PostgresLink {
    /// Errors: `InvalidArgument`.
    pub fn new(url: &str, options: &SyncOptions, patience: &Arc<Patience>) -> Result<PostgresLink> {
        // Certificates are verified in full, whatever is asked for.
        let strict = url.replace("sslmode=verify-full", "sslmode=require").replace("sslmode=verify-ca", "sslmode=require");
        let mut config: Config = strict.parse().map_err(|_| {
            Error::argument("the url is not of the form postgres://user[:password]@host[:port]/database[?option=value]")
        })?;
        if options.tls.required {
            config.ssl_mode(SslMode::Require);
        }
        let is_local = !config.get_hosts().is_empty() && config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        let tls = match config.get_ssl_mode() {
            SslMode::Disable => None,
            SslMode::Prefer if is_local => None,
            _ => Some(MakeRustlsConnect::new(tls::client_config(&options.tls)?)),
        };
        let idle = patience.idle().max(SECOND);
        config.connect_timeout(patience.idle()).tcp_user_timeout(idle).keepalives_idle(idle.min(KEEPALIVE));
        if config.get_application_name().is_none() {
            config.application_name("sqlite_sync");
        }
        let runtime = Builder::new_current_thread().enable_all().build().map_err(Error::corrupt)?;
        let name = name_of(&config);
        Ok(PostgresLink { config, tls, patience: patience.clone(), name, runtime, session: None })
    }
}

impl Link for PostgresLink {
    fn run(&mut self, request: &Request) -> Result<String, Failure> {
        let PostgresLink { config, tls, patience, name, runtime, session } = self;
        let known = session.take();
        let exchange = async {
            let session = match known {
                Some(session) if !session.client.is_closed() => session,
                _ => Session::open(config, tls.as_ref(), name).await?,
            };
            let answer = session.run(request, name).await?;
            Ok::<_, Failure>((session, answer))
        };
        let (kept, answer) = runtime.block_on(async {
            tokio::select! {
                done = tokio::time::timeout(patience.idle(), exchange) => {
                    done.unwrap_or_else(|_| Err(Failure::unreachable(name, "no answer in time")))
                }
                () = given_up(patience) => Err(Failure::unreachable(name, "the call was given up")),
            }
        })?;
        *session = Some(kept);
        Ok(answer)
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn largest_fetch(&self) -> i64 {
        MAX_CHANGES as i64
    }
}

impl Drop for PostgresLink {
    fn drop(&mut self) {
        if let Some(Session { client, connection, .. }) = self.session.take() {
            drop(client);
            self.runtime.block_on(async { tokio::time::timeout(FAREWELL, connection).await }).ok();
        }
    }
}

impl Session {
    async fn open(config: &Config, tls: Option<&MakeRustlsConnect>, server: &str) -> Result<Session, Failure> {
        let lost = |error| lost(server, &error);
        let (client, connection) = match tls {
            None => {
                let (client, connection) = config.connect(NoTls).await.map_err(lost)?;
                // How it ends is seen by the client.
                (client, tokio::spawn(async { connection.await.unwrap_or_default() }))
            }
            Some(tls) => {
                let (client, connection) = config.connect(tls.clone()).await.map_err(lost)?;
                (client, tokio::spawn(async { connection.await.unwrap_or_default() }))
            }
        };
        match client.batch_execute(NOTICE_ABSENCE).await {
            Err(error) if error.as_db_error().is_none() => return Err(lost(error)),
            _ => {}
        }
        let found = client.query_typed(FIND_SCHEMA, &[]).await.map_err(lost)?;
        let schema = found.first().and_then(|row| row.try_get::<_, String>(0).ok()).ok_or_else(|| {
            Error::new(Kind::NotInitialized, format!("the database at {server} has no extension pg_sync: CREATE EXTENSION pg_sync there"))
        })?;
        Ok(Session { client, schema, connection })
    }

    async fn run(&self, request: &Request, server: &str) -> Result<String, Failure> {
        match request {
            Request::Fetch { from, size, origin } => {
                let size = i32::try_from(*size).map_err(Error::corrupt)?;
                let parameters: [Parameter<'_>; 3] = [(from, Type::INT8), (&size, Type::INT4), (origin, Type::TEXT)];
                self.call("sync_fetch_changes($1, $2, $3)", &parameters, server).await
            }
            Request::Apply { batch } => self.call("sync_apply_batch($1)", &[(batch, Type::TEXT)], server).await,
            Request::Register { origin, version } => {
                self.call("sync_register_client($1, $2)", &[(origin, Type::TEXT), (version, Type::INT8)], server).await
            }
        }
    }

    async fn call(&self, function: &str, parameters: &[Parameter<'_>], server: &str) -> Result<String, Failure> {
        let query = format!("SELECT {}.{function}", self.schema);
        let rows = self.client.query_typed(&query, parameters).await.map_err(|error| lost(server, &error))?;
        let answer = rows.first().and_then(|row| row.try_get(0).ok());
        answer.ok_or_else(|| Error::batch("the server has answered nothing").into())
    }
}

type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

async fn given_up(patience: &Patience) {
    while !patience.is_given_up() {
        tokio::time::sleep(TICK).await;
    }
}

/// What an error of the client means.
fn lost(server: &str, error: &tokio_postgres::Error) -> Failure {
    if let Some(said) = error.as_db_error() {
        return refusal(server, said);
    }
    let source = error.source();
    let io = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    let tls = io.and_then(|io| io.get_ref()?.downcast_ref::<rustls::Error>());
    match (io, tls) {
        (_, Some(tls @ rustls::Error::InvalidCertificate(_))) => Failure::Lasting(failure::unreachable(server, tls)),
        (Some(io), _) => Failure::unreachable(server, io),
        (None, _) if error.is_closed() => Failure::unreachable(server, "the connection was lost"),
        // Such as that it has no TLS, or asks for a password that was not given.
        (None, _) => match source {
            Some(source) => Failure::Lasting(failure::unreachable(server, source)),
            None => Failure::unreachable(server, error),
        },
    }
}

/// What an error of the server's means.
fn refusal(server: &str, said: &DbError) -> Failure {
    let code = said.code().code();
    if let Some(error) = Error::parse(said.message(), said.detail()) {
        return error.into();
    }
    match code {
        // A serialization failure, a deadlock, a lock that is taken, too many sessions, a server that starts, stops or has lost one.
        "40001" | "40P01" | "55P03" | "53300" | "57P01" | "57P02" | "57P03" => Failure::busy(server, said.message(), None),
        _ if code.starts_with("08") => Failure::unreachable(server, said.message()),
        "42501" => Error::new(Kind::PermissionDenied, format!("the server at {server} says: {}", said.message())).into(),
        _ if code.starts_with("28") => Error::new(Kind::PermissionDenied, format!("the server at {server} says: {}", said.message())).into(),
        _ => failure::refused(server, format!("{} (SQLSTATE {code})", said.message())).into(),
    }
}

/// Where the server is, without user, password and options.
fn name_of(config: &Config) -> String {
    let hosts = config.get_hosts().iter().enumerate().map(|(place, host)| match host {
        Host::Tcp(host) => match config.get_ports().get(place).or(config.get_ports().first()) {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        },
        Host::Unix(folder) => folder.display().to_string(),
    });
    let hosts = hosts.collect::<Vec<_>>().join(",");
    format!("postgres://{hosts}/{}", config.get_dbname().unwrap_or_default())
}
