//! The listener: bounded heads, bounded waiting, and an end that lets requests finish.

use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use hopyard_runtime::tasks::Tasks;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

/// Longest time from the first byte of a head to its last.
const HEAD: Duration = Duration::from_secs(10);
/// Largest head, in bytes.
const HEAD_BYTES: usize = 64 * 1024;
/// Longest wait for requests to finish once the process drains.
const FINISH: Duration = Duration::from_secs(20);

/// Opens the address; nothing is accepted yet.
///
/// # Errors
/// When the address is taken or no address; the error names it.
pub async fn bind(address: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("the API address {address} cannot be opened (HOPYARD_HTTP_ADDR)"))
}

/// Serves until the process drains, then lets the open requests finish.
///
/// # Errors
/// Never by a client; the listener itself is kept open over errors of single connections.
pub async fn serve(listener: TcpListener, router: Router, tasks: Tasks) -> anyhow::Result<()> {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = tasks.draining().cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, or a connection that was gone before it was taken.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        stream.set_nodelay(true).ok();
        let service = TowerToHyperService::new(router.clone());
        let (drain, token) = (tasks.draining().clone(), connections.token());
        tasks.spawn_part("connection", async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = drain.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.as_mut().await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(token);
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
