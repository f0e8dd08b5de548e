//! Whether a call may be made: only while the attempt has not used up what it may spend.

use std::time::Duration;

use chrono::Utc;
use hopyard_contract::usage::Tokens;

use super::Session;

/// Time between two questions for more, while others hold what is left of the budget.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Waits until a call may be made.
///
/// # Errors
/// In words, why none will be.
pub(super) async fn allowed(session: &Session, model: &str) -> Result<(), String> {
    let mut allowance = session.live.allowance();
    let mut standing = session.live.standing();
    if allowance.borrow().is_some() && session.prices.cost(model, Tokens::default(), Utc::now()).is_none() {
        return Err(format!("the run has a budget, and the model `{model}` has no price, so that nobody could keep to it"));
    }
    loop {
        let spent = session.ledger.usage().cost_microusd;
        match *allowance.borrow_and_update() {
            None => return Ok(()),
            Some(allowed) if spent.is_some_and(|spent| spent < allowed.microusd) => return Ok(()),
            Some(allowed) if allowed.spent => return Err("the budget of the run is spent".to_owned()),
            Some(_) if spent.is_none() => return Err("a model without a price was used, and the run has a budget".to_owned()),
            Some(_) => {}
        }
        session.live.renew_now();
        tokio::select! {
            changed = allowance.changed() => if changed.is_err() { return Err("the step is over".to_owned()) },
            _ = standing.wait_for(|now| now.kill.is_some() || now.stale || now.hand_back) => return Err("the step is over".to_owned()),
        }
        // The answer may be that others hold what is left.
        let more = allowance.borrow().is_some_and(|allowed| !allowed.spent && spent.is_some_and(|spent| spent >= allowed.microusd));
        if more {
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}
