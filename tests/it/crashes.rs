//! Sudden ends: whatever dies in the middle of a run, nothing is lost, nothing counts twice, and no step ever has two processes.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::api::{on_repo, step_of, steps};
use crate::harness::leftovers::step_processes;
use crate::harness::wait::{eventually, holds, within};
use crate::harness::{Engine, Harness, Setup};

/// A script that writes down each attempt, notices a second process of its step, and waits for a gate.
fn watched(dir: &Path, gate: &str) -> String {
    format!(
        "exec 9> {0}/lock.$HOPYARD_RUN_ID.$HOPYARD_STEP\nflock -n 9 || echo $HOPYARD_ATTEMPT >> {0}/overlaps\necho $HOPYARD_ATTEMPT >> {0}/attempts\n\
         echo began\nuntil [ -e {0}/{gate} ]; do sleep 0.05; done\necho done=$HOPYARD_ATTEMPT >> $HOPYARD_OUTPUT",
        dir.display()
    )
}

fn chain(dir: &Path) -> Value {
    steps(json!([
        { "id": "one", "shell": watched(dir, "gate-one") },
        { "id": "two", "needs": ["one"], "shell": watched(dir, "gate-two") },
    ]))
}

fn open(dir: &Path, gate: &str) {
    std::fs::write(dir.join(gate), "").unwrap();
}

/// Waits until a step says that it has begun.
async fn begun(harness: &Harness, run: &str, step: &str) {
    eventually(&format!("{step} begins"), || async {
        let state = harness.run(run).await;
        holds(step_of(&state, step)["status"] == "running", step_of(&state, step).to_string())
    })
    .await;
}

/// What has to be true after every crash: one end for each attempt that began, one completed attempt per step, no overlap.
async fn told_once(harness: &Harness, run: &str, attempts: &[(&str, usize)]) {
    let state = harness.wait_completed(run).await;
    let events = harness.events(run).await;
    let count = |kind: &str, step: &str| events.iter().filter(|e| e["type"] == kind && e["step"] == step).count();
    for (step, wanted) in attempts {
        assert_eq!(step_of(&state, step)["attempts"].as_array().map(Vec::len), Some(*wanted), "{step}: {state:#}");
        assert_eq!((count("attempt.completed", step), count("step.completed", step)), (1, 1), "{step}: {events:#?}");
        let began = count("attempt.running", step);
        let ended: usize =
            ["attempt.completed", "attempt.failed", "attempt.killed", "attempt.lost"].iter().map(|kind| count(kind, step)).sum();
        assert_eq!((began, ended), (*wanted, *wanted), "{step}: every attempt that began has one end");
    }
    assert_eq!(events.iter().filter(|e| e["type"] == "run.completed").count(), 1);
    let overlaps = std::fs::read_to_string(harness.dir().join("overlaps")).unwrap_or_default();
    assert_eq!(overlaps, "", "two processes of one step");
}

/// Covers C2, C16 and I1: the services that run no steps die and come back, and the step never notices.
#[tokio::test]
async fn a_run_survives_the_end_of_every_service_but_its_executor() {
    let mut harness = Harness::start(Setup { lease: "20s", renew: "1s", ..Setup::default() }).await;
    let dir = harness.dir().to_owned();
    let run = harness.submit(chain(&dir)).await;
    begun(&harness, &run, "one").await;
    for service in ["scheduler-1", "ingest-1", "janitor-1"] {
        harness.kill9(service).await;
        harness.start_service(service).await;
    }
    begun(&harness, &run, "one").await;
    open(&dir, "gate-one");
    begun(&harness, &run, "two").await;
    // The result is made while nobody can take it.
    harness.kill9("scheduler-1").await;
    open(&dir, "gate-two");
    eventually("the step ends", || async { holds(step_processes(&dir).is_empty(), format!("{:?}", step_processes(&dir))) }).await;
    harness.start_service("scheduler-1").await;
    told_once(&harness, &run, &[("one", 1), ("two", 1)]).await;
    harness.close().await;
}

/// Covers B3, I2: an executor dies; its step dies with it, is told lost, and is tried again when there is an executor.
#[tokio::test]
async fn a_run_survives_the_end_of_its_executor() {
    let mut harness = Harness::start(Setup::default()).await;
    let dir = harness.dir().to_owned();
    let run = harness.submit(chain(&dir)).await;
    begun(&harness, &run, "one").await;
    harness.kill9("executor-1").await;
    eventually("nothing of the step is left", || async { holds(step_processes(&dir).is_empty(), format!("{:?}", step_processes(&dir))) })
        .await;
    harness.start_service("executor-1").await;
    open(&dir, "gate-one");
    open(&dir, "gate-two");
    told_once(&harness, &run, &[("one", 2), ("two", 1)]).await;
    let state = harness.run(&run).await;
    assert_eq!(step_of(&state, "one")["attempts"][0]["status"], "lost", "{state:#}");
    harness.close().await;
}

