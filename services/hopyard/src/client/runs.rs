//! `hopyard runs`: everything about runs that exist.

use anyhow::Result;
use chrono::Utc;
use clap::{Args, Subcommand};
use hopyard_contract::view::{Explanation, RunView};
use hopyard_contract::{Name, RunId};
use hopyard_runtime::config::environment;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::follow::{Item, Line, Narrator, Want, follow, log};
use super::output::{self, Column, Format, field};
use super::replay::{self, ReplayArgs};
use super::submit::{self, Then};
use super::{Api, checkout, inputs};
use crate::evidence::{EvidenceArgs, collect};
use crate::exit::{Exit, Failure};

/// What to do with runs.
#[derive(Clone, Debug, Subcommand)]
pub enum RunsCommand {
    /// Lists runs, newest first
    #[command(after_help = "Example:\n  hopyard runs list --status failed --since 24h -l team=core")]
    List(ListArgs),
    /// Shows one run
    #[command(after_help = "Example:\n  hopyard runs get 01914f4e-3c3f-7000-8000-000000000001 --json")]
    Get(RunArg),
    /// Shows progress until the run has ended; Ctrl-C detaches
    #[command(after_help = "Example:\n  hopyard runs watch 01914f4e-3c3f-7000-8000-000000000001 -o jsonl")]
    Watch(RunArg),
    /// Prints the logs of its steps
    #[command(after_help = "Example:\n  hopyard runs logs 01914f4e-3c3f-7000-8000-000000000001 -f --step test")]
    Logs(LogsArgs),
    /// Ends a run; its work is kept
    #[command(after_help = "Example:\n  hopyard runs cancel 01914f4e-3c3f-7000-8000-000000000001 --reason 'wrong branch'")]
    Cancel(CancelArgs),
    /// Answers the question of a paused step
    #[command(
        after_help = "Examples:\n  hopyard runs answer 01914f4e-3c3f-7000-8000-000000000001 sign-off --approve\n  hopyard runs answer 01914f4e-3c3f-7000-8000-000000000001 fix --approve --text 'the second one'\n  hopyard runs answer 01914f4e-3c3f-7000-8000-000000000001 sign-off --refuse --text 'not on a Friday'"
    )]
    Answer(AnswerArgs),
    /// Lets a run go on that is paused for a limit
    #[command(after_help = "Example:\n  hopyard runs resume 01914f4e-3c3f-7000-8000-000000000001")]
    Resume(RunArg),
    /// Writes everything that is known of a run that has ended into one archive
    #[command(
        after_help = "Examples:\n  hopyard runs evidence 01914f4e-3c3f-7000-8000-000000000001\n  hopyard runs evidence 01914f4e-3c3f-7000-8000-000000000001 -f fix.evidence --key evidence.key"
    )]
    Evidence(EvidenceArgs),
    /// Runs the same again, as a new run
    #[command(after_help = "Example:\n  hopyard runs rerun 01914f4e-3c3f-7000-8000-000000000001 --follow")]
    Rerun(RerunArgs),
    /// Plays what its agents and models had said and changed in a new run, and says what has become different; no model is asked
    #[command(
        after_help = "Examples:\n  hopyard runs replay 01914f4e-3c3f-7000-8000-000000000001\n  hopyard runs replay 01914f4e-3c3f-7000-8000-000000000001 -f fix.yaml --json"
    )]
    Replay(ReplayArgs),
    /// Says why a run is where it is, and what helps
    #[command(after_help = "Example:\n  hopyard runs explain 01914f4e-3c3f-7000-8000-000000000001")]
    Explain(RunArg),
    /// Prints what a run changed, as a patch
    #[command(after_help = "Example:\n  hopyard runs diff 01914f4e-3c3f-7000-8000-000000000001 | git apply")]
    Diff(RunArg),
    /// Brings a run's branch into the repository of the current directory
    #[command(after_help = "Example:\n  hopyard runs checkout 01914f4e-3c3f-7000-8000-000000000001 --branch fix")]
    Checkout(CheckoutArgs),
}

