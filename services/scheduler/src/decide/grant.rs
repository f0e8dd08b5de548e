//! The order that goes with a lease: everything an executor needs to carry out the attempt.

use std::collections::BTreeMap;

use hopyard_contract::duration::Span;
use hopyard_contract::message::{Grant, Recording, WorkspaceOrder};
use hopyard_contract::plan::{AgentSpec, BestOfSpec, LlmSpec, PromptFile, Replay, Work, WorkspaceMode, agent_turns};
use hopyard_contract::run::{Attempt, RunState, StepState};
use hopyard_contract::status::AttemptStatus;
use hopyard_contract::{AttemptId, template};

use super::choose::chosen;
use super::scope::View;
use super::{Purse, budget};

/// The grant of an attempt, made from the state alone, so that a repeated claim gets the same one.
pub(crate) fn grant(state: &RunState, step: &str, n: u32, length: Span, purse: Option<&Purse>) -> Option<Grant> {
    let (run, spec, row) = (&state.run, state.plan.step(step)?, state.step(step)?);
    let attempt = state.attempt(step, n)?;
    let view = View { state, step: Some(spec) };
    let env: BTreeMap<String, String> =
        state.plan.env.iter().chain(&spec.env).map(|(key, value)| (key.clone(), template::render(value, &view))).collect();
    let answer = row.answer.as_ref().and_then(|answer| answer.text.clone());
    let mode = state.plan.workspace.mode;
    let repo = run.repo.as_ref().filter(|_| mode != WorkspaceMode::None);
    let variant = spec.variant.as_ref();
    // Others in the same directory.
    let beside = || {
        let same = move |a: &&Attempt| state.variant_of(a.step.as_str()) == variant && (a.n, &a.step) != (n, &attempt.step);
        state.attempts.iter().filter(same)
    };
    let first_of_generation = !beside().any(|a| a.generation == attempt.generation && a.started_at.is_some());
    let goes_on = goes_on(state, step, &spec.work);
    let alone = beside().all(|a| a.status.is_final());
    let kept = match variant {
        None => run.result.as_ref(),
        Some(variant) => state.step(variant.as_str()).and_then(|agent| agent.result.as_ref()),
    };
    let branch = template::render(&state.plan.result.branch, &View { state, step: None });
    let workspace = WorkspaceOrder {
        mode,
        generation: attempt.generation,
        url: repo.map(|r| r.url.clone()),
        reference: repo.and_then(|r| r.reference.clone()),
        commit: run.commit.clone(),
        // The first generation starts from what the session's earlier runs left; the directory itself is preferred.
        restore: match (variant, attempt.generation) {
            _ if !first_of_generation => None,
            // A variant starts from what the run has so far, or goes on with what its agent left.
            (Some(_), _) => kept.map(|result| run.restore_of(result)).or_else(|| run.kept_work()),
            (None, 0 | 1) => run.restore.clone(),
            (None, _) => run.kept_work(),
        },
        // A retry starts from what was there before its step, unless another step is at work in the same directory.
        reset_to: if n > 1 && alone && !goes_on {
            row.before.clone().or_else(|| kept.map(|r| r.head.clone())).or_else(|| run.commit.clone())
        } else {
            None
        },
        session: run.session.clone().filter(|_| mode == WorkspaceMode::Persistent),
        variant: variant.cloned(),
        branch: variant.map_or_else(|| branch.clone(), |variant| format!("{branch}-{variant}")),
    };
    let work = rendered(&spec.work, row, &view, goes_on, budget::turns_left(state));
    let work = match recording(state, step, n) {
        Some(recording) => Work::Replay(Box::new(Replay { work, recording })),
        None => work,
    };
    Some(Grant {
        attempt: AttemptId { run: run.id, step: spec.id.clone(), n },
        token: attempt.token,
        lease_ms: length.millis(),
        namespace: run.namespace.clone(),
        workflow: run.workflow.clone(),
        work,
        answer,
        env,
        timeout_ms: spec.timeout.map(Span::millis),
        idle_timeout_ms: spec.idle_timeout.map(Span::millis),
        grace_ms: spec.grace.map(Span::millis),
        workspace,
        allowance: budget::allowance(state, step, n, purse),
        traceparent: None,
    })
}

