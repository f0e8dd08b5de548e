//! The life of a service: settings, telemetry, bus, admin port, work, draining, end.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use hopyard_contract::Name;
use hopyard_contract::message::Beat;
use hopyard_contract::view::ComponentHealth;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::{self, Readiness};
use crate::tasks::Tasks;
use crate::topology::Topology;
use crate::{Bus, Config, bus, telemetry};

/// What a service is given.
#[derive(Clone, Debug)]
pub struct Context {
    /// Name of the service: `ingest`, `scheduler`, `executor`, `metrics` or `janitor`.
    pub service: &'static str,
    /// Name of this process.
    pub id: Name,
    /// Name of this host.
    pub host: Name,
    /// Settings.
    pub config: Config,
    /// Bus.
    pub bus: Bus,
    /// How streams and consumers are kept.
    pub topology: Topology,
    /// Tasks and the stages of stopping.
    pub tasks: Tasks,
    /// What `/readyz` says.
    pub readiness: Readiness,
    /// Where the admin port got opened.
    pub admin: SocketAddr,
}

impl Context {
    /// What every process says of itself in its beat; a service adds what is its own.
    pub fn beat(&self) -> Beat {
        Beat {
            kind: self.service.to_owned(),
            id: self.id.clone(),
            host: self.host.clone(),
            pool: None,
            slots: 0,
            free: 0,
            claimed_ms_ago: None,
            draining: self.tasks.draining().is_cancelled(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            disk_free: 0,
            outbox_ms: 0,
            frozen: 0,
        }
    }
}

/// How long a drained service may take before it is ended.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// Runs a service until it is told to stop, and returns whether it ended well.
///
/// `start` sets up the service's tasks and returns; the tasks watch `draining` and `stopping`. The first SIGTERM or SIGINT
/// drains, as does a task that cancels `draining` because somebody asked for it over the bus; a signal after that ends at once. A failed task ends the process with an error, so that whoever supervises it sees it.
///
/// # Errors
/// When the set-up or a task fails.
pub async fn run<F, Fut>(service: &'static str, config: Config, start: F) -> anyhow::Result<()>
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    telemetry::init(&config.text("LOG", "info"));
    #[cfg(debug_assertions)]
    crate::failpoint::check()?;
    let id = config.id(service)?;
    let host = config.host()?;
    for name in &config.unknown {
        tracing::warn!(setting = format!("HOPYARD_{name}"), "the setting is not known");
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let bus = Bus::connect(&config, id.as_str(), bus::START).await?;
    let topology = Topology::from_config(&config)?;
    bus::until_answered(bus::START, || topology.ensure_streams(&bus)).await?;
    let tasks = Tasks::default();
    let readiness = Readiness::default();
    let admin = admin::serve(&tasks, &config.text("ADMIN_ADDR", "127.0.0.1:0"), readiness.clone()).await?;
    let context = Context { service, id: id.clone(), host, config, bus: bus.clone(), topology, tasks: tasks.clone(), readiness, admin };
    start(context.clone()).await?;
    tracing::info!(service, id = id.as_str(), admin = %admin, "ready");

    let failed = tasks.failed().clone();
    tokio::select! {
        () = tasks.draining().cancelled() => tracing::info!(service, "asked to drain"),
        _ = terminate.recv() => tracing::info!(service, "told to stop: draining"),
        _ = interrupt.recv() => tracing::info!(service, "interrupted: draining"),
        () = failed.cancelled() => {}
    }
    tasks.draining().cancel();
    context.readiness.set("process", ComponentHealth::degraded("draining", "takes nothing new and ends soon"));
    let mut at_once = false;
    if !failed.is_cancelled() {
        tokio::select! {
            () = tasks.stopping().cancelled() => {}
            () = tokio::time::sleep(DRAIN_LIMIT) => tracing::warn!(service, "draining took too long"),
            _ = terminate.recv() => at_once = true,
            _ = interrupt.recv() => at_once = true,
            () = failed.cancelled() => {}
        }
    }
    tasks.stopping().cancel();
    if at_once {
        tracing::info!(service, "told to stop again: ending now");
        return Ok(());
    }
    if tokio::time::timeout(Duration::from_secs(5), tasks.finished()).await.is_err() {
        tracing::warn!(service, "some tasks did not end in time");
    }
    // Last answers and acknowledgements are with the bus before the connection goes with the process.
    bus.answers().await;
    if failed.is_cancelled() {
        anyhow::bail!("a task failed; see the log");
    }
    tracing::info!(service, id = id.as_str(), "stopped");
    Ok(())
}
