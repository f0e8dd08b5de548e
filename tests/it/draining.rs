//! Ends in order: what a SIGTERM does to every service, and restarts one after the other while clients go on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::harness::api::{is_final, shell, step_of, steps};
use crate::harness::http::{Answer, Connection, Frames, send};
use crate::harness::leftovers::step_processes;
use crate::harness::wait::{eventually, holds};
use crate::harness::{Engine, Harness, Setup};

/// Starts something that goes on beside the test.
fn beside<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::runtime::Handle::current().spawn(work)
}

/// Warnings and errors of a service since it was told to stop.
fn complaints(harness: &mut Harness, service: &str) -> Vec<String> {
    let lines = harness.service(service).lines();
    let drain = lines.iter().position(|line| line["message"] == "told to stop: draining").expect("it says that it drains");
    let bad = lines.into_iter().skip(drain).filter(|line| matches!(line["level"].as_str(), Some("WARN" | "ERROR")));
    bad.map(|line| line.to_string()).collect()
}

/// Covers I3: each service, told to stop in the middle of its work, ends well and has nothing to complain about.
#[tokio::test]
async fn every_service_drains_without_a_complaint() {
    // A short lease would be overdue on a machine that is busy with other things, which is a complaint of its own.
    let mut harness = Harness::start(Setup { metrics: true, lease: "20s", renew: "5s", ..Setup::default() }).await;
    let gate = harness.dir().join("gate");
    let waiting = format!("until [ -e {} ]; do sleep 0.05; done", gate.display());
    let run = harness.submit(steps(json!([{ "id": "one", "shell": waiting }, { "id": "two", "needs": ["one"], "shell": "true" }]))).await;
    harness.wait_running(&run, "one").await;
    let mut events = harness.follow(&run, None).await;
    let (api, path) = (harness.api(), format!("/api/v1/runs/{run}?wait=60s&until=final"));
    let held = beside(async move { send(api, "GET", &path, &[], b"").await });
    assert!(events.next().await.is_some());
    // The executor gives its step back, the door lets its request and its stream end, and the others finish what they have.
    for service in ["executor-1", "janitor-1", "metrics", "ingest-1", "scheduler-1"] {
        harness.stop_service(service).await;
        assert_eq!(complaints(&mut harness, service), Vec::<String>::new(), "{service}");
    }
    let answer = held.await.unwrap().unwrap().expect(200);
    assert!(!is_final(&answer.json()), "who waits gets what is known");
    assert_eq!(answer.header("connection"), Some("close"));
    let mut last = None;
    while let Some(frame) = events.next().await {
        assert_ne!(frame.event, "end", "a stream that is cut off has no end, so that its reader comes back");
        last = frame.id.or(last);
    }
    for service in ["scheduler-1", "ingest-1", "metrics", "janitor-1", "executor-1"] {
        harness.start_service(service).await;
    }
    std::fs::write(&gate, "").unwrap();
    let state = harness.wait_completed(&run).await;
    let attempts = step_of(&state, "one")["attempts"].as_array().unwrap();
    assert_eq!((attempts.len(), attempts[1]["status"].as_str()), (2, Some("completed")), "{state:#}");
    let seen = last.as_deref().and_then(|id| id.parse::<usize>().ok()).unwrap_or(0);
    let rest = harness.follow(&run, last.as_deref()).await.rest().await;
    let numbers: Vec<usize> = rest.iter().filter_map(|frame| frame.id.as_deref()?.parse().ok()).collect();
    assert_eq!(numbers, (seen + 1..=harness.events(&run).await.len()).collect::<Vec<_>>(), "no event is missing and none comes twice");
    harness.close().await;
}

/// Covers I3: whoever does not want to wait says so once more.
#[tokio::test]
async fn a_second_signal_ends_a_service_at_once() {
    // Nothing here would end by itself within the patience of the test.
    let mut harness = Harness::start(Setup { grace: "10m", ..Setup::default() }).await;
    let run = harness.submit(shell("trap '' TERM; while :; do sleep 0.1; done")).await;
    harness.wait_running(&run, "main").await;
    let executor = harness.service("executor-1");
    executor.signal(Signal::SIGTERM);
    let admin = executor.admin();
    eventually("it drains", || async {
        let answer = send(admin, "GET", "/readyz", &[], b"").await.map_err(|e| e.to_string())?;
        holds(answer.status == 503 && answer.text().contains("draining"), answer.text())
    })
    .await;
    executor.signal(Signal::SIGTERM);
    let (code, words) = executor.ended().await;
    assert_eq!(code, Some(0), "{words}");
    assert!(words.contains("told to stop again"), "{words}");
    // A lease is over before a grace of minutes is.
    let dir = harness.dir().to_owned();
    eventually("its step ends with it", || async { holds(step_processes(&dir).is_empty(), format!("{:?}", step_processes(&dir))) }).await;
    harness.cancel(&run, json!({ "force": true })).await.expect(202);
    harness.start_service("executor-1").await;
    harness.wait_final(&run).await;
    harness.close().await;
}

