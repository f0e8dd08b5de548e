//! Definitions: YAML itself, steps and their graph, expressions, environments; covers A19.
//!
//! Broken YAML is 422, not 400: it is the value of a field for most doors, and one text has one answer.

use super::table::Row;

/// A definition with this line on its top level.
fn top(line: &str) -> String {
    format!("version: 1\nname: bad\n{line}\nsteps:\n  - id: a\n    shell: x\n")
}

/// A definition of one step with these lines.
fn step(lines: &str) -> String {
    format!("version: 1\nname: bad\nsteps:\n  - id: a\n    {}\n", lines.replace('\n', "\n    "))
}

/// Rows of this topic.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (class, line, code, pointer) in TOP {
        rows.push(Row::definition(*class, top(line), code, *pointer));
    }
    for (class, lines, code, pointer) in STEP {
        rows.push(Row::definition(*class, step(lines), code, *pointer));
    }
    for (class, text, code, pointer) in WHOLE {
        rows.push(Row::definition(*class, *text, code, *pointer));
    }
    for (list, code, pointer) in GRAPHS {
        rows.push(Row::definition(64, format!("version: 1\nname: bad\nsteps: [{list}]"), code, *pointer));
    }
    let many = |n: usize| (0..n).map(|i| format!("{{id: s{i}, shell: x}}, ")).collect::<String>();
    rows.push(Row::definition(64, format!("version: 1\nname: bad\nsteps: [{}]", many(201)), "length", "/steps"));
    let needs = (0..201).map(|i| format!("s{i}, ")).collect::<String>();
    rows.push(Row::definition(64, step(&format!("shell: x\nneeds: [{needs}]")), "length", "/steps/0/needs"));
    let env = |n: usize, value: &str| format!("env: {{{}}}", (0..n).map(|i| format!("K{i}: {value}, ")).collect::<String>());
    rows.push(Row::definition(62, top(&env(257, "v")), "length", "/env"));
    rows.push(Row::definition(62, top(&env(1, &"v".repeat(64 * 1024 + 1))), "length", "/env"));
    rows.push(Row::definition(62, step(&format!("shell: x\n{}", env(257, "v"))), "length", "/steps/0/env"));
    rows.push(Row::definition(61, top(&format!("env: {{{}: v}}", "K".repeat(129))), "env_key", format!("/env/{}", "K".repeat(129))));
    rows.push(Row::definition(66, step(&format!("shell: x\nif: \"{}\"", "!".repeat(2001))), "expression", "/steps/0/if"));
    rows.push(Row::definition(66, step(&format!("shell: x\nif: \"{}true\"", "!".repeat(100))), "expression", "/steps/0/if"));
    rows.push(Row::definition(
        66,
        step(&format!("shell: x\nif: \"{}true{}\"", "(".repeat(100), ")".repeat(100))),
        "expression",
        "/steps/0/if",
    ));
    rows.push(Row::definition(66, top(&format!("env: {{A: \"${{{{ {} }}}}\"}}", "'a' == ".repeat(400))), "expression", "/env/A"));
    rows.push(Row::definition(33, format!("{}# {}", top(""), "x".repeat(256 * 1024)), "length", ""));
    rows.push(Row::definition(12, top(&format!("inputs: {}1{}", "[".repeat(64), "]".repeat(64))), "too_deep", ""));
    rows.push(Row::definition(12, top(&format!("inputs: {}1", "[".repeat(1000))), "too_deep", ""));
    rows
}

