//! Clients of all doors: they submit, cancel, read and follow until they are told to stop, and write down what they are told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::follower;
use super::journal::{Cancel, Journal, Promise};
use super::workload::{Kind, Places};
use crate::harness::api::is_final;
use crate::harness::bus::Bus;
use crate::harness::dice::Dice;
use crate::harness::http;

/// Longest wait of a client for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Runs under way at which clients wait before they submit more.
const CROWD: usize = 200;
/// Runs of one batch.
const BATCH: usize = 15;

/// What all clients share.
#[derive(Debug)]
pub struct World {
    /// Addresses of the API, which take turns.
    pub doors: Vec<SocketAddr>,
    /// How often a door was chosen.
    pub turns: AtomicUsize,
    /// Address of the bus.
    pub bus: SocketAddr,
    /// What runs need.
    pub places: Places,
    /// What was seen.
    pub journal: Journal,
    /// Told when clients shall stop.
    pub stop: CancellationToken,
    /// So much is under way that clients wait.
    pub crowded: AtomicBool,
    /// Seed of all choices.
    pub seed: u64,
    /// Clients that have not ended yet.
    pub clients: AtomicUsize,
}

/// A way in.
#[derive(Clone, Copy, Debug)]
enum Door {
    Http,
    Batch,
    Api,
    Cmd,
}

impl World {
    /// All clients, until they are told to stop; those that follow end with the runs they follow.
    pub async fn clients(&self, each: u64) {
        let mut all: Vec<futures::future::BoxFuture<'_, ()>> = Vec::new();
        let mut lane = 0;
        for door in [Door::Http, Door::Batch, Door::Api, Door::Cmd] {
            for _ in 0..each {
                lane += 1;
                all.push(Box::pin(self.submit_for_ever(door, lane)));
            }
        }
        for _ in 0..each {
            lane += 1;
            all.push(Box::pin(self.cancel_for_ever(lane)));
            all.push(Box::pin(self.read_for_ever(lane + 1000)));
            all.push(Box::pin(follower::follow_for_ever(self, lane + 2000)));
        }
        all.push(Box::pin(self.watch_the_crowd()));
        all.push(Box::pin(self.poison_for_ever()));
        self.clients.store(all.len(), Ordering::Relaxed);
        let counted = all.into_iter().map(|client| async {
            client.await;
            self.clients.fetch_sub(1, Ordering::Relaxed);
        });
        futures::future::join_all(counted).await;
    }

    /// Whether every client has ended after it was told to stop.
    pub fn is_over(&self) -> bool {
        self.stop.is_cancelled() && self.clients.load(Ordering::Relaxed) == 0
    }

    /// How many of the newest runs are under way; `None` when nobody says.
    pub async fn live(&self) -> Option<usize> {
        let mut live = 0;
        for status in ["pending", "running", "paused"] {
            let path = format!("/api/v1/runs?limit=200&status={status}");
            let answer = self.http("GET", &path, &[], &Value::Null).await.filter(|a| a.status == 200)?;
            live += answer.json()["items"].as_array()?.len();
        }
        Some(live)
    }

    /// The next door, as a balancer that knows nothing of their health would choose it.
    pub fn door(&self) -> SocketAddr {
        self.doors[self.turns.fetch_add(1, Ordering::Relaxed) % self.doors.len()]
    }

