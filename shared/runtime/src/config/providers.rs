//! Providers of models, `[providers.NAME]` of the settings file: where they are, and what they may be asked.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use hopyard_contract::Name;
use hopyard_contract::duration::Span;
use serde::Deserialize;

/// Ways to speak that an executor knows.
const WIRES: [&str; 4] = ["anthropic", "responses", "chat", "gemini"];

/// One provider.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSettings {
    /// How it speaks: `anthropic` (Messages), `responses` or `chat` (OpenAI's, and whoever speaks like them), `gemini`.
    pub wire: String,
    /// Address before `/v1/…`, such as `https://api.anthropic.com`.
    pub base_url: String,
    /// Where its key is: `env:NAME` or `file:PATH`; without one it is asked without a key.
    pub key_from: Option<String>,
    /// Most calls a minute, over all steps of an executor; 0 for no limit.
    #[serde(default)]
    pub rpm: u32,
    /// Most tokens a minute; 0 for no limit.
    #[serde(default)]
    pub tpm: u32,
    /// Most calls at once; 0 for no limit.
    #[serde(default)]
    pub concurrency: u32,
    /// Longest time that a step waits for this provider when it takes no calls; a step that would have to wait longer is paused.
    #[serde(default = "patience")]
    pub patience: Span,
}

/// A pause costs a new start of an agent, which most limits of a minute are not worth.
fn patience() -> Span {
    Span::from_millis(60_000)
}

/// Reads the table of providers.
pub(super) fn read(value: toml::Value) -> anyhow::Result<BTreeMap<String, ProviderSettings>> {
    let toml::Value::Table(tables) = value else { anyhow::bail!("it is a table of tables, `[providers.NAME]`") };
    let mut providers = BTreeMap::new();
    for (name, table) in tables {
        let settings: ProviderSettings = table.try_into().with_context(|| format!("`{name}`"))?;
        name.parse::<Name>().with_context(|| format!("`{name}` is no name"))?;
        ensure!(WIRES.contains(&settings.wire.as_str()), "`{name}`: `wire` is one of {}", WIRES.join(", "));
        let web = ["https://", "http://"].iter().any(|scheme| settings.base_url.starts_with(scheme));
        ensure!(web, "`{name}`: `base_url` begins with https:// or http://");
        providers.insert(name, settings);
    }
    Ok(providers)
}
