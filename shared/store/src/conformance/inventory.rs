//! Inventory: workspaces, sessions and executors.

use chrono::TimeDelta;
use hopyard_contract::Name;
use hopyard_contract::repository::RepoSpec;
use hopyard_contract::run::{Run, WorkspaceRow, WorkspaceStatus};

use super::{Bench, samples};
use crate::runs::{ExecutorRow, Writes};

async fn put(bench: &Bench, workspaces: &[WorkspaceRow]) {
    bench.write(Writes { workspaces: workspaces.to_vec(), ..Writes::default() }).await.unwrap();
}

fn session_run(bench: &Bench, repo: Option<&str>) -> Run {
    let mut run = bench.run();
    run.session = Some(Name::literal("nightly"));
    run.repo = repo.map(|url| RepoSpec { url: url.to_owned(), reference: None });
    run
}

pub(super) async fn sessions_find_their_workspace(bench: Bench) {
    let session = Name::literal("nightly");
    let repo = "https://example.org/a.git";
    let row = |repo: Option<&str>, status, ms| samples::workspace(&session_run(&bench, repo), 1, status, samples::at(ms));
    let old = row(Some(repo), WorkspaceStatus::Kept, 1);
    let mut new = row(Some(repo), WorkspaceStatus::Kept, 2);
    let gone = row(Some(repo), WorkspaceStatus::Removed, 3);
    let other = row(Some("https://example.org/b.git"), WorkspaceStatus::Active, 4);
    let scratch = row(None, WorkspaceStatus::Kept, 5);
    put(&bench, &[old.clone(), new.clone(), gone, other.clone(), scratch.clone()]).await;
    let find = async |repo: Option<&str>| within_tx!(bench, session_workspace(&bench.namespace, repo, &session));
    assert_eq!(find(Some(repo)).await, Some(new.clone()), "the newest that is still there");
    assert_eq!(find(Some("https://example.org/b.git")).await, Some(other));
    assert_eq!(find(None).await, Some(scratch));
    assert_eq!(find(Some("https://example.org/c.git")).await, None);
    (new.status, new.removed_at, new.bytes) = (WorkspaceStatus::Removed, Some(samples::at(6)), Some(9));
    put(&bench, std::slice::from_ref(&new)).await;
    assert_eq!(find(Some(repo)).await, Some(old.clone()));
    let mut tx = bench.runs.begin().await.unwrap();
    let mut found = tx.workspaces(&[new.id.clone(), "none".to_owned(), old.id.clone()]).await.unwrap();
    found.sort_by_key(|w| w.created_at);
    assert_eq!(found, [old, new]);
    assert_eq!(tx.session_workspace(&"another".parse().unwrap(), Some(repo), &session).await.unwrap(), None);
}

pub(super) async fn workspaces_are_listed(bench: Bench) {
    let host: Name = bench.pool.clone();
    let row = |generation, status, ms| {
        let mut row = samples::workspace(&bench.run(), generation, status, samples::at(ms));
        row.host = host.clone();
        row
    };
    let first = row(1, WorkspaceStatus::Reclaimable, 1);
    let second = row(2, WorkspaceStatus::Reclaimable, 2);
    let active = row(3, WorkspaceStatus::Active, 3);
    let removed = row(4, WorkspaceStatus::Removed, 4);
    put(&bench, &[second.clone(), removed.clone(), active.clone(), first.clone()]).await;
    let of_host = async |status, limit| bench.runs.workspaces(Some(&host), status, limit).await.unwrap();
    assert_eq!(of_host(WorkspaceStatus::Reclaimable, 10).await, [first.clone(), second.clone()], "oldest first");
    assert_eq!(of_host(WorkspaceStatus::Reclaimable, 1).await, std::slice::from_ref(&first));
    assert_eq!(of_host(WorkspaceStatus::Kept, 10).await, []);
    let everywhere = bench.runs.workspaces(None, WorkspaceStatus::Active, 1_000_000).await.unwrap();
    assert!(everywhere.contains(&active) && everywhere.iter().all(|w| w.status == WorkspaceStatus::Active));
    let read = async |status, limit| bench.reader.workspaces(&bench.namespace, status, limit).await.unwrap();
    assert_eq!(read(None, 10).await, [active.clone(), second.clone(), first], "newest first, without those removed");
    assert_eq!(read(None, 2).await, [active, second]);
    assert_eq!(read(Some(WorkspaceStatus::Removed), 10).await, [removed]);
}

pub(super) async fn executors_are_known(bench: Bench) {
    let row = ExecutorRow {
        id: bench.pool.clone(),
        host: Name::literal("host-1"),
        pool: bench.pool.clone(),
        slots: 4,
        version: "0.1.0".to_owned(),
        draining: false,
        seen_at: samples::at(0),
    };
    bench.write(Writes { executors: vec![row.clone()], ..Writes::default() }).await.unwrap();
    let drained = ExecutorRow { draining: true, slots: 8, seen_at: samples::at(0) + TimeDelta::microseconds(1), ..row };
    bench.write(Writes { executors: vec![drained.clone()], ..Writes::default() }).await.unwrap();
    let found: Vec<ExecutorRow> = bench.reader.executors().await.unwrap().into_iter().filter(|e| e.id == bench.pool).collect();
    assert_eq!(found, [drained]);
}

pub(super) async fn bound_runs_are_found(bench: Bench) {
    let executor = bench.pool.clone();
    let mut open = bench.run();
    (open.generation, open.executor) = (2, Some(executor.clone()));
    let ended = samples::completed(&open_again(&bench, &executor));
    let mut moved = open_again(&bench, &executor);
    moved.generation = 3;
    let bound = |run: &Run, generation, status| {
        let mut row = samples::workspace(run, generation, status, samples::at(1));
        row.executor = executor.clone();
        row
    };
    for run in [&open, &ended, &moved] {
        bench.accept(run, &[]).await;
    }
    let rows = [
        bound(&open, 2, WorkspaceStatus::Active),
        bound(&ended, 2, WorkspaceStatus::Active),
        bound(&moved, 2, WorkspaceStatus::Reclaimable),
    ];
    put(&bench, &rows).await;
    assert_eq!(within_tx!(bench, bound_runs(&executor)), [open.id]);
}

fn open_again(bench: &Bench, executor: &Name) -> Run {
    let mut run = bench.run();
    (run.generation, run.executor) = (2, Some(executor.clone()));
    run
}
