//! The lines of Claude Code's `stream-json`, as the fake agent says them, and the sums that it tells at its end.

use std::io::Write as _;

use hopyard_contract::plan::Permissions;
use serde_json::{Value, json};
use uuid::Uuid;

use super::script::{End, TurnUsage};

/// Says lines, and counts what they stand for.
pub(super) struct Voice {
    model: String,
    /// Whether it tells what its turns cost: of a real model's prices it knows nothing.
    priced: bool,
    session: Uuid,
    turns: u64,
    /// Replies, those of helpers too.
    replies: u64,
    calls: u64,
    used: TurnUsage,
    denied: Vec<Value>,
}

impl Voice {
    pub(super) fn new(model: &str, session: Uuid, priced: bool) -> Self {
        let used = TurnUsage { input: 0, output: 0, cache_read: 0, cache_write: 0, cost_microusd: 0 };
        Self { model: model.to_owned(), priced, session, turns: 0, replies: 0, calls: 0, used, denied: Vec::new() }
    }

    /// Prints a line; a reader that is gone is noticed by whoever reads the exit code.
    pub(super) fn print(&self, line: &str) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(line.as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
    }

    fn tell(&self, mut line: Value) -> std::io::Result<()> {
        line["session_id"] = json!(self.session);
        line["uuid"] = json!(Uuid::new_v4());
        self.print(&line.to_string())
    }

    /// Turns so far; those of helpers are not among them.
    pub(super) fn turns(&self) -> u64 {
        self.turns
    }

    /// Replies so far.
    pub(super) fn replies(&self) -> u64 {
        self.replies
    }

    /// The provider could not take a call, which is made again.
    pub(super) fn retry(&self, attempt: u64, delay_ms: u64, status: u16) -> std::io::Result<()> {
        self.tell(json!({
            "type": "system", "subtype": "api_retry", "attempt": attempt, "max_retries": 10, "retry_delay_ms": delay_ms,
            "error_status": status, "error": "the provider could not take it",
        }))
    }

    pub(super) fn ready(&self, permissions: Permissions, tools: &[&str]) -> std::io::Result<()> {
        let version = concat!("fake-", env!("CARGO_PKG_VERSION"));
        self.tell(json!({
            "type": "system", "subtype": "init", "model": self.model, "tools": tools,
            "permissionMode": permissions.as_str(), "claude_code_version": version,
        }))
    }

    /// A reply of the model, one line for each block, as the real one does.
    pub(super) fn reply(&mut self, blocks: Vec<Value>, usage: TurnUsage, parent: Option<&str>) -> std::io::Result<()> {
        self.replies += 1;
        if parent.is_none() {
            self.turns += 1;
        }
        let sums = [
            (&mut self.used.input, usage.input),
            (&mut self.used.output, usage.output),
            (&mut self.used.cache_read, usage.cache_read),
            (&mut self.used.cache_write, usage.cache_write),
            (&mut self.used.cost_microusd, usage.cost_microusd),
        ];
        for (sum, more) in sums {
            *sum = sum.saturating_add(more);
        }
        let id = format!("msg_{}", Uuid::new_v4().simple());
        for block in blocks {
            let message = json!({
                "id": id, "type": "message", "role": "assistant", "model": self.model, "content": [block],
                "usage": {
                    "input_tokens": usage.input, "output_tokens": usage.output,
                    "cache_read_input_tokens": usage.cache_read, "cache_creation_input_tokens": usage.cache_write,
                },
            });
            self.tell(json!({ "type": "assistant", "message": message, "parent_tool_use_id": parent }))?;
        }
        Ok(())
    }

    /// Id of the next use of a tool.
    pub(super) fn next_call(&mut self) -> String {
        self.calls += 1;
        format!("toolu_fake_{}", self.calls)
    }

    pub(super) fn deny(&mut self, id: &str, name: &str, input: &Value) {
        self.denied.push(json!({ "tool_name": name, "tool_use_id": id, "tool_input": input }));
    }

    pub(super) fn result(&self, id: &str, output: &str, failed: bool, parent: Option<&str>) -> std::io::Result<()> {
        let block = json!({ "type": "tool_result", "tool_use_id": id, "content": output, "is_error": failed });
        self.tell(json!({ "type": "user", "message": { "role": "user", "content": [block] }, "parent_tool_use_id": parent }))
    }

    pub(super) fn end(&self, end: &End) -> std::io::Result<()> {
        let (subtype, said, errors) = match end {
            End::Completed(words) => ("success", Some(words), Vec::new()),
            End::MaxTurns => ("error_max_turns", None, vec![format!("Reached maximum number of turns ({})", self.turns)]),
            End::Budget => ("error_max_budget_usd", None, vec!["Reached maximum budget".to_owned()]),
            End::Failed(words) => ("error_during_execution", None, vec![words.clone()]),
        };
        let used = self.used;
        let cost = used.cost_microusd as f64 / 1e6;
        let of_model = json!({
            "inputTokens": used.input, "outputTokens": used.output, "cacheReadInputTokens": used.cache_read,
            "cacheCreationInputTokens": used.cache_write,
        });
        let mut line = json!({
            "type": "result", "subtype": subtype, "is_error": said.is_none(), "num_turns": self.turns, "result": said,
            "modelUsage": { self.model.as_str(): of_model }, "permission_denials": self.denied, "errors": errors,
        });
        if self.priced {
            line["total_cost_usd"] = json!(cost);
        }
        self.tell(line)
    }
}
