//! Dead letters: what cannot be processed is kept with its reason, its headers and its bytes, and goes out of the way.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::Utc;
use hopyard_contract::message::{DeadLetter, MESSAGE_VERSION};
use hopyard_contract::subject;
use prometheus::IntCounterVec;

use crate::Bus;
use crate::bus::{PublishError, encode};
use crate::consume::Delivery;
use crate::instruments::counter;

/// Room that everything but the body takes in a letter.
const MARGIN: usize = 16 * 1024;
/// Most characters of a reason.
const MOST_WORDS: usize = 2000;

/// Messages that were set aside.
fn counted() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| counter("hopyard_dead_letters_total", "Messages that were set aside, by stream and code.", &["stream", "code"]))
}

/// Keeps a message among the dead letters; a repeat within the window of their stream is stored once. The caller acknowledges
/// the message afterwards.
///
/// # Errors
/// When the letter was not stored for certain: then the message has to come again.
pub async fn set_aside(bus: &Bus, delivery: &Delivery, code: &str, detail: &str) -> Result<(), PublishError> {
    set_aside_part(bus, delivery, &delivery.body, "", code, detail).await
}

/// Keeps a part of a message, as a body of its own; `part` tells it from the others.
///
/// # Errors
/// As [`set_aside`].
pub async fn set_aside_part(bus: &Bus, delivery: &Delivery, body: &[u8], part: &str, code: &str, detail: &str) -> Result<(), PublishError> {
    let (stream, headers) = (delivery.stream(), delivery.headers());
    let around = MARGIN + headers.iter().map(|(name, value)| 2 * (name.len() + value.len())).sum::<usize>();
    let kept = &body[..body.len().min(room(bus.max_payload().saturating_sub(around)))];
    let letter = DeadLetter {
        v: MESSAGE_VERSION,
        stream: stream.to_owned(),
        subject: delivery.subject.clone(),
        seq: delivery.sequence,
        code: code.to_owned(),
        detail: detail.chars().take(MOST_WORDS).collect(),
        attempts: delivery.deliveries,
        headers,
        cut_from: (kept.len() < body.len()).then_some(body.len() as u64),
        body: STANDARD.encode(kept),
        first_at: Some(delivery.stored_at),
        at: Utc::now(),
    };
    let id = format!("{stream}:{}:{}{part}", delivery.sequence, delivery.time_ns());
    bus.publish_stored(&subject::dlq(stream), Some(&id), encode(&letter)).await?;
    counted().with_label_values(&[stream, code]).inc();
    tracing::warn!(code, detail, subject = delivery.subject, sequence = delivery.sequence, "a message was set aside");
    Ok(())
}

/// Bytes whose base64 form fits.
fn room(most: usize) -> usize {
    most / 4 * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_fits_in_base64() {
        for most in [0, 3, 4, 1_048_576] {
            assert!(STANDARD.encode(vec![0; room(most)]).len() <= most, "{most}");
        }
        assert_eq!(room(8), 6);
    }
}
