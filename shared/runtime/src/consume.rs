//! Durable consumers: messages in whatever batch is waiting, acknowledged by the caller after its commit.
//!
//! An acknowledgement names its message by stream, consumer and sequence. A bus that was wiped, or put back to an older copy,
//! gives the same sequences to other messages, and would drop those: what was delivered before is not acknowledged there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::PullConsumer;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{FutureExt as _, StreamExt as _};
use hopyard_contract::topology::ConsumerSpec;
use tokio_util::sync::CancellationToken;

use crate::Bus;
use crate::backoff::around;
use crate::bus::{self, header};
use crate::instruments::messages;
use crate::topology::Topology;

/// Time until a source that could not be opened is tried again.
const AGAIN: Duration = Duration::from_millis(300);
/// How long a request for one message waits at the bus.
const REQUEST: Duration = Duration::from_secs(20);
/// Requests in a row that bring nothing until the consumer is looked for again.
const IN_VAIN: u32 = 64;

/// A message of a durable consumer. It comes again unless it is acknowledged.
#[derive(Debug)]
pub struct Delivery {
    /// Subject.
    pub subject: String,
    /// Body.
    pub body: Bytes,
    /// Sequence in the stream.
    pub sequence: u64,
    /// When the stream stored it.
    pub stored_at: DateTime<Utc>,
    /// How often it was delivered, this time included.
    pub deliveries: u64,
    stream: &'static str,
    message: async_nats::jetstream::Message,
    bus: Bus,
    origin: Origin,
    latest: Arc<Mutex<Option<Origin>>>,
}

/// Where sequences mean one message each: a start of a server, and the consumer as it was made there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    server: Arc<str>,
    created: DateTime<Utc>,
}

impl Delivery {
    /// A header, by name without regard to case.
    pub fn header(&self, name: &str) -> Option<String> {
        header(self.message.headers.as_ref(), name)
    }

    /// All headers, by name.
    pub fn headers(&self) -> BTreeMap<String, String> {
        let headers = self.message.headers.iter().flat_map(|h| h.iter());
        headers.filter_map(|(name, values)| Some((name.to_string(), values.first()?.as_str().to_owned()))).collect()
    }

    /// The stream it came from.
    pub fn stream(&self) -> &'static str {
        self.stream
    }

    /// Stream time in nanoseconds.
    pub fn time_ns(&self) -> i64 {
        self.stored_at.timestamp_nanos_opt().unwrap_or_default()
    }

    /// Done: it does not come again. A lost acknowledgement only means one more delivery, and so does one that is not sent
    /// because the bus was started anew since the message came.
    pub async fn ack(&self) {
        if self.is_known_there() {
            self.settle(AckKind::Ack, "acked").await;
        } else {
            messages().with_label_values(&[self.stream, "outlived"]).inc();
            tracing::info!(subject = self.subject, sequence = self.sequence, "not acknowledged: the bus was started anew since it came");
        }
    }

    /// Not now: it comes again after `delay`. Another message that has its sequence now does so too, which does no harm.
    pub async fn later(&self, delay: Duration) {
        self.settle(AckKind::Nak(Some(delay)), "later").await;
    }

    async fn settle(&self, kind: AckKind, outcome: &str) {
        messages().with_label_values(&[self.stream, outcome]).inc();
        if let Err(error) = self.message.ack_with(kind).await {
            tracing::warn!(%error, subject = self.subject, sequence = self.sequence, "an acknowledgement could not be sent");
        }
    }

    /// Whether the sequence still names this message at the server that an acknowledgement would reach.
    fn is_known_there(&self) -> bool {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.as_ref() == Some(&self.origin) && *self.origin.server == *self.bus.server_id()
    }
}

/// Reads a durable consumer for ever; connection losses, wiped servers and re-created streams are overcome inside.
pub struct Consumer {
    bus: Bus,
    topology: Topology,
    spec: ConsumerSpec,
    batch: usize,
    open: Option<Source>,
    /// What single messages are asked from, between two of them.
    bound: Option<Binding>,
    latest: Arc<Mutex<Option<Origin>>>,
}

/// A consumer as it was found at a server. To look for it costs the bus more than a message does.
struct Binding {
    consumer: PullConsumer,
    origin: Origin,
    reconnects: tokio::sync::watch::Receiver<u64>,
    in_vain: u32,
}

/// A consumer that is being read.
struct Source {
    messages: async_nats::jetstream::consumer::pull::Stream,
    origin: Origin,
    reconnects: tokio::sync::watch::Receiver<u64>,
}

impl Consumer {
    /// A consumer that takes up to `batch` messages at once.
    pub fn new(bus: Bus, topology: Topology, spec: ConsumerSpec, batch: usize) -> Self {
        Self { bus, topology, spec, batch, open: None, bound: None, latest: Arc::default() }
    }

    /// Makes or compares the consumer now, so that a service can tell at its start.
    ///
    /// # Errors
    /// When it is not as it has to be, for as long as a bus may take to start.
    pub async fn ensure(&self) -> anyhow::Result<()> {
        bus::until_answered(bus::START, || self.topology.consumer(&self.bus, &self.spec)).await.map(drop)
    }

