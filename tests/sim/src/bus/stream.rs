//! Work queues: at least once, until acknowledged.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use hopyard_contract::message::{Reports, Submission};
use hopyard_contract::submit::RunRequest;
use hopyard_contract::{Name, RunId};

use super::Bus;
use crate::clockwork::{Micros, ProcessId, S, either};

/// A stream, or the part of it that one durable consumer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StreamId {
    /// Submissions and cancels.
    Cmd,
    /// Tickets of the pool.
    Work,
    /// Reports.
    Result,
    /// Events and receipts: a live tail that nobody acknowledges.
    Event,
    /// Tickets for the janitor of a host.
    Gc(usize),
}

impl StreamId {
    /// Until a message without an acknowledgement comes again.
    pub(crate) const fn ack_wait(self) -> Micros {
        match self {
            Self::Gc(_) => 120 * S,
            _ => 30 * S,
        }
    }
}

/// What a message says.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// A command.
    Cmd(Rc<Cmd>),
    /// Something is claimable.
    Ticket,
    /// Reports.
    Reports(Rc<Reports>),
    /// Events of a run, from and to.
    Page(RunId, u64, u64),
    /// A receipt.
    Receipt,
    /// A workspace became reclaimable.
    Gc(String),
}

/// A command.
#[derive(Clone, Debug)]
pub(crate) enum Cmd {
    /// Runs that a publisher wants; checked by the door that reads it.
    Submit(Name, Vec<RunRequest>),
    /// A submission that a door has checked.
    Accept(Submission),
    /// A cancel.
    Cancel(Name, RunId),
}

/// Why a publish failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublishError {
    /// It was surely not stored.
    Refused,
    /// It may or may not have been stored.
    Unknown,
}

/// A message as its reader gets it.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// Stream.
    pub(crate) stream: StreamId,
    /// Sequence within it.
    pub(crate) seq: u64,
    /// When it was stored, in nanoseconds since 1970.
    pub(crate) time_ns: i64,
    /// How often it has come.
    pub(crate) deliveries: u64,
    /// Which start of the server it came from.
    pub(crate) start: u64,
    /// What it says.
    pub(crate) body: Body,
}

#[derive(Clone)]
struct Stored {
    body: Body,
    time_ns: i64,
    deliveries: u64,
    visible_at: Micros,
}

/// One stream.
#[derive(Clone, Default)]
pub(super) struct Stream {
    last: u64,
    messages: BTreeMap<u64, Stored>,
    readers: Vec<Waker>,
}

impl Stream {
    pub(super) fn names(&self) -> Vec<(u64, i64)> {
        self.messages.iter().map(|(seq, stored)| (*seq, stored.time_ns)).collect()
    }

    pub(super) fn wipe(&mut self) {
        self.last = 0;
        self.messages.clear();
    }

    pub(super) fn restore(&mut self, kept: Option<&Self>, now: Micros) {
        let readers = std::mem::take(&mut self.readers);
        *self = kept.cloned().unwrap_or_default();
        self.messages.values_mut().for_each(|stored| stored.visible_at = now);
        readers.into_iter().for_each(Waker::wake);
    }
}

impl Bus {
    /// Publishes and waits until it is stored.
    ///
    /// # Errors
    /// [`PublishError`].
    pub(crate) async fn publish(&self, from: ProcessId, stream: StreamId, body: Body) -> Result<(u64, i64), PublishError> {
        let (clock, fate, trouble) = (self.0.clock.clone(), self.0.fate.clone(), self.trouble());
        if !self.connected(from) {
            fate.count("publish_without_connection");
            clock.sleep(2 * S).await;
            // A client keeps what it could not send, and may send it once it is connected again.
            if self.connected(from) && fate.chance(500) {
                self.store(stream, body);
            }
            return Err(PublishError::Unknown);
        }
        if fate.fault("publish_lost", trouble.loss) {
            clock.sleep(2 * S).await;
            return Err(PublishError::Unknown);
        }
        clock.sleep(self.latency()).await;
        if self.0.state.borrow().absent_until > clock.now() {
            fate.count("publish_to_absent_stream");
            return Err(PublishError::Refused);
        }
        if !self.connected(from) {
            clock.sleep(2 * S).await;
            return Err(PublishError::Unknown);
        }
        let place = self.store(stream, body);
        if fate.fault("publish_answer_lost", trouble.loss) {
            clock.sleep(2 * S).await;
            return Err(PublishError::Unknown);
        }
        clock.sleep(self.latency()).await;
        Ok(place)
    }

    /// Publishes without waiting: a hint.
    pub(crate) fn hint(&self, from: ProcessId, stream: StreamId, body: Body) {
        let (bus, body) = (self.clone(), body);
        self.carry(from, None, move || {
            bus.store(stream, body.clone());
        });
    }

