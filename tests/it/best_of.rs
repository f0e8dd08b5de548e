//! Best of several variants: each works apart from the others, a check judges, and the best one's work goes on.

use serde_json::{Value, json};

use crate::agents::write;
use crate::harness::api::{on_repo, step_of};
use crate::harness::leftovers::mirrors;
use crate::harness::programs::{run, run_beside};
use crate::harness::{Harness, Setup};

/// A variant that writes this text, for that many millionths of a dollar.
fn variant(name: &str, text: &str, cost: u64) -> Value {
    let lines = [json!({ "usage": { "input": 10, "output": 1, "cost_microusd": cost } }), json!({ "use": [write("answer.txt", text)] })];
    let script: String = lines.iter().map(|line| format!("{line}\n")).collect();
    json!({ "name": name, "cli": "fake", "script": script })
}

/// Three that disagree; the highest number wins that the check takes for one.
fn contest(check: &str) -> Value {
    let variants = [variant("small", "3\n", 100), variant("wrong", "many\n", 10), variant("large", "11\n", 900)];
    json!({ "id": "fix", "needs": ["prepare"], "best_of": { "prompt": "write a number", "variants": variants, "check": check, "score": "points" } })
}

const CHECK: &str =
    "grep -Ex '[0-9]+' answer.txt && cat base.txt && echo junk > left-by-check.txt && echo points=$(cat answer.txt) >> \"$HOPYARD_OUTPUT\"";

/// Covers X12: what variants do is seen by nobody but them; the run has the winner's work alone, and the cost of each is told.
#[tokio::test]
async fn the_best_variant_wins_and_the_others_are_kept_beside_it() {
    let mut harness = Harness::start(Setup { metrics: true, ..Setup::default() }).await;
    let repo = harness.repo(&[&[("README.md", "x\n")]]);
    let prepare = json!({ "id": "prepare", "shell": "echo prepared > base.txt" });
    let uses = json!({ "id": "use", "needs": ["fix"], "env": { "WINNER": "${{ steps.fix.outputs.winner }}" }, "shell": "echo $WINNER; cat answer.txt; ls" });
    let id = harness.submit(on_repo(&repo, json!([prepare, contest(CHECK), uses]))).await;
    let state = harness.wait_completed(&id).await;

    let fix = step_of(&state, "fix");
    assert_eq!((&fix["kind"], &fix["outputs"]["winner"], &fix["outputs"]["score"]), (&json!("best_of"), &json!("large"), &json!("11")));
    let told: Vec<Value> = fix["variants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| json!([v["name"], v["passes"], v["chosen"], v["score"], v["usage"]["cost_microusd"]]))
        .collect();
    let expected = json!([["small", true, false, "3", 100], ["wrong", false, false, null, 10], ["large", true, true, "11", 900]]);
    assert_eq!(json!(told), expected);
    assert_eq!(state["usage"]["cost_microusd"], 1010);
    assert_eq!((&step_of(&state, "fix-wrong-check")["status"], &state["error"]), (&json!("failed"), &Value::Null));
    assert_eq!(step_of(&state, "fix-large")["variant"], "fix-large");

    // The run's own workspace has the winner's files, and nothing of a check or of another variant.
    assert_eq!(harness.stdout(&id, "use").await, "large\n11\nREADME.md\nanswer.txt\nbase.txt\n");
    let files: Vec<&str> = state["result"]["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(files, ["answer.txt", "base.txt"]);
    let head = state["result"]["head"].as_str().unwrap();
    assert_eq!((fix["outputs"]["commit"].as_str(), fix["variants"][2]["git"]["head"].as_str()), (Some(head), Some(head)));

    // What the others did can be fetched, and is on branches of their own.
    let patch = harness.http("GET", &format!("/api/v1/runs/{id}/artifacts/fix-small.changes.patch"), Value::Null).await.expect(200).text();
    assert!(patch.contains("+3") && !patch.contains("left-by-check"), "{patch}");
    let mirror = mirrors(&harness.hosts()[0].join("mirrors")).remove(0);
    for (variant, text) in [("small", "3\n"), ("wrong", "many\n"), ("large", "11\n")] {
        let branch = fix["variants"].as_array().unwrap().iter().find(|v| v["name"] == variant).unwrap()["git"]["branch"].as_str().unwrap();
        assert!(branch.ends_with(&format!("-fix-{variant}")), "{branch}");
        let shown = run("git", &["--git-dir", mirror.to_str().unwrap(), "show", &format!("{branch}:answer.txt")], harness.dir(), &[]);
        assert_eq!(String::from_utf8_lossy(&shown.stdout), text);
    }
    let (program, env) = harness.client();
    let summary = run_beside(program, ["runs", "get", &id].map(str::to_owned).to_vec(), harness.dir().to_owned(), env).await;
    let summary = String::from_utf8_lossy(&summary.stdout).into_owned();
    assert!(summary.contains("large  chosen") && summary.contains("wrong  does not pass"), "{summary}");
    harness.close().await;
}

/// An executor that is killed costs no variant: those that were done are restored elsewhere, those at work are tried again.
#[tokio::test]
async fn a_lost_executor_costs_no_variant() {
    let mut harness = Harness::start(Setup { executors: 2, ..Setup::default() }).await;
    let repo = harness.repo(&[&[("README.md", "x\n")]]);
    let prepare = json!({ "id": "prepare", "shell": "echo prepared > base.txt" });
    let gate = harness.dir().join("gate");
    // The checks of the first executor hold until it is gone.
    let check = format!("until [ -e {gate} ]; do sleep 0.05; done; {CHECK}", gate = gate.display());
    let id = harness.submit(on_repo(&repo, json!([prepare, contest(&check)]))).await;
    let running =
        |state: &Value| ["small", "wrong", "large"].iter().all(|v| step_of(state, &format!("fix-{v}-check"))["status"] == "running");
    let state = harness.wait_for(&id, running).await;
    let executor = state["executor"].as_str().unwrap().to_owned();
    harness.kill9(&executor).await;
    std::fs::write(&gate, "").unwrap();
    let state = harness.wait_completed(&id).await;
    assert_eq!((&state["generation"], &step_of(&state, "fix")["outputs"]["winner"]), (&json!(2), &json!("large")));
    assert_eq!(state["usage"]["cost_microusd"], 1010, "no agent was asked again");
    harness.start_service(&executor).await;
    harness.close().await;
}

/// No variant that passes is a failure of the run, which says why; and without a repository there is nothing to choose from.
#[tokio::test]
async fn a_contest_that_nobody_wins_fails_and_says_why() {
    let mut harness = Harness::start(Setup::default()).await;
    let repo = harness.repo(&[&[("README.md", "x\n")]]);
    let prepare = json!({ "id": "prepare", "shell": "true" });
    let id = harness.submit(on_repo(&repo, json!([prepare, contest("exit 3")]))).await;
    let state = harness.wait_final(&id).await;
    assert_eq!((&state["status"], &state["failure_code"]), (&json!("failed"), &json!("dependency_failed")));
    let message = state["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("no variant passes: small: fix-small-check ended as exit_code"), "{message}");
    let mut without = on_repo(&repo, json!([{ "id": "prepare", "shell": "true" }, contest(CHECK)]));
    without.as_object_mut().unwrap().remove("repo");
    let refused = harness.http("POST", "/api/v1/runs", without).await.expect(422).json();
    assert_eq!((&refused["errors"][0]["code"], &refused["errors"][0]["pointer"]), (&json!("required"), &json!("/repo")));
    harness.close().await;
}
