//! Usage: tokens, money, turns and tool calls, as they travel unchanged from an executor to every surface.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Tokens by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tokens {
    /// Sent to models, without what came from or went to a cache.
    #[serde(default)]
    pub input: u64,
    /// Received from models.
    #[serde(default)]
    pub output: u64,
    /// Read from a provider's cache.
    #[serde(default)]
    pub cache_read: u64,
    /// Written to a provider's cache.
    #[serde(default)]
    pub cache_write: u64,
}

impl Tokens {
    /// Each kind by the word that metrics have for it.
    pub fn by_kind(&self) -> [(&'static str, u64); 4] {
        [("input", self.input), ("output", self.output), ("cache_read", self.cache_read), ("cache_write", self.cache_write)]
    }
}

/// Usage of an attempt, a step or a run; sums are plain additions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Money in millionths of a US dollar; null when a price is unknown, 0 only when nothing was spent.
    pub cost_microusd: Option<u64>,
    /// Tokens by kind.
    pub tokens: Tokens,
    /// Turns of agents.
    pub turns: u64,
    /// Tool calls of agents.
    pub tool_calls: u64,
}

impl Default for Usage {
    /// Nothing used: cost 0, not unknown.
    fn default() -> Self {
        Self { cost_microusd: Some(0), tokens: Tokens::default(), turns: 0, tool_calls: 0 }
    }
}

impl Usage {
    /// The sum of both; an unknown cost makes the sum's cost unknown.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            cost_microusd: self.cost_microusd.zip(other.cost_microusd).map(|(a, b)| a.saturating_add(b)),
            tokens: Tokens {
                input: self.tokens.input.saturating_add(other.tokens.input),
                output: self.tokens.output.saturating_add(other.tokens.output),
                cache_read: self.tokens.cache_read.saturating_add(other.tokens.cache_read),
                cache_write: self.tokens.cache_write.saturating_add(other.tokens.cache_write),
            },
            turns: self.turns.saturating_add(other.turns),
            tool_calls: self.tool_calls.saturating_add(other.tool_calls),
        }
    }

    /// The larger of both, field by field: cumulative reports that arrive late or twice change nothing.
    #[must_use]
    pub fn max(&self, other: &Self) -> Self {
        Self {
            cost_microusd: self.cost_microusd.zip(other.cost_microusd).map(|(a, b)| a.max(b)),
            tokens: Tokens {
                input: self.tokens.input.max(other.tokens.input),
                output: self.tokens.output.max(other.tokens.output),
                cache_read: self.tokens.cache_read.max(other.tokens.cache_read),
                cache_write: self.tokens.cache_write.max(other.tokens.cache_write),
            },
            turns: self.turns.max(other.turns),
            tool_calls: self.tool_calls.max(other.tool_calls),
        }
    }

    /// What an attempt used, once it is over: the larger counts, and the cost of the last report, which is the exact one,
    /// unless that report knows of less than was used.
    #[must_use]
    pub fn settled_by(&self, last: &Self) -> Self {
        let settled = self.max(last);
        let as_much = Self { cost_microusd: last.cost_microusd, ..settled } == *last;
        // A report of nothing, such as that of an attempt whose words were lost, says nothing about what was spent before.
        let knows_all = as_much && *last != Self::default();
        Self { cost_microusd: if knows_all { last.cost_microusd } else { settled.cost_microusd }, ..settled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(cost_microusd: Option<u64>, input: u64) -> Usage {
        Usage { cost_microusd, tokens: Tokens { input, ..Tokens::default() }, ..Usage::default() }
    }

    #[test]
    fn the_last_report_settles_the_cost_unless_it_knows_of_less() {
        let running = usage(Some(90), 10);
        assert_eq!(running.settled_by(&usage(Some(80), 10)), usage(Some(80), 10), "an estimate gives way");
        assert_eq!(running.settled_by(&usage(None, 12)), usage(None, 12), "an unknown price stays unknown");
        assert_eq!(usage(None, 10).settled_by(&usage(Some(80), 10)), usage(Some(80), 10), "the program told it at its end");
        assert_eq!(running.settled_by(&Usage::default()), running, "a report of nothing takes nothing away");
        let without_tokens = Usage { tokens: Tokens::default(), ..running };
        assert_eq!(without_tokens.settled_by(&Usage::default()), without_tokens, "also where only money was told");
    }
}
