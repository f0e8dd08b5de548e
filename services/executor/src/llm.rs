//! Steps that are one question to a model, which may use tools before it answers.
//!
//! The question is asked by a process of its own, under the same shim, lease and limits as any other step, through the
//! metering gateway: so it is killed, held still, timed, logged and paid for as everything else is.

mod ask;
mod request;
mod step;
mod tools;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use hopyard_contract::Usage;
use hopyard_contract::message::{Grant, Outcome};
use hopyard_contract::plan::LlmSpec;
use hopyard_contract::status::FailureCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Executor;
use crate::attempt::{Command, failed};
use crate::files::{PRIVATE, write_private};
use crate::live::Attempt;
use crate::metered::Metered;
use crate::process::{ExitFacts, ExitKind, StepProcess};
use crate::prompts;
use crate::tool_use::ToolUse;
use crate::wire::Wire;

use self::tools::{PromptTool, Tool};

pub use step::llm_main;

/// Subcommand of this executable that asks.
const COMMAND: &str = "llm-step";
/// File of a spool directory with the answer.
const ANSWER_FILE: &str = "answer.json";
/// File of a spool directory with a line for every use of a tool.
const TOOLS_FILE: &str = "tools.jsonl";
/// Calls of a model unless anything else is said.
const MAX_TURNS: u32 = 20;
/// Longest text that becomes an output, in bytes: outputs travel with the run.
const MAX_OUTPUT: usize = 32 * 1024;

/// What the process is told, on its standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    wire: Wire,
    url: String,
    token: String,
    model: String,
    prompt: String,
    system: Option<String>,
    /// JSON Schema of the answer.
    output: Option<Value>,
    max_tokens: u32,
    /// What the model may use.
    tools: Vec<Tool>,
    /// Most calls of models, of those that tools make too.
    max_turns: u32,
    /// Where the answer goes.
    answer: PathBuf,
    /// Where every use of a tool goes.
    tools_log: PathBuf,
}

/// What the process found out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// It fits.
    Fits {
        /// As it came.
        text: String,
        /// As JSON, if there is a schema.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<Value>,
        /// How often the model was asked to mend it.
        repairs: u32,
    },
    /// It does not fit its schema, though the model was asked to mend it.
    Misfits {
        /// The last one, as it came.
        text: String,
        /// What is wrong with it.
        errors: Vec<String>,
        /// How often the model was asked to mend it.
        repairs: u32,
    },
    /// There is none, as the model had no more turns.
    OutOfTurns {
        /// How often models were called.
        turns: u32,
    },
    /// The provider refused, or could not be reached for too long.
    Refused {
        /// In its words.
        words: String,
    },
}

/// One question of an attempt.
pub(crate) struct Llm {
    spec: LlmSpec,
    dir: PathBuf,
    metered: Metered,
}

/// Makes everything ready for a question: its gateway, and how its process is started.
///
/// # Errors
/// When no provider fits, its spool cannot be written, or no gateway can be opened.
pub(crate) async fn ready(
    executor: &Executor,
    grant: &Grant,
    live: &Arc<Attempt>,
    dir: &Path,
    workspace: &Path,
    spec: &LlmSpec,
) -> anyhow::Result<(Command, Llm)> {
    let spec = prompts::of_llm(spec.clone(), workspace)?;
    let (provider, model) = executor.providers.of_model(&spec.model)?;
    let (wire, model) = (provider.wire, model.to_owned());
    let tools = spec.tools.iter().flatten().map(|tool| {
        let Some(path) = tool.prompt_file() else { return Ok(Tool::Own(tool.clone())) };
        let prompt = prompts::of_tool(&path, workspace)?;
        let named = prompt.model.as_deref().map(|model| executor.providers.of_model(model)).transpose()?;
        let own_provider = named.as_ref().is_none_or(|(named, _)| named.name == provider.name);
        ensure!(own_provider, "{path} asks a model of another provider than its step, which has one gateway to one provider");
        let model = named.map_or_else(|| model.clone(), |(_, model)| model.to_owned());
        let description = prompt.description.or(prompt.name).unwrap_or_else(|| tool.name().to_owned());
        let (name, inputs, output) = (tool.name().to_owned(), prompt.inputs, prompt.outputs);
        Ok(Tool::Prompt(PromptTool { name, path, description, inputs, output, model }))
    });
    let tools = tools.collect::<anyhow::Result<Vec<_>>>()?;
    let (metered, entry) = Metered::open(executor, live, dir, provider).await?;
    let order = Order {
        wire,
        url: entry.url,
        token: entry.token,
        model,
        prompt: spec.prompt.clone(),
        system: spec.system.clone(),
        output: spec.output.clone(),
        max_tokens: spec.max_tokens,
        tools,
        max_turns: spec.max_turns.unwrap_or(MAX_TURNS),
        answer: dir.join(ANSWER_FILE),
        tools_log: dir.join(TOOLS_FILE),
    };
    let input = dir.join("question");
    write_private(&input, &serde_json::to_vec(&order)?, PRIVATE).await?;
    let argv = vec![executor.settings.program.display().to_string(), COMMAND.to_owned()];
    let command = Command { argv, env: grant.env.clone(), home: None, input: Some(input), idle_timeout_ms: None };
    Ok((command, Llm { spec, dir: dir.to_owned(), metered }))
}

