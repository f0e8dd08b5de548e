//! Submissions: what is stored comes back, and what was answered once is known again.

use hopyard_contract::RunId;
use hopyard_contract::run::Kill;
use hopyard_contract::status::RunStatus;
use hopyard_contract::submit::{Receipt, Verdict};
use uuid::Uuid;

use super::{Bench, samples};
use crate::runs::{KeyRow, RunWrite, Spent, Writes};

pub(super) async fn every_field_comes_back(bench: Bench) {
    let run = samples::full_run(&bench.namespace, &bench.pool, &bench.plan_hash);
    let steps = [samples::full_step("a", &bench.pool), samples::claimable(bench.step("b"), samples::at(9))];
    let attempts = vec![samples::full_attempt("a", 1), samples::full_attempt("a", 2), samples::leased("b", 1, Uuid::now_v7())];
    let events = vec![samples::event(&run, 1, samples::at(0)), samples::event(&run, 2, samples::at(0))];
    let timer = Some(Some(samples::at(60_000)));
    bench.put(RunWrite { attempts: attempts.clone(), events: events.clone(), timer, ..samples::new_run(&run, &steps) }).await.unwrap();

    let loaded = bench.load(&[run.id]).await.remove(0);
    assert_eq!(loaded.run, run);
    assert_eq!(loaded.steps, steps);
    assert_eq!(loaded.attempts, attempts);
    assert_eq!(*loaded.plan, samples::plan());
    assert_eq!(loaded.timer, Some(samples::at(60_000)));
    assert_eq!(bench.reader.run(&bench.namespace, run.id).await.unwrap().unwrap(), loaded, "readers see the same");
    assert_eq!(bench.reader.events(&bench.namespace, run.id, 0, 10).await.unwrap(), events);

    // Changes replace: an attempt ends, a timer goes, a later event follows.
    let mut changed = run.clone();
    changed.event_seq = 3;
    let mut attempt = attempts[2].clone();
    attempt.lease_until = samples::at(40_000);
    let third = samples::event(&run, 3, samples::at(10));
    let write = RunWrite { attempts: vec![attempt.clone()], events: vec![third.clone()], timer: Some(None), ..samples::change(&changed) };
    bench.put(write).await.unwrap();
    let loaded = bench.load(&[run.id]).await.remove(0);
    assert_eq!((loaded.run, loaded.timer), (changed, None));
    assert_eq!(loaded.attempts[2], attempt);
    assert_eq!(loaded.steps, steps, "what is not written stays");
    assert_eq!(bench.reader.events(&bench.namespace, run.id, 2, 10).await.unwrap(), [third]);
}

pub(super) async fn unknown_ids_are_absent(bench: Bench) {
    let (first, second) = (bench.run(), bench.run());
    bench.accept(&second, &[]).await;
    bench.accept(&first, &[]).await;
    let found: Vec<RunId> = bench.load(&[second.id, RunId::mint(), first.id]).await.into_iter().map(|s| s.run.id).collect();
    assert_eq!(found, [first.id, second.id], "in order of id");
    assert_eq!(bench.load(&[]).await, []);
    assert_eq!(bench.reader.run(&bench.namespace, RunId::mint()).await.unwrap(), None);
    let other = "another".parse().unwrap();
    assert_eq!(bench.reader.run(&other, first.id).await.unwrap(), None, "another namespace sees nothing");
    assert_eq!(bench.reader.events(&other, first.id, 0, 10).await.unwrap(), []);
    bench.refuse_again("a second run of the same id", Writes { runs: vec![samples::new_run(&first, &[])], ..Writes::default() }).await;
}

pub(super) async fn keys_are_known_once(bench: Bench) {
    let run = bench.run();
    let row = KeyRow { run: run.id, request_hash: "h1".to_owned() };
    let asked = [(bench.namespace.clone(), "key \"1\"".to_owned()), (bench.namespace.clone(), "key 2".to_owned())];
    let mut tx = bench.runs.begin().await.unwrap();
    assert!(tx.keys(&asked).await.unwrap().is_empty());
    let keys = vec![(bench.namespace.clone(), "key \"1\"".to_owned(), row.clone())];
    let writes = Writes { runs: vec![samples::new_run(&run, &[])], keys: keys.clone(), ..Writes::default() };
    tx.write(&writes).await.unwrap();
    tx.commit().await.unwrap();

    let known = within_tx!(bench, keys(&asked));
    assert_eq!(known.len(), 1);
    assert_eq!(known[&asked[0]], row);
    let elsewhere = [("another".parse().unwrap(), "key \"1\"".to_owned())];
    assert!(within_tx!(bench, keys(&elsewhere)).is_empty(), "keys belong to their namespace");
    bench.refuse_again("a key that is taken", Writes { keys, ..Writes::default() }).await;
}

pub(super) async fn receipts_are_told_apart_by_time(bench: Bench) {
    // Sequences are everybody's: take one that no earlier pass over the same store has used.
    let seq = u64::try_from(RunId::mint().unix_millis()).unwrap();
    let receipt = |received: i64, run: RunId| Receipt {
        v: 1,
        id: seq.to_string(),
        seq: Some(seq),
        namespace: bench.namespace.clone(),
        received_at: samples::at(received),
        items: vec![Verdict::accepted(run), Verdict::rejected(Vec::new())],
        cancel: false,
    };
    let (old, new) = (receipt(1, RunId::mint()), receipt(2, RunId::mint()));
    let receipts = vec![(new.clone(), 2000), (old.clone(), 1000)];
    bench.write(Writes { receipts: receipts.clone(), ..Writes::default() }).await.unwrap();
    bench.write(Writes { receipts, ..Writes::default() }).await.unwrap();
    let mut tx = bench.runs.begin().await.unwrap();
    assert_eq!(tx.receipt(seq, 1000).await.unwrap(), Some(old));
    assert_eq!(tx.receipt(seq, 2000).await.unwrap(), Some(new.clone()));
    assert_eq!(tx.receipt(seq, 3000).await.unwrap(), None);
    drop(tx);
    assert_eq!(bench.reader.receipt(&bench.namespace, seq).await.unwrap(), Some(new), "the newest of the sequence");
    assert_eq!(bench.reader.receipt(&"another".parse().unwrap(), seq).await.unwrap(), None);
}

