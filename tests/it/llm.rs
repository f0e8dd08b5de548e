//! Model steps: one question, one answer, as a text or as JSON that fits; whatever the provider does is told in its words.

use serde_json::{Value, json};

use crate::harness::api::{on_repo, step_of, steps};
use crate::harness::programs::run;
use crate::harness::provider::Provider;
use crate::harness::wait::eventually;
use crate::harness::{Harness, Setup};

const WIRES: [(&str, &str); 4] = [("a", "anthropic"), ("b", "responses"), ("c", "chat"), ("d", "gemini")];

async fn stack(provider: &Provider) -> Harness {
    let settings = provider.settings_of(&WIRES, "").display().to_string();
    Harness::start(Setup { settings: vec![("CONFIG", settings)], ..Setup::default() }).await
}

fn question(id: &str, model: &str, output: Option<Value>) -> Value {
    let mut llm = json!({ "model": model, "prompt": "Say it.", "system": "You are brief." });
    if let Some(schema) = output {
        llm["output"] = schema;
    }
    json!({ "id": id, "llm": llm })
}

fn title() -> Value {
    json!({ "type": "object", "required": ["title"], "properties": { "title": { "type": "string" }, "n": { "type": "integer" } } })
}

async fn record(harness: &Harness, run: &str, step: &str) -> Value {
    harness.get(&format!("/api/v1/runs/{run}/artifacts/{step}.1.record.json")).await
}

/// Covers D2: the answer streams into the log, later steps see it, and what was served is what is counted, on every wire.
#[tokio::test]
async fn an_answer_is_a_log_an_output_and_an_account_on_every_wire() {
    let provider = Provider::start(&[json!({ "text": "Two lines,\nno more.", "usage": { "input": 70, "output": 9, "cache_read": 5 } })]);
    let harness = stack(&provider).await;
    let mut list: Vec<Value> = WIRES.iter().map(|(name, _)| question(name, &format!("{name}/claude-sonnet-4-5"), None)).collect();
    let env = json!({ "A": "${{ steps.a.outputs.text }}", "D": "${{ steps.d.outputs.text }}" });
    list.push(json!({ "id": "see", "needs": ["a", "b", "c", "d"], "env": env, "shell": "test \"$A\" = \"$D\"; printf %s \"$A\"" }));
    let run = harness.submit(steps(json!(list))).await;
    let state = harness.wait_completed(&run).await;
    assert_eq!(harness.stdout(&run, "see").await, "Two lines,\nno more.");
    for (name, _) in WIRES {
        let step = step_of(&state, name);
        assert_eq!((&step["kind"], &step["outputs"]["text"]), (&json!("llm"), &json!("Two lines,\nno more.")), "{name}");
        assert_eq!(harness.stdout(&run, name).await, "Two lines,\nno more.\n", "{name}");
        let tokens = json!({ "input": 70, "output": 9, "cache_read": 5, "cache_write": 0 });
        assert_eq!((&step["usage"]["tokens"], &step["usage"]["turns"]), (&tokens, &json!(1)), "{name}");
        assert!(step["usage"]["cost_microusd"].as_u64().is_some_and(|cost| cost > 0), "{name}");
        let record = record(&harness, &run, name).await;
        assert_eq!((&record["calls"][0]["model"], &record["calls"][0]["whole"]), (&json!("claude-sonnet-4-5"), &json!(true)), "{name}");
    }
    let sum: u64 = ["input", "output"].iter().map(|kind| provider.served(kind)).sum();
    assert_eq!(state["usage"]["tokens"]["input"].as_u64().unwrap() + state["usage"]["tokens"]["output"].as_u64().unwrap(), sum);
    harness.close().await;
}

