//! Cancels, through whatever door: a committed kill flag, or a cancel that the bus keeps until a scheduler is back.

use chrono::Utc;
use hopyard_contract::message::{KillReply, KillRun};
use hopyard_contract::subject::{self, Verb};
use hopyard_contract::submit::{CancelRequest, Warning};
use hopyard_contract::view::RunView;
use hopyard_contract::{Name, RunId};
use hopyard_runtime::bus::{PublishError, encode};
use hopyard_runtime::rpc::{self, CallError};
use serde_json::{Value, json};

use crate::door::Door;
use crate::instruments::cancels;
use crate::problem::Refusal;

/// A run id younger than this may belong to a submission that is still on its way.
const YOUNG_MS: i64 = 10 * 60 * 1000;

/// What became of a cancel.
#[derive(Debug)]
pub enum Killed {
    /// It will end, or has just ended; the run as it is, as JSON.
    Run(Value),
    /// It had ended before; the run as it is, as JSON.
    Final(Value),
    /// There is no such run.
    Unknown,
}

/// Asks the schedulers to end a run.
///
/// # Errors
/// As [`rpc::call`]; asking again is safe.
pub async fn ask(door: &Door, namespace: &Name, run: RunId, by: &str, wanted: &CancelRequest) -> Result<KillReply, CallError> {
    let order = KillRun { namespace: namespace.clone(), run, by: by.to_owned(), reason: wanted.reason.clone(), force: wanted.force };
    hopyard_runtime::failpoint!("ingest.cancel.before_rpc");
    rpc::call(&door.bus, Verb::Kill, &order).await
}

/// Ends a run for a caller who waits for the answer.
///
/// # Errors
/// 503 when neither a scheduler nor the bus takes it, or the store cannot be read.
pub async fn kill(door: &Door, namespace: &Name, run: RunId, by: &str, wanted: CancelRequest) -> Result<Killed, Refusal> {
    let outcome = match ask(door, namespace, run, by, &wanted).await {
        Ok(KillReply::Requested | KillReply::Repeated) => {
            Killed::Run(view(door, namespace, run).await?.map_or_else(|| young(run), |(run, _)| run))
        }
        Ok(KillReply::AlreadyFinal) => Killed::Final(view(door, namespace, run).await?.map_or_else(|| young(run), |(run, _)| run)),
        Ok(KillReply::Tombstone) => Killed::Run(young(run)),
        Ok(KillReply::Unknown) => Killed::Unknown,
        Err(error) => by_bus(door, namespace, run, wanted, &error).await?,
    };
    hopyard_runtime::failpoint!("ingest.cancel.answered");
    let label = match &outcome {
        Killed::Run(_) => "requested",
        Killed::Final(_) => "already_final",
        Killed::Unknown => "unknown_run",
    };
    cancels().with_label_values(&["http", label]).inc();
    Ok(outcome)
}

/// No scheduler answers: what the store says decides, and the bus keeps the cancel.
async fn by_bus(door: &Door, namespace: &Name, run: RunId, wanted: CancelRequest, error: &CallError) -> Result<Killed, Refusal> {
    let seen = view(door, namespace, run).await?;
    let mut answer = match seen {
        Some((run, true)) => return Ok(Killed::Final(run)),
        Some((run, false)) => run,
        None if Utc::now().timestamp_millis() - run.unix_millis() > YOUNG_MS => return Ok(Killed::Unknown),
        None => young(run),
    };
    if !door.bus.connected() {
        return Err(Refusal::new(503, "not_accepted", "the bus is not reachable, so nothing was sent"));
    }
    let request = CancelRequest { v: 1, run_id: Some(run), ..wanted };
    match door.bus.publish(&subject::cmd_cancel(namespace), None, None, encode(&request)).await.stored().await {
        Ok(_) => {
            let warning = Warning {
                code: "scheduler_unavailable".to_owned(),
                message: "no scheduler answered in time; the bus keeps the cancel until one is back (`hopyard scheduler`)".to_owned(),
            };
            answer["committed"] = json!(false);
            answer["warnings"] = json!([warning]);
            Ok(Killed::Run(answer))
        }
        Err(PublishError::Refused(bus)) if matches!(error, CallError::Nobody) => {
            Err(Refusal::new(503, "not_accepted", format!("no scheduler listens and the bus did not take the cancel: {bus}")))
        }
        Err(bus) => Err(Refusal::new(
            503,
            "outcome_unknown",
            format!("the cancel may or may not have been taken ({error}; {bus}); sending it again is safe"),
        )),
    }
}

/// The run as JSON, and whether it has ended.
async fn view(door: &Door, namespace: &Name, run: RunId) -> Result<Option<(Value, bool)>, Refusal> {
    let state = door.reader.run(namespace, run).await?;
    Ok(state.map(|state| {
        let ended = state.run.status.is_final();
        (serde_json::to_value(RunView::of(&state)).expect("a view has string keys and no failing serializers"), ended)
    }))
}

/// The answer for a run that has not come in yet.
fn young(run: RunId) -> Value {
    json!({ "run_id": run, "id": run, "status": "pending", "kill_requested_at": hopyard_contract::time::format(Utc::now()) })
}