    /// Waits for at least one message and returns all that are waiting, at most a batch.
    pub async fn next(&mut self) -> Vec<Delivery> {
        loop {
            let Some(source) = &mut self.open else {
                match Box::pin(self.connect()).await {
                    Ok(source) => self.open = Some(source),
                    Err(error) => {
                        tracing::warn!(consumer = self.spec.durable, error = format!("{error:#}"), "the consumer cannot be read yet");
                        tokio::time::sleep(around(AGAIN)).await;
                    }
                }
                continue;
            };
            let next = tokio::select! {
                biased;
                next = source.messages.next() => next,
                // Nothing of the old connection waits any more, and the next one may lead to another server.
                _ = source.reconnects.changed() => None,
            };
            match next {
                Some(Ok(message)) => {
                    let mut batch = vec![message];
                    while batch.len() < self.batch
                        && let Some(Some(Ok(message))) = source.messages.next().now_or_never()
                    {
                        batch.push(message);
                    }
                    let origin = source.origin.clone();
                    if origin.server != self.bus.server_id() {
                        self.open = None;
                    }
                    return batch.into_iter().filter_map(|message| self.delivery(message, &origin)).collect();
                }
                Some(Err(error)) => {
                    tracing::info!(consumer = self.spec.durable, %error, "the consumer is opened again");
                    self.open = None;
                }
                None => self.open = None,
            }
        }
    }

    /// As [`Self::next`] until `stop`; then what the bus had sent already, once, and `None` after it.
    ///
    /// Whoever drops a consumer with messages under way leaves them to the next reader only after the time that an
    /// acknowledgement may take. One that the bus sends at that very moment still waits so long.
    pub async fn next_until(&mut self, stop: &CancellationToken) -> Option<Vec<Delivery>> {
        if let Some(batch) = stop.run_until_cancelled(self.next()).await {
            return Some(batch);
        }
        let mut source = self.open.take()?;
        self.bus.answers().await;
        let mut rest = Vec::new();
        while let Some(Some(Ok(message))) = source.messages.next().now_or_never() {
            rest.extend(self.delivery(message, &source.origin));
        }
        Some(rest).filter(|rest| !rest.is_empty())
    }

    /// Waits for one message without having any other one under way: for readers whose room varies.
    pub async fn one(&mut self) -> Delivery {
        loop {
            match Box::pin(self.pull_one()).await {
                Ok(Some(delivery)) => return delivery,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(consumer = self.spec.durable, error = format!("{error:#}"), "the consumer cannot be read yet");
                    tokio::time::sleep(around(AGAIN)).await;
                }
            }
        }
    }

    /// One request; nothing came of it if its time was over or the connection was lost.
    async fn pull_one(&mut self) -> anyhow::Result<Option<Delivery>> {
        let mut bound = match self.bound.take() {
            // One of an earlier connection is no good: a request on it would be given up at once, and its message with it.
            Some(bound)
                if bound.in_vain < IN_VAIN
                    && bound.origin.server == self.bus.server_id()
                    && !bound.reconnects.has_changed().unwrap_or(true) =>
            {
                bound
            }
            _ => self.bind().await?,
        };
        let mut messages = bound.consumer.batch().max_messages(1).expires(REQUEST).messages().await?;
        let next = tokio::select! {
            next = messages.next() => next,
            // The server that had the request is gone, and the request with it.
            _ = bound.reconnects.changed() => return Ok(None),
        };
        let delivery = match next {
            Some(Ok(message)) => {
                bound.in_vain = 0;
                self.delivery(message, &bound.origin)
            }
            Some(Err(error)) => anyhow::bail!("{error}"),
            None => {
                bound.in_vain += 1;
                None
            }
        };
        self.bound = Some(bound);
        Ok(delivery)
    }

    async fn bind(&self) -> anyhow::Result<Binding> {
        let (server, reconnects) = (self.bus.server_id(), self.bus.watch_reconnects());
        // A wiped server has lost its streams: whoever reads makes them again.
        let consumer = match self.topology.consumer(&self.bus, &self.spec).await {
            Ok(consumer) => consumer,
            Err(_) => {
                self.topology.ensure_streams(&self.bus).await?;
                self.topology.consumer(&self.bus, &self.spec).await?
            }
        };
        anyhow::ensure!(server == self.bus.server_id(), "the connection has led to another server meanwhile");
        let origin = Origin { server, created: consumer.cached_info().created };
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(origin.clone());
        Ok(Binding { consumer, origin, reconnects, in_vain: 0 })
    }

    async fn connect(&self) -> anyhow::Result<Source> {
        let Binding { consumer, origin, reconnects, .. } = self.bind().await?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(self.batch)
            .expires(Duration::from_secs(30))
            .heartbeat(Duration::from_secs(2))
            .messages()
            .await?;
        Ok(Source { messages, origin, reconnects })
    }

    fn delivery(&self, message: async_nats::jetstream::Message, origin: &Origin) -> Option<Delivery> {
        let (sequence, stored_at, deliveries) = {
            let info = message.info().ok()?;
            (info.stream_sequence, info.published, u64::try_from(info.delivered).unwrap_or(1))
        };
        Some(Delivery {
            subject: message.subject.to_string(),
            body: message.payload.clone(),
            sequence,
            stored_at,
            deliveries,
            stream: self.spec.stream,
            message,
            bus: self.bus.clone(),
            origin: origin.clone(),
            latest: self.latest.clone(),
        })
    }
}
