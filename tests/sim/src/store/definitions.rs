//! Definitions and plans of the simulated store: immutable by hash, versions by name.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use hopyard_contract::Name;
use hopyard_contract::message::{PutDefinition, PutDefinitionReply};
use hopyard_contract::view::WorkflowView;

use super::tables::Tables;

/// One stored definition; without a version when only runs name it.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    namespace: Name,
    name: Name,
    version: Option<u32>,
    hash: String,
    plan_hash: String,
    created_at: DateTime<Utc>,
    source: String,
}

/// Stores a definition and its plan.
pub(super) fn put(tables: &mut Tables, put: &PutDefinition, now: DateTime<Utc>) -> PutDefinitionReply {
    tables.plans.entry(put.plan_hash.clone()).or_insert_with(|| Arc::new(put.plan.clone()));
    if !put.register {
        if !tables.definitions.iter().any(|d| d.namespace == put.namespace && d.hash == put.definition_hash) {
            insert(tables, put, None, now);
        }
        return PutDefinitionReply::Created { version: 0 };
    }
    let current = versions(tables, &put.namespace, &put.name).max_by_key(|d| d.version);
    let current = current.map(|d| (d.version.unwrap_or_default(), d.hash.clone(), d.plan_hash.clone()));
    // Unchanged comes first: a repeat of a put whose answer was lost names a hash that has been replaced by its own.
    if let Some((version, hash, plan_hash)) = &current
        && *hash == put.definition_hash
        && *plan_hash == put.plan_hash
    {
        return PutDefinitionReply::Unchanged { version: *version };
    }
    if put.if_match.is_some() && put.if_match.as_ref() != current.as_ref().map(|(_, hash, _)| hash) {
        return PutDefinitionReply::Mismatch;
    }
    let version = current.as_ref().map_or(0, |(version, ..)| *version) + 1;
    insert(tables, put, Some(version), now);
    if current.is_none() { PutDefinitionReply::Created { version } } else { PutDefinitionReply::Updated { version } }
}

fn insert(tables: &mut Tables, put: &PutDefinition, version: Option<u32>, now: DateTime<Utc>) {
    tables.definitions.push(Definition {
        namespace: put.namespace.clone(),
        name: put.name.clone(),
        version,
        hash: put.definition_hash.clone(),
        plan_hash: put.plan_hash.clone(),
        created_at: now,
        source: put.source.clone(),
    });
}

fn versions<'a>(tables: &'a Tables, namespace: &'a Name, name: &'a Name) -> impl Iterator<Item = &'a Definition> {
    tables.definitions.iter().filter(move |d| d.namespace == *namespace && d.name == *name && d.version.is_some())
}

impl Definition {
    fn listed(&self) -> WorkflowView {
        WorkflowView {
            name: self.name.clone(),
            version: self.version.unwrap_or_default(),
            hash: self.hash.clone(),
            created_at: self.created_at,
            definition: None,
            plan: None,
        }
    }
}

/// Newest versions by name, above `after`.
pub(super) fn workflows(tables: &Tables, namespace: &Name, after: Option<&Name>, limit: u32) -> Vec<WorkflowView> {
    let mut names: Vec<&Name> =
        tables.definitions.iter().filter(|d| d.namespace == *namespace && d.version.is_some()).map(|d| &d.name).collect();
    names.sort();
    names.dedup();
    let above = names.into_iter().filter(|name| after.is_none_or(|after| *name > after)).take(limit as usize);
    above.filter_map(|name| versions(tables, namespace, name).max_by_key(|d| d.version)).map(Definition::listed).collect()
}

/// One version, the newest if none is named, with text and plan.
pub(super) fn workflow(tables: &Tables, namespace: &Name, name: &Name, version: Option<u32>) -> Option<WorkflowView> {
    let wanted = |d: &&Definition| version.is_none() || d.version == version;
    let found = versions(tables, namespace, name).filter(wanted).max_by_key(|d| d.version)?;
    let plan = tables.plans.get(&found.plan_hash).and_then(|plan| serde_json::to_value(&**plan).ok());
    Some(WorkflowView { definition: Some(found.source.clone()), plan, ..found.listed() })
}

/// All versions, newest first.
pub(super) fn workflow_versions(tables: &Tables, namespace: &Name, name: &Name) -> Vec<WorkflowView> {
    let mut listed: Vec<WorkflowView> = versions(tables, namespace, name).map(Definition::listed).collect();
    listed.sort_by_key(|view| std::cmp::Reverse(view.version));
    listed
}

/// Text by hash.
pub(super) fn source(tables: &Tables, namespace: &Name, hash: &str) -> Option<String> {
    tables.definitions.iter().find(|d| d.namespace == *namespace && d.hash == hash).map(|d| d.source.clone())
}
