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

fn found(answer: Result<StreamMessage, DirectGetError>) -> anyhow::Result<Option<Kept>> {
    match answer {
        Ok(m) => Ok(Some(Kept { subject: m.subject.to_string(), sequence: m.sequence, body: m.payload })),
        Err(error) if matches!(error.kind(), DirectGetErrorKind::NotFound) => Ok(None),
        Err(error) => Err(error).context("a message of a stream cannot be read"),
    }
}
