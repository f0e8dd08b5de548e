//! `hopyard executors`, `workspaces`, `usage` and `dlq`: what a deployment is made of and what it costs.

use anyhow::Result;
use chrono::Utc;
use clap::{Args, Subcommand};
use hopyard_contract::money::format_microusd;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::output::{self, Column, Format, field};
use super::{Api, inputs};
use crate::exit::Exit;
use crate::prune::PruneArgs;

/// What to do with executors.
#[derive(Clone, Debug, Subcommand)]
pub enum ExecutorsCommand {
    /// Lists executors with pool, slots and when they were last heard
    #[command(after_help = "Example:\n  hopyard executors list")]
    List,
    /// Lets an executor finish what it has, give back what takes long, and end; what supervises it may start it anew
    #[command(after_help = "Example:\n  hopyard executors drain executor-1")]
    Drain {
        /// Name of the executor
        executor: String,
    },
}

/// What to do with workspaces.
#[derive(Clone, Debug, Subcommand)]
pub enum WorkspacesCommand {
    /// Lists the workspaces of a namespace
    #[command(after_help = "Example:\n  hopyard workspaces list --status kept")]
    List {
        /// active, kept, reclaimable or removed; without it all that exist
        #[arg(long, value_name = "STATUS")]
        status: Option<String>,
    },
    /// Frees the disk of the host that this runs on, as its janitor does
    #[command(
        long_about = "Frees the disk of the host that this runs on, as its janitor does: workspaces of ended runs, and what no scheduler \
                      knows and is old. It works on this host's data directory over the bus, not through the API, is safe beside a \
                      running janitor, and is the same as `hopyard janitor --once`.",
        after_help = "Example:\n  hopyard workspaces prune --dry-run --max-age 48h --data-dir /var/lib/hopyard"
    )]
    Prune(PruneArgs),
}

/// What to do with dead letters.
#[derive(Clone, Debug, Subcommand)]
pub enum DlqCommand {
    /// Lists messages that could not be processed, with their reason
    #[command(after_help = "Example:\n  hopyard dlq list -o jsonl")]
    List,
    /// Shows one dead letter with its body
    #[command(after_help = "Example:\n  hopyard dlq show 17")]
    Show(LetterArg),
    /// Sends a dead letter to where it came from; it stays in the list until it is dropped
    #[command(after_help = "Example:\n  hopyard dlq requeue 17")]
    Requeue(LetterArg),
    /// Deletes a dead letter
    #[command(after_help = "Example:\n  hopyard dlq drop 17")]
    Drop(LetterArg),
}

/// A dead letter.
#[derive(Clone, Debug, Args)]
pub struct LetterArg {
    /// Id of the dead letter, from `dlq list`
    pub id: u64,
}

/// Which usage to sum up.
#[derive(Clone, Debug, Args)]
pub struct UsageArgs {
    /// Runs submitted in this time: a duration such as 24h, or an RFC 3339 time
    #[arg(long, value_name = "TIME", default_value = "30d")]
    pub since: String,
    /// Runs submitted before this: a duration ago, or an RFC 3339 time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// What is summed up by
    #[arg(long, value_enum, value_name = "WHAT", default_value_t)]
    pub by: SumBy,
}

/// What usage is summed up by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SumBy {
    /// The workflow.
    #[default]
    Workflow,
    /// The repository.
    Repository,
}

const EXECUTORS: [Column; 7] = [
    ("ID", |v| field(v, "/id")),
    ("POOL", |v| field(v, "/pool")),
    ("HOST", |v| field(v, "/host")),
    ("STATUS", |v| field(v, "/status")),
    ("SLOTS", |v| field(v, "/slots")),
    ("FREE", |v| field(v, "/free")),
    ("SEEN", |v| field(v, "/seen_at")),
];

const WORKSPACES: [Column; 5] = [
    ("ID", |v| field(v, "/id")),
    ("STATUS", |v| field(v, "/status")),
    ("HOST", |v| field(v, "/host")),
    ("SESSION", |v| field(v, "/session")),
    ("PATH", |v| field(v, "/path")),
];

const USAGE: [Column; 7] = [
    ("OF", |v| v.get("workflow").or_else(|| v.get("repository")).and_then(Value::as_str).unwrap_or_default().to_owned()),
    ("RUNS", |v| field(v, "/runs")),
    ("COST", |v| v.pointer("/usage/cost_microusd").and_then(Value::as_u64).map_or_else(|| "unknown".to_owned(), format_microusd)),
    ("TOKENS IN", |v| field(v, "/usage/tokens/input")),
    ("TOKENS OUT", |v| field(v, "/usage/tokens/output")),
    ("TURNS", |v| field(v, "/usage/turns")),
    ("TOOL CALLS", |v| field(v, "/usage/tool_calls")),
];

