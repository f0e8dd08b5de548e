//! What an agent's words add up to: turns, tool calls, tokens and its own price, and how it ended.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use hopyard_contract::Usage;
use hopyard_contract::usage::Tokens;
use serde_json::Value;

use super::event::{AgentEnd, AgentEvent};
use super::record::Told;
use crate::prices::Prices;
use crate::tool_use::ToolUse;

/// Sums over the events of one attempt; the same event twice changes nothing.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// What the conversation had used before, where the program tells the sums of all of it.
    before: Tokens,
    turns: BTreeSet<String>,
    /// Replies that came without an id.
    nameless: u64,
    used: BTreeMap<String, Reply>,
    totals: Option<Told>,
    /// Model that the agent said it asks.
    model: Option<String>,
    version: Option<String>,
    unknown: u64,
    tools: Vec<ToolUse>,
    session: Option<String>,
    /// The account's window of usage is used up, until this moment if that was told.
    limit: Option<Option<DateTime<Utc>>>,
    ended: Option<(AgentEnd, Option<String>)>,
    last_words: Option<String>,
}

/// What one reply of a model used.
#[derive(Debug, Default)]
struct Reply {
    tokens: Tokens,
    cost_microusd: Option<u64>,
    model: Option<String>,
}

impl Tally {
    /// The conversation had used this much before, which is a part of the sums that the program will tell.
    pub(super) fn begin_after(&mut self, before: Tokens) {
        self.before = before;
    }

    /// Takes an event in, heard at this time.
    pub(super) fn note(&mut self, event: &AgentEvent, at: DateTime<Utc>) {
        match event {
            AgentEvent::Ready { session, model, version, .. } => {
                self.version = version.clone().or(self.version.take());
                self.session = session.clone().or(self.session.take());
                self.model = model.clone().or(self.model.take());
            }
            // Helpers' replies are counted with the tokens, not as turns of the agent.
            AgentEvent::Turn { parent: Some(_), .. } => {}
            AgentEvent::Turn { id: Some(id), parent: None } => {
                self.turns.insert(id.clone());
            }
            AgentEvent::Turn { id: None, parent: None } => self.nameless += 1,
            AgentEvent::Text { text, parent: None } => self.last_words = Some(text.clone()),
            AgentEvent::ToolCall { id, name, input, parent } => self.call(id, name, input, parent.clone(), at),
            AgentEvent::ToolResult { id, failed, output } => self.result(id, *failed, output, at),
            AgentEvent::Denied { name, id } => self.deny(name, id.as_deref()),
            AgentEvent::Used { id, tokens, cost_microusd, model } => {
                let id = id.clone().unwrap_or_else(|| format!("#{}", self.used.len()));
                let reply = self.used.entry(id).or_default();
                reply.tokens = most(reply.tokens, *tokens);
                reply.cost_microusd = reply.cost_microusd.max(*cost_microusd);
                reply.model = model.clone().or(reply.model.take());
            }
            AgentEvent::Totals { tokens, cost_microusd, turns } => {
                self.totals = Some(Told { tokens: *tokens, cost_microusd: *cost_microusd, turns: *turns });
            }
            // The first end counts: what comes later changes nothing.
            AgentEvent::Ended { end, text } => {
                if self.ended.is_none() {
                    self.ended = Some((end.clone(), text.clone()));
                }
            }
            AgentEvent::Limited { until } => self.limit = Some(*until),
            AgentEvent::Unknown { .. } => self.unknown += 1,
            AgentEvent::Text { .. } | AgentEvent::ProviderRetry { .. } | AgentEvent::Notice { .. } => {}
        }
    }

    /// Until when the account's window of usage is used up, if it is.
    pub(super) fn limit(&self) -> Option<Option<DateTime<Utc>>> {
        self.limit
    }