const TOP: &[(u8, &str, &str, &str)] = &[
    (11, "stepz: 1", "unknown_field", "/stepz"),
    (11, "a/b~c: 1", "unknown_field", "/a~1b~0c"),
    (11, "workspace: {kind: none}", "unknown_field", "/workspace/kind"),
    (11, "workspace: {mode: tempory}", "unknown_value", "/workspace/mode"),
    (11, "concurrency: {key: k, policy: drop}", "unknown_value", "/concurrency/policy"),
    (11, "defaults: {shell: x}", "unknown_field", "/defaults/shell"),
    (9, "name: again", "duplicate_key", "/name"),
    (10, "env: {A: 1, A: 2}", "duplicate_key", "/env/A"),
    (21, "budget: {cost_usd: -1}", "money", "/budget/cost_usd"),
    (26, "budget: {cost_usd: 0.1234567}", "money", "/budget/cost_usd"),
    (26, "budget: {turns: 340282366920938463463374607431768211456000}", "range", "/budget/turns"),
    (21, "budget: {turns: 0}", "range", "/budget/turns"),
    (23, "budget: {turns: 1.5}", "type", "/budget/turns"),
    (21, "concurrency: {key: k, limit: 0}", "range", "/concurrency/limit"),
    (26, "concurrency: {key: k, limit: 10001}", "range", "/concurrency/limit"),
    (33, "concurrency: {key: ''}", "length", "/concurrency/key"),
    (11, "concurrency: {limit: 2}", "missing_field", "/concurrency/key"),
    (28, "timeout: 0s", "range", "/timeout"),
    (28, "timeout: 1000000000s", "duration", "/timeout"),
    (28, "timeout: 367d", "range", "/timeout"),
    (28, "timeout: 30", "duration", "/timeout"),
    (28, "timeout: soon", "duration", "/timeout"),
    (28, "timeout: [1s]", "type", "/timeout"),
    (28, "defaults: {timeout: 0ms}", "range", "/defaults/timeout"),
    (28, "defaults: {retry: {max_attempts: 101}}", "range", "/defaults/retry/max_attempts"),
    (58, "result: {branch: a b}", "ref", "/result/branch"),
    (58, "result: {branch: '-x'}", "ref", "/result/branch"),
    (58, "result: {branch: 'a..${{ run.id }}'}", "ref", "/result/branch"),
    (58, "result: {merge: -x}", "ref", "/result/merge"),
    (61, "env: {A=B: x}", "env_key", "/env/A=B"),
    (61, "env: {'': x}", "env_key", "/env/"),
    (61, "env: {1A: x}", "env_key", "/env/1A"),
    (61, "env: {'A B': x}", "env_key", "/env/A B"),
    (61, "env: {é: x}", "env_key", "/env/é"),
    (61, "env: {A-B: x}", "env_key", "/env/A-B"),
    (61, "env: {LD_PRELOAD: x}", "env_reserved", "/env/LD_PRELOAD"),
    (61, "env: {LD_LIBRARY_PATH: x}", "env_reserved", "/env/LD_LIBRARY_PATH"),
    (61, "env: {GIT_DIR: x}", "env_reserved", "/env/GIT_DIR"),
    (61, "env: {GIT_SSH_COMMAND: x}", "env_reserved", "/env/GIT_SSH_COMMAND"),
    (61, "env: {PATH: x}", "env_reserved", "/env/PATH"),
    (61, "env: {HOME: x}", "env_reserved", "/env/HOME"),
    (61, "env: {BASH_ENV: x}", "env_reserved", "/env/BASH_ENV"),
    (61, "env: {IFS: x}", "env_reserved", "/env/IFS"),
    (61, "env: {HOPYARD_TOKEN: x}", "env_reserved", "/env/HOPYARD_TOKEN"),
    (61, "env: {DYLD_INSERT_LIBRARIES: x}", "env_reserved", "/env/DYLD_INSERT_LIBRARIES"),
    (62, "env: {A: \"a\\0b\"}", "control_char", "/env/A"),
    (25, "env: {A: [1]}", "type", "/env/A"),
    (25, "env: {A: }", "type", "/env/A"),
    (66, "env: {A: '${{ inputs.nope }}'}", "unknown_input", "/env/A"),
    (66, "env: {A: '${{ run.id'}", "expression", "/env/A"),
    (66, "env: {A: '${{ }}'}", "expression", "/env/A"),
    (66, "env: {A: '${{ completed() }}'}", "expression", "/env/A"),
    (66, "concurrency: {key: '${{ steps.a.status }}'}", "unknown_step", "/concurrency/key"),
    (65, "env: &e {A: 1}", "yaml_feature", "/env"),
    (65, "env: *nowhere", "yaml_feature", "/env"),
    (65, "env: {<<: *x}", "yaml_feature", "/env/<<"),
    (65, "env: !!python/object:os.system {A: 1}", "yaml_feature", "/env"),
    (65, "env: !custom x", "yaml_feature", "/env"),
    (65, "timeout: !!str 10", "yaml_feature", "/timeout"),
    (65, "? [a, b]\n: c", "yaml_feature", ""),
    (65, "result: {push: yes}", "type", "/result/push"),
    (65, "result: {push: on}", "type", "/result/push"),
    (65, "result: {push: 'true'}", "type", "/result/push"),
    (65, "env: {A: .inf}", "number_range", "/env/A"),
    (65, "env: {A: .nan}", "number_range", "/env/A"),
    (26, "inputs: {x: {minimum: 99999999999999999999}}", "number_range", "/inputs/x"),
    (11, "inputs: {x: {typ: string}}", "unknown_field", "/inputs/x/typ"),
    (25, "inputs: {x: string}", "type", "/inputs/x"),
    (25, "inputs: {x: {type: strin}}", "schema", "/inputs/x/type"),
    (25, "inputs: {x: {type: integer, default: a}}", "schema", "/inputs/x/default"),
    (50, "inputs: {x: {$ref: 'file:///etc/passwd'}}", "schema", "/inputs/x/$ref"),
    (66, "inputs: {x: {type: string, pattern: '('}}", "schema", "/inputs/x/pattern"),
    (66, "inputs: {x: {type: string, pattern: '(?=a)b'}}", "schema", "/inputs/x/pattern"),
    (34, "inputs: {a-b: {}}", "pattern", "/inputs/a-b"),
    (34, "defaults: {pool: A B}", "pattern", "/defaults/pool"),
];

