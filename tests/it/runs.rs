//! A submission becomes work and the work comes back: steps, order, conditions, outputs, inputs, retries, limits.

use serde_json::{Value, json};

use crate::harness::api::{definition, shell, step_of, steps};
use crate::harness::{Engine, Harness, Setup};

/// Covers C14, D1, D9, D10, D22, B5 and B9.
async fn an_echo_runs_to_its_end(engine: Engine) {
    let harness = Harness::start(Setup::on(engine)).await;
    let run = harness.submit(shell("echo hello; echo trouble >&2")).await;
    let state = harness.wait_completed(&run).await;
    assert_eq!(state["id"], run);
    assert_eq!(state["namespace"], "default");
    for time in ["created_at", "started_at", "finished_at"] {
        let text = state[time].as_str().unwrap_or_default();
        assert!(text.ends_with('Z') && text.len() == "2026-01-01T00:00:00.000000Z".len(), "{time}: {text}");
    }
    assert_eq!(state["usage"]["cost_microusd"], 0);
    let step = step_of(&state, "main");
    let attempt = &step["attempts"][0];
    assert_eq!(
        (&step["status"], &attempt["n"], &attempt["status"], &attempt["exit_code"]),
        (&json!("completed"), &json!(1), &json!("completed"), &json!(0))
    );
    assert_eq!((&attempt["executor"], &attempt["host"]), (&json!("executor-1"), &json!("host-1")));
    assert!(attempt["pid"].as_u64().is_some_and(|pid| pid > 1) && attempt["workspace"].is_string(), "{attempt}");
    assert_eq!(harness.stdout(&run, "main").await, "hello\n");
    assert_eq!(harness.log(&run, "main", 1, "stderr").await, b"trouble\n");

    let types = harness.event_types(&run).await;
    let at = |wanted: &str| types.iter().position(|t| t == wanted).unwrap_or_else(|| panic!("no {wanted} in {types:?}"));
    assert_eq!(types[0], "run.accepted");
    let order =
        ["run.accepted", "step.claimable", "attempt.leased", "attempt.running", "run.running", "attempt.completed", "run.completed"]
            .map(at);
    assert!(order[0] < order[1] && order[1] < order[2] && order[2] < order[3] && order[3] < order[5] && order[5] < order[6], "{types:?}");
    for once in ["run.accepted", "attempt.running", "attempt.completed", "run.completed"] {
        assert_eq!(types.iter().filter(|t| *t == once).count(), 1, "{types:?}");
    }
    harness.close().await;
}

#[tokio::test]
async fn an_echo_runs_to_its_end_on_sqlite() {
    an_echo_runs_to_its_end(Engine::Sqlite).await;
}

#[tokio::test]
async fn an_echo_runs_to_its_end_on_postgres() {
    an_echo_runs_to_its_end(Engine::Postgres).await;
}

