//! Lists of runs: a filter becomes a range of one index, read backwards.

use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::status::RunStatus;
use hopyard_contract::{Name, RunId};
use rusqlite::types::Value;

use super::rows::micros;
use crate::read::RunFilter;

/// A statement in the making, with the values that it is run with.
#[derive(Debug)]
pub(super) struct Query {
    /// Its text.
    pub(super) sql: String,
    /// One for each `?` in it.
    pub(super) values: Vec<Value>,
}

impl Query {
    fn new(sql: &str) -> Self {
        Self { sql: sql.to_owned(), values: Vec::new() }
    }

    fn push(&mut self, sql: &str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        self.push("?")
    }
}

/// The statement for one page of runs, newest first; its rows are the runs' documents.
///
/// The index is named, since without statistics the planner cannot know that "failed" is rare and "completed" is not.
pub(super) fn page(namespace: &Name, filter: &RunFilter) -> Query {
    let mut statuses = filter.statuses.clone();
    statuses.sort_unstable();
    statuses.dedup();
    let rare = !statuses.is_empty() && !statuses.contains(&RunStatus::Completed);
    let mut query = Query::new("select data from (");
    if filter.session.is_some() {
        arm(&mut query, "runs_by_session", namespace, filter, &statuses);
    } else if filter.repo.is_some() {
        arm(&mut query, "runs_by_repo", namespace, filter, &statuses);
    } else if !statuses.is_empty() && (rare || filter.workflow.is_none()) {
        // One range per status, each in order already and cut to a page.
        for (i, status) in statuses.iter().enumerate() {
            query.push(if i == 0 { "select * from (" } else { " union all select * from (" });
            arm(&mut query, "runs_by_status", namespace, filter, &[*status]);
            query.push(")");
        }
    } else if filter.workflow.is_some() {
        arm(&mut query, "runs_by_workflow", namespace, filter, &statuses);
    } else {
        arm(&mut query, "runs_by_namespace", namespace, filter, &statuses);
    }
    query.push(") order by id desc limit ").push_bind(filter.limit);
    query
}

fn arm(query: &mut Query, index: &'static str, namespace: &Name, filter: &RunFilter, statuses: &[RunStatus]) {
    query.push("select id, data from runs indexed by ").push(index).push(" where namespace = ").push_bind(namespace.as_str().to_owned());
    match statuses {
        [] => {}
        [status] => {
            query.push(" and status = ").push_bind(status.as_str().to_owned());
        }
        several => {
            for (i, status) in several.iter().enumerate() {
                query.push(if i == 0 { " and status in (" } else { ", " }).push_bind(status.as_str().to_owned());
            }
            query.push(")");
        }
    }
    if let Some(workflow) = &filter.workflow {
        query.push(" and workflow = ").push_bind(workflow.as_str().to_owned());
    }
    if let Some(session) = &filter.session {
        query.push(" and session = ").push_bind(session.as_str().to_owned());
    }
    if let Some(repo) = &filter.repo {
        query.push(" and repo_url = ").push_bind(repo.clone());
    }
    for (key, value) in &filter.labels {
        query.push(" and exists (select 1 from json_each(labels) label where label.key = ").push_bind(key.clone());
        query.push(" and label.value = ").push_bind(value.clone()).push(")");
    }
    if let Some(below) = filter.below {
        query.push(" and id < ").push_bind(below.as_uuid());
    }
    if let Some(from) = filter.created_after {
        query.push(" and id >= ").push_bind(RunId::floor_of(from).as_uuid()).push(" and created_at >= ").push_bind(micros(from));
    }
    if let Some(to) = filter.created_before {
        query.push(" and id < ").push_bind(ceiling(to).as_uuid()).push(" and created_at < ").push_bind(micros(to));
    }
    query.push(" order by id desc limit ").push_bind(filter.limit);
}

/// An id above all that carry an earlier instant: ids know milliseconds, so a part of one counts as a whole.
pub(super) fn ceiling(to: DateTime<Utc>) -> RunId {
    RunId::floor_of(to.checked_add_signed(TimeDelta::milliseconds(1)).unwrap_or(to))
}
