//! How long things take while everything breaks: answers, cancels, re-claims, and the first work after a loss.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::clients::World;
use crate::harness::http::Answer;

/// How long a probe waits for one answer.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Times of one kind.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// From single times.
    pub fn of(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut all: Vec<Duration> = times.into_iter().collect();
        all.sort();
        Self(all)
    }

    fn at(&self, percent: usize) -> Option<Duration> {
        let place = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(place).copied()
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |percent| self.at(percent).map_or("–".to_owned(), |t| format!("{:.2} s", t.as_secs_f64()));
        write!(f, "p50 {}, p99 {}, most {} ({} times)", shown(50), shown(99), shown(100), self.0.len())
    }
}

/// A server that was lost, whose return is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The bus was wiped: until a run has completed.
    Bus,
    /// The database was killed: until a submission is committed.
    Database,
}

impl Loss {
    /// What is measured.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Bus => "bus wiped → flowing",
            Self::Database => "database killed → first commit",
        }
    }
}

/// Submits until a run has come as far as it has to after this loss, and tells when.
///
/// Each try is a run of its own: one that goes down with its executor says nothing about the bus.
pub async fn first_work(world: &World, op: String, loss: Loss) -> DateTime<Utc> {
    let (mut tries, mut runs) = (0, Vec::<String>::new());
    loop {
        let key = format!("{op}-{tries}");
        tries += 1;
        let body = json!({
            "labels": { "op": key, "kind": "probe" },
            "definition": { "version": 1, "name": "probe", "workspace": { "mode": "none" }, "steps": [{ "id": "main", "shell": "true" }] },
        });
        let key = [("Idempotency-Key", key.as_str())];
        if let Some(answer) = ask(world, "POST", "/api/v1/runs", &key, &body).await
            && matches!(answer.status, 200 | 201)
        {
            if loss == Loss::Database {
                return Utc::now();
            }
            runs.extend(answer.json()["run_id"].as_str().map(str::to_owned));
        }
        for (n, run) in runs.iter().enumerate() {
            let wait = if n + 1 == runs.len() { "?wait=1s&until=final" } else { "" };
            let answer = ask(world, "GET", &format!("/api/v1/runs/{run}{wait}"), &[], &Value::Null).await;
            if answer.is_some_and(|answer| crate::harness::api::is_final(&answer.json())) {
                return Utc::now();
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Another door may be well while the one that is asked is frozen.
async fn ask(world: &World, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Option<Answer> {
    tokio::time::timeout(ATTEMPT, world.http(method, path, headers, body)).await.ok().flatten()
}

/// A time from when to when.
pub type Span = (DateTime<Utc>, DateTime<Utc>);

/// From the death of an executor to the start of the next attempt of what it had begun, for steps that any executor may take.
pub fn reclaims(runs: &[Value], killed: &[(String, DateTime<Utc>)]) -> Vec<Span> {
    let at = |value: &Value| value.as_str().and_then(|t| t.parse::<DateTime<Utc>>().ok());
    let mut times = Vec::new();
    for run in runs.iter().filter(|run| run["repo"].is_null()) {
        for step in run["steps"].as_array().into_iter().flatten() {
            for pair in step["attempts"].as_array().into_iter().flatten().collect::<Vec<_>>().windows(2) {
                let (Some(from), Some(lost), Some(next)) =
                    (at(&pair[0]["started_at"]), at(&pair[0]["finished_at"]), at(&pair[1]["started_at"]))
                else {
                    continue;
                };
                let death = killed.iter().find(|(name, at)| pair[0]["executor"] == *name && *at >= from && *at <= lost);
                if let Some((_, death)) = death.filter(|_| pair[0]["status"] == "lost") {
                    times.push((*death, next));
                }
            }
        }
    }
    times
}

/// Ids of runs that lost an attempt with its executor.
pub fn that_lost_an_executor(runs: &[Value]) -> BTreeSet<&str> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let lost = |step: &Value| list(&step["attempts"]).iter().any(|attempt| attempt["status"] == "lost");
    runs.iter().filter(|run| list(&run["steps"]).iter().any(lost)).filter_map(|run| run["id"].as_str()).collect()
}

/// How long each took in all, and without the time in which something was away that nothing goes on without.
pub fn gross_and_net(spans: &[Span], away: &[Span]) -> [Times; 2] {
    let length = |from: DateTime<Utc>, to: DateTime<Utc>| (to - from).to_std().unwrap_or_default();
    let gross = spans.iter().map(|(from, to)| length(*from, *to));
    let net = spans.iter().map(|(from, to)| {
        let lost: Duration = away.iter().map(|(since, until)| length((*since).max(*from), (*until).min(*to))).sum();
        length(*from, *to).saturating_sub(lost)
    });
    [Times::of(gross), Times::of(net)]
}