/// Covers D2 and U21: an answer that does not fit is mended; one that never fits fails the step and is kept as it came.
#[tokio::test]
async fn an_answer_that_does_not_fit_is_mended_or_kept() {
    let fits = json!({ "text": "```json\n{\"title\": \"On time\", \"n\": 3}\n```" });
    let provider = Provider::start(&[json!({ "text": "Sure!" }), json!({ "text": "{\"n\": 1.5}" }), fits]);
    let harness = stack(&provider).await;
    for (name, wire) in WIRES {
        let run = harness.submit(steps(json!([question(name, &format!("{name}/m"), Some(title()))]))).await;
        let state = harness.wait_completed(&run).await;
        let outputs = &step_of(&state, name)["outputs"];
        assert_eq!(
            (&outputs["title"], &outputs["n"], &outputs["json"]),
            (&json!("On time"), &json!("3"), &json!("{\"n\":3,\"title\":\"On time\"}")),
            "{wire}"
        );
        assert_eq!(state["usage"]["turns"], 3, "{wire}");
        assert_eq!(state["usage"]["cost_microusd"], Value::Null, "a model without a price");
        assert_eq!(record(&harness, &run, name).await["answer"]["fits"]["repairs"], 2, "{wire}");
    }
    let never = json!({ "type": "object", "required": ["other"] });
    let run = harness.submit(steps(json!([question("a", "a/m", Some(never))]))).await;
    let state = harness.wait_final(&run).await;
    assert_eq!((&state["status"], &state["failure_code"]), (&json!("failed"), &json!("invalid_output")));
    let words = state["error"]["message"].as_str().unwrap();
    assert!(words.contains("\"other\" is a required property"), "{words}");
    let kept = record(&harness, &run, "a").await;
    assert!(kept["answer"]["misfits"]["text"].as_str().unwrap().contains("On time"), "{kept:#}");
    harness.close().await;
}

/// Covers B15 and the bad input of the issue: a refusal is told in the provider's words, what it cannot take now is asked again.
#[tokio::test]
async fn a_refusal_is_told_and_what_cannot_be_taken_now_is_asked_again() {
    let cases = [
        (json!({ "status": 400, "text": "max_tokens is too large" }), Some("the provider answered 400: "), 1),
        (json!({ "status": 403, "text": "not in your country" }), Some("the provider answered 403: "), 1),
        (json!({ "status": 429, "text": "slow down", "retry_after": 0, "times": 2 }), None, 3),
        (json!({ "status": 529, "text": "overloaded", "retry_after": 0, "times": 1 }), None, 2),
        (json!({ "status": 500, "text": "oops", "retry_after": 0, "times": 1 }), None, 2),
        (json!({ "text": "a long answer", "breaks_off": true, "times": 1 }), None, 2),
    ];
    for (reply, refused, calls) in cases {
        let provider = Provider::start(std::slice::from_ref(&reply));
        let harness = stack(&provider).await;
        let run = harness.submit(steps(json!([question("a", "a/claude-sonnet-4-5", None)]))).await;
        let state = harness.wait_final(&run).await;
        assert_eq!(provider.calls().len(), calls, "{reply}");
        match refused {
            None => assert_eq!(state["status"], "completed", "{reply}: {state:#}"),
            Some(words) => {
                let told = state["error"]["message"].as_str().unwrap();
                assert_eq!(state["failure_code"], "agent_error", "{reply}");
                assert!(told.starts_with(words) && told.contains(reply["text"].as_str().unwrap()), "{told}");
            }
        }
        harness.close().await;
    }
}

/// Covers X11 for questions: a quota whose end the provider tells in its own words pauses the run on every wire.
#[tokio::test]
async fn a_question_waits_for_the_end_of_a_long_limit() {
    for (name, wire) in WIRES {
        let limited = json!({ "status": 429, "text": "used up", "retry_after": 2, "times": 1 });
        let provider = Provider::start(&[limited]);
        let settings = provider.settings_of(&WIRES, "patience = \"1s\"").display().to_string();
        let harness = Harness::start(Setup { settings: vec![("CONFIG", settings)], ..Setup::default() }).await;
        let run = harness.submit(steps(json!([question("a", &format!("{name}/claude-sonnet-4-5"), None)]))).await;
        let state = harness.wait_completed(&run).await;
        let attempts = &step_of(&state, "a")["attempts"];
        assert_eq!(
            (&attempts[0]["failure_code"], &attempts[1]["status"]),
            (&json!("usage_limit_exhausted"), &json!("completed")),
            "{wire}"
        );
        assert!(attempts[0]["error"].as_str().unwrap_or("used up").contains("used up"), "{attempts:#}");
        assert_eq!(provider.calls().len(), 2, "{wire}");
        harness.close().await;
    }
}

