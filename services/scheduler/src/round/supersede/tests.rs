//! Newcomers and the runs they supersede, on an embedded store.

use hopyard_contract::RunId;
use hopyard_contract::status::RunStatus;

use crate::round::tests::{Bench, id};

async fn superseded(bench: &Bench, id: RunId) -> Option<String> {
    let kill = bench.state(id).await.run.kill?;
    assert_eq!(kill.by, "hopyard");
    kill.reason
}

fn by(id: RunId) -> Option<String> {
    Some(format!("superseded by run {id}"))
}

#[tokio::test]
async fn holders_and_waiters_of_the_key_give_way_to_a_newcomer() {
    let bench = Bench::new().await;
    let [holder, waiter, other, newcomer] = [1, 2, 3, 4].map(|n| id(n, 0));
    bench.accept(&[(holder, "queue", "prod"), (waiter, "queue", "prod"), (other, "queue", "test")]).await;
    assert!(bench.claim().await.grants.iter().any(|grant| grant.attempt.run == holder));
    bench.accept(&[(newcomer, "cancel_older", "prod")]).await;
    assert_eq!((superseded(&bench, waiter).await, bench.state(waiter).await.run.status), (by(newcomer), RunStatus::Killed));
    assert_eq!((superseded(&bench, holder).await, bench.state(holder).await.run.status), (by(newcomer), RunStatus::Pending));
    assert_eq!(superseded(&bench, other).await, None, "another key");
    assert_eq!(superseded(&bench, newcomer).await, None);
    let last = id(5, 0);
    bench.accept(&[(last, "queue", "prod")]).await;
    assert_eq!((superseded(&bench, newcomer).await, superseded(&bench, last).await), (None, None), "only this policy cancels");
    assert_eq!(superseded(&bench, holder).await, by(newcomer), "whoever asked first is named");
}

#[tokio::test]
async fn of_one_transaction_the_last_of_a_key_stays() {
    let bench = Bench::new().await;
    let stored = id(1, 0);
    bench.accept(&[(stored, "cancel_older", "prod")]).await;
    // Of one message of the bus: the ids carry one time and are in no order.
    let mut ids = [id(2, 1), id(2, 2), id(2, 3)];
    ids.sort();
    ids.reverse();
    let [a, b, c] = ids;
    bench.accept(&[(a, "cancel_older", "prod"), (b, "cancel_older", "prod"), (c, "cancel_older", "prod")]).await;
    assert_eq!((superseded(&bench, stored).await, superseded(&bench, a).await), (by(a), by(b)));
    assert_eq!((superseded(&bench, b).await, superseded(&bench, c).await), (by(c), None));
}

#[tokio::test]
async fn a_run_that_comes_late_gives_way_to_a_newer_one() {
    let bench = Bench::new().await;
    let (oldest, late, newer) = (id(1, 0), id(2, 0), id(3, 0));
    bench.accept(&[(newer, "cancel_older", "prod"), (oldest, "queue", "prod")]).await;
    bench.accept(&[(late, "cancel_older", "prod")]).await;
    assert_eq!((superseded(&bench, late).await, superseded(&bench, newer).await), (by(newer), None));
    assert_eq!(superseded(&bench, oldest).await, by(late));
}
