//! The model that a fake agent asks when it is given one: its script says what it does, the answers say what that used.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use hopyard_runtime::config::environment;
use serde_json::{Value, json};

use super::script::TurnUsage;

/// How often a call is tried again that the provider could not take.
const TRIES: u64 = 5;

/// Where models are asked.
pub(super) struct Model {
    http: reqwest::Client,
    url: String,
    token: String,
    name: String,
}

/// What came of a call.
pub(super) enum Answer {
    /// It was answered.
    Used(TurnUsage),
    /// It was refused for good, in the provider's words.
    Refused(String),
}

impl Model {
    /// The one of the environment, as Claude Code would find it.
    pub(super) fn of_environment(name: &str) -> Result<Option<Self>> {
        let (Some(url), Some(token)) = (environment("ANTHROPIC_BASE_URL"), environment("ANTHROPIC_API_KEY")) else { return Ok(None) };
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().context("the model cannot be asked")?;
        Ok(Some(Self { http, url, token, name: name.to_owned() }))
    }

    /// Asks so often, and how long each call took in microseconds.
    pub(super) async fn time_calls(&self, calls: u32) -> Result<Vec<u64>> {
        let mut took = Vec::new();
        for _ in 0..calls {
            let start = Instant::now();
            match self.ask(0, |_, _, _| Ok(())).await? {
                Answer::Used(_) => took.push(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)),
                Answer::Refused(words) => bail!("the model refused: {words}"),
            }
        }
        Ok(took)
    }

    /// Asks for the next reply of a conversation in which the model has spoken this often. What the provider cannot take now is
    /// asked again; `on_retry` hears of it: try, milliseconds until the next one, status.
    pub(super) async fn ask(&self, spoken: u64, mut on_retry: impl FnMut(u64, u64, u16) -> std::io::Result<()>) -> Result<Answer> {
        let said = (0..spoken).flat_map(|_| [json!({ "role": "assistant", "content": "…" }), json!({ "role": "user", "content": "…" })]);
        let messages: Vec<Value> = std::iter::once(json!({ "role": "user", "content": "…" })).chain(said).collect();
        let body = json!({ "model": self.name, "max_tokens": 1024, "messages": messages });
        let mut tries = 0;
        loop {
            tries += 1;
            let request = self.http.post(format!("{}/v1/messages", self.url)).header("x-api-key", &self.token).json(&body);
            let answer = request.send().await.with_context(|| format!("{} does not answer", self.url))?;
            let status = answer.status().as_u16();
            let after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
            let body: Value = answer.json().await.unwrap_or_default();
            match status {
                200 => {
                    let count = |name: &str| body["usage"][name].as_u64().unwrap_or_default();
                    return Ok(Answer::Used(TurnUsage {
                        input: count("input_tokens"),
                        output: count("output_tokens"),
                        cache_read: count("cache_read_input_tokens"),
                        cache_write: count("cache_creation_input_tokens"),
                        cost_microusd: 0,
                    }));
                }
                429 | 500..600 if tries < TRIES => {
                    let pause = after.map_or(50 << tries, |seconds| seconds * 1000);
                    on_retry(tries, pause, status)?;
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                _ => {
                    return Ok(Answer::Refused(format!("{status}: {}", body["error"]["message"].as_str().unwrap_or("no reason is given"))));
                }
            }
        }
    }
}