/// Covers A6, B6, B12, D21: a fault of the executor itself ends the attempt with a code of its own, wherever it comes; the
/// process of the step is ended, its work is kept, and the executor goes on.
#[tokio::test]
async fn a_panic_ends_its_attempt_and_nothing_else() {
    let points = ["executor.workspace.made", "executor.spawned", "executor.started.sent", "executor.process.ended"];
    // Keeping the work of the first one panics as well.
    let armed = points.iter().chain(&["executor.snapshot.made"]).map(|point| format!("{point}=panic")).collect::<Vec<_>>().join(",");
    let mut harness = Harness::start(Setup { settings: vec![("FAILPOINTS", armed)], ..Setup::default() }).await;
    let dir = harness.dir().to_owned();
    let repo = harness.repo(&[&[("a", "1\n")]]);
    // A point acts at its first pass: every run comes as far as the next one.
    for point in points {
        let ends = point == "executor.process.ended";
        let script = format!("echo made > made\n{}", if ends { "" } else { "sleep 600" });
        let run = harness.submit(on_repo(&repo, json!([{ "id": "one", "shell": script }]))).await;
        let state = harness.wait_final(&run).await;
        let attempt = &step_of(&state, "one")["attempts"][0];
        assert_eq!((&state["status"], &state["failure_code"]), (&json!("failed"), &json!("engine_error")), "{point}: {state:#}");
        assert!(attempt["error"].as_str().is_some_and(|error| error.contains("panicked")), "{point}: {attempt:#}");
        if ends {
            assert_eq!(state["result"]["files"][0]["path"], "made", "{point}: {state:#}");
        }
        eventually("nothing of the step is left", || async {
            holds(step_processes(&dir).is_empty(), format!("{point}: {:?}", step_processes(&dir)))
        })
        .await;
    }
    let run = harness.submit(on_repo(&repo, json!([{ "id": "one", "shell": "true" }]))).await;
    harness.wait_completed(&run).await;
    harness.close().await;
}

/// A stopped executor leaves nothing running past its lease, and its late words change nothing; here its shims give up early.
#[tokio::test]
async fn a_frozen_executor_leaves_nothing_running() {
    let settings = vec![("FREEZE_LIMIT", "500ms".to_owned())];
    let mut harness = Harness::start(Setup { executors: 2, hosts: 2, settings, ..Setup::default() }).await;
    let dir = harness.dir().to_owned();
    let run = harness.submit(steps(json!([{ "id": "one", "shell": watched(&dir, "gate-one") }]))).await;
    begun(&harness, &run, "one").await;
    let first = step_of(&harness.run(&run).await, "one")["attempts"][0]["executor"].as_str().unwrap().to_owned();
    harness.freeze(&first);
    let attempt = format!("{run}.one.1");
    eventually("the lease ends the step", || async {
        let left: Vec<_> = step_processes(&dir).into_iter().filter(|p| p.ends_with(&attempt)).collect();
        holds(left.is_empty(), format!("{left:?}"))
    })
    .await;
    open(&dir, "gate-one");
    // The run is bound to its host until that is known to be silent.
    within(std::time::Duration::from_secs(60), "the run goes on elsewhere", || async {
        let state = harness.run(&run).await;
        holds(state["status"] == "completed", state["status"].to_string())
    })
    .await;
    let before = harness.run(&run).await;
    harness.thaw(&first);
    let next = harness.submit(steps(json!([{ "id": "one", "shell": "true" }]))).await;
    harness.wait_completed(&next).await;
    told_once(&harness, &run, &[("one", 2)]).await;
    assert_eq!(harness.run(&run).await, before, "what has ended stays as it is");
    harness.close().await;
}

/// The bus dies and comes back, first with what it had, then with nothing: the store knows what is to be done.
#[tokio::test]
async fn a_run_survives_the_loss_of_the_whole_bus() {
    let mut harness = Harness::start(Setup { lease: "20s", renew: "1s", metrics: true, ..Setup::default() }).await;
    let dir = harness.dir().to_owned();
    let run = harness.submit(chain(&dir)).await;
    begun(&harness, &run, "one").await;
    harness.nats.kill().await.unwrap();
    harness.nats.restart_same_port().await.unwrap();
    open(&dir, "gate-one");
    within(std::time::Duration::from_secs(60), "the next step begins", || async {
        let state = harness.run(&run).await;
        holds(step_of(&state, "two")["status"] == "running", step_of(&state, "two").to_string())
    })
    .await;
    harness.nats.kill().await.unwrap();
    harness.nats.wipe().await.unwrap();
    open(&dir, "gate-two");
    harness.nats.restart_same_port().await.unwrap();
    within(std::time::Duration::from_secs(60), "submissions are taken again", || async {
        let answer = harness.http("GET", "/health", Value::Null).await;
        holds(answer.status == 200, answer.text())
    })
    .await;
    told_once(&harness, &run, &[("one", 1), ("two", 1)]).await;
    let next = harness.submit(steps(json!([{ "id": "one", "shell": "true" }]))).await;
    harness.wait_completed(&next).await;
    harness.close().await;
}

