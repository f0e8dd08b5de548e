//! What became of everything that was promised, read over the API once all is quiet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::Value;

use super::clients::World;
use super::journal::{Promise, final_of};
use crate::harness::api::is_final;

/// Reads under way at once.
const AT_ONCE: usize = 16;
/// Longest list of details in a failure.
const NAMED: usize = 40;

/// The verdict on a stack: everything but the first four has to be nothing.
#[derive(Debug, Default)]
pub struct Tally {
    /// Submissions that were promised a run.
    pub accepted: usize,
    /// Runs in the store.
    pub runs: usize,
    /// Event streams that were followed to their end.
    pub followed: usize,
    /// Submissions that only the bus had when it was lost, which is what their answer said.
    pub lost_with_bus: usize,
    /// The runs as the API tells them.
    pub details: Vec<Value>,
    /// What must not be, by kind, in words.
    pub wrong: BTreeMap<&'static str, Vec<String>>,
}

impl Tally {
    fn wrong(&mut self, kind: &'static str, text: String) {
        self.wrong.entry(kind).or_default().push(text);
    }

    /// Everything that went wrong, as text; empty when nothing did.
    pub fn complaints(&self) -> String {
        let all = self.wrong.iter().flat_map(|(kind, texts)| texts.iter().map(move |text| format!("{kind}: {text}\n")));
        all.take(NAMED).collect()
    }
}

/// Reads everything and compares it with what the clients were told. `bus_lost` are the times at which the bus lost messages.
pub async fn tally(world: &World, bus_lost: &[Duration]) -> Tally {
    let mut tally = Tally::default();
    let listed = list(world).await;
    tally.runs = listed.len();
    let mut of_op: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for run in &listed {
        let id = run["id"].as_str().unwrap_or_default().to_owned();
        if !is_final(run) {
            tally.wrong("lost", format!("{id} has not ended: {} {}", run["status"], run["pending_reason"]));
        }
        of_op.entry(run["labels"]["op"].as_str().unwrap_or_default().to_owned()).or_default().insert(id);
    }
    for (op, runs) in of_op.iter().filter(|(_, runs)| runs.len() > 1) {
        tally.wrong("doubled", format!("{op} became {runs:?}"));
    }
    look_at_promises(world, &mut tally, &of_op, bus_lost);
    look_at_ids(world, &mut tally, &of_op, bus_lost).await;
    let looked: Vec<_> = futures::stream::iter(&listed).map(|run| look_at_run(world, run)).buffer_unordered(AT_ONCE).collect().await;
    for (run, wrong) in looked {
        tally.details.push(run);
        for (kind, text) in wrong {
            tally.wrong(kind, text);
        }
    }
    look_at_marks(world, &mut tally);
    tally
}

async fn list(world: &World) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/v1/runs?limit=200{cursor}");
        let page = world.http("GET", &path, &[], &Value::Null).await.expect("a quiet API answers").expect(200).json();
        all.extend(page["items"].as_array().into_iter().flatten().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

/// What the journal says against what there is.
fn look_at_promises(world: &World, tally: &mut Tally, of_op: &BTreeMap<String, BTreeSet<String>>, bus_lost: &[Duration]) {
    let seen = world.journal.seen();
    tally.accepted = seen.promised.len();
    tally.followed = seen.followed;
    for (op, promised) in &seen.promised {
        if of_op.contains_key(op) {
            continue;
        }
        if promised.promise == Promise::OnBus && bus_lost.iter().any(|at| *at >= promised.at) {
            tally.lost_with_bus += 1;
        } else {
            tally.wrong("lost", format!("{op} was promised ({promised:?}) and there is no run"));
        }
    }
    for op in seen.refused.iter().filter(|op| of_op.contains_key(*op)) {
        tally.wrong("refused", format!("{op} was refused as surely not taken, and there is {:?}", of_op[op]));
    }
    // A cancel may be committed for a run that never came to be: its submission was lost with the bus, or was never taken.
    let came = |run: &String| of_op.values().any(|runs| runs.contains(run));
    for cancel in seen.cancels.iter().filter(|c| c.committed && c.gone_after.is_none() && came(&c.run)) {
        tally.wrong("cancels", format!("{} was cancelled and had not ended a minute after the storm", cancel.run));
    }
    for text in &seen.violations {
        let kind = match text.split(':').next() {
            Some("changed") => "changed",
            Some("gap" | "stream") => "gaps",
            _ => "answers",
        };
        tally.wrong(kind, text.clone());
    }
}

/// One run, its steps, attempts and events.
async fn look_at_run(world: &World, listed: &Value) -> (Value, Vec<(&'static str, String)>) {
    let mut wrong = Vec::new();
    let id = listed["id"].as_str().unwrap_or_default();
    let path = format!("/api/v1/runs/{id}");
    let run = world.http("GET", &path, &[], &Value::Null).await.expect("a quiet API answers").expect(200).json();
    let (finals, cancelled) = {
        let seen = world.journal.seen();
        (seen.finals.get(id).cloned(), seen.cancels.iter().any(|c| c.run == id && c.committed))
    };
    if let Some(before) = finals.filter(|before| *before != final_of(&run)) {
        wrong.push(("changed", format!("{id} was {before} and is {}", final_of(&run))));
    }
    if cancelled && run["status"] != "killed" {
        wrong.push(("cancels", format!("{id} was cancelled in time and is {}", run["status"])));
    }
    let mut sum = 0;
    for step in run["steps"].as_array().into_iter().flatten() {
        let attempts: Vec<&Value> = step["attempts"].as_array().into_iter().flatten().collect();
        sum += attempts.iter().filter_map(|a| a["usage"]["cost_microusd"].as_i64()).sum::<i64>();
        let completed = attempts.iter().filter(|a| a["status"] == "completed").count();
        let wanted = usize::from(step["status"] == "completed");
        if completed > 1 || (completed != wanted && step["status"] != "killed") {
            wrong.push(("doubled", format!("{id} {}: {} with {completed} completed attempts", step["id"], step["status"])));
        }
        if attempts.iter().any(|a| matches!(a["status"].as_str(), Some("leased" | "running"))) {
            wrong.push(("lost", format!("{id} {}: an attempt of an ended run has no end", step["id"])));
        }
    }
    if run["usage"]["cost_microusd"].as_i64().is_some_and(|total| total != sum) {
        wrong.push(("usage", format!("{id}: {} is not the sum {sum} of its attempts", run["usage"])));
    }
    look_at_events(id, &events(world, id).await, &mut wrong);
    (run, wrong)
}

async fn events(world: &World, id: &str) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let path = format!("/api/v1/runs/{id}/events?after={}", all.len());
        let accept = [("Accept", "application/json")];
        let page = world.http("GET", &path, &accept, &Value::Null).await.expect("a quiet API answers").expect(200).json();
        let items = page["items"].as_array().cloned().unwrap_or_default();
        if items.is_empty() {
            return all;
        }
        all.extend(items);
    }
}

