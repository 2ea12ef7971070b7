//! What can be said on the command line or in the environment.

use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// HTTP gateway with live subscriptions for pg_sync and sqlite_sync.
#[derive(Parser)]
#[command(version, about)]
pub struct Options {
    /// A SQLite file (made when there is none), or postgres://user@host/database.
    #[arg(long, env = "SYNC_API_DATABASE", hide_env_values = true, global = true, default_value = "sync.db")]
    pub database: String,
    /// Certificates, in PEM, of whoever signed the certificate of the PostgreSQL server; the system's own by default.
    #[arg(long, env = "SYNC_API_DATABASE_CA", global = true)]
    pub database_ca: Option<PathBuf>,
    /// Write the log as JSON, one object a line.
    #[arg(long, env = "SYNC_API_LOG_JSON", global = true)]
    pub log_json: bool,
    #[command(flatten)]
    pub serve: ServeOptions,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Args)]
pub struct ServeOptions {
    /// Where to listen. Other addresses than loopback need a token or a key for JSON Web Tokens.
    #[arg(long, env = "SYNC_API_LISTEN", default_value = "127.0.0.1:5000")]
    pub listen: SocketAddr,
    /// Track this table; may be given several times.
    #[arg(long = "track", value_name = "TABLE")]
    pub track: Vec<String>,
    /// Certificate chain, in PEM: the gateway speaks TLS.
    #[arg(long, env = "SYNC_API_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM.
    #[arg(long, env = "SYNC_API_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Key of JSON Web Tokens: a public key in PEM (RS256, ES256, EdDSA), or a secret of at least 32 bytes (HS256).
    #[arg(long, env = "SYNC_API_JWT_KEY_FILE", value_name = "FILE")]
    pub jwt_key_file: Option<PathBuf>,
    /// Requests of one token in a minute; 0 for no limit.
    #[arg(long, env = "SYNC_API_REQUESTS_PER_MINUTE", default_value_t = 1000)]
    pub requests_per_minute: u32,
    /// Live subscriptions of one token.
    #[arg(long, env = "SYNC_API_SUBSCRIPTIONS", default_value_t = 100)]
    pub subscriptions: usize,
    /// Connections to PostgreSQL, or readers of the SQLite file.
    #[arg(long, env = "SYNC_API_POOL", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub pool: u16,
    /// Longest time that the database may take for one call, in seconds.
    #[arg(long, env = "SYNC_API_TIMEOUT", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub timeout: u32,
}

#[derive(Subcommand)]
pub enum Command {
    /// Who may use the gateway.
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it: it is shown this once, the database keeps its hash.
    Add {
        /// What the token is called in lists and logs.
        name: String,
        /// The client's origin id. A token without one may read, and push nothing.
        #[arg(long)]
        origin: Option<String>,
        /// The client is a relay: it pushes changes that others made.
        #[arg(long, requires = "origin")]
        relay: bool,
        /// PostgreSQL: the role under which its statements run.
        #[arg(long)]
        role: Option<String>,
        /// Days until the token expires; never by default.
        #[arg(long)]
        days: Option<u32>,
        /// It is no error when there is a token of this name: nothing is made or printed then.
        #[arg(long)]
        unless_there: bool,
    },
    /// List the tokens.
    List,
    /// End a token.
    Revoke { name: String },
}
