//! The inbox of the group-commit loop: bounded, so that a slow store slows those who ask and not the memory.

use hopyard_contract::message::{
    Accept, AcceptReply, Claim, ClaimReply, Hello, KillReply, KillRun, Pin, PinReply, Renew, RenewReply, Reports, RpcError,
    WorkspacesQuery, WorkspacesReply,
};
use hopyard_runtime::consume::Delivery;
use hopyard_runtime::rpc::Incoming;
use serde::Serialize;
use tokio::sync::mpsc;

/// Most inputs that wait.
const CAPACITY: usize = 4096;

/// One thing to be decided and committed.
pub(crate) enum Work {
    /// `accept`.
    Accept(Ask<Accept>),
    /// `claim`.
    Claim(Ask<Claim>),
    /// `renew`.
    Renew(Ask<Renew>),
    /// `pin`.
    Pin(Ask<Pin>),
    /// `kill`.
    Kill(Ask<KillRun>),
    /// `hello`, after the committed part of its answer.
    Hello(Ask<Hello>),
    /// `workspaces`.
    Workspaces(Ask<WorkspacesQuery>),
    /// Reports of executors and janitors, acknowledged after the commit.
    Reports(Delivery, Reports),
}

/// A request and who asked.
pub(crate) struct Ask<T> {
    pub(crate) request: T,
    pub(crate) from: Incoming,
}

/// The answer to one work, kept until after the commit.
pub(crate) enum Answer {
    Accept(AcceptReply),
    Claim(ClaimReply),
    Renew(RenewReply),
    Pin(PinReply),
    Kill(KillReply),
    Hello(hopyard_contract::message::HelloReply),
    Workspaces(WorkspacesReply),
    /// Acknowledge.
    Done,
}

impl Work {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Accept(_) => "accept",
            Self::Claim(_) => "claim",
            Self::Renew(_) => "renew",
            Self::Pin(_) => "pin",
            Self::Kill(_) => "kill",
            Self::Hello(_) => "hello",
            Self::Workspaces(_) => "workspaces",
            Self::Reports(..) => "reports",
        }
    }

    /// Answers after the commit.
    pub(crate) async fn settle(&self, answer: Answer) {
        match (self, answer) {
            (Self::Reports(delivery, _), _) => delivery.ack().await,
            (work, Answer::Accept(a)) => work.send(Ok(a)).await,
            (work, Answer::Claim(a)) => work.send(Ok(a)).await,
            (work, Answer::Renew(a)) => work.send(Ok(a)).await,
            (work, Answer::Pin(a)) => work.send(Ok(a)).await,
            (work, Answer::Kill(a)) => work.send(Ok(a)).await,
            (work, Answer::Hello(a)) => work.send(Ok(a)).await,
            (work, Answer::Workspaces(a)) => work.send(Ok(a)).await,
            (_, Answer::Done) => {}
        }
    }

    /// Refuses after a transaction that cannot succeed; reports come again later.
    pub(crate) async fn refuse(&self, error: &RpcError) {
        match self {
            Self::Reports(delivery, _) => delivery.later(std::time::Duration::from_secs(5)).await,
            work => work.send::<()>(Err(error.clone())).await,
        }
    }

    async fn send<A: Serialize>(&self, answer: Result<A, RpcError>) {
        match self {
            Self::Accept(ask) => ask.from.answer(answer).await,
            Self::Claim(ask) => ask.from.answer(answer).await,
            Self::Renew(ask) => ask.from.answer(answer).await,
            Self::Pin(ask) => ask.from.answer(answer).await,
            Self::Kill(ask) => ask.from.answer(answer).await,
            Self::Hello(ask) => ask.from.answer(answer).await,
            Self::Workspaces(ask) => ask.from.answer(answer).await,
            Self::Reports(..) => {}
        }
    }
}

/// The sending side.
pub(crate) type Inbox = mpsc::Sender<Work>;

/// Makes the inbox.
pub(crate) fn channel() -> (Inbox, mpsc::Receiver<Work>) {
    mpsc::channel(CAPACITY)
}
