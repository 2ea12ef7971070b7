//! A gateway over HTTP: `GET /sync/changes`, `POST /sync/changes`, `POST /sync/clients`, over one connection that is kept.

use super::failure::{self, Failure};
use super::patience::Patience;
use super::transport::PatientConnector;
use super::{Link, Request, tls};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;
use serde_json::json;
use std::io::{ErrorKind, Write as _};
use std::sync::Arc;
use std::time::Duration;
use sync_shared::{Error, Kind, MAX_BYTES, Result, SyncOptions};
use ureq::{Agent, RequestBuilder};
use ureq::http::{Response, StatusCode};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector as _, RustlsConnector};

/// The gateway's limit.
const LARGEST_FETCH: i64 = 5000;
/// Shorter bodies are sent as they are.
const WORTH_COMPRESSING: usize = 1024;
/// The longest answer that is read: a batch, and what it may have around it.
const LONGEST_ANSWER: u64 = 2 * MAX_BYTES as u64;

pub struct HttpLink {
    agent: Agent,
    /// Scheme, host, port and the path that the gateway's own paths follow.
    base: String,
    token: Option<String>,
}

/// What the gateway says when something went wrong.
#[derive(Deserialize)]
struct Refusal {
    kind: String,
    message: String,
    data: Option<serde_json::Value>,
}

impl HttpLink {
    /// Errors: `InvalidArgument`.
    pub fn new(url: &str, options: &SyncOptions, patience: &Arc<Patience>) -> Result<HttpLink> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let authority = rest.split('/').next().unwrap_or_default();
        if authority.contains('@') {
            return Err(Error::argument("the url holds a user or a password; a gateway takes the option \"token\""));
        }
        if authority.is_empty() || rest.contains(['?', '#', ' ']) || url.parse::<ureq::http::Uri>().is_err() {
            return Err(Error::argument("the url is not of the form http(s)://host[:port][/path]"));
        }
        let is_encrypted = scheme.eq_ignore_ascii_case("https");
        if options.tls.required && !is_encrypted {
            return Err(Error::argument("option \"tls\" is for https:// and postgres:// URLs"));
        }
        let base = format!("{}://{}", scheme.to_ascii_lowercase(), rest.trim_end_matches('/'));
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // Whoever answers for the gateway does not get the token elsewhere.
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("sqlite_sync/", env!("CARGO_PKG_VERSION")));
        if is_encrypted {
            let roots = tls::roots(&options.tls)?;
            let roots = roots.iter().map(|root| Certificate::from_der(root).to_owned());
            let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(tls::provider());
            config = config.tls_config(tls.root_certs(RootCerts::Specific(Arc::new(roots.collect()))).build());
        }
        let connector = PatientConnector(patience.clone()).chain(RustlsConnector::default());
        let agent = Agent::with_parts(config.build(), connector, DefaultResolver::default());
        Ok(HttpLink { agent, base, token: options.token.clone() })
    }

    fn get(&self, path: &str) -> Result<String, Failure> {
        self.read(self.prepared(self.agent.get(format!("{}{path}", self.base))).call())
    }

    fn post(&self, path: &str, body: &str) -> Result<String, Failure> {
        let request = self.prepared(self.agent.post(format!("{}{path}", self.base))).header("content-type", "application/json");
        if body.len() < WORTH_COMPRESSING {
            return self.read(request.send(body));
        }
        let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
        let compressed = encoder.write_all(body.as_bytes()).and_then(|()| encoder.finish()).map_err(Error::corrupt)?;
        self.read(request.header("content-encoding", "gzip").send(&compressed[..]))
    }

    /// With what every request says.
    fn prepared<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        let request = request.header("accept", "application/json");
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn read(&self, answer: Result<Response<ureq::Body>, ureq::Error>) -> Result<String, Failure> {
        let answer = answer.map_err(|error| self.lost(&error))?;
        let (head, body) = answer.into_parts();
        let bytes = body.into_with_config().limit(LONGEST_ANSWER).read_to_vec().map_err(|error| self.lost(&error))?;
        if head.status == StatusCode::OK {
            return String::from_utf8(bytes).map_err(|_| Error::batch("the answer is not UTF-8").into());
        }
        let after = head.headers.get("retry-after").and_then(|seconds| seconds.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        Err(self.refusal(head.status, after, &bytes))
    }

    /// What an answer other than 200 means.
    fn refusal(&self, status: StatusCode, after: Option<Duration>, body: &[u8]) -> Failure {
        let said = serde_json::from_slice::<Refusal>(body).ok();
        if let Some(Refusal { kind, message, data }) = &said
            && let Some(kind) = Kind::named(kind)
        {
            return failure::of_contract(kind, message, data.clone()).into();
        }
        let what = said.map_or_else(|| format!("HTTP status {status}"), |said| said.message);
        match status.as_u16() {
            408 | 429 | 502 | 503 | 504 => Failure::busy(&self.base, what, after),
            401 | 403 => Error::new(Kind::PermissionDenied, format!("the server at {} says: {what}", self.base)).into(),
            413 => Error::limit(format!("the server at {} says: {what}", self.base)).into(),
            300..=399 => failure::refused(&self.base, "it redirects to another address; give that one").into(),
            404 | 405 => failure::refused(&self.base, format!("there is no gateway under this address ({what})")).into(),
            _ => failure::refused(&self.base, what).into(),
        }
    }

    /// What became of a request that was not answered.
    fn lost(&self, error: &ureq::Error) -> Failure {
        let is_certificate = |error: &rustls::Error| matches!(error, rustls::Error::InvalidCertificate(_));
        match error {
            ureq::Error::Io(io) => match io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(tls) if is_certificate(tls) => Failure::Lasting(failure::unreachable(&self.base, tls)),
                _ => Failure::unreachable(&self.base, io),
            },
            ureq::Error::Rustls(tls) if is_certificate(tls) => Failure::Lasting(failure::unreachable(&self.base, tls)),
            ureq::Error::BodyExceedsLimit(_) => Error::limit("the server's answer is too long").into(),
            ureq::Error::HostNotFound => Failure::unreachable(&self.base, "its name is not known"),
            // Others may repeat the request, and with it the token.
            ureq::Error::Http(_) | ureq::Error::BadUri(_) => Error::argument("the url cannot be used").into(),
            ureq::Error::Protocol(_) => Failure::unreachable(&self.base, "the answer is cut off, or no HTTP"),
            ureq::Error::Decompress(_, io) if matches!(io.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData) => {
                Error::batch("the answer is not compressed as it says").into()
            }
            ureq::Error::Decompress(..) => Failure::unreachable(&self.base, "the answer is cut off"),
            ureq::Error::Timeout(_) => Failure::unreachable(&self.base, "no answer in time"),
            _ => Failure::unreachable(&self.base, "the connection was lost"),
        }
    }
}

impl Link for HttpLink {
    fn run(&mut self, request: &Request) -> Result<String, Failure> {
        match request {
            Request::Fetch { from, size, origin } => {
                self.get(&format!("/sync/changes?fromVersion={from}&batchSize={size}&excludeOrigin={origin}"))
            }
            Request::Apply { batch } => self.post("/sync/changes", batch),
            Request::Register { origin, version } => {
                self.post("/sync/clients", &json!({ "originId": origin, "lastSyncVersion": version }).to_string())
            }
        }
    }

    fn name(&self) -> &str {
        &self.base
    }

    fn largest_fetch(&self) -> i64 {
        LARGEST_FETCH
    }
}
