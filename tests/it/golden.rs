//! The corpus of every released version: each message and each stored plan still means what it meant, and what a reader does
//! not know costs it nothing but that.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hopyard_contract::event::{EventPage, EventType};
use hopyard_contract::log::BusChunk;
use hopyard_contract::message::*;
use hopyard_contract::plan::Plan;
use hopyard_contract::subject::Verb;
use hopyard_contract::submit::{CancelRequest, Receipt, RunRequest, SubmittedBatch};
use hopyard_contract::topology;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::harness::api::shell;
use crate::harness::wait::{eventually, holds};
use crate::harness::{Harness, Setup, http};
use crate::tidy::tree::{files, read, root};

/// Reads a message as its reader does, and says what was understood.
type Read = fn(&Value) -> Result<Value, String>;

fn of<T: DeserializeOwned + Serialize>(message: &Value) -> Result<Value, String> {
    let text = message.to_string();
    let read: T = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    serde_json::to_value(read).map_err(|e| e.to_string())
}

fn answer<T: DeserializeOwned + Serialize>(message: &Value) -> Result<Value, String> {
    of::<RpcAnswer<T>>(message)
}

/// Several runs in one body, as the door takes them apart.
fn many(message: &Value) -> Result<Value, String> {
    let runs = message["runs"].as_array().ok_or("no runs")?;
    Ok(json!({ "runs": runs.iter().map(of::<RunRequest>).collect::<Result<Vec<_>, _>>()? }))
}

fn plan(message: &Value) -> Result<Value, String> {
    let plan = Plan::from_stored(message.clone()).map_err(|e| e.to_string())?;
    serde_json::to_value(plan).map_err(|e| e.to_string())
}

/// Every message by the name of its files, and who reads it. `<name>.<what>.json` is a further example of `<name>`.
const MESSAGES: &[(&str, Read)] = &[
    ("api.submit", of::<RunRequest>),
    ("api.submit.answer", of::<SubmittedBatch>),
    ("beat", of::<Beat>),
    ("cmd.accept", of::<Submission>),
    ("cmd.cancel", of::<CancelRequest>),
    ("cmd.submit", of::<RunRequest>),
    ("cmd.submit.many", many),
    ("ctl", of::<Control>),
    ("dlq", of::<DeadLetter>),
    ("event", of::<EventPage>),
    ("gc", of::<GcTicket>),
    ("log", of::<BusChunk>),
    ("plan", plan),
    ("receipt", of::<Receipt>),
    ("result", of::<Reports>),
    ("rpc.accept.request", of::<Accept>),
    ("rpc.accept.answer", answer::<AcceptReply>),
    ("rpc.answer.request", of::<AnswerStep>),
    ("rpc.answer.answer", answer::<AnswerReply>),
    ("rpc.claim.request", of::<Claim>),
    ("rpc.claim.answer", answer::<ClaimReply>),
    ("rpc.drain.request", of::<Drain>),
    ("rpc.drain.answer", answer::<()>),
    ("rpc.error", answer::<()>),
    ("rpc.hello.request", of::<Hello>),
    ("rpc.hello.answer", answer::<HelloReply>),
    ("rpc.kill.request", of::<KillRun>),
    ("rpc.kill.answer", answer::<KillReply>),
    ("rpc.pin.request", of::<Pin>),
    ("rpc.pin.answer", answer::<PinReply>),
    ("rpc.put_definition.request", of::<PutDefinition>),
    ("rpc.put_definition.answer", answer::<PutDefinitionReply>),
    ("rpc.renew.request", of::<Renew>),
    ("rpc.renew.answer", answer::<RenewReply>),
    ("rpc.resume.request", of::<ResumeRun>),
    ("rpc.resume.answer", answer::<ResumeReply>),
    ("rpc.status.request", of::<StatusQuery>),
    ("rpc.status.answer", answer::<SchedulerStatus>),
    ("rpc.workspaces.request", of::<WorkspacesQuery>),
    ("rpc.workspaces.answer", answer::<WorkspacesReply>),
    ("work", of::<Ticket>),
];

/// What comes from outside: unknown fields are refused there, so that a typing error is not taken for a wish.
const DOORS: [&str; 4] = ["api.submit", "cmd.cancel", "cmd.submit", "cmd.submit.many"];

/// One file of the corpus.
struct Golden {
    version: String,
    name: String,
    message: Value,
}

fn corpus() -> Vec<Golden> {
    let folder = root().join("tests/golden");
    let mut found = Vec::new();
    for file in files(&["json"]).into_iter().filter(|file| file.starts_with(&folder)) {
        let inside = file.strip_prefix(&folder).unwrap();
        let version = inside.parent().unwrap().display().to_string();
        let name = inside.file_stem().unwrap().to_string_lossy().into_owned();
        let message = serde_json::from_str(&read(&file)).unwrap_or_else(|e| panic!("{}: {e}", inside.display()));
        found.push(Golden { version, name, message });
    }
    found
}

/// The entry of a file: the longest name that it is an example of.
fn entry(name: &str) -> Option<(&'static str, Read)> {
    let fits = |key: &str| name == key || name.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
    MESSAGES.iter().copied().filter(|(key, _)| fits(key)).max_by_key(|(key, _)| key.len())
}