/// What an attempt plays: the recording with the number of attempts that ended before it, or the last one.
fn recording(state: &RunState, step: &str, n: u32) -> Option<Recording> {
    let recorded = state.run.recordings.get(step)?;
    let ended = |a: &&Attempt| a.step.as_str() == step && a.n < n && matches!(a.status, AttemptStatus::Completed | AttemptStatus::Failed);
    let before = state.attempts.iter().filter(ended).count();
    recorded.get(before).or(recorded.last()).cloned()
}

/// What to do, with values in the place of expressions; an agent gets no more turns than the run has left.
fn rendered(work: &Work, row: &StepState, view: &View<'_>, goes_on: bool, turns_left: Option<u64>) -> Work {
    let render = |text: &String| template::render(text, view);
    match work {
        Work::Shell(_) | Work::Deliver(_) | Work::Replay(_) | Work::Approval(_) => work.clone(),
        Work::BestOf(spec) => Work::BestOf(BestOfSpec { chosen: chosen(view.state, &row.id, spec), ..spec.clone() }),
        Work::Llm(llm) => Work::Llm(LlmSpec {
            model: render(&llm.model),
            prompt: render(&llm.prompt),
            prompt_file: prompt_file(view, llm.prompt_file.as_ref()),
            system: llm.system.as_ref().map(render),
            output: llm.output.clone(),
            max_tokens: llm.max_tokens,
            tools: llm.tools.clone(),
            max_turns: llm.max_turns.into_iter().chain(turns_left.map(|left| u32::try_from(left).unwrap_or(u32::MAX))).min(),
        }),
        Work::Agent(spec) => Work::Agent(agent(spec, row, view, goes_on, turns_left)),
    }
}

/// An agent with values in the place of expressions, in the role that its step takes.
fn agent(spec: &AgentSpec, row: &StepState, view: &View<'_>, goes_on: bool, turns_left: Option<u64>) -> AgentSpec {
    let render = |text: &String| template::render(text, view);
    let role = spec.role.as_ref().map(render);
    let spec = match role.as_ref().and_then(|role| view.state.plan.roles.get(role)) {
        Some(role) => &spec.in_role(role),
        None => spec,
    };
    AgentSpec {
        cli: render(&spec.cli),
        role,
        prompt: answered(row, render(&spec.prompt)),
        prompt_file: prompt_file(view, spec.prompt_file.as_ref()),
        // A template that gives nothing leaves the choice to the program.
        model: spec.model.as_ref().map(render).filter(|model| !model.trim().is_empty()),
        max_turns: fewest_turns(spec.max_turns.as_ref().map(render), turns_left),
        permissions: spec.permissions,
        resume: goes_on,
        gateway: spec.gateway,
        script: spec.script.as_ref().map(render),
        command: spec.command.iter().map(render).collect(),
        resume_args: spec.resume_args.clone(),
        map: spec.map.clone(),
    }
}

/// A prompt file with the values that it gets: those of its step, and the inputs of the run.
fn prompt_file(view: &View<'_>, file: Option<&PromptFile>) -> Option<PromptFile> {
    let file = file?;
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Some(PromptFile {
        path: file.path.clone(),
        with: file.with.iter().map(|(name, value)| (name.clone(), template::render(value, view))).collect(),
        inputs: view.state.run.inputs.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
    })
}

/// Whether an attempt goes on with the work, and an agent with the conversation, that the one before left: its step says so, or a
/// pause lies between them. One that was handed back or lost before it had a process left nothing.
fn goes_on(state: &RunState, step: &str, work: &Work) -> bool {
    let ended = state.attempts.iter().filter(|a| a.step.as_str() == step && a.status.is_final());
    let last = ended.filter(|a| a.started_at.is_some()).max_by_key(|a| a.n);
    last.is_some_and(|a| a.paused) || matches!(work, Work::Agent(agent) if agent.resume)
}

/// What an agent is told: after an answer that one first, and the task again in case that its conversation is gone.
fn answered(row: &StepState, prompt: String) -> String {
    let answer = row.answer.as_ref().and_then(|answer| answer.text.as_deref());
    let (Some(question), Some(answer)) = (&row.question, answer) else { return prompt };
    format!("You asked:\n{}\n\nThe answer is:\n{answer}\n\nGo on with your task, which was:\n{prompt}", question.text)
}

/// What is no number is told by the executor, which ends the attempt with it.
fn fewest_turns(asked: Option<String>, left: Option<u64>) -> Option<String> {
    match (asked, left) {
        (Some(asked), Some(left)) => Some(agent_turns(&asked).map_or(asked, |asked| asked.min(left).to_string())),
        (asked, left) => asked.or_else(|| left.map(|left| left.to_string())),
    }
}
