//! The process of a question: it asks, lets the model use its tools, checks the answer against its schema, and has it mended
//! where it does not fit.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use chrono::Utc;
use serde_json::Value;

use super::ask::{Reply, ask};
use super::request::Said;
use super::tools::{PromptTool, Refusal, Tool, use_own};
use super::{Answer, Order};
use crate::prompts;
use crate::tool_use::ToolUse;
use crate::wire::ToolCall;

/// How often the model is asked to mend an answer.
const REPAIRS: u32 = 2;
/// Problems of an answer that are named.
const NAMED: usize = 10;
/// Longest arguments of a tool in the log, in characters.
const SHOWN: usize = 200;

/// Carries out the order on the standard input; what the model says goes to the standard output. Whether there is an answer that
/// fits.
///
/// # Errors
/// When there is no order, or the answer cannot be kept.
pub async fn llm_main() -> Result<bool> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let order: Order = serde_json::from_str(&text).context("the standard input is no order: executors start this command")?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut asking = Asking {
        http: reqwest::Client::builder().no_proxy().build()?,
        root: std::env::current_dir()?.canonicalize()?,
        log: OpenOptions::new().create(true).append(true).open(&order.tools_log)?,
        turns: 0,
        most: order.max_turns,
    };
    let answer = asking.carry_out(&order, tell).await?;
    keep(&order.answer, &answer)?;
    Ok(matches!(answer, Answer::Fits { .. }))
}

/// What the question of a step and those of its tools have in common.
struct Asking {
    http: reqwest::Client,
    /// The workspace.
    root: PathBuf,
    /// Gets a line for every use of a tool.
    log: File,
    /// Calls of models so far, and the most that there may be.
    turns: u32,
    most: u32,
}

impl Asking {
    /// Asks until there is an answer; its pieces go to `tell`.
    async fn carry_out(&mut self, order: &Order, tell: fn(&str) -> std::io::Result<()>) -> Result<Answer> {
        let mut said = vec![Said::User(order.prompt.clone())];
        let mut repairs = 0;
        loop {
            if self.turns == self.most {
                return Ok(Answer::OutOfTurns { turns: self.turns });
            }
            self.turns += 1;
            let turn = match ask(&self.http, order, &said, tell, remark).await? {
                Reply::Said(turn) => turn,
                Reply::Refused(words) => {
                    remark(&words);
                    return Ok(Answer::Refused { words });
                }
            };
            if !turn.text.is_empty() || turn.calls.is_empty() {
                tell("\n")?;
            }
            if !turn.calls.is_empty() {
                let calls = turn.calls.clone();
                said.push(Said::Called(turn));
                let mut results = Vec::with_capacity(calls.len());
                for call in calls {
                    let result = self.use_tool(order, &call).await?;
                    results.push((call, result.map_err(|refusal| refusal.words().to_owned())));
                }
                said.push(Said::Results(results));
                continue;
            }
            let text = turn.text;
            let Some(schema) = &order.output else { return Ok(Answer::Fits { text, value: None, repairs }) };
            let errors = match check(schema, &text) {
                Ok(value) => return Ok(Answer::Fits { text, value: Some(value), repairs }),
                Err(errors) => errors,
            };
            let words = errors.join("\n");
            remark(&format!("the answer does not fit its schema:\n{words}"));
            if repairs == REPAIRS || self.turns == self.most {
                return Ok(Answer::Misfits { text, errors, repairs });
            }
            repairs += 1;
            // A model that said nothing has nothing to mend, and no wire takes an empty message.
            let said_before = if text.trim().is_empty() { "(nothing)".to_owned() } else { text };
            said.push(Said::Model(said_before));
            said.push(Said::User(format!("This does not fit the schema:\n{words}\nGive the whole answer again, mended, as JSON alone.")));
        }
    }

