//! The workflows that simulated clients submit: every way in which steps, retries, slots and workspaces meet.

use std::sync::Arc;

use hopyard_contract::Name;
use hopyard_contract::message::PutDefinition;
use hopyard_contract::plan::Plan;
use serde_json::{Value, json};

/// A workflow with its plan.
#[derive(Clone)]
pub(crate) struct Workflow {
    /// Plan.
    pub(crate) plan: Arc<Plan>,
    /// Its hash.
    pub(crate) hash: String,
    /// Whether its runs want a session.
    pub(crate) session: bool,
}

impl Workflow {
    /// How it is stored before runs name it.
    pub(crate) fn put(&self, namespace: &Name) -> PutDefinition {
        PutDefinition {
            namespace: namespace.clone(),
            name: self.plan.name.clone(),
            source: self.plan.name.to_string(),
            definition_hash: self.plan.name.to_string(),
            plan: (*self.plan).clone(),
            plan_hash: self.hash.clone(),
            register: true,
            if_match: None,
        }
    }
}

fn step(id: &str, needs: &[&str]) -> Value {
    json!({"id": id, "needs": needs, "shell": "work"})
}

fn with(mut step: Value, key: &str, value: Value) -> Value {
    step[key] = value;
    step
}

/// Two variants: how each of them ends is as random as how steps end.
fn best_of(id: &str) -> Value {
    let agent = json!({"cli": "fake", "prompt": "work"});
    json!({"id": id, "best_of": {"check": "work", "variants": [{"name": "x", "agent": agent}, {"name": "y", "agent": agent}]}})
}

thread_local! {
    /// Read once by each thread that worlds live in; what several threads counted references of would be slower.
    static ALL: Vec<Workflow> = read();
}

/// All workflows.
pub(crate) fn all() -> Vec<Workflow> {
    ALL.with(Clone::clone)
}

fn read() -> Vec<Workflow> {
    let retry = json!({"max_attempts": 3, "backoff": {"initial": "300ms", "max": "2s"}});
    let documents = [
        json!({"name": "one", "steps": [step("a", &[])]}),
        json!({"name": "two", "steps": [step("a", &[]), step("b", &["a"])]}),
        json!({"name": "fan", "steps": [step("a", &[]), step("b", &[]), step("c", &["a", "b"])]}),
        json!({"name": "again", "steps": [with(step("a", &[]), "retry", retry.clone()), with(step("b", &["a"]), "retry", retry.clone())]}),
        json!({"name": "keyed", "steps": [step("a", &[])], "concurrency": {"key": "k", "limit": 1, "policy": "queue"}}),
        json!({"name": "pair", "steps": [step("a", &[]), step("b", &["a"])], "concurrency": {"key": "p", "limit": 2, "policy": "queue"}}),
        json!({"name": "newest", "steps": [step("a", &[])], "concurrency": {"key": "n", "limit": 1, "policy": "cancel_older"}}),
        json!({"name": "kept", "steps": [step("a", &[])], "workspace": {"mode": "persistent"}}),
        json!({"name": "bare", "steps": [step("a", &[]), step("b", &["a"])], "workspace": {"mode": "none"}}),
        json!({"name": "tidy", "steps": [with(step("a", &[]), "retry", retry), with(step("b", &["a"]), "if", json!("failed()")), with(step("c", &["a", "b"]), "if", json!("always()"))]}),
        json!({"name": "best", "steps": [best_of("a"), step("b", &["a"])]}),
        json!({"name": "timed", "steps": [step("a", &[]), step("b", &["a"])], "timeout": "12s"}),
    ];
    documents
        .into_iter()
        .map(|mut document| {
            document["v"] = json!(1);
            let session = document["workspace"]["mode"] == "persistent";
            let mut plan = Plan::from_stored(document).expect("the plans of the simulator are valid");
            plan.add_variants();
            Workflow { hash: plan.hash(), plan: Arc::new(plan), session }
        })
        .collect()
}
