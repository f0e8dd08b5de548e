//! Claims: the right steps in the right order, each once.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::run::Run;
use hopyard_contract::{Name, RunId};
use uuid::Uuid;

use super::{Bench, samples};
use crate::runs::{ClaimQuery, Claimable, RunTx, RunWrite, Writes};

async fn now(bench: &Bench) -> DateTime<Utc> {
    within_tx!(bench, now())
}

async fn candidates_in(bench: &Bench, tx: &mut Box<dyn RunTx>, executor: &str, limit: u32) -> Vec<(RunId, Name)> {
    let now = tx.now().await.unwrap();
    let query = ClaimQuery { pool: bench.pool.clone(), executor: executor.parse().unwrap(), limit, now };
    tx.candidates(&query).await.unwrap()
}

async fn candidates(bench: &Bench, executor: &str, limit: u32) -> Vec<(RunId, Name)> {
    let mut tx = bench.runs.begin().await.unwrap();
    let found = candidates_in(bench, &mut tx, executor, limit).await;
    tx.commit().await.unwrap();
    found
}

/// A run with one claimable step `a`.
async fn claimable_run(bench: &Bench, change: impl FnOnce(&mut Run), at: DateTime<Utc>) -> Run {
    let mut run = bench.run();
    change(&mut run);
    bench.accept(&run, &[samples::claimable(bench.step("a"), at)]).await;
    run
}

pub(super) async fn the_best_step_comes_first(bench: Bench) {
    let now = now(&bench).await;
    let ago = |s: i64| now - TimeDelta::seconds(s);
    let late = claimable_run(&bench, |_| {}, ago(10)).await;
    let early = claimable_run(&bench, |_| {}, ago(20)).await;
    let urgent = claimable_run(&bench, |r| r.priority = 3, ago(1)).await;
    let low = claimable_run(&bench, |r| r.priority = 0, ago(99)).await;
    // Claimable again since a second only: it keeps the place that it had when it was taken.
    let kept = bench.run();
    let again = samples::claimable(bench.step("a"), ago(1));
    bench.accept(&kept, &[hopyard_contract::run::StepState { queued_at: Some(ago(15)), ..again }]).await;
    let future = claimable_run(&bench, |r| r.priority = 3, now + TimeDelta::hours(1)).await;
    let two = bench.run();
    let both = [samples::claimable(bench.step("a"), ago(10)), samples::claimable(bench.step("b"), ago(10))];
    bench.accept(&two, &both).await;

    let found = candidates(&bench, "executor-1", 100).await;
    let step = |run: &Run, id: &'static str| (run.id, Name::literal(id));
    assert_eq!(
        found,
        [step(&urgent, "a"), step(&early, "a"), step(&kept, "a"), step(&late, "a"), step(&two, "a"), step(&two, "b"), step(&low, "a")]
    );
    assert!(!found.contains(&step(&future, "a")));
    assert_eq!(candidates(&bench, "executor-1", 2).await, found[..2], "a limit keeps the best");
}

pub(super) async fn bound_steps_are_for_their_executor(bench: Bench) {
    let now = now(&bench).await;
    let run = bench.run();
    let mut mine = samples::claimable(bench.step("a"), now - TimeDelta::seconds(2));
    mine.bound_to = Some(Name::literal("executor-1"));
    let mut other = samples::claimable(bench.step("b"), now - TimeDelta::seconds(3));
    other.bound_to = Some(Name::literal("executor-2"));
    bench.accept(&run, &[mine, other]).await;
    let free = claimable_run(&bench, |_| {}, now - TimeDelta::seconds(1)).await;
    let a = |run: &Run| (run.id, Name::literal("a"));
    assert_eq!(candidates(&bench, "executor-1", 10).await, [a(&run), a(&free)]);
    assert_eq!(candidates(&bench, "executor-2", 10).await, [(run.id, Name::literal("b")), a(&free)]);
    assert_eq!(candidates(&bench, "executor-3", 10).await, [a(&free)]);
}

