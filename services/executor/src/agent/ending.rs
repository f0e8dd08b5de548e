//! How an attempt of an agent ended: by its own word, by the limits of its models, and by what became of its process.

use std::path::Path;

use hopyard_contract::log::Stream;
use hopyard_contract::message::Outcome;
use hopyard_contract::status::FailureCode;

use super::event::AgentEnd;
use super::{Agent, DONE, adapter};
use crate::attempt::failed;
use crate::limit::Limit;
use crate::process::{ExitFacts, ExitKind, SPOOL_FILE, SpoolReader};

/// Longest last words of a program that are told as a reason, in characters.
const LAST_WORDS: usize = 600;

impl Agent {
    /// How the attempt ended, from the agent's own word and from what became of its process (`plain` by the rules of any
    /// step). A kill order, a lost lease and what the shim forbade count before the agent's word; everything else after it.
    pub(crate) fn outcome(&self, facts: &ExitFacts, plain: Outcome) -> Outcome {
        let ended = self.ended();
        let done = facts.reason.as_deref() == Some(DONE);
        // Whatever the program makes of the refusal: it could not go on.
        let ended = if self.stopped.is_cancelled() { Some(AgentEnd::Budget) } else { ended };
        let own_word_counts = match facts.kind {
            ExitKind::Exited | ExitKind::Signaled | ExitKind::Timeout | ExitKind::IdleTimeout => true,
            ExitKind::Killed => done,
            _ => false,
        };
        if let Some(limit) = self.limit().filter(|_| own_word_counts) {
            return limit.outcome();
        }
        match (facts.kind, ended) {
            (_, Some(end)) if own_word_counts => self.meant(end),
            (ExitKind::Exited, None) if facts.code == Some(0) && !adapter::tells_its_end(self.cli, &self.spec) => Outcome::Completed,
            (ExitKind::Exited | ExitKind::Signaled, None) => failed(FailureCode::AgentError, self.unfinished(facts)),
            (ExitKind::IdleTimeout | ExitKind::Timeout, None) => match plain {
                Outcome::Failed { code, message } => failed(code, format!("{message}; {}", self.said_last())),
                other => other,
            },
            _ => plain,
        }
    }

    /// The limit of its provider that it could not go on because of: as the gateway saw it, else as the program tells.
    pub(super) fn limit(&self) -> Option<Limit> {
        if self.replays {
            return None;
        }
        if let Some(metered) = &self.metered {
            return metered.stop().limit().cloned();
        }
        let heard = self.heard();
        match heard.tally.ended() {
            Some(AgentEnd::Failed(words)) => match heard.tally.limit() {
                Some(until) => Some(Limit::new(until, words.clone())),
                None => Limit::of_words(words),
            },
            _ => None,
        }
    }

    fn meant(&self, end: AgentEnd) -> Outcome {
        match end {
            AgentEnd::Completed => Outcome::Completed,
            AgentEnd::MaxTurns => {
                let most = self.spec.max_turns.as_deref().map(|turns| format!(" of {turns}")).unwrap_or_default();
                failed(FailureCode::MaxTurns, format!("the agent had used its turns{most} before it was done; its work is kept"))
            }
            AgentEnd::Budget => {
                failed(FailureCode::BudgetExceeded, "the agent stopped because its budget was spent; its work is kept".to_owned())
            }
            AgentEnd::Failed(words) => failed(FailureCode::AgentError, words),
        }
    }

    /// Why a program ended without having said that it is done, with its last words.
    fn unfinished(&self, facts: &ExitFacts) -> String {
        let how = match (facts.code, facts.signal_name()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => signal,
            (None, None) => "a signal".to_owned(),
        };
        let words = last_words(&self.dir).map(|words| format!("; its last words: {words}")).unwrap_or_default();
        format!("{} ended with {how} before it said that it is done; {}{words}", self.cli, self.said_last())
    }

    fn said_last(&self) -> String {
        match self.heard().last {
            Some((at, name)) => format!("the last that was heard of it was `{name}` at {}", hopyard_contract::time::format(at)),
            None => "nothing was heard of it".to_owned(),
        }
    }
}

/// The end of what a program wrote for people.
fn last_words(dir: &Path) -> Option<String> {
    let mut spool = SpoolReader::open(&dir.join(SPOOL_FILE)).ok()?;
    let mut kept = Vec::new();
    while let Ok(Some(piece)) = spool.next_piece() {
        if piece.stream == Stream::Stderr {
            kept.extend_from_slice(&piece.bytes);
            let over = kept.len().saturating_sub(LAST_WORDS * 4);
            kept.drain(..over);
        }
    }
    let text = String::from_utf8_lossy(&kept);
    let text = text.trim();
    let from = text.char_indices().rev().nth(LAST_WORDS - 1).map_or(0, |(at, _)| at);
    (!text.is_empty()).then(|| text[from..].to_owned())
}
