//! Prompt files: what lies in the repository is what agents and models are told, and what is wrong with it is told by file and line.

use serde_json::{Value, json};

use crate::harness::api::{on_repo, step_of};
use crate::harness::programs::run;
use crate::harness::provider::Provider;
use crate::harness::{Harness, Setup};

const FIX: &str = "---\nmodel: stub/claude-sonnet-4-5\ninputs: {task: string, files: 'string[]', depth: low or high, hint: string?}\n\
    outputs: {title: string}\ntests:\n  - {name: plain, inputs: {task: t, files: [a], depth: low}, contains: ['* a']}\n  \
    - {name: deep, inputs: {task: t, files: [], depth: middle}, fails: true}\n---\n\
    Do {{ task }}.{% for file in files %}\n* {{ file }}{% endfor %}\n{% include 'rules.prompt.md' %}\n";
const RULES: &str = "Be {{ depth }}.";

fn files() -> Vec<(&'static str, &'static str)> {
    vec![
        ("prompts/fix.prompt.md", FIX),
        ("prompts/rules.prompt.md", RULES),
        ("prompts/bad.prompt.md", "---\ninputs: {}\n---\none\n{{ two }}\n"),
    ]
}

/// A run with inputs of its own whose step is told a file.
fn told(repo: &std::path::Path, step: Value) -> Value {
    let mut request = on_repo(repo, json!([step]));
    request["definition"]["inputs"] = json!({ "task": { "type": "string" }, "files": { "type": "array" }, "other": { "type": "string" } });
    request["inputs"] = json!({ "task": "it", "files": ["a.rs", "b.rs"], "other": "x" });
    request
}

/// Covers M4 and U12: the file's template, types, model and schema count, and the inputs of the run flow in.
#[tokio::test]
async fn a_prompt_of_the_repository_is_what_a_model_is_asked() {
    let provider = Provider::start(&[json!({ "text": "no JSON" }), json!({ "text": "{\"title\": \"On time\"}" })]);
    let settings = provider.settings("anthropic", "").display().to_string();
    let mut harness = Harness::start(Setup { settings: vec![("CONFIG", settings)], ..Setup::default() }).await;
    let repo = harness.repo(&[&files()]);
    let step = json!({ "id": "ask", "llm": { "prompt_file": "prompts/fix.prompt.md", "with": { "depth": "low" } } });
    let run = harness.submit(told(&repo, step)).await;
    let state = harness.wait_completed(&run).await;
    assert_eq!(step_of(&state, "ask")["outputs"]["title"], "On time");
    let asked = provider.calls()[0]["asked"].as_str().unwrap().to_owned();
    assert_eq!(asked.trim_end(), "Do it.\n* a.rs\n* b.rs\nBe low.");
    harness.close().await;
}

/// Covers U20: a file that is wrong fails its step once, by file and line, however often it may be tried again.
#[tokio::test]
async fn what_is_wrong_with_a_prompt_fails_its_step_by_file_and_line() {
    let mut harness = Harness::start(Setup::default()).await;
    let repo = harness.repo(&[&files()]);
    let cases = [
        ("prompts/bad.prompt.md", json!({}), "prompts/bad.prompt.md:5:1: undefined value"),
        ("prompts/none.prompt.md", json!({}), "there is no prompt file prompts/none.prompt.md in the workspace"),
        ("prompts/fix.prompt.md", json!({ "depth": "middle" }), "prompts/fix.prompt.md:1:1: /depth: "),
        ("prompts/fix.prompt.md", json!({ "depth": "low", "what": "?" }), "'what' was unexpected"),
    ];
    for (path, with, words) in cases {
        let step = json!({ "id": "fix", "agent": { "cli": "fake", "prompt_file": path, "with": with }, "retry": { "max_attempts": 3 } });
        let run = harness.submit(told(&repo, step)).await;
        let state = harness.wait_final(&run).await;
        assert_eq!(
            (&state["failure_code"], step_of(&state, "fix")["attempts"].as_array().unwrap().len()),
            (&json!("plan_error"), 1),
            "{path}"
        );
        let message = state["error"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{path}: {message}");
    }
    harness.close().await;
}

/// Covers M4 and U15: what a prompt takes, gives and says can be looked at without a server, and its tests are carried out.
#[test]
fn prompts_are_parsed_rendered_and_tested_on_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("prompts")).unwrap();
    for (path, text) in files() {
        std::fs::write(dir.path().join(path), text).unwrap();
    }
    let hopyard = |args: &[&str]| {
        let output = run(env!("CARGO_BIN_EXE_hopyard"), args, dir.path(), &[]);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, out, _) = hopyard(&["prompts", "parse", "prompts/fix.prompt.md", "--json"]);
    let parsed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &parsed["inputs"]["properties"]["depth"]["enum"]), (Some(0), &json!(["low", "high"])));
    let args = ["prompts", "render", "prompts/fix.prompt.md", "-i", "task=7", "-i", "files=[\"a\"]", "-i", "depth=high"];
    assert_eq!(hopyard(&args), (Some(0), "Do 7.\n* a\nBe high.".to_owned(), String::new()));
    let (code, _, told) = hopyard(&["prompts", "render", "prompts/bad.prompt.md"]);
    assert!(code == Some(2) && told.contains("prompts/bad.prompt.md:5:1"), "{told}");
    let (code, out, _) = hopyard(&["prompts", "test", "prompts/fix.prompt.md"]);
    assert_eq!((code, out.matches("passed").count()), (Some(0), 2), "{out}");
    std::fs::write(dir.path().join("prompts/fix.prompt.md"), FIX.replace("* {{ file }}", "{{ file }}")).unwrap();
    let (code, out, _) = hopyard(&["prompts", "test", "prompts/fix.prompt.md"]);
    assert!(code == Some(1) && out.contains("plain: failed: the text does not contain `* a`"), "{out}");
}
