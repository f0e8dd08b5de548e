//! The bus: connection, publishing, requests and plain subscriptions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use async_nats::HeaderMap;
use async_nats::jetstream::context::{Context as JetStream, ContextBuilder};
use bytes::Bytes;
use futures::StreamExt as _;
use serde::Serialize;

use crate::Config;
use crate::backoff::jitter;
use crate::instruments::bus_events;

/// Header with the types of the events of a page.
pub const HEADER_TYPE: &str = "Hopyard-Type";
/// Header with the idempotency key of a submission.
pub const HEADER_KEY: &str = "Hopyard-Idempotency-Key";
/// Header with which the server drops repeats within a short window.
pub const HEADER_MSG_ID: &str = "Nats-Msg-Id";
/// Header with the W3C trace context.
pub const HEADER_TRACE: &str = "traceparent";

/// How long a publish waits for its acknowledgement.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(2);

/// Messages of one subscription that wait for their reader; a slower one loses messages, which is counted as `slow_consumer`.
const SUBSCRIBED: usize = 16 * 1024;
/// Commands to the connection that wait to be written; beyond it, whoever publishes waits.
const COMMANDS: usize = 2048;
/// Publishes to streams without an acknowledgement yet; beyond it, whoever publishes waits.
const UNACKED: usize = 2048;

/// How long a service that starts waits for a bus, or for its streams, that come up at the same time.
pub const START: Duration = Duration::from_secs(30);

/// Asks the bus until it answers well.
///
/// # Errors
/// The last one, after `patience`.
pub async fn until_answered<T, F, Fut>(patience: Duration, mut ask: F) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<T>>,
{
    let deadline = tokio::time::Instant::now() + patience;
    let mut tries = 0;
    loop {
        match ask().await {
            Err(error) if tokio::time::Instant::now() < deadline => {
                tracing::info!(error = format!("{error:#}"), "the bus is not ready yet");
                tries += 1;
                tokio::time::sleep(jitter(reconnect_ceiling(tries))).await;
            }
            outcome => return outcome,
        }
    }
}

/// A connection to the bus, cheap to clone.
#[derive(Clone, Debug)]
pub struct Bus {
    client: async_nats::Client,
    jetstream: JetStream,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    connected: AtomicBool,
    reconnects: tokio::sync::watch::Sender<u64>,
}

/// Why a message was not published for certain.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The server said no: it was not stored.
    #[error("the bus refused the message: {0}")]
    Refused(String),
    /// No answer in time: it may or may not be stored.
    #[error("the bus did not answer: {0}")]
    Unknown(String),
}

/// Proof that a stream has stored a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Sequence in the stream.
    pub sequence: u64,
    /// The server had the same `Nats-Msg-Id` before.
    pub duplicate: bool,
}

/// A message of a plain subscription.
#[derive(Debug)]
pub struct Received {
    /// Subject.
    pub subject: String,
    /// Body.
    pub body: Bytes,
    reply: Option<async_nats::Subject>,
    headers: Option<HeaderMap>,
    client: async_nats::Client,
}

impl Received {
    /// A header, by name without regard to case.
    pub fn header(&self, name: &str) -> Option<String> {
        header(self.headers.as_ref(), name)
    }

    /// Answers a request; a message that asked for no answer gets none.
    pub async fn reply(&self, body: &impl Serialize) {
        if let Some(reply) = &self.reply
            && let Err(error) = self.client.publish(reply.clone(), encode(body)).await
        {
            tracing::warn!(%error, subject = self.subject, "an answer could not be sent");
        }
    }
}

pub(crate) fn header(headers: Option<&HeaderMap>, name: &str) -> Option<String> {
    headers?.iter().find(|(n, _)| n.to_string().eq_ignore_ascii_case(name)).and_then(|(_, v)| v.first()).map(|v| v.as_str().to_owned())
}

/// A plain subscription.
#[derive(Debug)]
pub struct Subscription {
    inner: async_nats::Subscriber,
    client: async_nats::Client,
}

impl Subscription {
    /// Takes no more; what was delivered before is still returned, then `None`.
    pub async fn leave(&mut self) {
        if let Err(error) = self.inner.drain().await {
            tracing::debug!(%error, "a subscription could not be left");
        }
    }

    /// The next message; `None` once the connection is closed.
    pub async fn next(&mut self) -> Option<Received> {
        let message = self.inner.next().await?;
        Some(Received {
            subject: message.subject.to_string(),
            body: message.payload,
            reply: message.reply,
            headers: message.headers,
            client: self.client.clone(),
        })
    }
}

/// A publish whose acknowledgement has not been awaited yet.
#[derive(Debug)]
pub struct Publishing(Result<async_nats::jetstream::context::PublishAckFuture, PublishError>);

