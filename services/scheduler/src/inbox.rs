//! The inbox of the group-commit loop: bounded, so that a slow store slows those who ask and not the memory.

use std::time::Duration;

use hopyard_contract::message::RpcError;
use hopyard_runtime::bounds;
use hopyard_runtime::consume::Delivery;
use hopyard_runtime::rpc::Incoming;
use tokio::sync::mpsc;

use crate::request::{Answer, Request};

/// Name of the inbox on `/metrics`.
pub(crate) const QUEUE: &str = "inbox";
/// Most inputs that wait.
const CAPACITY: usize = 4096;

/// A request and who waits for its answer.
pub(crate) struct Work {
    pub(crate) request: Request,
    pub(crate) from: From,
}

/// Who waits for an answer.
pub(crate) enum From {
    /// Somebody who asked.
    Asker(Box<Incoming>),
    /// A message of a stream, acknowledged after the commit.
    Stream(Box<Delivery>),
}

impl Work {
    /// Answers after the commit.
    pub(crate) async fn settle(&self, answer: Answer) {
        match &self.from {
            From::Stream(delivery) => delivery.ack().await,
            From::Asker(incoming) => match answer {
                Answer::Accept(a) => incoming.answer(Ok(a)).await,
                Answer::Claim(a) => incoming.answer(Ok(a)).await,
                Answer::Renew(a) => incoming.answer(Ok(a)).await,
                Answer::Pin(a) => incoming.answer(Ok(a)).await,
                Answer::Kill(a) => incoming.answer(Ok(a)).await,
                Answer::Answer(a) => incoming.answer(Ok(a)).await,
                Answer::Resume(a) => incoming.answer(Ok(a)).await,
                Answer::Hello(a) => incoming.answer(Ok(a)).await,
                Answer::Workspaces(a) => incoming.answer(Ok(a)).await,
                Answer::Done => incoming.answer(Ok(())).await,
            },
        }
    }

    /// Refuses after a transaction that cannot succeed for now; messages of a stream come again later.
    pub(crate) async fn refuse(&self, error: &RpcError) {
        match &self.from {
            From::Stream(delivery) => delivery.later(Duration::from_secs(5)).await,
            From::Asker(incoming) => incoming.answer::<()>(Err(error.clone())).await,
        }
    }
}

/// The sending side.
pub(crate) type Inbox = mpsc::Sender<Work>;

/// Makes the inbox.
pub(crate) fn channel() -> (Inbox, mpsc::Receiver<Work>) {
    bounds::channel(QUEUE, CAPACITY)
}
