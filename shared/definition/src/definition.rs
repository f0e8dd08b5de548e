//! The two entries, text and object, and the one answer: a definition, or all problems in the order of the text.

use hopyard_contract::json;
use hopyard_contract::plan::{MAX_STEPS, Plan, check};
use hopyard_contract::problem::FieldError;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::document::{self, Mark, Node};
use crate::reader::Reader;
use crate::workflow;

/// Largest source text, in bytes.
pub const MAX_SOURCE: usize = 256 * 1024;

/// Most problems in one answer; a last one with the code `too_many` says how many were left out.
pub const MAX_PROBLEMS: usize = 100;

/// A definition that was read and found right.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// The step graph it evaluates to, with its defaults applied to the steps.
    pub plan: Plan,
    /// Lower-case hex SHA-256 of `source`.
    pub hash: String,
    /// The text as it was given; canonical JSON for a definition that came as an object.
    pub source: String,
}

/// Reads a definition from YAML 1.2 or JSON text; `file` is the name that problems carry.
///
/// # Errors
/// Everything that is wrong, in the order of the text, at most [`MAX_PROBLEMS`] and a `too_many`. Problems of the text
/// itself (`yaml_syntax`, `control_char`, `too_deep`, `length`) stand alone, since nothing behind them could be read.
pub fn parse(source: &str, file: Option<&str>) -> Result<Definition, Vec<FieldError>> {
    read(source).map_err(|mut errors| {
        for error in &mut errors {
            error.file = file.map(str::to_owned);
        }
        errors
    })
}

/// Reads a definition that came as an object inside of another document.
///
/// # Errors
/// As [`parse`], with pointers but without lines, since the sender never saw the canonical text.
pub fn from_json(value: &Value) -> Result<Definition, Vec<FieldError>> {
    let source = String::from_utf8(json::canonical(value)).expect("JSON text is UTF-8");
    read(&source).map_err(|mut errors| {
        for error in &mut errors {
            (error.line, error.column) = (None, None);
        }
        errors
    })
}

fn read(source: &str) -> Result<Definition, Vec<FieldError>> {
    if source.len() > MAX_SOURCE {
        return Err(vec![FieldError::new("length", "", format!("a definition has at most {} KiB", MAX_SOURCE / 1024))]);
    }
    let document = document::read(source);
    let mut errors = document.errors;
    if let Some(root) = &document.root {
        let mut reader = Reader::new(errors);
        let plan = workflow::read(&mut reader, root);
        errors = reader.into_errors();
        if let Some(mut plan) = plan {
            // Beyond the limit the graph is not looked at: its checks are made for plans that can exist.
            if plan.steps.len() <= MAX_STEPS {
                check_plan(&plan, root, &mut errors);
            }
            if errors.is_empty() {
                plan.add_variants();
                plan.add_delivery();
                let hash = hex::encode(Sha256::digest(source));
                return Ok(Definition { plan, hash, source: source.to_owned() });
            }
        }
    }
    Err(in_order(errors))
}

/// Adds what the plan's own checks find, unless the reader has already complained about the same field.
fn check_plan(plan: &Plan, root: &Node, errors: &mut Vec<FieldError>) {
    let read: std::collections::BTreeSet<String> = errors.iter().map(|e| e.pointer.clone()).collect();
    for mut error in check::check(plan).into_iter().take(10 * MAX_PROBLEMS) {
        // What cannot be read names no inputs either.
        if read.contains(&error.pointer) || (error.code == "unknown_input" && read.contains("/inputs")) {
            continue;
        }
        let place = root.locate(&error.pointer);
        if !place.exact && error.pointer.contains("/needs/") {
            // A single text in place of a list.
            error.pointer.truncate(error.pointer.rfind('/').unwrap_or(0));
        }
        let names_the_key = matches!(error.code.as_str(), "env_key" | "env_reserved" | "pattern");
        let Mark { line, column } = if names_the_key { place.key } else { place.value };
        (error.line, error.column) = (Some(line), Some(column));
        errors.push(error);
    }
}

fn in_order(mut errors: Vec<FieldError>) -> Vec<FieldError> {
    errors.sort_by_key(|e| (e.line, e.column));
    if errors.len() > MAX_PROBLEMS {
        let more = errors.len() - MAX_PROBLEMS;
        errors.truncate(MAX_PROBLEMS);
        errors.push(FieldError::new("too_many", "", format!("{more} more problems are not listed")));
    }
    errors
}
