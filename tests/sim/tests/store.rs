//! The simulated store keeps to the suite that the real engines keep to.

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use hopyard_sim::store::SimStore;
use hopyard_store::conformance;

/// Covers I10, B2.
#[test]
fn the_simulated_store_conforms() {
    let store = SimStore::new(chrono::Utc::now(), 1, None);
    let engine = store.engine();
    let mut suite = pin!(Box::pin(conformance::run_on(&engine)));
    // Nothing in it waits: a case that did would never be woken.
    assert!(matches!(suite.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(())), "a case waits for a lock");
}
