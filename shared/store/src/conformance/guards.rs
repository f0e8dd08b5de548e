//! Guards: what the engine refuses even when the caller is wrong.

use hopyard_contract::run::GitResult;
use hopyard_contract::status::{AttemptStatus, FailureCode, RunStatus, StepStatus};
use uuid::Uuid;

use super::{Bench, samples};
use crate::runs::RunWrite;

pub(super) async fn a_final_run_is_immutable(bench: Bench) {
    let open = bench.run();
    bench.accept(&open, &[]).await;
    let ended = samples::completed(&open);
    bench.put(samples::change(&ended)).await.unwrap();

    let mut reopened = ended.clone();
    (reopened.status, reopened.finished_at) = (RunStatus::Running, None);
    bench.refuse("reopening", samples::change(&reopened)).await;
    let mut killed = ended.clone();
    killed.status = RunStatus::Killed;
    bench.refuse("another final status", samples::change(&killed)).await;
    let mut later = ended.clone();
    later.finished_at = Some(samples::at(9000));
    bench.refuse("another end", samples::change(&later)).await;
    let mut spent = ended.clone();
    spent.usage = samples::usage(1);
    bench.refuse("more usage", samples::change(&spent)).await;
    let mut unknown = ended.clone();
    unknown.usage.cost_microusd = None;
    bench.refuse("an unknown cost", samples::change(&unknown)).await;
    let mut result = ended.clone();
    let commit = "a".repeat(40);
    result.result = Some(GitResult {
        base: commit.clone(),
        head: commit,
        branch: "b".to_owned(),
        files: Vec::new(),
        insertions: 0,
        deletions: 0,
        patch: None,
        bundle: None,
    });
    bench.refuse("another result", samples::change(&result)).await;
    assert_eq!(bench.load(&[open.id]).await[0].run, ended, "nothing of it has changed");

    let mut late = ended.clone();
    late.late_usage = Some(samples::usage(3));
    late.event_seq = 1;
    let write = RunWrite { events: vec![samples::event(&late, 1, samples::at(3000))], ..samples::change(&late) };
    bench.put(write).await.unwrap();
    assert_eq!(bench.load(&[open.id]).await[0].run, late, "late money and events of the workspace are kept");
}

pub(super) async fn events_have_no_gaps(bench: Bench) {
    let run = bench.run();
    let page = |range: std::ops::RangeInclusive<u64>| range.map(|seq| samples::event(&run, seq, samples::at(0))).collect::<Vec<_>>();
    bench.refuse("a run that starts with event 2", RunWrite { events: page(2..=2), ..samples::new_run(&run, &[]) }).await;
    bench.put(RunWrite { events: page(1..=3), ..samples::new_run(&run, &[]) }).await.unwrap();
    bench.refuse("a gap", RunWrite { events: page(5..=5), ..samples::change(&run) }).await;
    bench.refuse("a repetition", RunWrite { events: page(3..=4), ..samples::change(&run) }).await;
    let holed = vec![samples::event(&run, 4, samples::at(0)), samples::event(&run, 6, samples::at(0))];
    bench.refuse("a gap within a page", RunWrite { events: holed, ..samples::change(&run) }).await;
    bench.put(RunWrite { events: page(4..=5), ..samples::change(&run) }).await.unwrap();
    let seqs: Vec<u64> = bench.reader.events(&bench.namespace, run.id, 0, 100).await.unwrap().iter().map(|e| e.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5]);
}

pub(super) async fn impossible_rows_are_refused(bench: Bench) {
    let open = bench.run();
    let with = |change: fn(&mut hopyard_contract::run::Run)| {
        let mut run = open.clone();
        change(&mut run);
        samples::new_run(&run, &[])
    };
    bench.refuse("an end without a time", with(|r| (r.status, r.pending_reason) = (RunStatus::Completed, None))).await;
    bench.refuse("a time of the end without an end", with(|r| r.finished_at = Some(samples::at(0)))).await;
    bench.refuse("running without a start", with(|r| (r.status, r.pending_reason) = (RunStatus::Running, None))).await;
    bench.refuse("a priority of 4", with(|r| r.priority = 4)).await;
    let failed = with(|r| (r.status, r.pending_reason, r.finished_at) = (RunStatus::Failed, None, Some(samples::at(0))));
    bench.refuse("a failure without a code", failed).await;

    let step = |change: fn(&mut hopyard_contract::run::StepState)| {
        let mut step = bench.step("a");
        change(&mut step);
        samples::new_run(&open, &[step])
    };
    bench.refuse("a step that runs without a start", step(|s| s.status = StepStatus::Running)).await;
    bench.refuse("a step that ended without a time", step(|s| s.status = StepStatus::Completed)).await;
    bench.refuse("a step that is skipped without a time", step(|s| s.status = StepStatus::Skipped)).await;
    let claimable = step(|s| (s.status, s.started_at, s.claimable_at) = (StepStatus::Running, Some(samples::at(0)), Some(samples::at(0))));
    bench.refuse("a claimable step that runs", claimable).await;

    let attempt = |change: fn(&mut hopyard_contract::run::Attempt)| {
        let mut attempt = samples::leased("a", 1, Uuid::now_v7());
        change(&mut attempt);
        RunWrite { attempts: vec![attempt], ..samples::new_run(&open, &[bench.step("a")]) }
    };
    bench.refuse("an attempt that runs without a start", attempt(|a| a.status = AttemptStatus::Running)).await;
    bench.refuse("an attempt that ended without a time", attempt(|a| a.status = AttemptStatus::Lost)).await;
    bench.refuse("attempt 0", attempt(|a| a.n = 0)).await;
    assert!(bench.load(&[open.id]).await.is_empty());
    let good = with(|r| {
        (r.status, r.pending_reason, r.finished_at, r.failure_code) =
            (RunStatus::Failed, None, Some(samples::at(0)), Some(FailureCode::PlanError))
    });
    bench.put(good).await.unwrap();
}

pub(super) async fn an_unknown_run_cannot_change(bench: Bench) {
    bench.refuse("a change of an unknown run", samples::change(&bench.run())).await;
}

pub(super) async fn an_ended_attempt_keeps_its_status(bench: Bench) {
    let run = bench.run();
    let mut attempt = samples::full_attempt("a", 1);
    attempt.status = AttemptStatus::Lost;
    bench.put(RunWrite { attempts: vec![attempt.clone()], ..samples::new_run(&run, &[bench.step("a")]) }).await.unwrap();
    let mut back = attempt.clone();
    (back.status, back.finished_at) = (AttemptStatus::Running, None);
    bench.refuse("a lost attempt that runs again", RunWrite { attempts: vec![back], ..samples::change(&run) }).await;
    let mut other = attempt.clone();
    other.status = AttemptStatus::Completed;
    bench.refuse("a lost attempt that completes", RunWrite { attempts: vec![other], ..samples::change(&run) }).await;
    attempt.usage = samples::usage(500);
    bench.put(RunWrite { attempts: vec![attempt.clone()], ..samples::change(&run) }).await.unwrap();
    assert_eq!(bench.load(&[run.id]).await[0].attempts, [attempt], "its money may grow");
}
