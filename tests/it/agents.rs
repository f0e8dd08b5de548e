//! Agent steps: what an agent did, what it used and how it ended is what every surface shows, whatever happens to it.

use hopyard_contract::calls::CALLS_FILE;
use serde_json::{Value, json};

use crate::harness::api::{on_repo, step_of, steps};
use crate::harness::dice::Dice;
use crate::harness::programs::run_beside;
use crate::harness::provider::{KEY, Provider};
use crate::harness::wait::eventually;
use crate::harness::{Harness, Setup};

/// An agent step that plays these lines.
pub fn fake(lines: &[Value]) -> Value {
    let script: String = lines.iter().map(|line| format!("{line}\n")).collect();
    json!({ "id": "fix", "agent": { "cli": "fake", "prompt": "fix it", "script": script } })
}

pub fn write(path: &str, text: &str) -> Value {
    json!({ "name": "Write", "input": { "file_path": path, "content": text } })
}

/// What an agent does, what it plays, and how its run ends: status, code, a part of the words.
type Ending = (&'static str, Vec<Value>, &'static str, Option<&'static str>, &'static str);

/// The record of the agent of a step's first attempt.
async fn record(harness: &Harness, run: &str) -> Value {
    harness.get(&format!("/api/v1/runs/{run}/artifacts/fix.1.record.json")).await
}

/// Covers D3, D14, G1, G2, G4, G5 and H15: the case of the seed, to the cent.
#[tokio::test]
async fn an_agents_work_and_what_it_used_are_the_same_on_every_surface() {
    let mut harness = Harness::start(Setup { metrics: true, ..Setup::default() }).await;
    let repo = harness.repo(&[&[("README.md", "x\n")]]);
    let used = json!({ "usage": { "input": 1200, "output": 60, "cache_read": 800, "cache_write": 300, "cost_microusd": 27_175 } });
    let say = |text: &str| json!({ "say": text });
    let agent =
        fake(&[used, say("I look."), say("I think."), json!({ "use": [write("report.md", "done\n")] }), say("The report is written.")]);
    let run = harness.submit(on_repo(&repo, json!([agent]))).await;
    let state = harness.wait_completed(&run).await;

    let usage = json!({ "cost_microusd": 108_700, "tokens": { "input": 4800, "output": 240, "cache_read": 3200, "cache_write": 1200 }, "turns": 4, "tool_calls": 1 });
    let step = step_of(&state, "fix");
    assert_eq!((&state["usage"], &step["usage"], &step["attempts"][0]["usage"], &step["kind"]), (&usage, &usage, &usage, &json!("agent")));
    let events = harness.events(&run).await;
    let completed = events.iter().find(|event| event["type"] == "attempt.completed").unwrap();
    assert_eq!(completed["data"]["usage"], usage);
    assert_eq!(state["result"]["files"], json!([{ "path": "report.md", "status": "added", "insertions": 1, "deletions": 0 }]));

    let record = record(&harness, &run).await;
    assert_eq!((&record["usage"], &record["end"], &record["answer"]), (&usage, &json!("completed"), &json!("The report is written.")));
    assert_eq!(record["told"]["turns"], 4, "its own count is beside ours");
    let tool = &record["tools"][0];
    assert_eq!((&tool["name"], &tool["input"]["file_path"], &tool["failed"]), (&json!("Write"), &json!("report.md"), &json!(false)));
    assert!(record["session"].is_string() && tool["called_at"].as_str() <= tool["ended_at"].as_str(), "{record:#}");

    let sums = harness.get("/api/v1/usage").await;
    assert_eq!(sums["items"][0]["usage"], usage, "{sums:#}");
    let by_repository = harness.get("/api/v1/usage?by=repository").await;
    let of_repository = &by_repository["items"][0];
    assert_eq!((&of_repository["repository"], &of_repository["usage"]), (&state["repo"]["url"], &usage), "{by_repository:#}");
    let sample = format!("hopyard_cost_usd_total{{workflow=\"{}\"}}", state["workflow"].as_str().unwrap());
    let counted = async || (harness.metric("metrics", &sample).await == 0.1087).then_some(()).ok_or("not counted yet");
    eventually("the metric has the cost", counted).await;
    let of_repository = format!("hopyard_repository_cost_usd_total{{repository=\"{}\"}}", state["repo"]["url"].as_str().unwrap());
    assert_eq!(harness.metric("metrics", &of_repository).await, 0.1087);
    harness.close().await;
}

