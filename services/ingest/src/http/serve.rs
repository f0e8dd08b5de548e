//! The listener: bounded heads, bounded waiting, and an end that lets requests finish.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::Request;
use axum::http::request::Parts;
use axum::response::Response;
use hopyard_runtime::tasks::Tasks;
use hopyard_runtime::{Config, bounds, limits};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::frame;
use super::wire::{Seen, Unclear, Wire};
use crate::problem::Refusal;

/// Longest time from the first byte of a head to its last.
const HEAD: Duration = Duration::from_secs(10);
/// Largest head, in bytes.
const HEAD_BYTES: usize = 64 * 1024;
/// Name of the connections on `/metrics`.
const QUEUE: &str = "connections";
/// Name of the connections that were given up because their peer reads nothing, on `/metrics`.
const STUCK: &str = "stuck-connections";
/// Connections beyond the limit that are told so at once.
const SURPLUS: usize = 64;
/// Longest time that such a connection is kept.
const TURNED_AWAY: Duration = Duration::from_secs(5);
/// Files that the process needs for itself: store, bus, logs and those of a moment.
const OWN_FILES: usize = 256;
/// Longest wait for requests to finish once the process drains.
const FINISH: Duration = Duration::from_secs(20);

/// Opens the address; nothing is accepted yet.
///
/// # Errors
/// When the address is taken or no address; the error names it.
pub async fn bind(address: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("the API address {address} cannot be opened (HOPYARD_HTTP_ADDR)"))
}

/// How many connections are open at once, and how long one waits for a reader.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections; further ones are answered with 503 and closed.
    pub connections: usize,
    /// A peer that takes nothing of what is sent for this long is cut off.
    pub patience: Duration,
}

impl Limits {
    /// From the settings of the process, and no more than it may open files.
    ///
    /// # Errors
    /// When a value is not valid.
    pub fn read(config: &Config) -> anyhow::Result<Self> {
        let wanted = config.parsed("HTTP_CONNECTIONS", 4096)?;
        let files = usize::try_from(limits::raise_open_files()).unwrap_or(usize::MAX);
        let connections = wanted.min(files.saturating_sub(OWN_FILES)).max(1);
        if connections < wanted {
            tracing::warn!(wanted, connections, files, "fewer connections are taken, because the process may not open more files");
        }
        Ok(Self { connections, patience: config.span("STREAM_PATIENCE", 30_000)?.std() })
    }
}

/// Cuts a connection off whose peer reads nothing of what waits for it: nothing in this process notices that by itself.
fn drop_when_stuck(stream: &TcpStream, patience: Duration) {
    #[cfg(target_os = "linux")]
    {
        let millis = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::TcpUserTimeout, &millis) {
            tracing::debug!(%error, "a connection has no limit for a reader that reads nothing");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, patience);
}

/// Whether the kernel gave a connection up, as [`drop_when_stuck`] has asked it to.
fn timed_out(error: &hyper::Error) -> bool {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(|cause| cause.kind() == std::io::ErrorKind::TimedOut)
}

/// Answers one request with 503 and closes.
async fn turn_away(stream: TcpStream) {
    let service = service_fn(|_: Request<Incoming>| async {
        let refusal = Refusal::new(503, "overloaded", "this process has as many connections as it takes (HOPYARD_HTTP_CONNECTIONS)");
        Ok::<Response, Infallible>(frame::refuse(refusal))
    });
    let answered = hyper::server::conn::http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    if !matches!(tokio::time::timeout(TURNED_AWAY, answered).await, Ok(Ok(()))) {
        tracing::debug!("a connection too many was closed without an answer");
    }
}

/// Who sends a request, as far as the connection tells; behind a proxy, that is the proxy.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub Option<IpAddr>);

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or(Self(None)))
    }
}

/// The same service, which tells its handlers where a request comes from, and whether the length of its body is clear.
fn with_marks(
    routes: TowerToHyperService<Router>,
    peer: IpAddr,
    seen: Seen,
) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> {
    service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(Some(peer)));
        if seen.next_is_unclear() {
            request.extensions_mut().insert(Unclear);
        }
        routes.call(request)
    })
}

/// Serves until the process drains, then lets the open requests finish.
///
/// # Errors
/// Never by a client; the listener itself is kept open over errors of single connections.
pub async fn serve(listener: TcpListener, router: Router, tasks: Tasks, limits: Limits) -> anyhow::Result<()> {
    let connections = TaskTracker::new();
    let most = limits.connections;
    let (places, surplus) = (Arc::new(Semaphore::new(most)), Arc::new(Semaphore::new(SURPLUS)));
    let shown = places.clone();
    bounds::show(QUEUE, most, move || most - shown.available_permits());
    loop {
        let accepted = tokio::select! {
            () = tasks.draining().cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or a connection that was gone before it was taken.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        stream.set_nodelay(true).ok();
        // A stream ends by itself first, and says so.
        drop_when_stuck(&stream, limits.patience * 2);
        let Ok(place) = places.clone().try_acquire_owned() else {
            bounds::overflow(QUEUE);
            // A few are told why; those beyond are closed at once, which costs nothing.
            if let Ok(place) = surplus.clone().try_acquire_owned() {
                tasks.spawn_part("surplus-connection", async move {
                    turn_away(stream).await;
                    drop(place);
                    Ok(())
                });
            }
            continue;
        };
        let seen = Seen::default();
        let service = with_marks(TowerToHyperService::new(router.clone()), peer.ip(), seen.clone());
        let wire = Wire::new(stream, seen);
        let (drain, token) = (tasks.draining().clone(), connections.token());
        tasks.spawn_part("connection", async move {
            let mut connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(HEAD_BYTES)
                .max_header_size(HEAD_BYTES)
                .serve_connection(wire, service);
            let ended = tokio::select! {
                ended = &mut connection => ended,
                () = drain.cancelled() => {
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                    (&mut connection).await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
                if timed_out(&error) {
                    bounds::overflow(STUCK);
                }
                connection.into_parts().io.refuse(&error).await;
            }
            drop((token, place));
            Ok(())
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(FINISH, connections.wait()).await.is_err() {
        tracing::warn!(open = connections.len(), "some requests did not finish in time");
    }
    Ok(())
}
