//! Executors as they are, workspaces as they are kept, and usage as it was.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::message::Beat;
use hopyard_contract::run::{WorkspaceRow, WorkspaceStatus};
use hopyard_contract::view::{ExecutorView, Page};
use hopyard_contract::{Name, Usage, time};
use hopyard_store::read::{UsageBy, UsageRow};
use hopyard_store::runs::ExecutorRow;
use schemars::JsonSchema;
use serde::Serialize;

use super::params::{DEFAULT_LIMIT, Params, bad, check_range};
use crate::door::Door;
use crate::http::Namespace;
use crate::problem::Answer;

/// Whoever has not beaten for this long counts as silent.
pub(crate) const ALIVE: Duration = Duration::from_secs(12);
/// Days of usage when the request names no start.
const USAGE_DAYS: i64 = 30;

/// `GET /executors`.
pub(crate) async fn on_executors(State(door): State<Door>, params: Params) -> Answer<Json<Page<ExecutorView>>> {
    params.allow(&["pool"], &[])?;
    let pool = params.name("pool")?;
    let rows = door.reader.executors().await?;
    let mut items = views(rows, door.presence.alive("executor", ALIVE), Utc::now());
    items.retain(|executor| pool.as_ref().is_none_or(|pool| executor.pool == *pool));
    Ok(Json(Page { items, next_cursor: None }))
}

/// Joins who said hello with who beats; by name.
fn views(rows: Vec<ExecutorRow>, beats: Vec<(Beat, Duration)>, now: DateTime<Utc>) -> Vec<ExecutorView> {
    let mut views: BTreeMap<Name, ExecutorView> = rows.into_iter().map(|row| (row.id.clone(), of_row(row))).collect();
    for (beat, age) in beats {
        // One that beats and is in no row has not been answered to its hello yet.
        let known = views.remove(&beat.id);
        let Some(pool) = beat.pool.or_else(|| known.as_ref().map(|view| view.pool.clone())) else { continue };
        let draining = beat.draining || known.as_ref().is_some_and(|view| view.status == "draining");
        let view = ExecutorView {
            id: beat.id.clone(),
            host: beat.host,
            pool,
            slots: beat.slots,
            version: beat.version,
            status: if draining { "draining" } else { "ready" }.to_owned(),
            free: Some(beat.free),
            frozen: Some(beat.frozen).filter(|n| *n > 0),
            seen_at: now - TimeDelta::from_std(age).unwrap_or_default(),
        };
        views.insert(beat.id, view);
    }
    views
        .into_values()
        .map(|view| match view.free {
            Some(_) => view,
            None => ExecutorView { status: "silent".to_owned(), ..view },
        })
        .collect()
}

fn of_row(row: ExecutorRow) -> ExecutorView {
    let status = if row.draining { "draining" } else { "ready" }.to_owned();
    ExecutorView {
        id: row.id,
        host: row.host,
        pool: row.pool,
        slots: row.slots,
        version: row.version,
        status,
        free: None,
        frozen: None,
        seen_at: row.seen_at,
    }
}

/// `GET /workspaces`.
pub(crate) async fn on_workspaces(State(door): State<Door>, namespace: Namespace, params: Params) -> Answer<Json<Page<WorkspaceRow>>> {
    params.allow(&["status", "limit"], &[])?;
    let status = workspace_status(&params)?;
    let items = door.reader.workspaces(&namespace.name, status, params.limit(DEFAULT_LIMIT)?).await?;
    Ok(Json(Page { items, next_cursor: None }))
}

fn workspace_status(params: &Params) -> Answer<Option<WorkspaceStatus>> {
    use WorkspaceStatus::{Active, Kept, Reclaimable, Removed};
    let Some(text) = params.one("status") else { return Ok(None) };
    match [Active, Kept, Reclaimable, Removed].into_iter().find(|status| status.as_str() == text) {
        Some(status) => Ok(Some(status)),
        None => Err(bad("status", 422, "unknown_status", "is active, kept, reclaimable or removed")),
    }
}

/// Usage of one workflow, or of one repository.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct UsageSum {
    /// Name of the workflow; only by workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    workflow: Option<String>,
    /// URL of the repository, empty for runs without one; only by repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    /// Runs submitted in the range.
    runs: u64,
    /// Their sum.
    usage: Usage,
}