pub(super) async fn taken_slots_hide_runs(bench: Bench) {
    let now = now(&bench).await;
    let key = format!("{}/k", bench.namespace);
    let wide = format!("{}/wide", bench.namespace);
    let ago = |s: i64| now - TimeDelta::seconds(s);
    let holder = claimable_run(&bench, |r| r.slots = vec![samples::slot(&key, 1, true)], ago(9)).await;
    let waiter = claimable_run(&bench, |r| r.slots = vec![samples::slot(&key, 1, false)], ago(8)).await;
    let generous = claimable_run(&bench, |r| r.slots = vec![samples::slot(&key, 2, false)], ago(7)).await;
    let mixed = claimable_run(&bench, |r| r.slots = vec![samples::slot(&wide, 5, false), samples::slot(&key, 1, false)], ago(6)).await;
    let free = claimable_run(&bench, |r| r.slots = vec![samples::slot(&wide, 5, false)], ago(5)).await;
    let found = async || candidates(&bench, "executor-1", 10).await.into_iter().map(|(run, _)| run).collect::<Vec<_>>();
    assert_eq!(found().await, [holder.id, generous.id, free.id], "the holder goes on, the others wait for the key");
    let total = async || bench.runs.claimable().await.unwrap().iter().filter(|c| c.pool == bench.pool).map(|c| c.count).sum::<u64>();
    assert_eq!(total().await, 3, "the count follows the same rule");

    let mut tx = bench.runs.begin().await.unwrap();
    let holders = tx.slot_holders(&[wide.clone(), key.clone()]).await.unwrap();
    assert_eq!(holders.get(&key).map(Vec::as_slice), Some([holder.id].as_slice()));
    assert!(holders.get(&wide).is_none_or(Vec::is_empty));
    tx.commit().await.unwrap();

    // Taking a slot later counts as well, and the end of a run gives all of its slots back.
    let mut taken = generous.clone();
    taken.slots[0].held = true;
    bench.put(samples::change(&taken)).await.unwrap();
    let mut read = bench.reader.slot_holders(&holder.slots[0]).await.unwrap();
    read.sort();
    assert_eq!(read, [holder.id, generous.id]);
    let end = RunWrite { steps: vec![(0, ended(&bench))], ..samples::change(&samples::completed(&holder)) };
    bench.put(end).await.unwrap();
    assert_eq!(found().await, [generous.id, free.id], "one still holds it");
    let end = RunWrite { steps: vec![(0, ended(&bench))], ..samples::change(&samples::completed(&taken)) };
    bench.put(end).await.unwrap();
    assert_eq!(found().await, [waiter.id, mixed.id, free.id], "free again, for all that ask: none hides the others");
}

pub(super) async fn all_runs_of_a_slot_are_listed(bench: Bench) {
    let now = now(&bench).await;
    let (key, other) = (format!("{}/k", bench.namespace), format!("{}/other", bench.namespace));
    // Accepted in another order than they were submitted in.
    let mut ids = [RunId::mint(), RunId::mint(), RunId::mint()];
    ids.sort();
    for (id, held) in [(ids[2], false), (ids[0], true), (ids[1], false)] {
        claimable_run(&bench, |r| (r.id, r.slots) = (id, vec![samples::slot(&key, 1, held)]), now).await;
    }
    claimable_run(&bench, |_| {}, now).await;
    let members = async || within_tx!(bench, slot_members(&[other.clone(), key.clone()]));
    let found = members().await;
    assert_eq!(found.get(&key).map(Vec::as_slice), Some(ids.as_slice()), "held or not, oldest first");
    assert!(found.get(&other).is_none_or(Vec::is_empty));
    let state = bench.load(&ids[..1]).await.remove(0);
    let end = RunWrite { steps: vec![(0, ended(&bench))], ..samples::change(&samples::completed(&state.run)) };
    bench.put(end).await.unwrap();
    assert_eq!(members().await[&key], ids[1..], "a run that has ended is no member");
}

fn ended(bench: &Bench) -> hopyard_contract::run::StepState {
    let mut step = samples::full_step("a", &bench.pool);
    step.bound_to = None;
    step
}

pub(super) async fn nothing_is_claimed_twice(bench: Bench) {
    let at = now(&bench).await - TimeDelta::seconds(1);
    for _ in 0..6 {
        claimable_run(&bench, |_| {}, at).await;
    }
    let mut first = bench.runs.begin().await.unwrap();
    let mine = candidates_in(&bench, &mut first, "executor-1", 3).await;
    assert_eq!(mine.len(), 3);
    // Only a shared store lets a second transaction in; its claim skips what the first has locked.
    if bench.shared {
        let mut second = bench.runs.begin().await.unwrap();
        let theirs = candidates_in(&bench, &mut second, "executor-2", 10).await;
        assert_eq!(theirs.len(), 3);
        assert!(theirs.iter().all(|c| !mine.contains(c)), "{theirs:?} and {mine:?} share a step");
        second.commit().await.unwrap();
    }
    let ids: Vec<RunId> = mine.iter().map(|(run, _)| *run).collect();
    let claim = Uuid::now_v7();
    let runs = first.load(&ids).await.unwrap().into_iter().map(|state| {
        let mut step = state.steps[0].clone();
        (step.claimable_at, step.attempt) = (None, 1);
        RunWrite { steps: vec![(0, step)], attempts: vec![samples::leased("a", 1, claim)], ..samples::change(&state.run) }
    });
    let writes = Writes { runs: runs.collect(), ..Writes::default() };
    first.write(&writes).await.unwrap();
    first.commit().await.unwrap();
    let left = candidates(&bench, "executor-2", 10).await;
    assert_eq!(left.len(), 3);
    assert!(left.iter().all(|c| !mine.contains(c)));
}