/// Whether everything that `told` says was understood; what a newer shape adds may stand beside it.
fn understood(told: &Value, read: &Value) -> Result<(), String> {
    match (told, read) {
        (Value::Object(told), Value::Object(read)) => {
            for (key, value) in told {
                understood(value, read.get(key).unwrap_or(&Value::Null)).map_err(|e| format!("{key}: {e}"))?;
            }
            Ok(())
        }
        (Value::Array(told), Value::Array(read)) if told.len() == read.len() => {
            told.iter().zip(read).enumerate().try_for_each(|(i, (told, read))| understood(told, read).map_err(|e| format!("{i}: {e}")))
        }
        // What is empty may be left out.
        (Value::Object(map), Value::Null) if map.is_empty() => Ok(()),
        (told, read) if told == read => Ok(()),
        (told, read) => Err(format!("{told} was read as {read}")),
    }
}

/// Covers I6: messages and plans of every released version are read for what they say.
#[test]
fn every_released_message_still_means_what_it_did() {
    for golden in corpus() {
        let Golden { version, name, message } = golden;
        let (_, read) = entry(&name).unwrap_or_else(|| panic!("{version}/{name}.json is no message: add it to the table"));
        let meant = read(&message).unwrap_or_else(|e| panic!("{version}/{name}.json cannot be read: {e}"));
        understood(&message, &meant).unwrap_or_else(|e| panic!("{version}/{name}.json: {e}"));
    }
}

#[test]
fn every_message_has_a_file() {
    let names: BTreeSet<String> = corpus().into_iter().map(|golden| golden.name).collect();
    let has = |key: &str| names.iter().any(|name| entry(name).is_some_and(|(of, _)| of == key));
    for (key, _) in MESSAGES.iter().filter(|(key, _)| *key != "api.submit") {
        assert!(has(key), "tests/golden has no file {key}.json");
    }
    for verb in Verb::ALL {
        for way in ["request", "answer"] {
            let key = format!("rpc.{}.{way}", verb.as_str());
            assert!(MESSAGES.iter().any(|(known, _)| *known == key), "{key} is not in the table");
        }
    }
    for subject in topology::STREAMS.iter().flat_map(|stream| stream.subjects) {
        let key = subject.trim_start_matches("hopyard.").trim_end_matches(".*").trim_end_matches(".*");
        assert!(MESSAGES.iter().any(|(known, _)| *known == key), "messages of {subject} are not in the table as {key}");
    }
}

/// Names of fields and written forms of variants in a source file of messages.
fn words(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut in_enum, mut renamed) = (false, None);
    for line in source.lines() {
        if line.starts_with("pub enum") || line.starts_with("pub struct") {
            in_enum = line.starts_with("pub enum");
        }
        if let Some((_, rest)) = line.split_once("rename = \"") {
            renamed = rest.split_once('"').map(|(name, _)| name.to_owned());
        }
        let Some(body) = line.strip_prefix("    ").filter(|body| !body.starts_with("//") && !body.starts_with('#')) else { continue };
        let field = body.trim_start().trim_start_matches("pub ").split_once(": ").map(|(name, _)| name);
        let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if let Some(field) = field.filter(|name| is_word(name) && (body.starts_with("pub ") || in_enum)) {
            found.push(renamed.take().unwrap_or_else(|| field.to_owned()));
        } else if in_enum && body.starts_with(|c: char| c.is_ascii_uppercase()) {
            let variant = body.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
            let mut snake = String::new();
            for (i, c) in variant.char_indices() {
                if c.is_ascii_uppercase() && i > 0 {
                    snake.push('_');
                }
                snake.push(c.to_ascii_lowercase());
            }
            found.push(snake);
        }
    }
    found
}

/// A new field, variant or type of message comes with an example.
#[test]
fn every_word_of_the_messages_is_in_the_corpus() {
    let text: String = corpus().iter().map(|golden| golden.message.to_string()).collect();
    let folder = root().join("shared/contract/src/message");
    let sources: Vec<_> = files(&["rs"]).into_iter().filter(|file| file.starts_with(&folder)).collect();
    let mut all: Vec<String> = sources.iter().flat_map(|file| words(&read(file))).collect();
    assert!(sources.len() >= 8 && all.len() > 100, "the messages were found");
    all.extend(EventType::ALL.iter().map(|kind| kind.as_str().to_owned()));
    let missing: BTreeSet<_> = all.into_iter().filter(|word| !text.contains(&format!("\"{word}\""))).collect();
    assert!(missing.is_empty(), "no file of tests/golden has {missing:?}: add them to the folder of the version that brings them");
}

/// Adds a field that nobody knows to every object that is a message or a part of one, and no map.
fn with_unknown_fields(message: &mut Value, fields: &BTreeSet<String>) -> usize {
    let mut added = 0;
    match message {
        Value::Object(map) => {
            added += map
                .iter_mut()
                .filter(|(key, _)| *key != "plan")
                .map(|(_, value)| value)
                .map(|value| with_unknown_fields(value, fields))
                .sum::<usize>();
            // An object of one key is a variant with its content.
            if map.len() > 1 && map.keys().all(|key| fields.contains(key)) {
                map.insert("of_a_later_version".to_owned(), json!({ "a": [1] }));
                added += 1;
            }
        }
        Value::Array(items) => added += items.iter_mut().map(|item| with_unknown_fields(item, fields)).sum::<usize>(),
        _ => {}
    }
    added
}