/// A run.
#[derive(Clone, Debug, Args)]
pub struct RunArg {
    /// Id of the run
    pub run: RunId,
}

/// Which runs to list.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Status, such as failed; may be repeated
    #[arg(long, value_name = "STATUS")]
    pub status: Vec<String>,
    /// Name of the workflow
    #[arg(long, value_name = "NAME")]
    pub workflow: Option<String>,
    /// URL of the repository
    #[arg(long, value_name = "URL")]
    pub repo: Option<String>,
    /// Named session
    #[arg(long, value_name = "NAME")]
    pub session: Option<String>,
    /// Label NAME=VALUE; may be repeated
    #[arg(short = 'l', long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,
    /// Submitted in this time: a duration such as 2h, or an RFC 3339 time
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Submitted before this: a duration ago, or an RFC 3339 time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Most runs, at most 200
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: u32,
    /// Goes on where a page ended
    #[arg(long)]
    pub cursor: Option<String>,
}

/// Whose logs to print.
#[derive(Clone, Debug, Args)]
pub struct LogsArgs {
    /// Id of the run
    pub run: RunId,
    /// This step only
    #[arg(long, value_name = "ID")]
    pub step: Option<String>,
    /// Goes on until the run has ended
    #[arg(short, long)]
    pub follow: bool,
}

/// Which run to end, and how.
#[derive(Clone, Debug, Args)]
pub struct CancelArgs {
    /// Id of the run
    pub run: RunId,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Kill at once: no grace period, no waiting for blobs
    #[arg(long)]
    pub force: bool,
}