    fn store(&self, id: StreamId, body: Body) -> (u64, i64) {
        let now = self.0.clock.now();
        let mut state = self.0.state.borrow_mut();
        if id == StreamId::Event {
            if let Body::Page(run, first, last) = body {
                state.told.extend((first..=last).map(|seq| (run, seq)));
            }
            return (0, 0);
        }
        let stream = state.streams.entry(id).or_default();
        stream.last += 1;
        let (seq, time_ns) = (stream.last, (crate::world::EPOCH + now) * 1000 + i64::try_from(stream.last % 1000).unwrap_or(0));
        stream.messages.insert(seq, Stored { body, time_ns, deliveries: 0, visible_at: now });
        let readers = std::mem::take(&mut stream.readers);
        drop(state);
        readers.into_iter().for_each(Waker::wake);
        (seq, time_ns)
    }

    /// Waits for at least one message and takes up to `most`.
    pub(crate) async fn fetch(&self, process: ProcessId, id: StreamId, most: usize) -> Vec<Delivery> {
        loop {
            let batch = if self.connected(process) { self.take(id, most) } else { Vec::new() };
            if !batch.is_empty() {
                self.0.clock.sleep(self.latency()).await;
                return batch;
            }
            let wait = self.until_visible(id);
            either(self.stored(id), self.0.clock.sleep(wait)).await;
        }
    }

    /// How many messages wait in a stream, taken or not.
    pub(crate) fn waiting(&self, id: StreamId) -> usize {
        self.0.state.borrow().streams.get(&id).map_or(0, |stream| stream.messages.len())
    }

    fn take(&self, id: StreamId, most: usize) -> Vec<Delivery> {
        let (fate, trouble, now) = (&self.0.fate, self.trouble(), self.0.clock.now());
        let mut state = self.0.state.borrow_mut();
        let start = state.outages;
        let Some(stream) = state.streams.get_mut(&id) else { return Vec::new() };
        let mut batch = Vec::new();
        for (seq, stored) in stream.messages.iter_mut().filter(|(_, stored)| stored.visible_at <= now) {
            if batch.len() == most {
                break;
            }
            stored.deliveries += 1;
            let twice = fate.fault("delivery_twice", trouble.twice);
            stored.visible_at = now + if twice { fate.between(1000, 3 * S) } else { id.ack_wait() };
            if fate.fault("delivery_lost", trouble.loss) {
                continue;
            }
            let (time_ns, deliveries, body) = (stored.time_ns, stored.deliveries, stored.body.clone());
            batch.push(Delivery { stream: id, seq: *seq, time_ns, deliveries, start, body });
        }
        if batch.len() > 1 && fate.fault("batch_reordered", trouble.reorder) {
            let turn = fate.index(batch.len());
            batch.rotate_left(turn);
        }
        batch
    }

    fn until_visible(&self, id: StreamId) -> Micros {
        let now = self.0.clock.now();
        let state = self.0.state.borrow();
        let next = state.streams.get(&id).and_then(|stream| stream.messages.values().map(|stored| stored.visible_at).min());
        // A lost connection is looked at now and then.
        next.map_or(30 * S, |at| (at - now).clamp(300_000, 30 * S)).min(if state.up { 30 * S } else { 300_000 })
    }

    async fn stored(&self, id: StreamId) {
        let mut asked = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(());
            }
            self.0.state.borrow_mut().streams.entry(id).or_default().readers.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Acknowledges: whatever has the message's sequence now is gone, unless the acknowledgement gets lost. None is sent to
    /// another start of the server than the one that the message came from.
    pub(crate) fn ack(&self, from: ProcessId, delivery: &Delivery) {
        let (start, outlives) = {
            let state = self.0.state.borrow();
            (state.outages, state.acks_outlive)
        };
        if self.0.fate.fault("ack_lost", self.trouble().ack_loss) || (delivery.start != start && !outlives) {
            return;
        }
        let (bus, id, seq, time_ns) = (self.clone(), delivery.stream, delivery.seq, delivery.time_ns);
        self.carry(from, None, move || {
            let mut state = bus.0.state.borrow_mut();
            // What is under way ends with its connection.
            if state.outages != start {
                return;
            }
            let gone = state.streams.get_mut(&id).and_then(|stream| stream.messages.remove(&seq));
            if gone.is_some_and(|stored| stored.time_ns != time_ns) {
                state.misdirected.push((id, seq));
            }
        });
    }

    /// Asks for the message again after a while.
    pub(crate) fn again(&self, from: ProcessId, delivery: &Delivery, delay: Micros) {
        let (bus, id, seq, time_ns) = (self.clone(), delivery.stream, delivery.seq, delivery.time_ns);
        self.carry(from, None, move || {
            let now = bus.0.clock.now();
            let readers = {
                let mut state = bus.0.state.borrow_mut();
                let Some(stream) = state.streams.get_mut(&id) else { return };
                if let Some(stored) = stream.messages.get_mut(&seq).filter(|stored| stored.time_ns == time_ns) {
                    stored.visible_at = now + delay;
                }
                std::mem::take(&mut stream.readers)
            };
            readers.into_iter().for_each(Waker::wake);
        });
    }
}
