//! Sends a row through each of its doors and says where the answer is another one.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::table::{Http, Input, Row};
use crate::harness::Harness;
use crate::harness::bus::Bus;
use crate::harness::http::{self, Answer};

const RUNS: &str = "/api/v1/runs";
const JSON: (&str, &str) = ("Content-Type", "application/json");
const YAML: (&str, &str) = ("Content-Type", "application/yaml");

/// Sends rows, and keeps what was wrong.
pub struct Doors<'a> {
    harness: &'a Harness,
    bus: Bus,
    /// A run that is there, and one that has ended, for paths.
    runs: (String, String),
    /// Commands whose receipts are read at the end: by sequence, the row, its body, and whether it becomes a dead letter.
    commands: BTreeMap<u64, (Row, Vec<u8>, bool)>,
    /// Answers that are not the expected ones.
    pub wrong: Vec<String>,
    /// Answers that were looked at.
    pub answers: usize,
}

impl<'a> Doors<'a> {
    /// Doors of a stack, and the two runs that paths may name.
    pub async fn open(harness: &'a Harness, live: &str, ended: &str) -> Self {
        let runs = (live.to_owned(), ended.to_owned());
        Self { harness, bus: harness.bus().await, runs, commands: BTreeMap::new(), wrong: Vec::new(), answers: 0 }
    }

    /// Sends a row through all of its doors.
    pub async fn ask(&mut self, row: &Row) {
        match &row.input {
            Input::Body(body) => {
                for path in [RUNS, "/api/v1/runs/batch"] {
                    let answer = self.send("POST", path, &[JSON], body).await;
                    self.problem(row, path, &answer);
                }
                let reply = self.bus.request("hopyard.api.submit.default", &[], body).await.json();
                self.check(row, "immediate", &reply["problem"]);
                self.command(row, body.clone(), true).await;
            }
            Input::Run(text) => self.run(row, text).await,
            Input::Definition(text) => {
                let answer = self.send("PUT", "/api/v1/workflows/bad", &[YAML], text.as_bytes()).await;
                self.problem(row, "put", &answer);
                let parsed = self.send("POST", "/api/v1/workflows/parse", &[YAML], text.as_bytes()).await;
                if parsed.status != 200 || parsed.json()["valid"] != false {
                    self.wrong.push(format!("{}: parse says {} {}", row.shown(), parsed.status, parsed.text()));
                }
                self.check(row, "parse", &parsed.json()["errors"][0]);
                let inline = Row { pointer: format!("/definition{}", row.pointer).into(), ..row.clone() };
                self.run(&inline, &json!({ "definition": text }).to_string()).await;
            }
            Input::Http(request) => {
                let answer = self.request(request).await;
                self.problem(row, "http", &answer);
            }
            Input::Raw(bytes) => match http::raw(self.harness.api(), bytes).await {
                Ok(answer) => self.problem(row, "raw", &answer),
                Err(error) => self.wrong.push(format!("{}: no answer: {error}", row.shown())),
            },
        }
    }