/// Covers C5, C6, D15: parallel steps overlap, what needs them waits, values travel, conditions decide.
#[tokio::test]
async fn steps_follow_their_needs_and_conditions() {
    let harness = Harness::start(Setup::default()).await;
    let dir = harness.dir().display().to_string();
    // Each of the two waits for the other to have begun: only steps that overlap get past this.
    let meet = |own: &str, other: &str| {
        format!("touch {dir}/{own}; until [ -e {dir}/{other} ]; do sleep 0.05; done; echo from=\"$HOPYARD_STEP\" >> \"$HOPYARD_OUTPUT\"")
    };
    let request = steps(json!([
        { "id": "left", "shell": meet("l", "r") },
        { "id": "right", "shell": meet("r", "l") },
        { "id": "join", "needs": ["left", "right"], "env": { "L": "${{ steps.left.outputs.from }}", "R": "${{ steps.right.outputs.from }}" },
          "shell": "test \"$L+$R\" = left+right; echo sum=\"$L+$R=x y\" >> \"$HOPYARD_OUTPUT\"" },
        { "id": "broken", "needs": ["join"], "shell": "exit 7" },
        { "id": "after-broken", "needs": ["broken"], "shell": "true" },
        { "id": "rescue", "needs": ["broken"], "if": "failed()", "shell": "true" },
        { "id": "by-status", "needs": ["broken"], "if": "steps.broken.status == 'failed' && always()", "shell": "true" },
        { "id": "never", "needs": ["join"], "if": "steps.join.outputs.sum == 'other'", "shell": "true" },
    ]));
    let state = harness.finish(request).await;
    assert_eq!(
        (&state["status"], &state["failure_code"], &state["error"]["step"]),
        (&json!("failed"), &json!("exit_code"), &json!("broken")),
        "{state:#}"
    );
    let status = |step: &str| step_of(&state, step)["status"].as_str().unwrap_or_default().to_owned();
    for (step, wanted) in [
        ("left", "completed"),
        ("right", "completed"),
        ("join", "completed"),
        ("broken", "failed"),
        ("after-broken", "skipped"),
        ("rescue", "completed"),
        ("by-status", "completed"),
        ("never", "skipped"),
    ] {
        assert_eq!(status(step), wanted, "{step}");
    }
    assert_eq!(step_of(&state, "join")["outputs"], json!({ "sum": "left+right=x y" }));
    assert_eq!(step_of(&state, "broken")["attempts"][0]["exit_code"], 7);
    assert_eq!(state["result"]["outputs"]["join"]["sum"], "left+right=x y");
    let began = |step: &str| step_of(&state, step)["started_at"].as_str().unwrap_or_default().to_owned();
    let ended = |step: &str| step_of(&state, step)["finished_at"].as_str().unwrap_or_default().to_owned();
    assert!(began("left") < ended("right") && began("right") < ended("left"), "both ran at the same time");
    assert!(ended("left") <= began("join") && ended("right") <= began("join"), "what needs them waits");
    harness.close().await;
}

/// Covers A13, A15, D5 and D6.
#[tokio::test]
async fn values_reach_a_step_unchanged_and_nothing_else_does() {
    let harness = Harness::start(Setup { settings: vec![("STEP_PATH", "/usr/local/bin:/usr/bin:/bin".into())], ..Setup::default() }).await;
    let nasty = "a=b = 'c' \"d\" $HOME `id` \\n\nsecond line\ttab ünïcödé 💥 ";
    let request = json!({
        "definition": {
            "version": 1, "name": "values", "workspace": { "mode": "none" },
            "inputs": { "message": { "type": "string" }, "turns": { "type": "integer", "default": 20, "minimum": 1, "maximum": 100 } },
            "env": { "OVER": "workflow", "FIXED": "k=v=w" },
            "steps": [{ "id": "main", "env": { "MSG": "${{ inputs.message }}", "TURNS": "${{ inputs.turns }}", "OVER": "step" }, "shell": "env -0" }],
        },
        "inputs": { "message": nasty },
        "labels": { "team": "a b=c" },
    });
    let run = harness.submit(request).await;
    let state = harness.wait_completed(&run).await;
    assert_eq!(state["inputs"], json!({ "message": nasty, "turns": 20 }));
    assert_eq!(state["labels"], json!({ "team": "a b=c" }));
    let printed = harness.stdout(&run, "main").await;
    let env: std::collections::BTreeMap<&str, &str> = printed.split('\0').filter_map(|v| v.split_once('=')).collect();
    for (name, value) in [
        ("MSG", nasty),
        ("TURNS", "20"),
        ("OVER", "step"),
        ("FIXED", "k=v=w"),
        ("HOPYARD_RUN_ID", run.as_str()),
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ] {
        assert_eq!(env.get(name), Some(&value), "{name}");
    }
    assert_eq!(env["HOPYARD_ATTEMPT"], format!("{run}.main.1"));
    let allowed = ["MSG", "TURNS", "OVER", "FIXED", "PATH", "HOME", "TMPDIR", "LANG", "CI", "PWD", "SHLVL", "_", "OLDPWD"];
    let inherited: Vec<_> = env.keys().filter(|n| !allowed.contains(n) && !n.starts_with("HOPYARD_")).collect();
    assert!(inherited.is_empty(), "{inherited:?}");
    let ours = ["HOPYARD_NATS_URL", "HOPYARD_STORE_URL", "HOPYARD_BLOBS", "HOPYARD_DATA_DIR"];
    assert!(ours.iter().all(|name| !env.contains_key(name)), "settings of a service are not a step's");
    harness.close().await;
}

