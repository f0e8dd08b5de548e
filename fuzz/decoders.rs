//! Every decoder of the pure crates for bytes that others wrote, and what has to hold of it; a broken promise is a panic.
//!
//! The fuzz targets call these functions, and `tests/it/corpus.rs` calls them with the kept corpus. Those of the door are in
//! `doors.rs`, since it takes long to build.

use chrono::DateTime;
use hopyard_contract::condition::{self, Call, Scope};
use hopyard_contract::duration::Span;
use hopyard_contract::id::{Name, RunId};
use hopyard_contract::log::frame;
use hopyard_contract::plan::{Plan, check};
use hopyard_contract::repository::{RepoSpec, check_ref, check_url};
use hopyard_contract::{json, money, subject, template, time};
use serde_json::Value;

#[path = "decoders/messages.rs"]
pub mod messages;

/// A decoder by name, as its fuzz target and the folder of its corpus are called.
pub type Decoder = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: &[Decoder] = &[
    ("strict_json", strict_json),
    ("definition", definition),
    ("stored_plan", stored_plan),
    ("expression", expression),
    ("template", template),
    ("log_frame", log_frame),
    ("messages", messages::any),
    ("scalars", scalars),
    ("repository", repository),
    ("subjects", subjects),
];

/// What the doors take for JSON is JSON, and its canonical form is read as the same value.
pub fn strict_json(data: &[u8]) {
    let Ok(value) = json::parse(data) else { return };
    assert_eq!(serde_json::from_slice::<Value>(data).expect("JSON by any reader"), value);
    let canonical = json::canonical(&value);
    assert_eq!(json::parse(&canonical).expect("canonical JSON is JSON"), value);
    assert_eq!(json::canonical(&json::parse(&canonical).expect("it was just read")), canonical);
}

/// A definition that is taken makes a plan that passes its own checks, is stored and read as itself, and has one hash.
pub fn definition(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match hopyard_definition::parse(text, Some("f.yaml")) {
        Err(errors) => {
            assert!((1..=hopyard_definition::MAX_PROBLEMS + 1).contains(&errors.len()));
            assert!(errors.iter().all(|e| !e.code.is_empty() && e.line != Some(0) && e.column != Some(0)));
        }
        Ok(taken) => {
            plan_is_stable(&taken.plan);
            let again = hopyard_definition::parse(&taken.source, None).expect("its source is a definition");
            assert_eq!((again.hash, again.plan), (taken.hash, taken.plan));
        }
    }
    if let Ok(value) = json::parse(data)
        && let Ok(taken) = hopyard_definition::from_json(&value)
    {
        plan_is_stable(&taken.plan);
        let again = hopyard_definition::parse(&taken.source, None).expect("canonical JSON is a definition");
        assert_eq!(again.plan, taken.plan);
    }
}

fn plan_is_stable(plan: &Plan) {
    assert_eq!(check::check(plan), []);
    let stored = serde_json::to_value(plan).expect("a plan can be written");
    let read = Plan::from_stored(stored).expect("a stored plan is read");
    assert_eq!((&read, read.hash()), (plan, plan.hash()));
}

/// A plan out of a store, which somebody may have edited: its checks are total, and it is written and read as itself.
pub fn stored_plan(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return };
    let Ok(mut plan) = Plan::from_stored(value) else { return };
    let found = check::check(&plan);
    assert_eq!(check::check(&plan), found);
    let again = Plan::from_stored(serde_json::to_value(&plan).expect("a plan can be written")).expect("it is read again");
    assert_eq!(again, plan);
    if found.is_empty() {
        plan.add_delivery();
        assert_eq!(check::check(&plan), []);
    }
}

/// A scope in which every path has a value and one call holds.
struct Everything;

impl Scope for Everything {
    fn path(&self, path: &[String]) -> Option<Value> {
        Some(Value::String(path.join(".")))
    }
    fn call(&self, call: Call) -> bool {
        call == Call::Always
    }
}

/// An expression has a value in every scope, and parentheses around it change nothing.
pub fn expression(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(expr) = condition::parse(text) else { return };
    let value = expr.eval(&Everything);
    assert_eq!(expr.eval(&Everything), value);
    let _ = (expr.holds(&Everything), expr.has_call());
    assert!(expr.paths().iter().all(|path| path.len() >= 2));
    if let Ok(wrapped) = condition::parse(&format!("({text})")) {
        assert_eq!(wrapped, expr);
    }
}