/// Covers B15, H13, X13 and the endings of the issue: the agent's own word decides, its silence is told, and work is kept in any case.
#[tokio::test]
async fn an_agents_step_ends_as_the_agent_says_and_its_work_is_kept() {
    let mut harness = Harness::start(Setup::default()).await;
    let repo = harness.repo(&[&[("README.md", "x\n")]]);
    let work = || json!({ "use": [write("work.txt", "kept\n")] });
    let cases: [Ending; 8] = [
        (
            "gives up",
            vec![work(), json!({ "end": { "failed": "the tests do not pass" } })],
            "failed",
            Some("agent_error"),
            "the tests do not pass",
        ),
        ("is out of turns by its own count", vec![work(), json!({ "end": "max_turns" })], "failed", Some("max_turns"), "its work is kept"),
        (
            "is out of money by its own count",
            vec![work(), json!({ "end": "budget" })],
            "failed",
            Some("budget_exceeded"),
            "its work is kept",
        ),
        (
            "dies without a word",
            vec![work(), json!({ "stderr": "panic: out of luck" }), json!({ "exit": 3 })],
            "failed",
            Some("agent_error"),
            "panic: out of luck",
        ),
        (
            "ends well with a bad exit code",
            vec![work(), json!({ "end": { "completed": "done" } }), json!({ "exit": 9 })],
            "completed",
            None,
            "",
        ),
        ("goes on after its end", vec![work(), json!({ "end": { "completed": "done" } }), json!({ "hang": true })], "completed", None, ""),
        ("falls silent", vec![work(), json!({ "hang": true })], "failed", Some("idle_timeout"), "`tool_result`"),
        (
            "says what nobody understands",
            vec![json!({ "print": "not json {" }), json!({ "print": { "type": "news" } }), json!({ "flood": 11_000_000 }), work()],
            "completed",
            None,
            "",
        ),
    ];
    let runs = cases.iter().map(|(name, lines, ..)| {
        let mut step = fake(lines);
        if *name == "falls silent" {
            step["idle_timeout"] = json!("2s");
        }
        harness.submit(on_repo(&repo, json!([step])))
    });
    let runs = futures::future::join_all(runs).await;
    for ((name, _, status, code, words), run) in cases.iter().zip(runs) {
        let state = harness.wait_final(&run).await;
        assert_eq!((state["status"].as_str(), state["failure_code"].as_str()), (Some(*status), *code), "{name}: {state:#}");
        assert!(state["error"]["message"].as_str().unwrap_or_default().contains(words), "{name}: {}", state["error"]);
        assert_eq!(state["result"]["files"][0]["path"], "work.txt", "{name}");
        assert_eq!(state["usage"]["tool_calls"], 1, "{name}");
    }
    harness.close().await;
}

/// Covers C18's half and trap 4: what is not permitted is not done, and is seen though the agent calls it a success.
#[tokio::test]
async fn a_tool_that_is_not_permitted_is_in_the_record() {
    let harness = Harness::start(Setup::default()).await;
    let mut step = fake(&[json!({ "use": [write("a.txt", "x"), { "name": "Read" }] })]);
    step["agent"]["permissions"] = json!("read");
    let run = harness.submit(steps(json!([step]))).await;
    harness.wait_completed(&run).await;
    let tools = record(&harness, &run).await["tools"].clone();
    assert_eq!((&tools[0]["denied"], &tools[1]["denied"]), (&json!(true), &json!(false)), "{tools:#}");
    harness.close().await;
}

