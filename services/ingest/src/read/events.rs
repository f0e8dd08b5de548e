//! The events of a run: as a live stream that misses and repeats nothing, or page by page.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use hopyard_contract::event::{Event, EventType};
use hopyard_contract::status::RunStatus;
use hopyard_contract::view::Page;
use hopyard_contract::{Name, RunId};
use tokio::time::{MissedTickBehavior, interval};

use super::followers::{Follow, Followers, Heard, READ};
use super::params::{MAX_LIMIT, Params, number};
use super::runs;
use super::sse::{self, Gone, HEARTBEAT, Sink};
use crate::door::Door;
use crate::http::{Namespace, run_id};
use crate::problem::{Answer, Refusal};

/// Time until a store that could not be read, or was behind the bus, is read again.
const AGAIN: Duration = Duration::from_millis(500);

/// `GET /runs/{id}/events`.
pub(crate) async fn on_events(
    State(door): State<Door>,
    Extension(followers): Extension<Followers>,
    namespace: Namespace,
    Path(id): Path<String>,
    params: Params,
    headers: HeaderMap,
) -> Answer<Response> {
    params.allow(&["after", "limit"], &[])?;
    let id = run_id(&id)?;
    let after = after(&params, &headers)?;
    let limit = params.limit(MAX_LIMIT)?;
    let state = runs::of(&door, &namespace.name, id).await?;
    let id = state.run.id;
    if wants_pages(&headers) {
        let items = door.reader.events(&namespace.name, id, after, limit).await?;
        return Ok(Json(Page { items, next_cursor: None }).into_response());
    }
    let place = door.streams.admit()?;
    let tail = Tail {
        door: door.clone(),
        namespace: namespace.name,
        run: id,
        position: after,
        ended: state.run.status.is_final().then_some(state.run.status),
    };
    Ok(sse::answer(&door.tasks, place, move |sink| tail.run(followers, sink)))
}

/// Where to go on: the header of a browser that reconnects, else the parameter.
fn after(params: &Params, headers: &HeaderMap) -> Answer<u64> {
    position(sse::header(headers, "last-event-id").or_else(|| params.one("after")))
}

/// The number of the last event that a caller has; 0 before the first.
///
/// # Errors
/// 400 `bad_event_id`.
pub fn position(given: Option<&str>) -> Answer<u64> {
    match given.map(number) {
        None => Ok(0),
        // No run gets near this; the stores count in signed numbers.
        Some(Some(seq)) if i64::try_from(seq).is_ok() => Ok(seq),
        _ => Err(Refusal::new(400, "bad_event_id", "an event id is the number of an event of this run")),
    }
}

/// Whether the caller reads JSON and no stream.
fn wants_pages(headers: &HeaderMap) -> bool {
    let accept = sse::header(headers, "accept").unwrap_or_default();
    accept.contains("application/json") && !accept.contains("text/event-stream")
}

/// One reader's way through the events of a run.
struct Tail {
    door: Door,
    namespace: Name,
    run: RunId,
    /// Number of the last event that was sent.
    position: u64,
    /// Status of a run that has ended.
    ended: Option<RunStatus>,
}

impl Tail {
    async fn run(mut self, followers: Followers, sink: Sink) -> Result<(), Gone> {
        // Listening comes before reading, so that nothing falls between.
        let mut follow = match self.ended {
            Some(_) => None,
            None => Some(followers.follow(&self.door, &self.namespace, self.run).await),
        };
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        // The highest number heard of; what lies between is in the store.
        let (mut look, mut known) = (true, 0);
        loop {
            if look {
                look = !self.read(&sink).await? || (self.position < known && self.ended.is_none());
            }
            if let Some(status) = self.ended
                && !look
            {
                return sink.end(status.as_str()).await;
            }
            tokio::select! {
                heard = next(&mut follow), if !look => match heard {
                    Heard::Missed => look = true,
                    Heard::Events(events) => {
                        known = known.max(events.last().map_or(0, |e| e.seq));
                        look = self.apply(&sink, &events).await? == Applied::Gap;
                    }
                },
                () = tokio::time::sleep(AGAIN), if look => {}
                _ = heartbeat.tick() => sink.comment().await?,
            }
        }
    }

