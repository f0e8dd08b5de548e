//! The simulated bus: core messages that may be lost, work queues that deliver at least once, and all that can go wrong.
//!
//! Modelled: loss, delay, reordering and duplicates of core messages; streams with redelivery after a lost acknowledgement;
//! publishes whose answer is lost; connections that are cut; an outage; a wipe; a copy of an earlier state put back.

mod call;
mod stream;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use hopyard_contract::RunId;
use hopyard_contract::message::{Beat, Control};

use crate::clockwork::{Clockwork, MS, Mailbox, Micros, ProcessId};
use crate::fate::Fate;
pub(crate) use call::{CallError, Heard};
use stream::Stream;
pub(crate) use stream::{Body, Cmd, Delivery, PublishError, StreamId};

/// How likely each trouble is, in thousandths of a message.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trouble {
    /// It is lost.
    pub(crate) loss: u32,
    /// It comes twice.
    pub(crate) twice: u32,
    /// It takes up to three seconds.
    pub(crate) slow: u32,
    /// Its acknowledgement is lost.
    pub(crate) ack_loss: u32,
    /// A batch comes in another order.
    pub(crate) reorder: u32,
}

/// The bus; clones are the same one.
#[derive(Clone)]
pub(crate) struct Bus(Rc<Inner>);

struct Inner {
    clock: Clockwork,
    fate: Rc<Fate>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    up: bool,
    trouble: Trouble,
    cut: BTreeSet<ProcessId>,
    /// Times the connection of everyone came back.
    outages: u64,
    /// Times the connection of one process came back, and when.
    cuts: BTreeMap<ProcessId, (u64, Micros)>,
    /// When the bus was last back for everyone.
    back_at: Micros,
    /// Streams cannot be written before this: their readers make them again after a wipe.
    absent_until: Micros,
    streams: BTreeMap<StreamId, Stream>,
    kept: Option<BTreeMap<StreamId, Stream>>,
    ears: BTreeMap<ProcessId, Mailbox<Heard>>,
    beats: BTreeMap<ProcessId, Mailbox<Beat>>,
    orders: BTreeMap<String, (ProcessId, Mailbox<Control>)>,
    /// Events that the stream has taken, by run and number.
    told: BTreeSet<(RunId, u64)>,
    /// Messages of the command stream that a wipe or an older copy took away.
    taken_away: Vec<(u64, i64)>,
    /// Messages that an acknowledgement of another one has removed.
    misdirected: Vec<(StreamId, u64)>,
    /// A planted bug: acknowledgements are sent whatever the server is.
    acks_outlive: bool,
}

impl Bus {
    /// A bus that is up and works well.
    pub(crate) fn new(clock: Clockwork, fate: Rc<Fate>) -> Self {
        Self(Rc::new(Inner { clock, fate, state: RefCell::new(State { up: true, ..State::default() }) }))
    }

    /// Plants a bug: acknowledgements are sent whatever the server is.
    pub(crate) fn let_acks_outlive(&self) {
        self.0.state.borrow_mut().acks_outlive = true;
    }

    /// How much trouble it makes from now on.
    pub(crate) fn set_trouble(&self, trouble: Trouble) {
        self.0.state.borrow_mut().trouble = trouble;
    }

    fn trouble(&self) -> Trouble {
        self.0.state.borrow().trouble
    }

    /// Takes it away or brings it back.
    pub(crate) fn set_up(&self, up: bool) {
        let mut state = self.0.state.borrow_mut();
        if up && !state.up {
            state.outages += 1;
            state.back_at = self.0.clock.now();
        }
        state.up = up;
    }

    /// Cuts a process off, or connects it again.
    pub(crate) fn cut(&self, process: ProcessId, cut: bool) {
        let mut state = self.0.state.borrow_mut();
        if cut {
            state.cut.insert(process);
        } else if state.cut.remove(&process) {
            let cuts = state.cuts.entry(process).or_default();
            *cuts = (cuts.0 + 1, self.0.clock.now());
        }
    }

    /// Whether a process has a connection.
    pub(crate) fn connected(&self, process: ProcessId) -> bool {
        let state = self.0.state.borrow();
        state.up && !state.cut.contains(&process)
    }

    /// How often the connection of a process has come back.
    pub(crate) fn reconnects(&self, process: ProcessId) -> u64 {
        let state = self.0.state.borrow();
        state.outages + state.cuts.get(&process).map_or(0, |(count, _)| *count)
    }

    /// Since when the connection of a process has been there.
    pub(crate) fn connected_since(&self, process: ProcessId) -> Micros {
        let state = self.0.state.borrow();
        state.back_at.max(state.cuts.get(&process).map_or(0, |(_, at)| *at))
    }

