//! Subjects: the only place that builds or parses one, always from validated tokens.

use crate::id::{Name, RunId};

/// Wildcard over all submissions, cancels and accepts of the command stream.
pub const CMD: &str = "hopyard.cmd.>";
/// Wildcard over immediate submissions.
pub const API_SUBMIT: &str = "hopyard.api.submit.*";
/// Wildcard over beats.
pub const BEATS: &str = "hopyard.beat.>";
/// Asks everyone for a beat at once; nothing in the body is read.
pub const ROLL_CALL: &str = "hopyard.rollcall";

/// `hopyard.cmd.submit.<ns>`: a submission whose answer is a receipt.
pub fn cmd_submit(namespace: &Name) -> String {
    format!("hopyard.cmd.submit.{namespace}")
}

/// `hopyard.cmd.accept.<ns>`: a checked submission that a door could not hand over at once.
pub fn cmd_accept(namespace: &Name) -> String {
    format!("hopyard.cmd.accept.{namespace}")
}

/// `hopyard.cmd.cancel.<ns>`: a cancel whose answer is a receipt.
pub fn cmd_cancel(namespace: &Name) -> String {
    format!("hopyard.cmd.cancel.{namespace}")
}

/// What a command subject asks for, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A submission.
    Submit(Name),
    /// A checked submission.
    Accept(Name),
    /// A cancel.
    Cancel(Name),
}

/// Reads a command subject.
pub fn parse_cmd(subject: &str) -> Option<Command> {
    let (verb, namespace) = subject.strip_prefix("hopyard.cmd.")?.split_once('.')?;
    let namespace = namespace.parse().ok()?;
    match verb {
        "submit" => Some(Command::Submit(namespace)),
        "accept" => Some(Command::Accept(namespace)),
        "cancel" => Some(Command::Cancel(namespace)),
        _ => None,
    }
}

/// `hopyard.api.submit.<ns>`: a submission answered at once.
pub fn api_submit(namespace: &Name) -> String {
    format!("hopyard.api.submit.{namespace}")
}

/// The namespace of an immediate submission.
pub fn parse_api_submit(subject: &str) -> Option<Name> {
    subject.strip_prefix("hopyard.api.submit.")?.parse().ok()
}

/// `hopyard.work.<pool>`: tickets.
pub fn work(pool: &Name) -> String {
    format!("hopyard.work.{pool}")
}

/// `hopyard.result.<executor>`: reports.
pub fn result(executor: &Name) -> String {
    format!("hopyard.result.{executor}")
}

/// `hopyard.event.<ns>.<run>`: event pages.
pub fn event(namespace: &Name, run: RunId) -> String {
    format!("hopyard.event.{namespace}.{run}")
}

/// `hopyard.receipt.<ns>.<seq>`: receipts.
pub fn receipt(namespace: &Name, seq: u64) -> String {
    format!("hopyard.receipt.{namespace}.{seq}")
}

/// `hopyard.log.<ns>.<run>`: log chunks.
pub fn log(namespace: &Name, run: RunId) -> String {
    format!("hopyard.log.{namespace}.{run}")
}

/// `hopyard.gc.<host>`: tickets for janitors.
pub fn gc(host: &Name) -> String {
    format!("hopyard.gc.{host}")
}

/// `hopyard.dlq.<stream>`: dead letters of a stream.
pub fn dlq(stream: &str) -> String {
    format!("hopyard.dlq.{}", stream.to_ascii_lowercase())
}

/// `hopyard.ctl.<executor>`: orders to one executor.
pub fn ctl(executor: &Name) -> String {
    format!("hopyard.ctl.{executor}")
}

/// `hopyard.beat.<kind>.<id>`: presence.
pub fn beat(kind: &str, id: &Name) -> String {
    format!("hopyard.beat.{kind}.{id}")
}

/// Requests between services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is documented at its message")]
pub enum Verb {
    Hello,
    Accept,
    Claim,
    Renew,
    Pin,
    Kill,
    Answer,
    Resume,
    Drain,
    PutDefinition,
    Workspaces,
    Status,
}

impl Verb {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Hello,
        Self::Accept,
        Self::Claim,
        Self::Renew,
        Self::Pin,
        Self::Kill,
        Self::Answer,
        Self::Resume,
        Self::Drain,
        Self::PutDefinition,
        Self::Workspaces,
        Self::Status,
    ];

    /// The written form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Accept => "accept",
            Self::Claim => "claim",
            Self::Renew => "renew",
            Self::Pin => "pin",
            Self::Kill => "kill",
            Self::Answer => "answer",
            Self::Resume => "resume",
            Self::Drain => "drain",
            Self::PutDefinition => "put_definition",
            Self::Workspaces => "workspaces",
            Self::Status => "status",
        }
    }

    /// First try: one scheduler of the queue group answers.
    pub fn one(self) -> String {
        format!("hopyard.rpc.{}", self.as_str())
    }

    /// Repeats: every scheduler answers, so that a stopped one costs a second and not a step.
    pub fn every(self) -> String {
        format!("hopyard.rpcall.{}", self.as_str())
    }

    /// The verb at the end of a request subject.
    pub fn of_subject(subject: &str) -> Option<Self> {
        let word = subject.strip_prefix("hopyard.rpc.").or_else(|| subject.strip_prefix("hopyard.rpcall."))?;
        Self::ALL.iter().copied().find(|v| v.as_str() == word)
    }
}
