//! Who is there: hello, beats, draining, status.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::id::Name;

/// `hello`: an executor says who it is, at its start, after a reconnect and on change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hello {
    /// Executor.
    pub executor: Name,
    /// Random id of this process: a restarted executor has another one.
    pub incarnation: Uuid,
    /// Host.
    pub host: Name,
    /// Pool.
    pub pool: Name,
    /// Most attempts at once.
    pub slots: u32,
    /// Version of the program.
    pub version: String,
    /// Workspaces on its disk, as `<run>-g<k>`.
    pub workspaces: Vec<String>,
    /// Whether it takes no new work.
    pub draining: bool,
}

/// Answer to `hello`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HelloReply {
    /// Length of leases.
    pub lease_ms: u64,
    /// Time between renewals.
    pub renew_ms: u64,
}

/// Core message `hopyard.beat.<kind>.<id>`, every 5 s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Beat {
    /// `executor`, `scheduler`, `janitor`, `ingest` or `metrics`.
    pub kind: String,
    /// Name of the process.
    pub id: Name,
    /// Host.
    pub host: Name,
    /// Pool of an executor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Name>,
    /// Slots of an executor.
    #[serde(default)]
    pub slots: u32,
    /// Slots that are free.
    #[serde(default)]
    pub free: u32,
    /// Milliseconds since the last answered claim of an executor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_ms_ago: Option<u64>,
    /// Whether it takes no new work.
    #[serde(default)]
    pub draining: bool,
    /// Version of the program.
    pub version: String,
    /// Free bytes on its data volume.
    #[serde(default)]
    pub disk_free: u64,
    /// Age of the oldest outbox row in ms (schedulers).
    #[serde(default)]
    pub outbox_ms: u64,
    /// Attempts of an executor that are held still because their lease is overdue.
    #[serde(default)]
    pub frozen: u32,
}

/// `drain`: an executor shall take no new work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Drain {
    /// The executor.
    pub executor: Name,
}

/// `status` carries nothing yet but this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusQuery {}

/// Answer to `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SchedulerStatus {
    /// The scheduler.
    pub id: Name,
    /// Age of the oldest outbox row in ms.
    pub outbox_ms: u64,
    /// Version of the program.
    pub version: String,
}