/// Covers C3, C7: two schedulers and four executors share one store; some die in the middle, and every run ends once.
#[tokio::test]
async fn two_schedulers_and_four_executors_share_the_work() {
    let setup = Setup { schedulers: 2, executors: 4, slots: 4, ..Setup::on(Engine::Postgres) };
    let mut harness = Harness::start(setup).await;
    let dir = harness.dir().to_owned();
    let request =
        steps(json!([{ "id": "a", "shell": watched(&dir, "gate") }, { "id": "b", "needs": ["a"], "shell": watched(&dir, "gate") }]));
    let answer = harness.http("POST", "/api/v1/runs/batch", json!({ "runs": vec![request; 40] })).await.expect(200).json();
    let runs: Vec<String> = answer["items"].as_array().unwrap().iter().map(|i| i["run_id"].as_str().unwrap().to_owned()).collect();
    eventually("all slots are taken", || async {
        let running = harness.get("/api/v1/runs?status=running&limit=200").await["items"].as_array().map_or(0, Vec::len);
        holds(running == 16, format!("{running} of 16"))
    })
    .await;
    let before = std::time::Instant::now();
    harness.freeze("scheduler-1");
    let late = harness.submit(steps(json!([{ "id": "a", "shell": "true" }]))).await;
    assert!(before.elapsed().as_secs_f32() < 4.0, "a stopped scheduler of two costs a second: {:?}", before.elapsed());
    harness.thaw("scheduler-1");
    harness.kill9("scheduler-2").await;
    harness.kill9("executor-2").await;
    open(&dir, "gate");
    harness.start_service("scheduler-2").await;
    harness.start_service("executor-2").await;
    harness.wait_completed(&late).await;
    for run in &runs {
        let state = harness.wait_completed(run).await;
        for step in ["a", "b"] {
            let attempts = step_of(&state, step)["attempts"].as_array().unwrap();
            let completed = attempts.iter().filter(|a| a["status"] == "completed").count();
            let lost = attempts.iter().filter(|a| a["status"] == "lost").count();
            assert_eq!((completed, completed + lost), (1, attempts.len()), "{state:#}");
        }
    }
    assert_eq!(std::fs::read_to_string(dir.join("overlaps")).unwrap_or_default(), "", "two processes of one step");
    harness.close().await;
}

/// Covers H10, B6: a host is lost for good; the run goes on elsewhere from the last snapshot, in its next generation.
#[tokio::test]
async fn a_lost_host_costs_no_saved_work() {
    let mut harness = Harness::start(Setup { executors: 2, hosts: 2, ..Setup::default() }).await;
    let dir = harness.dir().to_owned();
    let repo = harness.repo(&[&[("a", "1\n")]]);
    let run = harness
        .submit(on_repo(
            &repo,
            json!([
                { "id": "make", "shell": "echo made > saved" },
                { "id": "use", "needs": ["make"], "shell": format!("{}\ncat saved", watched(&dir, "gate")) },
            ]),
        ))
        .await;
    begun(&harness, &run, "use").await;
    let first = harness.run(&run).await;
    let lost = first["executor"].as_str().unwrap().to_owned();
    assert_eq!(first["generation"], 1);
    harness.kill9(&lost).await;
    open(&dir, "gate");
    within(std::time::Duration::from_secs(90), "the run goes on elsewhere", || async {
        let state = harness.run(&run).await;
        holds(state["status"] == "completed", format!("{} {}", state["status"], state["pending_reason"]))
    })
    .await;
    told_once(&harness, &run, &[("make", 1), ("use", 2)]).await;
    let state = harness.run(&run).await;
    assert_eq!(state["generation"], 2, "{state:#}");
    assert_ne!(step_of(&state, "use")["attempts"][1]["executor"], lost);
    assert_eq!(state["result"]["files"][0]["path"], "saved");
    assert!(harness.event_types(&run).await.contains(&"workspace.superseded".to_owned()));
    harness.close().await;
}

/// Covers I1: on the embedded store a second scheduler is refused in words that say why.
#[tokio::test]
async fn a_second_scheduler_on_an_embedded_store_is_refused() {
    let mut harness = Harness::start(Setup::default()).await;
    harness.add("scheduler-2", "scheduler", "host-0");
    harness.service("scheduler-2").launch().await;
    let (code, words) = harness.service("scheduler-2").ended().await;
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("another scheduler") && words.contains("lock"), "{words}");
    harness.close().await;
}
