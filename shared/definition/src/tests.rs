//! Tests of the crate: what is read, what is refused and where, and that a plan survives the way through text.

mod bad;
mod best_of;
mod good;
mod hostile;
mod inputs;
mod published;
mod roles;
mod roundtrip;

use crate::Definition;

/// A definition with `extra` from line 3 on and one step behind it.
fn top(extra: &str) -> String {
    format!("version: 1\nname: w\n{extra}\nsteps:\n  - id: a\n    shell: 'true'\n")
}

/// A definition whose one step has `fields` from line 5 on, indented by four.
fn step(fields: &str) -> String {
    let fields: String = fields.lines().map(|l| format!("    {l}\n")).collect();
    format!("version: 1\nname: w\nsteps:\n  - id: a\n{fields}")
}

/// Problems as `code pointer line:column`.
fn problems(source: &str) -> Vec<String> {
    let errors = crate::parse(source, None).map(|d| d.plan).expect_err(source);
    errors.iter().map(|e| format!("{} {} {}:{}", e.code, e.pointer, e.line.map_or(0, |n| n), e.column.map_or(0, |n| n))).collect()
}

fn good(source: &str) -> Definition {
    crate::parse(source, Some("w.yaml")).unwrap_or_else(|errors| panic!("{source}\n{errors:#?}"))
}
