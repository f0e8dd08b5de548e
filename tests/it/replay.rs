//! Replays: what agents and models had said and changed is played in a new run, and nobody is asked.

use serde_json::{Value, json};

use crate::agents::{fake, write};
use crate::harness::api::{definition, on_repo, step_of};
use crate::harness::programs::{repository, run, run_beside};
use crate::harness::provider::Provider;
use crate::harness::{Harness, Setup};

async fn replay(harness: &Harness, words: &[&str]) -> (Option<i32>, Value) {
    let (program, env) = harness.client();
    let args = ["runs", "replay", "--json"].iter().chain(words).map(|word| (*word).to_owned()).collect();
    let output = run_beside(program, args, harness.dir().to_owned(), env).await;
    let told = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), told)
}

/// A definition in a file, with an agent, a question about its work, and a check of both.
fn flow(check: &str) -> Value {
    let mut agent =
        fake(&[json!({ "use": [write("src/a.txt", "one\n"), write("b.bin", "\u{1}two")] }), json!({ "say": "Both are there." })]);
    agent["agent"]["model"] = json!("stub/claude-sonnet-4-5");
    let notes = json!({ "id": "notes", "needs": ["fix"], "llm": { "model": "stub/claude-sonnet-4-5", "prompt": "Sum it up.", "output": { "type": "object" } } });
    let env = json!({ "TITLE": "${{ steps.notes.outputs.title }}" });
    json!([agent, notes, { "id": "check", "needs": ["notes"], "env": env, "shell": check }])
}

/// Covers X9: the same steps, words, tools, files and outputs, without a call, a token or a cent.
#[tokio::test]
async fn a_replay_is_the_same_run_without_a_call() {
    let provider = Provider::start(&[json!({ "text": "{\"title\": \"Two files\"}", "usage": { "input": 100, "output": 10 } })]);
    let settings = provider.settings("anthropic", "").display().to_string();
    let mut harness = Harness::start(Setup { settings: vec![("CONFIG", settings)], ..Setup::default() }).await;
    let repo = harness.repo(&[&[("README.md", "x\n")]]);
    let check = "test -e src/a.txt && echo \"title=$TITLE\" >> \"$HOPYARD_OUTPUT\" && wc -c < b.bin";
    let id = harness.submit(on_repo(&repo, flow(check))).await;
    let recorded = harness.wait_completed(&id).await;
    let asked = provider.calls().len();
    assert!(recorded["usage"]["cost_microusd"].as_u64().is_some_and(|cost| cost > 0));
    // What the repository has become since is no matter of the replay.
    repository(&repo, &[&[("src/a.txt", "theirs\n")]]);

    let (code, told) = replay(&harness, &[&id]).await;
    assert_eq!((code, &told["same"], &told["differences"]), (Some(0), &json!(true), &json!([])), "{told:#}");
    let again = told["run_id"].as_str().unwrap();
    let state = harness.wait_completed(again).await;
    assert_eq!((&state["replay"], &state["rerun_of"]), (&json!(true), &json!(id)));
    assert_eq!(provider.calls().len(), asked, "nobody was asked");
    let nothing = json!({ "input": 0, "output": 0, "cache_read": 0, "cache_write": 0 });
    assert_eq!((&state["usage"]["tokens"], &state["usage"]["cost_microusd"]), (&nothing, &json!(0)));
    assert_eq!((&state["usage"]["turns"], &state["usage"]["tool_calls"]), (&json!(2), &json!(2)), "what was played of the agent");
    assert_eq!(state["result"]["files"], recorded["result"]["files"]);
    assert_eq!(step_of(&state, "check")["outputs"]["title"], "Two files");
    assert_eq!(harness.log(again, "fix", 1, "stdout").await, harness.log(&id, "fix", 1, "stdout").await);

    // Another definition: the words are the same, and what follows from them is not.
    let file = harness.dir().join("other.yaml");
    let other = json!({ "version": 1, "name": "test", "steps": flow("echo title=none >> \"$HOPYARD_OUTPUT\"; rm b.bin") });
    std::fs::write(&file, other.to_string()).unwrap();
    let (code, told) = replay(&harness, &[&id, "-f", file.to_str().unwrap()]).await;
    let different: Vec<&str> = told["differences"].as_array().unwrap().iter().map(|d| d["what"].as_str().unwrap()).collect();
    assert_eq!((code, different), (Some(1), vec!["result.files", "check.outputs"]), "{told:#}");
    assert_eq!(provider.calls().len(), asked);
    harness.close().await;
}

