//! Whether a call may be made: only while the attempt has not used up what it may spend.

use std::time::Duration;

use chrono::Utc;
use hopyard_contract::usage::Tokens;

use super::Session;
use crate::limit::Limit;

/// Time between two questions for more, while others hold what is left of the budget.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Why no call will be made.
pub(super) enum Empty {
    /// The run, or its budget, allows none; in words.
    Own(String),
    /// A budget that it shares allows none today.
    Shared(Limit),
}

/// Waits until a call may be made.
///
/// # Errors
/// Why none will be.
pub(super) async fn allowed(session: &Session, model: &str) -> Result<(), Empty> {
    let own = |words: &str| Err(Empty::Own(words.to_owned()));
    let mut allowance = session.live.allowance();
    let mut standing = session.live.standing();
    if allowance.borrow().is_some() && session.prices.cost(model, Tokens::default(), Utc::now()).is_none() {
        return own(&format!("the run has a budget, and the model `{model}` has no price, so that nobody could keep to it"));
    }
    loop {
        let spent = session.ledger.usage().cost_microusd;
        match *allowance.borrow_and_update() {
            None => return Ok(()),
            Some(allowed) if spent.is_some_and(|spent| spent < allowed.microusd) => return Ok(()),
            Some(allowed) if allowed.spent => {
                return match allowed.shared {
                    Some(shared) => Err(Empty::Shared(Limit::of_budget(shared))),
                    None => own("the budget of the run is spent"),
                };
            }
            Some(_) if spent.is_none() => return own("a model without a price was used, and the run has a budget"),
            Some(_) => {}
        }
        session.live.renew_now();
        tokio::select! {
            changed = allowance.changed() => if changed.is_err() { return own("the step is over") },
            _ = standing.wait_for(|now| now.kill.is_some() || now.stale || now.hand_back) => return own("the step is over"),
        }
        // The answer may be that others hold what is left.
        let more = allowance.borrow().is_some_and(|allowed| !allowed.spent && spent.is_some_and(|spent| spent >= allowed.microusd));
        if more {
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}
