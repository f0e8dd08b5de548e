//! `hopyard audit` on a real stack: what is sound is called sound, and whatever is planted is found with its id.

use std::path::Path;
use std::process::Output;

use chrono::{TimeDelta, Utc};
use hopyard_contract::run::{Run, RunState, WorkspaceStatus};
use hopyard_contract::submit::{Receipt, Verdict};
use hopyard_contract::{Name, RunId};
use hopyard_store::Store;
use hopyard_store::runs::{KeyRow, RunWrite, Writes};
use serde_json::{Value, json};

use crate::harness::api::{on_repo, shell, steps};
use crate::harness::programs::run_beside;
use crate::harness::wait::{eventually, holds};
use crate::harness::{Engine, Harness, Setup};

/// Where an audit looks.
struct Places {
    store: String,
    bus: String,
    blobs: String,
}

impl Places {
    fn of(harness: &Harness) -> Self {
        Self { store: harness.store_url.clone(), bus: harness.nats.url(), blobs: harness.dir().join("blobs").display().to_string() }
    }
}

/// Audits and returns how it ended and what it said.
async fn audit(harness: &Harness, places: &Places, further: &[&str]) -> (Option<i32>, Value) {
    let (program, env) = harness.client();
    let args = ["audit", "--json", "--store", &places.store, "--nats-url", &places.bus, "--blobs", &places.blobs];
    let args = args.into_iter().chain(further.iter().copied()).map(str::to_owned).collect();
    let Output { status, stdout, stderr } = run_beside(program, args, harness.dir().to_owned(), env).await;
    let said = serde_json::from_slice(&stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&stderr)));
    (status.code(), said)
}

fn check<'a>(said: &'a Value, name: &str) -> &'a Value {
    said["checks"].as_array().unwrap().iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("{name} is missing: {said:#}"))
}

/// Ids that a check has found.
fn ids(said: &Value, name: &str) -> Vec<String> {
    check(said, name)["shown"].as_array().unwrap().iter().filter_map(|s| s["id"].as_str()).map(str::to_owned).collect()
}

/// Runs of every kind of ending, by every door.
async fn mixed(harness: &mut Harness) -> Vec<String> {
    let repo = harness.repo(&[&[("a.txt", "1\n")]]);
    let work = on_repo(&repo, json!([{ "id": "a", "shell": "echo 2 > a.txt" }, { "id": "b", "needs": ["a"], "shell": "cat a.txt" }]));
    let retried = steps(json!([{ "id": "a", "shell": "exit 1", "retry": { "max_attempts": 2, "backoff": { "initial": "1ms" } } }]));
    let mut runs = Vec::new();
    for request in [work, retried, shell("echo done")] {
        runs.push(harness.submit(request).await);
    }
    let long = harness.submit(shell("sleep 600")).await;
    harness.wait_running(&long, "main").await;
    harness.cancel(&long, Value::Null).await.expect(202);
    runs.push(long);
    let mut bus = harness.bus().await;
    bus.subscribe("hopyard.receipt.default.*").await;
    for _ in 0..2 {
        let body = shell("true").to_string();
        bus.store("hopyard.cmd.submit.default", &[("Hopyard-Idempotency-Key", "once")], body.as_bytes()).await;
        let receipt = bus.next_on(|s| s.starts_with("hopyard.receipt.")).await.json();
        runs.push(receipt["items"][0]["run_id"].as_str().unwrap().to_owned());
    }
    bus.store("hopyard.cmd.submit.default", &[], b"{ no json").await;
    for run in &runs {
        harness.wait_final(run).await;
    }
    runs
}