/// What is said to the question of a step.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("verdict").required(true))]
pub struct AnswerArgs {
    /// Id of the run
    pub run: RunId,
    /// The step
    pub step: Name,
    /// The run may go on
    #[arg(long, group = "verdict")]
    pub approve: bool,
    /// It may not: the step fails
    #[arg(long, group = "verdict")]
    pub refuse: bool,
    /// In words
    #[arg(long, value_name = "TEXT")]
    pub text: Option<String>,
    /// Who answers; the user of this machine if absent
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

/// Which run to repeat.
#[derive(Clone, Debug, Args)]
pub struct RerunArgs {
    /// Id of the run
    pub run: RunId,
    /// What to do after the submission
    #[command(flatten)]
    pub then: Then,
}

/// Which run's branch to bring.
#[derive(Clone, Debug, Args)]
pub struct CheckoutArgs {
    /// Id of the run
    pub run: RunId,
    /// Name of the branch here; the run's own if absent
    #[arg(long, value_name = "NAME")]
    pub branch: Option<String>,
}

const COLUMNS: [Column; 6] = [
    ("ID", |v| field(v, "/id")),
    ("STATUS", |v| field(v, "/status")),
    ("WORKFLOW", |v| field(v, "/workflow")),
    ("CREATED", |v| field(v, "/created_at")),
    ("TOOK", |v| v.pointer("/duration_ms").and_then(Value::as_u64).map(output::duration).unwrap_or_default()),
    ("REASON", |v| {
        ["/pending_reason", "/paused_reason", "/failure_code", "/kill_reason"]
            .iter()
            .map(|p| field(v, p))
            .find(|t| !t.is_empty())
            .unwrap_or_default()
    }),
];

/// Carries out a command.
///
/// # Errors
/// As the API's.
pub async fn run(api: &Api, format: Format, command: &RunsCommand) -> Result<Exit> {
    match command {
        RunsCommand::List(args) => list(api, format, args).await,
        RunsCommand::Get(RunArg { run }) => {
            let value = api.get(&format!("/runs/{run}"), &[]).await?;
            let text = match output::document(format, &value) {
                Some(text) => text,
                None => submit::run_text(format, &serde_json::from_value(value)?),
            };
            output::bytes(text.as_bytes());
            Ok(Exit::Done)
        }
        RunsCommand::Watch(RunArg { run }) => {
            let view = submit::detachable(*run, submit::show(api, format, *run, true)).await?;
            output::bytes(submit::run_text(format, &view).as_bytes());
            Ok(Exit::of_status(view.status))
        }
        RunsCommand::Logs(args) => logs(api, format, args).await,
        RunsCommand::Cancel(CancelArgs { run, reason, force }) => {
            let mut body = json!({"force": force});
            if let Some(reason) = reason {
                body["reason"] = reason.as_str().into();
            }
            let value = api.post(&format!("/runs/{run}/cancel"), &body, HeaderMap::new()).await?;
            let status = field(&value, "/status");
            let text = if status == "killed" { format!("{run} killed\n") } else { format!("{run} is being killed (still {status})\n") };
            output::bytes(output::document(format, &value).unwrap_or(text).as_bytes());
            Ok(Exit::Done)
        }
        RunsCommand::Answer(AnswerArgs { run, step, approve, refuse: _, text, by }) => {
            let by = by.clone().or_else(|| environment("USER")).unwrap_or_else(|| "cli".to_owned());
            let mut body = json!({"approved": approve, "by": by});
            if let Some(text) = text {
                body["text"] = text.as_str().into();
            }
            let value = api.post(&format!("/runs/{run}/steps/{step}/answer"), &body, HeaderMap::new()).await?;
            let text = format!("{run} is {}\n", field(&value, "/status"));
            output::bytes(output::document(format, &value).unwrap_or(text).as_bytes());
            Ok(Exit::Done)
        }
        RunsCommand::Resume(RunArg { run }) => {
            let value = api.post(&format!("/runs/{run}/resume"), &json!({}), HeaderMap::new()).await?;
            let text = format!("{run} is {}\n", field(&value, "/status"));
            output::bytes(output::document(format, &value).unwrap_or(text).as_bytes());
            Ok(Exit::Done)
        }
        RunsCommand::Evidence(args) => collect(api, format, args).await,
        RunsCommand::Rerun(RerunArgs { run, then }) => {
            let answer = api.post(&format!("/runs/{run}/rerun"), &json!({}), HeaderMap::new()).await?;
            submit::after(api, format, &answer, then).await
        }
        RunsCommand::Replay(args) => replay::run(api, format, args).await,
        RunsCommand::Explain(RunArg { run }) => {
            let value = api.get(&format!("/runs/{run}/explain"), &[]).await?;
            let text = match output::document(format, &value) {
                Some(text) => text,
                None => explanation(&serde_json::from_value(value)?),
            };
            output::bytes(text.as_bytes());
            Ok(Exit::Done)
        }
        RunsCommand::Diff(RunArg { run }) => {
            let (_, patch) = api.bytes(&format!("/runs/{run}/diff"), &[]).await?;
            output::bytes(&patch);
            Ok(Exit::Done)
        }
        RunsCommand::Checkout(args) => checkout::run(api, args).await,
    }
}

async fn list(api: &Api, format: Format, args: &ListArgs) -> Result<Exit> {
    let query = list_query(args, Utc::now())?;
    let page = api.get("/runs", &query).await?;
    output::bytes(output::page(format, &page, &COLUMNS).as_bytes());
    let next = field(&page, "/next_cursor");
    if format == Format::Table && !next.is_empty() {
        output::progress(&format!("there are more: --cursor {next}"));
    }
    Ok(Exit::Done)
}

fn list_query(args: &ListArgs, now: chrono::DateTime<Utc>) -> Result<Vec<(&'static str, String)>> {
    let time = |text: &Option<String>| text.as_deref().map(|text| inputs::since(text, now).map(hopyard_contract::time::format)).transpose();
    let mut query: Vec<(&'static str, String)> = args.status.iter().map(|status| ("status", status.clone())).collect();
    for text in &args.labels {
        let (name, value) = inputs::pair(text, "label")?;
        query.push(("label", format!("{name}={value}")));
    }
    let single = [
        ("workflow", args.workflow.clone()),
        ("repo", args.repo.clone()),
        ("session", args.session.clone()),
        ("created_after", time(&args.since)?),
        ("created_before", time(&args.until)?),
        ("limit", Some(args.limit.to_string())),
        ("cursor", args.cursor.clone()),
    ];
    query.extend(single.into_iter().filter_map(|(name, value)| Some((name, value?))));
    Ok(query)
}

async fn logs(api: &Api, format: Format, args: &LogsArgs) -> Result<Exit> {
    let run = args.run;
    let wanted = |step: &str| args.step.as_deref().is_none_or(|only| only == step);
    let mut narrator = Narrator::default();
    let mut print = |item: &Item| {
        if matches!(item, Item::Chunk(step, ..) | Item::LogEnd(step, _) if !wanted(step)) {
            return;
        }
        if format == Format::Jsonl || format == Format::Json {
            if let Some(line) = submit::json_line(item).filter(|_| matches!(item, Item::Chunk(..))) {
                output::data(&line.to_string());
            }
            return;
        }
        for line in narrator.tell(item) {
            match line {
                Line::Log(text) => output::data(&text),
                Line::Progress(_) => {}
            }
        }
    };
    if args.follow {
        let view = submit::detachable(run, follow(api, run, Want { logs: true }, print)).await?;
        return Ok(Exit::of_status(view.status));
    }
    let view: RunView = api.get_as(&format!("/runs/{run}"), &[]).await?;
    if let Some(step) = args.step.as_deref().filter(|step| !view.steps.iter().flatten().any(|s| s.id.as_str() == *step)) {
        return Err(Failure::usage(format!("run {run} has no step `{step}`")));
    }
    for step in view.steps.iter().flatten().filter(|step| wanted(step.id.as_str())) {
        for attempt in &step.attempts {
            if attempt.status.is_final() && attempt.log_bytes > 0 {
                use futures::StreamExt as _;
                let mut items = log(api, run, step.id.to_string(), attempt.n);
                while let Some(item) = items.next().await {
                    print(&item?);
                }
            } else {
                for item in stored(api, run, step.id.as_str(), attempt.n).await? {
                    print(&item);
                }
            }
        }
    }
    Ok(Exit::Done)
}

/// What there is of the log of an attempt at work; its pipes are not told apart.
async fn stored(api: &Api, run: RunId, step: &str, n: u32) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut from = 0u64;
    loop {
        let path = format!("/runs/{run}/steps/{step}/attempts/{n}/logs");
        let (_, bytes) = match api.bytes(&path, &[("from", from.to_string())]).await {
            Ok(answer) => answer,
            Err(error) if matches!(error.downcast_ref(), Some(Failure::Refused(problem)) if problem.status == 404) => break,
            Err(error) => return Err(error),
        };
        if bytes.is_empty() {
            break;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let chunk = hopyard_contract::log::Chunk {
            offset: from,
            stream: hopyard_contract::log::Stream::Stdout,
            at: Utc::now(),
            text: Some(text),
            b64: None,
        };
        from += bytes.len() as u64;
        items.push(Item::Chunk(step.to_owned(), n, chunk));
    }
    items.push(Item::LogEnd(step.to_owned(), n));
    Ok(items)
}

fn explanation(explanation: &Explanation) -> String {
    let mut text = format!("{}: {}\n", explanation.status, explanation.text);
    for blocker in &explanation.blockers {
        let step = blocker.step.as_ref().map(|step| format!("{step}: ")).unwrap_or_default();
        text.push_str(&format!("  {step}{} ({})\n", blocker.text, blocker.code));
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: RunsCommand,
    }

    #[test]
    fn filters_become_a_query() {
        let line =
            Line::parse_from(["runs", "list", "--status", "failed", "--status", "killed", "-l", "a=b=c", "--since", "2h", "--limit", "5"]);
        let RunsCommand::List(args) = line.command else { panic!("another command") };
        let now = hopyard_contract::time::parse("2026-05-01T12:00:00Z").unwrap();
        let query = list_query(&args, now).unwrap();
        let text: Vec<_> = query.iter().map(|(name, value)| format!("{name}:{value}")).collect();
        assert_eq!(text, ["status:failed", "status:killed", "label:a=b=c", "created_after:2026-05-01T10:00:00.000000Z", "limit:5"]);
        assert!(Line::try_parse_from(["runs", "get", "not-an-id"]).is_err());
    }
}
