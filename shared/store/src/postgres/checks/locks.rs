//! Who waits for whom, and who does not.

use std::collections::HashSet;

use hopyard_contract::{Name, RunId};

use super::sample::{Sample, begin, ended, meet, now, slot};
use crate::postgres::Postgres;
use crate::runs::{ClaimQuery, KeyRow, RunWrite, Writes};
use crate::{Error, Result};

pub(super) async fn claims_of_two_schedulers_share_no_run(one: &Postgres, two: &Postgres) {
    let sample = Sample::new(one).await;
    let at = now(one).await;
    sample.insert(one, (0..12).map(|_| sample.run(at)).collect()).await;
    let query = ClaimQuery { pool: sample.pool.clone(), executor: Name::literal("executor"), limit: 8, now: now(one).await };
    let (mut first, mut second) = (begin(one).await, begin(two).await);
    let left = first.candidates(&query).await.expect("the first claim is answered");
    let right = second.candidates(&query).await.expect("the second claim is answered while the first is open");
    assert_eq!((left.len(), right.len()), (8, 4), "the second claim gets what the first left");
    let runs: HashSet<RunId> = left.iter().chain(&right).map(|(run, _)| *run).collect();
    assert_eq!(runs.len(), 12, "no run is in both answers");
    // Their rows are locked by those who got them, so loading them waits for nobody.
    let ids: Vec<RunId> = right.iter().map(|(run, _)| *run).collect();
    assert_eq!(second.load(&ids).await.expect("claimed runs are loaded").len(), 4);
}

pub(super) async fn who_holds_a_lock_waits_for_no_run(one: &Postgres, two: &Postgres) {
    let sample = Sample::new(one).await;
    let at = now(one).await;
    let runs: Vec<RunWrite> = (0..2).map(|_| sample.run(at)).collect();
    let ids: Vec<RunId> = runs.iter().map(|write| write.run.id).collect();
    sample.insert(one, runs).await;
    let (mut first, mut second) = (begin(one).await, begin(two).await);
    first.load(&ids[..1]).await.expect("the first run is loaded");
    assert_eq!(second.look(&ids).await.expect("both are looked at").len(), 2, "whoever only looks waits for nobody");
    second.load(&ids[1..]).await.expect("the second run is loaded");
    let refused = second.load(&ids[..1]).await.expect_err("the first transaction has the first run");
    // Who had waited in vain would be told of the time that it took.
    assert!(matches!(&refused, Error::Busy(text) if text.contains("could not obtain lock")), "{refused}");
}

pub(super) async fn a_taken_slot_hides_a_run_and_no_other(store: &Postgres) {
    let sample = Sample::new(store).await;
    let at = now(store).await;
    let key = format!("{}/key", sample.namespace);
    let (mut holder, mut waiting, free) = (sample.run(at), sample.run(at), sample.run(at));
    holder.run.slots = vec![slot(&key, true)];
    holder.steps[0].1.claimable_at = None;
    waiting.run.slots = vec![slot(&key, false)];
    let (holder_id, waiting_id, free_id) = (holder.run.id, waiting.run.id, free.run.id);
    let end = ended(&holder, at);
    sample.insert(store, vec![holder, waiting, free]).await;

    let query = ClaimQuery { pool: sample.pool.clone(), executor: Name::literal("executor"), limit: 8, now: now(store).await };
    let mut tx = begin(store).await;
    let found: Vec<RunId> = tx.candidates(&query).await.expect("the claim is answered").into_iter().map(|(run, _)| run).collect();
    assert_eq!(found, [free_id], "the run that waits for a slot is hidden");
    assert_eq!(tx.slot_holders(std::slice::from_ref(&key)).await.expect("holders are read")[&key], [holder_id]);
    tx.load(&[holder_id]).await.expect("the holder is loaded");
    tx.write(&Writes { runs: vec![end], ..Writes::default() }).await.expect("the holder ends");
    tx.commit().await.expect("the end is committed");

    let found: Vec<RunId> =
        begin(store).await.candidates(&query).await.expect("the claim is answered").into_iter().map(|(run, _)| run).collect();
    assert_eq!(found, [waiting_id, free_id], "the end of the holder gives its slot back");
}

/// Ends the runs and pokes all of them in the given order.
async fn end_all(store: &Postgres, sample: &Sample, runs: &[RunWrite], poke: &[RunId]) -> Result<()> {
    let mut tx = begin(store).await;
    let ids: Vec<RunId> = runs.iter().map(|write| write.run.id).collect();
    let at = tx.now().await?;
    let states = tx.load(&ids).await?;
    assert_eq!(states.len(), ids.len(), "runs of {} are loaded", sample.namespace);
    let open: HashSet<RunId> = states.iter().filter(|s| s.run.finished_at.is_none()).map(|s| s.run.id).collect();
    let writes = runs.iter().filter(|write| open.contains(&write.run.id)).map(|write| ended(write, at)).collect();
    tx.write(&Writes { runs: writes, pokes: poke.to_vec(), ..Writes::default() }).await?;
    tx.commit().await
}

