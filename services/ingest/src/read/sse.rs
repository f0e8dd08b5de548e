//! Server-sent events: frames, the head of the answer, and a bounded way from a producer to a reader.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt as _;
use hopyard_runtime::backoff::jitter;
use hopyard_runtime::bounds;
use hopyard_runtime::tasks::Tasks;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::streams::Place;

/// Time between comment lines.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(15);
/// Frames that wait for the reader.
const WAITING: usize = 32;
/// Bytes of frames that wait for the reader; a larger frame waits alone.
const ROOM: usize = 256 * 1024;

/// Readers that were dropped, on `/metrics`.
const SLOW: &str = "slow-readers";

/// The reader is gone, or too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// A frame and its room among those that wait.
type Waiting = (Bytes, Option<OwnedSemaphorePermit>);

/// The producer's end of a stream.
#[derive(Clone)]
pub(crate) struct Sink {
    frames: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    patience: Duration,
}

impl Sink {
    /// Sends one event.
    pub(crate) async fn event(&self, id: Option<&str>, event: &str, data: &impl Serialize) -> Result<(), Gone> {
        self.send(frame(id, event, data)).await
    }

    /// Sends a comment, so that idle connections stay open and dead ones are noticed.
    pub(crate) async fn comment(&self) -> Result<(), Gone> {
        self.send(Bytes::from_static(b": alive\n\n")).await
    }

    /// Sends the last event of a stream.
    pub(crate) async fn end(&self, status: &str) -> Result<(), Gone> {
        self.event(None, "end", &serde_json::json!({ "status": status })).await
    }

    async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        let size = u32::try_from(bytes.len().min(ROOM)).unwrap_or(u32::MAX);
        let sent = async {
            let room = self.room.clone().acquire_many_owned(size).await.map_err(|_| Gone)?;
            self.frames.send((bytes, Some(room))).await.map_err(|_| Gone)
        };
        tokio::time::timeout(self.patience, sent).await.unwrap_or(Err(Gone))
    }
}

/// One frame. JSON on one line has no line break, and ids are made of digits and names.
fn frame(id: Option<&str>, event: &str, data: &impl Serialize) -> Bytes {
    let mut text = String::with_capacity(256);
    if let Some(id) = id {
        text.push_str("id: ");
        text.push_str(id);
        text.push('\n');
    }
    text.push_str("event: ");
    text.push_str(event);
    text.push_str("\ndata: ");
    text.push_str(&serde_json::to_string(data).expect("frames have string keys and no failing serializers"));
    text.push_str("\n\n");
    Bytes::from(text)
}

/// Answers with what `producer` sends, until it ends, the reader goes or the process drains.
pub(crate) fn answer<F, P>(tasks: &Tasks, place: Place, producer: P) -> Response
where
    P: FnOnce(Sink) -> F,
    F: Future<Output = Result<(), Gone>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(WAITING);
    // Tells readers how soon to come back, and sends the head at once.
    let _ = sender.try_send((retry(), None));
    let work = producer(Sink { frames: sender.clone(), room: Arc::new(Semaphore::new(ROOM)), patience: place.patience });
    let drain = tasks.draining().clone();
    tasks.spawn_part("stream", async move {
        let _place = place;
        tokio::select! {
            outcome = work => if outcome.is_err() && !sender.is_closed() {
                bounds::overflow(SLOW);
                tracing::info!("a reader of a stream was too slow and has been dropped");
            },
            () = sender.closed() => {}
            () = drain.cancelled() => {}
        }
        Ok(())
    });
    let mut response =
        Response::new(Body::from_stream(ReceiverStream::new(receiver).map(|(bytes, _room)| Ok::<_, std::convert::Infallible>(bytes))));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// How soon a reader comes back: from one to three seconds, so that those of a door that ended do not come together.
fn retry() -> Bytes {
    Bytes::from(format!("retry: {}\n\n", 1000 + jitter(Duration::from_secs(2)).as_millis()))
}

