//! Single messages of a stream, read or deleted in place: nothing is consumed and no consumer is made.

use anyhow::Context as _;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{DirectGetError, DirectGetErrorKind};
use bytes::Bytes;

use crate::Bus;

/// A message as a stream keeps it.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Subject.
    pub subject: String,
    /// Sequence in the stream.
    pub sequence: u64,
    /// Body.
    pub body: Bytes,
}

/// The message with this sequence; `None` if the stream does not keep it, or not any more.
///
/// # Errors
/// When the stream is missing or the server does not answer.
pub async fn by_sequence(bus: &Bus, stream: &str, sequence: u64) -> anyhow::Result<Option<Kept>> {
    let stream = bus.jetstream().get_stream_no_info(stream).await?;
    found(stream.direct_get(sequence).await)
}

/// The first message at or after `sequence` whose subject matches, wildcards included.
///
/// # Errors
/// When the stream is missing or the server does not answer.
pub async fn first_from(bus: &Bus, stream: &str, subject: &str, sequence: u64) -> anyhow::Result<Option<Kept>> {
    let stream = bus.jetstream().get_stream_no_info(stream).await?;
    found(stream.direct_get_next_for_subject(subject, Some(sequence.max(1))).await)
}

/// The newest message of one subject.
///
/// # Errors
/// When the stream is missing or the server does not answer.
pub async fn last_of(bus: &Bus, stream: &str, subject: &str) -> anyhow::Result<Option<Kept>> {
    let stream = bus.jetstream().get_stream_no_info(stream).await?;
    found(stream.direct_get_last_for_subject(subject).await)
}

/// Deletes the message with this sequence; `false` if the stream does not keep it.
///
/// # Errors
/// When the stream is missing, refuses, or the server does not answer: then it may or may not be deleted.
pub async fn delete(bus: &Bus, stream: &str, sequence: u64) -> anyhow::Result<bool> {
    let kept = bus.jetstream().get_stream_no_info(stream).await?;
    match kept.delete_message(sequence).await {
        Ok(deleted) => Ok(deleted),
        // The server has one code for all that can go wrong with a deletion, so absence is looked for.
        Err(error) => match by_sequence(bus, stream, sequence).await {
            Ok(None) => Ok(false),
            _ => Err(error).context("a message of a stream cannot be deleted"),
        },
    }
}

/// How far a stream has come, and how much of it a durable consumer has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// When the stream was made, in ns; sequences of an earlier one of the same name count for nothing.
    pub made_ns: i64,
    /// Every message up to this sequence has been settled.
    pub settled: u64,
    /// The last message that was stored.
    pub last: u64,
}

/// Where a stream and its durable consumer stand.
///
/// # Errors
/// When the stream is missing or the server does not answer.
pub async fn progress(bus: &Bus, stream: &str, durable: &str) -> anyhow::Result<Progress> {
    let stream = bus.jetstream().get_stream(stream).await?;
    // The consumer first: what it has settled is settled in the younger view of the stream as well.
    let floor = match stream.get_consumer::<async_nats::jetstream::consumer::pull::Config>(durable).await {
        Ok(mut consumer) => consumer.info().await?.ack_floor.stream_sequence,
        // A consumer that was lost is made again by its service.
        Err(_) => 0,
    };
    let info = bus.jetstream().get_stream(&stream.cached_info().config.name).await?.cached_info().clone();
    let made_ns = info.created.timestamp_nanos_opt().unwrap_or(0);
    // A message leaves a work queue when it is acknowledged, so everything before the first one has been.
    let gone = info.state.first_sequence.saturating_sub(1);
    Ok(Progress { made_ns, settled: floor.max(gone).min(info.state.last_sequence), last: info.state.last_sequence })
}

fn found(answer: Result<StreamMessage, DirectGetError>) -> anyhow::Result<Option<Kept>> {
    match answer {
        Ok(m) => Ok(Some(Kept { subject: m.subject.to_string(), sequence: m.sequence, body: m.payload })),
        Err(error) if matches!(error.kind(), DirectGetErrorKind::NotFound) => Ok(None),
        Err(error) => Err(error).context("a message of a stream cannot be read"),
    }
}