/// Covers G7: what a dashboard reads shows a call from its beginning on, and no longer than it lasts.
#[tokio::test]
async fn a_call_is_on_the_metrics_while_it_is_open() {
    const OPEN: &str = "hopyard_model_calls_open{provider=\"a\"}";
    let provider = Provider::start(&[json!({ "text": "late", "wait_ms": 3_600_000 })]);
    let harness = stack(&provider).await;
    let run = harness.submit(steps(json!([question("a", "a/claude-sonnet-4-5", None)]))).await;
    let is = async |count: f64| {
        let open = harness.metric("executor-1", OPEN).await;
        if open == count { Ok(()) } else { Err(open) }
    };
    eventually("an open call on the metrics", || is(1.0)).await;
    harness.cancel(&run, json!({})).await;
    assert_eq!(harness.wait_final(&run).await["status"], "killed");
    eventually("no open call on the metrics", || is(0.0)).await;
    harness.close().await;
}

#[tokio::test]
async fn a_model_that_names_no_provider_fails_the_step_and_says_which_there_are() {
    let provider = Provider::start(&[]);
    let harness = stack(&provider).await;
    let state = harness.finish(steps(json!([question("a", "other/m", None)]))).await;
    assert_eq!(state["failure_code"], "setup_error");
    let words = state["error"]["message"].as_str().unwrap();
    assert!(words.contains("names none of the providers a, b, c, d"), "{words}");
    assert_eq!(provider.calls().len(), 0);
    harness.close().await;
}

/// A public list of prices becomes a table, and its prices are what a call costs.
#[tokio::test]
async fn a_public_list_of_prices_can_be_used() {
    let provider = Provider::start(&[json!({ "usage": { "input": 1000, "output": 100 } })]);
    let settings = provider.settings_of(&WIRES, "").display().to_string();
    let list = json!({
        "sample_spec": { "input_cost_per_token": "what a token costs" },
        "new-model": { "input_cost_per_token": 2e-6, "output_cost_per_token": 8e-6, "cache_read_input_token_cost": 5e-7, "mode": "chat" },
        "picture-model": { "input_cost_per_pixel": 1e-9 },
    });
    std::fs::write(provider.dir().join("list.json"), list.to_string()).unwrap();
    let made = run(env!("CARGO_BIN_EXE_hopyard"), &["providers", "prices", "list.json", "--from", "2026-01-01"], provider.dir(), &[]);
    assert_eq!(made.status.code(), Some(0), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::write(provider.dir().join("prices.toml"), &made.stdout).unwrap();
    let prices = provider.dir().join("prices.toml").display().to_string();
    let harness = Harness::start(Setup { settings: vec![("CONFIG", settings), ("PRICES", prices)], ..Setup::default() }).await;
    let id = harness.submit(steps(json!([question("a", "a/new-model", None)]))).await;
    assert_eq!(harness.wait_completed(&id).await["usage"]["cost_microusd"], 2800);
    let nothing = run(env!("CARGO_BIN_EXE_hopyard"), &["providers", "prices", "list.json", "--model", "gpt"], provider.dir(), &[]);
    assert_eq!(nothing.status.code(), Some(2));
    harness.close().await;
}

/// A tool that the model uses.
fn uses(name: &str, input: Value) -> Value {
    json!({ "name": name, "input": input })
}

fn tooled(tools: Value, more: Value) -> Value {
    let mut llm = json!({ "model": "a/claude-sonnet-4-5", "prompt": "Mend it.", "tools": tools });
    llm.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "id": "mend", "llm": llm })
}