    /// Loses everything that it has stored.
    pub(crate) fn wipe(&self) {
        let now = self.0.clock.now();
        let mut state = self.0.state.borrow_mut();
        state.absent_until = now + 300 * MS;
        state.outages += 1;
        state.back_at = now;
        let lost = state.streams.get(&StreamId::Cmd).map(Stream::names).unwrap_or_default();
        state.taken_away.extend(lost);
        state.streams.values_mut().for_each(Stream::wipe);
    }

    /// Keeps a copy of what is stored.
    pub(crate) fn keep_copy(&self) {
        let mut state = self.0.state.borrow_mut();
        state.kept = Some(state.streams.clone());
    }

    /// Puts the copy back, as a restored server would; says whether there was one.
    pub(crate) fn put_back(&self) -> bool {
        let now = self.0.clock.now();
        let mut state = self.0.state.borrow_mut();
        let Some(kept) = state.kept.take() else { return false };
        state.outages += 1;
        state.back_at = now;
        let (had, has) = (state.streams.get(&StreamId::Cmd).map(Stream::names), kept.get(&StreamId::Cmd).map(Stream::names));
        let has = has.unwrap_or_default();
        let gone: Vec<_> = had.unwrap_or_default().into_iter().filter(|name| !has.contains(name)).collect();
        state.taken_away.extend(gone);
        for (id, stream) in &mut state.streams {
            stream.restore(kept.get(id), now);
        }
        true
    }

    /// Messages that an acknowledgement of another one has removed.
    pub(crate) fn misdirected(&self) -> Vec<(StreamId, u64)> {
        self.0.state.borrow().misdirected.clone()
    }

    /// Messages of the command stream that are lost for good.
    pub(crate) fn taken_away(&self) -> Vec<(u64, i64)> {
        self.0.state.borrow().taken_away.clone()
    }

    /// Whether the event stream has taken an event at some time.
    pub(crate) fn has_told(&self, run: RunId, seq: u64) -> bool {
        self.0.state.borrow().told.contains(&(run, seq))
    }

    /// Listens to beats.
    pub(crate) fn hear_beats(&self, process: ProcessId) -> Mailbox<Beat> {
        let mailbox = Mailbox::default();
        self.0.state.borrow_mut().beats.insert(process, mailbox.clone());
        mailbox
    }

    /// Listens to orders for an executor.
    pub(crate) fn hear_orders(&self, process: ProcessId, executor: &str) -> Mailbox<Control> {
        let mailbox = Mailbox::default();
        self.0.state.borrow_mut().orders.insert(executor.to_owned(), (process, mailbox.clone()));
        mailbox
    }

    /// Forgets what a process listened to.
    pub(crate) fn leave(&self, process: ProcessId) {
        let mut state = self.0.state.borrow_mut();
        state.ears.remove(&process);
        state.beats.remove(&process);
        state.orders.retain(|_, (owner, _)| *owner != process);
    }

    /// Tells an executor something; it may never hear of it.
    pub(crate) fn order(&self, from: ProcessId, executor: &str, order: Control) {
        let Some((to, mailbox)) = self.0.state.borrow().orders.get(executor).cloned() else { return };
        self.carry(from, Some(to), move || mailbox.send(order.clone()));
    }

    /// Tells every scheduler who is there.
    pub(crate) fn beat(&self, from: ProcessId, beat: &Beat) {
        let listeners: Vec<_> = self.0.state.borrow().beats.iter().map(|(to, mailbox)| (*to, mailbox.clone())).collect();
        for (to, mailbox) in listeners {
            let beat = beat.clone();
            self.carry(from, Some(to), move || mailbox.send(beat.clone()));
        }
    }

    /// Time that a message takes.
    fn latency(&self) -> Micros {
        let (fate, trouble) = (&self.0.fate, self.trouble());
        if fate.fault("message_slow", trouble.slow) { fate.between(50 * MS, 3000 * MS) } else { fate.between(100, 2 * MS) }
    }

    /// Carries a core message: lost, late or twice, as it may be.
    fn carry(&self, from: ProcessId, to: Option<ProcessId>, arrive: impl Fn() + 'static) {
        let (fate, trouble) = (&self.0.fate, self.trouble());
        if !self.connected(from) {
            fate.count("message_without_connection");
            return;
        }
        if fate.fault("message_lost", trouble.loss) {
            return;
        }
        let times = if fate.fault("message_twice", trouble.twice) { 2 } else { 1 };
        let arrive = Rc::new(arrive);
        for _ in 0..times {
            let (bus, arrive) = (self.clone(), arrive.clone());
            self.0.clock.later(self.latency(), move || {
                // The server itself is there as long as anybody is connected to it.
                if to.map_or_else(|| bus.0.state.borrow().up, |to| bus.connected(to) && bus.0.clock.alive(to)) {
                    arrive();
                }
            });
        }
    }
}