/// Covers G3.
#[tokio::test]
async fn a_run_that_is_killed_in_its_tenth_turn_keeps_what_ten_turns_used() {
    let harness = Harness::start(Setup::default()).await;
    let usage = json!({ "usage": { "input": 100, "output": 10, "cache_read": 0, "cache_write": 0, "cost_microusd": 0 } });
    let turns = json!({ "repeat": { "times": 10, "lines": [{ "use": [{ "name": "Read", "input": { "file_path": "{n}.txt" } }] }] } });
    let mut step = fake(&[usage, turns, json!({ "hang": true })]);
    step["agent"]["model"] = json!("claude-sonnet-4-5");
    let run = harness.submit(steps(json!([step]))).await;
    // A renewal tells it while the step runs.
    let ten = async || {
        let state = harness.run(&run).await;
        if state["usage"]["turns"] == 10 { Ok(state) } else { Err(state["usage"].clone()) }
    };
    let state = eventually("ten turns", ten).await;
    let wanted = json!({ "cost_microusd": 4500, "tokens": { "input": 1000, "output": 100, "cache_read": 0, "cache_write": 0 }, "turns": 10, "tool_calls": 10 });
    assert_eq!((&state["status"], &state["usage"]), (&json!("running"), &wanted), "priced by the table while it runs");
    harness.cancel(&run, json!({})).await;
    let state = harness.wait_final(&run).await;
    assert_eq!((&state["status"], &state["usage"]), (&json!("killed"), &wanted));
    harness.close().await;
}

/// Covers B15: a missing program is told at once, with the path that was searched.
#[tokio::test]
async fn a_program_that_is_not_there_fails_at_once_with_the_searched_path() {
    let harness = Harness::start(Setup { settings: vec![("STEP_PATH", "/usr/bin:/bin".into())], ..Setup::default() }).await;
    let request = steps(json!([{ "id": "fix", "agent": { "cli": "claude", "prompt": "x" } }]));
    let state = harness.finish(request).await;
    assert_eq!((&state["failure_code"], &state["usage"]["cost_microusd"]), (&json!("setup_error"), &json!(0)));
    let words = state["error"]["message"].as_str().unwrap();
    assert!(words.contains("program claude not found, searched /usr/bin:/bin"), "{words}");
    harness.close().await;
}

/// Covers G9 and the canary of the issue: the gateway counts what the provider served, and its key is nowhere else.
#[tokio::test]
async fn what_a_provider_served_is_what_is_counted_and_its_key_is_nowhere() {
    let reply =
        |input: u64, output: u64| json!({ "text": "ok", "usage": { "input": input, "output": output, "cache_read": 7, "cache_write": 3 } });
    let busy = json!({ "text": "busy", "status": 429, "retry_after": 0, "times": 1 });
    let provider = Provider::start(&[reply(1000, 50), busy, reply(2500, 75), reply(10, 1)]);
    let settings = provider.settings("anthropic", "concurrency = 2").display().to_string();
    let mut harness = Harness::start(Setup { settings: vec![("CONFIG", settings)], ..Setup::default() }).await;
    let repo = harness.repo(&[&[("README.md", "x\n")]]);
    let helper = json!({ "name": "Task", "helper": [{ "say": "I help." }] });
    let mut step = fake(&[json!({ "use": [write("a.txt", "x\n"), helper] }), json!({ "say": "done" })]);
    step["agent"]["model"] = json!("stub/claude-sonnet-4-5");
    step["agent"]["gateway"] = json!("on");
    let run = harness.submit(on_repo(&repo, json!([step, { "id": "look", "needs": ["fix"], "shell": "env; ls -la" }]))).await;
    let state = harness.wait_completed(&run).await;
    let tokens = ["input", "output", "cache_read", "cache_write"].map(|kind| (kind, provider.served(kind)));
    for (kind, served) in tokens {
        assert_eq!(state["usage"]["tokens"][kind], served, "{kind}");
    }
    assert_eq!((&state["usage"]["turns"], &state["usage"]["tool_calls"]), (&json!(2), &json!(2)), "a helper's turns are not the agent's");
    let record = record(&harness, &run).await;
    let calls = record["calls"].as_array().unwrap();
    let statuses: Vec<u64> = calls.iter().map(|call| call["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 429, 200, 200], "{calls:#?}");
    assert!(calls.iter().all(|call| call["provider"] == "stub" && call["took_ms"].is_u64()), "{calls:#?}");
    assert_eq!(calls[0]["model"], "claude-sonnet-4-5");
    // The executor tells of calls as they are made, long before their run has ended.
    let metric = async |sample: &str| harness.metric("executor-1", sample).await;
    assert_eq!(metric("hopyard_model_calls_total{provider=\"stub\",status=\"200\"}").await, 3.0);
    assert_eq!(metric("hopyard_model_tokens_total{kind=\"input\",provider=\"stub\"}").await, provider.served("input") as f64);
    assert_eq!(metric("hopyard_model_calls_open{provider=\"stub\"}").await, 0.0);
    let cost: u64 = calls.iter().filter_map(|call| call["cost_microusd"].as_u64()).sum();
    assert_eq!(state["usage"]["cost_microusd"], cost);
    assert!(cost > 0);

    let mut found = Vec::new();
    look_for(KEY.as_bytes(), harness.dir(), &mut found);
    assert!(found.is_empty(), "the key of the provider is in {found:?}");
    harness.close().await;
}

/// Files below a directory that hold these bytes.
fn look_for(needle: &[u8], dir: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
    // A workspace may go meanwhile.
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        entries => entries.unwrap(),
    };
    for entry in entries.flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            look_for(needle, &entry.path(), found);
        } else if kind.is_file() && std::fs::read(entry.path()).unwrap_or_default().windows(needle.len()).any(|part| part == needle) {
            found.push(entry.path());
        }
    }
}

