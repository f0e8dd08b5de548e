//! `hopyard fake-agent`: an agent that plays a script instead of asking a model, in the form of Claude Code's lines.
//!
//! Whoever wants to see what a workflow does with agents (cost, tools, failures, hangs) can try it without a key, a network or
//! a bill. Files that its script writes are really written; everything else that its tools do is only told.

mod model;
mod play;
mod script;
mod voice;

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use hopyard_contract::plan::Permissions;
use hopyard_runtime::config::environment;
use serde_json::json;
use uuid::Uuid;

use crate::client::output;
use crate::exit::{Exit, Failure};
use model::Model;
use play::Player;

/// Where an executor leaves the script of a step, below the agent's home.
const SCRIPT: &str = ".fake-agent/script.jsonl";

/// How the fake agent is started.
#[derive(Debug, Args)]
pub struct FakeAgentArgs {
    /// Script of JSON lines; without one a file is written and that is told
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Model that it pretends to ask
    #[arg(long, value_name = "NAME", default_value = "fake-model")]
    model: String,
    /// Turns after which it gives up
    #[arg(long, value_name = "N")]
    max_turns: Option<u64>,
    /// Conversation to go on with; it has to be one of this home
    #[arg(long, value_name = "ID")]
    resume: Option<Uuid>,
    /// Ask the model so often, and tell how long each call took
    #[arg(long, value_name = "N", hide = true)]
    time_calls: Option<u32>,
    /// What it may do: read, edit or full
    #[arg(long, value_name = "WORD", default_value = "edit")]
    permissions: Permissions,
}

/// The id of a new conversation, or of the one that is gone on with; each leaves a file in the home, as real programs do.
fn conversation(resume: Option<Uuid>) -> Result<Uuid> {
    let place = PathBuf::from(environment("HOME").unwrap_or_default()).join(".fake-agent/conversations");
    if let Some(id) = resume {
        anyhow::ensure!(place.join(id.to_string()).exists(), "No conversation found with session ID: {id}");
        return Ok(id);
    }
    let id = Uuid::new_v4();
    std::fs::create_dir_all(&place).with_context(|| format!("{} cannot be made", place.display()))?;
    std::fs::write(place.join(id.to_string()), "").context("the conversation cannot be kept")?;
    Ok(id)
}

/// Plays the script; the prompt is the standard input.
///
/// # Errors
/// When the script cannot be read, or a line of it is none.
pub async fn run(args: &FakeAgentArgs) -> Result<Exit> {
    let mut prompt = String::new();
    std::io::stdin().read_to_string(&mut prompt).context("the prompt cannot be read")?;
    let left = environment("HOME").map(|home| PathBuf::from(home).join(SCRIPT)).filter(|file| file.exists());
    let lines = match args.script.clone().or(left) {
        Some(file) => {
            let text = std::fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
            script::parse(&text).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?
        }
        None => script::without_one(prompt.trim()),
    };
    let model = Model::of_environment(&args.model)?;
    if let Some(calls) = args.time_calls {
        let model = model.context("there is no model that could be asked")?;
        output::bytes(format!("{}\n", json!({ "calls_us": model.time_calls(calls).await? })).as_bytes());
        return Ok(Exit::Done);
    }
    let session = conversation(args.resume)?;
    Player::new(&args.model, session, model, args.max_turns, args.permissions).play(&lines).await
}
