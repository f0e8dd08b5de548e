//! Plans: the step graph a definition evaluates to, as data that is pinned to a run by its hash.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Span;
use crate::id::Name;
use crate::message::Recording;
use crate::status::{FailureCode, StepKind};

mod agent;
mod approval;
mod best_of;
pub mod check;
mod llm;
mod llm_tool;
mod prompt_file;
mod role;

pub use agent::{AGENT_MAP, AgentCli, AgentSpec, GatewayUse, Permissions, agent_cli, agent_turns};
pub use approval::ApprovalSpec;
pub use best_of::{BestOfSpec, Chosen, Standing, VARIANTS, VariantSpec};
pub use llm::{LlmSpec, MAX_ANSWER_TOKENS, MAX_LLM_TURNS};
pub use llm_tool::LlmTool;
pub use prompt_file::PromptFile;
pub use role::Roles;

/// Version of the plan's shape that this build writes; older ones are upcast when they are read.
pub const PLAN_VERSION: u32 = 1;

/// Most steps of a plan.
pub const MAX_STEPS: usize = 200;

/// The step graph of a workflow with everything needed to carry it out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// Version of this shape.
    pub v: u32,
    /// Name of the workflow.
    pub name: Name,
    /// JSON Schema of each input; one without a default is required.
    #[serde(default)]
    pub inputs: serde_json::Map<String, serde_json::Value>,
    /// The directory the steps work in.
    #[serde(default)]
    pub workspace: WorkspaceSpec,
    /// Limits of money, turns and time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// Bound on runs at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// Longest time from the first start to the end of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Environment of every step; values are templates.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Agents that steps take by name.
    #[serde(default, skip_serializing_if = "Roles::is_empty")]
    pub roles: Roles,
    /// Steps, in the order of the definition.
    pub steps: Vec<Step>,
    /// How the work is handed back.
    #[serde(default)]
    pub result: ResultSpec,
}

/// One node of the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// Id within the plan.
    pub id: Name,
    /// Steps that have to end first.
    #[serde(default)]
    pub needs: Vec<Name>,
    /// Condition; `completed()` if absent.
    #[serde(rename = "if", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Pool of executors; the run's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Name>,
    /// Environment; values are templates.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Longest time of one attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Longest time without output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Span>,
    /// Time between TERM and KILL; the executor's setting if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Span>,
    /// When and how often to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// The variant that it belongs to, by the step of that variant's agent: it works in a workspace of that one's own, and how it
    /// ends decides nothing but who wins. It is not written in definitions: it follows from their `best_of` steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<Name>,
    /// What the step does.
    #[serde(flatten)]
    pub work: Work,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// A script for `sh -e`, or for the interpreter its first line names by `#!`.
    Shell(String),
    /// A coding agent that works in the run's workspace.
    Agent(AgentSpec),
    /// One question to a model.
    Llm(LlmSpec),
    /// A question to a person; it has no process.
    Approval(ApprovalSpec),
    /// Chooses among variants that were tried at once, and goes on with the work of the best.
    BestOf(BestOfSpec),
    /// Hands the run's work over to its repository. It is not written in definitions: it follows from their `result`.
    Deliver(Deliver),
    /// Plays what was recorded of a step that asks models. It is in grants alone.
    Replay(Box<Replay>),
}

/// A step of a run that plays what was recorded of another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Replay {
    /// What the step would do.
    pub work: Work,
    /// What it does instead.
    pub recording: Recording,
}

impl Work {
    /// Whether models are asked: its attempts have usage, and a budget bounds them.
    pub fn asks_models(&self) -> bool {
        matches!(self, Self::Agent(_) | Self::Llm(_))
    }

    /// The kind of the step.
    pub fn kind(&self) -> StepKind {
        match self {
            Self::Shell(_) => StepKind::Shell,
            Self::Agent(_) => StepKind::Agent,
            Self::Llm(_) => StepKind::Llm,
            Self::Approval(_) => StepKind::Approval,
            Self::BestOf(_) => StepKind::BestOf,
            Self::Deliver(_) => StepKind::Deliver,
            Self::Replay(replay) => replay.work.kind(),
        }
    }
}

/// How the last step of a run hands its work over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deliver {
    /// Whether the run's branch is pushed.
    #[serde(default)]
    pub push: bool,
    /// Branch that receives the work, or `base` for the branch the run started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<String>,
}

/// Which directory a run works in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceSpec {
    /// Its kind.
    #[serde(default)]
    pub mode: WorkspaceMode,
}

/// Kinds of workspaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceMode {
    /// A git worktree that goes away after the run; a scratch directory when the run names no repository.
    #[default]
    Temporary,
    /// The worktree of a named session, kept between runs.
    Persistent,
    /// A scratch directory without git.
    None,
}

/// Limits of a run; each is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Budget {
    /// Money in millionths of a US dollar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_microusd: Option<u64>,
    /// Turns of agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<u64>,
    /// Time from the first start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Span>,
}

/// Bound on runs that share a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Concurrency {
    /// Template of the key.
    pub key: String,
    /// Most runs at once.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10000))]
    pub limit: u32,
    /// What happens to a run that finds the key taken.
    #[serde(default)]
    pub policy: ConcurrencyPolicy,
}

fn one() -> u32 {
    1
}

/// What happens to a run that finds its concurrency key taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConcurrencyPolicy {
    /// It waits.
    #[default]
    Queue,
    /// The older runs of the key are cancelled.
    CancelOlder,
}