/// Covers X4: a program whose own sums are others than what was counted changes nothing, and is told.
#[tokio::test]
async fn sums_of_a_program_that_differ_are_a_note_and_not_a_choice() {
    let provider = Provider::start(&[json!({ "usage": { "input": 100, "output": 10 } })]);
    let settings = provider.settings("anthropic", "").display().to_string();
    let harness = Harness::start(Setup { settings: vec![("CONFIG", settings)], ..Setup::default() }).await;
    let wrong =
        json!({ "type": "result", "subtype": "success", "total_cost_usd": 9.5, "usage": { "input_tokens": 7, "output_tokens": 1 } });
    let mut step = fake(&[json!({ "say": "done" }), json!({ "end": { "completed": "done" } }), json!({ "print": wrong })]);
    step["agent"]["model"] = json!("claude-sonnet-4-5");
    let run = harness.submit(steps(json!([step]))).await;
    let state = harness.wait_completed(&run).await;
    let attempt = &step_of(&state, "fix")["attempts"][0];
    let note = attempt["note"].as_str().unwrap_or_default();
    assert!(note.contains("9500000 millionths of a dollar, 450 were counted"), "{attempt:#}");
    assert_eq!((&state["usage"]["cost_microusd"], &state["usage"]["tokens"]["input"]), (&json!(450), &json!(100)));
    let events = harness.events(&run).await;
    assert_eq!(events.iter().find(|event| event["type"] == "attempt.completed").unwrap()["data"]["note"], note);
    assert_eq!(harness.metric("executor-1", "hopyard_agent_usage_differences_total{cli=\"fake\",what=\"cost\"}").await, 1.0);
    harness.close().await;
}