    /// Uses a tool and writes down what came of it.
    async fn use_tool(&mut self, order: &Order, call: &ToolCall) -> Result<Result<String, Refusal>> {
        let mut used = ToolUse::called(&call.id, &call.name, &call.input, Utc::now());
        remark(&format!("{} {}", call.name, call.input.to_string().chars().take(SHOWN).collect::<String>()));
        let result = match order.tools.iter().find(|tool| tool.name() == call.name) {
            Some(Tool::Own(tool)) => use_own(tool, &self.root, call).await,
            Some(Tool::Prompt(prompt)) => self.ask_prompt(order, prompt, call).await?,
            None => Err(Refusal::Denied(format!("there is no tool {:?}", call.name))),
        };
        used.denied = matches!(result, Err(Refusal::Denied(_)));
        let words = result.as_ref().map_or_else(Refusal::words, String::as_str);
        if result.is_err() {
            remark(&format!("{}: {words}", call.name));
        }
        used.end(result.is_err(), words, Utc::now());
        let line = format!("{}\n", serde_json::to_string(&used)?);
        self.log.write_all(line.as_bytes()).context("the use of a tool cannot be written down")?;
        Ok(result)
    }

    /// Asks what a prompt file says; what comes of it is a result and no part of the step's answer.
    async fn ask_prompt(&mut self, order: &Order, prompt: &PromptTool, call: &ToolCall) -> Result<Result<String, Refusal>> {
        let failed = |words: String| Ok(Err(Refusal::Failed(words)));
        let Some(values) = call.input.as_object() else { return failed("its arguments are no object".to_owned()) };
        let text = match prompts::render_tool(&prompt.path, &self.root, values) {
            Ok(text) => text,
            Err(error) => return failed(error.to_string()),
        };
        let asked = Order {
            prompt: text,
            model: prompt.model.clone(),
            output: prompt.output.clone(),
            system: None,
            tools: Vec::new(),
            ..order.clone()
        };
        match Box::pin(self.carry_out(&asked, |_| Ok(()))).await? {
            Answer::Fits { value: Some(value), .. } => Ok(Ok(value.to_string())),
            Answer::Fits { text, .. } => Ok(Ok(text)),
            Answer::Misfits { errors, .. } => failed(format!("its answer does not fit: {}", errors.join("; "))),
            Answer::OutOfTurns { .. } => failed("no more turns are left".to_owned()),
            Answer::Refused { words } => failed(words),
        }
    }
}

/// The answer as JSON that fits, or everything that is wrong with it.
fn check(schema: &Value, text: &str) -> Result<Value, Vec<String>> {
    let value: Value = serde_json::from_str(unfenced(text)).map_err(|error| vec![format!("it is no JSON: {error}")])?;
    let validator = jsonschema::validator_for(schema).map_err(|error| vec![format!("the schema cannot be used: {error}")])?;
    let errors: Vec<String> =
        validator.iter_errors(&value).take(NAMED).map(|error| format!("at `{}`: {error}", error.instance_path())).collect();
    if errors.is_empty() { Ok(value) } else { Err(errors) }
}

/// Models like to put a fence around JSON, whatever they are told.
fn unfenced(text: &str) -> &str {
    let text = text.trim();
    let Some(inner) = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```")) else { return text };
    inner.split_once('\n').map_or(inner, |(_, rest)| rest).trim()
}

fn tell(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn remark(words: &str) {
    // Standard error may be closed; the answer counts all the same.
    writeln!(std::io::stderr().lock(), "{words}").unwrap_or_default();
}

/// Puts the answer where the executor looks for it, whole or not at all.
fn keep(file: &Path, answer: &Answer) -> Result<()> {
    let aside = file.with_extension("part");
    std::fs::write(&aside, serde_json::to_vec(answer)?).with_context(|| format!("{} cannot be written", aside.display()))?;
    std::fs::rename(&aside, file).with_context(|| format!("{} cannot be written", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_fits_its_schema_or_everything_wrong_is_named() {
        let schema =
            json!({"type": "object", "required": ["title"], "properties": {"title": {"type": "string"}, "n": {"type": "integer"}}});
        assert_eq!(check(&schema, "```json\n{\"title\": \"x\"}\n```"), Ok(json!({"title": "x"})));
        let wrong = check(&schema, "{\"n\": \"many\"}").unwrap_err();
        assert!(wrong.len() == 2 && wrong.iter().any(|error| error.contains("/n")), "{wrong:?}");
        assert!(check(&schema, "Sure! {").unwrap_err()[0].starts_with("it is no JSON"));
    }
}