const STEP: &[(u8, &str, &str, &str)] = &[
    (63, "shell: ''", "length", "/steps/0/shell"),
    (63, "shell: '  '", "length", "/steps/0/shell"),
    (63, "shell: [a, b]", "type", "/steps/0/shell"),
    (63, "shell: {a: b}", "type", "/steps/0/shell"),
    (63, "shell: 7", "type", "/steps/0/shell"),
    (63, "shell:", "type", "/steps/0/shell"),
    (63, "shell: \"a\\0b\"", "control_char", "/steps/0/shell"),
    (63, "command: [make]", "step_kind", "/steps/0"),
    (63, "needs: []", "step_kind", "/steps/0"),
    (63, "shell: x\nagent: {cli: claude}", "step_kind", "/steps/0"),
    (63, "agent: {cli: claude}", "missing_field", "/steps/0/agent/prompt"),
    (63, "agent: {cli: gpt, prompt: x}", "unknown_value", "/steps/0/agent/cli"),
    (63, "agent: {cli: claude, prompt: x, max_turns: 0}", "range", "/steps/0/agent/max_turns"),
    (63, "agent: {cli: claude, prompt: x, script: y}", "unknown_field", "/steps/0/agent/script"),
    (63, "agent: {role: cook, prompt: x}", "unknown_role", "/steps/0/agent/role"),
    (63, "agent: {role: '${{ run.id }}', prompt: x}", "expression", "/steps/0/agent/role"),
    (63, "llm: {}", "missing_field", "/steps/0/llm/model"),
    (63, "workflow: {}", "unsupported_step", "/steps/0/workflow"),
    (63, "llm: {model: m, prompt: x, output: {type: thing}}", "schema", "/steps/0/llm/output/type"),
    (63, "llm: {model: m, prompt: x, tools: readfile}", "type", "/steps/0/llm/tools"),
    (63, "llm: {model: m, prompt: x, tools: [websearch]}", "unknown_tool", "/steps/0/llm/tools/0"),
    (63, "llm: {model: m, prompt: x, tools: [grep, shell]}", "unknown_tool", "/steps/0/llm/tools/1"),
    (63, "llm: {model: m, prompt: x, tools: ['shell(./run)']}", "unknown_tool", "/steps/0/llm/tools/0"),
    (63, "llm: {model: m, prompt: x, tools: ['//../up:x']}", "unknown_tool", "/steps/0/llm/tools/0"),
    (63, "llm: {model: m, prompt: x, tools: [grep, '//p:grep']}", "duplicate_tool", "/steps/0/llm/tools/1"),
    (63, "llm: {model: m, prompt: x, max_turns: 0}", "range", "/steps/0/llm/max_turns"),
    (11, "shell: x\ntimeuot: 1s", "unknown_field", "/steps/0/timeuot"),
    (11, "shel: x", "step_kind", "/steps/0"),
    (28, "shell: x\ntimeout: 0s", "range", "/steps/0/timeout"),
    (28, "shell: x\ntimeout: 999999999d", "range", "/steps/0/timeout"),
    (28, "shell: x\ngrace: -1s", "duration", "/steps/0/grace"),
    (28, "shell: x\nretry: 3", "type", "/steps/0/retry"),
    (28, "shell: x\nretry: {max_attempts: 0}", "range", "/steps/0/retry/max_attempts"),
    (28, "shell: x\nretry: {on: [exit_code]}", "missing_field", "/steps/0/retry/max_attempts"),
    (28, "shell: x\nretry: {max_attempts: 2, on: [exit]}", "unknown_value", "/steps/0/retry/on/0"),
    (28, "shell: x\nretry: {max_attempts: 2, on: []}", "length", "/steps/0/retry/on"),
    (28, "shell: x\nretry: {max_attempts: 2, backoff: {initial: 5m, max: 1s}}", "range", "/steps/0/retry/backoff"),
    (61, "shell: x\nenv: {PATH: x}", "env_reserved", "/steps/0/env/PATH"),
    (61, "shell: x\nenv: {1A: x}", "env_key", "/steps/0/env/1A"),
    (34, "shell: x\npool: A B", "pattern", "/steps/0/pool"),
    (34, "shell: x\nneeds: [1]", "type", "/steps/0/needs/0"),
    (34, "shell: x\nneeds: [B]", "pattern", "/steps/0/needs/0"),
    (64, "shell: x\nneeds: a", "cycle", "/steps/0/needs"),
    (64, "shell: x\nneeds: [zzz]", "unknown_step", "/steps/0/needs/0"),
    (66, "shell: x\nif: system('id')", "expression", "/steps/0/if"),
    (66, "shell: x\nif: __import__", "expression", "/steps/0/if"),
    (66, "shell: x\nif: '\"a\" * 1000000000'", "expression", "/steps/0/if"),
    (66, "shell: x\nif: completed(", "expression", "/steps/0/if"),
    (66, "shell: x\nif: a && && b", "expression", "/steps/0/if"),
    (66, "shell: x\nif: \"'open\"", "expression", "/steps/0/if"),
    (66, "shell: x\nif: ''", "expression", "/steps/0/if"),
    (66, "shell: x\nif: inputs", "expression", "/steps/0/if"),
    (66, "shell: x\nif: steps.a", "expression", "/steps/0/if"),
    (66, "shell: x\nif: 1.2.3 == 4", "expression", "/steps/0/if"),
    (66, "shell: x\nif: '-'", "expression", "/steps/0/if"),
    (66, "shell: x\nif: [a]", "type", "/steps/0/if"),
    (66, "shell: x\nif: inputs.nope", "unknown_input", "/steps/0/if"),
    (66, "shell: x\nif: steps.b.status == 'failed'", "unknown_step", "/steps/0/if"),
    (66, "shell: x\nif: steps.a.status == 'failed'", "unknown_step", "/steps/0/if"),
];