/// Covers G3 and X4: money that a dead executor spent is counted once.
#[tokio::test]
async fn what_an_agent_used_survives_the_death_of_its_executor() {
    let provider = Provider::start(&[]);
    let settings = provider.settings("anthropic", "").display().to_string();
    let mut harness = Harness::start(Setup { settings: vec![("CONFIG", settings)], ..Setup::default() }).await;
    let turns = json!({ "repeat": { "times": 3, "lines": [{ "say": "turn {n}" }] } });
    // The first attempt hangs after three turns; the second finds the file and ends.
    let step = json!({ "id": "fix", "agent": { "cli": "fake", "prompt": "x", "model": "claude-sonnet-4-5",
        "script": format!("{turns}\n{}\n", json!({ "hang": true })) }, "timeout": "8s" });
    let run = harness.submit(steps(json!([step]))).await;
    harness.wait_running(&run, "fix").await;
    // Not when the provider has answered, but when the executor has written down what it passed on: killed in between, it knows
    // nothing of the third call.
    let ledger = harness.hosts()[0].join("spool/executor-1").join(format!("{run}.fix.1")).join(CALLS_FILE);
    let three = async || {
        let kept = std::fs::read_to_string(&ledger).map_or(0, |text| text.lines().count());
        (kept == 3).then_some(()).ok_or(kept)
    };
    eventually("three calls", three).await;
    harness.kill9("executor-1").await;
    harness.start_service("executor-1").await;
    let state = harness.wait_final(&run).await;
    assert_eq!(state["failure_code"], "timeout", "the second attempt hangs too: {state:#}");
    let attempts = step_of(&state, "fix")["attempts"].as_array().unwrap();
    assert_eq!((attempts.len(), &attempts[0]["status"]), (2, &json!("lost")));
    assert_eq!(provider.calls().len(), 6);
    for kind in ["input", "output"] {
        assert_eq!(state["usage"]["tokens"][kind], provider.served(kind), "{kind}");
    }
    harness.close_after_faults().await;
}

/// Covers B7: long runs with parallel tools and helpers end well under load, though executors are killed again and again. Fifty of
/// them; `HOPYARD_COMPLEX_RUNS` asks for another number, such as the 200 of the row.
#[tokio::test]
async fn complex_runs_complete_while_executors_die() {
    let wanted =
        hopyard_runtime::config::environment("HOPYARD_COMPLEX_RUNS").map_or(50, |number| number.parse().expect("a number of runs"));
    let provider = Provider::start(&[]);
    let settings = provider.settings("anthropic", "").display().to_string();
    let setup = Setup { settings: vec![("CONFIG", settings)], executors: 3, slots: 8, ..Setup::default() };
    let mut harness = Harness::start(setup).await;
    let repo = harness.repo(&[&[("README.md", "x\n")]]);
    let read = |path: &str| json!({ "name": "Read", "input": { "file_path": path } });
    let round = json!({ "use": [read("a{n}.txt"), write("out/{n}.txt", "{n}\n"), { "name": "mcp__db__query" }] });
    let helper = json!({ "use": [{ "name": "Task", "helper": [{ "use": [read("b.txt")] }, { "say": "helped" }] }, { "name": "Grep" }] });
    let lines = [json!({ "repeat": { "times": 14, "lines": [round, { "wait_ms": 20 }] } }), helper, json!({ "say": "done" })];
    let submissions = (0..wanted).map(|index| {
        let mut step = fake(&lines);
        step["agent"]["model"] = json!(format!("claude-sonnet-4-5-{index}"));
        harness.submit(on_repo(&repo, json!([step])))
    });
    let runs = futures::future::join_all(submissions).await;
    let mut dice = Dice::new(7, 0);
    // A step may lose its executor three times before it fails.
    for _ in 0..3 {
        let before = provider.calls().len();
        let more = async || (provider.calls().len() > before + 100).then_some(()).ok_or("no calls");
        eventually("agents work", more).await;
        let name = format!("executor-{}", 1 + dice.below(3));
        harness.kill9(&name).await;
        harness.start_service(&name).await;
    }
    let mut lost = 0;
    for (index, run) in runs.iter().enumerate() {
        let state = harness.wait_final(run).await;
        assert_eq!(state["status"], "completed", "{state:#}");
        let attempts = step_of(&state, "fix")["attempts"].as_array().unwrap();
        let last = attempts.last().unwrap();
        assert_eq!((&last["usage"]["turns"], &last["usage"]["tool_calls"]), (&json!(16), &json!(45)), "run {index}");
        assert_eq!(state["result"]["files"].as_array().unwrap().len(), 14);
        let model = format!("claude-sonnet-4-5-{index}");
        let served = provider.calls().iter().filter(|call| call["model"] == model.as_str()).count() as u64;
        let counted = state["usage"]["tokens"]["output"].as_u64().unwrap() / 50;
        let died = attempts.len() as u64 - 1;
        lost += died;
        // An executor that is killed while an answer passes by has not written that one down.
        assert!(counted <= served && served - counted <= died, "run {index}: {served} served, {counted} counted, {died} attempts lost");
    }
    assert!(lost > 0, "the kills hit nothing");
    harness.close_after_faults().await;
}

