//! The schedulers as the janitor needs them: what may go, and who is told what went.

use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use hopyard_contract::Name;
use hopyard_contract::message::{MESSAGE_VERSION, Report, Reports, WorkspacesQuery, WorkspacesReply};
use hopyard_contract::subject::{self, Verb};
use hopyard_runtime::bus::encode;
use hopyard_runtime::{Bus, rpc};

/// Who decides what may go.
#[async_trait]
pub(crate) trait Scheduler: Send + Sync {
    /// Asks about workspaces by name; unless `only_found`, also for what of this host is not among them.
    async fn workspaces(&self, found: Vec<String>, only_found: bool) -> anyhow::Result<WorkspacesReply>;

    /// Reports; returns once the report cannot get lost with this process.
    async fn report(&self, report: Report) -> anyhow::Result<()>;
}

/// The schedulers behind the bus.
#[derive(Clone, Debug)]
pub(crate) struct OverBus {
    bus: Bus,
    id: Name,
    host: Name,
}

impl OverBus {
    /// Most names in one request.
    const CHUNK: usize = 500;

    pub(crate) fn new(bus: Bus, id: Name, host: Name) -> Self {
        Self { bus, id, host }
    }
}

#[async_trait]
impl Scheduler for OverBus {
    async fn workspaces(&self, found: Vec<String>, only_found: bool) -> anyhow::Result<WorkspacesReply> {
        let mut whole = WorkspacesReply { reclaimable: Vec::new(), keep: Vec::new(), unknown: Vec::new(), missing: Vec::new() };
        let mut rest = found.as_slice();
        loop {
            let (chunk, later) = rest.split_at(rest.len().min(Self::CHUNK));
            let query = WorkspacesQuery { host: self.host.clone(), found: chunk.to_vec(), only_found };
            let reply: WorkspacesReply =
                rpc::call(&self.bus, Verb::Workspaces, &query).await.context("no scheduler says which workspaces may go")?;
            whole.reclaimable.extend(reply.reclaimable);
            whole.keep.extend(reply.keep);
            whole.unknown.extend(reply.unknown);
            // What one request does not name may be named by the next.
            whole.missing.extend(reply.missing.into_iter().filter(|id| !found.contains(id)));
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        whole.missing.sort();
        whole.missing.dedup();
        Ok(whole)
    }

    async fn report(&self, report: Report) -> anyhow::Result<()> {
        let body = encode(&Reports { v: MESSAGE_VERSION, from: self.id.clone(), reports: vec![report] });
        let mut pause = Duration::from_millis(100);
        let mut tries = 0;
        loop {
            match self.bus.publish_stored(&subject::result(&self.id), None, body.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) if tries == 5 => return Err(error).context("a report could not be published"),
                Err(error) => tracing::warn!(%error, "a report could not be published yet"),
            }
            tries += 1;
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }
}
