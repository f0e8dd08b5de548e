//! Follows a run to its end: events as progress lines, logs of all attempts as they are written.

use std::collections::{BTreeMap, HashSet};
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::stream::{SelectAll, Stream, StreamExt as _, unfold};
use hopyard_contract::RunId;
use hopyard_contract::event::{Event, EventType};
use hopyard_contract::log::Chunk;
use hopyard_contract::view::RunView;
use tokio::time::Instant;

use super::Api;
use super::lines::{Lines, content};
use super::sse::{Signal, Subscription};
use crate::exit::Failure;

/// How long the logs may go on after the last event.
const LOGS_WITHIN: Duration = Duration::from_secs(15);
/// Closed streams in a row, without anything new, after which a log is given up; about half a minute.
const FRUITLESS: u32 = 12;

/// What there is to see of a run.
#[derive(Clone, Debug)]
pub enum Item {
    /// A fact.
    Event(Event),
    /// A piece of a log: step, attempt, bytes.
    Chunk(String, u32, Chunk),
    /// No more events will come.
    EventsEnd,
    /// No more of this attempt's log will come.
    LogEnd(String, u32),
}

/// What of a run is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Logs of the attempts.
    pub logs: bool,
}

type Items = Pin<Box<dyn Stream<Item = Result<Item>>>>;

/// Follows a run to its end, hands over what happens, and returns the run as it ended.
///
/// # Errors
/// [`Failure::Unreachable`] when the server stays away for a minute, [`Failure::Refused`] for an unknown run.
pub async fn follow(api: &Api, run: RunId, want: Want, mut on_item: impl FnMut(&Item)) -> Result<RunView> {
    let mut sources: SelectAll<Items> = SelectAll::new();
    sources.push(events(api, run));
    let mut logs: HashSet<(String, u32)> = HashSet::new();
    let mut open = 0usize;
    let mut limit: Option<Instant> = None;
    loop {
        let next = match limit {
            Some(limit) => tokio::time::timeout_at(limit, sources.next()).await.unwrap_or(None),
            None => sources.next().await,
        };
        let Some(item) = next.transpose()? else { break };
        on_item(&item);
        match &item {
            Item::Event(event) => {
                if let Some((step, n)) = attempt_at_work(event).filter(|_| want.logs)
                    && logs.insert((step.clone(), n))
                {
                    sources.push(log(api, run, step, n));
                    open += 1;
                }
            }
            Item::EventsEnd => limit = Some(Instant::now() + LOGS_WITHIN),
            Item::LogEnd(..) => open -= 1,
            Item::Chunk(..) => {}
        }
        if limit.is_some() && open == 0 {
            break;
        }
    }
    api.get_as(&format!("/runs/{run}"), &[]).await
}

/// The attempt that an event says is running, or was.
fn attempt_at_work(event: &Event) -> Option<(String, u32)> {
    use EventType::{AttemptCompleted, AttemptFailed, AttemptKilled, AttemptLost, AttemptRunning};
    let at_work = matches!(event.kind, AttemptRunning | AttemptCompleted | AttemptFailed | AttemptKilled | AttemptLost);
    at_work.then(|| Some((event.step.as_ref()?.to_string(), event.attempt?)))?
}

/// The events of a run, ended by [`Item::EventsEnd`].
fn events(api: &Api, run: RunId) -> Items {
    let subscription = Subscription::new(api.clone(), format!("/runs/{run}/events"));
    let items = unfold(Some((subscription, 0u64)), |state| async {
        let (mut subscription, mut last) = state?;
        loop {
            let frame = match subscription.next().await {
                Ok(Signal::Frame(frame)) => frame,
                Ok(Signal::Closed) => continue,
                Err(error) => return Some((Err(error), None)),
            };
            if frame.event == "end" {
                return Some((Ok(Item::EventsEnd), None));
            }
            let event: Event = match serde_json::from_str(&frame.data) {
                Ok(event) => event,
                // A type that a newer server knows; its number still counts as seen.
                Err(_) => continue,
            };
            if event.seq <= last {
                continue;
            }
            last = event.seq;
            return Some((Ok(Item::Event(event)), Some((subscription, last))));
        }
    });
    Box::pin(items)
}