    /// Sends what the store has; false if it cannot be read now.
    async fn read(&mut self, sink: &Sink) -> Result<bool, Gone> {
        loop {
            let events = match self.door.reader.events(&self.namespace, self.run, self.position, READ).await {
                Ok(events) => events,
                Err(error) => {
                    tracing::debug!(run = %self.run, %error, "the events of a run cannot be read at the moment");
                    return Ok(false);
                }
            };
            hopyard_runtime::failpoint!("ingest.events.page_read");
            if self.apply(sink, &events).await? == Applied::End || events.len() < READ as usize {
                return Ok(true);
            }
        }
    }

    /// Sends events by number: repeats are dropped, a gap stops it, and nothing follows the final one.
    async fn apply(&mut self, sink: &Sink, events: &[Event]) -> Result<Applied, Gone> {
        let mut applied = Applied::Repeat;
        for event in events {
            applied = next_number(self.position, event.seq);
            if applied == Applied::Gap {
                return Ok(applied);
            }
            // The end shows also to a reader that asked for what comes after it.
            let end = status_of(event.kind);
            self.ended = end.or(self.ended);
            if applied == Applied::Next {
                sink.event(Some(&event.seq.to_string()), event.kind.as_str(), event).await?;
                self.position = event.seq;
                if end.is_some() {
                    return Ok(Applied::End);
                }
            }
        }
        Ok(applied)
    }
}

async fn next(follow: &mut Option<Follow>) -> Heard {
    match follow {
        Some(follow) => follow.next().await,
        None => std::future::pending().await,
    }
}

/// What to do with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Applied {
    Next,
    Repeat,
    Gap,
    /// It was the final one.
    End,
}

fn next_number(position: u64, seq: u64) -> Applied {
    match seq {
        seq if seq <= position => Applied::Repeat,
        seq if seq == position + 1 => Applied::Next,
        _ => Applied::Gap,
    }
}

/// The status that a final event stands for.
fn status_of(kind: EventType) -> Option<RunStatus> {
    match kind {
        EventType::RunCompleted => Some(RunStatus::Completed),
        EventType::RunFailed => Some(RunStatus::Failed),
        EventType::RunKilled => Some(RunStatus::Killed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::params::tests::{params, told};
    use super::*;
    use axum::http::HeaderValue;

    fn headers(name: &'static str, value: &[u8]) -> HeaderMap {
        HeaderMap::from_iter([(axum::http::HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())])
    }

    #[test]
    fn an_event_id_is_a_plain_number() {
        for text in ["-1", "abc", "", "1.0", "1000000000000000000000000000000", "18446744073709551615", "+1", "01", "a:1"] {
            let refused = (400, "bad_event_id".to_owned());
            assert_eq!(told(after(&params(""), &headers("last-event-id", text.as_bytes()))), refused, "{text}");
            assert_eq!(told(after(&params(&format!("after={}", text.replace('+', "%2B"))), &HeaderMap::new())), refused, "{text}");
        }
        assert_eq!(told(after(&params(""), &headers("last-event-id", b"\xff"))).0, 400);
        assert_eq!(after(&params("after=4"), &HeaderMap::new()).unwrap(), 4);
        assert_eq!(after(&params("after=4"), &headers("last-event-id", b"9")).unwrap(), 9);
        assert_eq!(after(&params(""), &HeaderMap::new()).unwrap(), 0);
    }

    #[test]
    fn only_who_asks_for_json_alone_gets_pages() {
        for (accept, pages) in
            [("application/json", true), ("text/event-stream", false), ("text/event-stream, application/json", false), ("*/*", false)]
        {
            assert_eq!(wants_pages(&headers("accept", accept.as_bytes())), pages, "{accept}");
        }
        assert!(!wants_pages(&HeaderMap::new()));
    }

    #[test]
    fn numbers_are_applied_in_order_and_once() {
        assert_eq!(next_number(0, 1), Applied::Next);
        assert_eq!(next_number(3, 4), Applied::Next);
        assert_eq!(next_number(3, 3), Applied::Repeat);
        assert_eq!(next_number(3, 1), Applied::Repeat);
        assert_eq!(next_number(3, 5), Applied::Gap);
    }

    #[test]
    fn every_final_event_stands_for_its_status() {
        for kind in EventType::ALL {
            let status = status_of(*kind);
            assert_eq!(status.is_some(), kind.is_final(), "{}", kind.as_str());
            if let Some(status) = status {
                assert_eq!(format!("run.{status}"), kind.as_str());
            }
        }
    }
}
