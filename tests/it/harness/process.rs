//! One service of a stack: a process of the real executable, its log, and where it turned out to listen.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use hopyard::servers::{Launch, Spawner, Streams, end, process_env};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::Child;

use super::http;
use super::wait::eventually;

/// Longest wait for a service to say where it listens.
const START: Duration = Duration::from_secs(60);
/// Longest wait for a service that was told to stop.
const STOP: Duration = Duration::from_secs(30);

/// A service, running or not.
#[derive(Debug)]
pub struct Process {
    /// Name of the process, such as `executor-1`.
    pub name: String,
    /// Subcommand.
    pub service: &'static str,
    program: PathBuf,
    env: Vec<(String, String)>,
    log: PathBuf,
    log_from: u64,
    child: Option<Child>,
    admin: Option<SocketAddr>,
    http: Option<SocketAddr>,
}

impl Process {
    /// A service that has not been started.
    pub fn new(name: &str, service: &'static str, env: Vec<(String, String)>, logs: &Path) -> Self {
        let log = logs.join(format!("{name}.log"));
        let program = own_program();
        Self { name: name.to_owned(), service, program, env, log, log_from: 0, child: None, admin: None, http: None }
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<Pid> {
        self.child.as_ref()?.id().map(|id| Pid::from_raw(id.cast_signed()))
    }

    /// Its admin port.
    pub fn admin(&self) -> SocketAddr {
        self.admin.unwrap_or_else(|| panic!("{} has not been started", self.name))
    }

    /// Its API.
    pub fn http(&self) -> SocketAddr {
        self.http.unwrap_or_else(|| panic!("{} has no API, or has not been started", self.name))
    }

    /// A further variable of its environment, from the next start on; it stands above what was given before.
    pub fn set(&mut self, name: &str, value: &str) {
        self.env.retain(|(other, _)| other != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// The executable from its next start on: of another version, or this one's.
    pub fn run_as(&mut self, other: Option<PathBuf>) {
        self.program = other.unwrap_or_else(own_program);
    }

    /// Keeps the addresses that it has, so that it is found there after every start.
    pub fn keep_addresses(&mut self) {
        for (name, addr) in [("HOPYARD_ADMIN_ADDR", self.admin), ("HOPYARD_HTTP_ADDR", self.http)] {
            if let Some(addr) = addr {
                self.set(name, &addr.to_string());
            }
        }
    }

    /// How it ended, if it has ended by itself; it may be started again then.
    pub fn gone(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(status)
    }

    /// Starts the process; it may not be ready yet.
    pub async fn launch(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        (self.admin, self.http) = (None, None);
        self.log_from = std::fs::metadata(&self.log).map_or(0, |m| m.len());
        let mut launch = Launch::new(&self.program).args([self.service]).only_env().streams(Streams::Append(self.log.clone()));
        for name in ["PATH", "TMPDIR", "RUST_BACKTRACE"] {
            if let Some(value) = process_env(name) {
                launch = launch.env(name, value);
            }
        }
        for (name, value) in &self.env {
            launch = launch.env(name, value);
        }
        self.child = Some(Spawner::global().spawn(&launch).await.unwrap());
    }

    /// Waits until it can do its own part.
    pub async fn ready(&mut self) {
        let what = format!("{} is ready", self.name);
        let limit = Instant::now() + START;
        while self.admin.is_none() {
            if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
                panic!("{} ended while starting: {status}\n{}", self.name, last(&self.words(), 30));
            }
            assert!(Instant::now() < limit, "{what}: it has not said so\n{}", last(&self.words(), 30));
            match self.ports() {
                Some((admin, http)) => (self.admin, self.http) = (admin, http),
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        let admin = self.admin();
        eventually(&what, || async move {
            match http::send(admin, "GET", "/readyz", &[], b"").await {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.text()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&mut self) {
        self.launch().await;
        self.ready().await;
    }

    /// What it wrote since its last start.
    pub fn words(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let from = usize::try_from(self.log_from).map_or(0, |from| from.min(bytes.len()));
        String::from_utf8_lossy(&bytes[from..]).into_owned()
    }

    /// The end of its log for a failed test: what it repeats is shown once.
    pub fn told(&self) -> String {
        let mut lines: Vec<(String, String)> = Vec::new();
        for line in self.words().lines() {
            let what = serde_json::from_str::<Value>(line).map_or_else(|_| line.to_owned(), |l| l["message"].to_string());
            match lines.last_mut() {
                Some((before, shown)) if *before == what => *shown = format!("(again) {line}"),
                _ => lines.push((what, line.to_owned())),
            }
        }
        let from = lines.len().saturating_sub(40);
        lines[from..].iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n")
    }

    /// The lines of its log that are JSON, since its last start.
    pub fn lines(&self) -> Vec<Value> {
        self.words().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn ports(&self) -> Option<(Option<SocketAddr>, Option<SocketAddr>)> {
        let lines = self.lines();
        let address = |name: &str| lines.iter().find_map(|l| l[name].as_str()?.trim_start_matches("http://").parse().ok());
        lines.iter().any(|l| l["message"] == "ready").then(|| (address("admin"), address("http")))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = self.pid().unwrap_or_else(|| panic!("{} does not run", self.name));
        kill(pid, signal).unwrap_or_else(|e| panic!("{}: {signal}: {e}", self.name));
    }

    /// Ends it at once, as `kill -9` does, and returns when it is gone.
    pub async fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
        let mut child = self.child.take().expect("it was just signalled");
        child.wait().await.unwrap();
    }

    /// Waits for a process that ends by itself; the text is its log.
    pub async fn ended(&mut self) -> (Option<i32>, String) {
        let mut child = self.child.take().unwrap_or_else(|| panic!("{} does not run", self.name));
        let status = tokio::time::timeout(STOP, child.wait()).await.unwrap_or_else(|_| panic!("{} goes on", self.name)).unwrap();
        (status.code(), self.words())
    }

    /// Tells it to drain; it has to end well.
    pub async fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let status = end(&mut child, Signal::SIGTERM, STOP).await.unwrap();
        assert!(status.success(), "{} did not drain: {status}\n{}", self.name, last(&self.words(), 30));
    }
}

/// The executable that services run: the one that was built with the test, or an optimised one of the same tree.
fn own_program() -> PathBuf {
    process_env("HOPYARD_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_hopyard").to_owned()).into()
}

/// The last lines of a text.
pub fn last(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
