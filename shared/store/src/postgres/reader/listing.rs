//! Lists of runs: a filter becomes a range of one index, read backwards.

use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::status::RunStatus;
use hopyard_contract::{Name, RunId};
use sqlx::{Postgres, QueryBuilder};

use crate::read::RunFilter;

/// The statement for one page of runs, newest first; its rows are the runs' ids and documents.
///
/// The predicates of partial indexes are spelled out where they hold, since the planner does not derive them from values.
pub(in crate::postgres) fn page(namespace: &Name, filter: &RunFilter) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new("SELECT id, data::text FROM hopyard_runs.runs WHERE namespace = ");
    query.push_bind(namespace.as_str().to_owned());
    if !filter.statuses.is_empty() {
        let words: Vec<&'static str> = filter.statuses.iter().map(|status| status.as_str()).collect();
        query.push(" AND status = ANY(").push_bind(words).push(")");
        if filter.statuses.iter().all(|status| !status.is_final()) {
            query.push(" AND finished_at IS NULL");
        } else if filter.statuses.iter().all(|status| matches!(status, RunStatus::Failed | RunStatus::Killed)) {
            query.push(" AND status IN ('failed', 'killed')");
        }
    }
    if let Some(workflow) = &filter.workflow {
        query.push(" AND workflow = ").push_bind(workflow.as_str().to_owned());
    }
    if let Some(session) = &filter.session {
        query.push(" AND session = ").push_bind(session.as_str().to_owned());
    }
    if let Some(repo) = &filter.repo {
        query.push(" AND repo_url = ").push_bind(repo.clone());
    }
    for (key, value) in &filter.labels {
        let label = serde_json::Value::from(serde_json::Map::from_iter([(key.clone(), value.clone().into())]));
        query.push(" AND labels <> '{}' AND labels @> ").push_bind(sqlx::types::Json(label));
    }
    if let Some(below) = filter.below {
        query.push(" AND id < ").push_bind(below.as_uuid());
    }
    if let Some(from) = filter.created_after {
        query.push(" AND id >= ").push_bind(RunId::floor_of(from).as_uuid()).push(" AND created_at >= ").push_bind(from);
    }
    if let Some(to) = filter.created_before {
        query.push(" AND id < ").push_bind(ceiling(to).as_uuid()).push(" AND created_at < ").push_bind(to);
    }
    query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(filter.limit));
    query
}

/// An id above all that carry an earlier instant: ids know milliseconds, so a part of one counts as a whole.
pub(in crate::postgres) fn ceiling(to: DateTime<Utc>) -> RunId {
    RunId::floor_of(to.checked_add_signed(TimeDelta::milliseconds(1)).unwrap_or(to))
}
