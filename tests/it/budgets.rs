//! Budgets and limits: what may be spent is kept to before it is spent, and what cannot go on now goes on later by itself.

use serde_json::{Value, json};

use crate::agents::{fake, write};
use crate::harness::api::{on_repo, step_of, steps};
use crate::harness::dice::Dice;
use crate::harness::provider::Provider;
use crate::harness::wait::eventually;
use crate::harness::{Engine, Harness, Setup};

/// Covers X3: two streams of calls pass a budget by one call each at most, and never stop before it.
#[tokio::test]
async fn twenty_budgets_are_kept_to_a_call() {
    // At the prices of this model a reply of the provider costs 3,750 millionths.
    const CALL: u64 = 3750;
    let provider = Provider::start(&[]);
    let settings = provider.settings("anthropic", "").display().to_string();
    let harness = Harness::start(Setup { settings: vec![("CONFIG", settings)], slots: 8, ..Setup::default() }).await;
    let mut dice = Dice::new(20, 0);
    let budgets: Vec<u64> = (0..20).map(|_| 4000 + dice.below(66_000) as u64).collect();
    let runs = budgets.iter().enumerate().map(|(index, budget)| {
        let turns = json!({ "repeat": { "times": 12, "lines": [{ "say": "turn {n}" }] } });
        let step = |id: &str| json!({ "id": id, "agent": { "cli": "fake", "prompt": "x", "script": turns.to_string(), "model": format!("claude-sonnet-4-5-{index}") } });
        let mut request = steps(json!([step("left"), step("right")]));
        request["definition"]["workspace"] = json!({ "mode": "none" });
        request["budget"] = json!({ "cost_microusd": budget });
        harness.submit(request)
    });
    let runs = futures::future::join_all(runs).await;
    for (index, (budget, run)) in budgets.into_iter().zip(runs).enumerate() {
        let state = harness.wait_final(&run).await;
        let spent = state["usage"]["cost_microusd"].as_u64().unwrap();
        let model = format!("claude-sonnet-4-5-{index}");
        let served = provider.calls().iter().filter(|call| call["model"] == model.as_str()).count() as u64;
        assert_eq!(spent, served * CALL, "what was served is what is counted");
        assert_eq!((&state["status"], &state["failure_code"]), (&json!("failed"), &json!("budget_exceeded")), "{budget}: {state:#}");
        assert!(spent >= budget && spent < budget + 2 * CALL, "a budget of {budget}, {spent} spent");
        let types = harness.event_types(&run).await;
        assert_eq!(types.iter().filter(|kind| *kind == "run.budget_warned").count(), 1, "{types:?}");
    }
    harness.close().await;
}

/// Covers X3 for agents that have keys of their own.
#[tokio::test]
async fn an_agent_without_a_gateway_is_ended_when_its_budget_is_spent() {
    let harness = Harness::start(Setup::default()).await;
    let usage = json!({ "usage": { "cost_microusd": 600 } });
    let step = fake(&[usage, json!({ "say": "one" }), json!({ "say": "two" }), json!({ "hang": true })]);
    let mut request = steps(json!([step]));
    request["definition"]["steps"][0]["agent"]["model"] = json!("claude-sonnet-4-5");
    request["budget"] = json!({ "cost_microusd": 1000 });
    let state = harness.finish(request).await;
    assert_eq!(
        (&state["status"], &state["failure_code"], &state["usage"]["turns"]),
        (&json!("failed"), &json!("budget_exceeded"), &json!(2))
    );
    harness.close().await;
}

/// Covers X3: runs that share a budget of the day never spend more of it than a call each, what is at work when it is spent is
/// paused with its work, and what comes after that waits, or is refused where the settings say so.
#[tokio::test]
async fn a_budget_of_the_day_is_shared_by_the_runs_of_a_workflow() {
    for policy in ["wait", "reject"] {
        let provider = Provider::start(&vec![json!({ "usage": { "input": 1000, "output": 0 } }); 40]);
        let settings = provider.settings("anthropic", "");
        let text = std::fs::read_to_string(&settings).unwrap();
        std::fs::write(&settings, format!("{text}\n[budgets]\non_spent = \"{policy}\"\n[budgets.workflows]\n\"*\" = 0.06\n")).unwrap();
        let store = if policy == "wait" { Engine::Sqlite } else { Engine::Postgres };
        let schedulers = if policy == "wait" { 1 } else { 2 };
        let settings = vec![("CONFIG", settings.display().to_string())];
        let harness = Harness::start(Setup { settings, store, schedulers, ..Setup::default() }).await;
        let script: Vec<Value> = (0..15).map(|turn| json!({ "say": format!("turn {turn}") })).collect();
        let mut step = fake(&script);
        step["agent"]["model"] = json!("claude-sonnet-4-5");
        let one = || steps(json!([step]));
        // Each would use 15 calls of 3,000 millionths; together they may use 20.
        let runs = futures::future::join_all((0..3).map(|_| harness.submit(one()))).await;
        let rests =
            |state: &Value| state["status"] == "completed" || state["status"] == "paused" || state["pending_reason"] == "awaiting_budget";
        let mut states = Vec::new();
        for run in &runs {
            // That a run waits for the next day is no event.
            let rested = async || Some(harness.run(run).await).filter(rests).ok_or("it goes on");
            states.push(eventually("the run rests", rested).await);
        }
        let spent = provider.served("input") * 3;
        assert!((60_000..60_000 + 3 * 3000).contains(&spent), "{policy}: {spent} spent");
        let paused: Vec<&Value> = states.iter().filter(|state| state["status"] == "paused").collect();
        for state in &paused {
            assert_eq!(
                (&state["paused_reason"], &step_of(state, "fix")["attempts"][0]["failure_code"]),
                (&json!("budget"), &json!("budget_exceeded"))
            );
            assert!(step_of(state, "fix")["resume_at"].as_str().is_some_and(|at| at.contains("T00:00:0")), "{state:#}");
        }
        assert!(!paused.is_empty(), "{states:#?}");
        if policy == "reject" {
            let problem = harness.http("POST", "/api/v1/runs", one()).await.expect(422).json();
            assert_eq!(problem["errors"][0]["code"], "budget_spent", "{problem:#}");
            let shell = harness.submit(steps(json!([{ "id": "a", "shell": "true" }]))).await;
            harness.wait_completed(&shell).await;
        } else {
            let late = harness.submit(one()).await;
            let waits =
                async || (harness.run(&late).await["pending_reason"] == "awaiting_budget").then_some(()).ok_or("it does not wait yet");
            eventually("the late run waits for the next day", waits).await;
            let explained = harness.get(&format!("/api/v1/runs/{late}/explain")).await;
            assert!(explained["blockers"][0]["until"].is_string(), "{explained:#}");
            harness.cancel(&late, Value::Null).await.expect(202);
        }
        for run in &runs {
            harness.cancel(run, Value::Null).await;
            harness.wait_final(run).await;
        }
        harness.close().await;
    }
}