#[tokio::test]
async fn a_provider_can_be_asked_whether_address_key_and_model_are_right() {
    let provider = Provider::start(&[]);
    let settings = provider.settings("anthropic", "rpm = 50");
    let ask = async |args: &[&str]| {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let env = vec![("HOPYARD_CONFIG".to_owned(), settings.display().to_string())];
        let output = run_beside(env!("CARGO_BIN_EXE_hopyard").into(), args, provider.dir().to_owned(), env).await;
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, listed, _) = ask(&["providers", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((code, &listed["items"][0]["name"], &listed["items"][0]["rpm"]), (Some(0), &json!("stub"), &json!(50)));
    let (code, answered, _) = ask(&["providers", "test", "stub", "--model", "m", "--json"]).await;
    let answered: Value = serde_json::from_str(&answered).unwrap();
    assert_eq!((code, &answered["items"][0]["status"], &answered["items"][0]["tokens"]["input"]), (Some(0), &json!(200), &json!(1000)));
    let (code, _, words) = ask(&["providers", "test", "other", "--model", "m"]).await;
    assert!(code == Some(1) && words.contains("there is no provider `other`"), "{words}");
    std::fs::write(provider.dir().join("key"), "another").unwrap();
    let (code, answered, _) = ask(&["providers", "test", "stub", "--model", "m", "--json"]).await;
    assert!(code == Some(1) && answered.contains("the key is not valid"), "{answered}");
}

/// Covers C18: what an agent changes that may only look is kept, and told as what it is.
#[tokio::test]
async fn an_agent_that_may_only_read_and_changes_files_fails() {
    let mut harness = Harness::start(Setup::default()).await;
    let repo = harness.repo(&[&[("README.md", "x\n")]]);
    // A program that does not keep to what it was told: another one that is found by the same name.
    let bin = harness.dir().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let script = "#!/bin/sh\necho changed > README.md\necho '{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"result\":\"looked\"}'\n";
    std::fs::write(bin.join("claude"), script).unwrap();
    std::fs::set_permissions(bin.join("claude"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    harness.set("executor", "HOPYARD_STEP_PATH", &format!("{}:/usr/bin:/bin", bin.display()));
    harness.stop_service("executor-1").await;
    harness.start_service("executor-1").await;
    let agent = json!({ "cli": "claude", "prompt": "x", "permissions": "read" });
    let state = harness.finish(on_repo(&repo, json!([{ "id": "look", "agent": agent }]))).await;
    assert_eq!((&state["status"], &state["failure_code"]), (&json!("failed"), &json!("policy_denied")), "{state:#}");
    assert_eq!(state["result"]["files"][0]["path"], "README.md", "kept all the same");
    harness.close().await;
}

/// Covers D11 and H16: a retry goes on with the conversation and the work of the attempt that failed, and so does a later run of
/// the session; without `resume` both are new.
#[tokio::test]
async fn a_conversation_is_gone_on_with_by_a_retry_and_by_a_later_run_of_its_session() {
    let mut harness = Harness::start(Setup::default()).await;
    let repo = harness.repo(&[&[("README.md", "x\n")]]);
    // It fails as long as its first attempt's file is not there.
    let lines = [json!({ "use": [write("first.txt", "1\n")] }), json!({ "end": { "failed": "not yet" } }), json!({ "exit": 1 })];
    let session = |record: &Value| record["session"].as_str().map(str::to_owned).unwrap();
    let step = |resume: bool, lines: &[Value]| {
        let mut step = fake(lines);
        step["agent"]["resume"] = json!(resume);
        step["retry"] = json!({ "max_attempts": 2, "backoff": { "initial": "1ms" } });
        step
    };
    for resume in [true, false] {
        let run = harness.submit(on_repo(&repo, json!([step(resume, &lines)]))).await;
        let state = harness.wait_final(&run).await;
        assert_eq!(step_of(&state, "fix")["attempts"].as_array().unwrap().len(), 2);
        let second = harness.get(&format!("/api/v1/runs/{run}/artifacts/fix.2.record.json")).await;
        assert_eq!(session(&record(&harness, &run).await) == session(&second), resume);
    }
    let mut sessions = Vec::new();
    for path in ["one.txt", "two.txt"] {
        let mut request = on_repo(&repo, json!([step(true, &[json!({ "use": [write(path, "x\n")] })])]));
        request["definition"]["workspace"] = json!({ "mode": "persistent" });
        request["session"] = json!("talk");
        let run = harness.submit(request).await;
        let state = harness.wait_completed(&run).await;
        sessions.push(session(&record(&harness, &run).await));
        assert!(state["result"]["files"].to_string().contains(path) && !state["result"]["files"].to_string().contains("hopyard-home"));
    }
    assert_eq!(sessions[0], sessions[1]);
    harness.close().await;
}

/// A program that no adapter knows: what its lines say is found by path, and its exit tells how it ended where they do not.
#[tokio::test]
async fn any_program_can_be_an_agent() {
    let harness = Harness::start(Setup::default()).await;
    let said = r#"{"sid":"s-1"}
{"id":"m1","say":"I look","call":{"id":"c1","name":"grep","args":{"q":"x"}},"in":100,"out":7,"usd":0.002}
{"re":"c1","out_text":"nothing"}
no JSON
{"id":"m2","say":"done","in":120,"out":9,"usd":0.003,"over":true}"#;
    let paths = json!({
        "session": "$.sid", "turn": "$.id", "text": "$.say", "tool_id": "$.call.id", "tool_name": "$.call.name", "tool_input": "$.call.args",
        "result_id": "$.re", "result_output": "$.out_text", "input_tokens": "$.in", "output_tokens": "$.out", "cost_usd": "$.usd", "done": "$.over",
    });
    let agent = |script: &str, map: Value| {
        let command = json!(["sh", "-c", format!("cat > prompt.txt; cat <<'E'\n{said}\nE\n{script}")]);
        steps(json!([{ "id": "fix", "agent": { "cli": "generic", "prompt": "do it", "command": command, "map": map } }]))
    };
    let run = harness.submit(agent("exit 3", paths.clone())).await;
    let state = harness.wait_completed(&run).await;
    let usage = json!({ "cost_microusd": 5000, "tokens": { "input": 220, "output": 16, "cache_read": 0, "cache_write": 0 }, "turns": 2, "tool_calls": 1 });
    assert_eq!(state["usage"], usage, "its own word counts, not the code of its exit");
    let record = record(&harness, &run).await;
    assert_eq!((&record["session"], &record["answer"], &record["tools"][0]["name"]), (&json!("s-1"), &json!("done"), &json!("grep")));
    assert_eq!((&record["tools"][0]["output"], &record["unknown_lines"]), (&json!("nothing"), &json!(1)));

    let mut silent = paths;
    silent.as_object_mut().unwrap().remove("done");
    for (script, status) in [("exit 0", "completed"), ("exit 3", "failed")] {
        let run = harness.submit(agent(script, silent.clone())).await;
        assert_eq!(harness.wait_final(&run).await["status"], status, "{script}");
    }
    let problem = harness.http("POST", "/api/v1/runs", agent("", json!({ "turn": "id" }))).await.expect(422).json();
    assert_eq!(
        (&problem["errors"][0]["code"], &problem["errors"][0]["pointer"]),
        (&json!("jsonpath"), &json!("/definition/steps/0/agent/map/turn"))
    );
    harness.close().await;
}
