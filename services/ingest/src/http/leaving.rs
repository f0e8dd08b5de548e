//! The last moments of a door: requests are answered for a while longer, and every answer says to come back over another
//! connection, which finds another door.

use std::time::Duration;

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::middleware::map_response;
use axum::response::Response;
use hopyard_runtime::tasks::Tasks;
use tokio_util::sync::CancellationToken;

/// The same tasks for what is served over HTTP: it drains `delay` later than the rest of the process, because whoever
/// sends requests has to see first that this door closes.
pub fn closing_later(tasks: &Tasks, delay: Duration) -> Tasks {
    let closing = CancellationToken::new();
    let (close, drain) = (closing.clone(), tasks.draining().clone());
    tasks.spawn("closing", async move {
        drain.cancelled().await;
        tokio::time::sleep(delay).await;
        close.cancel();
        Ok(())
    });
    tasks.draining_at(closing)
}

/// The same routes, whose answers close their connections once `drain` is cancelled.
pub fn leaving(router: Router, drain: CancellationToken) -> Router {
    router.layer(map_response(move |mut response: Response| {
        let closes = drain.is_cancelled();
        async move {
            if closes {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
    }))
}
