//! A log as a live stream: off the bus while the attempt is at work, the rest out of its blob, each byte once.

use std::time::Duration;

use hopyard_contract::event::Event;
use hopyard_contract::log::frame::Piece;
use tokio::time::{MissedTickBehavior, interval};

use super::stored::StoredLog;
use super::tail::{self, LogTail, Said};
use super::{AttemptLog, chunk};
use crate::door::Door;
use crate::problem::Answer;
use crate::read::followers::{Followers, Heard};
use crate::read::runs;
use crate::read::sse::{Gone, HEARTBEAT, Sink};

/// The attempt is looked at after this long, if nothing says sooner that it has ended.
const SILENCE: Duration = Duration::from_secs(5);
/// A reader that takes longer for a frame is not followed for until it has taken it.
const SLOW: Duration = Duration::from_secs(1);
/// How long the tail of an attempt without a blob is read.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// One reader's way through a log.
pub(super) struct Live {
    door: Door,
    log: AttemptLog,
    cursor: Cursor,
}

impl Live {
    /// From a byte position on.
    pub(super) fn new(door: Door, log: AttemptLog, from: u64) -> Self {
        Self { door, log, cursor: Cursor { next: from, waiting: false } }
    }

    /// Sends the log to its end.
    pub(super) async fn run(mut self, followers: Followers, sink: Sink) -> Result<(), Gone> {
        if !self.log.attempt.status.is_final() {
            self.follow(followers, &sink).await?;
        }
        match self.fill(&sink).await? {
            Ok(()) => sink.end(self.log.attempt.status.as_str()).await,
            // Without `end` the reader knows that this was not the whole, and comes again with its last id.
            Err(refusal) => sink.event(None, "problem", &*refusal.0).await,
        }
    }

    /// Sends what comes over the bus until the attempt has ended.
    async fn follow(&mut self, followers: Followers, sink: &Sink) -> Result<(), Gone> {
        let mut follow = followers.follow(&self.door, &self.log.namespace, self.log.id.run).await;
        let mut tail = LogTail::new(&self.door.bus, &self.log.namespace, &self.log.id);
        let mut heartbeat = interval(HEARTBEAT);
        let mut look = interval(SILENCE);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        loop {
            tokio::select! {
                said = tail.next() => {
                    let mut sent = std::pin::pin!(self.on_said(sink, said));
                    if let Ok(sent) = tokio::time::timeout(SLOW, sent.as_mut()).await {
                        sent?;
                    } else {
                        // What the bus goes on to send must not pile up here for a reader that does not read.
                        tail.pause();
                        sent.await?;
                    }
                }
                heard = follow.next() => {
                    if self.may_have_ended(&heard) && self.has_ended().await {
                        return Ok(());
                    }
                }
                // The first tick comes at once: the attempt may have ended before the subscription stood.
                _ = look.tick() => {
                    if self.has_ended().await {
                        return Ok(());
                    }
                }
                _ = heartbeat.tick() => sink.comment().await?,
            }
        }
    }

    async fn on_said(&mut self, sink: &Sink, said: Said) -> Result<(), Gone> {
        let Some(piece) = said.piece else { return Ok(()) };
        match self.cursor.place(piece) {
            Place::Send(piece) => send(sink, piece).await,
            Place::Gap { from, to } => sink.event(None, "gap", &serde_json::json!({ "from": from, "to": to })).await,
            Place::Drop => Ok(()),
        }
    }

    fn may_have_ended(&self, heard: &Heard) -> bool {
        let ends = |event: &Event| {
            event.kind.is_final() || (event.attempt == Some(self.log.id.n) && event.step.as_ref() == Some(&self.log.id.step))
        };
        match heard {
            Heard::Missed => true,
            Heard::Events(events) => events.iter().any(ends),
        }
    }

    /// Looks at the attempt; a store that cannot be read is asked again later.
    async fn has_ended(&mut self) -> bool {
        if let Ok(state) = runs::of(&self.door, &self.log.namespace, self.log.id.run).await
            && let Some(attempt) = state.attempt(self.log.id.step.as_str(), self.log.id.n)
        {
            self.log.attempt = attempt.clone();
        }
        self.log.attempt.status.is_final()
    }

