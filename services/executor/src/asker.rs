//! What asks models in an attempt: a coding agent, or a step that is one question.

use std::collections::BTreeMap;
use std::path::Path;

use hopyard_blobs::Blobs;
use hopyard_contract::Usage;
use hopyard_contract::message::{Grant, Outcome};
use hopyard_contract::plan::Work;
use hopyard_contract::run::BlobRef;

use crate::Executor;
use crate::agent::Agent;
use crate::live::Attempt;
use crate::llm::Llm;
use crate::process::{ExitFacts, StepProcess};

/// One of them.
pub(crate) enum Asker {
    /// A coding agent.
    Agent(Box<Agent>),
    /// A question.
    Llm(Box<Llm>),
}

impl Asker {
    /// The one of an attempt that nobody carries on, from what its spool kept; `None` for other steps.
    pub(crate) fn from_spool(executor: &Executor, grant: &Grant, dir: &Path) -> Option<Self> {
        let (work, replays) = match &grant.work {
            Work::Replay(replay) => (&replay.work, true),
            work => (work, false),
        };
        match work {
            Work::Agent(spec) => {
                let agent = Agent::from_spool(spec.clone(), executor.prices.clone(), dir)?;
                Some(Self::Agent(Box::new(if replays { agent.that_replays() } else { agent })))
            }
            Work::Llm(_) if replays => None,
            Work::Llm(spec) => Llm::from_spool(spec.clone(), dir).map(|llm| Self::Llm(Box::new(llm))),
            Work::Shell(_) | Work::BestOf(_) | Work::Deliver(_) | Work::Approval(_) | Work::Replay(_) => None,
        }
    }

    /// Follows the process until it has ended, and tells what was used.
    pub(crate) async fn listen(&self, process: &StepProcess, live: &Attempt) -> anyhow::Result<()> {
        match self {
            Self::Agent(agent) => agent.listen(process, live).await,
            Self::Llm(llm) => llm.listen(process, live).await,
        }
    }

    /// No call of a model is made any more; returns when the last one is written down.
    pub(crate) async fn close(&self) {
        match self {
            Self::Agent(agent) => agent.close().await,
            Self::Llm(llm) => llm.close().await,
        }
    }

    /// How the attempt ended, from what was heard and from what became of its process, `plain` by the rules of any step.
    pub(crate) fn outcome(&self, facts: &ExitFacts, plain: Outcome) -> Outcome {
        match self {
            Self::Agent(agent) => agent.outcome(facts, plain),
            Self::Llm(llm) => llm.outcome(facts, plain),
        }
    }

    /// Whether it may change nothing in the workspace.
    pub(crate) fn only_reads(&self) -> bool {
        matches!(self, Self::Agent(agent) if agent.only_reads())
    }

    /// Outputs beside those that the step wrote to its file.
    pub(crate) fn outputs(&self) -> BTreeMap<String, String> {
        match self {
            Self::Agent(_) => BTreeMap::new(),
            Self::Llm(llm) => llm.outputs(),
        }
    }

    /// How the program's own sums differ from what was counted, if they do.
    pub(crate) fn difference(&self) -> Option<String> {
        match self {
            Self::Agent(agent) => agent.difference(),
            Self::Llm(_) => None,
        }
    }

    /// What was used so far.
    pub(crate) fn usage(&self) -> Usage {
        match self {
            Self::Agent(agent) => agent.usage(),
            Self::Llm(llm) => llm.usage(),
        }
    }

    /// Keeps the record of the attempt; `None` when there is nothing to tell.
    ///
    /// # Errors
    /// When the blob store does not take it.
    pub(crate) async fn keep_record(&self, blobs: &Blobs) -> anyhow::Result<Option<BlobRef>> {
        let record = match self {
            Self::Agent(agent) => agent.record()?,
            Self::Llm(llm) => llm.record()?,
        };
        let Some(record) = record else { return Ok(None) };
        let blob = blobs.put_bytes(record.into()).await?;
        Ok(Some(BlobRef { digest: blob.digest.to_string(), size: blob.size }))
    }
}
