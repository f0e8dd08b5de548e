//! Keeps the processes of a stack running: one that ends by itself is started again, with a line that says so.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::child::{Running, Shared, Spec, ended};
use crate::client::output;
use crate::servers::{NatsServer, end};

/// A process that lived this long starts again at once.
const STEADY: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a draining service may take.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// Where everything is, kept in `dev.json` of the data directory too, because process ids change when one is started again.
#[derive(Clone, Debug)]
pub struct Board {
    file: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    url: String,
    nats_url: String,
    data_dir: PathBuf,
    admin: BTreeMap<String, String>,
    pids: BTreeMap<String, u32>,
}

impl Board {
    pub(super) fn new(data_dir: PathBuf, nats_url: String) -> Self {
        let file = data_dir.join("dev.json");
        let state = State { url: String::new(), nats_url, data_dir, admin: BTreeMap::new(), pids: BTreeMap::new() };
        Self { file, state: Arc::new(Mutex::new(state)) }
    }

    pub(super) fn set_url(&self, url: String) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).url = url;
    }

    pub(super) fn set(&self, name: &str, pid: u32, admin: Option<String>) {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.pids.insert(name.to_owned(), pid);
            if let Some(admin) = admin {
                state.admin.insert(name.to_owned(), admin);
            }
        }
        let fresh = self.file.with_extension("json.new");
        let written = std::fs::write(&fresh, format!("{}\n", self.state())).and_then(|()| std::fs::rename(&fresh, &self.file));
        if let Err(error) = written {
            output::progress(&format!("hopyard dev: {} cannot be written: {error}", self.file.display()));
        }
    }

    /// `{url, nats_url, data_dir, admin: {name: url}, pids: {name: pid}}`.
    pub fn state(&self) -> Value {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        json!({"url": state.url, "nats_url": state.nats_url, "data_dir": state.data_dir, "admin": state.admin, "pids": state.pids})
    }
}

/// Grows with every end that comes soon, and starts anew after a steady life.
#[derive(Debug)]
struct Backoff {
    pause: Duration,
    since: Instant,
}

impl Backoff {
    fn new() -> Self {
        Self { pause: FIRST_PAUSE, since: Instant::now() }
    }

    /// The pause before the next start, after an end at `now`.
    fn next(&mut self, now: Instant) -> Duration {
        if now.duration_since(self.since) >= STEADY {
            self.pause = FIRST_PAUSE;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

/// Watches a service until `stop`, then drains it.
pub(super) async fn service(mut spec: Spec, mut running: Running, shared: Arc<Shared>, board: Board, stop: CancellationToken) {
    let mut backoff = Backoff::new();
    loop {
        let status = tokio::select! {
            status = running.child.wait() => status,
            () = stop.cancelled() => {
                if let Err(error) = end(&mut running.child, Signal::SIGTERM, DRAIN_WITHIN).await {
                    output::progress(&format!("hopyard dev: {} cannot be stopped: {error}", spec.name));
                }
                return;
            }
        };
        let how = status.map(ended).unwrap_or_else(|error| format!("was lost: {error}"));
        let mut text = format!("{} (pid {}) {how}", spec.name, running.pid);
        if !how.contains("signal") {
            text.push_str(&format!("\n{}", spec.last_words(running.log_from)));
        }
        running = loop {
            let pause = backoff.next(Instant::now());
            output::progress(&format!("hopyard dev: {text}\nhopyard dev: {} starts again in {} ms", spec.name, pause.as_millis()));
            let again = async {
                sleep(pause).await;
                spec.start(&shared).await
            };
            tokio::select! {
                result = again => match result {
                    Ok(running) => break running,
                    Err(error) => text = format!("{error:#}"),
                },
                // The child that was starting is killed with its dropped value.
                () = stop.cancelled() => return,
            }
        };
        backoff.since = Instant::now();
        board.set(&spec.name, running.pid, Some(format!("http://{}", spec.admin)));
    }
}

/// Watches the bus until `stop`, then ends it.
pub(super) async fn bus(mut server: NatsServer, board: Board, stop: CancellationToken) {
    let mut backoff = Backoff::new();
    loop {
        let pid = server.pid().unwrap_or_default();
        let status = tokio::select! {
            status = server.exited() => status,
            () = stop.cancelled() => {
                if let Err(error) = server.stop().await {
                    output::progress(&format!("hopyard dev: {error:#}"));
                }
                return;
            }
        };
        let mut text = match status {
            Ok(Some(status)) => format!("nats (pid {pid}) {}", ended(status)),
            Ok(None) => format!("nats (pid {pid}) is gone"),
            Err(error) => format!("nats (pid {pid}) was lost: {error}"),
        };
        loop {
            let pause = backoff.next(Instant::now());
            output::progress(&format!("hopyard dev: {text}\nhopyard dev: nats starts again in {} ms", pause.as_millis()));
            let again = async {
                sleep(pause).await;
                server.restart_same_port().await
            };
            tokio::select! {
                result = again => match result {
                    Ok(()) => break,
                    Err(error) => text = format!("{error:#}"),
                },
                () = stop.cancelled() => return,
            }
        }
        backoff.since = Instant::now();
        board.set("nats", server.pid().unwrap_or_default(), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pauses_grow_until_a_life_was_steady() {
        let mut backoff = Backoff::new();
        let soon = backoff.since + Duration::from_secs(1);
        let pauses: Vec<_> = (0..9).map(|_| backoff.next(soon).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.next(backoff.since + STEADY), FIRST_PAUSE);
    }

    #[test]
    fn the_board_is_kept_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let board = Board::new(dir.path().to_owned(), "nats://127.0.0.1:1".into());
        board.set_url("http://127.0.0.1:2".into());
        board.set("nats", 7, None);
        board.set("scheduler", 8, Some("http://127.0.0.1:3".into()));
        let text = std::fs::read_to_string(dir.path().join("dev.json")).unwrap();
        let state: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(state, board.state());
        assert_eq!(state["pids"], json!({"nats": 7, "scheduler": 8}));
        assert_eq!(state["admin"], json!({"scheduler": "http://127.0.0.1:3"}));
    }
}
