//! Streams and consumers on the server: made or compared from the one table of the contract.

use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::jetstream::consumer::{AckPolicy, Config as ConsumerConfig, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{Config as StreamConfig, DiscardPolicy, RetentionPolicy, StorageType};
use hopyard_contract::topology::{ConsumerSpec, Retention, STREAMS, StreamSpec};

use crate::{Bus, Config};

/// Whether a service makes the topology itself or only compares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Create and update.
    Manage,
    /// Compare and refuse.
    Verify,
}

/// How the topology is kept.
#[derive(Clone, Copy, Debug)]
pub struct Topology {
    /// Who makes it.
    pub mode: Mode,
    /// Replicas of every stream.
    pub replicas: usize,
}

/// What a durable consumer still has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Undelivered and unacknowledged messages.
    pub open: u64,
    /// Everything up to this sequence of the stream is acknowledged.
    pub floor: u64,
}

impl Topology {
    /// From the settings.
    ///
    /// # Errors
    /// When a setting is not valid.
    pub fn from_config(config: &Config) -> anyhow::Result<Self> {
        let mode = match config.text("TOPOLOGY", "manage").as_str() {
            "manage" => Mode::Manage,
            "verify" => Mode::Verify,
            other => bail!("HOPYARD_TOPOLOGY: `{other}` is neither manage nor verify"),
        };
        Ok(Self { mode, replicas: config.parsed("JS_REPLICAS", 1)? })
    }

    /// Makes or compares every stream.
    ///
    /// # Errors
    /// When a stream is not as the table says and may not or cannot be changed.
    pub async fn ensure_streams(&self, bus: &Bus) -> anyhow::Result<()> {
        for spec in STREAMS {
            self.ensure_stream(bus, spec).await.with_context(|| format!("stream {}", spec.name))?;
        }
        Ok(())
    }

    async fn ensure_stream(&self, bus: &Bus, spec: &StreamSpec) -> anyhow::Result<()> {
        let wanted = self.stream_config(spec);
        let actual = match self.mode {
            Mode::Manage => self.make_stream(bus, &wanted).await?,
            Mode::Verify => bus
                .jetstream()
                .get_stream(spec.name)
                .await
                .context("is missing: run `hopyard topology apply`")?
                .cached_info()
                .config
                .clone(),
        };
        // Older servers drop what they do not know without a word, so the answer is compared field by field.
        let differences = differences(&wanted, &actual);
        if differences.is_empty() { Ok(()) } else { bail!("differs: {}", differences.join(", ")) }
    }

