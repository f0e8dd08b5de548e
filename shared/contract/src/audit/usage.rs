//! One ledger: attempts add up to steps, steps to the run.

use super::{Check, Findings};
use crate::run::RunState;
use crate::usage::Usage;

pub(super) fn check(state: &RunState, found: &mut Findings) {
    let mut total = Usage::default();
    for step in &state.steps {
        let sum = state.attempts.iter().filter(|a| a.step == step.id).fold(Usage::default(), |sum, a| sum.plus(&a.usage));
        if step.usage != sum {
            found.step(Check::UsageAddsUp, &step.id, format!("the step says {}, its attempts {}", text(&step.usage), text(&sum)));
        }
        total = total.plus(&step.usage);
    }
    if state.run.usage != total {
        found.run(Check::UsageAddsUp, format!("the run says {}, its steps {}", text(&state.run.usage), text(&total)));
    }
}

/// Usage in one line.
pub(super) fn text(usage: &Usage) -> String {
    let cost = usage.cost_microusd.map_or_else(|| "unknown cost".to_owned(), |cost| format!("{cost} µ$"));
    let tokens = usage.tokens;
    format!(
        "{cost}, tokens {}/{}/{}/{}, {} turns, {} tool calls",
        tokens.input, tokens.output, tokens.cache_read, tokens.cache_write, usage.turns, usage.tool_calls
    )
}