    async fn run(&mut self, row: &Row, text: &str) {
        let answer = self.send("POST", RUNS, &[JSON], text.as_bytes()).await;
        self.problem(row, "single", &answer);
        let batch = self.send("POST", "/api/v1/runs/batch", &[JSON], format!(r#"{{"runs":[{text}]}}"#).as_bytes()).await;
        let items = batch.json()["items"].clone();
        if batch.status != 200 || items[0]["status"] != "rejected" {
            self.wrong.push(format!("{}: a batch says {} {}", row.shown(), batch.status, batch.text()));
        }
        self.check(row, "batch", &items[0]["errors"][0]);
        let reply = self.bus.request("hopyard.api.submit.default", &[], text.as_bytes()).await.json();
        self.check(row, "immediate", &reply["items"][0]["errors"][0]);
        self.command(row, text.as_bytes().to_vec(), false).await;
    }

    async fn command(&mut self, row: &Row, body: Vec<u8>, dead: bool) {
        self.stored("hopyard.cmd.submit.default", row, body, dead).await;
    }

    /// Stores a command whose receipt has to refuse it as the row says; `dead` if its bytes become a dead letter.
    pub async fn stored(&mut self, subject: &str, row: &Row, body: Vec<u8>, dead: bool) {
        let sequence = self.bus.store(subject, &[], &body).await;
        self.commands.insert(sequence, (row.clone(), body, dead));
    }

    /// Sends the request of a row.
    pub async fn request(&self, request: &Http) -> Answer {
        let path = request.path.replace("{run}", &self.runs.0).replace("{final}", &self.runs.1);
        let headers: Vec<(&str, &str)> = request.headers.iter().map(|(name, value)| (*name, value.as_ref())).collect();
        self.send(request.method, &path, &headers, &request.body).await
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        http::send(self.harness.api(), method, path, headers, body).await.unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// Compares an HTTP answer: status, form, request id, code and pointer.
    fn problem(&mut self, row: &Row, door: &str, answer: &Answer) {
        let told = answer.json();
        let framed = row.code.is_empty()
            || (answer.header("content-type") == Some("application/problem+json")
                && answer.header("x-request-id") == told["request_id"].as_str()
                && told["type"] == format!("https://hopyard.dev/problems/{}", row.code)
                && told["status"] == row.status
                && told["title"] == title(row.status));
        if answer.status != row.status || !framed {
            self.wrong.push(format!("{} ({door}): {} was expected: {} {}", row.shown(), row.status, answer.status, answer.text()));
        }
        // What is allowed instead stands in a header.
        if answer.status == 405 && answer.header("allow").is_none_or(str::is_empty) {
            self.wrong.push(format!("{} ({door}): a 405 without Allow", row.shown()));
        }
        if answer.text().contains(SECRET) {
            self.wrong.push(format!("{} ({door}): the answer repeats a secret", row.shown()));
        }
        self.check(row, door, &told);
    }

    /// Compares code and pointer of a problem or of an error in a verdict.
    fn check(&mut self, row: &Row, door: &str, told: &Value) {
        self.answers += 1;
        let found = (told["code"].as_str().unwrap_or_default(), told["pointer"].as_str().unwrap_or_default());
        if found != (row.code, &row.pointer) {
            self.wrong.push(format!("{} ({door}): {} at {:?} was expected: {told}", row.shown(), row.code, row.pointer));
        }
    }

    /// Waits for the receipts of all commands and compares them and the dead letters; returns how many there are of each.
    pub async fn receipts(&mut self) -> (usize, usize) {
        let commands = std::mem::take(&mut self.commands);
        let total = commands.len();
        let mut dead: BTreeMap<u64, (&'static str, Vec<u8>)> = BTreeMap::new();
        for (sequence, (row, body, letter)) in commands {
            let receipt = crate::harness::wait::eventually("a command has its receipt", || async {
                let answer = self.harness.http("GET", &format!("/api/v1/receipts/{sequence}"), Value::Null).await;
                if answer.status == 200 { Ok(answer.json()) } else { Err(answer.text()) }
            })
            .await;
            let items = receipt["items"].as_array().cloned().unwrap_or_default();
            if items.len() != 1 || items[0]["status"] != "rejected" || items[0].get("run_id").is_some() {
                self.wrong.push(format!("{}: the receipt says {receipt}", row.shown()));
            }
            self.check(&row, "receipt", &items[0]["errors"][0]);
            if letter {
                dead.insert(sequence, (row.code, body));
            }
        }
        let letters = self.letters().await;
        for (sequence, (code, body)) in &dead {
            let letter = letters.iter().find(|l| l["seq"] == *sequence && l["stream"] == "HOPYARD_CMD");
            let kept = letter.and_then(|l| STANDARD.decode(l["body"].as_str()?).ok());
            // Of a body that does not fit beside its reason the letter has the first bytes, and says so.
            let cut = letter.is_some_and(|l| l["cut_from"].as_u64() == Some(body.len() as u64));
            let whole = kept.is_some_and(|kept| kept == *body || (cut && !kept.is_empty() && body.starts_with(&kept)));
            if !whole || letter.is_none_or(|l| l["code"] != *code) {
                self.wrong.push(format!("the dead letter of {sequence}, {code}, is another one: {:?}", letter.map(|l| &l["detail"])));
            }
        }
        if let Some(letter) = letters.iter().find(|l| !l["seq"].as_u64().is_some_and(|seq| dead.contains_key(&seq))) {
            self.wrong.push(format!("a dead letter that nobody expects: {letter}"));
        }
        (total, dead.len())
    }

    async fn letters(&self) -> Vec<Value> {
        let mut letters = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.harness.get(&format!("/api/v1/dead-letters?limit=200{cursor}")).await;
            letters.extend(page["items"].as_array().cloned().unwrap_or_default());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return letters,
            }
        }
    }
}

/// The words of a status.
fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        431 => "Request Header Fields Too Large",
        _ => "not in the table",
    }
}

/// Stands in inputs where a credential could; no answer may repeat it.
pub const SECRET: &str = "hunter2-secret";