/// Usage in a range of time.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct UsageReport {
    /// Start of the range.
    #[serde(with = "time::instant")]
    #[schemars(with = "DateTime<Utc>")]
    from: DateTime<Utc>,
    /// End of the range; not in it.
    #[serde(with = "time::instant")]
    #[schemars(with = "DateTime<Utc>")]
    to: DateTime<Utc>,
    /// By workflow, or by repository.
    items: Vec<UsageSum>,
}

/// `GET /usage`.
pub(crate) async fn on_usage(State(door): State<Door>, namespace: Namespace, params: Params) -> Answer<Json<UsageReport>> {
    let (from, to) = usage_range(&params, Utc::now())?;
    let by = match params.one("by") {
        None | Some("workflow") => UsageBy::Workflow,
        Some("repository") => UsageBy::Repository,
        Some(_) => return Err(bad("by", 422, "unknown_value", "is workflow or repository")),
    };
    let sum = |row: UsageRow| match by {
        UsageBy::Workflow => UsageSum { workflow: Some(row.name), repository: None, runs: row.runs, usage: row.usage },
        UsageBy::Repository => UsageSum { workflow: None, repository: Some(row.name), runs: row.runs, usage: row.usage },
    };
    let items = door.reader.usage(&namespace.name, from, to, by).await?.into_iter().map(sum).collect();
    Ok(Json(UsageReport { from, to, items }))
}

fn usage_range(params: &Params, now: DateTime<Utc>) -> Answer<(DateTime<Utc>, DateTime<Utc>)> {
    params.allow(&["from", "to", "by"], &[])?;
    let (from, to) = params.range("from", "to")?;
    let to = to.unwrap_or(now);
    let from = from.unwrap_or(to - TimeDelta::days(USAGE_DAYS));
    check_range(Some((from, to)), "from")?;
    Ok((from, to))
}

#[cfg(test)]
mod tests {
    use super::super::params::tests::{params, told};
    use super::*;

    fn row(id: &'static str, draining: bool) -> ExecutorRow {
        ExecutorRow {
            id: Name::literal(id),
            host: Name::literal("h"),
            pool: Name::literal("gpu"),
            slots: 4,
            version: "1".to_owned(),
            draining,
            seen_at: DateTime::UNIX_EPOCH,
        }
    }

    fn beat(id: &'static str, draining: bool) -> (Beat, Duration) {
        let beat = serde_json::json!({"kind": "executor", "id": id, "host": "h", "pool": "gpu", "slots": 4, "free": 3, "draining": draining, "version": "1"});
        (serde_json::from_value(beat).unwrap(), Duration::from_secs(2))
    }

    #[test]
    fn executors_are_ready_draining_or_silent() {
        let now = time::parse("2026-01-01T00:00:10Z").unwrap();
        let rows = vec![row("a", false), row("b", true), row("c", false), row("d", true)];
        let views = views(rows, vec![beat("a", false), beat("b", false), beat("e", true)], now);
        let found: Vec<_> = views.iter().map(|v| (v.id.as_str(), v.status.as_str(), v.free)).collect();
        let wanted =
            [("a", "ready", Some(3)), ("b", "draining", Some(3)), ("c", "silent", None), ("d", "silent", None), ("e", "draining", Some(3))];
        assert_eq!(found, wanted);
        assert_eq!(views[0].seen_at, now - TimeDelta::seconds(2));
        assert_eq!(views[2].seen_at, DateTime::UNIX_EPOCH);
    }

    #[test]
    fn usage_ends_now_and_covers_thirty_days() {
        let now = time::parse("2026-03-01T00:00:00Z").unwrap();
        assert_eq!(usage_range(&params(""), now).unwrap(), (now - TimeDelta::days(30), now));
        let to = time::parse("2026-02-01T00:00:00Z").unwrap();
        assert_eq!(usage_range(&params("to=2026-02-01T00:00:00Z"), now).unwrap(), (to - TimeDelta::days(30), to));
        for (query, status, code) in [
            ("from=2026-02-02T00:00:00Z&to=2026-02-01T00:00:00Z", 422, "range"),
            ("from=2027-01-01T00:00:00Z", 422, "range"),
            ("from=2026-02-02", 422, "time_syntax"),
            ("since=x", 400, "unknown_parameter"),
        ] {
            assert_eq!(told(usage_range(&params(query), now)), (status, code.to_owned()), "{query}");
        }
    }

    #[test]
    fn a_workspace_status_is_one_of_four() {
        assert_eq!(workspace_status(&params("status=kept")).unwrap(), Some(WorkspaceStatus::Kept));
        assert_eq!(told(workspace_status(&params("status=gone"))), (422, "unknown_status".to_owned()));
    }
}
