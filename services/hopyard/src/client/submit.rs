//! `hopyard run` and `runs rerun`: one submission, and waiting for or following what becomes of it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use hopyard_contract::RunId;
use hopyard_contract::duration::Span;
use hopyard_contract::view::RunView;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::follow::{Item, Line, Narrator, Want, follow};
use super::output::{self, Format};
use super::summary::summary;
use super::{Api, inputs, repository};
use crate::exit::{Exit, Failure};

/// How long a run that only the bus has may stay unknown to the store.
const KNOWN_WITHIN: Duration = Duration::from_secs(120);

/// What to run.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// Name of a stored workflow
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    pub workflow: Option<String>,
    /// Run the definition in this file, without storing it
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Repository to work on: a URL, or a directory of a checkout (its present commit)
    #[arg(long, value_name = "URL|DIR")]
    pub repo: Option<String>,
    /// Branch, tag or commit of the repository
    #[arg(long = "ref", value_name = "REF", requires = "repo")]
    pub reference: Option<String>,
    /// An input, NAME=VALUE, or @FILE with a JSON object; may be repeated
    #[arg(short = 'i', long = "input", value_name = "NAME=VALUE|@FILE")]
    pub inputs: Vec<String>,
    /// A label, NAME=VALUE; may be repeated
    #[arg(short = 'l', long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,
    /// Idempotency key: the same submission with the same key makes one run
    #[arg(long)]
    pub key: Option<String>,
    /// 0 to 3; 3 is the most urgent
    #[arg(long, value_name = "N")]
    pub priority: Option<u8>,
    /// Pool of executors
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,
    /// Named session of a persistent workspace
    #[arg(long, value_name = "NAME")]
    pub session: Option<String>,
    /// Run that has to end first; may be repeated
    #[arg(long, value_name = "RUN")]
    pub after: Vec<RunId>,
    /// Not before this time: RFC 3339, or a duration from now such as 10m
    #[arg(long, value_name = "TIME")]
    pub start_at: Option<String>,
    /// What to do after the submission
    #[command(flatten)]
    pub then: Then,
}

/// What to do after a submission.
#[derive(Clone, Debug, Default, Args)]
pub struct Then {
    /// Wait until the run has ended; the exit code tells how
    #[arg(long, conflicts_with = "follow")]
    pub wait: bool,
    /// Longest time to wait, such as 10m
    #[arg(long, value_name = "DURATION", requires = "wait")]
    pub timeout: Option<Span>,
    /// Show progress and logs until the run has ended; Ctrl-C detaches
    #[arg(long)]
    pub follow: bool,
}

/// Submits and does what was asked for afterwards.
///
/// # Errors
/// As the API's.
pub async fn run(api: &Api, format: Format, args: &RunArgs) -> Result<Exit> {
    let body = request(api, args).await?;
    let mut headers = HeaderMap::new();
    if let Some(key) = &args.key {
        let value = HeaderValue::from_str(key).map_err(|_| Failure::usage("an idempotency key has visible characters only"))?;
        headers.insert(HeaderName::from_static("idempotency-key"), value);
    }
    let answer = api.post("/runs", &body, headers).await?;
    after(api, format, &answer, &args.then).await
}

