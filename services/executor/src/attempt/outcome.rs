//! What the facts of a process mean for its attempt.

use hopyard_contract::message::{Grant, Outcome};
use hopyard_contract::status::FailureCode;

use super::failed;
use crate::live::Attempt;
use crate::process::{ExitFacts, ExitKind};

/// By the rules of any step; what asks models may know better.
pub(super) fn outcome(facts: &ExitFacts, live: &Attempt, grant: &Grant) -> Outcome {
    let standing = live.standing();
    let standing = standing.borrow();
    if facts.out_of_memory {
        return failed(FailureCode::OutOfMemory, "the kernel ended a process of the step for lack of memory".to_owned());
    }
    match facts.kind {
        ExitKind::Exited if facts.code == Some(0) => Outcome::Completed,
        ExitKind::Exited => failed(FailureCode::ExitCode, format!("the command ended with exit code {}", facts.code.unwrap_or(-1))),
        ExitKind::Signaled => failed(
            FailureCode::ExitCode,
            format!("the command was ended by {}", facts.signal_name().unwrap_or_else(|| "a signal".to_owned())),
        ),
        ExitKind::Timeout => {
            failed(FailureCode::Timeout, format!("the step ran longer than its timeout of {} ms", grant.timeout_ms.unwrap_or_default()))
        }
        ExitKind::IdleTimeout => failed(
            FailureCode::IdleTimeout,
            format!("the step wrote nothing for longer than its idle timeout of {} ms", grant.idle_timeout_ms.unwrap_or_default()),
        ),
        ExitKind::TooManyProcesses => {
            failed(FailureCode::PolicyDenied, "the step had more processes than one may have (HOPYARD_STEP_PROCESSES)".to_owned())
        }
        ExitKind::Killed if standing.kill.is_some() => Outcome::Killed,
        ExitKind::Killed | ExitKind::LeaseLost | ExitKind::Abandoned => Outcome::HandedBack,
        ExitKind::SpawnFailed => {
            failed(FailureCode::SetupError, facts.error.clone().unwrap_or_else(|| "the command could not be started".to_owned()))
        }
        ExitKind::ShimLost => {
            failed(FailureCode::EngineError, facts.error.clone().unwrap_or_else(|| "the supervisor of the step went away".to_owned()))
        }
    }
}
