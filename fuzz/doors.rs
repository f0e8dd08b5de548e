//! The decoders of the door, as `decoders.rs` has those of the pure crates.

use hopyard_contract::id::Name;
use hopyard_contract::json;
use hopyard_ingest::accept::request::{self, Form};
use hopyard_ingest::http::wire::heads::Heads;
use hopyard_ingest::read::params::Params;
use hopyard_ingest::read::{cursor, events, filter};

/// A name and what is done with the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them, by the names of their targets.
pub const ALL: &[Target] = &[("run_request", run_request), ("small_bodies", small_bodies), ("query", query), ("http_heads", http_heads)];

/// A request that is taken is the same request when its typed form is sent again, and holds what the checks promise.
pub fn run_request(data: &[u8]) {
    let Ok(value) = json::parse(data) else { return };
    for form in [Form::One, Form::Many, Form::Either] {
        let Ok(items) = request::body(&value, form) else { continue };
        assert!(!items.is_empty() && items.len() <= hopyard_contract::submit::MAX_RUNS);
        for item in items {
            match item {
                Err(errors) => assert!(!errors.is_empty(), "refused without a reason"),
                Ok(taken) => {
                    assert!(taken.workflow.is_some() != taken.definition.is_some());
                    assert!(taken.priority <= 3 && taken.labels.len() <= 64 && taken.after.len() <= 100);
                    assert!(taken.repo.as_ref().is_none_or(|repo| repo.check().is_empty()));
                    let again = serde_json::to_value(&taken).expect("a request can be written");
                    assert_eq!(request::request(&again).expect("what was taken is taken again"), taken);
                    assert_eq!(serde_json::from_value::<hopyard_contract::submit::RunRequest>(again).expect("a typed form"), taken);
                }
            }
        }
    }
}

/// Cancels and re-runs.
pub fn small_bodies(data: &[u8]) {
    let Ok(value) = json::parse(data) else { return };
    for needs_run in [false, true] {
        match request::cancel(&value, needs_run) {
            Err(errors) => assert!(!errors.is_empty()),
            Ok(taken) => {
                assert_eq!(taken.run_id.is_some(), needs_run);
                let again = serde_json::to_value(&taken).expect("a cancel can be written");
                assert_eq!(request::cancel(&again, needs_run).expect("it is taken again"), taken);
            }
        }
    }
    if let Ok(taken) = request::rerun(&value) {
        assert!(taken.idempotency_key.is_none_or(|key| (1..=request::MAX_KEY).contains(&key.chars().count())));
    }
}

/// Queries, cursors and event ids: refused with a reason, or read; a cursor opens only as it was given out.
pub fn query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let namespace = Name::default_namespace();
    if let Ok(params) = Params::of_query(text)
        && let Ok(read) = filter::read(&params, &namespace)
    {
        assert!((1..=200).contains(&read.limit));
        assert!(read.created_after.zip(read.created_before).is_none_or(|(from, to)| from <= to));
    }
    if let Some(key) = cursor::open("runs", &namespace, text) {
        assert_eq!(cursor::seal("runs", &namespace, &key), text);
    }
    assert_eq!(cursor::open("runs", &namespace, &cursor::seal("runs", &namespace, text)).as_deref(), Some(text));
    if let Ok(position) = events::position(Some(text)) {
        assert_eq!(position.to_string(), text);
    }
}

/// Heads of requests are found wherever the bytes of a connection are cut.
pub fn http_heads(data: &[u8]) {
    let told = |size: usize| {
        let mut heads = Heads::default();
        data.chunks(size).for_each(|piece| heads.read(piece));
        let unclear: Vec<bool> = std::iter::from_fn(|| heads.take()).collect();
        (unclear, heads.has_begun())
    };
    let whole = told(data.len().max(1));
    assert_eq!(told(1), whole);
    assert_eq!(told(5), whole);
}
