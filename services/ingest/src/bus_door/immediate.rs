//! Immediate submissions: a request on the bus, answered with verdicts or a problem.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use hopyard_contract::Problem;
use hopyard_contract::subject;
use hopyard_runtime::bounds;
use hopyard_runtime::bus::{HEADER_TRACE, Received};
use serde::Serialize;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{key_of, read};
use crate::accept::request::Form;
use crate::accept::{self, Origin};
use crate::door::Door;
use crate::problem::Refusal;
use crate::runs::batch;

/// Queue group of the doors.
const GROUP: &str = "ingest";
/// Requests at once; more wait in the subscription.
const AT_ONCE: usize = 256;
/// Longest wait for requests to finish once the process drains.
const FINISH: Duration = Duration::from_secs(10);

/// The answer to a body that is refused as a whole.
#[derive(Debug, Serialize)]
struct Refused {
    v: u32,
    problem: Problem,
}

/// Answers immediate submissions until the process drains; those under way are finished.
///
/// # Errors
/// When the connection is closed for good.
pub async fn immediate(door: Door) -> anyhow::Result<()> {
    let mut requests = door.bus.subscribe_group(subject::API_SUBMIT, GROUP).await?;
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let shown = places.clone();
    bounds::show("api-submit", AT_ONCE, move || AT_ONCE - shown.available_permits());
    let drain = door.tasks.draining();
    let mut leaving = false;
    loop {
        let received = tokio::select! {
            received = requests.next() => received,
            () = drain.cancelled(), if !leaving => {
                // Those that were delivered already are answered; other doors get the next ones.
                leaving = true;
                requests.leave().await;
                continue;
            }
        };
        let Some(received) = received else {
            anyhow::ensure!(leaving, "the bus connection is closed");
            break;
        };
        let place = places.clone().acquire_owned().await?;
        let own = door.clone();
        door.tasks.spawn_part("api-submit", async move {
            let answer = on_submit(&own, &received).await;
            hopyard_runtime::failpoint!("ingest.api.before_reply");
            match answer {
                Ok(answer) => received.reply(&answer).await,
                Err(refusal) => {
                    let problem = Problem { request_id: Uuid::now_v7().to_string(), ..*refusal.0 };
                    tracing::debug!(
                        request_id = problem.request_id,
                        code = problem.code,
                        subject = received.subject,
                        "an immediate submission was refused"
                    );
                    received.reply(&Refused { v: 1, problem }).await;
                }
            }
            drop(place);
            Ok(())
        });
    }
    if tokio::time::timeout(FINISH, places.acquire_many(AT_ONCE as u32)).await.is_err() {
        tracing::warn!("some immediate submissions did not finish in time");
    }
    Ok(())
}

async fn on_submit(door: &Door, received: &Received) -> Result<impl Serialize + use<>, Refusal> {
    let namespace = subject::parse_api_submit(&received.subject)
        .ok_or_else(|| Refusal::new(404, "unknown_namespace", "the subject names no valid namespace"))?;
    let body = read(&received.body).map_err(|error| {
        let status = if error.code == "too_large" { 413 } else { hopyard_contract::problem::status_of(&error.code) };
        Refusal(Box::new(Problem::of_errors(vec![error]).with_status(status)))
    })?;
    door.admission.admit("api", None, &namespace, &body)?;
    let origin = Origin {
        door: "api",
        namespace,
        receipt: None,
        received_at: Utc::now(),
        key: key_of(|name| received.header(name)),
        traceparent: received.header(HEADER_TRACE),
    };
    let prepared = accept::prepare(door, &origin, &body, Form::Either).await?;
    let decided = accept::submit(door, "api", prepared).await?;
    accept::count("api", &decided.verdicts);
    Ok(batch(decided, Some(1)))
}
