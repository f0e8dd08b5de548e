//! Providers of models: where they are, the key that only this process has, and the limits that all its steps share.

mod ask;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use hopyard_runtime::clock::BootInstant;
use hopyard_runtime::config::{ProviderSettings, environment};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limit::Limit;
use crate::wire::Wire;

pub use ask::{ProviderAnswer, ask_provider};

/// Longest pause that a provider is believed: some limits are those of a week.
const LONGEST_QUIET: Duration = Duration::from_secs(8 * 24 * 3600);

/// One provider, shared by every step of this executor.
pub(crate) struct Provider {
    pub(crate) name: String,
    pub(crate) wire: Wire,
    /// Address without a trailing slash.
    pub(crate) base_url: String,
    key: Key,
    pub(crate) http: reqwest::Client,
    /// Calls at once.
    places: Arc<Semaphore>,
    /// Longest wait of a step for the end of a pause.
    patience: Duration,
    pace: Mutex<Pace>,
}

/// All providers that this executor knows.
#[derive(Default)]
pub(crate) struct Providers(BTreeMap<String, Arc<Provider>>);

impl Providers {
    /// Those of the settings.
    ///
    /// # Errors
    /// When a key cannot be had, so that nobody finds out in the middle of a run.
    pub(crate) fn open(settings: &BTreeMap<String, ProviderSettings>) -> anyhow::Result<Self> {
        if settings.is_empty() {
            return Ok(Self::default());
        }
        let http = client()?;
        let open = |(name, settings): (&String, &ProviderSettings)| {
            let provider = Provider::new(name, settings, http.clone()).with_context(|| format!("the provider {name}"))?;
            anyhow::Ok((name.clone(), Arc::new(provider)))
        };
        settings.iter().map(open).collect::<anyhow::Result<_>>().map(Self)
    }

    /// The provider of a model that is named `NAME/model`, or the only one there is, and the model as it knows it.
    ///
    /// # Errors
    /// When none is meant, or it is not known which.
    pub(crate) fn of_model<'m>(&self, model: &'m str) -> anyhow::Result<(Arc<Provider>, &'m str)> {
        if let Some((name, rest)) = model.split_once('/')
            && let Some(provider) = self.0.get(name)
        {
            return Ok((provider.clone(), rest));
        }
        let mut all = self.0.values();
        match (all.next(), all.next()) {
            (Some(only), None) => Ok((only.clone(), model)),
            (None, _) => anyhow::bail!("this executor has no provider; name one in `[providers.NAME]` of its settings"),
            (Some(_), Some(_)) => {
                let known = self.0.keys().cloned().collect::<Vec<_>>().join(", ");
                anyhow::bail!("`{model}` names none of the providers {known}: write PROVIDER/MODEL")
            }
        }
    }

    /// The provider that a model's name begins with (`NAME/model`) and the rest of that name, else the first one that speaks
    /// this wire.
    pub(crate) fn choose<'m>(&self, wire: Wire, model: Option<&'m str>) -> Option<(Arc<Provider>, Option<&'m str>)> {
        if let Some((name, rest)) = model.and_then(|model| model.split_once('/'))
            && let Some(provider) = self.0.get(name).filter(|provider| provider.wire == wire)
        {
            return Some((provider.clone(), Some(rest)));
        }
        self.0.values().find(|provider| provider.wire == wire).map(|provider| (provider.clone(), model))
    }
}

/// One client for all of them, so that connections are kept.
fn client() -> anyhow::Result<reqwest::Client> {
    // Refused only when there is a provider of cryptography already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A model may think for minutes before its first byte, so nothing but the connection has a limit.
    reqwest::Client::builder().connect_timeout(Duration::from_secs(10)).build().context("calls of models cannot be made")
}

/// Where a provider's key comes from; a file is read at each call, so that a rotated one is picked up.
#[derive(Clone)]
enum Key {
    /// There is none.
    None,
    /// From the environment, at the start.
    Value(String),
    /// A file.
    File(PathBuf),
}

impl Key {
    fn parse(source: Option<&str>) -> anyhow::Result<Self> {
        let key = match source.map(|source| source.split_once(':').unwrap_or((source, ""))) {
            None => Self::None,
            Some(("env", name)) => Self::Value(environment(name).with_context(|| format!("`key_from`: the variable {name} is not set"))?),
            Some(("file", path)) => Self::File(path.into()),
            Some(_) => anyhow::bail!("`key_from` is `env:NAME` or `file:PATH`"),
        };
        key.read().context("`key_from`")?;
        Ok(key)
    }

    /// The key, if there is one.
    fn read(&self) -> std::io::Result<Option<String>> {
        match self {
            Self::None => Ok(None),
            Self::Value(value) => Ok(Some(value.clone())),
            Self::File(path) => Ok(Some(std::fs::read_to_string(path)?.trim().to_owned())),
        }
    }
}

/// When the next call may go.
#[derive(Debug)]
struct Pace {
    rpm: u32,
    tpm: u32,
    /// The provider has asked for quiet until then, in these words.
    quiet: Option<(BootInstant, String)>,
    /// What may be sent now, which grows with time up to one minute's worth.
    calls: Bucket,
    tokens: Bucket,
}

/// An allowance that fills with time. It may be overdrawn: what a call used is known only after it.
#[derive(Debug)]
struct Bucket {
    left: f64,
    at: BootInstant,
}

impl Bucket {
    fn full(per_minute: u32) -> Self {
        Self { left: f64::from(per_minute), at: BootInstant::now() }
    }

