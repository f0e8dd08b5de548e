//! The smallest call that a provider can be asked, to see whether address, key and model are right.

use std::time::Duration;

use anyhow::Context as _;
use hopyard_contract::usage::Tokens;
use hopyard_runtime::Config;
use hopyard_runtime::clock::BootInstant;
use serde::Serialize;
use serde_json::{Value, json};

use super::Provider;
use crate::wire::{Meter, Wire};

/// What came of the call.
#[derive(Debug, Serialize)]
pub struct ProviderAnswer {
    /// Name of the provider.
    pub provider: String,
    /// Model that was asked.
    pub model: String,
    /// HTTP status.
    pub status: u16,
    /// Milliseconds until the whole answer.
    pub took_ms: u64,
    /// Tokens, if the answer said.
    pub tokens: Option<Tokens>,
    /// The provider's words for what is wrong.
    pub error: Option<String>,
}

/// Asks a provider of these settings for one token of a model.
///
/// # Errors
/// When there is no such provider, its key cannot be had, or it does not answer.
pub async fn ask_provider(config: &Config, name: &str, model: &str) -> anyhow::Result<ProviderAnswer> {
    let known = || config.providers.keys().cloned().collect::<Vec<_>>().join(", ");
    let settings = config.providers.get(name).with_context(|| format!("there is no provider `{name}`; the settings name {}", known()))?;
    let provider = Provider::new(name, settings, super::client()?).with_context(|| format!("the provider {name}"))?;
    let (path, body) = smallest(provider.wire, model);
    let began = BootInstant::now();
    let request = provider.http.post(format!("{}{path}", provider.base_url)).timeout(Duration::from_secs(60)).json(&body);
    let request = match provider.key()? {
        Some(key) => {
            let (header, value) = provider.wire.credential(&key);
            request.header(header, value)
        }
        None => request,
    };
    let answer = request.send().await.with_context(|| format!("{} does not answer", provider.base_url))?;
    let status = answer.status().as_u16();
    let mut meter = Meter::new(provider.wire, "application/json");
    meter.feed(&answer.bytes().await.context("the answer broke off")?);
    let call = meter.end();
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(ProviderAnswer { provider: name.to_owned(), model: model.to_owned(), status, took_ms, tokens: call.tokens, error: call.error })
}

/// Path and body of a call for one token.
fn smallest(wire: Wire, model: &str) -> (String, Value) {
    let messages = json!([{ "role": "user", "content": "Say ok." }]);
    match wire {
        Wire::Anthropic => ("/v1/messages".to_owned(), json!({ "model": model, "max_tokens": 1, "messages": messages })),
        Wire::Responses => ("/v1/responses".to_owned(), json!({ "model": model, "max_output_tokens": 16, "input": messages })),
        Wire::Chat => ("/v1/chat/completions".to_owned(), json!({ "model": model, "max_tokens": 1, "messages": messages })),
        Wire::Gemini => {
            let body =
                json!({ "contents": [{ "role": "user", "parts": [{ "text": "Say ok." }] }], "generationConfig": { "maxOutputTokens": 1 } });
            (format!("/v1beta/models/{model}:generateContent"), body)
        }
    }
}
