//! What tests ask of a stack over its API: submit, wait, read.

use std::path::Path;

use serde_json::{Value, json};

use super::Harness;
use super::http::{self, Answer, Frames};

/// A submission of an inline definition.
pub fn definition(text: &str) -> Value {
    json!({ "definition": text })
}

/// A definition of one shell step named `main`, in a scratch directory.
pub fn shell(script: &str) -> Value {
    steps(json!([{ "id": "main", "shell": script }]))
}

/// A definition with these steps and no repository.
pub fn steps(steps: Value) -> Value {
    json!({ "definition": { "version": 1, "name": "test", "workspace": { "mode": "none" }, "steps": steps } })
}

/// A definition with these steps that works on a repository.
pub fn on_repo(repo: &Path, steps: Value) -> Value {
    json!({
        "definition": { "version": 1, "name": "test", "steps": steps },
        "repo": { "url": repo.display().to_string() },
    })
}

impl Harness {
    /// Sends a request with a JSON body, or none for null.
    pub async fn http(&self, method: &str, path: &str, body: Value) -> Answer {
        self.http_with(method, path, &[], body).await
    }

    /// As [`Harness::http`], with further headers.
    pub async fn http_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        let mut headers = headers.to_vec();
        let text = if body.is_null() { String::new() } else { body.to_string() };
        if !body.is_null() {
            headers.push(("Content-Type", "application/json"));
        }
        let sent = http::send(self.api(), method, path, &headers, text.as_bytes()).await;
        sent.unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// Reads a path that has to be there.
    pub async fn get(&self, path: &str) -> Value {
        self.http("GET", path, Value::Null).await.expect(200).json()
    }

    /// Submits a run that has to be accepted, and returns its id.
    pub async fn submit(&self, request: Value) -> String {
        let answer = self.http("POST", "/api/v1/runs", request).await.expect(201).json();
        answer["run_id"].as_str().expect("an accepted run has an id").to_owned()
    }

    /// Stores a workflow.
    pub async fn put_workflow(&self, name: &str, yaml: &str) -> Answer {
        let headers = [("Content-Type", "application/yaml")];
        http::send(self.api(), "PUT", &format!("/api/v1/workflows/{name}"), &headers, yaml.as_bytes()).await.unwrap()
    }

    /// The run as it is.
    pub async fn run(&self, run: &str) -> Value {
        self.get(&format!("/api/v1/runs/{run}")).await
    }

    /// Waits until a run has ended, and returns it.
    pub async fn wait_final(&self, run: &str) -> Value {
        for _ in 0..4 {
            let state = self.get(&format!("/api/v1/runs/{run}?wait=30s&until=final")).await;
            if is_final(&state) {
                return state;
            }
        }
        panic!("the run goes on: {}", self.run(run).await);
    }

    /// Waits until a run has completed, and returns it.
    pub async fn wait_completed(&self, run: &str) -> Value {
        let state = self.wait_final(run).await;
        assert_eq!(state["status"], "completed", "{state:#}");
        state
    }

    /// Submits a run, and waits until it has ended.
    pub async fn finish(&self, request: Value) -> Value {
        let run = self.submit(request).await;
        self.wait_final(&run).await
    }

    /// Waits, event by event, until the run is as `wanted` says, and returns it; it fails if the run ends before.
    pub async fn wait_for(&self, run: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut events = self.follow(run, None).await;
        loop {
            let event = events.next().await.expect("an event stream ends with `end`");
            let state = self.run(run).await;
            if wanted(&state) {
                return state;
            }
            assert!(event.event != "end", "the run ended without it: {state:#}");
        }
    }

    /// Waits until a step runs.
    pub async fn wait_running(&self, run: &str, step: &str) -> Value {
        self.wait_for(run, |state| step_of(state, step)["status"] == "running").await
    }

    /// Opens the event stream of a run.
    pub async fn follow(&self, run: &str, last: Option<&str>) -> Frames {
        Frames::open(self.api(), &format!("/api/v1/runs/{run}/events"), last).await
    }

    /// Events of a run so far; their numbers have to be 1, 2, 3 and so on.
    pub async fn events(&self, run: &str) -> Vec<Value> {
        let mut events: Vec<Value> = Vec::new();
        loop {
            let path = format!("/api/v1/runs/{run}/events?after={}", events.len());
            let page = self.http_with("GET", &path, &[("Accept", "application/json")], Value::Null).await.expect(200).json();
            let items = page["items"].as_array().expect("a page has items");
            if items.is_empty() {
                break;
            }
            events.extend(items.iter().cloned());
        }
        for (i, event) in events.iter().enumerate() {
            assert_eq!(event["seq"], i + 1, "events are numbered without gaps");
            assert_eq!(event["run_id"], run);
        }
        events
    }

    /// Types of the events of a run, in order.
    pub async fn event_types(&self, run: &str) -> Vec<String> {
        self.events(run).await.iter().map(|e| e["type"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The whole log of an attempt, or that of one of its streams.
    pub async fn log(&self, run: &str, step: &str, attempt: u32, stream: &str) -> Vec<u8> {
        let mut log = Vec::new();
        let mut from = 0u64;
        loop {
            let only = if stream.is_empty() { String::new() } else { format!("&stream={stream}") };
            let path = format!("/api/v1/runs/{run}/steps/{step}/attempts/{attempt}/logs?from={from}&limit=8388608{only}");
            let answer = self.http("GET", &path, Value::Null).await.expect(200);
            let next = answer.header("hopyard-log-next").and_then(|n| n.parse().ok()).expect("a log says where it goes on");
            log.extend(&answer.body);
            if answer.header("hopyard-log-complete") == Some("true") {
                return log;
            }
            assert!(next > from, "a log that is not complete goes on");
            from = next;
        }
    }

    /// What the first attempt of a step has written so far, as text.
    pub async fn log_so_far(&self, run: &str, step: &str) -> String {
        let path = format!("/api/v1/runs/{run}/steps/{step}/attempts/1/logs");
        self.http("GET", &path, Value::Null).await.text()
    }

    /// What a step wrote to its standard output, as text.
    pub async fn stdout(&self, run: &str, step: &str) -> String {
        String::from_utf8(self.log(run, step, 1, "stdout").await).expect("the step wrote UTF-8")
    }

    /// Cancels a run.
    pub async fn cancel(&self, run: &str, body: Value) -> Answer {
        self.http("POST", &format!("/api/v1/runs/{run}/cancel"), body).await
    }
}

/// Whether a run has ended.
pub fn is_final(run: &Value) -> bool {
    matches!(run["status"].as_str(), Some("completed" | "failed" | "killed"))
}

/// A step of a run; null if it has none of that name.
pub fn step_of<'a>(run: &'a Value, step: &str) -> &'a Value {
    run["steps"].as_array().and_then(|steps| steps.iter().find(|s| s["id"] == step)).unwrap_or(&Value::Null)
}