pub(super) async fn a_claim_id_finds_its_runs(bench: Bench) {
    let claim = Uuid::now_v7();
    let (first, second) = (bench.run(), bench.run());
    for (run, claim) in [(&first, claim), (&second, Uuid::now_v7())] {
        let attempts = vec![samples::leased("a", 1, claim), samples::leased("b", 1, claim)];
        bench.put(RunWrite { attempts, ..samples::new_run(run, &[bench.step("a"), bench.step("b")]) }).await.unwrap();
    }
    let mut tx = bench.runs.begin().await.unwrap();
    assert_eq!(tx.claimed(claim).await.unwrap(), [first.id]);
    assert_eq!(tx.claimed(Uuid::now_v7()).await.unwrap(), []);
    tx.commit().await.unwrap();
}

pub(super) async fn timers_and_pokes_are_due(bench: Bench) {
    let now = now(&bench).await;
    let (old, older, future, quiet) = (bench.run(), bench.run(), bench.run(), bench.run());
    for (run, seconds) in [(&old, -1_000_000), (&older, -2_000_000), (&future, 3600)] {
        bench.put(RunWrite { timer: Some(Some(now + TimeDelta::seconds(seconds))), ..samples::new_run(run, &[]) }).await.unwrap();
    }
    bench.accept(&quiet, &[]).await;
    let due = async || {
        let ours = [old.id, older.id, future.id, quiet.id];
        let found = within_tx!(bench, due(now + TimeDelta::seconds(60), 10_000));
        found.into_iter().filter(|id| ours.contains(id)).collect::<Vec<_>>()
    };
    assert_eq!(due().await, [older.id, old.id], "oldest first");
    assert!(bench.runs.next_due().await.unwrap().unwrap() <= TimeDelta::seconds(-2_000_000), "by the clock of the store");

    let unknown = RunId::mint();
    bench.write(Writes { pokes: vec![old.id, quiet.id, unknown], ..Writes::default() }).await.unwrap();
    assert_eq!(due().await, [older.id, old.id, quiet.id], "a poked run appears once; an unknown run never");
    bench.write(Writes { poked: vec![old.id, quiet.id], ..Writes::default() }).await.unwrap();
    assert_eq!(due().await, [older.id, old.id], "a poke that was dealt with leaves the timer");
    bench.put(RunWrite { timer: Some(None), ..samples::change(&older) }).await.unwrap();
    bench.put(samples::change(&samples::completed(&old))).await.unwrap();
    assert_eq!(due().await, [], "a cleared timer is gone, and so is that of a run that ended");
    bench.put(RunWrite { timer: Some(None), ..samples::change(&future) }).await.unwrap();
}

pub(super) async fn what_is_claimable_is_counted(bench: Bench) {
    let now = now(&bench).await;
    claimable_run(&bench, |_| {}, now - TimeDelta::seconds(5)).await;
    claimable_run(&bench, |_| {}, now - TimeDelta::seconds(50)).await;
    claimable_run(&bench, |_| {}, now + TimeDelta::hours(1)).await;
    let mut bound = samples::claimable(bench.step("a"), now - TimeDelta::seconds(7));
    bound.bound_to = Some(Name::literal("executor-9"));
    bench.accept(&bench.run(), &[bound, bench.step("b")]).await;
    for all in [bench.runs.claimable().await.unwrap(), bench.reader.claimable().await.unwrap()] {
        let passed = (self::now(&bench).await - now).to_std().unwrap();
        let mut ours: Vec<Claimable> = all.into_iter().filter(|c| c.pool == bench.pool).collect();
        ours.sort_by(|a, b| a.bound_to.cmp(&b.bound_to));
        let counted: Vec<_> = ours.iter().map(|c| (c.bound_to.as_ref().map(Name::as_str), c.count)).collect();
        assert_eq!(counted, [(None, 2), (Some("executor-9"), 1)]);
        for (entry, seconds) in ours.iter().zip([50, 7]) {
            let waited = Duration::from_secs(seconds);
            assert!((waited..=waited + passed).contains(&entry.waited), "{entry:?} by the clock of the store");
        }
    }
}
