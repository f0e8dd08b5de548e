//! `hopyard runs replay`: a run again with the recorded words and changes of its agents, and what has become different.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use hopyard_contract::RunId;
use hopyard_contract::status::StepKind;
use hopyard_contract::view::{RunView, StepView};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::follow::{Want, follow};
use super::output::{self, Format, clean, field};
use super::{Api, workflows};
use crate::exit::{Exit, Failure};

/// Longest value of a difference that is printed, in characters.
const LONGEST: usize = 200;
/// What a record tells of its agent that does not depend on when and where it worked.
const OF_AGENTS: [&str; 4] = ["end", "answer", "told", "session"];

/// Which run to play.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// Id of the recorded run; it has to have ended
    pub run: RunId,
    /// Play it in this definition, instead of the one that it had
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Something that is not as it was recorded.
#[derive(Debug, PartialEq)]
struct Difference {
    what: String,
    recorded: Value,
    replayed: Value,
}

/// Plays a run and compares; fails when something has become different.
///
/// # Errors
/// As the API's, and when the definition cannot be read.
pub(super) async fn run(api: &Api, format: Format, args: &ReplayArgs) -> Result<Exit> {
    let recorded: RunView = serde_json::from_value(api.get(&format!("/runs/{}", args.run), &[]).await?)?;
    let answer = match &args.file {
        None => api.post(&format!("/runs/{}/rerun", args.run), &json!({ "replay": true }), HeaderMap::new()).await?,
        Some(file) => api.post("/runs", &submission(&recorded, file)?, HeaderMap::new()).await?,
    };
    let run: RunId = field(&answer, "/run_id").parse().context("the server's answer names no run")?;
    output::progress(&format!("run {run} plays {}", args.run));
    let replayed = follow(api, run, Want { logs: false }, |_| {}).await?;
    let mut differences = compare(&recorded, &replayed);
    for (before, after) in steps(&recorded, &replayed) {
        let (Some(one), Some(other)) = (record(api, &recorded, before).await?, record(api, &replayed, after).await?) else { continue };
        differences.extend(compare_records(before.id.as_str(), &one, &other));
    }
    let list: Vec<Value> = differences.iter().map(|d| json!({ "what": d.what, "recorded": d.recorded, "replayed": d.replayed })).collect();
    let document = json!({ "run_id": run, "replay_of": args.run, "same": differences.is_empty(), "differences": list });
    let text = output::document(format, &document).unwrap_or_else(|| text(&differences));
    output::bytes(text.as_bytes());
    Ok(if differences.is_empty() { Exit::Done } else { Exit::Failed })
}

/// The recorded run in another definition: the same inputs, on the same commit.
fn submission(recorded: &RunView, file: &Path) -> Result<Value> {
    let text =
        std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("the definition {} cannot be read: {e}", file.display())))?;
    // Checked here for the sake of file and line; the server checks again.
    let definition = workflows::parse(&text, file)?;
    let known = |name: &String| definition.plan.inputs.contains_key(name);
    let inputs: serde_json::Map<String, Value> =
        recorded.inputs.iter().filter(|(name, _)| known(name)).map(|(k, v)| (k.clone(), v.clone())).collect();
    let mut body = json!({ "v": 1, "definition": text, "inputs": inputs, "rerun_of": recorded.id, "replay": true, "pool": recorded.pool });
    if let Some(repo) = &recorded.repo {
        body["repo"] = json!({ "url": repo.url, "ref": repo.commit.as_ref().or(repo.reference.as_ref()) });
    }
    let body = body.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone()));
    Ok(Value::Object(body.collect()))
}

/// Steps that both runs have and that a replay does not leave out, as it does with deliveries.
fn steps<'a>(one: &'a RunView, other: &'a RunView) -> impl Iterator<Item = (&'a StepView, &'a StepView)> {
    let find = |id: &str| other.steps.iter().flatten().find(|step| step.id.as_str() == id);
    one.steps.iter().flatten().filter(|step| step.kind != StepKind::Deliver).filter_map(move |step| Some((step, find(step.id.as_str())?)))
}