/// Covers U13: a model reads, looks for and changes files and runs what it may, each use is told to it and in the record, and on
/// every wire the run hands back what it made.
#[tokio::test]
async fn a_model_works_with_the_tools_that_its_step_lends_it() {
    let provider = Provider::start(&[
        json!({ "text": "I look.", "use": [
            uses("readfile", json!({ "path": "src/beer.txt" })),
            uses("glob", json!({ "pattern": "*.txt" })),
            uses("grep", json!({ "pattern": "h[oi]ps" })),
        ] }),
        json!({ "use": [
            uses("writefile", json!({ "path": "src/beer.txt", "text": "hops\nmalt\n" })),
            uses("shell", json!({ "command": ["wc", "-l", "src/beer.txt"] })),
            uses("shell", json!({ "command": ["sh", "-c", "touch escaped"] })),
            uses("readfile", json!({ "path": "../../../etc/passwd" })),
            uses("bash", json!({})),
        ] }),
        json!({ "text": "{\"done\": true}" }),
    ]);
    let mut harness = stack(&provider).await;
    let repo = harness.repo(&[&[("src/beer.txt", "hips\n"), ("other.txt", "water\n")]]);
    let tools = json!(["readfile", "writefile", "glob", "grep", "shell(wc, true)"]);
    let schema = json!({ "type": "object", "required": ["done"], "properties": { "done": { "type": "boolean" } } });
    for (name, wire) in WIRES {
        let before = provider.calls().len();
        let step = tooled(tools.clone(), json!({ "model": format!("{name}/claude-sonnet-4-5"), "output": schema }));
        let run = harness.submit(on_repo(&repo, json!([step]))).await;
        let state = harness.wait_completed(&run).await;
        let step = step_of(&state, "mend");
        assert_eq!(
            (&step["outputs"]["done"], &step["usage"]["turns"], &step["usage"]["tool_calls"]),
            (&json!("true"), &json!(3), &json!(8)),
            "{wire}"
        );
        assert_eq!(state["result"]["files"].as_array().map(Vec::len), Some(1), "{wire}: {:#}", state["result"]);
        let used = record(&harness, &run, "mend").await["tools"].clone();
        let marks: Vec<_> = used.as_array().unwrap().iter().map(|used| (used["name"].as_str().unwrap(), used["denied"] == true)).collect();
        let expected = [
            ("readfile", false),
            ("glob", false),
            ("grep", false),
            ("writefile", false),
            ("shell", false),
            ("shell", true),
            ("readfile", true),
            ("bash", true),
        ];
        assert_eq!(marks, expected, "{wire}");
        assert_eq!(used[4]["output"], "2 src/beer.txt\n", "{wire}");
        // What the provider was told of each use.
        let calls = provider.calls().split_off(before);
        let told = |call: usize| calls[call]["results"].as_array().unwrap().iter().map(Value::to_string).collect::<Vec<_>>();
        let (looked, changed) = (told(1), told(2));
        assert!(
            looked[0].contains("hips") && looked[1].contains("other.txt") && looked[2].contains("src/beer.txt:1:hips"),
            "{wire}: {looked:?}"
        );
        assert!(changed[2].contains("may not run here") && changed[3].contains("not in the workspace"), "{wire}: {changed:?}");
        let log = harness.log_so_far(&run, "mend").await;
        assert!(log.contains("I look.") && log.contains("writefile {"), "{wire}: {log}");
    }
    harness.close().await;
}