    /// Creates a stream that is missing and updates one that differs, and never asks for more than that: services start
    /// together, and an update of a stream that another one is creating ends nats-server 2.9.10 with a nil pointer.
    async fn make_stream(&self, bus: &Bus, wanted: &StreamConfig) -> anyhow::Result<StreamConfig> {
        let mut tries = 0;
        loop {
            let made = match bus.jetstream().get_stream(&wanted.name).await {
                Ok(stream) if differences(wanted, &stream.cached_info().config).is_empty() => return Ok(wanted.clone()),
                Ok(_) => bus.jetstream().update_stream(wanted).await.map(|info| info.config).map_err(anyhow::Error::from),
                Err(_) => {
                    bus.jetstream().create_stream(wanted.clone()).await.map(|s| s.cached_info().config.clone()).map_err(anyhow::Error::from)
                }
            };
            match made {
                Ok(config) => return Ok(config),
                Err(error) if tries == 10 => return Err(error),
                // While another service makes the same stream, the server takes the two for different ones that overlap.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
            tries += 1;
        }
    }

    fn stream_config(&self, spec: &StreamSpec) -> StreamConfig {
        StreamConfig {
            name: spec.name.to_owned(),
            subjects: spec.subjects.iter().map(|s| (*s).to_owned()).collect(),
            retention: match spec.retention {
                Retention::WorkQueue => RetentionPolicy::WorkQueue,
                Retention::Limits => RetentionPolicy::Limits,
            },
            discard: if spec.discard_new { DiscardPolicy::New } else { DiscardPolicy::Old },
            max_bytes: spec.max_bytes,
            max_age: spec.max_age,
            duplicate_window: spec.duplicate_window,
            storage: StorageType::File,
            num_replicas: self.replicas,
            allow_direct: true,
            ..Default::default()
        }
    }

    /// Makes or compares a durable consumer and binds to it.
    ///
    /// # Errors
    /// When it is not as the table says and may not or cannot be changed.
    pub async fn consumer(&self, bus: &Bus, spec: &ConsumerSpec) -> anyhow::Result<PullConsumer> {
        let stream = bus.jetstream().get_stream_no_info(spec.stream).await?;
        let wanted = consumer_config(spec, self.replicas);
        let mut consumer = match self.mode {
            Mode::Manage => {
                stream.create_consumer(wanted.clone()).await.with_context(|| format!("consumer {} of {}", spec.durable, spec.stream))?
            }
            Mode::Verify => stream.get_consumer(&spec.durable).await.map_err(|e| {
                anyhow::anyhow!("consumer {} of {} is missing: run `hopyard topology apply`: {e}", spec.durable, spec.stream)
            })?,
        };
        if !is_as_wanted(&wanted, &consumer.info().await?.config) {
            bail!("consumer {} of {} differs from the table: run `hopyard topology apply`", spec.durable, spec.stream);
        }
        Ok(consumer)
    }

    /// What differs between the table and the server, one line each; empty when nothing does.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn diff(&self, bus: &Bus) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        for spec in STREAMS {
            match bus.jetstream().get_stream(spec.name).await {
                Ok(stream) => lines.extend(
                    differences(&self.stream_config(spec), &stream.cached_info().config).into_iter().map(|d| format!("{}: {d}", spec.name)),
                ),
                Err(error) => lines.push(format!("{}: missing ({error})", spec.name)),
            }
        }
        Ok(lines)
    }

    /// Which of these durable consumers are missing or differ from the table, one line each.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn diff_consumers(&self, bus: &Bus, specs: &[ConsumerSpec]) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        for spec in specs {
            // A missing stream has its own line, and its consumers are gone with it.
            let Ok(stream) = bus.jetstream().get_stream(spec.stream).await else { continue };
            match stream.get_consumer::<pull::Config>(&spec.durable).await {
                Ok(mut consumer) => {
                    if !is_as_wanted(&consumer_config(spec, self.replicas), &consumer.info().await?.config) {
                        lines.push(format!("consumer {} of {}: differs from the table", spec.durable, spec.stream));
                    }
                }
                Err(error) => lines.push(format!("consumer {} of {}: missing ({error})", spec.durable, spec.stream)),
            }
        }
        Ok(lines)
    }

    /// What a durable consumer still has to do.
    ///
    /// # Errors
    /// When the consumer is missing or the server does not answer.
    pub async fn backlog(&self, bus: &Bus, stream: &str, durable: &str) -> anyhow::Result<Backlog> {
        let stream = bus.jetstream().get_stream_no_info(stream).await?;
        let mut consumer: PullConsumer = stream.get_consumer(durable).await.map_err(|e| anyhow::anyhow!("{e}"))?;
        let info = consumer.info().await?;
        Ok(Backlog { open: info.num_pending + info.num_ack_pending as u64, floor: info.ack_floor.stream_sequence })
    }
}

fn consumer_config(spec: &ConsumerSpec, replicas: usize) -> pull::Config {
    pull::Config {
        durable_name: Some(spec.durable.clone()),
        filter_subject: spec.filter.clone().unwrap_or_default(),
        ack_policy: AckPolicy::Explicit,
        ack_wait: spec.ack_wait,
        max_deliver: -1,
        max_ack_pending: spec.max_ack_pending,
        deliver_policy: if spec.from_now { DeliverPolicy::New } else { DeliverPolicy::All },
        num_replicas: replicas,
        inactive_threshold: Duration::ZERO,
        ..Default::default()
    }
}

fn is_as_wanted(wanted: &pull::Config, actual: &ConsumerConfig) -> bool {
    actual.filter_subject == wanted.filter_subject && actual.ack_wait == wanted.ack_wait && actual.max_ack_pending == wanted.max_ack_pending
}

fn differences(wanted: &StreamConfig, actual: &StreamConfig) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |field: &str, wanted: String, actual: String| {
        if wanted != actual {
            found.push(format!("{field} is {actual}, wanted {wanted}"));
        }
    };
    compare("subjects", format!("{:?}", wanted.subjects), format!("{:?}", actual.subjects));
    compare("retention", format!("{:?}", wanted.retention), format!("{:?}", actual.retention));
    compare("discard", format!("{:?}", wanted.discard), format!("{:?}", actual.discard));
    compare("max_bytes", wanted.max_bytes.to_string(), actual.max_bytes.to_string());
    compare("max_age", format!("{:?}", wanted.max_age), format!("{:?}", actual.max_age));
    compare("duplicate_window", format!("{:?}", wanted.duplicate_window), format!("{:?}", actual.duplicate_window));
    compare("replicas", wanted.num_replicas.to_string(), actual.num_replicas.to_string());
    found
}
