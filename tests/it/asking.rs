//! Questions to people: approvals and questions of steps, answered by API and command line.

use serde_json::{Value, json};

use crate::harness::api::{on_repo, step_of, steps};
use crate::harness::programs::run_beside;
use crate::harness::{Harness, Setup};

async fn paused(harness: &Harness, run: &str) -> Value {
    harness.wait_for(run, |state| state["status"] == "paused").await
}

/// A run with an approval between two shell steps.
fn guarded() -> Value {
    steps(json!([
        { "id": "build", "shell": "echo version=7 >> \"$HOPYARD_OUTPUT\"" },
        { "id": "sign-off", "needs": ["build"], "approval": { "prompt": "Release ${{ steps.build.outputs.version }}?" }, "timeout": "1h" },
        { "id": "release", "needs": ["sign-off"], "env": { "BY": "${{ steps.sign-off.outputs.by }}" }, "shell": "printf %s \"$BY\"" },
    ]))
}

#[tokio::test]
async fn an_approval_holds_the_run_until_a_person_answers() {
    let harness = Harness::start(Setup::default()).await;
    let run = harness.submit(guarded()).await;
    let state = paused(&harness, &run).await;
    let step = step_of(&state, "sign-off");
    assert_eq!(
        (&state["paused_reason"], &step["kind"], &step["question"]["text"]),
        (&json!("approval"), &json!("approval"), &json!("Release 7?"))
    );
    let explained = harness.get(&format!("/api/v1/runs/{run}/explain")).await;
    assert_eq!(explained["blockers"][0]["until"], step["question"]["answer_by"]);
    assert!(explained["text"].as_str().unwrap().contains("Release 7?"), "{explained:#}");

    let (program, env) = harness.client();
    let words = ["runs", "answer", &run, "sign-off", "--approve", "--by", "ada", "--json"].map(str::to_owned).to_vec();
    let answered = run_beside(program, words, harness.dir().to_owned(), env).await;
    let told: Value = serde_json::from_slice(&answered.stdout).unwrap();
    assert_eq!((answered.status.code(), &told["id"]), (Some(0), &json!(run)));
    let state = harness.wait_completed(&run).await;
    let outputs = json!({ "approved": "true", "by": "ada" });
    assert_eq!((&step_of(&state, "sign-off")["outputs"], &step_of(&state, "sign-off")["answer"]["by"]), (&outputs, &json!("ada")));
    assert_eq!(harness.stdout(&run, "release").await, "ada");

    let refused = harness.submit(guarded()).await;
    paused(&harness, &refused).await;
    let path = format!("/api/v1/runs/{refused}/steps/sign-off/answer");
    harness.http("POST", &path, json!({ "approved": false, "text": "not on a Friday" })).await.expect(200);
    let state = harness.wait_final(&refused).await;
    assert_eq!((&state["status"], &state["failure_code"]), (&json!("failed"), &json!("policy_denied")));
    assert_eq!(state["error"]["message"], "refused by api: not on a Friday");
    harness.close().await;
}

/// A question of an agent: it goes on with its conversation and its files, and is told what was answered.
#[tokio::test]
async fn a_step_asks_and_goes_on_with_the_answer() {
    let mut harness = Harness::start(Setup::default()).await;
    let repo = harness.repo(&[&[("README.md", "x\n")]]);
    let ask = "if [ -z \"$HOPYARD_ANSWER\" ]; then echo half > work.txt; echo 'which one?' > \"$HOPYARD_QUESTION\"; else cat work.txt; printf %s \"$HOPYARD_ANSWER\" > answer.txt; fi";
    let run = harness.submit(on_repo(&repo, json!([{ "id": "fix", "shell": ask }]))).await;
    let state = paused(&harness, &run).await;
    assert_eq!((&state["paused_reason"], &step_of(&state, "fix")["question"]["text"]), (&json!("question"), &json!("which one?")));

    let path = format!("/api/v1/runs/{run}/steps/fix/answer");
    let problem = harness.http("POST", &path, json!({ "approved": true })).await.expect(422).json();
    assert_eq!(problem["errors"][0]["pointer"], "/text");
    harness.http("POST", &path, json!({ "approved": true, "text": "the second\none" })).await.expect(200);
    let state = harness.wait_completed(&run).await;
    assert_eq!(step_of(&state, "fix")["attempts"].as_array().unwrap().len(), 2);
    let files: Vec<&str> = state["result"]["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!((files, harness.log(&run, "fix", 2, "stdout").await), (vec!["answer.txt", "work.txt"], b"half\n".to_vec()));
    harness.http("POST", &path, json!({ "approved": true, "text": "again" })).await.expect(409);
    harness.close().await;
}

/// Every wrong answer has an answer of its own, and changes nothing.
#[tokio::test]
async fn a_wrong_answer_changes_nothing() {
    let harness = Harness::start(Setup::default()).await;
    let run = harness.submit(guarded()).await;
    paused(&harness, &run).await;
    let cases = [
        (format!("runs/{run}/steps/sign-off/answer"), json!({}), 422, "required"),
        (format!("runs/{run}/steps/sign-off/answer"), json!({ "approved": "yes" }), 422, "type"),
        (format!("runs/{run}/steps/sign-off/answer"), json!({ "approved": true, "yes": 1 }), 422, "unknown_field"),
        (format!("runs/{run}/steps/sign-off/answer"), json!({ "approved": true, "text": "" }), 422, "length"),
        (format!("runs/{run}/steps/sign-off/answer"), json!({ "approved": true, "text": "a\u{7}" }), 422, "control_char"),
        (format!("runs/{run}/steps/sign-off/answer"), json!({ "approved": true, "by": "a\nb" }), 422, "control_char"),
        (format!("runs/{run}/steps/nowhere/answer"), json!({ "approved": true }), 404, "unknown_step"),
        (format!("runs/{run}/steps/NO WAY/answer"), json!({ "approved": true }), 404, "unknown_step"),
        (format!("runs/{run}/steps/build/answer"), json!({ "approved": true }), 409, "not_asked"),
        ("runs/01914f4e-3c3f-7000-8000-000000000001/steps/a/answer".to_owned(), json!({ "approved": true }), 404, "unknown_run"),
        ("runs/01914f4e-3c3f-7000-8000-000000000001/resume".to_owned(), json!({}), 404, "unknown_run"),
        (format!("runs/{run}/resume"), json!({}), 409, "needs_answer"),
    ];
    for (path, body, status, code) in cases {
        let path = format!("/api/v1/{}", path.replace(' ', "%20"));
        let problem = harness.http("POST", &path, body.clone()).await.expect(status).json();
        let told = problem["errors"][0]["code"].as_str().or(problem["code"].as_str());
        assert_eq!(told, Some(code), "{path} {body}: {problem:#}");
    }
    assert_eq!(paused(&harness, &run).await["paused_reason"], "approval");
    harness.cancel(&run, Value::Null).await.expect(202);
    harness.wait_final(&run).await;
    let problem = harness.http("POST", &format!("/api/v1/runs/{run}/resume"), Value::Null).await.expect(409).json();
    assert_eq!(problem["code"], "already_final");
    harness.close().await;
}
