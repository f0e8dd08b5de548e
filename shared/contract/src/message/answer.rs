//! What lets a paused run go on: the answer to a question, or the word that it shall.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::id::{Name, RunId};

/// `answer`: what a person says to the question of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AnswerStep {
    /// Tenant.
    pub namespace: Name,
    /// The run.
    pub run: RunId,
    /// Its step.
    pub step: Name,
    /// Id of the answer: the same one again changes nothing.
    pub id: Uuid,
    /// Whether the run may go on.
    pub approved: bool,
    /// In words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Who.
    pub by: String,
}

/// Answer to `answer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnswerReply {
    /// The answer is committed.
    Taken,
    /// The step asks in words, and there are none.
    NeedsText,
    /// The step waits for no answer.
    NotAsked,
    /// The run has no such step.
    UnknownStep,
    /// No such run.
    Unknown,
}

/// `resume`: what waits for a limit or an operator goes on now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResumeRun {
    /// Tenant.
    pub namespace: Name,
    /// The run.
    pub run: RunId,
    /// Who asks.
    pub by: String,
}

/// Answer to `resume`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResumeReply {
    /// No step of it waits any more, or none did.
    Resumed,
    /// Its steps wait for answers, which this is not.
    NeedsAnswer,
    /// The run had ended.
    AlreadyFinal,
    /// No such run.
    Unknown,
}
