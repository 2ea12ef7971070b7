//! Connections: plain or TLS, HTTP/1.1 or HTTP/2, and how they end.

use crate::database::StartError;
use crate::options::ServeOptions;
use axum::Router;
use axum::extract::Request;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Most connections at a time; others wait to be accepted.
const CONNECTIONS: usize = 10_000;
/// How long a client may take to say hello, for its first request, or for the head of another.
const HELLO: Duration = Duration::from_secs(20);
/// How long a client may take none of what is sent to it. A subscriber that is cut off goes on from its last version.
const STALLED: Duration = Duration::from_secs(30);
/// How long requests that have begun may take after the gateway was told to stop.
const LAST: Duration = Duration::from_secs(30);
/// Between two questions whether a client of HTTP/2 is alive.
const ALIVE: Duration = Duration::from_secs(20);
/// After a connection could not be accepted, such as for want of file descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// The address that a request came from, among its extensions.
#[derive(Clone, Copy)]
pub struct Client(pub SocketAddr);

/// Serves until `stopping` is cancelled and what has begun is done.
pub async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router, stopping: CancellationToken) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let (stream, address) = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(_) => {
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            },
        };
        let watcher = graceful.watcher();
        let (tls, router) = (tls.clone(), router.clone());
        tokio::spawn(async move {
            let _place = place;
            let _ = stream.set_nodelay(true);
            match tls {
                None => converse(patient(stream), address, router, watcher).await,
                Some(tls) => {
                    if let Ok(Ok(stream)) = tokio::time::timeout(HELLO, tls.accept(patient(stream))).await {
                        converse(stream, address, router, watcher).await;
                    }
                }
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(LAST, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were cut off: they took longer than {} s", LAST.as_secs());
    }
}

/// What speaks TLS, when a certificate is given.
pub fn acceptor(options: &ServeOptions) -> Result<Option<TlsAcceptor>, StartError> {
    let (Some(chain), Some(key)) = (&options.tls_cert, &options.tls_key) else { return Ok(None) };
    let unusable = |what: &str| StartError::new(format!("{what} cannot be used"));
    let chain = CertificateDer::pem_file_iter(chain).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|_| unusable("--tls-cert"))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|_| unusable("--tls-key"))?;
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    let mut config = config.map_err(|_| unusable("the pair of --tls-cert and --tls-key"))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

/// A connection that ends when its client takes nothing any more.
fn patient(stream: TcpStream) -> Pin<Box<TimeoutStream<TcpStream>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALLED));
    Box::pin(stream)
}

async fn converse<S>(stream: S, address: SocketAddr, router: Router, watcher: hyper_util::server::graceful::Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = CancellationToken::new();
    let first = asked.clone();
    let service = router.map_request(move |mut request: axum::http::Request<_>| {
        first.cancel();
        request.extensions_mut().insert(Client(address));
        request.map(axum::body::Body::new) as Request
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HELLO);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(ALIVE).keep_alive_timeout(HELLO).max_concurrent_streams(250);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut conversation = pin!(watcher.watch(connection.into_owned()));
    // hyper waits without end for the few bytes that tell HTTP/2 from HTTP/1.1, and for what follows them.
    tokio::select! {
        _ = &mut conversation => return,
        () = asked.cancelled() => {}
        () = tokio::time::sleep(HELLO) => return,
    }
    // How a connection ends is the client's affair.
    let _ = conversation.await;
}
