//! Questions to people, and what lets paused steps go on.

use chrono::{DateTime, Utc};
use hopyard_contract::duration::Span;
use hopyard_contract::message::{AnswerReply, ResumeReply};
use hopyard_contract::plan::Work;
use hopyard_contract::run::{Question, StepAnswer};
use hopyard_contract::status::{AttemptStatus, FailureCode, PausedReason, PendingReason, StepStatus};
use hopyard_contract::{Name, event::EventType, template};
use serde_json::json;
use uuid::Uuid;

use super::scope::View;
use super::{Change, Reply};

/// What a person says to the question of a step.
#[derive(Clone, Debug)]
pub struct AnswerAsk {
    /// The step.
    pub step: Name,
    /// Id of the answer.
    pub id: Uuid,
    /// Whether the run may go on.
    pub approved: bool,
    /// In words.
    pub text: Option<String>,
    /// Who.
    pub by: String,
}

impl Change {
    /// An approval step asks as soon as it may; it has no process and no attempt.
    pub(super) fn ask_approval(&mut self, index: usize) {
        let (state, step) = (&self.state, &self.state.steps[index]);
        let Some(spec) = state.plan.step(step.id.as_str()) else { return };
        let Work::Approval(approval) = &spec.work else { return };
        let text = template::render(&approval.prompt, &View { state, step: Some(spec) });
        let answer_by = spec.timeout.map(|timeout: Span| self.now + timeout.delta());
        self.ask(index, PausedReason::Approval, text, answer_by);
    }

    /// An attempt ended well with a question.
    pub(super) fn ask_question(&mut self, index: usize, step_index: usize, question: &str) {
        if self.state.run.kill.is_some() {
            self.kill_attempt(index, step_index);
            return;
        }
        self.state.attempts[index].status = AttemptStatus::Completed;
        self.keep_for_later(index, step_index);
        self.attempt_event(EventType::AttemptCompleted, index);
        self.ask(step_index, PausedReason::Question, question.to_owned(), None);
    }

    fn ask(&mut self, index: usize, reason: PausedReason, text: String, answer_by: Option<DateTime<Utc>>) {
        let step = &mut self.state.steps[index];
        step.question = Some(Question { text, asked_at: self.now, answer_by });
        step.answer = None;
        self.pause(index, reason, None);
    }

    /// Takes an answer, once.
    pub(super) fn on_answer(&mut self, ask: &AnswerAsk) {
        self.reply = Reply::Answered(self.take_answer(ask));
    }

    fn take_answer(&mut self, ask: &AnswerAsk) -> AnswerReply {
        let Some(index) = self.step_index(ask.step.as_str()) else { return AnswerReply::UnknownStep };
        let step = &mut self.state.steps[index];
        if step.answer.as_ref().is_some_and(|answer| answer.id == ask.id) {
            return AnswerReply::Taken;
        }
        let reason = step.paused_reason.filter(|reason| matches!(reason, PausedReason::Approval | PausedReason::Question));
        let Some(reason) = reason else { return AnswerReply::NotAsked };
        if reason == PausedReason::Question && ask.approved && ask.text.is_none() {
            return AnswerReply::NeedsText;
        }
        let AnswerAsk { id, approved, text, by, .. } = ask.clone();
        let answer = StepAnswer { id, approved, text, by, at: self.now };
        step.answer = Some(answer.clone());
        match reason {
            _ if !answer.approved => {
                let words = answer.text.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
                self.fail_step(index, FailureCode::PolicyDenied, &format!("refused by {}{words}", answer.by));
            }
            PausedReason::Approval => {
                let said = answer.text.clone().map(|text| ("text".to_owned(), text));
                let by = [("approved".to_owned(), "true".to_owned()), ("by".to_owned(), answer.by.clone())];
                step.outputs = by.into_iter().chain(said).collect();
                self.end_step(index, StepStatus::Completed);
                let step = &self.state.steps[index];
                let (id, data) = (step.id.clone(), json!({"outputs": step.outputs, "usage": step.usage, "answer": answer}));
                self.event(EventType::StepCompleted, Some(&id), None, data);
            }
            _ => self.make_claimable(index, PendingReason::AwaitingExecutor, self.now),
        }
        self.progress();
        AnswerReply::Taken
    }

    /// A question that nobody answered in time.
    pub(super) fn end_questions(&mut self) {
        for index in 0..self.state.steps.len() {
            let step = &self.state.steps[index];
            let over = step.question.as_ref().and_then(|question| question.answer_by).is_some_and(|by| by <= self.now);
            if over && step.paused_reason == Some(PausedReason::Approval) {
                self.fail_step(index, FailureCode::Timeout, "nobody answered in the time that the step gives");
            }
        }
    }

    /// What waits for a limit, a budget or an operator goes on now.
    pub(super) fn on_resume(&mut self, by: &str) {
        let run = &self.state.run;
        if run.status.is_final() || run.kill.is_some() {
            self.reply = Reply::Resumed(ResumeReply::AlreadyFinal);
            return;
        }
        let (mut went_on, mut asks) = (false, false);
        for index in 0..self.state.steps.len() {
            let step = &self.state.steps[index];
            match (step.paused_reason, step.pending_reason) {
                (Some(PausedReason::UsageLimit | PausedReason::Budget | PausedReason::Operator), _) => {
                    self.make_claimable(index, PendingReason::AwaitingExecutor, self.now);
                    went_on = true;
                }
                (None, Some(PendingReason::AwaitingBudget)) => {
                    self.end_wait_for_budget(index);
                    went_on = true;
                }
                (Some(PausedReason::Approval | PausedReason::Question), _) => asks = true,
                (None, _) => {}
            }
        }
        self.reply = Reply::Resumed(if asks && !went_on { ResumeReply::NeedsAnswer } else { ResumeReply::Resumed });
        self.resumed_by = Some(by.to_owned());
        self.progress();
    }
}
