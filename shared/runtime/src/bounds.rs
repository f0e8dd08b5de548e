//! Bounded queues and sets, each of them visible: how much it holds, how much it may hold, and what found no room.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use prometheus::{IntCounterVec, IntGaugeVec};
use tokio::sync::mpsc;

use crate::instruments::{counter, gauge};

/// What says how much a queue holds.
type Depth = Box<dyn Fn() -> usize + Send + Sync>;

static SHOWN: Mutex<BTreeMap<&'static str, (usize, Depth)>> = Mutex::new(BTreeMap::new());

/// A channel that `/metrics` shows under a name; it closes as any other does.
pub fn channel<T: Send + 'static>(name: &'static str, capacity: usize) -> (mpsc::Sender<T>, mpsc::Receiver<T>) {
    let (sender, receiver) = mpsc::channel(capacity);
    let seen = sender.downgrade();
    show(name, capacity, move || seen.upgrade().map_or(0, |sender| sender.max_capacity() - sender.capacity()));
    (sender, receiver)
}

/// Shows a queue or a set on `/metrics`; of two with one name the later one.
pub fn show(name: &'static str, capacity: usize, depth: impl Fn() -> usize + Send + Sync + 'static) {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner).insert(name, (capacity, Box::new(depth)));
    // A rate needs a first value.
    overflows().with_label_values(&[name]).inc_by(0);
}

/// Something found no room and was refused, dropped or put off.
pub fn overflow(name: &'static str) {
    overflows().with_label_values(&[name]).inc();
}

/// Brings the gauges up to date.
pub(crate) fn observe() {
    for (name, (capacity, depth)) in SHOWN.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        capacities().with_label_values(&[*name]).set(number(*capacity));
        depths().with_label_values(&[*name]).set(number(depth()));
    }
}

fn depths() -> &'static IntGaugeVec {
    static CELL: OnceLock<IntGaugeVec> = OnceLock::new();
    CELL.get_or_init(|| gauge("hopyard_buffer_depth", "How much a bounded queue or set holds.", &["buffer"]))
}

fn capacities() -> &'static IntGaugeVec {
    static CELL: OnceLock<IntGaugeVec> = OnceLock::new();
    CELL.get_or_init(|| gauge("hopyard_buffer_capacity", "How much a bounded queue or set may hold.", &["buffer"]))
}

fn overflows() -> &'static IntCounterVec {
    static CELL: OnceLock<IntCounterVec> = OnceLock::new();
    CELL.get_or_init(|| {
        counter("hopyard_buffer_overflows_total", "What a full queue or set refused, dropped or put off, by buffer.", &["buffer"])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_channel_shows_what_waits_in_it_and_closes_with_its_last_sender() {
        let (sender, mut receiver) = channel::<u8>("test-channel", 3);
        sender.send(1).await.unwrap();
        sender.send(2).await.unwrap();
        overflow("test-channel");
        let page = crate::instruments::render();
        for line in [
            "hopyard_buffer_depth{buffer=\"test-channel\"} 2",
            "hopyard_buffer_capacity{buffer=\"test-channel\"} 3",
            "hopyard_buffer_overflows_total{buffer=\"test-channel\"} 1",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
        drop(sender);
        assert_eq!((receiver.recv().await, receiver.recv().await, receiver.recv().await), (Some(1), Some(2), None));
        assert!(crate::instruments::render().contains("hopyard_buffer_depth{buffer=\"test-channel\"} 0"));
    }
}
