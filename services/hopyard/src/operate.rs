//! Verbs of operators that need no API: the store's schema, the streams of the bus, and what a machine lacks.

pub mod doctor;
mod prices;
pub mod providers;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use hopyard_contract::Name;
use hopyard_contract::topology::{self, ConsumerSpec, STREAMS};
use hopyard_runtime::topology::{Mode, Topology};
use hopyard_runtime::{Bus, Config};
use hopyard_store::Store;
use serde_json::{Value, json};
use std::time::Duration;

use crate::client::output::{self, Column, Format, field};
use crate::exit::Exit;

/// How long the bus may take to answer a command.
const BUS_WITHIN: Duration = Duration::from_secs(3);

/// Whether to change the schema or only to look.
#[derive(Clone, Copy, Debug, Args)]
pub struct MigrateArgs {
    /// Only says what is missing; exit code 1 if something is
    #[arg(long)]
    pub check: bool,
}

/// What to do with the streams and consumers of the bus.
#[derive(Clone, Debug, Subcommand)]
pub enum TopologyCommand {
    /// Prints the table of streams and consumers
    #[command(after_help = "Example:\n  hopyard topology print -o json")]
    Print(Members),
    /// Makes and updates them on the bus
    #[command(after_help = "Example:\n  hopyard topology apply --pool default --pool gpu --host build-1")]
    Apply(Members),
    /// Says how the bus differs from the table; exit code 1 if it does
    #[command(after_help = "Example:\n  hopyard topology diff --pool default --host build-1")]
    Diff(Members),
}

/// Pools and hosts of a deployment, which have consumers of their own.
#[derive(Clone, Debug, Args)]
pub struct Members {
    /// Pool of executors; may be repeated
    #[arg(long = "pool", value_name = "NAME", default_value = "default")]
    pub pools: Vec<Name>,
    /// Host of a janitor; may be repeated
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<Name>,
}

/// Brings the store's schema to this build's version, or says what is missing.
///
/// # Errors
/// When the store cannot be reached or is newer than this build.
pub async fn migrate(config: &Config, args: MigrateArgs) -> Result<Exit> {
    let store = Store::open(&config.store_url()).await.context("the store cannot be opened")?;
    let pending = store.pending_migrations().await?;
    for line in &pending {
        output::data(line);
    }
    if args.check {
        return Ok(if pending.is_empty() { Exit::Done } else { Exit::Failed });
    }
    store.migrate().await?;
    output::progress(&if pending.is_empty() { "the schema is up to date".to_owned() } else { format!("{} applied", pending.len()) });
    Ok(Exit::Done)
}

const COLUMNS: [Column; 5] = [
    ("STREAM", |v| field(v, "/stream")),
    ("DURABLE", |v| field(v, "/durable")),
    ("SUBJECTS", |v| {
        v.get("subjects")
            .and_then(Value::as_array)
            .map_or_else(|| field(v, "/filter"), |s| s.iter().map(|s| s.as_str().unwrap_or_default()).collect::<Vec<_>>().join(" "))
    }),
    ("KEPT", |v| field(v, "/kept")),
    ("PURPOSE", |v| field(v, "/purpose")),
];

fn consumers(members: &Members) -> Vec<ConsumerSpec> {
    let mut all = vec![topology::ingest(), topology::scheduler(), topology::metrics()];
    all.extend(members.pools.iter().map(topology::executors));
    all.extend(members.hosts.iter().map(topology::janitor));
    all
}

fn table(members: &Members) -> Value {
    let streams = STREAMS.iter().map(|s| {
        let kept = match (s.retention, s.discard_new) {
            (topology::Retention::WorkQueue, true) => "until acknowledged; full refuses",
            (topology::Retention::WorkQueue, false) => "until acknowledged; full drops the oldest",
            (topology::Retention::Limits, _) => "by bytes and age",
        };
        json!({"stream": s.name, "subjects": s.subjects, "kept": kept, "max_bytes": s.max_bytes, "max_age_s": s.max_age.as_secs(),
               "duplicate_window_ms": u64::try_from(s.duplicate_window.as_millis()).unwrap_or(u64::MAX), "purpose": s.purpose})
    });
    let consumers = consumers(members).into_iter().map(|c| {
        json!({"stream": c.stream, "durable": c.durable, "filter": c.filter, "ack_wait_s": c.ack_wait.as_secs(), "max_ack_pending": c.max_ack_pending})
    });
    json!({"items": streams.chain(consumers).collect::<Vec<_>>()})
}

/// Carries out a command about streams and consumers.
///
/// # Errors
/// When the bus does not answer or refuses.
pub async fn run_topology(config: &Config, format: Format, command: &TopologyCommand) -> Result<Exit> {
    match command {
        TopologyCommand::Print(members) => {
            output::bytes(output::page(format, &table(members), &COLUMNS).as_bytes());
            Ok(Exit::Done)
        }
        TopologyCommand::Apply(members) => {
            let (bus, topology) = connect(config).await?;
            topology.ensure_streams(&bus).await?;
            for spec in consumers(members) {
                topology.consumer(&bus, &spec).await?;
                output::progress(&format!("{} {}", spec.stream, spec.durable));
            }
            Ok(Exit::Done)
        }
        TopologyCommand::Diff(members) => {
            let (bus, topology) = connect(config).await?;
            let mut lines = topology.diff(&bus).await?;
            lines.extend(topology.diff_consumers(&bus, &consumers(members)).await?);
            let value = json!({"differences": lines});
            let text = lines.iter().map(|line| format!("{line}\n")).collect();
            output::bytes(output::document(format, &value).unwrap_or(text).as_bytes());
            Ok(if lines.is_empty() { Exit::Done } else { Exit::Failed })
        }
    }
}

/// The bus, and a topology that may be changed: this is the operator's own hand.
async fn connect(config: &Config) -> Result<(Bus, Topology)> {
    let bus = Bus::connect(config, "hopyard-cli", BUS_WITHIN).await?;
    let topology = Topology { mode: Mode::Manage, ..Topology::from_config(config)? };
    Ok((bus, topology))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_stream_and_the_consumers_of_members() {
        let members = Members { pools: vec![Name::literal("gpu")], hosts: vec![Name::literal("h1")] };
        let value = table(&members);
        let text = output::page(Format::Table, &value, &COLUMNS);
        for stream in STREAMS {
            assert!(text.contains(stream.name), "{text}");
        }
        assert!(text.contains("exec_gpu") && text.contains("gc_h1") && text.contains("hopyard.work.gpu"), "{text}");
    }
}
