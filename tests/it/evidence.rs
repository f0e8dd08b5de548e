//! Evidence of runs: one archive, sound as it was written, and no byte of it can be changed unseen.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::Output;

use serde_json::{Value, json};

use crate::harness::api::{on_repo, step_of};
use crate::harness::programs::run_beside;
use crate::harness::provider::Provider;
use crate::harness::{Harness, Setup};

type Files = BTreeMap<String, Vec<u8>>;
/// What is found, and what was changed.
type Change<'a> = (&'a str, &'a dyn Fn(&mut Files));

async fn hopyard(harness: &Harness, args: &[&str]) -> (Option<i32>, Value) {
    let (program, env) = harness.client();
    let args = args.iter().map(|arg| (*arg).to_owned()).chain(["--json".to_owned()]).collect();
    let Output { status, stdout, stderr } = run_beside(program, args, harness.dir().to_owned(), env).await;
    let told = serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&stderr)));
    (status.code(), told)
}

fn unpacked(bytes: &[u8]) -> Files {
    let mut archive = tar::Archive::new(zstd::Decoder::new(bytes).unwrap());
    let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (path, bytes)
    };
    archive.entries().unwrap().map(read).collect()
}

fn packed(files: &Files) -> Vec<u8> {
    let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), 0).unwrap());
    for (path, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, path, &bytes[..]).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

/// Covers X8: submission, definition, plan, events, logs, usage, diff, environment, tools and chain are in one archive, which
/// proves itself without a server; whatever is changed in it is found.
#[tokio::test]
async fn evidence_proves_itself_and_no_change_of_it_goes_unseen() {
    let usage = |input: u64| json!({ "usage": { "input": input, "output": 7 } });
    let provider = Provider::start(&[usage(100), usage(200), usage(300)]);
    let settings = provider.settings("anthropic", "").display().to_string();
    let mut harness = Harness::start(Setup { settings: vec![("CONFIG", settings)], ..Setup::default() }).await;
    let repo = harness.repo(&[&[("README.md", "x\n")]]);
    let write = json!({ "use": [{ "name": "Write", "input": { "file_path": "a.txt", "content": "a\n" } }] });
    let script = format!("{write}\n{}\n", json!({ "say": "done" }));
    let agent = json!({ "id": "fix", "agent": { "cli": "fake", "prompt": "do", "model": "claude-sonnet-4-5", "script": script } });
    let steps = json!([agent, { "id": "look", "needs": ["fix"], "shell": "cat a.txt" }]);
    let run = harness.submit(on_repo(&repo, steps)).await;
    let state = harness.wait_completed(&run).await;

    let (code, made) = hopyard(&harness, &["evidence", "keygen", "evidence.key"]).await;
    let key = made["public_key"].as_str().unwrap().to_owned();
    assert_eq!((code, key.len()), (Some(0), 64));
    let (code, made) = hopyard(&harness, &["runs", "evidence", &run, "-f", "run.evidence", "--key", "evidence.key"]).await;
    assert_eq!((code, &made["signed"]), (Some(0), &json!(true)), "{made:#}");
    let file = harness.dir().join("run.evidence");
    let files = unpacked(&std::fs::read(&file).unwrap());
    let expected = [
        "definition.yaml",
        "environment.json",
        "events.jsonl",
        "logs/fix.1.log",
        "logs/fix.1.spool.zst",
        "logs/look.1.log",
        "logs/look.1.spool.zst",
        "manifest.json",
        "plan.json",
        "records/fix.1.record.json",
        "result/changes.bundle",
        "result/changes.patch",
        "run.json",
        "signature.json",
        "submission.json",
        "tools.json",
        "usage.json",
    ];
    assert_eq!(files.keys().collect::<Vec<_>>(), expected);
    let read = |path: &str| serde_json::from_slice::<Value>(&files[path]).unwrap();
    assert_eq!(files["logs/look.1.log"], b"a\n");
    assert_eq!((&read("run.json")["id"], &read("usage.json")["run"]), (&json!(run), &state["usage"]));
    assert_eq!(
        (read("usage.json")["calls"]["fix.1"].as_array().unwrap().len(), &read("tools.json")["fix.1"][0]["name"]),
        (2, &json!("Write"))
    );
    assert_eq!(read("environment.json")["attempts"][0]["executor"], step_of(&state, "fix")["attempts"][0]["executor"]);
    assert_eq!(String::from_utf8_lossy(&files["events.jsonl"]).lines().count(), harness.events(&run).await.len());

    let verify = async |args: &[&str]| {
        let all: Vec<&str> = ["evidence", "verify", "run.evidence"].into_iter().chain(args.iter().copied()).collect();
        let (code, told) = hopyard(&harness, &all).await;
        let wrong = told["wrong"].as_array().unwrap().iter().map(|wrong| wrong.as_str().unwrap()).collect::<Vec<_>>().join("; ");
        (code, told["signed_by"].clone(), wrong)
    };
    assert_eq!(verify(&["--key", &key]).await, (Some(0), json!(key), String::new()));
    let other = "00".repeat(32);
    assert_eq!(verify(&["--key", &other]).await, (Some(1), Value::Null, format!("it is signed by {key}")));

    let changed = |change: &dyn Fn(&mut Files)| {
        let mut files = files.clone();
        change(&mut files);
        std::fs::write(&file, packed(&files)).unwrap();
    };
    let set = |files: &mut Files, path: &str, from: &str, to: &str| {
        let text = String::from_utf8(files[path].clone()).unwrap();
        assert!(text.contains(from), "{path} has {from}");
        files.insert(path.to_owned(), text.replacen(from, to, 1).into_bytes());
    };
    let cases: [Change<'_>; 6] = [
        ("logs/look.1.log is not the file", &|files| drop(files.insert("logs/look.1.log".to_owned(), b"b\n".to_vec()))),
        ("result/changes.patch is not there", &|files| drop(files.remove("result/changes.patch"))),
        ("extra.txt is named by nobody", &|files| drop(files.insert("extra.txt".to_owned(), Vec::new()))),
        ("the manifest is not what was signed", &|files| {
            set(files, "manifest.json", "\"namespace\": \"default\"", "\"namespace\": \"other\"")
        }),
        ("the chain of events breaks at line 2", &|files| set(files, "events.jsonl", "\"seq\":2", "\"seq\":3")),
        ("it has no manifest", &|files| drop(files.remove("manifest.json"))),
    ];
    for (words, change) in cases {
        changed(change);
        let (code, _, wrong) = verify(&[]).await;
        assert!(code == Some(1) && wrong.contains(words), "{words}: {wrong}");
    }
    // Every single byte counts, wherever it is.
    let whole = packed(&files);
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        let (code, _, wrong) = verify(&[]).await;
        let same = code == Some(0) && unpacked_or_nothing(&bytes).is_some_and(|unpacked| unpacked == files);
        assert!(code == Some(1) || same, "byte {at}: {code:?} {wrong}");
    }
    harness.close().await;
}

/// The contents of an archive that can be read; a changed byte of a checksum or of padding changes none of them.
fn unpacked_or_nothing(bytes: &[u8]) -> Option<Files> {
    std::panic::catch_unwind(|| unpacked(bytes)).ok()
}
