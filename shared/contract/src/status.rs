//! Every status and every coded reason, once: the store's CHECKs, the schemas and all surfaces are compared with these.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Declares an enum whose variants have one written form, readable from text and listed in `ALL`.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum $name { $($(#[$vmeta])* #[serde(rename = $text)] $variant,)+ }

        impl $name {
            /// All of them, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The written form.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(self.as_str()) }
        }

        impl std::str::FromStr for $name {
            type Err = UnknownWord;
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text { $($text => Ok(Self::$variant),)+ _ => Err(UnknownWord { kind: stringify!($name), word: text.to_owned() }) }
            }
        }
    };
}

pub(crate) use words;

/// A text that is no value of the vocabulary it was read for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is no {kind}")]
pub struct UnknownWord {
    /// The vocabulary.
    pub kind: &'static str,
    /// The text.
    pub word: String,
}

words! {
    /// Status of a run.
    RunStatus {
        /// Accepted; no step is at work and none is paused.
        Pending = "pending",
        /// At least one step is running.
        Running = "running",
        /// Waits for a person, a reset or a budget.
        Paused = "paused",
        /// Ended well.
        Completed = "completed",
        /// Ended badly; see the failure code.
        Failed = "failed",
        /// Ended because someone cancelled it, or a policy did.
        Killed = "killed",
    }
}

impl RunStatus {
    /// Whether the run has ended; a final status never changes.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Running | Self::Paused => false,
            Self::Completed | Self::Failed | Self::Killed => true,
        }
    }

    /// Reads a filter value; the usual words of other systems are aliases here and nowhere else.
    pub fn from_filter(text: &str) -> Option<Self> {
        match text {
            "queued" | "waiting" => Some(Self::Pending),
            "in_progress" | "active" => Some(Self::Running),
            "success" | "succeeded" => Some(Self::Completed),
            "error" => Some(Self::Failed),
            "cancelled" | "canceled" => Some(Self::Killed),
            word => word.parse().ok(),
        }
    }
}

words! {
    /// Status of a step.
    StepStatus {
        /// Not at work; see the pending reason.
        Pending = "pending",
        /// An executor reported a process (or call) for it.
        Running = "running",
        /// Waits for a person, a reset or a budget.
        Paused = "paused",
        /// Ended well.
        Completed = "completed",
        /// Ended badly.
        Failed = "failed",
        /// Ended by a cancel.
        Killed = "killed",
        /// Never ran, because its condition did not hold.
        Skipped = "skipped",
    }
}

impl StepStatus {
    /// Whether the step has ended.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Running | Self::Paused => false,
            Self::Completed | Self::Failed | Self::Killed | Self::Skipped => true,
        }
    }
}

words! {
    /// Status of an attempt.
    AttemptStatus {
        /// Granted to an executor, which has not reported a process yet.
        Leased = "leased",
        /// Its process is at work.
        Running = "running",
        /// Ended well.
        Completed = "completed",
        /// Ended badly.
        Failed = "failed",
        /// Ended by a cancel.
        Killed = "killed",
        /// The lease ran out, or the executor gave it back.
        Lost = "lost",
    }
}

impl AttemptStatus {
    /// Whether the attempt has ended.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Leased | Self::Running => false,
            Self::Completed | Self::Failed | Self::Killed | Self::Lost => true,
        }
    }
}

words! {
    /// Why a run or step is pending.
    PendingReason {
        /// Steps, or runs named in `after`, have not ended yet.
        AwaitingDependencies = "awaiting_dependencies",
        /// `start_at` is in the future.
        AwaitingSchedule = "awaiting_schedule",
        /// A concurrency key or a session is taken.
        AwaitingSlot = "awaiting_slot",
        /// Claimable; no executor has claimed it yet.
        AwaitingExecutor = "awaiting_executor",
        /// Leased; the process has not been reported yet.
        Starting = "starting",
        /// Its workspace is being made or its executor is being replaced.
        AwaitingWorkspace = "awaiting_workspace",
        /// Waits for the next try.
        RetryBackoff = "retry_backoff",
        /// The budget of its scope is spent.
        AwaitingBudget = "awaiting_budget",
    }
}

words! {
    /// Why a run or step is paused.
    PausedReason {
        /// An approval step waits for an answer.
        Approval = "approval",
        /// An agent asked a question.
        Question = "question",
        /// A provider's usage limit; resumes by itself.
        UsageLimit = "usage_limit",
        /// A budget is spent.
        Budget = "budget",
        /// Someone paused it.
        Operator = "operator",
    }
}

words! {
    /// Why a run, step or attempt failed.
    FailureCode {
        /// The command ended with another code than 0, or by a signal.
        ExitCode = "exit_code",
        /// A step or run time limit passed.
        Timeout = "timeout",
        /// No output for longer than allowed.
        IdleTimeout = "idle_timeout",
        /// The executor or its host went away too often.
        LostExecutor = "lost_executor",
        /// The agent reported an error.
        AgentError = "agent_error",
        /// The agent used up its turns.
        MaxTurns = "max_turns",
        /// A budget was spent.
        BudgetExceeded = "budget_exceeded",
        /// A provider's limit outlasted the allowed waits.
        UsageLimitExhausted = "usage_limit_exhausted",
        /// Outputs that break their rules.
        InvalidOutput = "invalid_output",
        /// Git, or the workspace's directory; with git's own words.
        WorkspaceError = "workspace_error",
        /// The process could not be started.
        SetupError = "setup_error",
        /// A run or step it depends on did not end well.
        DependencyFailed = "dependency_failed",
        /// Killed for lack of memory.
        OutOfMemory = "out_of_memory",
        /// No space left on a volume.
        DiskFull = "disk_full",
        /// Refused by a policy.
        PolicyDenied = "policy_denied",
        /// The stored plan cannot be carried out.
        PlanError = "plan_error",
        /// A fault of Hopyard itself; the work is kept.
        EngineError = "engine_error",
    }
}

words! {
    /// What a step does.
    StepKind {
        /// Runs a shell script.
        Shell = "shell",
        /// One model call.
        Llm = "llm",
        /// A coding agent.
        Agent = "agent",
        /// Waits for a person.
        Approval = "approval",
        /// Several agents at once, of which the best wins.
        BestOf = "best_of",
        /// Runs another workflow.
        Workflow = "workflow",
        /// Pushes or merges the run's work; follows from a definition's `result`.
        Deliver = "deliver",
    }
}
