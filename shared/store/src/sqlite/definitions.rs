//! Definitions and plans: immutable by hash, so plans that have been read stay in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hopyard_contract::Name;
use hopyard_contract::message::{PutDefinition, PutDefinitionReply};
use hopyard_contract::plan::Plan;
use hopyard_contract::view::WorkflowView;
use rusqlite::{Connection, params};

use super::rows::{decode, encode, instant, word};
use super::statement::{execute, row, rows, value};
use crate::{Error, Result};

/// Most plans in memory; a server with more workflows at work reads some of them again.
const KEPT: usize = 1024;

pub(super) const PLANS: &str = "select hash, plan from plans where hash in (select value from json_each(?1))";
pub(super) const CURRENT: &str = "select version, hash, plan_hash from definitions where namespace = ?1 and name = ?2 and version is not null \
     order by version desc limit 1";
pub(super) const KNOWN: &str = "select count(*) from (select 1 from definitions where namespace = ?1 and hash = ?2 limit 1)";
pub(super) const WORKFLOWS: &str = "select d.name, d.version, d.hash, d.created_at \
     from (select name, max(version) as version from definitions where namespace = ?1 and name > ?2 and version is not null \
           group by name order by name limit ?3) newest \
     cross join definitions d on d.namespace = ?1 and d.name = newest.name and d.version = newest.version order by d.name";
pub(super) const WORKFLOW: &str = "select d.name, d.version, d.hash, d.created_at, d.source, p.plan from definitions d cross join plans p on p.hash = d.plan_hash \
     where d.namespace = ?1 and d.name = ?2 and d.version is not null and (?3 is null or d.version = ?3) order by d.version desc limit 1";
pub(super) const VERSIONS: &str = "select name, version, hash, created_at from definitions where namespace = ?1 and name = ?2 and version is not null \
     order by version desc";
pub(super) const SOURCE: &str = "select source from definitions where namespace = ?1 and hash = ?2 limit 1";

/// Plans that have been read, by hash.
#[derive(Debug, Default)]
pub(super) struct Plans(Mutex<HashMap<String, Arc<Plan>>>);

impl Plans {
    /// A plan that has been read.
    pub(super) fn kept(&self, hash: &str) -> Option<Arc<Plan>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(hash).cloned()
    }

    /// Plans by hash; unknown hashes are absent.
    pub(super) fn get(&self, connection: &Connection, hashes: &[String]) -> Result<HashMap<String, Arc<Plan>>> {
        let mut found = HashMap::with_capacity(hashes.len());
        let mut missing = Vec::new();
        {
            let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for hash in hashes {
                match kept.get(hash) {
                    Some(plan) => drop(found.insert(hash.clone(), Arc::clone(plan))),
                    None => missing.push(hash),
                }
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        let rows: Vec<(String, String)> = rows(connection, PLANS, params![encode("hashes", &missing)?])?;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (hash, text) in rows {
            let plan =
                Plan::from_stored(decode(format_args!("plan {hash}"), &text)?).map_err(|e| Error::Refused(format!("plan {hash}: {e}")))?;
            let plan = Arc::new(plan);
            if kept.len() >= KEPT {
                kept.clear();
            }
            kept.insert(hash.clone(), Arc::clone(&plan));
            found.insert(hash, plan);
        }
        Ok(found)
    }
}

/// Stores a definition within the caller's transaction.
pub(super) fn put(connection: &Connection, put: &PutDefinition, now: i64) -> Result<PutDefinitionReply> {
    let (namespace, name) = (put.namespace.as_str(), put.name.as_str());
    execute(
        connection,
        "insert into plans (hash, plan) values (?1, ?2) on conflict (hash) do nothing",
        params![&put.plan_hash, encode("the plan", &put.plan)?],
    )?;
    if !put.register {
        let known: Option<i64> = value(connection, KNOWN, params![namespace, &put.definition_hash])?;
        if known == Some(0) {
            insert(connection, put, None, now)?;
        }
        return Ok(PutDefinitionReply::Created { version: 0 });
    }
    let current: Option<(u32, String, String)> = row(connection, CURRENT, params![namespace, name])?;
    // Unchanged comes first: a repeat of a put whose answer was lost names a hash that has been replaced by its own.
    if let Some((version, hash, plan_hash)) = &current
        && *hash == put.definition_hash
        && *plan_hash == put.plan_hash
    {
        return Ok(PutDefinitionReply::Unchanged { version: *version });
    }
    if put.if_match.is_some() && put.if_match.as_ref() != current.as_ref().map(|(_, hash, _)| hash) {
        return Ok(PutDefinitionReply::Mismatch);
    }
    let version = current.as_ref().map_or(0, |(version, ..)| *version) + 1;
    insert(connection, put, Some(version), now)?;
    Ok(if current.is_none() { PutDefinitionReply::Created { version } } else { PutDefinitionReply::Updated { version } })
}

fn insert(connection: &Connection, put: &PutDefinition, version: Option<u32>, now: i64) -> Result<()> {
    execute(
        connection,
        "insert into definitions (namespace, name, version, hash, plan_hash, created_at, source) values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![put.namespace.as_str(), put.name.as_str(), version, &put.definition_hash, &put.plan_hash, now, &put.source],
    )?;
    Ok(())
}

type Listed = (String, u32, String, i64);

fn listed((name, version, hash, created_at): Listed) -> Result<WorkflowView> {
    Ok(WorkflowView { name: word(&name)?, version, hash, created_at: instant(created_at)?, definition: None, plan: None })
}

/// Newest versions by name, above `after`.
pub(super) fn workflows(connection: &Connection, namespace: &Name, after: Option<&Name>, limit: u32) -> Result<Vec<WorkflowView>> {
    let after = after.map_or("", Name::as_str);
    let rows: Vec<Listed> = rows(connection, WORKFLOWS, params![namespace.as_str(), after, limit])?;
    rows.into_iter().map(listed).collect()
}

/// One version, the newest if none is named, with text and plan.
pub(super) fn workflow(connection: &Connection, namespace: &Name, name: &Name, version: Option<u32>) -> Result<Option<WorkflowView>> {
    let row: Option<(String, u32, String, i64, String, String)> =
        row(connection, WORKFLOW, params![namespace.as_str(), name.as_str(), version])?;
    let Some((name, version, hash, created_at, source, plan)) = row else { return Ok(None) };
    let mut view = listed((name, version, hash, created_at))?;
    view.plan = Some(decode(format_args!("plan of workflow {}", view.name), &plan)?);
    view.definition = Some(source);
    Ok(Some(view))
}

/// All versions, newest first.
pub(super) fn versions(connection: &Connection, namespace: &Name, name: &Name) -> Result<Vec<WorkflowView>> {
    let rows: Vec<Listed> = rows(connection, VERSIONS, params![namespace.as_str(), name.as_str()])?;
    rows.into_iter().map(listed).collect()
}

/// Text by hash.
pub(super) fn source(connection: &Connection, namespace: &Name, hash: &str) -> Result<Option<String>> {
    value(connection, SOURCE, params![namespace.as_str(), hash])
}