    /// Time until `want` may be taken.
    fn wait(&mut self, per_minute: u32, want: f64) -> Duration {
        if per_minute == 0 {
            return Duration::ZERO;
        }
        let rate = f64::from(per_minute) / 60.0;
        self.left = (self.left + self.at.elapsed().as_secs_f64() * rate).min(f64::from(per_minute));
        self.at = BootInstant::now();
        Duration::from_secs_f64(((want - self.left) / rate).max(0.0))
    }
}

impl Provider {
    fn new(name: &str, settings: &ProviderSettings, http: reqwest::Client) -> anyhow::Result<Self> {
        let places = if settings.concurrency == 0 { Semaphore::MAX_PERMITS } else { settings.concurrency as usize };
        let (rpm, tpm) = (settings.rpm, settings.tpm);
        let pace = Pace { rpm, tpm, quiet: None, calls: Bucket::full(rpm), tokens: Bucket::full(tpm) };
        Ok(Self {
            name: name.to_owned(),
            wire: Wire::of(&settings.wire)?,
            base_url: settings.base_url.trim_end_matches('/').to_owned(),
            key: Key::parse(settings.key_from.as_deref())?,
            http,
            places: Arc::new(Semaphore::new(places)),
            patience: settings.patience.std(),
            pace: Mutex::new(pace),
        })
    }

    /// Its key, if it wants one.
    ///
    /// # Errors
    /// When the file of the key cannot be read.
    pub(crate) fn key(&self) -> std::io::Result<Option<String>> {
        self.key.read()
    }

    /// Waits until a call may go, and counts it.
    ///
    /// # Errors
    /// The limit, when the provider takes none for longer than a step waits.
    pub(crate) async fn place(&self) -> Result<OwnedSemaphorePermit, Limit> {
        let place = self.places.clone().acquire_owned().await.expect("the places are never closed");
        loop {
            let wait = self.wait()?;
            if wait.is_zero() {
                return Ok(place);
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn wait(&self) -> Result<Duration, Limit> {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let (rpm, tpm) = (pace.rpm, pace.tpm);
        let quiet = pace.quiet.as_ref().map_or(Duration::ZERO, |(until, _)| BootInstant::now().until(*until));
        if let Some((_, words)) = pace.quiet.as_ref().filter(|_| quiet > self.patience) {
            return Err(Limit::new(Some(chrono::Utc::now() + quiet), words.clone()));
        }
        let wait = quiet.max(pace.calls.wait(rpm, 1.0)).max(pace.tokens.wait(tpm, 1.0));
        if wait.is_zero() {
            pace.quiet = None;
            pace.calls.left -= 1.0;
        }
        Ok(wait)
    }

    /// Counts what a call used.
    pub(crate) fn used(&self, tokens: u64) {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).tokens.left -= tokens as f64;
    }

    /// The provider asked for quiet: no call of any step goes before that. The limit, when that is longer than a step waits.
    pub(crate) fn quiet(&self, span: Duration, words: &str) -> Option<Limit> {
        let span = span.min(LONGEST_QUIET);
        let until = BootInstant::now().after(span);
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if pace.quiet.as_ref().is_none_or(|(known, _)| BootInstant::now().until(*known) < span) {
            pace.quiet = Some((until, words.to_owned()));
        }
        (span > self.patience).then(|| Limit::new(Some(chrono::Utc::now() + span), words.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use hopyard_contract::duration::Span;

    use super::*;

    fn provider(rpm: u32, tpm: u32, patience: u64) -> Provider {
        let settings = ProviderSettings {
            wire: "chat".to_owned(),
            base_url: "http://127.0.0.1:9/".to_owned(),
            key_from: None,
            rpm,
            tpm,
            concurrency: 0,
            patience: Span::from_millis(patience * 1000),
        };
        Provider::new("p", &settings, client().unwrap()).unwrap()
    }

    #[test]
    fn a_minutes_worth_of_calls_goes_at_once_and_the_next_one_waits_its_turn() {
        let provider = provider(2, 0, 60);
        assert_eq!((provider.wait().unwrap(), provider.wait().unwrap()), (Duration::ZERO, Duration::ZERO));
        let wait = provider.wait().unwrap();
        assert!(wait > Duration::from_secs(20) && wait <= Duration::from_secs(30), "{wait:?}");
    }

    #[test]
    fn tokens_that_were_used_hold_back_the_next_call() {
        let provider = provider(0, 600, 60);
        assert_eq!(provider.wait().unwrap(), Duration::ZERO);
        provider.used(900);
        let wait = provider.wait().unwrap();
        assert!(wait > Duration::from_secs(25) && wait <= Duration::from_secs(31), "300 are owed, 10 come a second: {wait:?}");
    }

    #[test]
    fn a_short_pause_is_waited_for_and_a_long_one_is_a_limit() {
        let provider = provider(0, 0, 60);
        assert_eq!(provider.quiet(Duration::from_secs(30), "slow down"), None);
        let wait = provider.wait().unwrap();
        assert!(wait > Duration::from_secs(25) && wait <= Duration::from_secs(30), "{wait:?}");
        let limit = provider.quiet(Duration::from_secs(3600), "used up").unwrap();
        assert_eq!(provider.wait().unwrap_err().words, limit.words);
        assert_eq!(provider.quiet(Duration::from_secs(1), "slow down"), None, "a shorter one ends no longer one");
        assert!(provider.wait().is_err());
    }
}
