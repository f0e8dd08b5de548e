//! An operator's hands: dead letters, a pass of the janitor, a drain over the API, the schema and the streams.

use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hopyard::servers::process_env;
use serde_json::{Value, json};

use crate::harness::api::{on_repo, shell, step_of};
use crate::harness::leftovers::workspaces;
use crate::harness::programs::run_beside;
use crate::harness::wait::{eventually, holds};
use crate::harness::{Harness, Setup};

/// Runs the executable beside a stack, with further settings.
async fn hopyard(harness: &Harness, args: &[&str], settings: &[(&str, String)]) -> Output {
    let (program, mut env) = harness.client();
    env.extend(settings.iter().map(|(name, value)| (format!("HOPYARD_{name}"), value.clone())));
    run_beside(program, args.iter().map(|a| (*a).to_owned()).collect(), harness.dir().to_owned(), env).await
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn letters(harness: &Harness, path: &str) -> Vec<Value> {
    harness.get(path).await["items"].as_array().cloned().unwrap_or_default()
}

/// Waits until that many letters are there.
async fn wait_letters(harness: &Harness, count: usize) -> Vec<Value> {
    eventually("the letters are there", || async move {
        let found = letters(harness, "/api/v1/dead-letters").await;
        holds(found.len() == count, format!("{found:?}")).map(|()| found)
    })
    .await
}

/// A message that cannot be read can be looked at, sent again and dropped; another tenant sees nothing of it.
#[tokio::test]
async fn a_dead_letter_is_shown_requeued_and_dropped() {
    let harness = Harness::start(Setup::default()).await;
    let mut bus = harness.bus().await;
    for body in [&b"{\"v\":1, oops"[..], &b"\xff\xfe"[..]] {
        bus.store("hopyard.cmd.submit.default", &[], body).await;
    }
    let first = wait_letters(&harness, 2).await;
    let ids: Vec<&str> = first.iter().filter_map(|l| l["id"].as_str()).collect();
    let one = harness.get(&format!("/api/v1/dead-letters/{}", ids[0])).await;
    assert_eq!((&one["text"], &one["code"]), (&json!("{\"v\":1, oops"), &json!("json_syntax")), "{one:#}");
    assert!(harness.get(&format!("/api/v1/dead-letters/{}", ids[1])).await.get("text").is_none());
    let shown = hopyard(&harness, &["dlq", "show", ids[1]], &[]).await;
    assert!(text(&shown).ends_with("\n\n//4=\n"), "{shown:?}");

    let path = format!("/api/v1/dead-letters/{}", ids[0]);
    let answer = harness.http("POST", &format!("{path}/requeue"), Value::Null).await.expect(200).json();
    assert_eq!(answer, json!({ "status": "requeued" }));
    let again = wait_letters(&harness, 3).await;
    assert_eq!((&again[2]["body"], &again[2]["subject"]), (&first[0]["body"], &first[0]["subject"]), "the same bytes came back");

    let foreign = format!("/api/v1/namespaces/team/dead-letters/{}", ids[0]);
    for (method, path) in [
        ("GET", foreign.clone()),
        ("DELETE", foreign.clone()),
        ("POST", format!("{foreign}/requeue")),
        ("DELETE", "/api/v1/dead-letters/99".into()),
    ] {
        harness.http(method, &path, Value::Null).await.problem(404, "unknown_dead_letter");
    }
    harness.http("DELETE", &path, Value::Null).await.expect(204);
    harness.http("DELETE", &path, Value::Null).await.problem(404, "unknown_dead_letter");
    let dropped = hopyard(&harness, &["dlq", "drop", ids[1]], &[]).await;
    assert!(dropped.status.success(), "{dropped:?}");
    assert_eq!(hopyard(&harness, &["dlq", "requeue", ids[1]], &[]).await.status.code(), Some(2));
    wait_letters(&harness, 1).await;
    harness.close().await;
}

/// Sending a letter twice makes one run, also outside of the window in which the bus itself drops repeats.
#[tokio::test]
async fn a_letter_that_is_requeued_twice_makes_one_run() {
    let harness = Harness::start(Setup::default()).await;
    let letter = |subject: &str| {
        json!({
            "v": 1, "stream": "HOPYARD_CMD", "subject": subject, "seq": 4711, "code": "unreadable", "detail": "an older version could not read it",
            "attempts": 1, "body": STANDARD.encode(shell("true").to_string()), "at": "2026-05-01T12:00:00.000000Z",
        })
    };
    let mut bus = harness.bus().await;
    let good = bus.store("hopyard.dlq.hopyard_cmd", &[], letter("hopyard.cmd.submit.default").to_string().as_bytes()).await;
    let astray = bus.store("hopyard.dlq.hopyard_cmd", &[], letter("hopyard.ctl.executor-1").to_string().as_bytes()).await;
    bus.subscribe("hopyard.receipt.default.*").await;
    let mut verdicts = Vec::new();
    for _ in 0..2 {
        harness.http("POST", &format!("/api/v1/dead-letters/{good}/requeue"), Value::Null).await.expect(200);
        let receipt = bus.next_on(|s| s.starts_with("hopyard.receipt.")).await.json();
        verdicts.push(receipt["items"][0].clone());
        // The window of the stream is a tenth of a second; what this test is about comes after it.
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    }
    assert_eq!((&verdicts[0]["status"], &verdicts[1]["status"]), (&json!("accepted"), &json!("duplicate")), "{verdicts:?}");
    assert_eq!(verdicts[0]["run_id"], verdicts[1]["run_id"]);
    harness.wait_completed(verdicts[0]["run_id"].as_str().unwrap()).await;
    harness.http("POST", &format!("/api/v1/dead-letters/{astray}/requeue"), Value::Null).await.problem(409, "not_requeueable");
    harness.close().await;
}

/// Covers H6: one pass by hand says what it would do, does it, and settles what somebody has deleted.
#[tokio::test]
async fn a_pass_of_the_janitor_by_hand() {
    let mut harness = Harness::start(Setup::default()).await;
    let repo = harness.repo(&[&[("a", "1\n")]]);
    harness.stop_service("janitor-1").await;
    let mut runs = Vec::new();
    for _ in 0..2 {
        let run = harness.submit(on_repo(&repo, json!([{ "id": "main", "shell": "echo 2 >> a" }]))).await;
        harness.wait_completed(&run).await;
        runs.push(run);
    }
    let host = harness.hosts().remove(0);
    let settings = [
        ("NATS_URL", harness.nats.url()),
        ("DATA_DIR", host.display().to_string()),
        ("HOST_ID", "host-1".to_owned()),
        ("BLOBS", harness.dir().join("blobs").display().to_string()),
    ];
    let dry = hopyard(&harness, &["janitor", "--once", "--dry-run", "--max-age", "48h", "--json"], &settings).await;
    assert!(dry.status.success(), "{dry:?}");
    let report: Value = serde_json::from_slice(&dry.stdout).unwrap();
    let planned: Vec<_> = report["planned"].as_array().unwrap().iter().map(|p| (p["action"].as_str(), p["reason"].as_str())).collect();
    assert_eq!(planned, [(Some("remove"), Some("finished")); 2], "{report:#}");
    assert_eq!(workspaces(&harness.hosts()).len(), 2, "a dry run changes nothing");

    let deleted = workspaces(&harness.hosts()).into_iter().find(|path| path.ends_with(format!("{}-g1", runs[0]))).unwrap();
    std::fs::remove_dir_all(deleted).unwrap();
    let pruned = hopyard(&harness, &["workspaces", "prune", "-o", "jsonl"], &settings).await;
    assert!(pruned.status.success(), "{pruned:?}");
    let mut gone: Vec<_> = text(&pruned)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|item| (item["id"].as_str().unwrap().to_owned(), item["reason"].as_str().unwrap().to_owned()))
        .collect();
    gone.sort();
    assert_eq!(gone, [(format!("{}-g1", runs[0]), "absent".to_owned()), (format!("{}-g1", runs[1]), "finished".to_owned())]);
    assert_eq!(workspaces(&harness.hosts()).len(), 0);
    let h = &harness;
    eventually("the inventory knows", || async move {
        let removed = h.get("/api/v1/workspaces?status=removed").await;
        holds(removed["items"].as_array().is_some_and(|items| items.len() == 2), removed.to_string())
    })
    .await;
    let elsewhere = [("NATS_URL", harness.nats.url()), ("DATA_DIR", harness.dir().join("typo").display().to_string())];
    assert_eq!(hopyard(&harness, &["workspaces", "prune"], &elsewhere).await.status.code(), Some(2));
    harness.start_service("janitor-1").await;
    harness.close().await;
}

