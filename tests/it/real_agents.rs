//! The real Claude Code and the real Codex as steps, against a provider that plays a script: `make agents`.
//!
//! What the provider served is what every surface has to show, to the token. There is no network but the loopback interface.

use hopyard::servers::process_env;
use serde_json::{Value, json};

use crate::harness::api::{on_repo, step_of};
use crate::harness::provider::Provider;
use crate::harness::wait::eventually;
use crate::harness::{Harness, Setup};

/// What a provider answers and what has to come of it.
struct Case {
    name: &'static str,
    cli: &'static str,
    replies: Vec<Value>,
    /// Fields of the `agent` beside program, prompt and model.
    agent: Value,
    budget: Value,
    status: &'static str,
    code: Option<&'static str>,
    turns: u64,
    tools: u64,
    /// Files that the branch has.
    files: &'static [&'static str],
}

fn usage(n: u64) -> Value {
    json!({ "input": 1000 + n, "output": 50 + n, "cache_read": 20 * n, "cache_write": 0 })
}

/// A reply that writes files, one tool for each.
fn writes(cli: &str, turn: u64, paths: &[String]) -> Value {
    let tool = |path: &String| match cli {
        "claude" => json!({ "name": "Write", "input": { "file_path": format!("{{cwd}}/{path}"), "content": "hello\n" } }),
        _ => json!({ "name": "exec_command", "input": { "cmd": format!("printf 'hello\\n' > {path}") } }),
    };
    json!({ "use": paths.iter().map(tool).collect::<Vec<_>>(), "usage": usage(turn) })
}

fn says(turn: u64) -> Value {
    json!({ "text": "Done.", "usage": usage(turn) })
}

fn cases(cli: &'static str) -> Vec<Case> {
    let one = |path: &str| vec![path.to_owned()];
    let long =
        |turns: u64| (1..turns).map(|turn| writes(cli, turn, &one(&format!("f{turn}.txt")))).chain([says(turns)]).collect::<Vec<_>>();
    let case = |name, replies| Case {
        name,
        cli,
        replies,
        agent: json!({}),
        budget: Value::Null,
        status: "completed",
        code: None,
        turns: 2,
        tools: 1,
        files: &["a.txt"],
    };
    let mut cases = vec![
        case("two turns", vec![writes(cli, 1, &one("a.txt")), says(2)]),
        Case { turns: 15, tools: 14, files: &["f1.txt", "f14.txt"], ..case("fifteen turns", long(15)) },
        Case {
            tools: 3,
            files: &["a.txt", "b.txt", "c.txt"],
            ..case("parallel tools", vec![writes(cli, 1, &["a.txt", "b.txt", "c.txt"].map(str::to_owned)), says(2)])
        },
        Case {
            budget: json!({ "cost_microusd": if cli == "claude" { 8000 } else { 4000 } }),
            status: "failed",
            code: Some("budget_exceeded"),
            turns: 3,
            tools: 3,
            files: &["f1.txt", "f2.txt"],
            ..case("a budget of two calls and a bit", long(15))
        },
    ];
    if cli == "claude" {
        cases.push(Case {
            agent: json!({ "max_turns": 2 }),
            status: "failed",
            code: Some("max_turns"),
            turns: 2,
            tools: 2,
            files: &["f1.txt"],
            ..case("no more turns", long(5))
        });
        cases.push(Case {
            agent: json!({ "permissions": "read" }),
            files: &[],
            ..case("not permitted", vec![writes(cli, 1, &one("a.txt")), says(2)])
        });
    }
    cases
}

/// A stack whose executor finds the real programs and this provider.
async fn stack(cli: &str, provider: &Provider) -> Harness {
    let wire = if cli == "claude" { "anthropic" } else { "responses" };
    let settings = provider.settings(wire, "").display().to_string();
    let path = format!("{}:{}", process_env("HOPYARD_AGENTS").expect("`make agents` sets it"), process_env("PATH").unwrap_or_default());
    let settings = vec![("CONFIG", settings), ("STEP_PATH", path)];
    Harness::start(Setup { metrics: true, settings, ..Setup::default() }).await
}

fn step_with(cli: &str) -> Value {
    let model = if cli == "claude" { "claude-sonnet-4-5" } else { "gpt-5.1-codex" };
    let mut step = json!({ "id": "fix", "agent": { "cli": cli, "prompt": "Write the files.", "model": model }, "timeout": "60s" });
    if cli == "codex" {
        // Its own sandbox needs what a sandbox forbids.
        step["agent"]["permissions"] = json!("full");
    }
    step
}

