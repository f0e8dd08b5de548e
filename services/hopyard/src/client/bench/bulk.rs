//! Many runs at once: submitted in bulk, and waited for until the last of them has ended.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use hopyard_contract::view::RunView;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Api, output};

/// Runs of a body; the door takes no more.
pub(super) const BODY: u32 = 500;
/// Bodies on their way at once.
const AT_ONCE: usize = 4;
/// Time between two looks at whether the few that ended after the last one have, too.
const LOOK: Duration = Duration::from_millis(20);

/// Submits `runs` runs of a definition, one like the other, and returns how many a second completed, from the first
/// submission to the last end.
///
/// # Errors
/// When one is not accepted, or does not complete.
pub(super) async fn runs_per_s(api: &Api, definition: &Value, runs: u32) -> Result<f64> {
    let start = Instant::now();
    let bodies = (0..runs.div_ceil(BODY)).map(|n| (runs - n * BODY).min(BODY));
    let sent = futures::stream::iter(bodies.map(|count| submit(api, definition, count))).buffer_unordered(AT_ONCE);
    let last: Vec<String> = sent.try_collect().await?;
    for run in last {
        // One request that waits, since many that look would be measured with the rest.
        let until_final = [("wait", "60s".to_owned()), ("until", "final".to_owned())];
        while !api.get_as::<RunView>(&format!("/runs/{run}"), &until_final).await?.status.is_final() {}
    }
    let name = definition["name"].as_str().unwrap_or_default();
    while first(api, name, "pending").await?.is_some() || first(api, name, "running").await?.is_some() {
        tokio::time::sleep(LOOK).await;
    }
    let took = start.elapsed();
    if let Some(run) = first(api, name, "failed").await? {
        bail!("run {} of the bench failed: {}", run.id, run.error.map(|error| error.message).unwrap_or_default());
    }
    Ok(f64::from(runs) / took.as_secs_f64())
}

/// Submits one body; the id of its last run.
async fn submit(api: &Api, definition: &Value, count: u32) -> Result<String> {
    let items: Vec<Value> = (0..count).map(|_| json!({"definition": definition})).collect();
    let answer = api.post("/runs/batch", &json!({"v": 1, "runs": items}), HeaderMap::new()).await?;
    let refused = answer["items"].as_array().into_iter().flatten().find(|item| item["status"] != "accepted");
    ensure!(refused.is_none(), "a run was not accepted: {}", refused.unwrap_or(&Value::Null));
    Ok(output::field(&answer, &format!("/items/{}/run_id", count - 1)))
}

/// A run with this status, if there is one.
async fn first(api: &Api, workflow: &str, status: &str) -> Result<Option<RunView>> {
    let query = [("workflow", workflow.to_owned()), ("status", status.to_owned()), ("limit", "1".to_owned())];
    let page: Page = api.get_as("/runs", &query).await?;
    Ok(page.items.into_iter().next())
}

/// A page of runs.
#[derive(Deserialize)]
struct Page {
    items: Vec<RunView>,
}
