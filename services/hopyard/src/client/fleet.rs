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

/// What to do with executors.
#[derive(Clone, Debug, Subcommand)]
pub enum ExecutorsCommand {
    /// Lists executors with pool, slots and when they were last heard
    #[command(after_help = "Example:\n  hopyard executors list")]
    List,
    /// Lets an executor finish what it has and take nothing new
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
}

/// What to do with dead letters.
#[derive(Clone, Debug, Subcommand)]
pub enum DlqCommand {
    /// Lists messages that could not be processed, with their reason
    #[command(after_help = "Example:\n  hopyard dlq list -o jsonl")]
    List,
    /// Sends a dead letter again
    #[command(after_help = "Example:\n  hopyard dlq requeue 17")]
    Requeue {
        /// Id of the dead letter
        id: String,
    },
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
    ("WORKFLOW", |v| field(v, "/workflow")),
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

/// Carries out a command about workspaces.
///
/// # Errors
/// As the API's.
pub async fn workspaces(api: &Api, format: Format, command: &WorkspacesCommand) -> Result<Exit> {
    let WorkspacesCommand::List { status } = command;
    let query: Vec<_> = status.iter().map(|status| ("status", status.clone())).collect();
    list(api, format, "/workspaces", &query, &WORKSPACES).await
}

/// Carries out a command about dead letters.
///
/// # Errors
/// As the API's.
pub async fn dlq(api: &Api, format: Format, command: &DlqCommand) -> Result<Exit> {
    match command {
        DlqCommand::List => list(api, format, "/dead-letters", &[], &LETTERS).await,
        DlqCommand::Requeue { id } => {
            let value = api.post(&format!("/dead-letters/{id}/requeue"), &json!({}), HeaderMap::new()).await?;
            output::bytes(output::document(format, &value).unwrap_or_else(|| format!("{id} was sent again\n")).as_bytes());
            Ok(Exit::Done)
        }
    }
}

/// Sums up usage by workflow.
///
/// # Errors
/// As the API's.
pub async fn usage(api: &Api, format: Format, args: &UsageArgs) -> Result<Exit> {
    let now = Utc::now();
    let mut query = vec![("from", hopyard_contract::time::format(inputs::since(&args.since, now)?))];
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
