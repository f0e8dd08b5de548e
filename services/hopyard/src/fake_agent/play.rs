//! Plays a script line by line.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::time::Duration;

use anyhow::{Context as _, Result};
use hopyard_contract::plan::Permissions;
use serde_json::{Value, json};
use uuid::Uuid;

use super::model::{Answer, Model};
use super::script::{self, End, Line, Tool, TurnUsage};
use super::voice::Voice;
use crate::client::output;
use crate::exit::{Exit, Failure};

/// Tools that change files.
const WRITING: [&str; 2] = ["Write", "Edit"];
/// Tools that run programs.
const RUNNING: [&str; 1] = ["Bash"];
/// Tools that it says it has.
const TOOLS: [&str; 7] = ["Task", "Bash", "Edit", "Glob", "Grep", "Read", "Write"];

/// Whether the script goes on.
enum Go {
    On,
    /// The process ends with this code.
    Out(u8),
}

/// Whether there is another turn.
enum Turn {
    Used(TurnUsage),
    /// The process ends with this code.
    Out(u8),
}

/// Plays one script.
pub(super) struct Player {
    voice: Voice,
    model: Option<Model>,
    permissions: Permissions,
    max_turns: Option<u64>,
    usage: TurnUsage,
    last_words: String,
    ended: Option<bool>,
}

impl Player {
    /// One that asks a model only if it is given one: then what its turns use is what the answers say.
    pub(super) fn new(name: &str, session: Uuid, model: Option<Model>, max_turns: Option<u64>, permissions: Permissions) -> Self {
        let voice = Voice::new(name, session, model.is_none());
        Self { voice, model, permissions, max_turns, usage: TurnUsage::default(), last_words: String::new(), ended: None }
    }

    /// Plays a script to its end; says that it is done unless the script said how it ended.
    pub(super) async fn play(mut self, lines: &[Line]) -> Result<Exit> {
        self.voice.ready(self.permissions, &TOOLS)?;
        if let Go::Out(code) = self.lines(lines, None).await? {
            return Ok(Exit::Scripted(code));
        }
        if self.ended.is_none() {
            let words = self.last_words.clone();
            self.end(&End::Completed(words))?;
        }
        Ok(if self.ended == Some(true) { Exit::Done } else { Exit::Failed })
    }

    async fn lines(&mut self, lines: &[Line], parent: Option<&str>) -> Result<Go> {
        for line in lines {
            if let out @ Go::Out(_) = Box::pin(self.line(line, parent)).await? {
                return Ok(out);
            }
        }
        Ok(Go::On)
    }

    async fn line(&mut self, line: &Line, parent: Option<&str>) -> Result<Go> {
        match line {
            Line::Say(words) => {
                let usage = match self.turn(parent).await? {
                    Turn::Used(usage) => usage,
                    Turn::Out(code) => return Ok(Go::Out(code)),
                };
                self.last_words = words.clone();
                self.voice.reply(vec![json!({ "type": "text", "text": words })], usage, parent)?;
            }
            Line::Use(tools) => return self.tools(tools, parent).await,
            Line::Usage(usage) => self.usage = *usage,
            Line::Repeat { times, lines } => {
                for round in 1..=*times {
                    let lines = script::nested(lines, round).map_err(Failure::usage)?;
                    if let out @ Go::Out(_) = self.lines(&lines, parent).await? {
                        return Ok(out);
                    }
                }
            }
            Line::Print(Value::String(text)) => self.voice.print(text)?,
            Line::Print(value) => self.voice.print(&value.to_string())?,
            Line::Stderr(words) => output::progress(words),
            Line::WaitMs(ms) => tokio::time::sleep(Duration::from_millis(*ms)).await,
            Line::Flood(bytes) => self.voice.print(&"~".repeat(*bytes))?,
            Line::End(end) => self.end(end)?,
            Line::Exit(code) => return Ok(Go::Out(*code)),
            Line::Hang(true) => std::future::pending().await,
            Line::Hang(false) => {}
        }
        Ok(Go::On)
    }

    fn end(&mut self, end: &End) -> Result<()> {
        self.ended = Some(matches!(end, End::Completed(_)));
        Ok(self.voice.end(end)?)
    }

    /// What the next turn uses; gives up when it would be one too many, or when the model refuses it.
    async fn turn(&mut self, parent: Option<&str>) -> Result<Turn> {
        if parent.is_none() && self.max_turns.is_some_and(|most| self.voice.turns() >= most) {
            self.end(&End::MaxTurns)?;
            return Ok(Turn::Out(1));
        }
        let Some(model) = &self.model else { return Ok(Turn::Used(self.usage)) };
        let voice = &self.voice;
        match model.ask(voice.replies(), |attempt, delay, status| voice.retry(attempt, delay, status)).await? {
            Answer::Used(usage) => Ok(Turn::Used(usage)),
            Answer::Refused(words) => {
                self.end(&End::Failed(words))?;
                Ok(Turn::Out(1))
            }
        }
    }

    /// A turn that uses tools: all calls first, then their results.
    async fn tools(&mut self, tools: &[Tool], parent: Option<&str>) -> Result<Go> {
        let usage = match self.turn(parent).await? {
            Turn::Used(usage) => usage,
            Turn::Out(code) => return Ok(Go::Out(code)),
        };
        let calls: Vec<(String, &Tool)> = tools.iter().map(|tool| (self.voice.next_call(), tool)).collect();
        let block = |(id, tool): &(String, &Tool)| json!({ "type": "tool_use", "id": id, "name": tool.name, "input": tool.input });
        self.voice.reply(calls.iter().map(block).collect(), usage, parent)?;
        for (id, tool) in &calls {
            let helper = script::nested(&tool.helper, 1).map_err(Failure::usage)?;
            if let out @ Go::Out(_) = self.lines(&helper, Some(id)).await? {
                return Ok(out);
            }
            let (said, failed) = if self.may(&tool.name) {
                self.carry_out(tool)
            } else {
                self.voice.deny(id, &tool.name, &json!(tool.input));
                (format!("{} is not permitted", tool.name), true)
            };
            self.voice.result(id, &said, failed, parent)?;
        }
        Ok(Go::On)
    }

    fn may(&self, tool: &str) -> bool {
        match self.permissions {
            Permissions::Full => true,
            Permissions::Edit => !RUNNING.contains(&tool),
            Permissions::Read => !RUNNING.contains(&tool) && !WRITING.contains(&tool),
        }
    }

    /// What a tool says, and whether it failed.
    fn carry_out(&self, tool: &Tool) -> (String, bool) {
        let written = if WRITING.contains(&tool.name.as_str()) && !tool.fails { write(&tool.input) } else { Ok(()) };
        match written {
            Ok(()) => (tool.output.clone().unwrap_or_else(|| "ok".to_owned()), tool.fails),
            Err(error) => (format!("{error:#}"), true),
        }
    }
}

/// Writes the file of a `Write`, or appends that of an `Edit`; only below the directory that it works in.
fn write(input: &BTreeMap<String, Value>) -> Result<()> {
    use std::io::Write as _;
    let text = |field: &str| input.get(field).and_then(Value::as_str);
    let path = Path::new(text("file_path").context("file_path is missing")?);
    let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    anyhow::ensure!(inside, "{} is not below the workspace", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut options = std::fs::OpenOptions::new();
    match text("new_string") {
        Some(more) => options.create(true).append(true).open(path)?.write_all(more.as_bytes())?,
        None => options.create(true).write(true).truncate(true).open(path)?.write_all(text("content").unwrap_or_default().as_bytes())?,
    }
    Ok(())
}
