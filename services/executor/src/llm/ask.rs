//! Asks once, and again while the provider cannot take it; the answer is passed on while it comes.

use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use hopyard_runtime::backoff::jitter;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};

use super::Order;
use super::request::{self, Said};
use crate::wire::{Call, Speech, Turn};

/// How often a question is asked that the provider cannot take.
const TRIES: u32 = 8;
/// First and longest pause between tries, unless the provider names one.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// What came of a question.
pub(super) enum Reply {
    /// The whole answer.
    Said(Turn),
    /// The provider's words, when it refused for good.
    Refused(String),
}

/// Asks; `pass_on` gets the pieces of the answer while they come, `remark` what goes wrong on the way.
///
/// # Errors
/// When a piece cannot be passed on.
pub(super) async fn ask(
    http: &reqwest::Client,
    order: &Order,
    said: &[Said],
    mut pass_on: impl FnMut(&str) -> std::io::Result<()>,
    mut remark: impl FnMut(&str),
) -> anyhow::Result<Reply> {
    let (path, body) = request::call(order, said);
    let url = format!("{}{path}", order.url);
    let (header, credential) = order.wire.credential(&order.token);
    let mut pause = PAUSES.0;
    for tries in 1.. {
        let sent = http.post(&url).header(header, &credential).json(&body).send().await;
        let (words, after) = match sent {
            Err(error) => (format!("the provider cannot be reached: {error}"), None),
            Ok(answer) => {
                let status = answer.status();
                let after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok()).map(Duration::from_secs);
                let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
                let mut speech = Speech::new(order.wire, &kind);
                let streams = speech.streams();
                let mut pieces = answer.bytes_stream();
                let mut broke = None;
                while let Some(piece) = pieces.next().await {
                    match piece {
                        Ok(bytes) => {
                            for part in speech.feed(&bytes) {
                                pass_on(&part).context("the answer cannot be passed on")?;
                            }
                        }
                        Err(error) => {
                            broke = Some(error.to_string());
                            break;
                        }
                    }
                }
                let (turn, call) = speech.end();
                if status.is_success() && !streams {
                    pass_on(&turn.text).context("the answer cannot be passed on")?;
                }
                let Call { error, whole, .. } = call;
                if status.is_success() && whole && error.is_none() {
                    return Ok(Reply::Said(turn));
                }
                let words = error
                    .or(broke)
                    .unwrap_or_else(|| if status.is_success() { "it broke off".to_owned() } else { "no reason is given".to_owned() });
                let code = status.as_u16();
                let words = format!("the provider answered {code}: {words}");
                if !(status.is_success() || matches!(code, 408 | 409 | 429) || code >= 500) {
                    return Ok(Reply::Refused(words));
                }
                (words, after)
            }
        };
        if tries == TRIES {
            return Ok(Reply::Refused(format!("{words} ({TRIES} tries)")));
        }
        remark(&format!("{words}; it is asked again"));
        // Whatever was used is in the ledger of the gateway.
        tokio::time::sleep(after.unwrap_or_else(|| pause / 2 + jitter(pause))).await;
        pause = (pause * 2).min(PAUSES.1);
    }
    unreachable!("the last try returns")
}