/// A drain over the API ends the executor; what it had runs again, and the try does not count as a failure.
#[tokio::test]
async fn a_drained_executor_gives_back_and_ends() {
    let mut harness = Harness::start(Setup { executors: 2, slots: 1, ..Setup::default() }).await;
    let gate = harness.dir().join("gate");
    let run = harness.submit(shell(&format!("until [ -e {} ]; do sleep 0.05; done", gate.display()))).await;
    let state = harness.wait_running(&run, "main").await;
    let executor = step_of(&state, "main")["attempts"][0]["executor"].as_str().unwrap().to_owned();
    let drained = hopyard(&harness, &["executors", "drain", &executor], &[]).await;
    assert!(drained.status.success(), "{drained:?}");
    let (code, words) = harness.service(&executor).ended().await;
    assert_eq!(code, Some(0), "{words}");
    let state = harness.wait_for(&run, |state| step_of(state, "main")["attempts"][1]["status"] == "running").await;
    assert_ne!(step_of(&state, "main")["attempts"][1]["executor"], json!(executor));
    std::fs::write(&gate, "").unwrap();
    harness.wait_completed(&run).await;
    assert_eq!(hopyard(&harness, &["executors", "drain", "nobody"], &[]).await.status.code(), Some(2));
    harness.close().await;
}