/// The body of a submission.
async fn request(api: &Api, args: &RunArgs) -> Result<Value> {
    let mut body = Map::new();
    body.insert("v".into(), json!(1));
    let mut types = None;
    if let Some(file) = &args.file {
        let text =
            std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("the definition {} cannot be read: {e}", file.display())))?;
        // Checked here for the sake of file and line; the server checks again.
        let definition = super::workflows::parse(&text, file)?;
        types = Some(definition.plan.inputs);
        body.insert("definition".into(), text.into());
    }
    if let Some(name) = &args.workflow {
        if inputs::needs_types(&args.inputs) {
            types =
                api.get(&format!("/workflows/{name}"), &[]).await.ok().and_then(|view| view.pointer("/plan/inputs")?.as_object().cloned());
        }
        body.insert("workflow".into(), name.as_str().into());
    }
    let values = inputs::inputs(&args.inputs, types.as_ref())?;
    body.insert("inputs".into(), values.into());
    if let Some(repo) = &args.repo {
        let spec = repository::resolve(repo, args.reference.as_deref()).await?;
        let changed =
            if args.reference.is_none() && std::path::Path::new(repo).is_dir() { repository::uncommitted(repo.as_ref()).await } else { 0 };
        if changed > 0 {
            output::progress(&format!("note: {changed} changed files of {repo} are not committed and no part of this run"));
        }
        body.insert("repo".into(), serde_json::to_value(spec)?);
    }
    let labels =
        args.labels.iter().map(|text| inputs::pair(text, "label").map(|(k, v)| (k, Value::from(v)))).collect::<Result<Map<_, _>>>()?;
    let start_at = args.start_at.as_deref().map(|text| inputs::start_at(text, chrono::Utc::now())).transpose()?;
    let optional = [
        ("labels", (!labels.is_empty()).then(|| labels.into())),
        ("priority", args.priority.map(Value::from)),
        ("pool", args.pool.as_deref().map(Value::from)),
        ("session", args.session.as_deref().map(Value::from)),
        ("after", (!args.after.is_empty()).then(|| json!(args.after))),
        ("start_at", start_at.map(|at| hopyard_contract::time::format(at).into())),
    ];
    body.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    Ok(Value::Object(body))
}

/// Prints the answer to a submission, and waits or follows if that was asked for.
///
/// # Errors
/// As the API's.
pub async fn after(api: &Api, format: Format, answer: &Value, then: &Then) -> Result<Exit> {
    for warning in answer.get("warnings").and_then(Value::as_array).into_iter().flatten() {
        output::progress(&format!("warning: {} ({})", output::field(warning, "/message"), output::field(warning, "/code")));
    }
    let run: RunId = output::field(answer, "/run_id").parse().context("the server's answer names no run")?;
    if !then.wait && !then.follow {
        output::bytes(output::document(format, answer).unwrap_or_else(|| format!("{run}\n")).as_bytes());
        if format == Format::Table {
            output::progress(&format!("{}; follow it with `hopyard runs watch {run}`", output::field(answer, "/status")));
        }
        return Ok(Exit::Done);
    }
    // A follower hears of it from the events.
    if then.wait {
        output::progress(&format!("run {run} {}", output::field(answer, "/status")));
    }
    let task = async {
        known(api, run).await?;
        if then.follow { show(api, format, run, true).await } else { wait(api, run, then.timeout).await }
    };
    let view = detachable(run, task).await?;
    output::bytes(run_text(format, &view).as_bytes());
    if !view.status.is_final() {
        output::progress(&format!("still {} after waiting; the run goes on: `hopyard runs watch {run}`", view.status));
    }
    Ok(Exit::of_status(view.status))
}

/// A run in the chosen format.
pub fn run_text(format: Format, run: &RunView) -> String {
    let value = serde_json::to_value(run).unwrap_or_default();
    output::document(format, &value).unwrap_or_else(|| summary(run).join("\n") + "\n")
}

/// Does something about a run until Ctrl-C, which leaves the run alone and says so.
///
/// # Errors
/// [`Failure::Interrupted`], or what the task says.
pub async fn detachable<T>(run: RunId, task: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        result = task => result,
        signal = tokio::signal::ctrl_c() => {
            signal.context("cannot listen for Ctrl-C")?;
            output::progress(&format!("detached; run {run} goes on: `hopyard runs watch {run}` follows it again, `hopyard runs cancel {run}` ends it"));
            Err(Failure::Interrupted.into())
        }
    }
}

/// Waits until the store knows a run that was taken while the scheduler was away.
async fn known(api: &Api, run: RunId) -> Result<()> {
    let limit = Instant::now() + KNOWN_WITHIN;
    loop {
        match api.get(&format!("/runs/{run}"), &[]).await {
            Err(error) if Instant::now() < limit && is_passing(&error, true) => sleep(Duration::from_millis(250)).await,
            answer => return answer.map(|_| ()),
        }
    }
}

