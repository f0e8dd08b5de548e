//! Events: immutable facts about a run, numbered 1..n without gaps.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{Name, RunId};

/// One fact about a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Version of this shape: 1.
    pub v: u32,
    /// `<run>:<seq>`.
    pub id: String,
    /// The run.
    pub run_id: RunId,
    /// The tenant.
    pub namespace: Name,
    /// Number of the event within the run, from 1.
    pub seq: u64,
    /// Type, such as `run.completed`.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// When it was committed.
    #[serde(with = "crate::time::instant")]
    #[schemars(with = "DateTime<Utc>")]
    pub at: DateTime<Utc>,
    /// The step it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Name>,
    /// The attempt it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Facts by type: status, code, durations, usage.
    #[serde(default)]
    pub data: serde_json::Map<String, serde_json::Value>,
}

/// The events of one run that one transaction made: one message on the bus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventPage {
    /// Version of this shape: 1.
    pub v: u32,
    /// The run.
    pub run_id: RunId,
    /// Consecutive events.
    pub events: Vec<Event>,
}

macro_rules! event_types {
    ($($variant:ident = $text:literal),+ $(,)?) => {
        /// Types of events.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        #[allow(missing_docs, reason = "the written form says what each is")]
        pub enum EventType { $(#[serde(rename = $text)] $variant,)+ }
        impl EventType {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// The written form.
            pub const fn as_str(self) -> &'static str { match self { $(Self::$variant => $text,)+ } }
        }
    };
}

event_types! {
    RunAccepted = "run.accepted", RunRunning = "run.running", RunPaused = "run.paused", RunResumed = "run.resumed",
    RunKillRequested = "run.kill_requested", RunCompleted = "run.completed", RunFailed = "run.failed", RunKilled = "run.killed",
    RunBudgetWarned = "run.budget_warned",
    StepClaimable = "step.claimable", StepRetrying = "step.retrying", StepSkipped = "step.skipped", StepCompleted = "step.completed",
    StepFailed = "step.failed", StepKilled = "step.killed", StepPaused = "step.paused",
    AttemptLeased = "attempt.leased", AttemptRunning = "attempt.running", AttemptCompleted = "attempt.completed",
    AttemptFailed = "attempt.failed", AttemptKilled = "attempt.killed", AttemptLost = "attempt.lost",
    WorkspaceCreated = "workspace.created", WorkspaceSuperseded = "workspace.superseded", WorkspaceSaved = "workspace.saved", WorkspaceRemoved = "workspace.removed",
}

impl EventType {
    /// Whether it is the last event of a run's work (only workspace events may follow).
    pub const fn is_final(self) -> bool {
        matches!(self, Self::RunCompleted | Self::RunFailed | Self::RunKilled)
    }
}
