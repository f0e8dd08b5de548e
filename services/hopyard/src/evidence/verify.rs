//! Checking an archive, with nothing but the archive.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use ed25519_dalek::{Verifier as _, VerifyingKey};
use hopyard_contract::Usage;
use hopyard_contract::view::RunView;
use serde_json::{Value, json};

use super::{EVENTS, Link, MANIFEST, Manifest, SIGNATURE, Signature, VERSION, link, origin, sha256, unpack};
use crate::client::output::{self, Format};
use crate::exit::{Exit, Failure};

/// What was found in one archive.
#[derive(Default)]
struct Findings {
    wrong: Vec<String>,
    signed_by: Option<String>,
    files: usize,
    events: usize,
}

pub(super) fn run(format: Format, files: &[PathBuf], key: Option<&str>) -> Result<Exit> {
    let mut exit = Exit::Done;
    for file in files {
        let found = check(file, key)?;
        if !found.wrong.is_empty() {
            exit = Exit::Failed;
        }
        let Findings { wrong, signed_by, files, events } = found;
        let value =
            json!({ "file": file, "sound": wrong.is_empty(), "signed_by": signed_by, "files": files, "events": events, "wrong": wrong });
        let name = file.display();
        let text = match (&signed_by, wrong.as_slice()) {
            (Some(key), []) => format!("{name}: sound; {files} files, {events} events, signed by {key}\n"),
            (None, []) => format!("{name}: sound; {files} files, {events} events, not signed\n"),
            (_, wrong) => wrong.iter().map(|wrong| format!("{name}: {wrong}\n")).collect(),
        };
        output::bytes(output::document(format, &value).unwrap_or(text).as_bytes());
    }
    Ok(exit)
}

fn check(file: &Path, key: Option<&str>) -> Result<Findings> {
    let bytes = std::fs::read(file).map_err(|error| Failure::usage(format!("{} cannot be read: {error}", file.display())))?;
    let mut found = Findings::default();
    match unpack(&bytes) {
        Ok(files) => contents(&files, key, &mut found),
        Err(error) => found.wrong.push(format!("it cannot be unpacked: {error:#}")),
    }
    Ok(found)
}

fn contents(files: &BTreeMap<String, Vec<u8>>, key: Option<&str>, found: &mut Findings) {
    let Some(text) = files.get(MANIFEST) else { return found.wrong.push("it has no manifest".to_owned()) };
    let manifest: Manifest = match serde_json::from_slice(text) {
        Ok(manifest) => manifest,
        Err(error) => return found.wrong.push(format!("its manifest is none: {error}")),
    };
    if manifest.v > VERSION {
        return found.wrong.push(format!("it has version {}, this program reads {VERSION}", manifest.v));
    }
    found.files = manifest.files.len();
    signature(files, text, key, found);
    for (path, entry) in &manifest.files {
        match files.get(path) {
            None => found.wrong.push(format!("{path} is not there")),
            Some(bytes) if bytes.len() as u64 != entry.size || sha256(bytes) != entry.sha256 => {
                found.wrong.push(format!("{path} is not the file that the manifest names"));
            }
            Some(_) => {}
        }
    }
    let named: BTreeSet<&str> = manifest.files.keys().map(String::as_str).chain([MANIFEST, SIGNATURE]).collect();
    found.wrong.extend(files.keys().filter(|path| !named.contains(path.as_str())).map(|path| format!("{path} is named by nobody")));
    events(files, &manifest, found);
    usage(files, &manifest, found);
}

fn signature(files: &BTreeMap<String, Vec<u8>>, manifest: &[u8], key: Option<&str>, found: &mut Findings) {
    let Some(text) = files.get(SIGNATURE) else {
        if key.is_some() {
            found.wrong.push("it is not signed".to_owned());
        }
        return;
    };
    let read = |text: &[u8]| -> Option<(VerifyingKey, ed25519_dalek::Signature, String)> {
        let told: Signature = serde_json::from_slice(text).ok().filter(|told: &Signature| told.algorithm == "ed25519")?;
        let key = VerifyingKey::from_bytes(&hex::decode(&told.public_key).ok()?.try_into().ok()?).ok()?;
        let signature = ed25519_dalek::Signature::from_slice(&hex::decode(&told.signature).ok()?).ok()?;
        Some((key, signature, told.public_key))
    };
    match read(text) {
        None => found.wrong.push("its signature is none".to_owned()),
        Some((signer, signature, name)) => {
            if signer.verify(manifest, &signature).is_err() {
                found.wrong.push("the manifest is not what was signed".to_owned());
            } else if key.is_some_and(|key| !key.trim().eq_ignore_ascii_case(&name)) {
                found.wrong.push(format!("it is signed by {name}"));
            } else {
                found.signed_by = Some(name);
            }
        }
    }
}

/// The chain holds, and no event is missing.
fn events(files: &BTreeMap<String, Vec<u8>>, manifest: &Manifest, found: &mut Findings) {
    let text = files.get(EVENTS).map(|bytes| String::from_utf8_lossy(bytes)).unwrap_or_default();
    let (mut before, mut count) = (origin(), 0u64);
    for line in text.lines() {
        count += 1;
        let Ok(told) = serde_json::from_str::<Link>(line) else { return found.wrong.push(format!("line {count} of {EVENTS} is no event")) };
        let hash = link(&before, &told.event).unwrap_or_default();
        if hash != told.hash {
            return found.wrong.push(format!("the chain of events breaks at line {count}"));
        }
        if told.event.seq != count || told.event.run_id != manifest.run {
            return found.wrong.push(format!("line {count} of {EVENTS} is event {} of {}", told.event.seq, told.event.run_id));
        }
        before = hash;
    }
    found.events = usize::try_from(count).unwrap_or(usize::MAX);
    if (count, &before) != (manifest.events, &manifest.chain) {
        found.wrong.push("the chain of events ends elsewhere than the manifest says".to_owned());
    }
}

/// What was used adds up: attempts to their step, steps to their run, calls of models to what a gateway counted.
fn usage(files: &BTreeMap<String, Vec<u8>>, manifest: &Manifest, found: &mut Findings) {
    let read = |path: &str| files.get(path).and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok());
    let view: Option<RunView> = read("run.json").and_then(|value| serde_json::from_value(value).ok());
    let Some(view) = view else { return found.wrong.push("run.json is no run".to_owned()) };
    if view.id != manifest.run {
        found.wrong.push(format!("run.json is that of {}", view.id));
    }
    let steps = view.steps.as_deref().unwrap_or_default();
    let sum = |usages: &mut dyn Iterator<Item = &Usage>| usages.fold(Usage::default(), |sum, usage| sum.plus(usage));
    for step in steps {
        if sum(&mut step.attempts.iter().map(|attempt| &attempt.usage)) != step.usage {
            found.wrong.push(format!("the attempts of {} do not add up to its usage", step.id));
        }
        for attempt in &step.attempts {
            let record = read(&format!("records/{}.{}.record.json", step.id, attempt.n));
            let calls = record.as_ref().and_then(|record| record["calls"].as_array());
            let cost = |calls: &Vec<Value>| calls.iter().filter_map(|call| call["cost_microusd"].as_u64()).sum::<u64>();
            if let (Some(calls), Some(counted)) = (calls, attempt.usage.cost_microusd)
                && cost(calls) != counted
            {
                found.wrong.push(format!("the calls of {}.{} do not add up to its cost", step.id, attempt.n));
            }
        }
    }
    if sum(&mut steps.iter().map(|step| &step.usage)) != view.usage {
        found.wrong.push("the steps do not add up to the usage of the run".to_owned());
    }
}