impl Publishing {
    /// Waits for the stream's acknowledgement.
    ///
    /// # Errors
    /// [`PublishError`], by whether the message may be stored.
    pub async fn stored(self) -> Result<Stored, PublishError> {
        let ack = self.0?.await.map_err(publish_error)?;
        Ok(Stored { sequence: ack.sequence, duplicate: ack.duplicate })
    }
}

fn publish_error(error: async_nats::jetstream::context::PublishError) -> PublishError {
    use async_nats::jetstream::context::PublishErrorKind as Kind;
    match error.kind() {
        Kind::StreamNotFound | Kind::WrongLastMessageId | Kind::WrongLastSequence | Kind::MaxPayloadExceeded => {
            PublishError::Refused(error.to_string())
        }
        // An answer of the server that is no acknowledgement: full stream, message too large and the like.
        Kind::Other => PublishError::Refused(error.to_string()),
        Kind::TimedOut | Kind::BrokenPipe | Kind::MaxAckPending => PublishError::Unknown(error.to_string()),
    }
}

impl Bus {
    /// Connects; waits for a server that is not there yet for at most `patience`.
    ///
    /// # Errors
    /// When no server answers in time, or it refuses the credentials.
    pub async fn connect(config: &Config, name: &str, patience: Duration) -> anyhow::Result<Self> {
        let url = config.text("NATS_URL", "nats://127.0.0.1:4222");
        let state = Arc::new(State::default());
        let seen = state.clone();
        let mut options = async_nats::ConnectOptions::new()
            .name(name)
            .connection_timeout(Duration::from_secs(2))
            .ping_interval(Duration::from_secs(5))
            .request_timeout(Some(Duration::from_secs(2)))
            .subscription_capacity(SUBSCRIBED)
            .client_capacity(COMMANDS)
            .custom_inbox_prefix(format!("_INBOX_{}", name.replace('.', "-")))
            .reconnect_delay_callback(|attempt| jitter(reconnect_ceiling(attempt)))
            .event_callback(move |event| {
                let seen = seen.clone();
                async move { seen.on_event(&event) }
            });
        if let Some(file) = config.get("NATS_CREDS") {
            options = options.credentials_file(file).await.with_context(|| format!("the credentials file {file} cannot be read"))?;
        }
        let connect = || async { Ok(options.clone().connect(url.as_str()).await?) };
        let client = until_answered(patience, connect).await.with_context(|| format!("the bus at {} does not answer", redacted(&url)))?;
        state.connected.store(true, Ordering::Relaxed);
        let jetstream = ContextBuilder::new().timeout(ACK_TIMEOUT).ack_timeout(ACK_TIMEOUT).max_ack_inflight(UNACKED).build(client.clone());
        Ok(Self { client, jetstream, state })
    }

    /// Whether the connection is up.
    pub fn connected(&self) -> bool {
        self.state.connected.load(Ordering::Relaxed)
    }

    /// How often the connection came back; a change tells that messages may have been missed.
    pub fn reconnects(&self) -> u64 {
        *self.state.reconnects.borrow()
    }

    /// Follows how often the connection came back.
    pub fn watch_reconnects(&self) -> tokio::sync::watch::Receiver<u64> {
        self.state.reconnects.subscribe()
    }

    /// Id of the connected server; every start of one has its own.
    pub fn server_id(&self) -> Arc<str> {
        self.client.server_info().server_id.into()
    }

    /// Version of the connected server.
    pub fn server_version(&self) -> String {
        self.client.server_info().version
    }

    /// Largest message that the server takes.
    pub fn max_payload(&self) -> usize {
        self.client.server_info().max_payload
    }

    /// Publishes without a stream: nothing tells whether anybody got it.
    pub async fn tell(&self, subject: &str, body: &impl Serialize) {
        if let Err(error) = self.client.publish(subject.to_owned(), encode(body)).await {
            tracing::warn!(%error, subject, "a message could not be sent");
        }
    }

    /// Publishes to a stream; the acknowledgement is awaited by the caller, so that many can be under way.
    pub async fn publish(&self, subject: &str, id: Option<&str>, kind: Option<&str>, body: Bytes) -> Publishing {
        let mut headers = HeaderMap::new();
        // Values come from validated tokens and ids, which have no line breaks.
        if let Some(id) = id {
            headers.insert(HEADER_MSG_ID, id);
        }
        if let Some(kind) = kind {
            headers.insert(HEADER_TYPE, kind);
        }
        let sent = if headers.is_empty() {
            self.jetstream.publish(subject.to_owned(), body).await
        } else {
            self.jetstream.publish_with_headers(subject.to_owned(), headers, body).await
        };
        Publishing(sent.map_err(publish_error))
    }