pub(super) async fn ends_of_the_same_runs_in_any_order_do_not_deadlock(store: &Postgres) {
    let sample = Sample::new(store).await;
    for round in 0..5 {
        let at = now(store).await;
        let parents: Vec<RunWrite> = (0..24).map(|_| sample.run(at)).collect();
        let children: Vec<RunWrite> = (0..24)
            .map(|_| {
                let mut child = sample.run(at);
                child.run.after_open = parents.iter().map(|parent| parent.run.id).collect();
                child.run.after = child.run.after_open.clone();
                child
            })
            .collect();
        sample.insert(store, parents.clone()).await;
        sample.insert(store, children.clone()).await;
        let mut forward: Vec<RunId> = children.iter().map(|child| child.run.id).collect();
        forward.extend(parents.iter().map(|parent| parent.run.id));
        let backward: Vec<RunId> = forward.iter().rev().copied().collect();
        let reversed: Vec<RunWrite> = parents.iter().rev().cloned().collect();
        // Overlapping ends, and ends of runs that the others poke.
        let done = tokio::join!(
            end_all(store, &sample, &parents[..12], &backward),
            end_all(store, &sample, &parents[12..], &forward),
            end_all(store, &sample, &reversed, &forward),
            end_all(store, &sample, &children[..8], &backward),
            end_all(store, &sample, &children[16..], &forward),
            end_all(store, &sample, &parents[6..18], &backward),
        );
        for result in [done.0, done.1, done.2, done.3, done.4, done.5] {
            result.unwrap_or_else(|e| panic!("round {round}: {e}"));
        }
        let mut tx = begin(store).await;
        let later = tx.now().await.expect("the clock is read");
        let woken: HashSet<RunId> = tx.due(later, 1000).await.expect("due runs are read").into_iter().collect();
        for child in &children[8..16] {
            assert!(woken.contains(&child.run.id), "round {round}: run {} waits for runs that have ended", child.run.id);
        }
        let pokes = Writes { poked: woken.into_iter().collect(), ..Writes::default() };
        tx.write(&pokes).await.expect("pokes are dealt with");
        tx.commit().await.expect("the round is committed");
    }
}

pub(super) async fn runs_that_poke_each_other_do_not_deadlock(one: &Postgres, two: &Postgres) {
    let sample = Sample::new(one).await;
    let at = now(one).await;
    let runs: Vec<RunWrite> = (0..40).map(|_| sample.run(at)).collect();
    let ids: Vec<RunId> = runs.iter().map(|write| write.run.id).collect();
    sample.insert(one, runs).await;
    let (left, right) = ids.split_at(20);
    let deal = async |store: &Postgres, poked: &[RunId], pokes: &[RunId]| {
        let mut tx = begin(store).await;
        tx.load(poked).await?;
        tx.write(&Writes { poked: poked.to_vec(), pokes: pokes.to_vec(), ..Writes::default() }).await?;
        tx.commit().await
    };
    deal(one, &[], &ids).await.expect("all runs are poked");
    for round in 0..10 {
        let (first, second) = tokio::join!(deal(one, left, right), deal(two, right, left));
        first.and(second).unwrap_or_else(|e| panic!("round {round}: {e}"));
    }
    let mut tx = begin(one).await;
    tx.load(&ids).await.expect("the runs are loaded");
    tx.write(&Writes { poked: ids, ..Writes::default() }).await.expect("the last pokes are dealt with");
    tx.commit().await.expect("that is committed");
}

pub(super) async fn submitters_of_one_key_wait_for_each_other(one: &Postgres, two: &Postgres) {
    let sample = Sample::new(one).await;
    let at = now(one).await;
    let run = sample.run(at);
    let pair = (sample.namespace.clone(), "key".to_owned());
    let row = KeyRow { run: run.run.id, request_hash: "hash".to_owned() };
    let mut first = begin(one).await;
    assert!(first.keys(std::slice::from_ref(&pair)).await.expect("the key is looked up").is_empty());
    let second = async {
        let mut second = begin(two).await;
        second.keys(std::slice::from_ref(&pair)).await
    };
    let commit = async {
        let writes = Writes { runs: vec![run.clone()], keys: vec![(pair.0.clone(), pair.1.clone(), row.clone())], ..Writes::default() };
        first.write(&writes).await?;
        first.commit().await
    };
    let (seen, committed) = meet(one, second, commit).await;
    committed.expect("the first submission is committed");
    assert_eq!(seen.expect("the second submitter reads the key").get(&pair), Some(&row), "the second submitter sees what the first wrote");
}
