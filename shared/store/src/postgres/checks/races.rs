//! Changes that meet: whichever commits first, nothing that should be looked at is forgotten.

use hopyard_contract::RunId;
use hopyard_contract::run::Kill;

use super::sample::{Sample, begin, ended, meet, now};
use crate::Error;
use crate::postgres::{Postgres, scalar};
use crate::runs::Writes;

/// Whether the run has been poked; read without locks, since a dropped transaction keeps its own for a moment.
async fn is_poked(store: &Postgres, id: RunId) -> bool {
    let mut tx = store.read().await.expect("a read begins");
    scalar("SELECT EXISTS (SELECT 1 FROM hopyard_runs.due WHERE run_id = $1 AND kind = 'poke')")
        .bind(id.as_uuid())
        .fetch_one(&mut *tx)
        .await
        .expect("due rows are read")
}

pub(super) async fn a_poke_that_comes_while_another_is_dealt_with_stays(one: &Postgres, two: &Postgres) {
    let sample = Sample::new(one).await;
    let run = sample.run(now(one).await);
    let id = run.run.id;
    sample.insert(one, vec![run]).await;
    let poke = Writes { pokes: vec![id], ..Writes::default() };
    let poked = Writes { poked: vec![id], ..Writes::default() };
    for first in [false, true] {
        if first {
            let mut tx = begin(two).await;
            tx.write(&poke).await.expect("the run is poked");
            tx.commit().await.expect("the poke is committed");
        }
        let mut dealing = begin(one).await;
        dealing.load(&[id]).await.expect("the run is loaded");
        let mut other = begin(two).await;
        other.write(&poke).await.expect("the run is poked again");
        other.commit().await.expect("the poke is committed");
        dealing.write(&poked).await.expect("the first poke is dealt with");
        dealing.commit().await.expect("that is committed");
        assert!(is_poked(one, id).await, "the later poke stays (an earlier one: {first})");

        let mut tx = begin(one).await;
        tx.load(&[id]).await.expect("the run is loaded");
        tx.write(&poked).await.expect("the last poke is dealt with");
        tx.commit().await.expect("that is committed");
        assert!(!is_poked(one, id).await, "a poke that was dealt with is gone (an earlier one: {first})");
    }
}

pub(super) async fn a_run_that_comes_while_its_parent_ends_is_poked(one: &Postgres, two: &Postgres) {
    let sample = Sample::new(one).await;
    let at = now(one).await;
    let (parent, mut child) = (sample.run(at), sample.run(at));
    let (parent_id, child_id) = (parent.run.id, child.run.id);
    child.run.after = vec![parent_id];
    child.run.after_open = vec![parent_id];
    let end = ended(&parent, at);
    sample.insert(one, vec![parent]).await;

    let mut ending = begin(one).await;
    ending.load(&[parent_id]).await.expect("the parent is loaded");
    ending.write(&Writes { runs: vec![end], ..Writes::default() }).await.expect("the parent ends");
    // The end has looked for children and found none; the child takes the parent for open.
    let accept = sample.insert(two, vec![child]);
    let ((), committed) = meet(one, accept, ending.commit()).await;
    committed.expect("the end is committed");
    assert!(is_poked(one, child_id).await, "the newcomer sees that its parent has ended");
}

pub(super) async fn a_parent_that_ends_while_a_run_comes_pokes_it(one: &Postgres, two: &Postgres) {
    let sample = Sample::new(one).await;
    let at = now(one).await;
    let (parent, mut child) = (sample.run(at), sample.run(at));
    let (parent_id, child_id) = (parent.run.id, child.run.id);
    child.run.after = vec![parent_id];
    child.run.after_open = vec![parent_id];
    let end = ended(&parent, at);
    sample.insert(one, vec![parent]).await;

    let mut accept = begin(one).await;
    accept.write(&Writes { runs: vec![child], ..Writes::default() }).await.expect("the child is written");
    let ending = async {
        let mut ending = begin(two).await;
        ending.load(&[parent_id]).await?;
        ending.write(&Writes { runs: vec![end], ..Writes::default() }).await?;
        ending.commit().await
    };
    let (done, accepted) = meet(one, ending, accept.commit()).await;
    accepted.expect("the child is committed");
    done.expect("the end is committed");
    assert!(is_poked(one, child_id).await, "the end sees the child that has just come");
}

pub(super) async fn a_kill_that_comes_while_its_run_is_accepted_is_tried_again(one: &Postgres, two: &Postgres) {
    let sample = Sample::new(one).await;
    let at = now(one).await;
    let run = sample.run(at);
    let id = run.run.id;
    let kill = Kill { at, by: "user".to_owned(), reason: None, force: false, failure: None };
    let tombstone = Writes { tombstones: vec![(id, kill)], ..Writes::default() };

    let mut accept = begin(one).await;
    assert!(accept.tombstones(&[id], false).await.expect("tombstones are read").is_empty());
    accept.write(&Writes { runs: vec![run], ..Writes::default() }).await.expect("the run is written");
    let mut killing = begin(two).await;
    assert!(killing.load(&[id]).await.expect("the run is looked up").is_empty(), "the run is not committed yet");
    let (killed, accepted) = meet(one, killing.write(&tombstone), accept.commit()).await;
    accepted.expect("the run is committed");
    assert!(matches!(killed, Err(Error::Retry(_))), "the kill has to look again: {killed:?}");
    drop(killing);
    assert!(begin(one).await.tombstones(&[id], false).await.expect("tombstones are read").is_empty(), "no tombstone is left beside a run");
}

pub(super) async fn a_run_accepted_twice_at_once_is_tried_again(one: &Postgres, two: &Postgres) {
    let sample = Sample::new(one).await;
    let runs = vec![sample.run(now(one).await), sample.run(now(one).await)];
    let mut reversed = runs.clone();
    reversed.reverse();
    let mut first = begin(one).await;
    first.write(&Writes { runs, ..Writes::default() }).await.expect("the runs are written");
    let again = async { begin(two).await.write(&Writes { runs: reversed, ..Writes::default() }).await };
    let (again, committed) = meet(one, again, first.commit()).await;
    committed.expect("the runs are committed");
    assert!(matches!(again, Err(Error::Retry(_))), "the next try finds the runs: {again:?}");
}