/// What a retry had thrown away is not made again, and what a budget would not allow is played all the same.
#[tokio::test]
async fn attempts_are_played_as_they_were_made() {
    let mut harness = Harness::start(Setup::default()).await;
    let repo = harness.repo(&[&[("README.md", "x\n")]]);
    // The first attempt gives up; the second does it. Which one it is stands in a file that git ignores.
    let first = [
        json!({ "usage": { "cost_microusd": 700 } }),
        json!({ "use": [write("half.txt", "half\n")] }),
        json!({ "end": { "failed": "no luck" } }),
    ];
    let mut step = fake(&first);
    step["retry"] = json!({ "max_attempts": 2, "backoff": { "initial": "10ms", "max": "10ms" } });
    let id = harness.submit(on_repo(&repo, json!([step]))).await;
    let recorded = harness.wait_final(&id).await;
    assert_eq!((&recorded["status"], recorded["steps"][0]["attempts"].as_array().unwrap().len()), (&json!("failed"), 2));
    let (code, told) = replay(&harness, &[&id]).await;
    assert_eq!((code, &told["differences"]), (Some(0), &json!([])), "{told:#}");
    let state = harness.wait_final(told["run_id"].as_str().unwrap()).await;
    assert_eq!(state["steps"][0]["attempts"].as_array().unwrap().len(), 2);
    assert_eq!((&state["result"]["files"], &state["usage"]["cost_microusd"]), (&recorded["result"]["files"], &json!(0)));
    harness.close().await;
}

/// The best of several is chosen by what each had cost, though playing them costs nothing.
#[tokio::test]
async fn a_replay_chooses_as_it_was_chosen() {
    let mut harness = Harness::start(Setup::default()).await;
    let repo = harness.repo(&[&[("README.md", "x\n")]]);
    let variant = |name: &str, cost: u64| {
        let script = format!("{}\n{}\n", json!({ "usage": { "cost_microusd": cost } }), json!({ "use": [write("who.txt", name)] }));
        json!({ "name": name, "cli": "fake", "script": script })
    };
    let best_of = json!({ "prompt": "x", "check": "cat who.txt", "variants": [variant("dear", 900), variant("cheap", 100)] });
    let id = harness.submit(on_repo(&repo, json!([{ "id": "fix", "best_of": best_of }]))).await;
    harness.wait_completed(&id).await;
    let (code, told) = replay(&harness, &[&id]).await;
    assert_eq!((code, &told["differences"]), (Some(0), &json!([])), "{told:#}");
    let state = harness.wait_completed(told["run_id"].as_str().unwrap()).await;
    assert_eq!(step_of(&state, "fix")["outputs"]["winner"], "cheap");
    harness.close().await;
}

/// Nothing is pushed a second time, and the session of the recorded runs neither sees a replay nor is in its way.
#[tokio::test]
async fn a_replay_leaves_repository_and_session_alone() {
    let mut harness = Harness::start(Setup::default()).await;
    let repo = harness.repo(&[&[("README.md", "x\n")]]);
    let in_session = |step: Value, push: bool| {
        let result = json!({ "branch": "done", "push": push });
        let definition = json!({ "version": 1, "name": "test", "workspace": { "mode": "persistent" }, "result": result, "steps": [step] });
        json!({ "definition": definition, "session": "s1", "repo": { "url": repo.display().to_string() } })
    };
    let branch = || String::from_utf8(run("git", &["branch", "--list", "done"], &repo, &[]).stdout).unwrap();
    for file in ["a.txt", "b.txt"] {
        let id = harness.submit(in_session(fake(&[json!({ "use": [write(file, "one\n")] })]), true)).await;
        let recorded = harness.wait_completed(&id).await;
        assert_eq!(branch().trim(), "done");
        run("git", &["branch", "-D", "done"], &repo, &[]);
        // Again and again: no replay finds what another one has left.
        for _ in 0..2 {
            let (code, told) = replay(&harness, &[&id]).await;
            assert_eq!((code, &told["differences"]), (Some(0), &json!([])), "{told:#}");
            let state = harness.wait_completed(told["run_id"].as_str().unwrap()).await;
            assert_eq!((&state["session"], &step_of(&state, "deliver")["status"]), (&Value::Null, &json!("skipped")));
            assert_eq!((&state["result"]["files"], branch().trim()), (&recorded["result"]["files"], ""));
        }
    }
    let look = harness.submit(in_session(json!({ "id": "look", "shell": "ls" }), false)).await;
    harness.wait_completed(&look).await;
    assert_eq!(harness.stdout(&look, "look").await, "README.md\na.txt\nb.txt\n");
    harness.close().await;
}