    fn call(&mut self, id: &str, name: &str, input: &Value, parent: Option<String>, at: DateTime<Utc>) {
        if self.tools.iter().all(|tool| tool.id != id) {
            self.tools.push(ToolUse { parent, ..ToolUse::called(id, name, input, at) });
        }
    }

    fn result(&mut self, id: &str, failed: bool, output: &str, at: DateTime<Utc>) {
        if let Some(tool) = self.tools.iter_mut().find(|tool| tool.id == id && tool.ended_at.is_none()) {
            tool.end(failed, output, at);
        }
    }

    fn deny(&mut self, name: &str, id: Option<&str>) {
        let named = self.tools.iter_mut().find(|tool| id.map_or(tool.name == name && !tool.denied, |id| tool.id == id));
        if let Some(tool) = named {
            tool.denied = true;
        }
    }

    /// What was used so far, by the program's own words: its sums if it has told them, else those of its replies.
    ///
    /// What it tells no price of is priced by the table, at the prices of this time, for the model of the reply or, if none
    /// is named, for the one that was asked for.
    pub(super) fn usage(&self, prices: &Prices, asked: Option<&str>, at: DateTime<Utc>) -> Usage {
        let model = asked.or(self.model.as_deref());
        let price = |tokens: Tokens, model: Option<&str>| prices.cost(model?, tokens, at);
        let (tokens, cost_microusd) = match self.totals {
            Some(told) => {
                let tokens = less(told.tokens, self.before);
                (tokens, told.cost_microusd.or_else(|| price(tokens, model)))
            }
            None => self.used.values().fold((Tokens::default(), Some(0u64)), |(sum, cost), reply| {
                let own = reply.cost_microusd.or_else(|| price(reply.tokens, reply.model.as_deref().or(model)));
                (plus(sum, reply.tokens), cost.zip(own).map(|(a, b)| a.saturating_add(b)))
            }),
        };
        // Without any tokens there is nothing to pay.
        let cost_microusd = if tokens == Tokens::default() { cost_microusd.or(Some(0)) } else { cost_microusd };
        Usage { cost_microusd, tokens, turns: self.turns.len() as u64 + self.nameless, tool_calls: self.tools.len() as u64 }
    }

    /// Id of the session.
    pub(super) fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// How it ended, as it said itself.
    pub(super) fn ended(&self) -> Option<&AgentEnd> {
        self.ended.as_ref().map(|(end, _)| end)
    }

    /// Its last words to its user.
    pub(super) fn answer(&self) -> Option<&str> {
        self.ended.as_ref().and_then(|(_, text)| text.as_deref()).or(self.last_words.as_deref())
    }

    /// Version of the program.
    pub(super) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Model that it said it asks.
    pub(super) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The program's own sums.
    pub(super) fn told(&self) -> Option<Told> {
        self.totals
    }

    /// The same of this attempt alone.
    pub(super) fn told_of_this_attempt(&self) -> Option<Told> {
        self.totals.map(|told| Told { tokens: less(told.tokens, self.before), ..told })
    }

    /// Lines that no adapter understood.
    pub(super) fn unknown_lines(&self) -> u64 {
        self.unknown
    }

    /// Every use of a tool, in the order of the calls.
    pub(super) fn tools(&self) -> &[ToolUse] {
        &self.tools
    }
}

fn each(a: Tokens, b: Tokens, f: impl Fn(u64, u64) -> u64) -> Tokens {
    Tokens {
        input: f(a.input, b.input),
        output: f(a.output, b.output),
        cache_read: f(a.cache_read, b.cache_read),
        cache_write: f(a.cache_write, b.cache_write),
    }
}

fn plus(a: Tokens, b: Tokens) -> Tokens {
    each(a, b, u64::saturating_add)
}

fn less(a: Tokens, b: Tokens) -> Tokens {
    each(a, b, u64::saturating_sub)
}

fn most(a: Tokens, b: Tokens) -> Tokens {
    each(a, b, u64::max)
}