/// Doors and their admin ports, as a load balancer knows them, and which of them it sends to now.
#[derive(Clone)]
struct Balancer {
    doors: Arc<Mutex<BTreeMap<String, (SocketAddr, SocketAddr)>>>,
    ready: watch::Receiver<Vec<SocketAddr>>,
}

impl Balancer {
    /// Asks every door again and again whether it is ready.
    fn start(doors: BTreeMap<String, (SocketAddr, SocketAddr)>) -> Self {
        let doors = Arc::new(Mutex::new(doors));
        let (tell, ready) = watch::channel(Vec::new());
        let known = doors.clone();
        beside(async move {
            loop {
                let all: Vec<_> = known.lock().unwrap().values().copied().collect();
                let mut found = Vec::new();
                for (http, admin) in all {
                    if send(admin, "GET", "/readyz", &[], b"").await.is_ok_and(|answer| answer.status == 200) {
                        found.push(http);
                    }
                }
                if tell.send(found).is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Self { doors, ready }
    }

    fn put(&self, name: &str, http: SocketAddr, admin: SocketAddr) {
        self.doors.lock().unwrap().insert(name.to_owned(), (http, admin));
    }

    /// The `n`-th of the ready doors.
    async fn door(&mut self, n: usize) -> SocketAddr {
        let ready = self.ready.wait_for(|ready| !ready.is_empty()).await.unwrap();
        ready[n % ready.len()]
    }
}

/// Covers I1: whatever the bus had handed to a scheduler is worked off before it ends, and waits for no second delivery.
#[tokio::test]
async fn what_a_scheduler_was_handed_is_done_before_it_ends() {
    const MESSAGES: u64 = 20;
    let busy = vec![("FAILPOINTS", "scheduler.reports.taken=delay(3000)".to_owned())];
    let mut harness = Harness::start(Setup { executors: 0, settings: busy, ..Setup::default() }).await;
    let mut bus = harness.bus().await;
    for _ in 0..MESSAGES {
        bus.store("hopyard.result.nobody", &[], b"no JSON").await;
    }
    let consumer = "$JS.API.CONSUMER.INFO.HOPYARD_RESULT.scheduler";
    while bus.request(consumer, &[], b"").await.json()["delivered"]["stream_seq"] != MESSAGES {
        tokio::task::yield_now().await;
    }
    harness.stop_service("scheduler-1").await;
    assert_eq!(bus.unsettled("HOPYARD_RESULT", "scheduler").await, Ok(0));
    harness.start_service("scheduler-1").await;
    let kept = send(harness.api(), "GET", "/api/v1/dead-letters?limit=100", &[], b"").await.unwrap().expect(200).json();
    assert_eq!(kept["items"].as_array().map(Vec::len), Some(MESSAGES as usize), "{kept:#}");
    harness.close().await;
}

/// A client that keeps its connection, and sends again only when a kept connection was closed under its request.
struct Client {
    balancer: Balancer,
    n: usize,
    kept: Option<(SocketAddr, Connection)>,
}

impl Client {
    async fn ask(&mut self, method: &str, path: &str, body: &Value) -> Answer {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        for _ in 0..2 {
            let ready = self.balancer.door(self.n).await;
            self.n += 1;
            let kept = self.kept.take().filter(|(door, _)| self.balancer.ready.borrow().contains(door));
            let was_kept = kept.is_some();
            let (door, mut connection) = match kept {
                Some(kept) => kept,
                None => (ready, Connection::open(ready).await.unwrap_or_else(|e| panic!("{method} {path}: {ready} refuses: {e}"))),
            };
            match connection.ask(method, path, &[("Content-Type", "application/json")], text.as_bytes()).await {
                Ok(answer) => {
                    assert!(answer.status < 500, "{method} {path}: {} {}", answer.status, answer.text());
                    if answer.header("connection") != Some("close") {
                        self.kept = Some((door, connection));
                    }
                    return answer;
                }
                Err(error) => assert!(was_kept, "{method} {path}: a new connection to {door} broke: {error}"),
            }
        }
        panic!("{method} {path}: a new connection was not tried");
    }

    /// Submits a run and follows it until it has ended.
    async fn carry_out(&mut self, key: &str) -> Value {
        // Stored before: a definition in the request would need a scheduler at once.
        let request = json!({ "workflow": "short", "idempotency_key": key });
        let answer = self.ask("POST", "/api/v1/runs", &request).await;
        assert!(matches!(answer.status, 200..=202), "{} {}", answer.status, answer.text());
        let run = answer.json()["run_id"].as_str().unwrap().to_owned();
        loop {
            let answer = self.ask("GET", &format!("/api/v1/runs/{run}?wait=5s&until=final"), &Value::Null).await;
            // Only the bus took it so far: the scheduler makes it of that.
            let not_yet = answer.status == 404;
            let state = answer.json();
            if !not_yet && is_final(&state) {
                return state;
            }
        }
    }
}

/// Covers I1, I3: every service is restarted while clients submit and follow; no run fails, no client sees a refusal.
#[tokio::test]
async fn a_rolling_restart_under_load_fails_no_run_and_refuses_no_client() {
    let two = Setup { schedulers: 2, doors: 2, executors: 2, hosts: 2, metrics: true, ..Setup::on(Engine::Postgres) };
    let order = ["ingest-1", "scheduler-1", "executor-1", "ingest-2", "scheduler-2", "executor-2", "janitor-1", "janitor-2", "metrics"];
    restart_in_order(two, &order).await;
}

/// Covers I1, I3: the same where there is one scheduler; while it is away the bus keeps what comes.
#[tokio::test]
async fn a_restart_of_the_only_scheduler_refuses_no_client() {
    let one = Setup { doors: 2, executors: 2, hosts: 2, ..Setup::default() };
    restart_in_order(one, &["scheduler-1", "executor-1", "ingest-1", "scheduler-1", "executor-2", "ingest-2"]).await;
}

/// Restarts services one after the other while clients submit and follow.
async fn restart_in_order(setup: Setup, order: &[&str]) {
    const CLIENTS: usize = 6;
    const RUNS: usize = 50;
    let settings = vec![("DRAIN_DELAY", "2s".to_owned())];
    let mut harness = Harness::start(Setup { settings, ..setup }).await;
    let script = "sleep 0.05; echo done=$HOPYARD_STEP >> $HOPYARD_OUTPUT";
    let text = format!("version: 1\nname: short\nworkspace: {{mode: none}}\nsteps:\n  - id: main\n    shell: {script}\n");
    harness.put_workflow("short", &text).await.expect(201);
    let mut doors = BTreeMap::new();
    for name in ["ingest-1", "ingest-2"] {
        let door = harness.service(name);
        doors.insert(name.to_owned(), (door.http(), door.admin()));
    }
    let balancer = Balancer::start(doors);
    let done = watch::Sender::new(0usize);
    let mut clients = JoinSet::new();
    for n in 0..CLIENTS {
        let (mut client, done) = (Client { balancer: balancer.clone(), n, kept: None }, done.clone());
        clients.spawn(async move {
            let mut ends = Vec::new();
            for i in 0..RUNS {
                ends.push(client.carry_out(&format!("client-{n}-{i}")).await);
                done.send_modify(|done| *done += 1);
            }
            ends
        });
    }
    let mut ends = Vec::new();
    let mut progress = done.subscribe();
    for (i, name) in order.iter().copied().enumerate() {
        // Spread over the load: each restart meets clients at work.
        let from = i * CLIENTS * RUNS / (order.len() + 1);
        while *progress.borrow_and_update() < from {
            tokio::select! {
                more = progress.changed() => more.unwrap(),
                // One that has failed ends the test here.
                Some(client) = clients.join_next() => ends.extend(client.unwrap()),
            }
        }
        harness.stop_service(name).await;
        assert_eq!(complaints(&mut harness, name), Vec::<String>::new(), "{name}");
        harness.start_service(name).await;
        if name.starts_with("ingest") {
            let door = harness.service(name);
            balancer.put(name, door.http(), door.admin());
        }
    }
    while let Some(client) = clients.join_next().await {
        ends.extend(client.unwrap());
    }
    let mut ids = BTreeSet::new();
    for state in ends {
        assert_eq!(state["status"], "completed", "{state:#}");
        ids.insert(state["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), CLIENTS * RUNS, "every submission is a run of its own");
    // What the bus sends to a scheduler that leaves at that moment comes again after 30 s.
    harness.close_after_faults().await;
}

/// Covers K3: a reader whose door closes goes on at another one, without a gap and without a repeat.
#[tokio::test]
async fn a_stream_goes_on_at_another_door() {
    let mut harness = Harness::start(Setup { doors: 2, ..Setup::default() }).await;
    let gate = harness.dir().join("gate");
    let waiting = format!("until [ -e {} ]; do sleep 0.05; done", gate.display());
    let run = harness.submit(steps(json!([{ "id": "one", "shell": waiting }, { "id": "two", "needs": ["one"], "shell": "true" }]))).await;
    harness.wait_running(&run, "one").await;
    let path = format!("/api/v1/runs/{run}/events");
    let (first, second) = (harness.service("ingest-1").http(), harness.service("ingest-2").http());
    let mut stream = Frames::open(first, &path, None).await;
    let mut numbers: Vec<usize> = Vec::new();
    let number = |id: Option<String>| id.and_then(|id| id.parse::<usize>().ok());
    while numbers.len() < harness.events(&run).await.len() {
        numbers.extend(number(stream.next().await.unwrap().id));
    }
    harness.stop_service("ingest-1").await;
    while let Some(frame) = stream.next().await {
        assert_ne!(frame.event, "end");
        numbers.extend(number(frame.id));
    }
    std::fs::write(&gate, "").unwrap();
    let last = numbers.last().map(ToString::to_string);
    numbers.extend(Frames::open(second, &path, last.as_deref()).await.rest().await.into_iter().filter_map(|frame| number(frame.id)));
    harness.wait_completed(&run).await;
    assert_eq!(numbers, (1..=harness.events(&run).await.len()).collect::<Vec<_>>());
    harness.close().await;
}
