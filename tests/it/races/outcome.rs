//! What is there after a race, in words that are the same for every race, and what has to be true of it in any case.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::audit::{self, Moment};
use hopyard_contract::event::{Event, EventPage};
use hopyard_contract::message::{Outcome as Ending, Report};
use hopyard_contract::run::RunState;
use hopyard_contract::{AttemptId, RunId};
use hopyard_scheduler::decide::Effect;
use hopyard_scheduler::request::Answer;
use hopyard_store::runs::OutboxMessage;
use serde_json::{Value, json};

use super::bench::{Bench, Told};
use super::scene::{Ask, Move, Scene, reports};

/// Answers and records of a race, comparable with those of another.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub told: [Value; 2],
    pub facts: Value,
}

/// Everything about the runs of a scene as it is committed.
pub struct Records {
    pub states: Vec<RunState>,
    events: BTreeMap<RunId, Vec<Event>>,
    /// Ids of events that are to be published.
    published: BTreeMap<RunId, Vec<String>>,
    /// Receipts that are to be published.
    receipts: Vec<String>,
    rest: Value,
}

impl Records {
    /// Reads those of many scenes at once.
    pub async fn read(bench: &Bench, scenes: &[&Scene]) -> Vec<Self> {
        let runs: Vec<RunId> = scenes.iter().flat_map(|scene| scene.runs.iter().copied()).collect();
        let keys: Vec<_> = scenes.iter().map(|scene| (scene.namespace.clone(), scene.key.clone())).collect();
        let places: Vec<String> = runs.iter().flat_map(|run| [format!("{run}-g1"), format!("{run}-g2")]).collect();
        let mut tx = bench.schedulers[0].begin().await.unwrap();
        let states = tx.load(&runs).await.unwrap();
        let keys = tx.keys(&keys).await.unwrap();
        let buried = tx.tombstones(&runs, false).await.unwrap();
        let workspaces = tx.workspaces(&places).await.unwrap();
        let mut aliases = HashMap::new();
        for id in scenes.iter().map(|scene| scene.runs[1]) {
            aliases.extend(tx.alias(id).await.unwrap().map(|run| (id, run)));
        }
        tx.commit().await.unwrap();
        let since = scenes.iter().map(|scene| scene.base).min().unwrap();
        let mut events: BTreeMap<RunId, Vec<Event>> = BTreeMap::new();
        for event in bench.reader.events_since(since, 100_000).await.unwrap() {
            events.entry(event.run_id).or_default().push(event);
        }
        let messages: Vec<OutboxMessage> = bench.outbox().await.into_iter().flat_map(|row| row.messages).collect();
        let of_scene = |scene: &&Scene| {
            let ours = |run: &RunId| scene.runs.contains(run);
            let mut published: BTreeMap<RunId, Vec<String>> = BTreeMap::new();
            for page in messages.iter().filter_map(|message| serde_json::from_str::<EventPage>(message.body.get()).ok()) {
                published.entry(page.run_id).or_default().extend(page.events.into_iter().map(|event| event.id));
            }
            let receipt = format!("receipt:{}:", scene.receipt().seq);
            let key = keys.get(&(scene.namespace.clone(), scene.key.clone())).map(|row| row.run);
            let tombstones: BTreeSet<&RunId> = buried.keys().filter(|run| ours(run)).collect();
            let workspaces: Vec<_> = workspaces.iter().filter(|row| ours(&row.run_id)).collect();
            let mut events: BTreeMap<RunId, Vec<Event>> =
                events.iter().filter(|(run, _)| ours(run)).map(|(run, events)| (*run, events.clone())).collect();
            events.values_mut().for_each(|events| events.sort_by_key(|event| event.seq));
            Self {
                states: states.iter().filter(|state| ours(&state.run.id)).cloned().collect(),
                events,
                published,
                receipts: messages.iter().map(|message| message.id.clone()).filter(|id| id.starts_with(&receipt)).collect(),
                rest: json!({"key": key, "alias": aliases.get(&scene.runs[1]), "tombstones": tombstones, "workspaces": workspaces}),
            }
        };
        scenes.iter().map(of_scene).collect()
    }

    /// What is wrong, whatever happened: the audit, times that go back, and messages that are not what was recorded.
    pub fn objections(&self, bench: &Bench) -> Vec<String> {
        let moment = Moment::new(bench.clock.look(), TimeDelta::hours(1));
        let mut found = Vec::new();
        for state in &self.states {
            let id = state.run.id;
            let events = self.events.get(&id).map(Vec::as_slice).unwrap_or_default();
            found.extend(audit::run(state, events, &moment).into_iter().map(|violation| violation.to_string()));
            if let Some(pair) = events.windows(2).find(|pair| pair[0].at > pair[1].at) {
                found.push(format!("{id}: event {} is older than the one before it", pair[1].seq));
            }
            let mut sent = self.published.get(&id).cloned().unwrap_or_default();
            sent.sort_by_key(|id| id.rsplit(':').next().and_then(|n| n.parse::<u64>().ok()));
            if !sent.iter().eq(events.iter().map(|event| &event.id)) {
                found.push(format!("{id}: {} events are recorded, these are published: {sent:?}", events.len()));
            }
            for slot in state.run.slots.iter().filter(|slot| slot.held) {
                let holds = |s: &&RunState| s.run.slots.iter().any(|other| other.held && other.key == slot.key);
                if self.states.iter().filter(holds).count() > slot.limit as usize {
                    found.push(format!("{id}: others hold the slot {} too", slot.key));
                }
            }
        }
        if self.receipts.len() > 1 {
            found.push(format!("a receipt is published more than once: {:?}", self.receipts));
        }
        found
    }