const GRAPHS: &[(&str, &str, &str)] = &[
    ("", "length", "/steps"),
    ("a", "type", "/steps/0"),
    ("{shell: x}", "missing_field", "/steps/0/id"),
    ("{id: '', shell: x}", "length", "/steps/0/id"),
    ("{id: A, shell: x}", "pattern", "/steps/0/id"),
    ("{id: a.b, shell: x}", "pattern", "/steps/0/id"),
    ("{id: ../a, shell: x}", "pattern", "/steps/0/id"),
    ("{id: 7, shell: x}", "type", "/steps/0/id"),
    ("{id: a, shell: x}, {id: a, shell: x}", "duplicate_step", "/steps/1/id"),
    ("{id: a, needs: [b], shell: x}, {id: b, needs: [a], shell: x}", "cycle", "/steps/0/needs"),
    ("{id: a, needs: [c], shell: x}, {id: b, needs: [a], shell: x}, {id: c, needs: [b], shell: x}", "cycle", "/steps/0/needs"),
    ("{id: a, shell: x}, {id: b, needs: [a, a], shell: x}", "duplicate_step", "/steps/1/needs/1"),
    ("{id: a, shell: x}, {id: b, pool: gpu, shell: x}", "pool_conflict", "/steps/1/pool"),
];