/// A header with one plain text value.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("\u{fffd}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;

    use super::super::streams::Streams;

    #[test]
    fn a_frame_has_one_line_of_data() {
        let data = serde_json::json!({"text": "a\nb\r\n: no comment\n\nevent: fake\u{2028}"});
        let bytes = frame(Some("7"), "log", &data);
        let text = std::str::from_utf8(&bytes).unwrap();
        assert_eq!(text.matches('\n').count(), 4);
        assert!(!text.contains('\r'));
        let read = text.strip_prefix("id: 7\nevent: log\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(read).unwrap(), data);
        assert_eq!(frame(None, "end", &serde_json::json!({"status": "killed"})), "event: end\ndata: {\"status\":\"killed\"}\n\n");
    }

    const PATIENCE: Duration = Duration::from_secs(30);

    fn one() -> (Tasks, Streams) {
        (Tasks::default(), Streams::new(1, PATIENCE))
    }

    /// The text of a body without its first line, whose number differs.
    fn after_retry(body: &[u8]) -> &str {
        let text = std::str::from_utf8(body).unwrap();
        let (first, rest) = text.split_once("\n\n").unwrap();
        let pause: u64 = first.strip_prefix("retry: ").unwrap().parse().unwrap();
        assert!((1000..3000).contains(&pause));
        rest
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_producer_and_gives_its_place_back() {
        let (tasks, streams) = one();
        let response = answer(&tasks, streams.admit().unwrap(), |sink| async move {
            sink.comment().await?;
            sink.end("completed").await
        });
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        let body = to_bytes(response.into_body(), 4096).await.unwrap();
        assert_eq!(after_retry(&body), ": alive\n\nevent: end\ndata: {\"status\":\"completed\"}\n\n");
        tasks.finished().await;
        assert_eq!(streams.free(), 1);
    }

    #[tokio::test]
    async fn a_reader_that_leaves_ends_the_producer() {
        let (tasks, streams) = one();
        let response = answer(&tasks, streams.admit().unwrap(), |_sink| std::future::pending());
        drop(response);
        tasks.finished().await;
        assert_eq!(streams.free(), 1);
    }

    #[tokio::test]
    async fn a_drain_ends_open_streams() {
        let (tasks, streams) = one();
        let response = answer(&tasks, streams.admit().unwrap(), |_sink| std::future::pending());
        tasks.draining().cancel();
        let body = to_bytes(response.into_body(), 4096).await.unwrap();
        assert_eq!(after_retry(&body), "", "without `end`, so that the reader comes back");
        tasks.finished().await;
        assert_eq!(streams.free(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_dropped() {
        let (tasks, streams) = one();
        let response = answer(&tasks, streams.admit().unwrap(), |sink| async move {
            loop {
                sink.comment().await?;
            }
        });
        tasks.finished().await;
        assert_eq!(streams.free(), 1);
        let body = to_bytes(response.into_body(), 4096).await.unwrap();
        assert!(body.len() < 1024, "what waits is bounded");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_a_reader_is_bounded_in_bytes() {
        let (tasks, streams) = one();
        let big = "x".repeat(ROOM / 2);
        let response = answer(&tasks, streams.admit().unwrap(), |sink| async move {
            loop {
                sink.event(None, "log", &big).await?;
            }
        });
        tasks.finished().await;
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        assert!(body.len() < 2 * ROOM, "{}", body.len());
        assert!(streams.admit().is_ok());
    }

    #[test]
    fn one_stream_too_many_is_told_to_come_back() {
        let streams = Streams::new(1, PATIENCE);
        let _first = streams.admit().unwrap();
        let refused = streams.admit().unwrap_err().0;
        assert_eq!((refused.status, refused.code.as_str()), (429, "too_many_streams"));
        assert!(refused.retry_after_ms.is_some());
    }
}