/// Covers C8: each try is a record of its own, the number only grows, and only what may be repeated is.
#[tokio::test]
async fn a_failed_step_is_tried_again_as_its_policy_says() {
    let harness = Harness::start(Setup::default()).await;
    let flag = harness.dir().join("tried");
    let retry = json!({ "max_attempts": 3, "backoff": { "initial": "100ms", "max": "1s" }, "on": ["exit_code"] });
    let script = format!("echo try >> {0}; [ $(wc -l < {0}) -ge 3 ]", flag.display());
    let state = harness.finish(steps(json!([{ "id": "main", "shell": script, "retry": retry }]))).await;
    assert_eq!(state["status"], "completed", "{state:#}");
    let attempts = step_of(&state, "main")["attempts"].as_array().unwrap().clone();
    let told: Vec<_> = attempts.iter().map(|a| (a["n"].as_u64(), a["status"].as_str(), a["failure_code"].as_str())).collect();
    assert_eq!(
        told,
        [(Some(1), Some("failed"), Some("exit_code")), (Some(2), Some("failed"), Some("exit_code")), (Some(3), Some("completed"), None)]
    );
    let types = harness.event_types(state["id"].as_str().unwrap()).await;
    assert_eq!(types.iter().filter(|t| *t == "step.retrying").count(), 2, "{types:?}");

    let state = harness.finish(steps(json!([{ "id": "main", "shell": "exit 3", "retry": { "max_attempts": 3, "backoff": { "initial": "100ms", "max": "1s" }, "on": ["timeout"] } }]))).await;
    assert_eq!((&state["status"], step_of(&state, "main")["attempts"].as_array().map(Vec::len)), (&json!("failed"), Some(1)), "{state:#}");
    harness.close().await;
}

/// Covers B11 and D12.
#[tokio::test]
async fn limits_end_a_step_and_say_which_it_was() {
    let harness = Harness::start(Setup::default()).await;
    let step = |extra: Value| {
        let mut step = json!({ "id": "main", "shell": "echo begun; exec sleep 600" });
        step.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        steps(json!([step]))
    };
    let whole = definition(
        "version: 1\nname: whole\nworkspace: {mode: none}\ntimeout: 1s\nsteps: [{id: main, shell: 'echo begun; exec sleep 600'}]\n",
    );
    let mut runs = Vec::new();
    for (request, code) in
        [(step(json!({ "timeout": "1s" })), "timeout"), (step(json!({ "idle_timeout": "1s" })), "idle_timeout"), (whole, "timeout")]
    {
        runs.push((harness.submit(request).await, code));
    }
    for (run, code) in runs {
        let state = harness.wait_final(&run).await;
        assert_eq!((&state["status"], state["failure_code"].as_str()), (&json!("failed"), Some(code)), "{state:#}");
        assert_eq!(harness.stdout(&run, "main").await, "begun\n");
    }
    harness.close().await;
}

/// Covers D7, D8 and A20: what cannot start fails at once, in words that help, and has its record.
#[tokio::test]
async fn what_cannot_start_fails_with_the_reason() {
    let mut harness = Harness::start(Setup::default()).await;
    let state = harness.finish(shell("#!/nowhere/interpreter\ntrue")).await;
    assert_eq!(state["failure_code"], "setup_error", "{state:#}");
    assert!(state["error"]["message"].as_str().is_some_and(|m| m.contains("/nowhere/interpreter")), "{}", state["error"]);

    let repo = harness.repo(&[&[("a", "1")]]);
    let on = |url: &str, reference: &str| json!({ "definition": { "version": 1, "name": "absent", "steps": [{ "id": "main", "shell": "true" }] }, "repo": { "url": url, "ref": reference } });
    let cases = [
        (on(&repo.display().to_string(), "no-such-branch"), "no-such-branch"),
        (on(&harness.dir().join("repositories/none").display().to_string(), "main"), "none"),
        (on("/etc", "main"), "/etc"),
    ];
    for (request, word) in cases {
        let run = harness.submit(request).await;
        let state = harness.wait_final(&run).await;
        assert_eq!((&state["status"], &state["failure_code"]), (&json!("failed"), &json!("workspace_error")), "{state:#}");
        assert!(state["error"]["message"].as_str().is_some_and(|m| m.contains(word)), "{}", state["error"]);
        assert_eq!(step_of(&state, "main")["attempts"].as_array().map(Vec::len), Some(1), "it is not tried again");
        assert!(!harness.events(&run).await.is_empty());
    }
    harness.close().await;
}