/// Retry policy of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Most attempts that may count as failures, the first included.
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: u32,
    /// Time between attempts.
    #[serde(default)]
    pub backoff: Backoff,
    /// Codes that are tried again; all but a cancel if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<FailureCode>>,
}

/// Exponential backoff with doubling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backoff {
    /// Before the second attempt.
    #[serde(default = "Backoff::default_initial")]
    pub initial: Span,
    /// Never longer than this.
    #[serde(default = "Backoff::default_max")]
    pub max: Span,
}

impl Backoff {
    fn default_initial() -> Span {
        Span::from_millis(1000)
    }
    fn default_max() -> Span {
        Span::from_millis(60_000)
    }

    /// The wait after the given number of failures (from 1).
    pub fn after(&self, failures: u32) -> Span {
        let factor = 1u64 << failures.saturating_sub(1).min(20);
        Span::from_millis(self.initial.millis().saturating_mul(factor).min(self.max.millis()))
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Self::default_initial(), max: Self::default_max() }
    }
}

/// How the work of a run is handed back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResultSpec {
    /// Template of the branch's name.
    #[serde(default = "ResultSpec::default_branch")]
    pub branch: String,
    /// Whether the branch is pushed to the repository.
    #[serde(default)]
    pub push: bool,
    /// Branch that a completed run is merged into: `none`, `base` (the branch the run started from) or a branch name.
    #[serde(default = "ResultSpec::no_merge")]
    pub merge: String,
}

impl ResultSpec {
    fn default_branch() -> String {
        "hopyard/${{ workflow.name }}/${{ run.id }}".to_owned()
    }
    fn no_merge() -> String {
        "none".to_owned()
    }
}

impl ResultSpec {
    /// The step that this asks for, if any.
    pub fn delivery(&self) -> Option<Deliver> {
        let merge = (self.merge != "none").then(|| self.merge.clone());
        (self.push || merge.is_some()).then_some(Deliver { push: self.push, merge })
    }
}

impl Default for ResultSpec {
    fn default() -> Self {
        Self { branch: Self::default_branch(), push: false, merge: Self::no_merge() }
    }
}

impl Plan {
    /// Reads a stored plan of any known version.
    ///
    /// # Errors
    /// When the version is newer than this build or the shape does not fit.
    pub fn from_stored(value: serde_json::Value) -> Result<Self, String> {
        let version = value.get("v").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if version != u64::from(PLAN_VERSION) {
            return Err(format!("the stored plan has version {version}, this build reads {PLAN_VERSION}"));
        }
        serde_json::from_value(value).map_err(|e| format!("the stored plan does not fit its shape: {e}"))
    }

    /// Adds the step that `result` asks for; a plan that has it, or needs none, stays as it is.
    ///
    /// It comes after all others and runs when none of them failed: a step that was skipped by its own condition does not
    /// keep the work back.
    pub fn add_delivery(&mut self) {
        let there = self.steps.iter().any(|s| s.work.kind() == StepKind::Deliver);
        let Some(deliver) = self.result.delivery().filter(|_| !there) else { return };
        let more = (2..).map(|n| format!("deliver-result-{n}"));
        let mut ids = ["deliver", "deliver-result"].into_iter().map(str::to_owned).chain(more);
        let id = ids.find(|id| self.step(id).is_none()).expect("a plan has finitely many steps");
        // The workspace is at the executor of the other steps, so the pool has to be theirs.
        let pool = self.steps.last().and_then(|s| s.pool.clone());
        self.steps.push(Step {
            id: id.parse().expect("a short name of letters, digits and dashes"),
            // Of variants only the chosen one counts.
            needs: self.steps.iter().filter(|s| s.variant.is_none()).map(|s| s.id.clone()).collect(),
            condition: Some("!failed()".to_owned()),
            pool,
            env: BTreeMap::new(),
            timeout: None,
            idle_timeout: None,
            grace: None,
            retry: None,
            variant: None,
            work: Work::Deliver(deliver),
        });
    }

    /// The step with this id.
    pub fn step(&self, id: &str) -> Option<&Step> {
        self.steps.iter().find(|s| s.id.as_str() == id)
    }

    /// Content hash: lower-case hex SHA-256 of the canonical JSON.
    pub fn hash(&self) -> String {
        crate::json::hash(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Covers P3. One file per released version; a file is added with a version and never changed.
    #[test]
    fn a_stored_plan_of_every_released_version_is_read() {
        let stored = [(1, include_str!("plan/golden/v1.json"))];
        assert_eq!(stored.map(|(v, _)| v).last(), Some(&PLAN_VERSION), "the current version has its file");
        for (version, text) in stored {
            let plan = Plan::from_stored(serde_json::from_str(text).unwrap()).unwrap_or_else(|e| panic!("version {version}: {e}"));
            assert_eq!(check::check(&plan), [], "version {version}");
            assert_eq!(plan.steps.len(), 2, "version {version}");
            assert_eq!(plan.steps[1].retry.as_ref().map(|r| r.max_attempts), Some(2), "version {version}");
        }
    }

    #[test]
    fn a_plan_of_a_newer_version_is_refused_by_name() {
        let refused = Plan::from_stored(serde_json::json!({"v": PLAN_VERSION + 1, "name": "w", "steps": []}));
        assert!(refused.unwrap_err().contains(&format!("version {}", PLAN_VERSION + 1)));
    }
}