const WHOLE: &[(u8, &str, &str, &str)] = &[
    (1, "# nothing", "type", ""),
    (7, "just a text", "type", ""),
    (8, "- a\n- b", "type", ""),
    (11, "{}", "missing_field", "/version"),
    (21, "version: 0\nname: bad\nsteps: [{id: a, shell: x}]", "unsupported_version", "/version"),
    (21, "version: 2\nname: bad\nsteps: [{id: a, shell: x}]", "unsupported_version", "/version"),
    (23, "version: 1.0\nname: bad\nsteps: [{id: a, shell: x}]", "type", "/version"),
    (25, "version: '1'\nname: bad\nsteps: [{id: a, shell: x}]", "type", "/version"),
    (33, "version: 1\nname: ''\nsteps: [{id: a, shell: x}]", "length", "/name"),
    (34, "version: 1\nname: Fix Bug\nsteps: [{id: a, shell: x}]", "pattern", "/name"),
    (25, "version: 1\nname: 5\nsteps: [{id: a, shell: x}]", "type", "/name"),
    (64, "version: 1\nname: bad\nsteps: {id: a}", "type", "/steps"),
    (64, "version: 1\nname: bad\nsteps:", "type", "/steps"),
    (64, "version: 1\nname: bad", "missing_field", "/steps"),
    (65, "version: 1\n\tname: bad", "yaml_syntax", ""),
    (65, "version: 1\nname: [bad\nsteps: x", "yaml_syntax", ""),
    (65, "a: b: c", "yaml_syntax", ""),
    (65, "\"open", "yaml_syntax", ""),
    (65, "version: 1\nname: bad\nsteps: [{id: a, shell: x}]\n---\nversion: 1\n", "yaml_feature", ""),
    (65, "version: 1\nname: bad\nenv: &a [x,x]\ninputs: &b [*a,*a]\nsteps: &c [*b,*b]\nresult: [*c,*c]", "yaml_feature", "/env"),
    (65, "version: 1\nname: bad\nenv: &a [*a]\nsteps: []", "yaml_feature", "/env"),
    (32, "version: 1\nname: \u{7}bad", "control_char", ""),
    (32, "version: 1\nname: bad\u{1b}", "control_char", ""),
    (32, "version: 1\nname: bad\u{ffff}", "control_char", ""),
    (31, "{\"version\": 1, \"name\": \"\\ud800\", \"steps\": []}", "yaml_syntax", "/name"),
    (29, "{\"version\": 1, \"name\": \"bad\", \"steps\": [{\"id\": \"a\", \"shell\": \"\\u0000\"}]}", "control_char", "/steps/0/shell"),
    (9, "{\"version\": 1, \"version\": 1, \"name\": \"bad\", \"steps\": [{\"id\": \"a\", \"shell\": \"x\"}]}", "duplicate_key", "/version"),
];