/// The record of the agent of a step's last attempt.
async fn record(api: &Api, run: &RunView, step: &StepView) -> Result<Option<Value>> {
    let Some(attempt) = step.attempts.last() else { return Ok(None) };
    let name = format!("{}.{}.record.json", step.id, attempt.n);
    let listed = api.get(&format!("/runs/{}/artifacts", run.id), &[]).await?;
    let there = listed["items"].as_array().into_iter().flatten().any(|item| item["name"] == name.as_str());
    if !there {
        return Ok(None);
    }
    let (_, bytes) = api.bytes(&format!("/runs/{}/artifacts/{name}", run.id), &[]).await?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

fn compare(recorded: &RunView, replayed: &RunView) -> Vec<Difference> {
    let mut pairs = vec![
        ("status".to_owned(), json!(recorded.status), json!(replayed.status)),
        ("failure_code".to_owned(), json!(recorded.failure_code), json!(replayed.failure_code)),
        ("result.files".to_owned(), files(recorded), files(replayed)),
    ];
    for (before, after) in steps(recorded, replayed) {
        let id = &before.id;
        pairs.push((format!("{id}.status"), json!(before.status), json!(after.status)));
        pairs.push((format!("{id}.failure_code"), json!(before.failure_code), json!(after.failure_code)));
        // The commit of a choice has another time.
        let outputs = |step: &StepView| {
            json!(step.outputs.iter().filter(|(key, _)| step.variants.is_empty() || *key != "commit").collect::<Vec<_>>())
        };
        pairs.push((format!("{id}.outputs"), outputs(before), outputs(after)));
    }
    let ids = |run: &RunView| run.steps.iter().flatten().map(|step| step.id.to_string()).collect::<BTreeSet<_>>();
    pairs.push(("steps".to_owned(), json!(ids(recorded)), json!(ids(replayed))));
    differing(pairs)
}

fn files(run: &RunView) -> Value {
    json!(run.result.as_ref().and_then(|result| result.git.as_ref()).map(|git| &git.files))
}

fn compare_records(step: &str, recorded: &Value, replayed: &Value) -> Vec<Difference> {
    let tools = |record: &Value| -> Value {
        let tool = |tool: &Value| json!([tool["name"], tool["input"], tool["failed"], tool["denied"]]);
        record["tools"].as_array().into_iter().flatten().map(tool).collect()
    };
    let mut pairs: Vec<_> =
        OF_AGENTS.iter().map(|field| (format!("{step}.{field}"), recorded[field].clone(), replayed[field].clone())).collect();
    pairs.push((format!("{step}.tools"), tools(recorded), tools(replayed)));
    differing(pairs)
}

fn differing(pairs: Vec<(String, Value, Value)>) -> Vec<Difference> {
    let differs = pairs.into_iter().filter(|(_, recorded, replayed)| recorded != replayed);
    differs.map(|(what, recorded, replayed)| Difference { what, recorded, replayed }).collect()
}

fn text(differences: &[Difference]) -> String {
    if differences.is_empty() {
        return "the same as it was recorded\n".to_owned();
    }
    let short = |value: &Value| clean(&value.to_string()).chars().take(LONGEST).collect::<String>();
    let line = |d: &Difference| format!("{}: {} was recorded, {} is played\n", d.what, short(&d.recorded), short(&d.replayed));
    differences.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::finished_run;
    use super::*;

    #[test]
    fn what_has_become_different_is_named() {
        let recorded: RunView = serde_json::from_value(finished_run()).unwrap();
        assert_eq!(compare(&recorded, &recorded), []);
        let mut changed = finished_run();
        changed["steps"][0]["outputs"] = json!({ "count": "3" });
        changed["steps"].as_array_mut().unwrap().pop();
        let replayed: RunView = serde_json::from_value(changed).unwrap();
        let found: Vec<String> = compare(&recorded, &replayed).into_iter().map(|d| d.what).collect();
        let first = recorded.steps.as_ref().unwrap()[0].id.clone();
        assert_eq!(found, [format!("{first}.outputs"), "steps".to_owned()]);
    }

    #[test]
    fn records_are_compared_without_times() {
        let record = |at: &str, input: &str| json!({ "end": "completed", "tools": [{ "name": "Write", "input": input, "failed": false, "called_at": at }] });
        assert_eq!(compare_records("fix", &record("1", "a"), &record("2", "a")), []);
        assert_eq!(compare_records("fix", &record("1", "a"), &record("1", "b"))[0].what, "fix.tools");
    }
}
