//! Cancels and the run's time limit.

use hopyard_contract::event::EventType;
use hopyard_contract::message::{KillOrder, KillReply};
use hopyard_contract::run::Kill;
use hopyard_contract::status::FailureCode;
use serde_json::json;

use super::{Change, Effect, KillAsk, Reply};

impl Change {
    /// Commits the flag; what waits ends at once, what runs is told.
    pub(super) fn on_kill(&mut self, ask: &KillAsk) {
        let run = &mut self.state.run;
        if run.status.is_final() {
            self.reply = Reply::Killed(KillReply::AlreadyFinal);
            return;
        }
        match &mut run.kill {
            Some(kill) => {
                self.reply = Reply::Killed(KillReply::Repeated);
                kill.force |= ask.force;
            }
            None => {
                self.reply = Reply::Killed(KillReply::Requested);
                run.kill = Some(Kill { at: self.now, by: ask.by.clone(), reason: ask.reason.clone(), force: ask.force, failure: None });
                self.event(EventType::RunKillRequested, None, None, json!({"by": ask.by, "reason": ask.reason, "force": ask.force}));
            }
        }
        self.tell_executors();
        self.progress();
    }

    /// The run's time is over: it ends like a cancel, but `failed`.
    pub(super) fn on_deadline(&mut self) {
        self.end_with(FailureCode::Timeout, "the run's time limit passed".to_owned());
    }

    /// The engine cannot go on with the run: it ends like a cancel, but `failed`, and its work is kept.
    pub(super) fn on_fault(&mut self, detail: &str) {
        if self.state.run.status.is_final() || self.state.run.kill.is_some() {
            return;
        }
        self.end_with(FailureCode::EngineError, format!("the engine failed: {detail}"));
        self.progress();
    }

    fn end_with(&mut self, code: FailureCode, reason: String) {
        self.state.run.kill =
            Some(Kill { at: self.now, by: "hopyard".to_owned(), reason: Some(reason), force: false, failure: Some(code) });
        self.event(EventType::RunKillRequested, None, None, json!({"by": "hopyard", "reason": code}));
        self.tell_executors();
    }

    fn tell_executors(&mut self) {
        let Some(order) = self.kill_order() else { return };
        let mut executors: Vec<_> = self.state.live().map(|a| a.executor.clone()).collect();
        executors.sort();
        executors.dedup();
        self.effects.extend(executors.into_iter().map(|executor| Effect::Kill(executor, order.clone())));
    }

    /// What live attempts are told, if the run shall end.
    pub(super) fn kill_order(&self) -> Option<KillOrder> {
        self.state.run.kill.as_ref().map(|kill| KillOrder { reason: kill.reason.clone(), force: kill.force })
    }
}