/// Covers X2: at work and at rest, on both engines, with runs of every ending and a dead letter.
async fn a_sound_stack_is_called_sound(store: Engine) {
    let mut harness = Harness::start(Setup { metrics: true, ..Setup::on(store) }).await;
    let places = Places::of(&harness);
    let waiting = harness.submit(shell("sleep 600")).await;
    harness.wait_running(&waiting, "main").await;
    mixed(&mut harness).await;
    let (code, said) = audit(&harness, &places, &["--since", "1h"]).await;
    assert_eq!((code, &said["violations"]), (Some(0), &json!(0)), "{said:#}");
    assert_eq!(check(&said, "disk_owned")["state"], "skipped", "nobody named a directory");
    harness.cancel(&waiting, json!({ "force": true })).await.expect(202);
    harness.wait_final(&waiting).await;

    let host = harness.hosts()[0].display().to_string();
    let (harness_ref, places_ref, host_ref) = (&harness, &places, host.as_str());
    let said = eventually("nothing is left over", || async move {
        let (code, said) = audit(harness_ref, places_ref, &["--quiesced", "--deep", "--data-dir", host_ref]).await;
        holds(code == Some(0), format!("{said:#}")).map(|()| said)
    })
    .await;
    assert_eq!(said["skipped"], 0, "{said:#}");
    assert!(check(&said, "intake_dense")["looked_at"].as_u64() >= Some(3), "{said:#}");
    assert!(check(&said, "legal_history")["looked_at"].as_u64() >= Some(6), "{said:#}");
    assert!(check(&said, "blobs_kept")["looked_at"].as_u64() >= Some(4), "{said:#}");
    harness.close().await;
}

/// Covers X2 on the embedded engine.
#[tokio::test]
async fn a_sound_stack_is_called_sound_on_sqlite() {
    a_sound_stack_is_called_sound(Engine::Sqlite).await;
}

