//! The nursery: a small process of one thread that becomes the shim of each step by a fork.
//!
//! It is the same executable, started with the subcommand `step-nursery` before the first step, so that a step costs a fork of
//! something small and not the start of a large program. If it dies, its shims live on, since each has a socket of its own to
//! the executor; the next step starts another one.
//!
//! ```text
//! executor ── start (control socket, error file), kill ──► nursery ── fork ──► shim
//!          ◄──────────────── ended ───────────────────────┘
//! ```

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hopyard_runtime::tasks::Tasks;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::oneshot;

use super::{NURSERY_COMMAND, SHIM_ERRORS, packets};

/// What the executor says. A closed socket means that it is gone.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// Become the shim of a step; control socket and error file come along.
    Start {
        /// By which it is known from now on.
        id: u64,
        /// Its spool directory.
        dir: PathBuf,
        /// Its cgroup.
        cgroup: Option<PathBuf>,
    },
    /// Kill a shim, if it has not ended.
    Kill {
        /// Which.
        id: u64,
    },
}

/// A shim has ended, or was never started.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ended {
    /// Which.
    pub(super) id: u64,
    /// Its process id and its status as the kernel tells it, or why there was none.
    pub(super) how: Result<(i32, i32), String>,
}

/// Starts shims; clones share one nursery.
#[derive(Clone, Debug)]
pub struct Nursery(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    program: PathBuf,
    tasks: Tasks,
    last: AtomicU64,
    line: Mutex<Option<Arc<Line>>>,
}

/// The connection to a running nursery.
#[derive(Debug)]
struct Line {
    /// A socket of packets; the type is that of the nearest that tokio has.
    socket: UnixDatagram,
    /// Who waits for the end of which shim; `None` once the nursery is gone.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Ended>>>>,
}

/// The process of a shim.
#[derive(Debug)]
pub struct ShimProcess {
    id: u64,
    line: Arc<Line>,
    ended: oneshot::Receiver<Ended>,
}

impl Nursery {
    /// A nursery that is started when it is first needed: `program` is the executable that knows the subcommand `step-nursery`.
    pub fn new(program: PathBuf, tasks: Tasks) -> Self {
        Self(Arc::new(Shared { program, tasks, last: AtomicU64::new(0), line: Mutex::default() }))
    }

    /// Starts a shim in a spool directory, with its end of the control socket.
    ///
    /// # Errors
    /// When the error file cannot be made, or no nursery can be started.
    pub async fn start(&self, dir: &Path, cgroup: Option<&Path>, control: OwnedFd) -> io::Result<ShimProcess> {
        let errors = OpenOptions::new().append(true).create(true).mode(0o600).open(dir.join(SHIM_ERRORS))?;
        let id = self.0.last.fetch_add(1, Ordering::Relaxed);
        let order = Order::Start { id, dir: dir.to_owned(), cgroup: cgroup.map(Path::to_owned) };
        loop {
            let line = self.line()?;
            let (tell, ended) = oneshot::channel();
            // One that has just died is replaced; nobody has seen the order then.
            if line.expect(id, tell) && line.say(&order, &[control.as_fd(), errors.as_fd()]).await? {
                return Ok(ShimProcess { id, line, ended });
            }
            self.forget(&line);
        }
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Line>>> {
        self.0.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, line: &Arc<Line>) {
        self.current().take_if(|current| Arc::ptr_eq(current, line));
    }

    /// The line to the nursery, which is started if there is none.
    fn line(&self) -> io::Result<Arc<Line>> {
        let mut current = self.current();
        if let Some(line) = &*current {
            return Ok(line.clone());
        }
        let (ours, theirs) = packets::pair()?;
        let ours = std::os::unix::net::UnixDatagram::from(ours);
        ours.set_nonblocking(true)?;
        #[expect(clippy::disallowed_methods, reason = "the one place where a nursery is started")]
        let mut child = tokio::process::Command::new(&self.0.program)
            .arg(NURSERY_COMMAND)
            .env_clear()
            .envs(hopyard_runtime::failpoint::handed_down())
            // A directory that is never removed; spool directories are given as absolute paths.
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        let line = Arc::new(Line { socket: UnixDatagram::from_std(ours)?, waiting: Mutex::new(Some(HashMap::new())) });
        let (own, heard, stop) = (self.clone(), line.clone(), self.0.tasks.stopping().clone());
        self.0.tasks.spawn_part("nursery", async move {
            let ended = stop.run_until_cancelled(heard.hear()).await;
            own.forget(&heard);
            if ended.is_some() {
                let status = child.wait().await?;
                tracing::warn!(%status, "the nursery of the steps has ended; the next step starts another");
            }
            Ok(())
        });
        Ok(current.insert(line).clone())
    }
}

impl Line {
    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Ended>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the end of a shim will be told; not when the nursery is gone.
    fn expect(&self, id: u64, tell: oneshot::Sender<Ended>) -> bool {
        self.waiting().as_mut().map(|waiting| waiting.insert(id, tell)).is_some()
    }

    /// Says something, as soon as the socket takes it; whether the nursery was there.
    async fn say(&self, order: &Order, descriptors: &[BorrowedFd<'_>]) -> io::Result<bool> {
        let packet = serde_json::to_vec(order)?;
        match self.socket.async_io(Interest::WRITABLE, || packets::send(&self.socket, &packet, descriptors)).await {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Passes on what the nursery says, until it is gone.
    async fn hear(&self) {
        while let Ok((packet, _)) = self.socket.async_io(Interest::READABLE, || packets::receive(&self.socket)).await {
            if packet.is_empty() {
                break;
            }
            match serde_json::from_slice::<Ended>(&packet) {
                Ok(ended) => {
                    let waiting = self.waiting().as_mut().and_then(|waiting| waiting.remove(&ended.id));
                    // Whoever let go of a shim does not wait for its end.
                    waiting.map(|tell| tell.send(ended).unwrap_or_else(drop)).unwrap_or_default();
                }
                Err(error) => tracing::warn!(%error, "the nursery said something unknown"),
            }
        }
        drop(self.waiting().take());
    }
}

impl ShimProcess {
    /// Waits until it has ended: its process id, and how it ended. To be asked once.
    ///
    /// # Errors
    /// When it could not be started, or the nursery, its parent, is gone.
    pub async fn wait(&mut self) -> io::Result<(i32, ExitStatus)> {
        let ended = (&mut self.ended).await.map_err(|_| io::Error::other("its parent is gone"))?;
        let (pid, status) = ended.how.map_err(io::Error::other)?;
        Ok((pid, ExitStatus::from_raw(status)))
    }

    /// Kills it; nothing happens if it, or the nursery, is gone.
    pub async fn kill(&self) {
        if let Err(error) = self.line.say(&Order::Kill { id: self.id }, &[]).await {
            tracing::debug!(%error, "a shim could not be killed");
        }
    }
}
