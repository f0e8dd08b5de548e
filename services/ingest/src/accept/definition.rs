//! From the workflow that a request names or brings to the plan that its run is pinned to.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use hopyard_contract::message::{PutDefinition, PutDefinitionReply};
use hopyard_contract::plan::Plan;
use hopyard_contract::subject::Verb;
use hopyard_contract::{FieldError, Name};
use hopyard_runtime::Bus;
use hopyard_runtime::rpc::{self, CallError};
use hopyard_store::read::Reader;
use serde_json::Value;

use crate::problem::Refusal;

/// Most entries of each memory; beyond it they start anew.
const KEPT: usize = 4096;

/// A plan and the hashes that runs name it by.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Name of the workflow.
    pub name: Name,
    /// Hash of the definition's text.
    pub definition_hash: String,
    /// Hash of the plan.
    pub plan_hash: String,
    /// The plan.
    pub plan: Arc<Plan>,
}

/// Why there is no plan.
#[derive(Debug)]
pub enum Unresolved {
    /// The request is wrong.
    Invalid(Vec<FieldError>),
    /// The store or the schedulers are away: nothing was sent.
    Unavailable(Refusal),
}

/// Plans by workflow, re-checked by hash at each use, and hashes of plans that the schedulers have stored.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    plans: Arc<Mutex<HashMap<(Name, Name), Resolved>>>,
    stored: Arc<Mutex<HashSet<(Name, String)>>>,
}

impl Definitions {
    /// The newest version of a stored workflow, else the preset of this name.
    ///
    /// # Errors
    /// [`Unresolved`]: `unknown_workflow`, or the store is away.
    pub async fn named(&self, reader: &dyn Reader, bus: &Bus, namespace: &Name, name: &Name) -> Result<Resolved, Unresolved> {
        let view = reader.workflow(namespace, name, None).await.map_err(|e| Unresolved::Unavailable(e.into()))?;
        let Some(view) = view else {
            if let Some(text) = hopyard_definition::preset(name) {
                return self.inline(bus, namespace, &Value::from(text)).await;
            }
            let detail = format!(
                "there is no workflow `{name}` in the namespace `{namespace}`; `hopyard workflows list` shows those that are there"
            );
            return Err(Unresolved::Invalid(vec![FieldError::new("unknown_workflow", "/workflow", detail)]));
        };
        let key = (namespace.clone(), name.clone());
        let kept = self.plans.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(kept) = kept
            && kept.definition_hash == view.hash
        {
            return Ok(kept);
        }
        let plan = view.plan.ok_or_else(|| "the store has no plan for it".to_owned()).and_then(Plan::from_stored);
        let plan = plan.map_err(|error| {
            tracing::error!(%namespace, workflow = %name, hash = view.hash, error, "a stored plan cannot be read");
            Unresolved::Unavailable(Refusal::new(503, "store_fault", format!("the plan of the workflow `{name}` cannot be read: {error}")))
        })?;
        let resolved = Resolved { name: name.clone(), definition_hash: view.hash, plan_hash: plan.hash(), plan: Arc::new(plan) };
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.len() >= KEPT {
            plans.clear();
        }
        plans.insert(key, resolved.clone());
        Ok(resolved)
    }

    /// A definition that a request brings; its plan is stored before any run names it.
    ///
    /// # Errors
    /// [`Unresolved`]: everything that is wrong with the definition, or no scheduler answers.
    pub async fn inline(&self, bus: &Bus, namespace: &Name, value: &Value) -> Result<Resolved, Unresolved> {
        let read = match value {
            Value::String(text) => hopyard_definition::parse(text, None),
            other => hopyard_definition::from_json(other),
        };
        let definition = read.map_err(|errors| Unresolved::Invalid(errors.into_iter().map(|e| e.under("/definition")).collect()))?;
        let plan_hash = definition.plan.hash();
        let resolved = Resolved {
            name: definition.plan.name.clone(),
            definition_hash: definition.hash.clone(),
            plan_hash: plan_hash.clone(),
            plan: Arc::new(definition.plan),
        };
        // Both hashes: the same plan may come from another text, which `workflows get` of the run shall show.
        let key = (namespace.clone(), format!("{}{plan_hash}", definition.hash));
        if self.stored.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
            return Ok(resolved);
        }
        let put = PutDefinition {
            namespace: namespace.clone(),
            name: resolved.name.clone(),
            source: definition.source,
            definition_hash: definition.hash,
            plan: (*resolved.plan).clone(),
            plan_hash,
            register: false,
            if_match: None,
        };
        hopyard_runtime::failpoint!("ingest.definition.before_rpc");
        put_definition(bus, &put).await.map_err(Unresolved::Unavailable)?;
        hopyard_runtime::failpoint!("ingest.definition.stored");
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        if stored.len() >= KEPT {
            stored.clear();
        }
        stored.insert(key);
        Ok(resolved)
    }
}

/// Stores a definition through the schedulers; a repeat changes nothing.
///
/// # Errors
/// 503 when no scheduler answers or the store is away.
pub async fn put_definition(bus: &Bus, put: &PutDefinition) -> Result<PutDefinitionReply, Refusal> {
    rpc::call(bus, Verb::PutDefinition, put).await.map_err(|error| match error {
        CallError::Nobody => {
            Refusal::new(503, "not_accepted", "no scheduler listens, so the definition was not stored; start one with `hopyard scheduler`")
        }
        error => Refusal::new(503, "not_accepted", format!("the definition could not be stored; sending it again is safe: {error}")),
    })
}
