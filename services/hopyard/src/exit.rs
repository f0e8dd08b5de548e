//! Exit codes of the client commands, and the one mapping of failures to them.

use std::process::ExitCode;

use hopyard_contract::Problem;
use hopyard_contract::status::RunStatus;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked; a run that was waited for completed.
    Done,
    /// The run failed, or the command did.
    Failed,
    /// The command line or the request is not valid.
    Usage,
    /// The run was killed.
    Killed,
    /// The time for waiting is over; the run goes on.
    TimedOut,
    /// The server cannot be reached, or cannot take the request now.
    Unreachable,
    /// Interrupted; the run goes on.
    Interrupted,
    /// As the script of the fake agent says.
    Scripted(u8),
}

impl Exit {
    /// The number that scripts see.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Killed => 3,
            Self::TimedOut => 4,
            Self::Unreachable => 5,
            Self::Interrupted => 130,
            Self::Scripted(code) => code,
        }
    }

    /// The exit of a command that waited until the run ended with this status.
    pub const fn of_status(status: RunStatus) -> Self {
        match status {
            RunStatus::Completed => Self::Done,
            RunStatus::Failed => Self::Failed,
            RunStatus::Killed => Self::Killed,
            // Not at its end: whoever waited gave up.
            RunStatus::Pending | RunStatus::Running | RunStatus::Paused => Self::TimedOut,
        }
    }

    /// The exit of a command that failed.
    pub fn of_error(error: &anyhow::Error) -> Self {
        error.downcast_ref::<Failure>().map_or(Self::Failed, Failure::exit)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a client command failed, where that decides its exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line is not valid.
    #[error("{0}")]
    Usage(String),
    /// No answer.
    #[error("the server at {url} cannot be reached: {reason}")]
    Unreachable {
        /// Address of the API.
        url: String,
        /// What the connection said.
        reason: String,
    },
    /// The server refused.
    #[error("{}", problem_text(.0))]
    Refused(Box<Problem>),
    /// Interrupted by the user.
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    /// A command line that is not valid.
    pub fn usage(text: impl Into<String>) -> anyhow::Error {
        Self::Usage(text.into()).into()
    }

    /// The exit code's meaning.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Interrupted => Exit::Interrupted,
            Self::Refused(problem) => match problem.status {
                429 | 500.. => Exit::Unreachable,
                // Asked for too early or too late: the request itself is fine.
                409 => Exit::Failed,
                _ => Exit::Usage,
            },
        }
    }
}

/// The problem's sentence, and below it everything that is wrong.
fn problem_text(problem: &Problem) -> String {
    let mut text = format!("{} ({})", problem.detail, problem.code);
    if problem.errors.len() == 1 && problem.errors[0].file.is_none() && problem.errors[0].detail == problem.detail {
        if let Some(pointer) = problem.pointer.as_deref().filter(|pointer| !pointer.is_empty()) {
            text = format!("{pointer}: {text}");
        }
        return text;
    }
    for error in &problem.errors {
        text.push_str(&format!("\n  {error}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use hopyard_contract::FieldError;

    use super::*;

    #[test]
    fn every_ending_has_its_code() {
        let of_status = |status| Exit::of_status(status).code();
        let codes: Vec<_> = RunStatus::ALL.iter().map(|status| (status.as_str(), of_status(*status))).collect();
        assert_eq!(codes, [("pending", 4), ("running", 4), ("paused", 4), ("completed", 0), ("failed", 1), ("killed", 3)]);

        let refused = |status| Exit::of_error(&Failure::Refused(Box::new(Problem::new(status, "x", "y"))).into()).code();
        assert_eq!([400, 404, 409, 422, 429, 500, 503].map(refused), [2, 2, 1, 2, 5, 5, 5]);
        assert_eq!(Exit::of_error(&Failure::usage("no")).code(), 2);
        assert_eq!(Exit::of_error(&Failure::Interrupted.into()).code(), 130);
        assert_eq!(Exit::of_error(&anyhow::anyhow!("else")).code(), 1);
        let lost = Failure::Unreachable { url: "http://x".into(), reason: "refused".into() };
        // Context that is added on the way up must not hide the code.
        assert_eq!(Exit::of_error(&anyhow::Error::from(lost).context("cannot list runs")).code(), 5);
    }

    #[test]
    fn a_refusal_names_every_error() {
        let one = Problem::of_errors(vec![FieldError::new("required", "/inputs/message", "is missing")]);
        assert_eq!(Failure::Refused(Box::new(one)).to_string(), "/inputs/message: is missing (required)");
        let two = Problem::of_errors(vec![FieldError::new("a", "/x", "first"), FieldError::new("b", "/y", "second")]);
        assert_eq!(Failure::Refused(Box::new(two)).to_string(), "first (a)\n  /x: first (a)\n  /y: second (b)");
    }
}