/// A template's parts stand in its text in order; without an expression it is rendered as itself.
pub fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let shown = template::render(text, &Everything);
    let Ok(parts) = template::parse(text) else {
        assert_eq!(shown, text);
        return;
    };
    let mut rest = text;
    for part in &parts {
        if let template::Part::Text(piece) = part {
            rest = rest.split_once(piece.as_str()).expect("a part of the text").1;
        }
    }
    if !text.contains("${{") {
        assert_eq!(shown, text);
    }
}

/// A log is the same in whatever pieces its bytes come, and written again it is read as itself.
pub fn log_frame(data: &[u8]) {
    let whole = pieces(data, data.len().max(1));
    for size in [1, 7] {
        assert_eq!(pieces(data, size), whole);
    }
    let mut written = Vec::new();
    let mut offset = 0;
    for piece in &whole.0 {
        assert_eq!(piece.offset, offset);
        offset = piece.end();
        frame::encode(piece.stream, piece.at, &piece.bytes, &mut written);
    }
    let again = pieces(&written, written.len().max(1));
    let told: Vec<&frame::Piece> = whole.0.iter().filter(|piece| !piece.bytes.is_empty()).collect();
    assert_eq!(again.0.iter().collect::<Vec<_>>(), told);
    assert_eq!(again.1, Ok(offset));
}

fn pieces(data: &[u8], size: usize) -> (Vec<frame::Piece>, Result<u64, frame::NotALog>) {
    let mut decoder = frame::Decoder::default();
    let mut found = Vec::new();
    for bytes in data.chunks(size) {
        decoder.push(bytes);
        loop {
            match decoder.next_piece() {
                Ok(Some(piece)) => found.push(piece),
                Ok(None) => break,
                Err(error) => return (found, Err(error)),
            }
        }
    }
    (found, decoder.finish())
}

/// Durations, times, money, ids and names are written as they are read.
pub fn scalars(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(span) = text.parse::<Span>() {
        assert_eq!(span.to_string().parse::<Span>(), Ok(span));
        assert_eq!(Span::from_millis(span.millis()), span);
    }
    if let Ok(at) = time::parse(text) {
        assert_eq!(time::parse(&time::format(at)), Ok(at));
        assert!(at >= DateTime::UNIX_EPOCH);
    }
    if let Ok(amount) = money::parse_microusd(text) {
        assert_eq!(money::parse_microusd(money::format_microusd(amount).trim_start_matches('$')), Ok(amount));
    }
    if let Ok(id) = text.parse::<RunId>() {
        assert_eq!(id.to_string(), text);
        assert_eq!(RunId::from_uuid(id.as_uuid()), id);
    }
    if let Ok(name) = text.parse::<Name>() {
        assert_eq!(name.as_str(), text);
        assert!((1..=64).contains(&text.len()) && !text.contains(['.', '*', '>', '/', ' ']));
    }
}

/// What may reach a git command line: no option, no other transport, no white space, no way out of a directory.
pub fn repository(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if check_url(text).is_ok() {
        assert!(!text.starts_with('-') && !text.contains(char::is_whitespace) && !text.contains(char::is_control));
        assert!(!text.split('/').any(|part| part == ".."));
        assert!(text.starts_with('/') || text.starts_with("https://") || text.starts_with("ssh://") || text.contains('@'));
        // Git's own reading of `helper::address`; two colons in the path of a URL are none.
        let scheme = text.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "+-.".contains(c));
        assert!(!scheme.starts_with("::"), "a transport helper");
        let spec = RepoSpec { url: text.to_owned(), reference: None };
        assert!(spec.check().is_empty());
    }
    if check_ref(text).is_ok() {
        assert!(!text.starts_with('-') && !text.contains("..") && !text.contains(char::is_control) && !text.ends_with(".lock"));
    }
}

/// A subject that is read is the one that would be built.
pub fn subjects(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match subject::parse_cmd(text) {
        Some(subject::Command::Submit(ns)) => assert_eq!(subject::cmd_submit(&ns), text),
        Some(subject::Command::Accept(ns)) => assert_eq!(subject::cmd_accept(&ns), text),
        Some(subject::Command::Cancel(ns)) => assert_eq!(subject::cmd_cancel(&ns), text),
        None => {}
    }
    if let Some(ns) = subject::parse_api_submit(text) {
        assert_eq!(subject::api_submit(&ns), text);
    }
    if let Some(verb) = subject::Verb::of_subject(text) {
        assert!(verb.one() == text || verb.every() == text);
    }
}