/// Covers U13: a prompt file is a tool, asked with the arguments of the model and answered in the form that it promises.
#[tokio::test]
async fn a_prompt_file_is_a_tool() {
    const REVIEW: &str = "---\ndescription: Reviews a text.\ninputs: {text: string}\noutputs: {verdict: string}\n---\nReview {{ text }}.\n";
    let provider = Provider::start(&[
        json!({ "use": [uses("review", json!({ "text": "hops" })), uses("review", json!({ "txt": 1 }))] }),
        json!({ "text": "It is fine." }),
        json!({ "asked": "Review", "text": "{\"verdict\": 1}" }),
        json!({ "asked": "Review", "text": "{\"verdict\": \"fine\"}" }),
    ]);
    let mut harness = stack(&provider).await;
    let repo = harness.repo(&[&[("prompts/review.prompt.md", REVIEW)]]);
    let run = harness.submit(on_repo(&repo, json!([tooled(json!(["//prompts:review"]), json!({}))]))).await;
    let state = harness.wait_final(&run).await;
    let used = record(&harness, &run, "mend").await["tools"].clone();
    assert_eq!(state["status"], "completed", "{state:#}");
    assert_eq!(used[0]["output"], "{\"verdict\":\"fine\"}", "{used:#}");
    let misfit = used[1]["output"].as_str().unwrap();
    assert!(
        used[1]["failed"] == true && misfit.contains("prompts/review.prompt.md") && misfit.contains("\"text\" is a required"),
        "{misfit}"
    );
    assert_eq!(provider.calls()[1]["asked"].as_str().map(str::trim_end), Some("Review hops."));
    assert_eq!((&step_of(&state, "mend")["outputs"]["text"], &state["usage"]["turns"]), (&json!("It is fine."), &json!(4)));
    harness.close().await;
}

/// Covers B15 and U12: a model that never answers is stopped at its last turn; what it made is kept, and so is what it used.
#[tokio::test]
async fn a_model_without_turns_left_fails_with_its_work_kept() {
    let again = json!({ "use": [uses("writefile", json!({ "path": "more.txt", "text": "x" }))] });
    let provider = Provider::start(&vec![again; 9]);
    let mut harness = stack(&provider).await;
    let repo = harness.repo(&[&[("a.txt", "a")]]);
    let mut request = on_repo(&repo, json!([tooled(json!(["writefile"]), json!({ "max_turns": 4 }))]));
    for (budget, turns) in [(Value::Null, 4), (json!({ "turns": 2 }), 2)] {
        if !budget.is_null() {
            request["definition"]["budget"] = budget;
        }
        let run = harness.submit(request.clone()).await;
        let state = harness.wait_final(&run).await;
        assert_eq!((&state["failure_code"], &state["usage"]["turns"]), (&json!("max_turns"), &json!(turns)));
        assert_eq!(state["usage"]["tool_calls"], turns, "{state:#}");
        assert_eq!(state["result"]["files"].as_array().map(Vec::len), Some(1), "{:#}", state["result"]);
    }
    harness.close().await;
}

/// Covers U13 and U20: a tool that there is not is refused when the run is submitted, or by the file that asks for it.
#[tokio::test]
async fn a_tool_that_there_is_not_is_refused() {
    let provider = Provider::start(&[]);
    let mut harness = stack(&provider).await;
    let answer = harness.http("POST", "/api/v1/runs", steps(json!([tooled(json!(["readfile", "websearch"]), json!({}))]))).await;
    assert_eq!(answer.status, 422);
    let error = &answer.json()["errors"][0];
    assert_eq!((&error["code"], &error["pointer"]), (&json!("unknown_tool"), &json!("/definition/steps/0/llm/tools/1")), "{error:#}");
    let repo = harness.repo(&[&[
        ("p.prompt.md", "---\ntype: agent\ntools: [Bash]\n---\nhi\n"),
        ("q.prompt.md", "---\ntools: [grep, '//:grep']\n---\nhi\n"),
    ]]);
    for (file, told) in [("p.prompt.md", "`Bash` is no tool of a model step"), ("q.prompt.md", "two tools are called `grep`")] {
        let step = json!({ "id": "mend", "llm": { "model": "a/m", "prompt_file": file } });
        let run = harness.submit(on_repo(&repo, json!([step]))).await;
        let state = harness.wait_final(&run).await;
        let words = state["error"]["message"].as_str().unwrap();
        assert!(words.contains(file) && words.contains(told), "{words}");
    }
    assert_eq!(provider.calls().len(), 0);
    harness.close().await;
}
