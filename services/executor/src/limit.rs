//! A provider's limit that lasts longer than a step waits for it: its step is paused, and goes on when it is over.

use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::message::{Outcome, SharedBudget};
use hopyard_contract::status::PausedReason;

/// How long a limit lasts whose end nobody told.
const UNTOLD: TimeDelta = TimeDelta::minutes(15);

/// Calls of models that are not taken before a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// When they are taken again.
    pub(crate) until: DateTime<Utc>,
    /// In the provider's words.
    pub(crate) words: String,
    /// Whose limit it is: the provider's, or that of a budget of the day.
    pub(crate) reason: PausedReason,
}

impl Limit {
    /// A limit that ends at a moment, if its end was told.
    pub(crate) fn new(until: Option<DateTime<Utc>>, words: String) -> Self {
        Self { until: until.unwrap_or_else(|| Utc::now() + UNTOLD), words, reason: PausedReason::UsageLimit }
    }

    /// A budget of the day that runs share, and of which nothing is left.
    pub(crate) fn of_budget(shared: SharedBudget) -> Self {
        let words = format!("the budget of this day of the {} is spent", shared.scope);
        Self { until: shared.until, words, reason: PausedReason::Budget }
    }

    /// In one sentence.
    pub(crate) fn sentence(&self) -> String {
        let until = hopyard_contract::time::format(self.until);
        match self.reason {
            PausedReason::Budget => format!("{}; there is more at {until}", self.words),
            _ => format!("the provider takes no calls until {until}: {}", self.words),
        }
    }

    /// The limit that a program tells of in words for people; programs without a gateway have no others.
    ///
    /// Claude Code writes `Claude AI usage limit reached|1760000000` or `You've hit your limit`, Codex `You've hit your usage
    /// limit`.
    pub(crate) fn of_words(words: &str) -> Option<Self> {
        let small = words.to_ascii_lowercase();
        if !["usage limit reached", "hit your usage limit", "hit your limit"].iter().any(|mark| small.contains(mark)) {
            return None;
        }
        let told = words.rsplit_once('|').and_then(|(_, end)| end.trim().parse().ok());
        Some(Self::new(told.and_then(|seconds| DateTime::from_timestamp(seconds, 0)), words.to_owned()))
    }

    /// How an attempt ends because of it.
    pub(crate) fn outcome(self) -> Outcome {
        Outcome::Limited { message: self.sentence(), until: self.until, reason: self.reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_limit_are_known_and_its_end_is_read_where_it_is_told() {
        let told = Limit::of_words("Claude AI usage limit reached|1760000000").unwrap();
        assert_eq!(told.until.timestamp(), 1_760_000_000);
        let untold = Limit::of_words("You've hit your usage limit. Try again later.").unwrap();
        assert!(untold.until > Utc::now() + TimeDelta::minutes(14));
        for other in ["the tests do not pass", "the memory usage limit of the test was passed"] {
            assert_eq!(Limit::of_words(other), None);
        }
    }
}