/// Covers X11: a provider that takes no calls for long pauses the run, which goes on by itself with the same conversation and what
/// was written; no other step of the executor asks it meanwhile, and what it was told is what `explain` says.
#[tokio::test]
async fn a_long_limit_of_the_provider_pauses_the_run_which_goes_on_by_itself() {
    let replies =
        [json!({}), json!({ "status": 429, "text": "the window is used up", "retry_after": 3, "times": 1 }), json!({}), json!({})];
    let provider = Provider::start(&replies);
    let settings = provider.settings("anthropic", "patience = \"1s\"").display().to_string();
    let mut harness = Harness::start(Setup { settings: vec![("CONFIG", settings)], ..Setup::default() }).await;
    let repo = harness.repo(&[&[("README.md", "x\n")]]);
    let mut step = fake(&[json!({ "use": [write("kept.txt", "1\n")] }), json!({ "say": "done" })]);
    step["agent"]["model"] = json!("claude-sonnet-4-5");
    let run = harness.submit(on_repo(&repo, json!([step]))).await;
    let is_paused = |state: &Value| state["status"] == "paused";
    let paused = harness.wait_for(&run, is_paused).await;
    assert_eq!(paused["paused_reason"], "usage_limit");
    let resume_at = step_of(&paused, "fix")["resume_at"].as_str().unwrap().to_owned();
    let explained = harness.get(&format!("/api/v1/runs/{run}/explain")).await;
    assert_eq!((&explained["status"], &explained["blockers"][0]["until"]), (&json!("paused"), &json!(resume_at)));
    // Another run of the same provider is paused without a call.
    let calls = provider.calls().len();
    let mut other = fake(&[json!({ "say": "me too" })]);
    other["agent"]["model"] = json!("claude-sonnet-4-5");
    let second = harness.submit(on_repo(&repo, json!([other]))).await;
    harness.wait_for(&second, is_paused).await;
    assert_eq!(provider.calls().len(), calls);
    for run in [&run, &second] {
        let state = harness.wait_completed(run).await;
        let attempts = step_of(&state, "fix")["attempts"].clone();
        assert_eq!((&attempts[0]["failure_code"], &attempts[1]["status"]), (&json!("usage_limit_exhausted"), &json!("completed")));
        let events = harness.events(run).await;
        let paused = events.iter().find(|event| event["type"] == "step.paused").unwrap();
        assert!(attempts[1]["started_at"].as_str() >= paused["data"]["resume_at"].as_str(), "{attempts:#}");
    }
    let state = harness.wait_completed(&run).await;
    assert_eq!(state["result"]["files"][0]["path"], "kept.txt");
    let session = async |n: u32| harness.get(&format!("/api/v1/runs/{run}/artifacts/fix.{n}.record.json")).await["session"].clone();
    assert_eq!(session(1).await, session(2).await);
    harness.close().await;
}

/// All steps of an executor share what a provider may be asked at once.
#[tokio::test]
async fn calls_at_once_are_bounded_over_all_steps() {
    for (bound, most) in [("concurrency = 2", 2), ("", 8)] {
        let provider = Provider::start(&[json!({ "wait_ms": 300 })]);
        let settings = provider.settings("anthropic", bound).display().to_string();
        let harness = Harness::start(Setup { settings: vec![("CONFIG", settings)], slots: 8, ..Setup::default() }).await;
        let mut step = fake(&[json!({ "say": "hi" })]);
        step["agent"]["model"] = json!("claude-sonnet-4-5");
        let runs = futures::future::join_all((0..8).map(|_| harness.submit(steps(json!([step]))))).await;
        for run in &runs {
            harness.wait_completed(run).await;
        }
        let at_once = provider.calls().iter().map(|call| call["at_once"].as_u64().unwrap()).max().unwrap();
        assert!(at_once <= most && (most == 2 || at_once > 2), "{bound}: {at_once} at once");
        harness.close().await;
    }
}