pub(super) async fn kill_requests_precede_their_runs(bench: Bench) {
    let id = RunId::mint();
    let kill = Kill { at: samples::at(0), by: "someone".to_owned(), reason: None, force: false, failure: None };
    bench.write(Writes { tombstones: vec![(id, kill.clone())], ..Writes::default() }).await.unwrap();
    let later = Kill { by: "someone else".to_owned(), ..kill.clone() };
    bench.write(Writes { tombstones: vec![(id, later)], ..Writes::default() }).await.unwrap();
    bench.runs.retire().await.unwrap();
    let found = within_tx!(bench, tombstones(&[id, RunId::mint()], false));
    assert_eq!(found.len(), 1);
    assert_eq!(found[&id], kill, "the first request counts, and is kept for a day");
}

pub(super) async fn further_ids_of_a_run_find_it(bench: Bench) {
    let (run, other, id) = (bench.run(), bench.run(), RunId::mint());
    bench.accept(&run, &[]).await;
    bench.accept(&other, &[]).await;
    bench.write(Writes { aliases: vec![(id, run.id)], ..Writes::default() }).await.unwrap();
    bench.write(Writes { aliases: vec![(id, other.id)], ..Writes::default() }).await.unwrap();
    assert_eq!(within_tx!(bench, alias(id)), Some(run.id), "the first word counts");
    assert_eq!(within_tx!(bench, alias(run.id)), None);
    let found = bench.reader.run(&bench.namespace, id).await.unwrap();
    assert_eq!(found.map(|state| state.run.id), Some(run.id));
    assert!(bench.reader.run(&"another".parse().unwrap(), id).await.unwrap().is_none());
}

pub(super) async fn statuses_stay_within_a_namespace(bench: Bench) {
    let (open, ended) = (bench.run(), samples::completed(&bench.run()));
    bench.accept(&open, &[]).await;
    bench.accept(&ended, &[]).await;
    let ids = [open.id, ended.id, RunId::mint()];
    let found = within_tx!(bench, statuses(&bench.namespace, &ids));
    assert_eq!(found, [(open.id, RunStatus::Pending), (ended.id, RunStatus::Completed)].into());
    let mut read = bench.reader.statuses(&bench.namespace, &ids).await.unwrap();
    read.sort();
    assert_eq!(read, [(open.id, RunStatus::Pending), (ended.id, RunStatus::Completed)]);
    assert!(bench.reader.statuses(&"another".parse().unwrap(), &ids).await.unwrap().is_empty());
}

pub(super) async fn children_are_poked_when_a_parent_ends(bench: Bench) {
    let (first, second, mut child) = (bench.run(), bench.run(), bench.run());
    child.after = vec![first.id, second.id];
    child.after_open = child.after.clone();
    for run in [&first, &second, &child] {
        bench.accept(run, &[]).await;
    }
    let is_due = async |id: RunId| {
        let now = within_tx!(bench, now());
        within_tx!(bench, due(now, 10_000)).contains(&id)
    };
    assert!(!is_due(child.id).await);
    bench.put(samples::change(&samples::running(&first))).await.unwrap();
    assert!(!is_due(child.id).await, "a parent that starts changes nothing");
    bench.put(samples::change(&samples::completed(&first))).await.unwrap();
    assert!(is_due(child.id).await, "the first end pokes");

    // The poke is dealt with in the very transaction in which the other parent ends: the new poke stays.
    let runs = vec![samples::change(&samples::completed(&second))];
    bench.write(Writes { runs, poked: vec![child.id], ..Writes::default() }).await.unwrap();
    assert!(is_due(child.id).await, "the second end pokes again");
    bench.write(Writes { poked: vec![child.id], ..Writes::default() }).await.unwrap();
    assert!(!is_due(child.id).await);
    let mut late = samples::completed(&first);
    late.late_usage = Some(samples::usage(1));
    bench.put(samples::change(&late)).await.unwrap();
    assert!(!is_due(child.id).await, "an end pokes once");
}

pub(super) async fn a_dropped_transaction_leaves_nothing(bench: Bench) {
    let run = bench.run();
    let mut tx = bench.runs.begin().await.unwrap();
    tx.write(&Writes { runs: vec![samples::new_run(&run, &[bench.step("a")])], ..Writes::default() }).await.unwrap();
    assert_eq!(tx.load(&[run.id]).await.unwrap().len(), 1, "a transaction sees its own writes");
    drop(tx);
    assert!(bench.load(&[run.id]).await.is_empty());
}

pub(super) async fn shared_budgets_add_up(bench: Bench) {
    let key = |name: &str| format!("{}/{name}", bench.namespace);
    let keys = [key("b"), key("a")];
    assert!(within_tx!(bench, budgets(&keys)).is_empty(), "nothing was spent");
    for (spent, open) in [(5, 3), (2, -3)] {
        let budgets = [(key("a"), Spent { spent, open }), (key("b"), Spent { spent: 1, open: 0 })].into();
        bench.write(Writes { budgets, ..Writes::default() }).await.unwrap();
    }
    let found = within_tx!(bench, budgets(&keys));
    assert_eq!((found[&keys[0]], found[&keys[1]]), (Spent { spent: 2, open: 0 }, Spent { spent: 7, open: 0 }));
}
