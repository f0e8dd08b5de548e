//! Readers: lists, pages, ranges, sums and what a waiting run shows.

use chrono::TimeDelta;
use hopyard_contract::repository::RepoSpec;
use hopyard_contract::run::Run;
use hopyard_contract::status::{FailureCode, PendingReason, RunStatus};
use hopyard_contract::{Name, RunId, Usage};

use super::{Bench, samples};
use crate::read::{RunFilter, UsageBy, UsageRow};
use crate::runs::RunWrite;

fn filter() -> RunFilter {
    RunFilter { limit: 100, ..RunFilter::default() }
}

async fn list(bench: &Bench, filter: RunFilter) -> Vec<RunId> {
    bench.reader.runs(&bench.namespace, &filter).await.unwrap().into_iter().map(|r| r.id).collect()
}

async fn accepted(bench: &Bench, change: impl FnOnce(&mut Run)) -> Run {
    let mut run = bench.run();
    change(&mut run);
    bench.accept(&run, &[]).await;
    run
}

pub(super) async fn filters_select(bench: Bench) {
    let plain = accepted(&bench, |_| {}).await;
    let done = accepted(&bench, |r| *r = samples::completed(r)).await;
    let failed = accepted(&bench, |r| {
        *r = samples::completed(r);
        (r.status, r.failure_code) = (RunStatus::Failed, Some(FailureCode::ExitCode));
        r.workflow = Name::literal("other");
    })
    .await;
    let rich = accepted(&bench, |r| {
        r.workflow = Name::literal("other");
        r.repo = Some(RepoSpec { url: "https://example.org/a.git".to_owned(), reference: None });
        r.session = Some(Name::literal("nightly"));
        r.labels = [("team.x\"y".to_owned(), "a".to_owned()), ("env".to_owned(), "prod".to_owned())].into();
    })
    .await;
    assert_eq!(list(&bench, filter()).await, [rich.id, failed.id, done.id, plain.id], "newest first");
    assert_eq!(bench.reader.runs(&bench.namespace, &filter()).await.unwrap()[0], rich, "whole runs");
    assert_eq!(list(&bench, RunFilter { statuses: vec![RunStatus::Pending], ..filter() }).await, [rich.id, plain.id]);
    let two = vec![RunStatus::Failed, RunStatus::Pending, RunStatus::Failed];
    assert_eq!(list(&bench, RunFilter { statuses: two.clone(), ..filter() }).await, [rich.id, failed.id, plain.id]);
    assert_eq!(list(&bench, RunFilter { statuses: two.clone(), limit: 2, ..filter() }).await, [rich.id, failed.id]);
    let other = Some(Name::literal("other"));
    assert_eq!(list(&bench, RunFilter { workflow: other.clone(), ..filter() }).await, [rich.id, failed.id]);
    assert_eq!(list(&bench, RunFilter { workflow: other.clone(), statuses: vec![RunStatus::Failed], ..filter() }).await, [failed.id]);
    let ended = vec![RunStatus::Failed, RunStatus::Completed];
    assert_eq!(list(&bench, RunFilter { workflow: other, statuses: ended, ..filter() }).await, [failed.id]);
    let repo = Some("https://example.org/a.git".to_owned());
    assert_eq!(list(&bench, RunFilter { repo: repo.clone(), ..filter() }).await, [rich.id]);
    assert_eq!(list(&bench, RunFilter { repo, statuses: vec![RunStatus::Completed], ..filter() }).await, []);
    assert_eq!(list(&bench, RunFilter { session: Some(Name::literal("nightly")), ..filter() }).await, [rich.id]);
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(list(&bench, RunFilter { labels: vec![label("team.x\"y", "a"), label("env", "prod")], ..filter() }).await, [rich.id]);
    assert_eq!(list(&bench, RunFilter { labels: vec![label("team.x\"y", "a"), label("env", "dev")], ..filter() }).await, []);
    assert!(bench.reader.runs(&"another".parse().unwrap(), &filter()).await.unwrap().is_empty());
}

pub(super) async fn pages_do_not_overlap(bench: Bench) {
    for i in 0..7 {
        accepted(&bench, |r| r.workflow = Name::literal(if i % 2 == 0 { "even" } else { "odd" })).await;
    }
    for statuses in [vec![], vec![RunStatus::Pending, RunStatus::Running]] {
        let whole = list(&bench, RunFilter { statuses: statuses.clone(), ..filter() }).await;
        let mut seen = Vec::new();
        let mut below = None;
        loop {
            let page = list(&bench, RunFilter { below, statuses: statuses.clone(), limit: 3, ..RunFilter::default() }).await;
            assert!(page.len() <= 3);
            let Some(last) = page.last() else { break };
            below = Some(*last);
            seen.extend(page);
            // A run that arrives between two pages is above the cursor and moves nothing.
            accepted(&bench, |_| {}).await;
        }
        assert_eq!(seen, whole);
    }
}

pub(super) async fn time_ranges_are_exact(bench: Bench) {
    let base = samples::id_at(samples::at(0)).unix_millis();
    let at = |ms: i64| chrono::DateTime::from_timestamp_millis(base + ms).unwrap();
    let mut ids = Vec::new();
    for ms in [0, 1, 2, 3] {
        let run = samples::created(bench.run(), at(ms));
        bench.accept(&run, &[]).await;
        ids.push(run.id);
    }
    let range = async |from: Option<i64>, to: Option<i64>, micros: i64| {
        let shift = |ms: i64| at(ms) + TimeDelta::microseconds(micros);
        let mut found = list(&bench, RunFilter { created_after: from.map(shift), created_before: to.map(shift), ..filter() }).await;
        found.reverse();
        found
    };
    assert_eq!(range(Some(1), None, 0).await, ids[1..], "from an instant on");
    assert_eq!(range(None, Some(2), 0).await, ids[..2], "before an instant");
    assert_eq!(range(Some(1), Some(3), 0).await, ids[1..3]);
    assert_eq!(range(Some(1), Some(3), 500).await, ids[2..], "half a millisecond moves both ends");
    assert_eq!(range(Some(2), Some(1), 0).await, []);
}