const LETTERS: [Column; 6] = [
    ("ID", |v| field(v, "/id")),
    ("AT", |v| field(v, "/at")),
    ("STREAM", |v| field(v, "/stream")),
    ("SUBJECT", |v| field(v, "/subject")),
    ("CODE", |v| field(v, "/code")),
    ("DETAIL", |v| field(v, "/detail")),
];

/// Carries out a command about executors.
///
/// # Errors
/// As the API's.
pub async fn executors(api: &Api, format: Format, command: &ExecutorsCommand) -> Result<Exit> {
    match command {
        ExecutorsCommand::List => list(api, format, "/executors", &[], &EXECUTORS).await,
        ExecutorsCommand::Drain { executor } => {
            let value = api.global().post(&format!("/executors/{executor}/drain"), &json!({}), HeaderMap::new()).await?;
            output::bytes(output::document(format, &value).unwrap_or_else(|| format!("{executor} is draining\n")).as_bytes());
            Ok(Exit::Done)
        }
    }
}

/// Lists the workspaces of a namespace.
///
/// # Errors
/// As the API's.
pub async fn workspaces(api: &Api, format: Format, status: Option<&str>) -> Result<Exit> {
    let query: Vec<_> = status.iter().map(|status| ("status", (*status).to_owned())).collect();
    list(api, format, "/workspaces", &query, &WORKSPACES).await
}

/// Carries out a command about dead letters.
///
/// # Errors
/// As the API's.
pub async fn dlq(api: &Api, format: Format, command: &DlqCommand) -> Result<Exit> {
    match command {
        DlqCommand::List => return list(api, format, "/dead-letters", &[], &LETTERS).await,
        DlqCommand::Show(LetterArg { id }) => {
            let value = api.get(&format!("/dead-letters/{id}"), &[]).await?;
            output::bytes(output::document(format, &value).unwrap_or_else(|| letter(&value)).as_bytes());
        }
        DlqCommand::Requeue(LetterArg { id }) => {
            let value = api.post(&format!("/dead-letters/{id}/requeue"), &json!({}), HeaderMap::new()).await?;
            output::bytes(output::document(format, &value).unwrap_or_else(|| format!("{id} was sent again\n")).as_bytes());
        }
        DlqCommand::Drop(LetterArg { id }) => {
            api.delete(&format!("/dead-letters/{id}")).await?;
            let value = json!({"id": id.to_string(), "status": "dropped"});
            output::bytes(output::document(format, &value).unwrap_or_else(|| format!("{id} was dropped\n")).as_bytes());
        }
    }
    Ok(Exit::Done)
}

/// A dead letter for people: its facts, an empty line, and its body as text or, if it is none, in base64.
fn letter(value: &Value) -> String {
    let rows: Vec<_> = ["id", "first_at", "at", "stream", "subject", "seq", "attempts", "code", "detail", "cut_from"]
        .into_iter()
        .map(|name| vec![name.to_owned(), output::clean(&field(value, &format!("/{name}")))])
        .collect();
    let body = match value.get("text").and_then(Value::as_str) {
        // Line breaks and tabs are layout; anything else could play tricks with a terminal.
        Some(text) => text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { ' ' } else { c }).collect(),
        None => field(value, "/body"),
    };
    format!("{}\n{}\n", output::align(&rows), body.trim_end())
}

/// Sums up usage by workflow.
///
/// # Errors
/// As the API's.
pub async fn usage(api: &Api, format: Format, args: &UsageArgs) -> Result<Exit> {
    let now = Utc::now();
    let mut query = vec![("from", hopyard_contract::time::format(inputs::since(&args.since, now)?))];
    if args.by == SumBy::Repository {
        query.push(("by", "repository".to_owned()));
    }
    if let Some(until) = &args.until {
        query.push(("to", hopyard_contract::time::format(inputs::since(until, now)?)));
    }
    list(api, format, "/usage", &query, &USAGE).await
}

async fn list(api: &Api, format: Format, path: &str, query: &[(&str, String)], columns: &[Column]) -> Result<Exit> {
    let global = api.global();
    // Executors belong to no namespace.
    let api = if path == "/executors" { &global } else { api };
    let page = api.get(path, query).await?;
    output::bytes(output::page(format, &page, columns).as_bytes());
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_shows_its_body_as_text_or_in_base64() {
        let facts = json!({"id": "17", "at": "2026-05-01T12:00:00.000000Z", "stream": "HOPYARD_CMD", "subject": "hopyard.cmd.submit.default", "seq": 3,
                           "attempts": 1, "code": "json_syntax", "detail": "two\nlines", "body": "ew=="});
        let binary = letter(&facts);
        assert!(binary.starts_with("id        17\n") && binary.contains("detail    two lines\n"), "{binary}");
        assert!(binary.ends_with("\n\new==\n"), "{binary}");
        let mut readable = facts;
        readable["text"] = "{\n\u{1b}[2J".into();
        assert!(letter(&readable).ends_with("\n\n{\n [2J\n"), "{}", letter(&readable));
    }
}
