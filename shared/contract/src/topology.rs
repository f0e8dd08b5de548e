//! The one table of streams and consumers: it creates them, checks them and documents them.

use std::time::Duration;

use crate::id::Name;

/// How long and how much a stream keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Until it is acknowledged.
    WorkQueue,
    /// By bytes and age.
    Limits,
}

/// A stream as it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSpec {
    /// Name.
    pub name: &'static str,
    /// Subjects.
    pub subjects: &'static [&'static str],
    /// Retention.
    pub retention: Retention,
    /// Whether a full stream refuses new messages (else it drops the oldest).
    pub discard_new: bool,
    /// Largest size in bytes.
    pub max_bytes: i64,
    /// Oldest message; zero for no limit.
    pub max_age: Duration,
    /// Window of `Nats-Msg-Id`.
    pub duplicate_window: Duration,
    /// What it is for.
    pub purpose: &'static str,
}

const MIB: i64 = 1024 * 1024;
const DAY: Duration = Duration::from_secs(24 * 3600);
const SHORT: Duration = Duration::from_millis(100);
const TWO_MINUTES: Duration = Duration::from_secs(120);

/// Submissions, checked submissions and cancels.
pub const CMD: StreamSpec = StreamSpec {
    name: "HOPYARD_CMD",
    subjects: &["hopyard.cmd.submit.*", "hopyard.cmd.accept.*", "hopyard.cmd.cancel.*"],
    retention: Retention::WorkQueue,
    discard_new: true,
    max_bytes: 1024 * MIB,
    max_age: Duration::ZERO,
    // The server's window knows no tenant, so it is as short as it may be; keys are decided in the store.
    duplicate_window: SHORT,
    purpose: "submissions and cancels until they are decided",
};
/// Tickets.
pub const WORK: StreamSpec = StreamSpec {
    name: "HOPYARD_WORK",
    subjects: &["hopyard.work.*"],
    retention: Retention::WorkQueue,
    discard_new: false,
    max_bytes: 8 * MIB,
    max_age: Duration::ZERO,
    duplicate_window: SHORT,
    purpose: "tickets: hints that a pool has claimable steps",
};
/// Reports.
pub const RESULT: StreamSpec = StreamSpec {
    name: "HOPYARD_RESULT",
    subjects: &["hopyard.result.*"],
    retention: Retention::WorkQueue,
    discard_new: true,
    max_bytes: 1024 * MIB,
    max_age: Duration::ZERO,
    duplicate_window: SHORT,
    purpose: "what executors and janitors report, until it is committed",
};
/// Events and receipts.
pub const EVENT: StreamSpec = StreamSpec {
    name: "HOPYARD_EVENT",
    subjects: &["hopyard.event.*.*", "hopyard.receipt.*.*"],
    retention: Retention::Limits,
    discard_new: false,
    max_bytes: 1024 * MIB,
    max_age: Duration::from_secs(7 * 24 * 3600),
    duplicate_window: TWO_MINUTES,
    purpose: "live tail of events and receipts",
};
/// Logs.
pub const LOG: StreamSpec = StreamSpec {
    name: "HOPYARD_LOG",
    subjects: &["hopyard.log.*.*"],
    retention: Retention::Limits,
    discard_new: false,
    max_bytes: 1024 * MIB,
    max_age: DAY,
    duplicate_window: SHORT,
    purpose: "live tail of logs",
};
/// Tickets for janitors.
pub const GC: StreamSpec = StreamSpec {
    name: "HOPYARD_GC",
    subjects: &["hopyard.gc.*"],
    retention: Retention::WorkQueue,
    discard_new: false,
    max_bytes: 64 * MIB,
    max_age: Duration::ZERO,
    duplicate_window: SHORT,
    purpose: "workspaces that became reclaimable",
};
/// Dead letters.
pub const DLQ: StreamSpec = StreamSpec {
    name: "HOPYARD_DLQ",
    subjects: &["hopyard.dlq.*"],
    retention: Retention::Limits,
    discard_new: false,
    max_bytes: 256 * MIB,
    max_age: Duration::from_secs(30 * 24 * 3600),
    duplicate_window: TWO_MINUTES,
    purpose: "messages that could not be processed, with reason and bytes",
};

/// All streams.
pub const STREAMS: [&StreamSpec; 7] = [&CMD, &WORK, &RESULT, &EVENT, &LOG, &GC, &DLQ];

/// A durable pull consumer as it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerSpec {
    /// Stream.
    pub stream: &'static str,
    /// Durable name.
    pub durable: String,
    /// One subject filter; servers before 2.10 ignore lists of filters without a word.
    pub filter: Option<String>,
    /// Until a message without an acknowledgement is delivered again.
    pub ack_wait: Duration,
    /// Most messages under way.
    pub max_ack_pending: i64,
    /// Whether only messages that come after the consumer's making count.
    pub from_now: bool,
}

const ACK_WAIT: Duration = Duration::from_secs(30);

/// Consumer of the doors.
pub fn ingest() -> ConsumerSpec {
    ConsumerSpec {
        stream: CMD.name,
        durable: "ingest".to_owned(),
        filter: None,
        ack_wait: ACK_WAIT,
        max_ack_pending: 1024,
        from_now: false,
    }
}

/// Consumer of the schedulers.
pub fn scheduler() -> ConsumerSpec {
    ConsumerSpec {
        stream: RESULT.name,
        durable: "scheduler".to_owned(),
        filter: None,
        ack_wait: ACK_WAIT,
        max_ack_pending: 4096,
        from_now: false,
    }
}

/// Consumer of a pool's executors.
pub fn executors(pool: &Name) -> ConsumerSpec {
    ConsumerSpec {
        stream: WORK.name,
        durable: format!("exec_{pool}"),
        filter: Some(crate::subject::work(pool)),
        ack_wait: ACK_WAIT,
        max_ack_pending: 4096,
        from_now: false,
    }
}

/// Consumer of the metrics service.
pub fn metrics() -> ConsumerSpec {
    ConsumerSpec {
        stream: EVENT.name,
        durable: "metrics".to_owned(),
        filter: None,
        ack_wait: ACK_WAIT,
        max_ack_pending: 4096,
        from_now: false,
    }
}

/// Consumer of a host's janitor.
pub fn janitor(host: &Name) -> ConsumerSpec {
    ConsumerSpec {
        stream: GC.name,
        durable: format!("gc_{host}"),
        filter: Some(crate::subject::gc(host)),
        ack_wait: Duration::from_secs(120),
        max_ack_pending: 256,
        from_now: false,
    }
}
