//! Requests between services: every deadline is short, and a stopped scheduler of two costs a second, not a step.

use std::time::Duration;

use anyhow::Context as _;
use hopyard_contract::message::{RpcAnswer, RpcError};
use hopyard_contract::subject::Verb;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Bus;
use crate::bus::{AskError, Received, Subscription, encode};

/// Queue group of the schedulers.
pub const GROUP: &str = "scheduler";

/// Longest time that any request waits.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// Why a request was not answered with what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listened: it was surely not done.
    #[error("no scheduler listens")]
    Nobody,
    /// It may or may not have been done.
    #[error("no scheduler answered in time: {0}")]
    Unknown(String),
    /// A scheduler refused it.
    #[error("{}: {}", .0.code, .0.detail)]
    Refused(RpcError),
    /// The answer cannot be read.
    #[error("the answer cannot be read: {0}")]
    Answer(String),
}

/// Asks the schedulers: the first second one of them, then all of them. Every request is idempotent by its own key.
///
/// # Errors
/// [`CallError`].
pub async fn call<Q: Serialize, A: DeserializeOwned>(bus: &Bus, verb: Verb, request: &Q) -> Result<A, CallError> {
    call_within(bus, verb, request, DEADLINE).await
}

/// The same with another deadline, of which the first half goes to one scheduler.
///
/// # Errors
/// [`CallError`].
pub async fn call_within<Q: Serialize, A: DeserializeOwned>(
    bus: &Bus,
    verb: Verb,
    request: &Q,
    deadline: Duration,
) -> Result<A, CallError> {
    let body = encode(request);
    let mut maybe_done = None;
    for (subject, patience) in [(verb.one(), deadline / 2), (verb.every(), deadline / 2)] {
        match bus.ask(&subject, body.clone(), patience).await {
            Ok(answer) => {
                return match serde_json::from_slice::<RpcAnswer<A>>(&answer) {
                    Ok(RpcAnswer::Ok(answer)) => Ok(answer),
                    Ok(RpcAnswer::Error(error)) => Err(CallError::Refused(error)),
                    Err(error) => Err(CallError::Answer(error.to_string())),
                };
            }
            Err(AskError::Nobody) => {}
            Err(AskError::NoAnswer(text)) => maybe_done = Some(text),
        }
    }
    Err(maybe_done.map_or(CallError::Nobody, CallError::Unknown))
}

/// A request as a scheduler sees it.
#[derive(Debug)]
pub struct Incoming {
    /// What is asked for.
    pub verb: Verb,
    /// Body.
    pub received: Received,
}

impl Incoming {
    /// Reads the body.
    ///
    /// # Errors
    /// The error to answer with.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, RpcError> {
        serde_json::from_slice(&self.received.body).map_err(|e| RpcError { code: "bad_request".to_owned(), detail: e.to_string() })
    }

    /// Answers.
    pub async fn answer<T: Serialize>(&self, answer: Result<T, RpcError>) {
        let envelope = match answer {
            Ok(answer) => RpcAnswer::Ok(answer),
            Err(error) => RpcAnswer::Error(error),
        };
        self.received.reply(&envelope).await;
    }
}

/// The scheduler's ears: requests to one of the group and requests to all.
pub struct Listener {
    one: Subscription,
    every: Subscription,
}

impl Listener {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn open(bus: &Bus) -> anyhow::Result<Self> {
        let one = bus.subscribe_group("hopyard.rpc.*", GROUP).await.context("requests")?;
        let every = bus.subscribe("hopyard.rpcall.*").await.context("repeated requests")?;
        bus.flush().await?;
        Ok(Self { one, every })
    }

    /// Takes no more requests; those that were delivered before still come from [`Self::next`].
    pub async fn leave(&mut self) {
        self.one.leave().await;
        self.every.leave().await;
    }

    /// The next request with a known verb; `None` once the connection is closed, or everything was read after [`Self::leave`].
    pub async fn next(&mut self) -> Option<Incoming> {
        loop {
            let received = tokio::select! {
                Some(received) = self.one.next() => received,
                Some(received) = self.every.next() => received,
                else => return None,
            };
            if let Some(verb) = Verb::of_subject(&received.subject) {
                return Some(Incoming { verb, received });
            }
            received.reply(&RpcAnswer::<()>::Error(RpcError { code: "unknown_verb".to_owned(), detail: received.subject.clone() })).await;
        }
    }
}
