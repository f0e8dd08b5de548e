//! Facts about prompt files: what they say, what comes out, and how a mistake is told.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::*;

const FIX: &str = "---\nname: fix\nmodel: anthropic/m\nmax_turns: 9\ninputs:\n  task: string\n  files: string[]\n  depth: low or high\n  hint: string?\n  \
    who: {name: string, age: integer?}\noutputs: {title: string, tags: [string]}\n---\nDo {{ task }} at {{ depth }}.\n{% for file in files %}\n* {{ file }}\n{%- endfor %}\n\
    {% if hint is defined %}Hint: {{ hint }}{% endif %}\n{% include \"parts/end.prompt.md\" %}\n{{ output_schema }}\n";

fn nothing() -> Loader {
    Arc::new(|_| None)
}

fn files(files: &'static [(&'static str, &'static str)]) -> Loader {
    Arc::new(move |path| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned()))
}

fn values(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

fn told(source: &str) -> Vec<String> {
    parse_prompt(source, "p/fix.prompt.md").unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn a_prompt_says_what_goes_in_and_what_comes_out() {
    let prompt = parse_prompt(FIX, "p/fix.prompt.md").unwrap();
    assert_eq!((prompt.name.as_deref(), prompt.model.as_deref(), prompt.max_turns), (Some("fix"), Some("anthropic/m"), Some(9)));
    let properties = &prompt.inputs["properties"];
    assert_eq!(properties["files"], json!({ "type": "array", "items": { "type": "string" } }));
    assert_eq!(properties["depth"], json!({ "type": "string", "enum": ["low", "high"] }));
    assert_eq!((&prompt.inputs["required"], &properties["who"]["required"]), (&json!(["task", "files", "depth", "who"]), &json!(["name"])));
    let outputs = prompt.outputs.as_ref().unwrap();
    assert_eq!((&outputs["required"], &outputs["properties"]["tags"]["type"]), (&json!(["title", "tags"]), &json!("array")));
}

#[test]
fn values_and_included_files_stand_where_they_belong() {
    let prompt = parse_prompt(FIX, "p/fix.prompt.md").unwrap();
    let who = json!({ "name": "ada" });
    let loader = files(&[("p/parts/end.prompt.md", "---\ninputs: {x: string}\n---\nGo, {{ who.name }}.")]);
    let text = prompt.render(&values(json!({ "task": "<it>", "files": ["a", "b"], "depth": "low", "who": who })), loader).unwrap();
    assert!(text.starts_with("Do <it> at low.\n\n* a\n* b\n\nGo, ada.\n{"), "{text}");
    assert!(text.contains("\"tags\""), "the schema of the answer: {text}");
}

#[test]
fn texts_of_a_workflow_become_what_their_types_say() {
    let prompt = parse_prompt(FIX, "p").unwrap();
    let typed = prompt.values_of([("task", "7"), ("files", "[\"a\"]"), ("who", "{\"name\":\"x\",\"age\":3}"), ("depth", "high")]);
    assert_eq!(Value::Object(typed), json!({ "task": "7", "files": ["a"], "who": { "name": "x", "age": 3 }, "depth": "high" }));
}

#[test]
fn what_is_wrong_is_told_with_file_and_line() {
    assert_eq!(
        told("---\ninputs: {a: strng}\n---\nx"),
        ["p/fix.prompt.md:2:13: /inputs/a: there is no type `strng`; did you mean `string`?; an enum is written `a or b` (type_name)"]
    );
    assert_eq!(
        told("---\nmodle: m\n---\nx"),
        ["p/fix.prompt.md:2:1: /modle: there is no field `modle`; did you mean `model`? (unknown_field)"]
    );
    assert_eq!(told("---\nname: n\n"), ["p/fix.prompt.md:1:1: the front matter has no end: a line of `---` (front_matter)"]);
    assert_eq!(told("---\nname: n\n---\n \n"), ["p/fix.prompt.md:4:1: a prompt has text (length)"]);
    assert!(
        told("---\nname: n\n---\none\n{% if %}")[0].starts_with("p/fix.prompt.md:5:1: syntax error"),
        "{:?}",
        told("---\nname: n\n---\none\n{% if %}")
    );
    let tools = "tools: [readfile, Bash]\n---\nx";
    assert!(told(&format!("---\ntype: llm\n{tools}"))[0].starts_with("p/fix.prompt.md:3:19: /tools/1: `Bash` is no tool"));
    assert!(parse_prompt(&format!("---\ntype: agent\n{tools}"), "p.md").is_ok(), "an agent has tools of its own");
    assert_eq!(told("---\ninputs: {2a: string}\ntests: [{inputs: {}}]\n---\nx").len(), 2);
}

#[test]
fn what_does_not_fit_is_told_by_name_and_what_is_not_known_by_line() {
    let prompt = parse_prompt("---\ninputs: {n: integer, s: string?}\n---\none\n{{ m }}", "p.md").unwrap();
    let wrong = prompt.render(&values(json!({ "n": "x", "z": 1 })), nothing()).unwrap_err();
    assert_eq!(wrong.iter().map(|error| error.code.as_str()).collect::<Vec<_>>(), ["invalid_input", "invalid_input"]);
    let undefined = prompt.render(&values(json!({ "n": 1 })), nothing()).unwrap_err();
    assert_eq!((undefined[0].code.as_str(), undefined[0].line), ("template", Some(5)), "{undefined:?}");
    let include = parse_prompt("x\n{% include 'a.md' %}", "d/p.md").unwrap();
    let missing = include.render(&Map::new(), nothing()).unwrap_err();
    assert_eq!((missing[0].file.as_deref(), missing[0].line), (Some("d/p.md"), Some(2)), "{missing:?}");
    let broken = include.render(&Map::new(), files(&[("d/a.md", "one\n\n{{ nope }}")])).unwrap_err();
    assert_eq!((broken[0].file.as_deref(), broken[0].line), (Some("d/a.md"), Some(3)), "{broken:?}");
}

#[test]
fn macros_blocks_and_loops_work_and_no_loop_is_endless() {
    let base = files(&[("base.md", "Head\n{% block body %}{% endblock %}\nFoot"), ("m.md", "{% macro hi(n) %}Hi {{ n }}!{% endmacro %}")]);
    let child = "{% extends 'base.md' %}{% block body %}{% from 'm.md' import hi %}{{ hi('you') }}{% endblock %}";
    let text = parse_prompt(child, "c.md").unwrap().render(&Map::new(), base).unwrap();
    assert_eq!(text, "Head\nHi you!\nFoot");
    let loops = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a * b }}{% endfor %}{% endfor %}";
    let error = parse_prompt(loops, "l.md").unwrap().render(&Map::new(), nothing()).unwrap_err();
    assert!(error[0].detail.contains("fuel"), "{error:?}");
}