/// Covers I6: a reader of the version before takes the message of the next one.
#[test]
fn internal_readers_ignore_fields_that_they_do_not_know() {
    let folder = root().join("shared/contract/src/message");
    let sources = files(&["rs"]).into_iter().filter(|file| file.starts_with(&folder));
    let mut fields: BTreeSet<String> = sources.flat_map(|file| words(&read(&file))).collect();
    fields.extend(
        [
            "workflow",
            "inputs",
            "url",
            "ref",
            "digest",
            "size",
            "cost_microusd",
            "tokens",
            "turns",
            "tool_calls",
            "id",
            "run_id",
            "seq",
            "type",
            "step",
            "n",
            "offset",
            "stream",
            "text",
            "b64",
            "end",
            "events",
            "data",
        ]
        .map(str::to_owned),
    );
    // A plan is refused by its version instead: a part of it that is not understood must not be left out.
    for golden in corpus() {
        let (key, read) = entry(&golden.name).unwrap();
        if DOORS.contains(&key) || key == "plan" {
            continue;
        }
        let mut later = golden.message.clone();
        let added = with_unknown_fields(&mut later, &fields);
        let meant = read(&later).unwrap_or_else(|e| panic!("{} with {added} unknown fields: {e}", golden.name));
        assert_eq!(Some(meant), read(&golden.message).ok(), "{}", golden.name);
    }
}

/// Covers C7, I6: what the real readers cannot read becomes a dead letter with its bytes, and what stands beside it goes on.
#[tokio::test]
async fn unknown_variants_are_set_aside_by_every_reader() {
    let mut harness = Harness::start(Setup { metrics: true, ..Setup::default() }).await;
    let mut bus = harness.bus().await;
    let removed = json!({ "workspace_removed": { "id": format!("{}-g1", uuid()), "host": "host-1", "bytes": 1, "reason": "a test" } });
    let unknown = json!({ "defragmented": { "disk": "sda" } });
    let reports = json!({ "v": 1, "from": "executor-1", "reports": [removed, unknown, removed] });
    let body = serde_json::to_vec(&reports).unwrap();
    bus.store("hopyard.result.executor-1", &[], &body).await;
    let submission =
        json!({ "namespace": "default", "received_at": "2026-11-26T12:00:00Z", "items": [{ "postponed": { "until": "later" } }] });
    bus.store("hopyard.cmd.accept.default", &[], &serde_json::to_vec(&submission).unwrap()).await;
    let run = uuid();
    let page = json!({ "v": 1, "run_id": run, "events": [{ "v": 1, "id": format!("{run}:1"), "run_id": run, "namespace": "default", "seq": 1,
        "type": "run.archived", "at": "2026-11-26T12:00:00Z", "data": {} }] });
    bus.store(&format!("hopyard.event.default.{run}"), &[], &serde_json::to_vec(&page).unwrap()).await;
    let letters = eventually("both letters are there", || async {
        let found = harness.get("/api/v1/dead-letters").await["items"].as_array().cloned().unwrap_or_default();
        holds(found.len() == 2, format!("{found:?}")).map(|()| found)
    })
    .await;
    let of = |stream: &str| letters.iter().find(|letter| letter["stream"] == stream).unwrap_or_else(|| panic!("{letters:#?}"));
    let bytes = |letter: &Value| STANDARD.decode(letter["body"].as_str().unwrap()).unwrap();
    let kept: Value = serde_json::from_slice(&bytes(of("HOPYARD_RESULT"))).unwrap();
    assert_eq!(kept, json!({ "v": 1, "from": "executor-1", "reports": [unknown] }), "only what cannot be read");
    assert_eq!(of("HOPYARD_RESULT")["code"], "undecodable");
    let kept: Value = serde_json::from_slice(&bytes(of("HOPYARD_CMD"))).unwrap();
    assert_eq!(kept, submission);
    // Core messages are dropped with a line; whoever sent them says it again in another way.
    let executor = harness.service("executor-1").admin();
    bus.publish("hopyard.ctl.executor-1", b"{\"meditate\":{}}").await;
    let next = harness.submit(shell("true")).await;
    harness.wait_completed(&next).await;
    let metrics = harness.service("metrics").admin();
    eventually("metrics counts the page that it cannot read", || async {
        let text = http::send(metrics, "GET", "/metrics", &[], b"").await.map_err(|e| e.to_string())?.text();
        holds(text.contains("\nhopyard_metrics_undecodable_total 1\n"), text)
    })
    .await;
    for admin in [executor, metrics] {
        assert_eq!(http::send(admin, "GET", "/livez", &[], b"").await.unwrap().status, 200);
    }
    harness.close().await;
}

fn uuid() -> String {
    hopyard_contract::RunId::mint().to_string()
}
