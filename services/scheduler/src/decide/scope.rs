//! What expressions see: the run's inputs, its repository and the steps that have ended.

use hopyard_contract::condition::{Call, Scope};
use hopyard_contract::plan::Step;
use hopyard_contract::run::RunState;
use hopyard_contract::status::StepStatus;
use serde_json::Value;

/// The view of one step on its run, or of the run itself.
pub(super) struct View<'a> {
    pub(super) state: &'a RunState,
    pub(super) step: Option<&'a Step>,
}

impl Scope for View<'_> {
    fn path(&self, path: &[String]) -> Option<Value> {
        let run = &self.state.run;
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["inputs", name] => run.inputs.get(*name).cloned(),
            ["run", "id"] => Some(Value::from(run.id.to_string())),
            ["workflow", "name"] => Some(Value::from(run.workflow.as_str())),
            ["repo", "url"] => run.repo.as_ref().map(|r| Value::from(r.url.clone())),
            ["repo", "ref"] => run.repo.as_ref().and_then(|r| r.reference.clone()).map(Value::from),
            ["repo", "commit"] => run.commit.clone().map(Value::from),
            ["steps", id, "status"] => self.state.step(id).map(|s| Value::from(s.status.as_str())),
            ["steps", id, "outputs", key] => self.state.step(id).and_then(|s| s.outputs.get(*key)).map(|v| Value::from(v.clone())),
            _ => None,
        }
    }

    fn call(&self, call: Call) -> bool {
        let needs = self.step.map(|s| s.needs.as_slice()).unwrap_or_default();
        let statuses = || needs.iter().filter_map(|n| self.state.step(n.as_str())).map(|s| s.status);
        match call {
            Call::Completed => statuses().all(|s| s == StepStatus::Completed),
            Call::Failed => statuses().any(|s| s == StepStatus::Failed),
            Call::Always => true,
        }
    }
}
