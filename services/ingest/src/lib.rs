//! The door: HTTP API, event and log streams, and submissions over the bus.
//!
//! It checks what comes in, hands it to the schedulers and answers only what is committed; it reads the state of runs and
//! *never* writes it.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use hopyard_blobs::Blobs;
use hopyard_contract::topology;
use hopyard_contract::view::ComponentHealth;
use hopyard_runtime::Context;
use hopyard_runtime::backoff::around;
use hopyard_runtime::consume::Consumer;
use hopyard_runtime::presence::{self, Presence};
use hopyard_store::Store;
use tokio::net::TcpListener;

use crate::accept::batch::Batcher;
use crate::admission::Admission;
use crate::canary::Canaries;
use crate::door::Door;
use crate::http::leaving::{closing_later, leaving};
use crate::http::serve::Limits;
use crate::read::streams::Streams;

pub mod accept;
pub mod admission;
pub mod answers;
pub mod bus_door;
pub mod canary;
pub mod dead_letters;
pub mod door;
pub mod executors;
pub mod health;
pub mod http;
pub mod instruments;
pub mod kill;
pub mod problem;
pub mod read;
pub mod runs;
pub mod workflows;

/// Sets the door up: the address is opened at once, requests are answered once the store is there.
///
/// # Errors
/// When the address is taken, or a setting is not valid.
pub async fn start(ctx: Context) -> anyhow::Result<()> {
    let admission = Admission::new(admission::Settings::read(&ctx.config)?);
    let canaries = Canaries::read(&ctx.config)?;
    let limits = Limits::read(&ctx.config)?;
    let streams = Streams::new(ctx.config.parsed("HTTP_STREAMS", 2048)?, limits.patience);
    let listener = http::serve::bind(&ctx.config.text("HTTP_ADDR", "127.0.0.1:8733")).await?;
    let address = listener.local_addr()?;
    let blobs = Blobs::open(&ctx.config.blobs()).context("the blob store (HOPYARD_BLOBS)")?;
    Consumer::new(ctx.bus.clone(), ctx.topology, topology::ingest(), 1).ensure().await?;
    let presence = Presence::watch(&ctx.bus, &ctx.tasks);
    let own = ctx.clone();
    presence::beat(&ctx.bus, &ctx.tasks, move || own.beat());
    ctx.readiness.set("store", ComponentHealth::degraded("starting", "the store has not been opened yet"));
    tracing::info!(http = %address, "the API listens");
    let tasks = ctx.tasks.clone();
    let parts = Parts { blobs, presence, streams, admission, canaries };
    let delay = ctx.config.span("DRAIN_DELAY", 5_000)?.std();
    tasks.spawn("door", open(ctx, listener, limits, parts, delay));
    Ok(())
}

/// What a door is made of before the store is there.
struct Parts {
    blobs: Blobs,
    presence: Presence,
    streams: Streams,
    admission: Admission,
    canaries: Canaries,
}

/// Waits for the store, then opens all doors; ends when they are closed again.
async fn open(ctx: Context, listener: TcpListener, limits: Limits, parts: Parts, delay: Duration) -> anyhow::Result<()> {
    let tasks = ctx.tasks.clone();
    let Some(store) = tasks.draining().run_until_cancelled(wait_for_store(&ctx)).await else {
        tasks.stopping().cancel();
        return Ok(());
    };
    ctx.readiness.set("store", ComponentHealth::ok());
    let store = store?;
    let volumes = [Some(ctx.config.data_dir()), Some(parts.blobs.directory().to_owned()), store.directory().map(Path::to_owned)];
    let door = Door {
        id: ctx.id,
        bus: ctx.bus.clone(),
        reader: store.reader(),
        blobs: parts.blobs,
        presence: parts.presence,
        topology: ctx.topology,
        tasks: ctx.tasks,
        readiness: ctx.readiness,
        batcher: Batcher::start(&ctx.bus, &tasks),
        definitions: Default::default(),
        commands: Default::default(),
        streams: parts.streams,
        admission: parts.admission,
        canaries: parts.canaries,
    };
    door.commands.watch(&door);
    door.canaries.start(&door);
    door.admission.watch(&door, volumes.into_iter().flatten().collect());
    let public = Door { tasks: closing_later(&tasks, delay), ..door.clone() };
    let router = leaving(http::router(public.clone()), tasks.draining().clone());
    let doors = [
        tasks.spawn("commands", bus_door::commands(door.clone())),
        tasks.spawn("immediate", bus_door::immediate::immediate(door)),
        tasks.spawn("http", http::serve::serve(listener, router, public.tasks, limits)),
    ];
    for closed in futures::future::join_all(doors).await {
        closed.context("a door did not close")?;
    }
    // Everything that was taken has its answer: the rest of the process may end.
    tasks.stopping().cancel();
    Ok(())
}

/// Opens the store, however long it takes until it is there with a schema that fits.
///
/// # Errors
/// When its URL is not valid: that does not become better by waiting.
async fn wait_for_store(ctx: &Context) -> anyhow::Result<Store> {
    let url = ctx.config.store_url();
    loop {
        let problem = match Store::open(&url).await {
            Ok(store) => match store.pending_migrations().await {
                Ok(pending) if pending.is_empty() => return Ok(store),
                Ok(pending) => ComponentHealth::degraded(
                    "schema",
                    format!("{} migrations are missing; a scheduler or `hopyard migrate` applies them", pending.len()),
                ),
                Err(error) => ComponentHealth::degraded("store_unavailable", error.to_string()),
            },
            Err(error @ hopyard_store::Error::Url(_)) => return Err(error.into()),
            Err(error) => ComponentHealth::degraded("store_unavailable", error.to_string()),
        };
        tracing::info!(why = problem.text, "the store is not ready yet");
        ctx.readiness.set("store", problem);
        tokio::time::sleep(around(Duration::from_millis(300))).await;
    }
}
