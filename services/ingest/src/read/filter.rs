//! The filter of a list of runs, out of a query.

use hopyard_contract::Name;
use hopyard_contract::status::RunStatus;
use hopyard_store::read::RunFilter;

use super::cursor;
use super::params::{DEFAULT_LIMIT, Params, bad};
use crate::problem::Answer;

/// Most labels in one filter.
const MAX_LABELS: usize = 16;
/// Name of the list, for its cursors.
pub(crate) const LIST: &str = "runs";

/// Reads all filters of `GET /runs`; `limit` is the number of items asked for.
///
/// # Errors
/// 400 or 422 for the first parameter that is wrong.
pub fn read(params: &Params, namespace: &Name) -> Answer<RunFilter> {
    params.allow(&["workflow", "repo", "session", "created_after", "created_before", "limit", "cursor"], &["status", "label"])?;
    let (created_after, created_before) = params.range("created_after", "created_before")?;
    Ok(RunFilter {
        statuses: statuses(params)?,
        workflow: params.name("workflow")?,
        repo: params.one("repo").map(str::to_owned),
        session: params.name("session")?,
        labels: labels(params)?,
        created_after,
        created_before,
        below: cursor::read(params, LIST, namespace)?,
        limit: params.limit(DEFAULT_LIMIT)?,
    })
}

fn statuses(params: &Params) -> Answer<Vec<RunStatus>> {
    let mut statuses = Vec::new();
    for word in params.all("status").flat_map(|text| text.split(',')) {
        let Some(status) = RunStatus::from_filter(word) else {
            let known = RunStatus::ALL.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", ");
            return Err(bad("status", 422, "unknown_status", &format!("has a word that is no status; the statuses are {known}")));
        };
        if !statuses.contains(&status) {
            statuses.push(status);
        }
    }
    Ok(statuses)
}

fn labels(params: &Params) -> Answer<Vec<(String, String)>> {
    let mut labels = Vec::new();
    for text in params.all("label") {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => labels.push((key.to_owned(), value.to_owned())),
            _ => return Err(bad("label", 422, "pattern", "is written as key=value")),
        }
    }
    if labels.len() > MAX_LABELS {
        return Err(bad("label", 422, "length", "may be given at most 16 times"));
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::super::params::tests::{params, told};
    use super::*;

    fn ns() -> Name {
        Name::default_namespace()
    }

    #[test]
    fn every_wrong_filter_has_its_code() {
        for (query, status, code) in [
            ("status=", 422, "unknown_status"),
            ("status=RUNNING", 422, "unknown_status"),
            ("status=pending,", 422, "unknown_status"),
            ("status=pending&status=bogus", 422, "unknown_status"),
            ("workflow=", 422, "length"),
            ("workflow=A", 422, "pattern"),
            ("workflow=a&workflow=b", 400, "repeated_parameter"),
            ("session=a/b", 422, "pattern"),
            ("label=novalue", 422, "pattern"),
            ("label==v", 422, "pattern"),
            ("created_after=yesterday", 422, "time_syntax"),
            ("created_after=2026-01-01T00:00:00", 422, "timezone_required"),
            ("created_after=2026-01-02T00:00:00Z&created_before=2026-01-01T00:00:00Z", 422, "range"),
            ("limit=0", 400, "bad_limit"),
            ("limit=201", 400, "bad_limit"),
            ("limit=1&limit=2", 400, "repeated_parameter"),
            ("cursor=abc", 400, "bad_cursor"),
            ("state=running", 400, "unknown_parameter"),
            ("repo=a%00b", 422, "control_char"),
        ] {
            assert_eq!(told(read(&params(query), &ns())), (status, code.to_owned()), "{query}");
        }
    }

    #[test]
    fn statuses_repeat_join_and_have_aliases() {
        let filter = read(&params("status=queued,running&status=cancelled&status=pending"), &ns()).unwrap();
        assert_eq!(filter.statuses, [RunStatus::Pending, RunStatus::Running, RunStatus::Killed]);
        for status in RunStatus::ALL {
            let filter = read(&params(&format!("status={status}")), &ns()).unwrap();
            assert_eq!(filter.statuses, [*status]);
        }
    }

    #[test]
    fn labels_keep_everything_after_the_first_equals_sign() {
        let filter = read(&params("label=a=b=c&label=team=&limit=7"), &ns()).unwrap();
        assert_eq!(filter.labels, [("a".to_owned(), "b=c".to_owned()), ("team".to_owned(), String::new())]);
        assert_eq!(filter.limit, 7);
    }
}