pub(super) async fn usage_is_summed(bench: Bench) {
    let from = chrono::DateTime::from_timestamp_millis(samples::at(0).timestamp_millis()).unwrap();
    let ms = |n: i64| from + TimeDelta::milliseconds(n);
    let rows = [
        (0, "alpha", samples::usage(1)),
        (1, "alpha", samples::usage(2)),
        (1, "beta", samples::usage(5)),
        (2, "beta", Usage { cost_microusd: None, ..samples::usage(6) }),
        (9, "alpha", samples::usage(1000)),
    ];
    for (offset, workflow, usage) in rows {
        let mut run = samples::created(bench.run(), ms(offset));
        (run.workflow, run.usage) = (Name::literal(workflow), usage);
        bench.accept(&run, &[]).await;
    }
    let mut sums = bench.reader.usage(&bench.namespace, ms(0), ms(9), UsageBy::Workflow).await.unwrap();
    sums.sort_by(|a, b| a.name.cmp(&b.name));
    let alpha = UsageRow { name: "alpha".to_owned(), runs: 2, usage: samples::usage(1).plus(&samples::usage(2)) };
    let beta = samples::usage(5).plus(&Usage { cost_microusd: None, ..samples::usage(6) });
    assert_eq!(beta.cost_microusd, None);
    assert_eq!(sums, [alpha, UsageRow { name: "beta".to_owned(), runs: 2, usage: beta }], "one unknown cost makes the sum unknown");
    assert!(bench.reader.usage(&bench.namespace, ms(3), ms(9), UsageBy::Workflow).await.unwrap().is_empty());
    let mut run = samples::created(bench.run(), ms(3));
    (run.repo, run.usage) = (samples::full_run(&bench.namespace, &bench.pool, &bench.plan_hash).repo, samples::usage(7));
    bench.accept(&run, &[]).await;
    let url = run.repo.clone().unwrap().url;
    let sums = bench.reader.usage(&bench.namespace, ms(0), ms(9), UsageBy::Repository).await.unwrap();
    let names: Vec<(&str, u64)> = sums.iter().map(|row| (row.name.as_str(), row.runs)).collect();
    assert_eq!(names, [("", 4), (url.as_str(), 1)], "runs without a repository are summed up too");
    assert_eq!(sums[1].usage, samples::usage(7));
}

pub(super) async fn events_are_read_from_a_number(bench: Bench) {
    let run = bench.run();
    let page = |range: std::ops::RangeInclusive<u64>| range.map(|seq| samples::event(&run, seq, samples::at(0))).collect::<Vec<_>>();
    bench.put(RunWrite { events: page(1..=3), ..samples::new_run(&run, &[]) }).await.unwrap();
    for range in [4..=4, 5..=8] {
        bench.put(RunWrite { events: page(range), ..samples::change(&run) }).await.unwrap();
    }
    let seqs = async |after: u64, limit: u32| {
        bench.reader.events(&bench.namespace, run.id, after, limit).await.unwrap().iter().map(|e| e.seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(0, 100).await, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(seqs(2, 3).await, [3, 4, 5], "from the middle of a page into the next ones");
    assert_eq!(seqs(6, 100).await, [7, 8]);
    assert_eq!(seqs(8, 100).await, [0; 0]);
}

pub(super) async fn a_taken_slot_is_shown(bench: Bench) {
    let key = format!("{}/k", bench.namespace);
    let holder = accepted(&bench, |r| r.slots = vec![samples::slot(&key, 1, true)]).await;
    let waiter = accepted(&bench, |r| r.slots = vec![samples::slot(&key, 1, false)]).await;
    let scheduled = accepted(&bench, |r| {
        r.slots = vec![samples::slot(&key, 1, false)];
        r.pending_reason = Some(PendingReason::AwaitingSchedule);
    })
    .await;
    let reason = async |id: RunId| bench.reader.run(&bench.namespace, id).await.unwrap().unwrap().run.pending_reason;
    assert_eq!(reason(waiter.id).await, Some(PendingReason::AwaitingSlot));
    assert_eq!(reason(holder.id).await, Some(PendingReason::AwaitingExecutor));
    assert_eq!(reason(scheduled.id).await, Some(PendingReason::AwaitingSchedule), "something else comes first");
    assert_eq!(bench.load(&[waiter.id]).await[0].run, waiter, "only readers see it");
    bench.put(samples::change(&samples::completed(&holder))).await.unwrap();
    assert_eq!(reason(waiter.id).await, Some(PendingReason::AwaitingExecutor));
}

pub(super) async fn live_runs_are_counted(bench: Bench) {
    for _ in 0..2 {
        accepted(&bench, |_| {}).await;
    }
    accepted(&bench, |r| *r = samples::running(r)).await;
    accepted(&bench, |r| *r = samples::completed(r)).await;
    let mut counts = bench.reader.live_counts().await.unwrap();
    counts.retain(|(namespace, ..)| *namespace == bench.namespace);
    counts.sort();
    let ours = |status, count| (bench.namespace.clone(), status, count);
    assert_eq!(counts, [ours(RunStatus::Pending, 2), ours(RunStatus::Running, 1)]);
}