    /// Everything that is comparable.
    pub fn outcome(&self, scene: &Scene, told: &[Vec<Told>; 2]) -> Outcome {
        let plain = Plain::of(scene, &self.states);
        let run = |state: &RunState| {
            json!({"run": state.run, "steps": state.steps, "attempts": state.attempts, "events": self.events.get(&state.run.id),
                "timer": state.timer.map(hopyard_contract::time::format)})
        };
        let facts = json!({"runs": self.states.iter().map(run).collect::<Vec<_>>(), "rest": self.rest});
        Outcome { told: [&told[0], &told[1]].map(|told| plain.value(words(told))), facts: plain.value(facts) }
    }
}

/// Ends what is open and takes out of the outbox what is there, so that it comes up in no other race.
pub async fn end(bench: &Bench, scenes: &[&Scene], records: &[Records]) -> Result<(), String> {
    let mut asks = Vec::new();
    for (scene, records) in scenes.iter().zip(records) {
        for state in records.states.iter().filter(|state| !state.run.status.is_final()) {
            asks.push(scene.kill(state.run.id, 1).into());
            for attempt in state.live() {
                let id = AttemptId { run: state.run.id, step: attempt.step.clone(), n: attempt.n };
                asks.push(reports(vec![Report::Finished(scene.ended((id, attempt.token), Ending::Killed, 1000))]));
            }
        }
    }
    bench.ask(&Ask::all(asks)).await.map_err(|error| format!("what is open cannot be ended: {error}"))?;
    bench.publish().await;
    Ok(())
}

/// What somebody was told, over all times it asked.
fn words(told: &[Told]) -> Value {
    let mut answers = Vec::new();
    let mut grants = Vec::new();
    let mut effects: Vec<String> = Vec::new();
    for told in told {
        for answer in &told.answers {
            match answer {
                Answer::Claim(reply) => grants.extend(reply.grants.iter().map(|grant| json!(grant))),
                Answer::Accept(reply) => answers.push(json!(reply)),
                Answer::Renew(reply) => answers.push(json!(reply)),
                Answer::Pin(reply) => answers.push(json!(reply)),
                Answer::Kill(reply) => answers.push(json!(reply)),
                Answer::Answer(reply) => answers.push(json!(reply)),
                Answer::Resume(reply) => answers.push(json!(reply)),
                Answer::Hello(reply) => answers.push(json!(reply)),
                Answer::Workspaces(reply) => answers.push(json!(reply)),
                Answer::Done => {}
            }
        }
        let spoken = told.effects.iter().filter(|(_, effect)| !matches!(effect, Effect::Workspace(_)));
        effects.extend(spoken.map(|(run, effect)| format!("{run} {effect:?}")));
    }
    grants.sort_by_key(|grant| grant["attempt"].to_string());
    effects.sort();
    effects.dedup();
    json!({"answers": answers, "grants": grants, "effects": effects})
}

/// Takes out of texts what differs from race to race.
struct Plain {
    base: DateTime<Utc>,
    names: Vec<(String, String)>,
}

impl Plain {
    fn of(scene: &Scene, states: &[RunState]) -> Self {
        let mut names: Vec<(String, String)> = Vec::new();
        let mut name = |text: String, plain: String| names.push((text, plain));
        for (n, run) in scene.runs.iter().enumerate() {
            name(run.to_string(), format!("run{n}"));
        }
        for (claim, plain) in scene.claims.iter().zip(["claim0", "claim1", "claim0", "claim1", "claim before"]) {
            name(claim.to_string(), plain.to_owned());
        }
        for state in states {
            let run = scene.runs.iter().position(|id| *id == state.run.id).unwrap();
            for attempt in &state.attempts {
                name(attempt.token.to_string(), format!("token of run{run}.{}.{}", attempt.step, attempt.n));
            }
        }
        name(scene.key.clone(), "key".to_owned());
        name(scene.namespace.to_string(), "namespace".to_owned());
        name(scene.host.to_string(), "host".to_owned());
        for (n, pool) in scene.pools.iter().enumerate() {
            name(pool.to_string(), format!("pool{n}"));
        }
        Self { base: scene.base, names }
    }

    fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(values) => values.into_iter().map(|value| self.value(value)).collect(),
            // Lengths of time are those between other times.
            Value::Object(map) => Value::Object(
                map.into_iter().filter(|(key, _)| key != "duration_ms").map(|(key, value)| (key, self.value(value))).collect(),
            ),
            other => other,
        }
    }

    fn text(&self, text: String) -> String {
        match hopyard_contract::time::parse(&text) {
            Ok(at) => format!("{} s", (at - self.base).num_milliseconds().div_euclid(1000)),
            Err(_) => self.names.iter().fold(text, |text, (name, plain)| text.replace(name, plain)),
        }
    }
}

/// Whether both are the same but for what a repeated request is told: that it was made before.
pub fn same_but_repeated(what: Move, first: &Value, again: &Value) -> bool {
    let repeated =
        |value: &Value| value["answers"].to_string().replace("\"repeated\"", "\"requested\"").replace("\"already_final\"", "\"requested\"");
    match what {
        Move::Kill | Move::KillOther => repeated(first) == repeated(again),
        _ => first["answers"] == again["answers"] && first["grants"] == again["grants"],
    }
}
