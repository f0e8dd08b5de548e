//! The executor's side of a shim: starts it, carries words in both directions, and takes over when it dies.

use std::fs::{self, DirBuilder};
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::task;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::control::{self, Command, Report};
use super::exit::{self, ExitFacts, ExitKind};
use super::spec::ProcessSpec;
use super::spool::SpoolReader;
use super::{EXIT_FILE, Nursery, SHIM_ERRORS, SPOOL_FILE, ShimProcess, State, cgroup, exit_facts, tree};
use crate::instruments::{self, Frozen};

/// How long beyond the grace a shim may take to end a tree without saying that processes are stuck.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long the shim may take to read a word.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// How much of the shim's own error text is passed on, in bytes.
const ERROR_TEXT: usize = 4096;

/// The task that accompanies a step's process; it ends when nothing of the step is left.
#[must_use = "the process is ended when its supervision is dropped"]
pub struct Supervision(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Future for Supervision {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> task::Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for Supervision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Supervision")
    }
}

impl Supervision {
    pub(super) async fn start(
        nursery: &Nursery,
        spec: ProcessSpec,
        inbox: mpsc::Receiver<Command>,
        publish: watch::Sender<State>,
    ) -> anyhow::Result<Self> {
        prepare(&spec.dir).with_context(|| format!("prepare spool directory {}", spec.dir.display()))?;
        let (ours, theirs) = StdUnixStream::pair().context("make the control socket")?;
        ours.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(ours)?.into_split();
        let process = nursery.start(&spec.dir, spec.cgroup.as_deref(), theirs.into()).await?;
        let shim = Shim {
            attempt: spec.step.attempt.clone(),
            dir: spec.dir,
            cgroup: spec.cgroup,
            grace: spec.step.limits.grace(),
            process,
            lines: BufReader::new(read).lines(),
            write: Some(write),
            publish,
            started_at: None,
            reported: None,
            reason: None,
            answer_by: None,
            frozen: None,
        };
        Ok(Self(Box::pin(shim.accompany(Command::Spec(Box::new(spec.step)), inbox))))
    }
}

fn prepare(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    // There from the start, so that a reader can follow before the shim has opened it. An attempt has its number once, so a
    // spool with something in it belongs to somebody else.
    let spool = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(dir.join(SPOOL_FILE))?;
    if spool.metadata()?.len() > 0 || exit::read(&dir.join(EXIT_FILE))?.is_some() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a log or an end of an earlier process"));
    }
    Ok(())
}

struct Shim {
    attempt: String,
    dir: PathBuf,
    cgroup: Option<PathBuf>,
    grace: Duration,
    process: ShimProcess,
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: Option<OwnedWriteHalf>,
    publish: watch::Sender<State>,
    started_at: Option<DateTime<Utc>>,
    reported: Option<ExitFacts>,
    reason: Option<String>,
    answer_by: Option<Instant>,
    /// Counts the tree among the frozen ones while it is one.
    frozen: Option<Frozen>,
}

impl Shim {
    async fn accompany(mut self, spec: Command, mut inbox: mpsc::Receiver<Command>) {
        self.say(&spec).await;
        loop {
            let answer_by = self.answer_by;
            tokio::select! {
                line = self.lines.next_line() => match line {
                    Ok(Some(line)) => self.hear(&line),
                    // Only the shim holds the other end: it is gone.
                    Ok(None) | Err(_) => break,
                },
                command = inbox.recv(), if self.write.is_some() => match command {
                    Some(command) => self.say(&command).await,
                    // Nobody holds the process any more: the closed socket makes the shim end it.
                    None => {
                        self.write = None;
                        self.answer_by = Some(Instant::now() + self.grace + ANSWER_WITHIN);
                    }
                },
                () = sleep_until(answer_by.unwrap_or_else(Instant::now)), if answer_by.is_some() => {
                    self.answer_by = None;
                    if self.publish.borrow().stuck.is_empty() {
                        self.kill_shim("does not end its tree").await;
                    }
                }
            }
        }
        let facts = self.end().await;
        self.publish.send_modify(|state| state.exit = Some(Arc::new(facts)));
    }

    async fn say(&mut self, command: &Command) {
        if let Command::Kill { reason, force } = command {
            self.reason.get_or_insert_with(|| reason.clone());
            let grace = if *force { Duration::ZERO } else { self.grace };
            let by = Instant::now() + grace + ANSWER_WITHIN;
            self.answer_by = Some(self.answer_by.map_or(by, |earlier| earlier.min(by)));
        }
        let Some(write) = &mut self.write else { return };
        match timeout(READ_WITHIN, write.write_all(&control::line(command))).await {
            Ok(Ok(())) => {}
            // A shim that is gone is seen by the reading side.
            Ok(Err(error)) => tracing::debug!(attempt = %self.attempt, %error, "the shim takes no word"),
            Err(_) => self.kill_shim("does not read its control socket").await,
        }
    }