    /// Publishes to a stream with these headers and waits until it is stored.
    ///
    /// # Errors
    /// [`PublishError`]; names or values that cannot be headers are refused.
    pub async fn publish_with(&self, subject: &str, headers: &BTreeMap<String, String>, body: Bytes) -> Result<Stored, PublishError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let refused = |what: &str| PublishError::Refused(format!("`{name}` is no {what} of a header"));
            let known: async_nats::HeaderName = name.parse().map_err(|_| refused("name"))?;
            let value: async_nats::HeaderValue = value.parse().map_err(|_| refused("value"))?;
            map.insert(known, value);
        }
        Publishing(self.jetstream.publish_with_headers(subject.to_owned(), map, body).await.map_err(publish_error)).stored().await
    }

    /// Publishes to a stream and waits until it is stored.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn publish_stored(&self, subject: &str, id: Option<&str>, body: Bytes) -> Result<Stored, PublishError> {
        self.publish(subject, id, None, body).await.stored().await
    }

    /// Subscribes without a stream.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn subscribe(&self, subject: &str) -> anyhow::Result<Subscription> {
        let inner = self.client.subscribe(subject.to_owned()).await.with_context(|| format!("cannot subscribe to {subject}"))?;
        Ok(Subscription { inner, client: self.client.clone() })
    }

    /// Subscribes as one of a group: each message reaches one member.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn subscribe_group(&self, subject: &str, group: &str) -> anyhow::Result<Subscription> {
        let inner = self
            .client
            .queue_subscribe(subject.to_owned(), group.to_owned())
            .await
            .with_context(|| format!("cannot subscribe to {subject}"))?;
        Ok(Subscription { inner, client: self.client.clone() })
    }

    /// Waits until everything sent so far has left this process, subscriptions included.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn flush(&self) -> anyhow::Result<()> {
        self.client.flush().await.context("the bus connection is closed")
    }

    /// Whether the server answers now, its streams included. A connection that is open proves nothing: that of a stopped
    /// server stays open for long. The answer comes after everything that either side had sent before.
    pub async fn answers(&self) -> bool {
        // Whatever the answer says: 2.9 says it in a form that the library does not read.
        self.ask("$JS.API.INFO", Bytes::new(), ACK_TIMEOUT).await.is_ok()
    }

    pub(crate) async fn ask(&self, subject: &str, body: Bytes, timeout: Duration) -> Result<Bytes, AskError> {
        let request = async_nats::Request::new().payload(body).timeout(Some(timeout));
        match self.client.send_request(subject.to_owned(), request).await {
            Ok(message) => Ok(message.payload),
            Err(error) => Err(match error.kind() {
                async_nats::RequestErrorKind::NoResponders => AskError::Nobody,
                _ => AskError::NoAnswer(error.to_string()),
            }),
        }
    }

    pub(crate) fn jetstream(&self) -> &JetStream {
        &self.jetstream
    }

    pub(crate) fn inbox(&self) -> String {
        self.client.new_inbox()
    }
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Nobody listens: it was surely not done.
    #[error("nobody listens")]
    Nobody,
    /// It may or may not have been done.
    #[error("no answer: {0}")]
    NoAnswer(String),
}

/// Longest pause before a try to connect again, the first one included: full jitter below it keeps a server that has just
/// come back, or has cut its connections, from meeting every client at once.
fn reconnect_ceiling(attempt: usize) -> Duration {
    Duration::from_millis(25 << attempt.min(6)).min(Duration::from_millis(1500))
}

impl State {
    fn on_event(&self, event: &async_nats::Event) {
        use async_nats::Event;
        let label = match event {
            Event::Connected => {
                if !self.connected.swap(true, Ordering::Relaxed) {
                    self.reconnects.send_modify(|count| *count += 1);
                }
                "connected"
            }
            Event::Disconnected | Event::Closed => {
                self.connected.store(false, Ordering::Relaxed);
                "disconnected"
            }
            Event::SlowConsumer(_) => "slow_consumer",
            Event::ServerError(_) => "server_error",
            Event::ClientError(_) => "client_error",
            Event::LameDuckMode | Event::Draining => "draining",
        };
        bus_events().with_label_values(&[label]).inc();
        match event {
            Event::SlowConsumer(_) | Event::ServerError(_) => tracing::warn!(%event, "bus"),
            _ => tracing::info!(%event, "bus"),
        }
    }
}

/// Encodes a message.
pub fn encode(body: &impl Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(body).expect("messages have string keys and no failing serializers"))
}

/// A URL without what stands before `@`.
fn redacted(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(start), Some(at)) if at > start => format!("{}{}", &url[..start + 3], &url[at + 1..]),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_before_a_connection_grow_and_end() {
        let ceilings: Vec<u128> = [0, 1, 2, 3, 4, 5, 6, 7, 1000].into_iter().map(|n| reconnect_ceiling(n).as_millis()).collect();
        assert_eq!(ceilings, [25, 50, 100, 200, 400, 800, 1500, 1500, 1500]);
    }

    #[test]
    fn what_stands_before_the_host_is_not_shown() {
        assert_eq!(redacted("nats://user:secret@host:4222"), "nats://host:4222");
        assert_eq!(redacted("nats://host:4222"), "nats://host:4222");
    }
}
