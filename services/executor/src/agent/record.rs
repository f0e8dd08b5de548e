//! The record of an agent's attempt: who worked, every use of a tool, the program's own sums beside ours, and its last words.

use hopyard_contract::Usage;
use hopyard_contract::calls::CallRecord;
use hopyard_contract::plan::AgentCli;
use hopyard_contract::usage::Tokens;
use serde::Serialize;

use super::event::AgentEnd;
use super::tally::Tally;
use crate::tool_use::ToolUse;

/// What is kept of an attempt for good, as a JSON file beside its log.
#[derive(Debug, Serialize)]
pub(super) struct Record<'a> {
    v: u32,
    /// Program.
    cli: AgentCli,
    /// Its version, by its own word.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    /// Model that it said it asks, else the one that its step named.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    /// Id by which the program resumes the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    /// How it said that it ended; absent when it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<&'a AgentEnd>,
    /// Its last words to its user.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a str>,
    /// What counts.
    usage: Usage,
    /// Which table of prices was used.
    prices: &'a str,
    /// Every call of a model, if a gateway saw them.
    #[serde(skip_serializing_if = "Option::is_none")]
    calls: Option<&'a [CallRecord]>,
    /// The program's own sums, whether or not they count.
    #[serde(skip_serializing_if = "Option::is_none")]
    told: Option<Told>,
    /// Every use of a tool, in the order of the calls.
    tools: &'a [ToolUse],
    /// Lines that no adapter understood; they are in the log as they came.
    unknown_lines: u64,
}

/// Sums that a program tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Told {
    /// Tokens of its whole session.
    pub(super) tokens: Tokens,
    /// Its own price in millionths of a dollar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cost_microusd: Option<u64>,
    /// Its own count of turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) turns: Option<u64>,
}

impl<'a> Record<'a> {
    pub(super) fn of(
        tally: &'a Tally,
        cli: AgentCli,
        asked: Option<&'a str>,
        usage: Usage,
        prices: &'a str,
        calls: Option<&'a [CallRecord]>,
    ) -> Self {
        Self {
            v: 1,
            cli,
            version: tally.version(),
            model: tally.model().or(asked),
            session: tally.session(),
            end: tally.ended(),
            answer: tally.answer(),
            usage,
            prices,
            calls,
            told: tally.told(),
            tools: tally.tools(),
            unknown_lines: tally.unknown_lines(),
        }
    }
}