    /// A request; `None` when there was no whole answer.
    pub async fn http(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Option<http::Answer> {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let mut headers = headers.to_vec();
        if !body.is_null() {
            headers.push(("Content-Type", "application/json"));
        }
        let answer = tokio::time::timeout(PATIENCE, http::send(self.door(), method, path, &headers, text.as_bytes())).await.ok()?.ok()?;
        // A problem of the server's own is one of 503; anything else would be a fault of ours.
        if answer.status >= 500 && answer.status != 503 {
            self.journal.violation(format!("{method} {path}: {} {}", answer.status, answer.text()));
        }
        Some(answer)
    }

    /// Waits a moment; false when it is time to stop.
    pub async fn pause(&self, span: Duration) -> bool {
        self.stop.run_until_cancelled(tokio::time::sleep(span)).await.is_some()
    }

    async fn submit_for_ever(&self, door: Door, lane: u64) {
        let mut dice = Dice::new(self.seed, lane);
        let mut n = 0;
        while self.pause(dice.span(20, 250)).await {
            if self.crowded.load(Ordering::Relaxed) {
                continue;
            }
            n += 1;
            let op = format!("{door:?}-{lane}-{n}");
            match door {
                Door::Http => self.submit_one(&mut dice, &op).await,
                Door::Batch => self.submit_many(&mut dice, &op).await,
                Door::Api => self.submit_by_request(&mut dice, &op).await,
                Door::Cmd => self.submit_by_stream(&mut dice, &op).await,
            }
        }
    }

    async fn submit_one(&self, dice: &mut Dice, op: &str) {
        let body = Kind::draw(dice).request(dice, &self.places, op);
        let keyed = dice.one_in(2);
        let headers: &[(&str, &str)] = if keyed { &[("Idempotency-Key", op)] } else { &[] };
        // Without a key, a second try could be a second run.
        for _ in 0..if keyed { 8 } else { 1 } {
            self.journal.note("invoke", op, json!("http"));
            let began = Instant::now();
            let answer = self.http("POST", "/api/v1/runs", headers, &body).await;
            let Some(answer) = answer else {
                self.journal.note("info", op, json!("no answer"));
                self.pause(dice.span(100, 500)).await;
                continue;
            };
            self.journal.seen().answers.push(began.elapsed());
            if self.on_answer(op, &answer, keyed) {
                return;
            }
            self.pause(dice.span(100, 500)).await;
        }
    }

    /// Notes an answer to one run; false when it is not known what became of it.
    fn on_answer(&self, op: &str, answer: &http::Answer, keyed: bool) -> bool {
        let body = answer.json();
        let run = body["run_id"].as_str();
        match (answer.status, body["code"].as_str()) {
            (200 | 201, _) => {
                self.journal.note("ok", op, json!(run));
                self.journal.promised(op, run, Promise::Committed);
                true
            }
            (202, _) => {
                self.journal.note("ok", op, json!({ "run": run, "committed": false }));
                self.journal.promised(op, run, Promise::OnBus);
                true
            }
            (503, Some("outcome_unknown")) => {
                self.journal.note("info", op, body.clone());
                false
            }
            // Surely not taken now; with a key an earlier try may have been.
            (503 | 429, Some(_)) => {
                self.journal.note("fail", op, body["code"].clone());
                if !keyed {
                    self.journal.seen().refused.insert(op.to_owned());
                }
                false
            }
            (status, _) => {
                self.journal.violation(format!("{op}: {status} {body}"));
                true
            }
        }
    }

    async fn submit_many(&self, dice: &mut Dice, op: &str) {
        let ops: Vec<String> = (0..BATCH).map(|i| format!("{op}-{i}")).collect();
        let runs: Vec<Value> = ops.iter().map(|op| Kind::draw(dice).request(dice, &self.places, op)).collect();
        self.journal.note("invoke", op, json!("batch"));
        let began = Instant::now();
        let Some(answer) = self.http("POST", "/api/v1/runs/batch", &[], &json!({ "runs": runs })).await else {
            return self.journal.note("info", op, json!("no answer"));
        };
        self.journal.seen().answers.push(began.elapsed());
        let body = answer.json();
        let promise = if answer.status == 200 { Promise::Committed } else { Promise::OnBus };
        match answer.status {
            200 | 202 => self.on_items(&ops, &body["items"], promise),
            503 | 429 => self.journal.note("fail", op, body["code"].clone()),
            status => self.journal.violation(format!("{op}: {status} {body}")),
        }
    }

    fn on_items(&self, ops: &[String], items: &Value, promise: Promise) {
        for (op, item) in ops.iter().zip(items.as_array().into_iter().flatten()) {
            match item["status"].as_str() {
                Some("accepted" | "duplicate") => {
                    self.journal.note("ok", op, item["run_id"].clone());
                    self.journal.promised(op, item["run_id"].as_str(), promise);
                }
                _ => self.journal.violation(format!("{op}: {item}")),
            }
        }
    }

    async fn submit_by_request(&self, dice: &mut Dice, op: &str) {
        let body = Kind::draw(dice).request(dice, &self.places, op).to_string();
        for _ in 0..8 {
            self.journal.note("invoke", op, json!("api"));
            let began = Instant::now();
            let asked = async {
                let mut bus = Bus::open(self.bus).await?;
                bus.ask("hopyard.api.submit.default", &[("Hopyard-Idempotency-Key", op)], body.as_bytes()).await
            };
            let answer = match tokio::time::timeout(PATIENCE, asked).await {
                Ok(Ok(message)) => serde_json::from_slice::<Value>(&message.body).unwrap_or_default(),
                _ => Value::Null,
            };
            if let Some(item) = answer["items"].get(0) {
                self.journal.seen().answers.push(began.elapsed());
                let promise = if answer["committed"] == false { Promise::OnBus } else { Promise::Committed };
                return self.on_items(&[op.to_owned()], &json!([item]), promise);
            }
            self.journal.note("info", op, answer);
            if !self.pause(dice.span(100, 500)).await {
                return;
            }
        }
    }

    async fn submit_by_stream(&self, dice: &mut Dice, op: &str) {
        let body = Kind::draw(dice).request(dice, &self.places, op).to_string();
        self.journal.note("invoke", op, json!("cmd"));
        let key = ("Hopyard-Idempotency-Key", op);
        let Some(sequence) = self.store("hopyard.cmd.submit.default", &[key], body.as_bytes()).await else {
            return self.journal.note("info", op, json!("no acknowledgement"));
        };
        self.journal.note("ok", op, json!({ "seq": sequence }));
        self.journal.promised(op, None, Promise::OnBus);
    }

    /// Publishes into a stream; the sequence if it was acknowledged.
    async fn store(&self, subject: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<u64> {
        let stored = async {
            let mut bus = Bus::open(self.bus).await?;
            bus.ask(subject, headers, body).await
        };
        let answer = tokio::time::timeout(Duration::from_secs(5), stored).await.ok()?.ok()?;
        serde_json::from_slice::<Value>(&answer.body).ok()?["seq"].as_u64()
    }

    /// A run that somebody was promised.
    pub fn known_run(&self, dice: &mut Dice) -> Option<String> {
        let seen = self.journal.seen();
        let recent: Vec<&String> = seen.promised.values().rev().filter_map(|p| p.run.as_ref()).collect();
        if recent.is_empty() { None } else { Some((*dice.pick(&recent)).clone()) }
    }

    async fn cancel_for_ever(&self, lane: u64) {
        let mut dice = Dice::new(self.seed, lane);
        let mut n = 0;
        while self.pause(dice.span(150, 900)).await {
            n += 1;
            let op = format!("Cancelled-{lane}-{n}");
            let body = Kind::Long.request(&mut dice, &self.places, &op);
            self.journal.note("invoke", &op, json!("http"));
            let Some(answer) = self.http("POST", "/api/v1/runs", &[], &body).await else { continue };
            self.on_answer(&op, &answer, false);
            let Some(run) = answer.json()["run_id"].as_str().map(str::to_owned) else { continue };
            self.pause(dice.span(0, 1500)).await;
            if dice.one_in(4) {
                let order = json!({ "v": 1, "run_id": run, "reason": "chaos" }).to_string();
                self.store("hopyard.cmd.cancel.default", &[], order.as_bytes()).await;
                continue;
            }
            self.cancel(&run).await;
        }
    }

    /// Cancels a run and waits until it is gone, at most until a minute after the storm.
    async fn cancel(&self, run: &str) {
        let path = format!("/api/v1/runs/{run}/cancel");
        self.journal.note("invoke", "cancel", json!(run));
        let Some(answer) = self.http("POST", &path, &[], &json!({ "reason": "chaos" })).await else {
            return self.journal.note("info", "cancel", json!(run));
        };
        let answered = Instant::now();
        let body = answer.json();
        match answer.status {
            202 => {}
            409 => return self.journal.read(&body["run"]),
            503 | 429 => return self.journal.note("fail", "cancel", json!(run)),
            status => return self.journal.violation(format!("cancel {run}: {status} {body}")),
        }
        let committed = body["committed"] != false;
        self.journal.note("ok", "cancel", json!({ "run": run, "committed": committed }));
        let mut gone_after = None;
        // As long as things fail there is no bound: what a process had been told and not acknowledged comes again after 30 s, and
        // the next one may be killed with it.
        let mut calm_since = answered;
        while calm_since.elapsed() < Duration::from_secs(60) {
            if !self.stop.is_cancelled() {
                calm_since = Instant::now();
            }
            let state = self.http("GET", &format!("/api/v1/runs/{run}?wait=10s&until=final"), &[], &Value::Null).await;
            match state.map(|a| a.json()).filter(is_final) {
                Some(state) => {
                    gone_after = Some(answered.elapsed());
                    self.journal.read(&state);
                    break;
                }
                None => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        self.journal.seen().cancels.push(Cancel { run: run.to_owned(), committed, gone_after });
    }

    /// Reads runs again and again: an end that was seen once stays.
    async fn read_for_ever(&self, lane: u64) {
        let mut dice = Dice::new(self.seed, lane);
        while self.pause(dice.span(50, 300)).await {
            let Some(run) = self.known_run(&mut dice) else { continue };
            if let Some(answer) = self.http("GET", &format!("/api/v1/runs/{run}"), &[], &Value::Null).await
                && answer.status == 200
            {
                self.journal.read(&answer.json());
            }
        }
    }

    /// Bodies that nobody can read, in front of those that can be.
    async fn poison_for_ever(&self) {
        while self.pause(Duration::from_secs(4)).await {
            self.store("hopyard.cmd.submit.default", &[], b"{\"v\":1,").await;
        }
    }

    async fn watch_the_crowd(&self) {
        while self.pause(Duration::from_millis(500)).await {
            if let Some(live) = self.live().await {
                self.crowded.store(live >= CROWD, Ordering::Relaxed);
            }
        }
    }
}