    fn hear(&mut self, line: &str) {
        match serde_json::from_str(line) {
            Ok(Report::Started { pid }) => {
                self.started_at = Some(Utc::now());
                self.publish.send_modify(|state| state.pid = Some(pid));
            }
            Ok(Report::Spool { bytes }) => self.publish.send_modify(|state| state.spooled = bytes),
            Ok(Report::Frozen) => {
                tracing::warn!(attempt = %self.attempt, "the lease is overdue: the step is held still until it is renewed");
                self.frozen = Some(Frozen::begin());
                self.publish.send_modify(|state| state.frozen = true);
            }
            Ok(Report::Thawed { after_ms }) => {
                tracing::info!(attempt = %self.attempt, after_ms, "the lease is renewed: the step goes on");
                self.thawed("thawed");
            }
            Ok(Report::Stuck { pids }) => {
                tracing::warn!(attempt = %self.attempt, ?pids, "processes of a step survive SIGKILL");
                self.publish.send_modify(|state| state.stuck = pids);
            }
            Ok(Report::Exited(facts)) => self.reported = Some(*facts),
            Err(error) => tracing::warn!(attempt = %self.attempt, %error, "the shim said something unknown"),
        }
    }

    fn thawed(&mut self, event: &str) {
        if self.frozen.take().is_some() {
            instruments::freezes().with_label_values(&[event]).inc();
            self.publish.send_modify(|state| state.frozen = false);
        }
    }

    async fn kill_shim(&self, why: &str) {
        tracing::warn!(attempt = %self.attempt, "the shim {why} and is killed");
        self.process.kill().await;
    }

    /// Waits for the shim, and finds out how the step ended.
    async fn end(&mut self) -> ExitFacts {
        self.write = None;
        let status = match timeout(ANSWER_WITHIN, self.process.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.kill_shim("closed its control socket and lives on").await;
                self.process.wait().await
            }
        };
        let facts = match self.reported.take() {
            Some(facts) => facts,
            None => match exit_facts(&self.dir) {
                Ok(Some(facts)) => facts,
                Ok(None) => self.lost(status, None).await,
                Err(error) => self.lost(status, Some(format!("{error:#}"))).await,
            },
        };
        if let Some(group) = &self.cgroup {
            cgroup::remove(group);
        }
        self.thawed("ended");
        facts
    }

    /// The shim is gone without a word: its tree is ended from here, and the facts say what is known.
    async fn lost(&mut self, status: io::Result<(i32, ExitStatus)>, unreadable: Option<String>) -> ExitFacts {
        let mut killed = 0;
        // The shim is the session of its tree, too.
        let session = status.as_ref().ok().map(|(pid, _)| *pid);
        let error = loop {
            let (attempt, group) = (self.attempt.clone(), self.cgroup.clone());
            let sweep = tokio::task::spawn_blocking(move || {
                group.as_deref().map(cgroup::kill);
                tree::kill_marked(&attempt, session)
            });
            match sweep.await.map_err(io::Error::other).flatten() {
                Ok(swept) => {
                    killed += swept.killed;
                    if swept.alive != self.publish.borrow().stuck {
                        tracing::warn!(attempt = %self.attempt, pids = ?swept.alive, "processes of a step survive SIGKILL");
                    }
                    let gone = swept.alive.is_empty();
                    self.publish.send_modify(|state| state.stuck = swept.alive);
                    if gone {
                        break None;
                    }
                }
                Err(error) => break Some(format!("left-over processes cannot be found: {error}")),
            }
        };
        let ended = status.map_or_else(|error| error.to_string(), |(_, status)| status.to_string());
        let said = fs::read(self.dir.join(SHIM_ERRORS)).unwrap_or_default();
        let said = String::from_utf8_lossy(&said[..said.len().min(ERROR_TEXT)]).trim().to_owned();
        let parts = [Some(format!("the shim ended without exit facts ({ended})")), unreadable, error, Some(said)];
        let error = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
        let log = SpoolReader::open(&self.dir.join(SPOOL_FILE)).and_then(SpoolReader::end);
        ExitFacts {
            reason: self.reason.clone(),
            error: Some(error),
            started_at: self.started_at,
            leftover_killed: u32::try_from(killed).unwrap_or(u32::MAX),
            log_bytes: *log.as_ref().unwrap_or(&0),
            log_error: log.err().map(|error| error.to_string()),
            ..ExitFacts::now(ExitKind::ShimLost)
        }
    }
}