    /// Sends what is still missing of an attempt that has ended.
    async fn fill(&mut self, sink: &Sink) -> Result<Answer<()>, Gone> {
        self.cursor.waiting = false;
        match self.log.attempt.log.clone() {
            Some(blob) => match StoredLog::open(self.door.blobs.clone(), &blob).await {
                Ok(stored) => self.drain(sink, stored).await,
                Err(refusal) => Ok(Err(refusal)),
            },
            None if self.log.is_empty() => Ok(Ok(())),
            None => self.last_words(sink).await,
        }
    }

    async fn drain(&mut self, sink: &Sink, mut stored: StoredLog) -> Result<Answer<()>, Gone> {
        loop {
            match stored.next_piece().await {
                Ok(Some(piece)) => {
                    if let Place::Send(piece) = self.cursor.place(piece) {
                        send(sink, piece).await?;
                    }
                }
                Ok(None) => return Ok(Ok(())),
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
    }

    /// An attempt that was lost has no blob until its host is seen again: what the bus keeps is all there is.
    async fn last_words(&mut self, sink: &Sink) -> Result<Answer<()>, Gone> {
        let newest = match tail::newest(&self.door.bus, &self.log.namespace, &self.log.id).await {
            Ok(Some(newest)) => newest,
            Ok(None) => return Ok(Ok(())),
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut tail = LogTail::new(&self.door.bus, &self.log.namespace, &self.log.id);
        while let Ok(said) = tokio::time::timeout(LAST_WORDS, tail.next()).await {
            let last = said.sequence >= newest;
            // Nothing will fill a hole any more; the offsets show it.
            if let Some(piece) = said.piece.and_then(|piece| piece.starting_at(self.cursor.next)) {
                self.cursor.next = piece.end();
                send(sink, piece).await?;
            }
            if last {
                break;
            }
        }
        Ok(Ok(()))
    }
}

async fn send(sink: &Sink, piece: Piece) -> Result<(), Gone> {
    let after = piece.end().to_string();
    sink.event(Some(&after), "log", &chunk::of_piece(piece)).await
}

/// Position of a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    next: u64,
    /// Bytes are missing that only the blob will have: nothing is sent until then.
    waiting: bool,
}

/// What becomes of a piece.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Its part that the reader has not had.
    Send(Piece),
    /// The first piece after a hole.
    Gap { from: u64, to: u64 },
    /// The reader has had it, or will get it in its turn.
    Drop,
}

impl Cursor {
    fn place(&mut self, piece: Piece) -> Place {
        let Some(piece) = piece.starting_at(self.next) else { return Place::Drop };
        if piece.offset > self.next {
            let first = !std::mem::replace(&mut self.waiting, true);
            return if first { Place::Gap { from: self.next, to: piece.offset } } else { Place::Drop };
        }
        self.waiting = false;
        self.next = piece.end();
        Place::Send(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hopyard_contract::log::Stream;

    fn piece(offset: u64, text: &str) -> Piece {
        Piece { offset, stream: Stream::Stdout, at: chrono::DateTime::UNIX_EPOCH, bytes: text.as_bytes().to_vec() }
    }

    fn sent(cursor: &mut Cursor, pieces: Vec<Piece>) -> String {
        let mut text = String::new();
        for piece in pieces {
            if let Place::Send(piece) = cursor.place(piece) {
                text.push_str(std::str::from_utf8(&piece.bytes).unwrap());
            }
        }
        text
    }

    #[test]
    fn bus_and_blob_overlap_without_loss_or_repeat() {
        let whole = "abcdefghij";
        let live = || vec![piece(0, "abc"), piece(0, "abc"), piece(3, "de"), piece(2, "cdef")];
        for from in 0..=whole.len() {
            let mut cursor = Cursor { next: from as u64, waiting: false };
            let mut text = sent(&mut cursor, live());
            text += &sent(&mut cursor, vec![piece(0, "abcd"), piece(4, "efgh"), piece(8, "ij")]);
            assert_eq!(text, whole[from..], "{from}");
        }
    }

    #[test]
    fn after_a_hole_nothing_is_sent_until_it_is_filled() {
        let mut cursor = Cursor { next: 0, waiting: false };
        assert_eq!(cursor.place(piece(3, "d")), Place::Gap { from: 0, to: 3 });
        assert_eq!(cursor.place(piece(4, "e")), Place::Drop);
        assert_eq!(sent(&mut cursor, vec![piece(0, "abc"), piece(3, "de")]), "abcde");
        assert_eq!(cursor, Cursor { next: 5, waiting: false });
    }
}