/// Events are numbered without gaps, tell every end once, and tell nothing of the run after its own.
fn look_at_events(id: &str, events: &[Value], wrong: &mut Vec<(&'static str, String)>) {
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    let mut ended = false;
    for (i, event) in events.iter().enumerate() {
        if event["seq"] != i + 1 {
            wrong.push(("gaps", format!("{id}: event {} is number {}", i + 1, event["seq"])));
        }
        let kind = event["type"].as_str().unwrap_or_default();
        if ended && !kind.starts_with("workspace.") {
            wrong.push(("changed", format!("{id}: {kind} follows the end")));
        }
        let what = match kind {
            "run.completed" | "run.failed" | "run.killed" => {
                ended = true;
                "the end".to_owned()
            }
            "step.completed" | "step.failed" | "step.killed" | "step.skipped" => format!("the end of {}", event["step"]),
            "attempt.completed" | "attempt.failed" | "attempt.killed" | "attempt.lost" => {
                format!("the end of attempt {} of {}", event["attempt"], event["step"])
            }
            _ => continue,
        };
        *told.entry(what).or_default() += 1;
    }
    if told.get("the end") != Some(&1) {
        wrong.push(("doubled", format!("{id}: {:?} ends are told", told.get("the end"))));
    }
    for (what, times) in told.iter().filter(|(_, times)| **times > 1) {
        wrong.push(("doubled", format!("{id}: {what} is told {times} times")));
    }
}

/// Every id that was answered for a submission finds its one run, unless the bus lost what it had for that id alone.
async fn look_at_ids(world: &World, tally: &mut Tally, of_op: &BTreeMap<String, BTreeSet<String>>, bus_lost: &[Duration]) {
    let (ids_of_op, promised) = {
        let seen = world.journal.seen();
        (seen.ids.clone(), seen.promised.clone())
    };
    for (op, ids) in &ids_of_op {
        let Some(there) = of_op.get(op) else { continue };
        for id in ids.difference(there) {
            let answer = world.http("GET", &format!("/api/v1/runs/{id}"), &[], &Value::Null).await.expect("a quiet API answers");
            let found = answer.json()["id"].as_str().map(str::to_owned);
            let lost = found.is_none() && promised.get(op).is_some_and(|p| bus_lost.iter().any(|at| *at >= p.at));
            if !lost && !found.as_ref().is_some_and(|found| there.contains(found)) {
                tally.wrong("doubled", format!("{op} was answered with {id}, which finds {found:?}, and there is {there:?}"));
            }
        }
    }
}

/// What the steps themselves wrote down: no attempt ran twice, and no step had two processes at a time.
fn look_at_marks(world: &World, tally: &mut Tally) {
    let read = |name: &str| std::fs::read_to_string(world.places.dir.join(name)).unwrap_or_default();
    let mut ran: BTreeMap<String, usize> = BTreeMap::new();
    for attempt in read("ran").lines() {
        *ran.entry(attempt.to_owned()).or_default() += 1;
    }
    for (attempt, times) in ran.into_iter().filter(|(_, times)| *times > 1) {
        tally.wrong("doubled", format!("{attempt} ran {times} times"));
    }
    for attempt in read("overlaps").lines() {
        tally.wrong("doubled", format!("{attempt} had a second process beside it"));
    }
}
