//! Putting an archive together: everything that the API says of a run that has ended.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use chrono::Utc;
use clap::Args;
use hopyard_contract::event::Event;
use hopyard_contract::view::RunView;
use hopyard_contract::{RunId, time};
use serde_json::{Value, json};

use super::{EVENTS, Entry, Link, Manifest, VERSION, key_of, link, origin, pack, sha256};
use crate::client::Api;
use crate::client::output::{self, Format};
use crate::exit::{Exit, Failure};

/// Events of one page.
const PAGE: usize = 200;
/// Bytes of a log that are asked for at once.
const LOG_PAGE: u64 = 8 << 20;

/// Which run, and where its archive goes.
#[derive(Clone, Debug, Args)]
pub struct EvidenceArgs {
    /// Id of the run
    pub run: RunId,
    /// Archive; `RUN.evidence` in this folder if absent
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Key to sign with, made by `hopyard evidence keygen`
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

/// Writes the archive of a run.
///
/// # Errors
/// As the API's; [`Failure::Usage`] when the key cannot be read or the archive not be written.
pub async fn collect(api: &Api, format: Format, args: &EvidenceArgs) -> Result<Exit> {
    let key = args.key.as_deref().map(key_of).transpose()?;
    let run = args.run;
    let view = api.get(&format!("/runs/{run}"), &[]).await?;
    let artifacts = api.get(&format!("/runs/{run}/artifacts"), &[]).await?;
    let plan = api.get(&format!("/runs/{run}/plan"), &[]).await?;
    let mut files = BTreeMap::new();
    let mut keep = |path: &str, value: &Value| -> Result<()> {
        files.insert(path.to_owned(), serde_json::to_vec_pretty(value)?);
        Ok(())
    };
    keep("run.json", &view)?;
    keep("plan.json", &plan["plan"])?;
    keep("submission.json", &submission(&view))?;
    keep("environment.json", &environment(api, &view).await?)?;
    if let Some(text) = plan["definition"].as_str() {
        files.insert("definition.yaml".to_owned(), text.as_bytes().to_vec());
    }
    let mut records = Vec::new();
    for artifact in artifacts["items"].as_array().into_iter().flatten() {
        let name = artifact["name"].as_str().context("an artifact has a name")?;
        let (_, bytes) = api.bytes(&format!("/runs/{run}/artifacts/{name}"), &[]).await?;
        if let Some(attempt) = name.strip_suffix(".record.json") {
            records.push((attempt.to_owned(), serde_json::from_slice::<Value>(&bytes)?));
        }
        let folder = match name {
            _ if name.ends_with(".record.json") => "records",
            _ if name.ends_with(".spool.zst") => "logs",
            _ => "result",
        };
        files.insert(format!("{folder}/{name}"), bytes);
    }
    for (step, n) in attempts(&view) {
        files.insert(format!("logs/{step}.{n}.log"), log(api, run, &step, n).await?);
    }
    files.insert("usage.json".to_owned(), serde_json::to_vec_pretty(&usage(&view, &records))?);
    files.insert("tools.json".to_owned(), serde_json::to_vec_pretty(&tools(&records))?);
    let (events, chain, lines) = events(api, run).await?;
    files.insert(EVENTS.to_owned(), lines);
    let entries = files.iter().map(|(path, bytes)| (path.clone(), Entry { size: bytes.len() as u64, sha256: sha256(bytes) })).collect();
    let manifest = Manifest {
        v: VERSION,
        run,
        namespace: view["namespace"].as_str().unwrap_or_default().to_owned(),
        made_at: time::format(Utc::now()),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        events,
        chain,
        files: entries,
    };
    let file = args.file.clone().unwrap_or_else(|| PathBuf::from(format!("{run}.evidence")));
    let bytes = pack(&manifest, &files, key.as_ref())?;
    std::fs::write(&file, &bytes).map_err(|error| Failure::usage(format!("{} cannot be written: {error}", file.display())))?;
    let value = json!({ "file": file, "bytes": bytes.len(), "files": files.len(), "events": events, "signed": key.is_some() });
    let text = format!("{}: {} files, {events} events, {} bytes\n", file.display(), files.len(), bytes.len());
    output::bytes(output::document(format, &value).unwrap_or(text).as_bytes());
    Ok(Exit::Done)
}

/// Every attempt of a run.
fn attempts(view: &Value) -> Vec<(String, u64)> {
    let of_step = |step: &Value| -> Vec<(String, u64)> {
        let id = step["id"].as_str().unwrap_or_default();
        step["attempts"].as_array().into_iter().flatten().filter_map(|attempt| Some((id.to_owned(), attempt["n"].as_u64()?))).collect()
    };
    view["steps"].as_array().into_iter().flatten().flat_map(of_step).collect()
}

/// The whole log of an attempt as a text, as it came; the spool beside it has streams and times as well.
async fn log(api: &Api, run: RunId, step: &str, n: u64) -> Result<Vec<u8>> {
    let (path, mut whole) = (format!("/runs/{run}/steps/{step}/attempts/{n}/logs"), Vec::new());
    loop {
        let query = [("from", whole.len().to_string()), ("limit", LOG_PAGE.to_string())];
        let (headers, bytes) = api.bytes(&path, &query).await?;
        let done = bytes.is_empty() || headers.get("hopyard-log-complete").is_some_and(|value| value == "true");
        whole.extend(bytes);
        if done {
            return Ok(whole);
        }
    }
}

/// What was asked for.
fn submission(view: &Value) -> Value {
    const ASKED: [&str; 14] = [
        "workflow",
        "definition_hash",
        "plan_hash",
        "inputs",
        "repo",
        "labels",
        "priority",
        "pool",
        "session",
        "after",
        "start_at",
        "rerun_of",
        "created_at",
        "trace_id",
    ];
    ASKED.iter().filter_map(|name| Some(((*name).to_owned(), view.get(*name)?.clone()))).collect()
}

/// Where it was done: version of the server, executors and hosts of every attempt, executors as they are known now.
async fn environment(api: &Api, view: &Value) -> Result<Value> {
    let parsed: RunView = serde_json::from_value(view.clone()).context("the run has an unknown shape")?;
    let attempts: Vec<Value> = parsed.steps.iter().flatten().flat_map(|step| {
        step.attempts.iter().map(|attempt| json!({ "step": step.id, "n": attempt.n, "executor": attempt.executor, "host": attempt.host, "workspace": attempt.workspace, "pid": attempt.pid }))
    }).collect();
    let (server, executors) = (api.get("/version", &[]).await?, api.get("/executors", &[]).await?);
    Ok(json!({ "server": server, "attempts": attempts, "executors": executors["items"] }))
}

/// The ledger: sums of run, steps and attempts, and every call of a model that was seen.
fn usage(view: &Value, records: &[(String, Value)]) -> Value {
    let steps = view["steps"].as_array().map_or(&[][..], Vec::as_slice);
    let attempts = |step: &Value| -> Vec<Value> {
        step["attempts"].as_array().into_iter().flatten().map(|attempt| json!({ "n": attempt["n"], "usage": attempt["usage"] })).collect()
    };
    let steps: Vec<Value> =
        steps.iter().map(|step| json!({ "id": step["id"], "usage": step["usage"], "attempts": attempts(step) })).collect();
    let calls: BTreeMap<&str, &Value> = records.iter().map(|(attempt, record)| (attempt.as_str(), &record["calls"])).collect();
    json!({ "run": view["usage"], "late": view["late_usage"], "steps": steps, "calls": calls })
}

/// Every use of a tool, by attempt.
fn tools(records: &[(String, Value)]) -> Value {
    records.iter().map(|(attempt, record)| (attempt.clone(), record["tools"].clone())).collect()
}

/// All events as lines of their chain, how many they are, and the hash of the last.
async fn events(api: &Api, run: RunId) -> Result<(u64, String, Vec<u8>)> {
    let (mut last, mut before, mut lines) = (0, origin(), Vec::new());
    loop {
        let query = [("after", last.to_string()), ("limit", PAGE.to_string())];
        let page = api.get(&format!("/runs/{run}/events"), &query).await?;
        let events: Vec<Event> = serde_json::from_value(page["items"].clone()).context("the events have an unknown shape")?;
        for event in &events {
            before = link(&before, event)?;
            last = event.seq;
            serde_json::to_writer(&mut lines, &Link { hash: before.clone(), event: event.clone() })?;
            lines.push(b'\n');
        }
        if events.len() < PAGE {
            return Ok((last, before, lines));
        }
    }
}