/// State of one followed log.
struct Tail {
    api: Api,
    run: RunId,
    step: String,
    n: u32,
    subscription: Subscription,
    next: u64,
    /// Closed streams in a row that brought nothing.
    fruitless: u32,
    ended: bool,
}

/// The log of an attempt, ended by [`Item::LogEnd`].
pub fn log(api: &Api, run: RunId, step: String, n: u32) -> Items {
    let path = format!("/runs/{run}/steps/{step}/attempts/{n}/logs/stream");
    let subscription = Subscription::new(api.clone(), path);
    let tail = Tail { api: api.clone(), run, step, n, subscription, next: 0, fruitless: 0, ended: false };
    Box::pin(unfold(tail, |mut tail| async {
        let item = tail.next().await.transpose()?;
        Some((item, tail))
    }))
}

impl Tail {
    async fn next(&mut self) -> Result<Option<Item>> {
        if self.ended {
            return Ok(None);
        }
        loop {
            match self.subscription.next().await {
                Ok(Signal::Frame(frame)) if frame.event == "end" => return Ok(Some(self.end())),
                Ok(Signal::Frame(frame)) => {
                    let Ok(chunk) = serde_json::from_str::<Chunk>(&frame.data) else { continue };
                    self.fruitless = 0;
                    self.next = self.next.max(chunk.offset + content(&chunk).len() as u64);
                    return Ok(Some(Item::Chunk(self.step.clone(), self.n, chunk)));
                }
                Ok(Signal::Closed) => {
                    self.fruitless += 1;
                    if self.is_complete().await? {
                        return Ok(Some(self.end()));
                    }
                    if self.fruitless > FRUITLESS {
                        self.ended = true;
                        bail!("the log of {}.{}.{} cannot be read to its end: `hopyard doctor` may say why", self.run, self.step, self.n);
                    }
                }
                Err(error) => {
                    // An attempt that never had a process has no log.
                    let missing = matches!(error.downcast_ref(), Some(Failure::Refused(problem)) if problem.status == 404);
                    self.ended = true;
                    return if missing { Ok(Some(self.end())) } else { Err(error) };
                }
            }
        }
    }

    fn end(&mut self) -> Item {
        self.ended = true;
        Item::LogEnd(self.step.clone(), self.n)
    }

    /// Whether the attempt has ended and all of its log has been seen.
    async fn is_complete(&self) -> Result<bool> {
        let run: RunView = self.api.get_as(&format!("/runs/{}", self.run), &[]).await.context("cannot see whether a log is complete")?;
        let attempts = run.steps.iter().flatten().filter(|s| s.id.as_str() == self.step).flat_map(|s| &s.attempts);
        Ok(attempts.into_iter().any(|a| a.n == self.n && a.status.is_final() && self.next >= a.log_bytes))
    }
}

/// Turns what is followed into lines for people: `step | text` for logs, a sentence for events.
#[derive(Debug, Default)]
pub struct Narrator {
    logs: BTreeMap<(String, u32), Lines>,
    started: BTreeMap<(String, u32), chrono::DateTime<chrono::Utc>>,
}

/// A line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Of a log.
    Log(String),
    /// About the run or a step.
    Progress(String),
}

impl Narrator {
    /// The lines that an item completes.
    pub fn tell(&mut self, item: &Item) -> Vec<Line> {
        let line = |step: &str, text: String| Line::Log(format!("{step} | {text}"));
        match item {
            Item::Chunk(step, n, chunk) => {
                let lines = self.logs.entry((step.clone(), *n)).or_default().push(chunk);
                lines.into_iter().map(|text| line(step, text)).collect()
            }
            Item::LogEnd(step, n) => {
                let rest = self.logs.remove(&(step.clone(), *n)).map(|mut lines| lines.finish()).unwrap_or_default();
                rest.into_iter().map(|text| line(step, text)).collect()
            }
            Item::Event(event) => self.sentence(event).map(Line::Progress).into_iter().collect(),
            Item::EventsEnd => Vec::new(),
        }
    }