impl Llm {
    /// The question of an attempt that nobody carries on; `None` when it was never asked.
    pub(crate) fn from_spool(spec: LlmSpec, dir: &Path) -> Option<Self> {
        Some(Self { spec, dir: dir.to_owned(), metered: Metered::left(dir)? })
    }

    /// Tells what was used until the process has ended.
    pub(crate) async fn listen(&self, process: &StepProcess, live: &Attempt) -> anyhow::Result<()> {
        let mut paid = self.metered.watch();
        loop {
            tokio::select! {
                changed = paid.changed() => match changed {
                    Ok(()) => live.used(self.usage()),
                    Err(_) => return Ok(()),
                },
                ended = process.wait() => return ended.map(drop),
            }
        }
    }

    pub(crate) async fn close(&self) {
        self.metered.close().await;
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage { tool_calls: self.tools().len() as u64, ..self.metered.usage() }
    }

    /// Every use of a tool so far.
    fn tools(&self) -> Vec<ToolUse> {
        let text = std::fs::read_to_string(self.dir.join(TOOLS_FILE)).unwrap_or_default();
        // The last line may be one that is being written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The answer, if the process left one.
    fn answer(&self) -> Option<Answer> {
        let text = std::fs::read(self.dir.join(ANSWER_FILE)).ok()?;
        serde_json::from_slice(&text).inspect_err(|error| tracing::warn!(%error, "the answer of a model cannot be read")).ok()
    }

    pub(crate) fn outcome(&self, facts: &ExitFacts, plain: Outcome) -> Outcome {
        let ended = matches!(facts.kind, ExitKind::Exited | ExitKind::Signaled);
        match self.answer() {
            _ if !ended => plain,
            _ if let Some(limit) = self.metered.stop().limit() => limit.clone().outcome(),
            _ if self.metered.stop().token().is_cancelled() => {
                failed(FailureCode::BudgetExceeded, "the next call would have been beyond the budget of the run".to_owned())
            }
            None => plain,
            Some(Answer::Fits { .. }) => Outcome::Completed,
            Some(Answer::Misfits { errors, repairs, .. }) => {
                let words = errors.join("; ");
                failed(
                    FailureCode::InvalidOutput,
                    format!("the answer does not fit its schema after {repairs} repairs: {words}; it is in the record"),
                )
            }
            Some(Answer::OutOfTurns { turns }) => failed(
                FailureCode::MaxTurns,
                format!("the model had no answer after {turns} turns; the uses of its tools are in the record"),
            ),
            Some(Answer::Refused { words }) => failed(FailureCode::AgentError, words),
        }
    }

    /// The answer as outputs: `text`; with a schema `json`, and each field that is no list and no object.
    pub(crate) fn outputs(&self) -> BTreeMap<String, String> {
        let Some(Answer::Fits { text, value, .. }) = self.answer() else { return BTreeMap::new() };
        let mut outputs = BTreeMap::new();
        for (name, field) in value.iter().filter_map(Value::as_object).flatten() {
            match field {
                Value::String(text) => outputs.insert(name.clone(), text.clone()),
                Value::Number(_) | Value::Bool(_) => outputs.insert(name.clone(), field.to_string()),
                _ => None,
            };
        }
        match value {
            Some(value) => outputs.insert("json".to_owned(), value.to_string()),
            None => outputs.insert("text".to_owned(), text),
        };
        outputs.retain(|_, value| value.len() <= MAX_OUTPUT);
        outputs
    }

    pub(crate) fn record(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let calls = self.metered.calls()?;
        let record = json!({
            "v": 1, "model": self.spec.model, "usage": self.usage(), "answer": self.answer(), "calls": calls, "tools": self.tools(),
        });
        Ok(Some(serde_json::to_vec(&record).context("the record of a question")?))
    }
}