/// Streams and consumers are compared by name, and made again when they are gone; the schema says what is missing.
#[tokio::test]
async fn the_topology_and_the_schema_are_compared() {
    let harness = Harness::start(Setup { metrics: true, ..Setup::default() }).await;
    let bus = [("NATS_URL", harness.nats.url())];
    let there = hopyard(&harness, &["topology", "diff", "--host", "host-1"], &bus).await;
    assert_eq!((there.status.code(), text(&there).as_str()), (Some(0), ""), "{there:?}");
    let missing = hopyard(&harness, &["topology", "diff", "--pool", "gpu"], &bus).await;
    assert!(missing.status.code() == Some(1) && text(&missing).contains("consumer exec_gpu of HOPYARD_WORK: missing"), "{missing:?}");
    assert!(hopyard(&harness, &["topology", "apply", "--pool", "gpu"], &bus).await.status.success());
    assert!(hopyard(&harness, &["topology", "diff", "--pool", "gpu"], &bus).await.status.success());

    let store = [("STORE_URL", format!("sqlite:{}", harness.dir().join("new-store").display()))];
    let check = hopyard(&harness, &["migrate", "--check"], &store).await;
    assert!(check.status.code() == Some(1) && !check.stdout.is_empty(), "{check:?}");
    assert!(!harness.dir().join("new-store").exists(), "a look makes nothing");
    assert!(hopyard(&harness, &["migrate"], &store).await.status.success());
    let check = hopyard(&harness, &["migrate", "--check"], &store).await;
    assert_eq!((check.status.code(), text(&check).as_str()), (Some(0), ""), "{check:?}");
    harness.close().await;
}

/// Covers I4: what cannot work says why and ends, before it takes anything; `doctor` finds what is missing.
#[tokio::test]
async fn what_cannot_work_says_why() {
    let harness = Harness::start(Setup::default()).await;
    let dir = harness.dir().to_owned();
    let (file, beside) = (dir.join("a-file"), dir.join("beside"));
    std::fs::write(&file, "").unwrap();
    let start = async |service: &str, settings: &[(&str, String)]| {
        let mut env = vec![("PATH".to_owned(), process_env("PATH").unwrap_or_default())];
        let usual =
            [("NATS_URL", harness.nats.url()), ("ADMIN_ADDR", "127.0.0.1:0".to_owned()), ("DATA_DIR", beside.display().to_string())];
        env.extend(usual.iter().map(|(name, value)| (format!("HOPYARD_{name}"), value.clone())));
        env.retain(|(name, _)| settings.iter().all(|(other, _)| name != other));
        env.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let output = run_beside(harness.client().0, vec![service.to_owned()], dir.clone(), env).await;
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (service, setting, value, words) in [
        ("executor", "PATH", "/nowhere".to_owned(), "git"),
        ("executor", "HOPYARD_DATA_DIR", file.display().to_string(), "cannot be made"),
        ("executor", "HOPYARD_SLOTS", "0".to_owned(), "HOPYARD_SLOTS"),
        ("scheduler", "HOPYARD_STORE_URL", "mysql://somewhere".to_owned(), "sqlite: or postgres://"),
        ("ingest", "HOPYARD_HTTP_ADDR", harness.api().to_string(), "in use"),
    ] {
        let (code, told) = start(service, &[(setting, value)]).await;
        assert!(code == Some(1) && told.contains(words) && !told.contains("panicked"), "{service} with {setting}: {code:?} {told}");
    }

    let store = ("STORE_URL", harness.store_url.clone());
    let doctor = async |settings: &[(&str, String)]| hopyard(&harness, &["doctor"], settings).await;
    let well = doctor(&[store.clone(), ("NATS_URL", harness.nats.url())]).await;
    assert!(well.status.success(), "{}", text(&well));
    let ill = doctor(&[store, ("NATS_URL", "nats://127.0.0.1:1".to_owned())]).await;
    assert!(ill.status.code() == Some(1) && text(&ill).contains("bus"), "{}", text(&ill));
    harness.close().await;
}