    fn sentence(&mut self, event: &Event) -> Option<String> {
        use EventType as E;
        let step = event.step.as_ref().map(ToString::to_string).unwrap_or_default();
        let n = event.attempt.unwrap_or(0);
        let told = |name: &str| {
            event
                .data
                .get(name)
                .filter(|value| !value.is_null())
                .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        let code = ["failure_code", "code", "reason"].into_iter().find_map(told).map(|code| format!(" ({code})")).unwrap_or_default();
        let kind = event.kind.as_str();
        let what = kind.split_once('.').map_or(kind, |(_, what)| what);
        Some(match event.kind {
            E::StepClaimable | E::AttemptLeased | E::AttemptCompleted => return None,
            E::AttemptRunning => {
                self.started.insert((step.clone(), n), event.at);
                let pid = told("pid").map(|pid| format!(", pid {pid}")).unwrap_or_default();
                let executor = told("executor").map(|name| format!(" on {name}")).unwrap_or_default();
                format!("{step}: running{executor} (attempt {n}{pid})")
            }
            E::AttemptFailed | E::AttemptKilled | E::AttemptLost => format!("{step}: attempt {n} {what}{code}"),
            E::StepCompleted | E::StepFailed | E::StepKilled => {
                let started = self.started.iter().rev().find(|((id, _), _)| *id == step).map(|(_, at)| *at);
                let time = started.and_then(|at| u64::try_from((event.at - at).num_milliseconds()).ok());
                let time = time.map(|ms| format!(" after {}", super::output::duration(ms))).unwrap_or_default();
                format!("{step}: {what}{code}{time}")
            }
            E::StepRetrying | E::StepSkipped | E::StepPaused => format!("{step}: {what}{code}"),
            E::RunAccepted => format!("run {} accepted", event.run_id),
            _ if kind.starts_with("workspace.") => {
                let path = told("path").map(|path| format!(": {path}")).unwrap_or_default();
                format!("workspace {what}{path}")
            }
            _ => format!("run {}{code}", what.replace('_', " ")),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, at: &str, data: serde_json::Value) -> Item {
        let run = "01914f4e-3c3f-7000-8000-000000000001";
        let value = json!({"v": 1, "id": format!("{run}:1"), "run_id": run, "namespace": "default", "seq": 1, "type": kind, "at": at,
                           "step": "fix", "attempt": 1, "data": data});
        Item::Event(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn progress_has_one_line_per_turn_of_a_step() {
        let mut narrator = Narrator::default();
        let mut tell = |item| narrator.tell(&item);
        let running = event("attempt.running", "2026-05-01T12:00:00.000000Z", json!({"executor": "executor-1", "pid": 7}));
        assert_eq!(tell(running), [Line::Progress("fix: running on executor-1 (attempt 1, pid 7)".into())]);
        assert_eq!(tell(event("attempt.completed", "2026-05-01T12:00:01.500000Z", json!({}))), []);
        let failed = event("step.failed", "2026-05-01T12:00:01.500000Z", json!({"failure_code": "exit_code"}));
        assert_eq!(tell(failed), [Line::Progress("fix: failed (exit_code) after 1.5 s".into())]);
    }

    #[test]
    fn logs_of_steps_beside_each_other_do_not_mix() {
        let mut narrator = Narrator::default();
        let chunk = |step: &str, offset, text: &str| {
            let chunk = json!({"offset": offset, "stream": "stdout", "at": "2026-05-01T12:00:00.000000Z", "text": text});
            Item::Chunk(step.to_owned(), 1, serde_json::from_value(chunk).unwrap())
        };
        let mut lines = Vec::new();
        for item in [chunk("a", 0, "one "), chunk("b", 0, "two\nrest"), chunk("a", 4, "line\n"), Item::LogEnd("b".into(), 1)] {
            lines.extend(narrator.tell(&item));
        }
        let text = |line: &str| Line::Log(line.to_owned());
        assert_eq!(lines, [text("b | two"), text("a | one line"), text("b | rest")]);
    }
}