/// What cannot be played is refused, or fails in words; nobody is asked instead.
#[tokio::test]
async fn what_was_not_recorded_is_not_played() {
    let provider = Provider::start(&[json!({ "text": "hello" })]);
    let settings = provider.settings("anthropic", "").display().to_string();
    let mut harness = Harness::start(Setup { settings: vec![("CONFIG", settings)], ..Setup::default() }).await;
    let repo = harness.repo(&[&[("a.txt", "one\ntwo\n")]]);
    let shell = harness.submit(on_repo(&repo, json!([{ "id": "a", "shell": "true" }]))).await;
    harness.wait_completed(&shell).await;
    let held = harness.submit(on_repo(&repo, json!([{ "id": "a", "shell": "sleep 600" }]))).await;
    harness.wait_running(&held, "a").await;
    let plain = definition("version: 1\nname: w\nsteps: [{id: a, shell: 'true'}]\n");
    let with = |more: Value| {
        let mut body = plain.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let cases = [
        (format!("runs/{shell}/rerun"), json!({ "replay": true }), "nothing_recorded", "/rerun_of"),
        (format!("runs/{held}/rerun"), json!({ "replay": true }), "not_final", "/rerun_of"),
        (format!("runs/{shell}/rerun"), json!({ "replay": "yes" }), "type", "/replay"),
        ("runs".to_owned(), with(json!({ "replay": true })), "required", "/rerun_of"),
        (
            "runs".to_owned(),
            with(json!({ "replay": true, "rerun_of": "01914f4e-3c3f-7000-8000-000000000001" })),
            "unknown_run",
            "/rerun_of",
        ),
    ];
    for (path, body, code, pointer) in cases {
        let problem = harness.http("POST", &format!("/api/v1/{path}"), body.clone()).await.expect(422).json();
        assert_eq!((&problem["errors"][0]["code"], &problem["errors"][0]["pointer"]), (&json!(code), &json!(pointer)), "{path} {body}");
    }
    harness.cancel(&held, Value::Null).await.expect(202);

    let edit = fake(&[json!({ "use": [write("a.txt", "one\nours\n")] })]);
    let recorded = harness.submit(on_repo(&repo, json!([edit]))).await;
    harness.wait_completed(&recorded).await;
    let asked = provider.calls().len();
    let mut after = edit.clone();
    after["needs"] = json!(["first"]);
    let question = json!({ "id": "new", "needs": ["fix"], "if": "always()", "llm": { "model": "stub/m", "prompt": "x" } });
    let other = json!([{ "id": "first", "shell": "printf 'nothing alike' > a.txt" }, after, question]);
    let mut body = on_repo(&repo, other);
    body.as_object_mut().unwrap().extend(json!({ "rerun_of": recorded, "replay": true }).as_object().unwrap().clone());
    let id = harness.submit(body).await;
    let state = harness.wait_final(&id).await;
    let (fix, new) = (step_of(&state, "fix"), step_of(&state, "new"));
    assert_eq!((&fix["failure_code"], &new["failure_code"]), (&json!("workspace_error"), &json!("plan_error")), "{state:#}");
    assert!(fix["error"].as_str().unwrap().contains("a.txt"), "{}", fix["error"]);
    assert!(new["error"].as_str().unwrap().starts_with("nothing was recorded of `new`"), "{}", new["error"]);
    assert_eq!(provider.calls().len(), asked, "nobody was asked");
    harness.close().await;
}