/// Whether the same request may be answered soon.
fn is_passing(error: &anyhow::Error, unknown_too: bool) -> bool {
    match error.downcast_ref::<Failure>() {
        Some(Failure::Unreachable { .. }) => true,
        Some(Failure::Refused(problem)) => problem.status >= 500 || problem.status == 429 || (unknown_too && problem.status == 404),
        _ => false,
    }
}

/// Waits until a run has ended or the time is over, and returns it as it is then.
async fn wait(api: &Api, run: RunId, timeout: Option<Span>) -> Result<RunView> {
    const AWAY: Duration = Duration::from_secs(30);
    let limit = timeout.map(|span| Instant::now() + span.std());
    let mut answered = Instant::now();
    loop {
        let left = limit.map_or(Duration::from_secs(30), |limit| limit.saturating_duration_since(Instant::now()));
        let wait = u64::try_from(left.min(Duration::from_secs(30)).as_millis()).unwrap_or(30_000).max(1);
        let query = [("wait", format!("{wait}ms")), ("until", "final".to_owned())];
        match api.get_as::<RunView>(&format!("/runs/{run}"), &query).await {
            Ok(view) => {
                answered = Instant::now();
                if view.status.is_final() || limit.is_some_and(|limit| Instant::now() >= limit) {
                    return Ok(view);
                }
            }
            Err(error) if is_passing(&error, false) && answered.elapsed() < AWAY => sleep(Duration::from_millis(500)).await,
            Err(error) => return Err(error),
        }
    }
}

/// Follows a run and prints what happens: logs as data, progress beside it, or everything as JSON lines.
///
/// # Errors
/// As [`follow`].
pub async fn show(api: &Api, format: Format, run: RunId, logs: bool) -> Result<RunView> {
    let mut narrator = Narrator::default();
    follow(api, run, Want { logs }, |item| {
        if format == Format::Jsonl {
            if let Some(line) = json_line(item) {
                output::data(&line.to_string());
            }
            return;
        }
        for line in narrator.tell(item) {
            match line {
                // With one document on stdout, nothing else may stand there.
                Line::Log(text) if format == Format::Table => output::data(&text),
                Line::Log(text) | Line::Progress(text) => output::progress(&text),
            }
        }
    })
    .await
}

/// An item as one JSON value; a chunk carries its step and attempt.
pub fn json_line(item: &Item) -> Option<Value> {
    match item {
        Item::Event(event) => serde_json::to_value(event).ok(),
        Item::Chunk(step, n, chunk) => {
            let mut value = serde_json::to_value(chunk).ok()?;
            let map = value.as_object_mut()?;
            map.insert("step".into(), step.as_str().into());
            map.insert("attempt".into(), (*n).into());
            Some(value)
        }
        Item::EventsEnd | Item::LogEnd(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api() -> Api {
        Api::new("http://127.0.0.1:9", None, None).unwrap()
    }

    #[tokio::test]
    async fn a_file_is_sent_whole_with_typed_inputs() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("wf.yaml");
        let text = "version: 1\nname: t\ninputs: {n: {type: string}, m: {type: integer}}\nsteps: [{id: a, shell: 'true'}]\n";
        std::fs::write(&file, text).unwrap();
        let args = RunArgs {
            file: Some(file.clone()),
            inputs: vec!["n=1".into(), "m=2".into()],
            labels: vec!["team=a".into()],
            priority: Some(3),
            start_at: Some("2026-05-01T14:00:00+02:00".into()),
            ..RunArgs::default()
        };
        let body = request(&api(), &args).await.unwrap();
        let wanted = json!({"v": 1, "definition": text, "inputs": {"n": "1", "m": 2}, "labels": {"team": "a"}, "priority": 3, "start_at": "2026-05-01T12:00:00.000000Z"});
        assert_eq!(body, wanted);

        std::fs::write(&file, "version: 1\nname: t\nsteps: [{id: a, shel: x}]\n").unwrap();
        let error = request(&api(), &args).await.unwrap_err();
        assert_eq!(Exit::of_error(&error), Exit::Usage);
        assert!(error.to_string().contains("wf.yaml:3:"), "{error}");
    }
}