/// Covers X2 on PostgreSQL.
#[tokio::test]
async fn a_sound_stack_is_called_sound_on_postgresql() {
    a_sound_stack_is_called_sound(Engine::Postgres).await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Changes the copy of a store, past all decisions.
async fn plant(store: &str, writes: Writes) {
    let runs = Store::open(store).await.unwrap().runs().await.unwrap();
    let mut tx = runs.begin().await.unwrap();
    tx.write(&writes).await.unwrap();
    tx.commit().await.unwrap();
}

fn change(run: Run) -> RunWrite {
    RunWrite { new: false, run, steps: Vec::new(), attempts: Vec::new(), events: Vec::new(), timer: None }
}

/// Covers X2: one corruption after another in a copy of the store; each is found with its id, and the audit ends with 1.
#[tokio::test]
async fn whatever_is_planted_is_found_with_its_id() {
    let mut harness = Harness::start(Setup::default()).await;
    let repo = harness.repo(&[&[("a.txt", "1\n")]]);
    let work = |script: &str| on_repo(&repo, json!([{ "id": "main", "shell": script }]));
    let sound = harness.finish(work("echo 2 > a.txt")).await;
    let run: RunId = sound["id"].as_str().unwrap().parse().unwrap();
    let open = harness.submit(work("sleep 600")).await;
    harness.wait_running(&open, "main").await;
    let dir = harness.dir().to_owned();
    copy(&dir.join("store"), &dir.join("copied"));
    copy(&dir.join("blobs"), &dir.join("copied-blobs"));
    let mut places = Places::of(&harness);
    (places.store, places.blobs) = (format!("sqlite:{}", dir.join("copied").display()), dir.join("copied-blobs").display().to_string());
    let (code, said) = audit(&harness, &places, &[]).await;
    assert_eq!(code, Some(0), "the copy is sound: {said:#}");

    let namespace = Name::default_namespace();
    let reader = Store::open(&places.store).await.unwrap().reader();
    let live: RunState = reader.run(&namespace, open.parse().unwrap()).await.unwrap().unwrap();
    let ghost = RunId::mint();
    let mut row = reader.workspaces(&namespace, Some(WorkspaceStatus::Active), 10).await.unwrap().remove(0);
    (row.id, row.run_id) = (format!("{run}-g7"), run);
    let mut spent = live.run.clone();
    spent.usage.turns = 5;
    let mut taken = live.attempts[0].clone();
    (taken.n, taken.lease_until) = (2, Utc::now() - TimeDelta::minutes(5));
    let receipt = Receipt {
        v: 1,
        id: "7".to_owned(),
        seq: Some(7),
        namespace: namespace.clone(),
        received_at: Utc::now(),
        items: vec![Verdict::accepted(ghost)],
        cancel: false,
    };
    // A cancel of a run that never came is kept as such, and no promise.
    let of_a_cancel =
        Receipt { id: "8".to_owned(), seq: Some(8), items: vec![Verdict::accepted(RunId::mint())], cancel: true, ..receipt.clone() };
    plant(
        &places.store,
        Writes {
            runs: vec![RunWrite { attempts: vec![taken], timer: Some(Some(Utc::now() - TimeDelta::minutes(9))), ..change(spent) }],
            keys: vec![(namespace.clone(), "k".to_owned(), KeyRow { run: ghost, request_hash: "h".to_owned() })],
            receipts: vec![(receipt, 1), (of_a_cancel, 2)],
            workspaces: vec![row.clone()],
            ..Writes::default()
        },
    )
    .await;
    // Settled on the bus, and the copy of the store knows nothing of it.
    let mut bus = harness.bus().await;
    bus.subscribe("hopyard.receipt.default.*").await;
    let lost = bus.store("hopyard.cmd.submit.default", &[], shell("true").to_string().as_bytes()).await;
    let told = bus.next_on(|s| s.starts_with("hopyard.receipt.")).await.json();
    harness.wait_final(told["items"][0]["run_id"].as_str().unwrap()).await;
    eventually("the message is settled", || {
        let harness = &harness;
        async move { holds(harness.bus().await.unsettled("HOPYARD_CMD", "ingest").await == Ok(0), "not yet") }
    })
    .await;
    // One blob is gone, another is not what its name says.
    let patch = sound["result"]["patch"]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
    let bundle = sound["result"]["bundle"]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
    let file = |hex: &str| dir.join("copied-blobs").join(&hex[..2]).join(&hex[2..]);
    std::fs::remove_file(file(&patch)).unwrap();
    let mut bytes = std::fs::read(file(&bundle)).unwrap();
    bytes[0] ^= 1;
    std::fs::write(file(&bundle), bytes).unwrap();
    // A disk on which somebody has left things.
    let disk = dir.join("stray");
    let (workspace, spool) = (format!("{ghost}-g1"), format!("{ghost}.main.1"));
    std::fs::create_dir_all(disk.join("workspaces/executor-1").join(&workspace)).unwrap();
    std::fs::create_dir_all(disk.join("spool/executor-1").join(&spool)).unwrap();

    let (code, said) = audit(&harness, &places, &["--deep", "--data-dir", disk.to_str().unwrap()]).await;
    assert_eq!(code, Some(1), "{said:#}");
    for (name, id) in [
        ("usage_adds_up", open.clone()),
        ("attempts_numbered", format!("{open}.main")),
        ("one_live_attempt", format!("{open}.main")),
        ("legal_history", format!("{open}.main.2")),
        ("live_lease", format!("{open}.main.2")),
        ("woken", open.clone()),
        ("due_kept", open.clone()),
        ("keys_kept", ghost.to_string()),
        ("verdicts_kept", ghost.to_string()),
        ("inventory_owned", row.id.clone()),
        ("intake_dense", lost.to_string()),
        ("blobs_kept", run.to_string()),
        ("disk_owned", workspace),
        ("disk_owned", spool),
    ] {
        assert!(ids(&said, name).contains(&id), "{name} has not found {id}: {:#}", check(&said, name));
    }
    assert_eq!(check(&said, "blobs_kept")["violations"], 2, "{said:#}");
    assert_eq!(check(&said, "events_dense")["state"], "ok", "{said:#}");
    harness.cancel(&open, json!({ "force": true })).await.expect(202);
    harness.wait_final(&open).await;
    harness.close().await;
}

/// What does not answer is said, its checks are skipped and not ok, and the exit code tells.
#[tokio::test]
async fn what_cannot_be_asked_is_never_called_sound() {
    let harness = Harness::start(Setup { executors: 0, janitors: false, ..Setup::default() }).await;
    let places = Places::of(&harness);
    let (code, said) = audit(&harness, &Places { bus: "nats://127.0.0.1:1".to_owned(), ..Places::of(&harness) }, &[]).await;
    assert_eq!((code, &check(&said, "intake_dense")["state"]), (Some(5), &json!("skipped")), "{said:#}");
    assert_eq!(check(&said, "events_dense")["state"], "ok", "{said:#}");
    let nowhere = harness.dir().join("nowhere");
    let (code, said) = audit(&harness, &Places { store: format!("sqlite:{}", nowhere.display()), ..places }, &[]).await;
    assert_eq!((code, &said["ok"]), (Some(5), &json!(0)), "{said:#}");
    assert!(!nowhere.exists(), "an audit makes nothing");
    harness.close().await;
}

/// Covers C7: poison at the head of both work queues is set aside with its reason, and what comes behind it flows.
#[tokio::test]
async fn poison_at_the_head_holds_nothing_up() {
    let harness = Harness::start(Setup::default()).await;
    let mut bus = harness.bus().await;
    let big = vec![b'x'; 700 * 1024];
    let other = RunId::mint();
    let foreign = json!({ "v": 1, "from": "executor-9", "reports": [{ "finished": {
        "attempt": { "run": other, "step": "main", "n": 1 }, "token": "00000000-0000-4000-8000-000000000000",
        "outcome": "completed", "finished_at": "2026-05-01T12:00:00.000000Z", "usage": { "cost_microusd": 0, "tokens": {}, "turns": 0, "tool_calls": 0 }, "log_bytes": 0 } }] });
    let newer = json!({ "v": 2, "from": "executor-9", "reports": [] }).to_string();
    for (subject, body) in [
        ("hopyard.cmd.submit.default", &b"{ no json"[..]),
        ("hopyard.cmd.submit.default", b"\xff\xfe\x00"),
        ("hopyard.cmd.submit.default", b"[1]"),
        ("hopyard.cmd.submit.default", &big),
        ("hopyard.result.executor-9", b"{ no json"),
        ("hopyard.result.executor-9", b"\xff\xfe\x00"),
        ("hopyard.result.executor-9", b"[1]"),
        ("hopyard.result.executor-9", &big),
        ("hopyard.result.executor-9", newer.as_bytes()),
        ("hopyard.result.executor-9", foreign.to_string().as_bytes()),
    ] {
        bus.store(subject, &[("Hopyard-Test", "yes")], body).await;
    }
    // A thousand behind it, in bodies of 500.
    let runs: Vec<Value> = (0..500).map(|_| json!({ "workflow": "nothing" })).collect();
    harness
        .put_workflow(
            "nothing",
            "version: 1\nname: nothing\nworkspace: {mode: none}\nsteps:\n  - {id: a, if: \"'a' == 'b'\", shell: \"true\"}\n",
        )
        .await
        .expect(201);
    bus.subscribe("hopyard.receipt.default.*").await;
    for _ in 0..2 {
        bus.store("hopyard.cmd.submit.default", &[], json!({ "runs": runs }).to_string().as_bytes()).await;
    }
    let mut accepted = 0;
    while accepted < 1000 {
        let receipt = bus.next_on(|s| s.starts_with("hopyard.receipt.")).await.json();
        accepted += receipt["items"].as_array().unwrap().iter().filter(|i| i["status"] == "accepted").count();
    }
    harness.finish(shell("true")).await;
    let letters = eventually("all poison is set aside", || async {
        let letters = harness.get("/api/v1/dead-letters?limit=200").await["items"].as_array().cloned().unwrap_or_default();
        holds(letters.len() == 9, format!("{} letters", letters.len())).map(|()| letters)
    })
    .await;
    for letter in &letters {
        assert!(letter["headers"]["Hopyard-Test"] == "yes" && letter["first_at"].is_string() && letter["attempts"].is_u64(), "{letter}");
    }
    assert!(letters.iter().any(|l| l["code"] == "unknown_version"), "{letters:?}");
    let (code, said) = audit(&harness, &Places::of(&harness), &[]).await;
    assert_eq!(code, Some(0), "{said:#}");
    harness.close().await;
}