/// Covers C10 and C12: keys bound what runs at once, and priority decides who is next.
#[tokio::test]
async fn keys_and_priorities_order_the_work() {
    let harness = Harness::start(Setup { slots: 4, ..Setup::default() }).await;
    let order = harness.dir().join("order");
    let gate = harness.dir().join("gate");
    let request = |name: &str, priority: u64| {
        json!({
            "definition": {
                "version": 1, "name": "keyed", "workspace": { "mode": "none" }, "concurrency": { "key": "one", "limit": 1, "policy": "queue" },
                "steps": [{ "id": "main", "shell": format!("echo in-{name} >> {0}; until [ -e {1} ]; do sleep 0.05; done; echo out-{name} >> {0}", order.display(), gate.display()) }],
            },
            "priority": priority,
        })
    };
    let first = harness.submit(request("first", 1)).await;
    harness.wait_running(&first, "main").await;
    let low = harness.submit(request("low", 0)).await;
    let high = harness.submit(request("high", 3)).await;
    let waiting = harness.run(&low).await;
    assert_eq!((&waiting["status"], &waiting["pending_reason"]), (&json!("pending"), &json!("awaiting_slot")), "{waiting:#}");
    let told = harness.get(&format!("/api/v1/runs/{low}/explain")).await;
    assert_eq!(told["blockers"][0]["code"], "awaiting_slot", "{told:#}");
    assert!(told["blockers"][0]["run_ids"].as_array().is_some_and(|ids| ids.contains(&json!(first))), "{told:#}");
    std::fs::write(&gate, "").unwrap();
    for run in [&first, &high, &low] {
        harness.wait_completed(run).await;
    }
    assert_eq!(std::fs::read_to_string(&order).unwrap(), "in-first\nout-first\nin-high\nout-high\nin-low\nout-low\n");
    harness.close().await;
}

/// Covers C6: what waits for other runs starts, or ends as its policy says.
#[tokio::test]
async fn runs_wait_for_runs_and_for_times() {
    let harness = Harness::start(Setup::default()).await;
    let gate = harness.dir().join("gate");
    let parent = harness.submit(shell(&format!("until [ -e {} ]; do sleep 0.05; done; exit 1", gate.display()))).await;
    let child = |policy: &str| {
        let mut request = shell("true");
        request["after"] = json!([parent]);
        request["after_policy"] = json!(policy);
        request
    };
    let mut children = Vec::new();
    for policy in ["skip", "fail", "run_anyway"] {
        let run = harness.submit(child(policy)).await;
        assert_eq!(harness.run(&run).await["pending_reason"], "awaiting_dependencies");
        children.push(run);
    }
    std::fs::write(&gate, "").unwrap();
    let skipped = harness.wait_final(&children[0]).await;
    assert_eq!((&skipped["status"], &skipped["kill_reason"]), (&json!("killed"), &json!("dependency_failed")));
    let failed = harness.wait_final(&children[1]).await;
    assert_eq!((&failed["status"], &failed["failure_code"]), (&json!("failed"), &json!("dependency_failed")));
    harness.wait_completed(&children[2]).await;

    let mut unknown = shell("true");
    unknown["after"] = json!([hopyard_contract::RunId::mint().to_string()]);
    harness.http("POST", "/api/v1/runs", unknown).await.problem(422, "unknown_run");

    let at = chrono::Utc::now() + chrono::TimeDelta::milliseconds(1500);
    let mut later = shell("true");
    later["start_at"] = json!(at.to_rfc3339());
    let run = harness.submit(later).await;
    assert_eq!(harness.run(&run).await["pending_reason"], "awaiting_schedule");
    let state = harness.wait_completed(&run).await;
    let started: chrono::DateTime<chrono::Utc> = state["started_at"].as_str().unwrap().parse().unwrap();
    assert!(started >= at && started < at + chrono::TimeDelta::seconds(3), "{started} for {at}");
    harness.close().await;
}
