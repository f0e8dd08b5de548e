//! Followers of a stream's live tail: ordered push consumers, which survive a server's restart without gaps.

use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, push};
use bytes::Bytes;
use futures::StreamExt as _;

use crate::Bus;
use crate::backoff::around;

/// Time until a tail that could not be opened is tried again.
const AGAIN: Duration = Duration::from_millis(300);

/// One message of a live tail.
#[derive(Clone, Debug)]
pub struct Tail {
    /// Sequence in the stream.
    pub sequence: u64,
    /// Body.
    pub body: Bytes,
}

/// Follows one subject of a stream from its first kept message.
pub struct Follower {
    bus: Bus,
    stream: &'static str,
    subject: String,
    after: u64,
    open: Option<push::Ordered>,
}

impl Follower {
    /// A follower of one literal subject.
    pub fn new(bus: Bus, stream: &'static str, subject: String) -> Self {
        Self { bus, stream, subject, after: 0, open: None }
    }

    /// The next message; waits as long as it takes, across reconnects.
    pub async fn next(&mut self) -> Tail {
        loop {
            let Some(open) = &mut self.open else {
                match self.connect().await {
                    Ok(open) => self.open = Some(open),
                    Err(error) => {
                        tracing::debug!(subject = self.subject, %error, "the follower cannot be opened yet");
                        tokio::time::sleep(around(AGAIN)).await;
                    }
                }
                continue;
            };
            match open.next().await {
                Some(Ok(message)) => {
                    let Ok(info) = message.info() else { continue };
                    let sequence = info.stream_sequence;
                    // A re-created stream starts at 1 again; readers drop repeats by their own offsets.
                    self.after = sequence;
                    return Tail { sequence, body: message.payload.clone() };
                }
                Some(Err(_)) | None => self.open = None,
            }
        }
    }

    /// Lets go of the subscription and of what waits in it; the next message is asked for again, after the last one returned.
    pub fn pause(&mut self) {
        self.open = None;
    }

    async fn connect(&mut self) -> anyhow::Result<push::Ordered> {
        let stream = self.bus.jetstream().get_stream(self.stream).await?;
        let last = stream.cached_info().state.last_sequence;
        let deliver_policy = match self.after {
            0 => DeliverPolicy::All,
            after if after > last => DeliverPolicy::All,
            after => DeliverPolicy::ByStartSequence { start_sequence: after + 1 },
        };
        let config = push::OrderedConfig {
            deliver_subject: self.bus.inbox(),
            filter_subject: self.subject.clone(),
            deliver_policy,
            ..Default::default()
        };
        Ok(stream.create_consumer(config).await?.messages().await?)
    }
}