async fn play(case: Case) {
    let provider = Provider::start(&case.replies);
    let mut harness = stack(case.cli, &provider).await;
    let repo = harness.repo(&[&[("README.md", "x\n")]]);
    let mut step = step_with(case.cli);
    for (field, value) in case.agent.as_object().unwrap() {
        step["agent"][field] = value.clone();
    }
    let mut request = on_repo(&repo, json!([step]));
    request["budget"] = case.budget.clone();
    let run = harness.submit(request).await;
    let state = harness.wait_final(&run).await;
    let log = harness.stdout(&run, "fix").await;
    let what = format!("{} {}", case.cli, case.name);
    assert_eq!((state["status"].as_str(), state["failure_code"].as_str()), (Some(case.status), case.code), "{what}: {state:#}\n{log}");
    let kinds = ["input", "output", "cache_read", "cache_write"];
    let served = kinds.map(|kind| provider.served(kind));
    let calls = provider.calls().iter().filter(|call| call["status"] == 200).count();
    let usage = &state["usage"];
    assert_eq!(kinds.map(|kind| usage["tokens"][kind].as_u64().unwrap()), served, "{what}\n{log}");
    assert_eq!((usage["turns"].as_u64(), usage["tool_calls"].as_u64()), (Some(case.turns), Some(case.tools)), "{what}\n{log}");
    let cost = usage["cost_microusd"].as_u64().expect("the model has a price");
    let step = step_of(&state, "fix");
    assert_eq!((&step["usage"], &step["attempts"][0]["usage"]), (usage, usage), "{what}");
    let ended = format!("attempt.{}", case.status);
    let events = harness.events(&run).await;
    assert_eq!(&events.iter().find(|event| event["type"] == ended.as_str()).unwrap()["data"]["usage"], usage, "{what}");
    let sample = format!("hopyard_cost_usd_total{{workflow=\"{}\"}}", state["workflow"].as_str().unwrap());
    let counted = async || {
        let dollars = harness.metric("metrics", &sample).await;
        ((dollars * 1e6).round() as u64 == cost).then_some(()).ok_or(dollars)
    };
    eventually("the metric has the cost", counted).await;
    let files: Vec<&str> =
        state["result"]["files"].as_array().map_or(Vec::new(), |files| files.iter().filter_map(|file| file["path"].as_str()).collect());
    assert!(case.files.iter().all(|file| files.contains(file)) && (case.files.is_empty() == files.is_empty()), "{what}: {files:?}");
    let record = harness.get(&format!("/api/v1/runs/{run}/artifacts/fix.1.record.json")).await;
    assert_eq!(record["calls"].as_array().unwrap().iter().filter(|call| call["status"] == 200).count(), calls, "{what}");
    println!(
        "{what}: {} {}, {calls} calls, tokens {served:?}, {} turns, {} tools, {cost} millionths; told by itself: {}",
        case.status,
        case.code.unwrap_or("-"),
        case.turns,
        case.tools,
        record["told"]
    );
    harness.close().await;
}

#[tokio::test]
async fn what_claude_code_used_is_what_its_provider_served() {
    for case in cases("claude") {
        play(case).await;
    }
}

#[tokio::test]
async fn what_codex_used_is_what_its_provider_served() {
    for case in cases("codex") {
        play(case).await;
    }
}

/// A run that is killed while its model thinks keeps what it used, and its work.
#[tokio::test]
async fn a_killed_agent_keeps_its_work_and_what_it_used() {
    for cli in ["claude", "codex"] {
        let thinks = json!({ "text": "…", "wait_ms": 60_000 });
        let provider = Provider::start(&[writes(cli, 1, &["a.txt".to_owned()]), thinks]);
        let mut harness = stack(cli, &provider).await;
        let repo = harness.repo(&[&[("README.md", "x\n")]]);
        let run = harness.submit(on_repo(&repo, json!([step_with(cli)]))).await;
        let used = async || {
            let usage = harness.run(&run).await["usage"].clone();
            (usage["tokens"]["output"] == 51).then_some(()).ok_or(usage)
        };
        eventually("one call", used).await;
        harness.cancel(&run, json!({})).await;
        let state = harness.wait_final(&run).await;
        assert_eq!((&state["status"], &state["usage"]["tokens"]["input"]), (&json!("killed"), &json!(provider.served("input"))), "{cli}");
        assert_eq!(state["result"]["files"][0]["path"], "a.txt", "{cli}");
        println!("{cli} killed: {}", state["usage"]);
        harness.close().await;
    }
}

/// A later run of the session goes on with the same conversation: the model hears all of it, and only what came after is counted.
#[tokio::test]
async fn a_resumed_agent_goes_on_with_its_conversation() {
    for cli in ["claude", "codex"] {
        let replies = [writes(cli, 1, &["a.txt".to_owned()]), says(2), writes(cli, 3, &["b.txt".to_owned()]), says(4)];
        let provider = Provider::start(&replies);
        let mut harness = stack(cli, &provider).await;
        let repo = harness.repo(&[&[("README.md", "x\n")]]);
        let mut sessions = Vec::new();
        let mut before = 0;
        for (round, path) in ["a.txt", "b.txt"].into_iter().enumerate() {
            let mut step = step_with(cli);
            step["agent"]["resume"] = json!(true);
            let mut request = on_repo(&repo, json!([step]));
            request["definition"]["workspace"] = json!({ "mode": "persistent" });
            request["session"] = json!("talk");
            let run = harness.submit(request).await;
            let state = harness.wait_completed(&run).await;
            let served = provider.served("input") - before;
            before += served;
            let places: Vec<u64> = provider.calls().iter().skip(2 * round).map(|call| call["place"].as_u64().unwrap()).collect();
            assert_eq!(places, [2 * round as u64, 2 * round as u64 + 1], "{cli}: it heard what was said before");
            let usage = &state["usage"];
            assert_eq!(
                (&usage["tokens"]["input"], &usage["turns"], &usage["tool_calls"]),
                (&json!(served), &json!(2), &json!(1)),
                "{cli}: {usage}"
            );
            assert!(state["result"]["files"].to_string().contains(path), "{cli}");
            let record = harness.get(&format!("/api/v1/runs/{run}/artifacts/fix.1.record.json")).await;
            sessions.push(record["session"].as_str().unwrap().to_owned());
            println!("{cli} round {}: {usage}; told by itself: {}", round + 1, record["told"]);
        }
        assert_eq!(sessions[0], sessions[1], "{cli}");
        harness.close().await;
    }
}
