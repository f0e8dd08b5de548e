//! What every handler of the door works with.

use std::sync::Arc;

use hopyard_blobs::Blobs;
use hopyard_contract::Name;
use hopyard_runtime::Bus;
use hopyard_runtime::admin::Readiness;
use hopyard_runtime::presence::Presence;
use hopyard_runtime::tasks::Tasks;
use hopyard_runtime::topology::Topology;
use hopyard_store::read::Reader;

use crate::accept::batch::Batcher;
use crate::accept::definition::Definitions;
use crate::admission::Admission;
use crate::canary::Canaries;
use crate::health::Commands;
use crate::read::streams::Streams;

/// Shared by all requests of a process; cheap to clone.
#[derive(Clone)]
pub struct Door {
    /// Name of this process.
    pub id: Name,
    /// Bus.
    pub bus: Bus,
    /// Read-only store.
    pub reader: Arc<dyn Reader>,
    /// Finished logs, patches and bundles.
    pub blobs: Blobs,
    /// Who beats.
    pub presence: Presence,
    /// Streams and consumers.
    pub topology: Topology,
    /// Tasks.
    pub tasks: Tasks,
    /// Whether this process can do its own part.
    pub readiness: Readiness,
    /// Hands submissions to the schedulers.
    pub batcher: Batcher,
    /// Workflows that were read or stored before.
    pub definitions: Definitions,
    /// How the command stream is getting on.
    pub commands: Commands,
    /// Places for open streams.
    pub streams: Streams,
    /// Which submissions are taken.
    pub admission: Admission,
    /// Runs that show whether work flows.
    pub canaries: Canaries,
}
