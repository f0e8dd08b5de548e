//! A table of definitions that are refused, with every code, pointer and place.

use super::{problems, step, top};

/// Each definition and all of its problems.
fn check(table: &[(String, &[&str])]) {
    let wrong: Vec<_> = table
        .iter()
        .map(|(source, expected)| (source, problems(source), expected))
        .filter(|(_, found, expected)| found != *expected)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn top_level_fields() {
    check(&[
        (String::new(), &["type  1:1"]),
        ("# nothing\n".to_owned(), &["type  1:1"]),
        ("just a text".to_owned(), &["type  1:1"]),
        ("- a\n- b".to_owned(), &["type  1:1"]),
        ("{}".to_owned(), &["missing_field /version 1:1", "missing_field /name 1:1", "missing_field /steps 1:1"]),
        ("name: w\nsteps: [{id: a, shell: x}]".to_owned(), &["missing_field /version 1:1"]),
        ("version: 2\nname: w\nsteps: [{id: a, shell: x}]".to_owned(), &["unsupported_version /version 1:10"]),
        ("version: '1'\nname: w\nsteps: [{id: a, shell: x}]".to_owned(), &["type /version 1:10"]),
        ("version: 1.0\nname: w\nsteps: [{id: a, shell: x}]".to_owned(), &["type /version 1:10"]),
        ("version: 1\nname: Fix Bug\nsteps: [{id: a, shell: x}]".to_owned(), &["pattern /name 2:7"]),
        ("version: 1\nname: ''\nsteps: [{id: a, shell: x}]".to_owned(), &["length /name 2:7"]),
        ("version: 1\nname: 5\nsteps: [{id: a, shell: x}]".to_owned(), &["type /name 2:7"]),
        ("version: 1\nname: w\nsteps: []".to_owned(), &["length /steps 3:8"]),
        ("version: 1\nname: w\nsteps: {id: a}".to_owned(), &["type /steps 3:8"]),
        ("version: 1\nname: w\nsteps:\n".to_owned(), &["type /steps 3:6"]),
        (top("stepz: 1"), &["unknown_field /stepz 3:1"]),
        (top("a/b~c: 1"), &["unknown_field /a~1b~0c 3:1"]),
        (top("timeout: 30"), &["duration /timeout 3:10"]),
        (top("timeout: 0s"), &["range /timeout 3:10"]),
        (top("timeout: [1s]"), &["type /timeout 3:10"]),
        (top("workspace: temporary"), &["type /workspace 3:12"]),
        (top("workspace: {mode: tempory}"), &["unknown_value /workspace/mode 3:19"]),
        (top("workspace: {kind: none}"), &["unknown_field /workspace/kind 3:13"]),
    ]);
}

#[test]
fn limits_and_results() {
    check(&[
        (top("budget: {cost_usd: -1}"), &["money /budget/cost_usd 3:20"]),
        (top("budget: {cost_usd: 1e-7}"), &["money /budget/cost_usd 3:20"]),
        (top("budget: {cost_usd: 0.1234567}"), &["money /budget/cost_usd 3:20"]),
        (top("budget: {cost_usd: 2.5 USD}"), &["money /budget/cost_usd 3:20"]),
        (top("budget: {cost_usd: [1]}"), &["type /budget/cost_usd 3:20"]),
        (top("budget: {turns: 0}"), &["range /budget/turns 3:17"]),
        (top("budget: {turns: 1.5}"), &["type /budget/turns 3:17"]),
        (top("budget: {turns: 340282366920938463463374607431768211456000}"), &["range /budget/turns 3:17"]),
        (top("budget: {time: 1w, cost: 1}"), &["duration /budget/time 3:16", "unknown_field /budget/cost 3:20"]),
        (top("concurrency: {limit: 0}"), &["missing_field /concurrency/key 3:14", "range /concurrency/limit 3:22"]),
        (top("concurrency: {key: k, policy: drop}"), &["unknown_value /concurrency/policy 3:31"]),
        (top("concurrency: {key: ''}"), &["length /concurrency/key 3:20"]),
        (top("concurrency: {key: '${{ steps.a.status }}'}"), &["unknown_step /concurrency/key 3:20"]),
        (top("result: {push: yes}"), &["type /result/push 3:16"]),
        (top("result: {branch: a b}"), &["ref /result/branch 3:18"]),
        (top("result: {branch: 'x..${{ run.id }}'}"), &["ref /result/branch 3:18"]),
        (top("result: {branch: '${{ run.id'}"), &["expression /result/branch 3:18"]),
        (top("result: {merge: -x}"), &["ref /result/merge 3:17"]),
        (top("workspace: {mode: none}\nresult: {push: true, merge: main}"), &["result_without_workspace /result/push 4:16"]),
        (top("workspace: {mode: none}\nresult: {merge: main}"), &["result_without_workspace /result/merge 4:17"]),
        (step("deliver: {push: true}"), &["step_kind /steps/0 4:5", "unknown_field /steps/0/deliver 5:5"]),
        (top("defaults: {timeout: soon, shell: x}"), &["duration /defaults/timeout 3:21", "unknown_field /defaults/shell 3:27"]),
        (top("defaults: {retry: {max_attempts: 101}}"), &["range /defaults/retry/max_attempts 3:34"]),
        (top("env: {A=B: 1, LD_PRELOAD: x, OK: [1]}"), &["env_key /env/A=B 3:7", "env_reserved /env/LD_PRELOAD 3:15", "type /env/OK 3:34"]),
        (top("env:\n  EMPTY:\n  X: '${{ inputs.x }}'"), &["type /env/EMPTY 4:8", "unknown_input /env/X 5:6"]),
    ]);
}

#[test]
fn steps() {
    check(&[
        (step(""), &["step_kind /steps/0 4:5"]),
        (step("shell: x\nagent: {cli: claude}"), &["step_kind /steps/0 6:5"]),
        (step("agent: {cli: claude}"), &["missing_field /steps/0/agent/prompt 5:12"]),
        (step("agent: {cli: cluade, prompt: x}"), &["unknown_value /steps/0/agent/cli 5:18"]),
        (step("agent: {cli: claude, prompt: ' '}"), &["length /steps/0/agent/prompt 5:34"]),
        (step("agent: {cli: claude, prompt: '${{ inputs.x }}'}"), &["unknown_input /steps/0/agent/prompt 5:34"]),
        (step("agent: {cli: claude, prompt: x, max_turns: 0}"), &["range /steps/0/agent/max_turns 5:48"]),
        (step("agent: {cli: claude, prompt: x, max_turns: [1]}"), &["type /steps/0/agent/max_turns 5:48"]),
        (step("agent: {cli: claude, prompt: x, permissions: all}"), &["unknown_value /steps/0/agent/permissions 5:50"]),
        (step("agent: {cli: claude, prompt: x, script: y}"), &["unknown_field /steps/0/agent/script 5:45"]),
        (step("agent: claude"), &["type /steps/0/agent 5:12"]),
        (step("llm: {}"), &["missing_field /steps/0/llm/model 5:10", "missing_field /steps/0/llm/prompt 5:10"]),
        (step("llm: {model: m, prompt: ''}"), &["length /steps/0/llm/prompt 5:29"]),
        (step("llm: {model: m, prompt: x, max_tokens: 0}"), &["range /steps/0/llm/max_tokens 5:44"]),
        (step("llm: {model: m, prompt: x, output: {type: thing}}"), &["schema /steps/0/llm/output/type 5:47"]),
        (step("llm: {model: m, prompt: x, output: {$ref: 'http://x'}}"), &["schema /steps/0/llm/output/$ref 5:41"]),
        (step("llm: {model: m, prompt: '${{ steps.b.outputs.x }}'}"), &["unknown_step /steps/0/llm/prompt 5:29"]),
        (step("approval: {}"), &["missing_field /steps/0/approval/prompt 5:15"]),
        (step("approval: {prompt: ' '}"), &["length /steps/0/approval/prompt 5:24"]),
        (step("approval: {prompt: go?}\nenv: {A: b}\npool: p"), &["approval_field /steps/0/env 6:5", "approval_field /steps/0/pool 7:5"]),
        (step("workflow: {}"), &["unsupported_step /steps/0/workflow 5:5"]),
        (step("workflow: w"), &["unsupported_step /steps/0/workflow 5:5"]),
        (step("shell: [a, b]"), &["type /steps/0/shell 5:12"]),
        (step("shell: '  '"), &["length /steps/0/shell 5:12"]),
        (step("shell: x\ntimeuot: 1s"), &["unknown_field /steps/0/timeuot 6:5"]),
        (step("shell: x\nneeds: a"), &["cycle /steps/0/needs 6:12"]),
        (step("shell: x\nneeds: [b]"), &["unknown_step /steps/0/needs/0 6:13"]),
        (step("shell: x\nneeds: [1, B]"), &["type /steps/0/needs/0 6:13", "pattern /steps/0/needs/1 6:16"]),
        (step("shell: x\nif: completed("), &["expression /steps/0/if 6:9"]),
        (step("shell: x\nif: [a]"), &["type /steps/0/if 6:9"]),
        (step("shell: x\npool: A B"), &["pattern /steps/0/pool 6:11"]),
        (step("shell: x\nenv: {PATH: x}"), &["env_reserved /steps/0/env/PATH 6:11"]),
        (step("shell: x\nretry: 3"), &["type /steps/0/retry 6:12"]),
        (step("shell: x\nretry: {on: [exit]}"), &["missing_field /steps/0/retry/max_attempts 6:12", "unknown_value /steps/0/retry/on/0 6:18"]),
        (step("shell: x\nretry: {max_attempts: 2, on: []}"), &["length /steps/0/retry/on 6:34"]),
        (step("shell: x\nretry: {max_attempts: 2, backoff: {initial: 5m}}"), &["range /steps/0/retry/backoff 6:39"]),
        ("version: 1\nname: w\nsteps:\n  - a\n  - {shell: x}".to_owned(), &["type /steps/0 4:5", "missing_field /steps/1/id 5:5"]),
        (
            "version: 1\nname: w\nsteps:\n  - {id: c, shell: x}\n  - {id: b, needs: c, shell: x}\n  - {id: d, needs: [b], shell: x}\n  - {id: c, shell: x}"
                .to_owned(),
            &["duplicate_step /steps/3/id 7:10"],
        ),
        (
            "version: 1\nname: w\nsteps:\n  - {id: a, needs: [c], shell: x}\n  - {id: b, needs: a, shell: x}\n  - {id: c, needs: [b], shell: x}".to_owned(),
            &["cycle /steps/0/needs 4:20"],
        ),
    ]);
}

#[test]
fn inputs() {
    check(&[
        (top("inputs: [x]"), &["type /inputs 3:9"]),
        (top("inputs: {x: string}"), &["type /inputs/x 3:13"]),
        (top("inputs: {a-b: {}}"), &["pattern /inputs/a-b 3:10"]),
        (top("inputs: {x: {type: strin}}"), &["schema /inputs/x/type 3:20"]),
        (top("inputs: {x: {typ: string}}"), &["unknown_field /inputs/x/typ 3:14"]),
        (top("inputs: {x: {$ref: 'https://example.com/s.json'}}"), &["schema /inputs/x/$ref 3:14"]),
        (top("inputs: {x: {items: {$ref: '#/x'}}}"), &["schema /inputs/x 3:13"]),
        (top("inputs: {x: {type: integer, default: a}}"), &["schema /inputs/x/default 3:38"]),
        (top("inputs: {x: {minimum: 99999999999999999999}}"), &["number_range /inputs/x 3:23"]),
        (top("inputs: {x: {type: string, pattern: '('}}"), &["schema /inputs/x/pattern 3:37"]),
        (top("inputs: {x: {type: string, pattern: '(?=a)b'}}"), &["schema /inputs/x/pattern 3:37"]),
    ]);
}

#[test]
fn yaml_itself() {
    check(&[
        ("version: 1\nname: [w\nsteps: x".to_owned(), &["yaml_syntax  3:6"]),
        ("version: 1\n\tname: w".to_owned(), &["yaml_syntax  1:10"]),
        ("a: b: c".to_owned(), &["yaml_syntax  1:5"]),
        (top("name: again"), &["duplicate_key /name 3:1"]),
        (step("shell: x\nenv: {A: 1, A: 2}"), &["duplicate_key /steps/0/env/A 6:17"]),
        (top("env: &e {A: 1}"), &["yaml_feature /env 3:6"]),
        (top("env: {A: &v 1, B: *v}"), &["yaml_feature /env/A 3:10", "yaml_feature /env/B 3:19"]),
        (top("env: *nowhere"), &["yaml_feature /env 3:6"]),
        (top("env: !!python/object:os.system {A: 1}"), &["yaml_feature /env 3:6"]),
        (top("timeout: !!str 10"), &["yaml_feature /timeout 3:10"]),
        (top("env: {A: .inf}"), &["number_range /env/A 3:10"]),
        (top("? [a, b]\n: c"), &["yaml_feature  3:3"]),
        (format!("{}---\nversion: 1\n", top("")), &["yaml_feature  7:1"]),
        (step("shell: \"a\\0b\""), &["control_char /steps/0/shell 5:12"]),
        ("version: 1\nname: \u{7}w\nx: \u{1b}".to_owned(), &["control_char  2:7", "control_char  3:4"]),
        ("version: 1\nname: w\0".to_owned(), &["control_char  2:8"]),
    ]);
}

#[test]
fn json_text() {
    check(&[
        (
            "{\"version\": 1,\n \"name\": \"w\",\n \"name\": \"w\",\n \"steps\": [{\"id\": \"a\", \"shell\": \"\\u0000\"}]}".to_owned(),
            &["duplicate_key /name 3:2", "control_char /steps/0/shell 4:33"],
        ),
        ("{\"version\": 1,\n \"name\": \"w\",\n \"steps\": [[], {\"id\": \"\\ud800\"}]}".to_owned(), &["yaml_syntax /steps/1/id 3:23"]),
        (
            "{\"version\": 1,\n \"name\": \"é\", \"x\": 1,\n \"steps\": [[], {}, 1]}".to_owned(),
            &[
                "pattern /name 2:10",
                "unknown_field /x 2:15",
                "type /steps/0 3:12",
                "missing_field /steps/1/id 3:16",
                "step_kind /steps/1 3:16",
                "type /steps/2 3:20",
            ],
        ),
    ]);
}

#[test]
fn everything_is_found_at_once_and_in_the_order_of_the_text() {
    let source = "version: 3\nname: W\ntimeout: x\nbudgets: {}\nenv: {1A: x}\nsteps:\n  - id: a\n    shell: x\n    need: [b]\n    if: inputs.nope\n  - id: a\n    agent: {}\n    needs: [zzz]\n";
    assert_eq!(
        problems(source),
        [
            "unsupported_version /version 1:10",
            "pattern /name 2:7",
            "duration /timeout 3:10",
            "unknown_field /budgets 4:1",
            "env_key /env/1A 5:7",
            "unknown_field /steps/0/need 9:5",
            "unknown_input /steps/0/if 10:9",
            "duplicate_step /steps/1/id 11:9",
            "missing_field /steps/1/agent/prompt 12:12",
            "missing_field /steps/1/agent/cli 12:12",
            "unknown_step /steps/1/needs/0 13:13",
        ]
    );
}

#[test]
fn problems_are_sentences_with_file_and_suggestion() {
    let text = |source: &str| crate::parse(source, Some("fix.yaml")).unwrap_err()[0].to_string();
    assert_eq!(text(&top("timeuot: 1s")), "fix.yaml:3:1: /timeuot: there is no field `timeuot`; did you mean `timeout`? (unknown_field)");
    assert_eq!(
        text(&top("result: {push: yes}")),
        "fix.yaml:3:16: /result/push: expected true or false, found a text; `yes`, `no`, `on` and `off` are texts (type)"
    );
    assert_eq!(
        text(&top("workspace: {mode: persistant}")),
        "fix.yaml:3:19: /workspace/mode: `persistant` is none of temporary, persistent, none; did you mean `persistent`? (unknown_value)"
    );
    assert_eq!(
        text(&step("workflow: {}")),
        "fix.yaml:5:5: /steps/0/workflow: `workflow` steps are not carried out by this version; it runs `shell`, `agent`, `llm`, `best_of` and `approval` steps (unsupported_step)"
    );
    assert_eq!(
        text(&step("")),
        "fix.yaml:4:5: /steps/0: a step has exactly one of shell, llm, agent, best_of, approval, workflow; here is none (step_kind)"
    );
}

#[test]
fn objects_have_pointers_and_no_lines() {
    let errors =
        crate::from_json(&serde_json::json!({"version": 1, "name": "w", "steps": [{"id": "a", "shell": "x", "env": {"HOME": "/"}}, 7]}))
            .unwrap_err();
    let found: Vec<_> = errors.iter().map(|e| (e.code.as_str(), e.pointer.as_str(), e.line, e.column, e.file.clone())).collect();
    assert_eq!(found, [("env_reserved", "/steps/0/env/HOME", None, None, None), ("type", "/steps/1", None, None, None)]);
}
