//! Definitions and plans: immutable by hash, versions by name.

use chrono::{DateTime, Utc};
use hopyard_contract::Name;
use hopyard_contract::message::{PutDefinition, PutDefinitionReply};
use hopyard_contract::view::WorkflowView;
use sqlx::PgConnection;

use super::rows::{json, small, text, word};
use super::{failure, scalar, select, statement};
use crate::Result;

const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('hopyard.definition/' || $1::text || '/' || $2::text, 0))";
const PUT_PLAN: &str = "INSERT INTO hopyard_runs.plans (hash, plan) VALUES ($1, $2::text::json) ON CONFLICT (hash) DO NOTHING";
const CURRENT: &str = "SELECT version, hash, plan_hash FROM hopyard_runs.definitions WHERE namespace = $1 AND name = $2 AND version IS NOT NULL \
     ORDER BY version DESC LIMIT 1";
const KNOWN: &str = "SELECT EXISTS (SELECT 1 FROM hopyard_runs.definitions WHERE namespace = $1 AND hash = $2)";
const INSERT: &str =
    "INSERT INTO hopyard_runs.definitions (namespace, name, version, hash, plan_hash, source) VALUES ($1, $2, $3, $4, $5, $6)";
const WORKFLOWS: &str = "SELECT DISTINCT ON (name) name, version, hash, created_at FROM hopyard_runs.definitions \
     WHERE namespace = $1 AND name > $2 AND version IS NOT NULL ORDER BY name, version DESC LIMIT $3";
const WORKFLOW: &str = "SELECT d.name, d.version, d.hash, d.created_at, d.source, p.plan::text FROM hopyard_runs.definitions d \
     JOIN hopyard_runs.plans p ON p.hash = d.plan_hash \
     WHERE d.namespace = $1 AND d.name = $2 AND d.version IS NOT NULL AND ($3::bigint IS NULL OR d.version = $3) ORDER BY d.version DESC LIMIT 1";
const VERSIONS: &str = "SELECT name, version, hash, created_at FROM hopyard_runs.definitions \
     WHERE namespace = $1 AND name = $2 AND version IS NOT NULL ORDER BY version DESC";
const SOURCE: &str = "SELECT source FROM hopyard_runs.definitions WHERE namespace = $1 AND hash = $2 LIMIT 1";

/// Stores a definition within the caller's transaction; puts of one name are served one after the other.
pub(super) async fn put(connection: &mut PgConnection, put: &PutDefinition) -> Result<PutDefinitionReply> {
    let (namespace, name) = (put.namespace.as_str(), put.name.as_str());
    statement(LOCK)
        .bind(namespace)
        .bind(if put.register { name } else { &put.definition_hash })
        .execute(&mut *connection)
        .await
        .map_err(failure)?;
    statement(PUT_PLAN).bind(&put.plan_hash).bind(text(&put.plan)?).execute(&mut *connection).await.map_err(failure)?;
    if !put.register {
        let known: bool = scalar(KNOWN).bind(namespace).bind(&put.definition_hash).fetch_one(&mut *connection).await.map_err(failure)?;
        if !known {
            insert(connection, put, None).await?;
        }
        return Ok(PutDefinitionReply::Created { version: 0 });
    }
    let current: Option<(i64, String, String)> =
        select(CURRENT).bind(namespace).bind(name).fetch_optional(&mut *connection).await.map_err(failure)?;
    // Unchanged comes first: a repeat of a put whose answer was lost names a hash that has been replaced by its own.
    if let Some((version, hash, plan_hash)) = &current
        && *hash == put.definition_hash
        && *plan_hash == put.plan_hash
    {
        return Ok(PutDefinitionReply::Unchanged { version: small(*version) });
    }
    if put.if_match.is_some() && put.if_match.as_ref() != current.as_ref().map(|(_, hash, _)| hash) {
        return Ok(PutDefinitionReply::Mismatch);
    }
    let version = current.as_ref().map_or(0, |(version, ..)| small(*version)) + 1;
    insert(connection, put, Some(version)).await?;
    Ok(if current.is_none() { PutDefinitionReply::Created { version } } else { PutDefinitionReply::Updated { version } })
}

async fn insert(connection: &mut PgConnection, put: &PutDefinition, version: Option<u32>) -> Result<()> {
    statement(INSERT)
        .bind(put.namespace.as_str())
        .bind(put.name.as_str())
        .bind(version.map(i64::from))
        .bind(&put.definition_hash)
        .bind(&put.plan_hash)
        .bind(&put.source)
        .execute(connection)
        .await
        .map_err(failure)?;
    Ok(())
}

type Listed = (String, i64, String, DateTime<Utc>);

fn listed((name, version, hash, created_at): Listed) -> Result<WorkflowView> {
    Ok(WorkflowView { name: word(&name)?, version: small(version), hash, created_at, definition: None, plan: None })
}

/// Newest versions by name, above `after`.
pub(super) async fn workflows(
    connection: &mut PgConnection,
    namespace: &Name,
    after: Option<&Name>,
    limit: u32,
) -> Result<Vec<WorkflowView>> {
    let found: Vec<Listed> = select(WORKFLOWS)
        .bind(namespace.as_str())
        .bind(after.map_or("", Name::as_str))
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await
        .map_err(failure)?;
    found.into_iter().map(listed).collect()
}

/// One version, the newest if none is named, with text and plan.
pub(super) async fn workflow(
    connection: &mut PgConnection,
    namespace: &Name,
    name: &Name,
    version: Option<u32>,
) -> Result<Option<WorkflowView>> {
    let found: Option<(String, i64, String, DateTime<Utc>, String, String)> = select(WORKFLOW)
        .bind(namespace.as_str())
        .bind(name.as_str())
        .bind(version.map(i64::from))
        .fetch_optional(connection)
        .await
        .map_err(failure)?;
    let Some((name, version, hash, created_at, source, plan)) = found else { return Ok(None) };
    let mut view = listed((name, version, hash, created_at))?;
    view.plan = Some(json(&plan, "plan of workflow", &view.name)?);
    view.definition = Some(source);
    Ok(Some(view))
}

/// All versions, newest first.
pub(super) async fn versions(connection: &mut PgConnection, namespace: &Name, name: &Name) -> Result<Vec<WorkflowView>> {
    let found: Vec<Listed> = select(VERSIONS).bind(namespace.as_str()).bind(name.as_str()).fetch_all(connection).await.map_err(failure)?;
    found.into_iter().map(listed).collect()
}

/// Text by hash.
pub(super) async fn source(connection: &mut PgConnection, namespace: &Name, hash: &str) -> Result<Option<String>> {
    scalar(SOURCE).bind(namespace.as_str()).bind(hash).fetch_optional(connection).await.map_err(failure)
}
