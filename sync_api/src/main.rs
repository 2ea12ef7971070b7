//! sync_api: the functions of pg_sync and sqlite_sync over HTTP, with live subscriptions.
//!
//! Read `options.rs`, `router.rs`, then what a request meets: `auth.rs`, `changes.rs`, `push.rs`; and for what is live: `wake.rs`, `feed.rs`,
//! `subscription.rs`. What syncs is decided in the database: nothing here knows how.

mod answer;
mod auth;
mod body;
mod changes;
mod clients;
mod database;
mod error;
mod feed;
mod filter;
mod gateway;
mod jwt;
mod limits;
mod metrics;
mod options;
mod page;
mod parameters;
mod push;
mod registry;
mod reports;
mod router;
mod server;
mod subscription;
mod tokens;
mod wake;

use clap::Parser as _;
use database::{Access, Argument, Database, StartError, Statement};
use error::ApiError;
use options::{Command, Options, TokenCommand};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

static TRACK: Statement = Statement::new("SELECT @sync_track_table(?1)");

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = EnvFilter::try_from_env("SYNC_API_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    if options.log_json {
        log.json().init();
    } else {
        log.with_ansi(false).init();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sync_api: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sync_api: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(mut options: Options) -> Result<(), StartError> {
    let database = Database::open(&options).await?;
    match options.command.take() {
        None => serve(options, database).await,
        Some(Command::Token(command)) => token(command, &database).await.map_err(|error| StartError::new(error.message)),
    }
}

async fn token(command: TokenCommand, database: &Database) -> Result<(), ApiError> {
    match command {
        TokenCommand::Add { name, origin, relay, role, days, unless_there } => {
            match tokens::add(database, tokens::NewToken { name: name.clone(), origin, relay, role, days }).await? {
                Some(token) => println!("{token}"),
                None if unless_there => {}
                None => return Err(ApiError::argument(format!("there is a token {name:?} already"))),
            }
        }
        TokenCommand::List => {
            let list = tokens::list(database).await?;
            if !list.is_empty() {
                println!("{list}");
            }
        }
        TokenCommand::Revoke { name } => {
            if !tokens::revoke(database, &name).await? {
                return Err(ApiError::not_found(format!("there is no valid token {name:?}")));
            }
        }
    }
    Ok(())
}

async fn serve(options: Options, database: Database) -> Result<(), StartError> {
    let failed = |error: ApiError| StartError::new(error.message);
    for table in &options.serve.track {
        let arguments = vec![Argument::Text(Some(table.clone()))];
        database.text(Access::Write, None, &TRACK, arguments).await.map_err(failed)?;
    }
    let database = Arc::new(database);
    let jwt = options.serve.jwt_key_file.as_deref().map(jwt::JwtKey::read).transpose()?;
    let auth = auth::Auth::new(database.clone(), jwt);
    let listen = options.serve.listen;
    if !auth.is_closed().await.map_err(failed)? {
        if !listen.ip().is_loopback() {
            let message = format!(
                "--listen {listen} can be reached from other machines, and no token is configured: make one with `sync_api token add NAME`, or listen on 127.0.0.1"
            );
            return Err(StartError::new(message));
        }
        tracing::warn!("no token is configured: every program on this machine may do everything; listening on loopback only");
    }
    let tls = server::acceptor(&options.serve)?;
    let listener = TcpListener::bind(listen).await.map_err(|error| StartError::new(format!("cannot listen on {listen}: {error}")))?;
    let wake = Arc::new(wake::Wake::default());
    database.watch(wake.clone());
    let stopping = CancellationToken::new();
    let gateway = Arc::new(gateway::Gateway {
        feeds: feed::Feeds::new(database.clone(), wake),
        database,
        auth,
        limits: limits::Limits::new(options.serve.requests_per_minute, options.serve.subscriptions),
        registry: registry::Registry::default(),
        metrics: metrics::Metrics::new().map_err(|error| StartError::new(error.to_string()))?,
        bodies: body::BodyBudget::default(),
        stopping: stopping.clone(),
    });
    let address = listener.local_addr().unwrap_or(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0));
    tracing::info!(%address, tls = tls.is_some(), "listening");
    tokio::spawn(stop_on_signal(stopping.clone()));
    server::serve(listener, tls, router::router(gateway), stopping).await;
    tracing::info!("stopped");
    Ok(())
}

/// Ends streams and takes no more connections after SIGTERM or SIGINT.
async fn stop_on_signal(stopping: CancellationToken) {
    if let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: streams end, requests that have begun are finished");
        stopping.cancel();
    }
}
