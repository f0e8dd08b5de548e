//! The log of an attempt as far as the bus keeps it: what has been published until now, or from the start on.

use std::time::Duration;

use hopyard_contract::log::BusChunk;
use hopyard_contract::log::frame::Piece;
use hopyard_contract::{AttemptId, Name, subject, topology};
use hopyard_runtime::follow::Follower;
use hopyard_runtime::{Bus, stored};

use super::AttemptLog;
use super::chunk;
use super::window::Window;
use crate::door::Door;
use crate::problem::{Answer, Refusal};

/// How long one request reads the tail.
const PATIENCE: Duration = Duration::from_secs(10);

/// A message of the tail.
pub(super) struct Said {
    /// Sequence in the stream.
    pub(super) sequence: u64,
    /// Bytes of the attempt, if the message holds any.
    pub(super) piece: Option<Piece>,
    /// Whole length of the log, once it is known.
    pub(super) end: Option<u64>,
}

/// A run's log from the first message that the bus keeps; other attempts show as messages without bytes.
pub(super) struct LogTail {
    follower: Follower,
    id: AttemptId,
}

impl LogTail {
    /// Follows a log; nothing is asked for before the first message is wanted.
    pub(super) fn new(bus: &Bus, namespace: &Name, id: &AttemptId) -> Self {
        Self { follower: Follower::new(bus.clone(), topology::LOG.name, subject::log(namespace, id.run)), id: id.clone() }
    }

    /// The next message; waits as long as it takes. Safe to drop while waiting.
    pub(super) async fn next(&mut self) -> Said {
        let tail = self.follower.next().await;
        let (piece, end) = read(&tail.body, &self.id);
        Said { sequence: tail.sequence, piece, end }
    }

    /// Lets go of what has come and was not wanted yet; the next message is asked for again.
    pub(super) fn pause(&mut self) {
        self.follower.pause();
    }
}

fn read(body: &[u8], id: &AttemptId) -> (Option<Piece>, Option<u64>) {
    match serde_json::from_slice::<BusChunk>(body) {
        Ok(chunk) if chunk.step == id.step && chunk.attempt == id.n => (chunk::piece_of(chunk.chunk), chunk.end),
        _ => (None, None),
    }
}

/// Sequence of the newest message of a run's log; `None` if the bus keeps none.
///
/// # Errors
/// 503 `bus_unavailable`.
pub(super) async fn newest(bus: &Bus, namespace: &Name, id: &AttemptId) -> Answer<Option<u64>> {
    let last = stored::last_of(bus, topology::LOG.name, &subject::log(namespace, id.run)).await;
    Ok(last.map_err(|error| unavailable(&error))?.map(|kept| kept.sequence))
}

/// Puts into the window what the bus keeps by now; true if that was the whole log up to its end.
pub(super) async fn collect(door: &Door, log: &AttemptLog, window: &mut Window) -> Answer<bool> {
    let Some(newest) = newest(&door.bus, &log.namespace, &log.id).await? else { return Ok(false) };
    let mut tail = LogTail::new(&door.bus, &log.namespace, &log.id);
    let read = async {
        let mut end = None;
        loop {
            let said = tail.next().await;
            end = said.end.or(end);
            if said.piece.is_some_and(|piece| !window.take(piece)) || said.sequence >= newest {
                return end;
            }
        }
    };
    let end = tokio::time::timeout(PATIENCE, read).await.unwrap_or(None);
    Ok(end.is_some_and(|end| window.next() >= end))
}

fn unavailable(error: &anyhow::Error) -> Refusal {
    tracing::warn!(error = format!("{error:#}"), "the tail of a log cannot be read");
    Refusal::new(503, "bus_unavailable", "the bus does not answer; the log can be read when the attempt has ended, or a little later")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hopyard_contract::RunId;
    use hopyard_contract::log::{Chunk, Stream};

    #[test]
    fn only_chunks_of_the_attempt_have_bytes() {
        let id = AttemptId { run: RunId::mint(), step: Name::literal("build"), n: 2 };
        let chunk = Chunk { offset: 4, stream: Stream::Stdout, at: chrono::DateTime::UNIX_EPOCH, text: Some("x".to_owned()), b64: None };
        let mut message = BusChunk { v: 1, run_id: id.run, step: id.step.clone(), attempt: 2, chunk, end: Some(5) };
        let body = |message: &BusChunk| serde_json::to_vec(message).unwrap();
        let (piece, end) = read(&body(&message), &id);
        assert_eq!((piece.map(|p| (p.offset, p.bytes)), end), (Some((4, b"x".to_vec())), Some(5)));
        message.attempt = 1;
        assert_eq!(read(&body(&message), &id), (None, None));
        assert_eq!(read(b"{", &id), (None, None));
        message.attempt = 2;
        message.chunk.text = None;
        assert_eq!(read(&body(&message), &id), (None, Some(5)));
    }
}
