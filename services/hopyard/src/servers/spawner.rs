//! Starts child processes from one long-lived thread, so that they die when this process does.
//!
//! The parent-death signal of Linux is bound to the *thread* that forked: a child started from a worker thread would be
//! killed when that worker retires. So all children are forked by one thread that lives as long as its [`Spawner`].

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// The user and group a child runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id; supplementary groups are dropped.
    pub gid: u32,
}

/// Where stdout and stderr of a child go; stdin is always empty.
#[derive(Clone, Debug)]
pub enum Streams {
    /// Shared with this process.
    Inherit,
    /// Both appended to this file.
    Append(PathBuf),
    /// Two pipes, which the caller must drain.
    Piped,
}

/// A child to start: the program and the conditions it lives in.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The executable file.
    pub program: PathBuf,
    /// Its arguments, without the program itself.
    pub args: Vec<OsString>,
    /// Variables added to (or replacing those of) our environment.
    pub env: Vec<(OsString, OsString)>,
    /// Whether `env` is the whole environment, and nothing of ours is passed on.
    pub only_env: bool,
    /// Its working directory; `None` keeps ours.
    pub dir: Option<PathBuf>,
    /// Where its output goes.
    pub streams: Streams,
    /// What it receives when this process dies.
    pub on_parent_death: Signal,
    /// Whom it runs as; `None` keeps ours. Needs root and `setpriv`.
    pub account: Option<Account>,
}

impl Launch {
    /// A child with our environment, directory and user, output shared, killed when we die.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            only_env: false,
            dir: None,
            streams: Streams::Inherit,
            on_parent_death: Signal::SIGKILL,
            account: None,
        }
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds one variable.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Passes nothing of our environment on.
    pub fn only_env(mut self) -> Self {
        self.only_env = true;
        self
    }

    /// Sends the output to `streams`.
    pub fn streams(mut self, streams: Streams) -> Self {
        self.streams = streams;
        self
    }

    /// The command line. `setpriv` replaces itself by the program, so the pid of the child is the program's.
    fn command(&self) -> io::Result<Command> {
        let mut line: Vec<OsString> = Vec::new();
        match setpriv() {
            Some(setpriv) => {
                let signal = self.on_parent_death.as_str().trim_start_matches("SIG");
                line.extend([setpriv.into(), "--pdeathsig".into(), signal.into()]);
                if let Some(Account { uid, gid }) = self.account {
                    line.push(format!("--reuid={uid}").into());
                    line.push(format!("--regid={gid}").into());
                    line.push("--clear-groups".into());
                }
                line.push("--".into());
            }
            None if self.account.is_some() => {
                let text = format!("{} must not run as root, and setpriv (util-linux) is not on PATH", self.program.display());
                return Err(io::Error::new(io::ErrorKind::Unsupported, text));
            }
            None => {}
        }
        line.push(self.program.clone().into());
        line.extend(self.args.iter().cloned());

        let mut command = command(&line[0]);
        if self.only_env {
            command.env_clear();
        }
        command.args(&line[1..]).envs(self.env.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        match &self.streams {
            Streams::Inherit => {}
            Streams::Piped => {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            }
            Streams::Append(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path)?;
                command.stdout(file.try_clone()?).stderr(file);
            }
        }
        // Its own group: an interrupt typed at the terminal reaches us alone, and we end the children in order.
        command.process_group(0).kill_on_drop(true);
        Ok(command)
    }
}

struct Request {
    command: Command,
    runtime: Handle,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// Most children that wait to be started; whoever wants one more waits as well.
const WAITING: usize = 64;

/// The thread that forks. Dropping it ends the thread and with it, on Linux, every child it started.
#[derive(Debug)]
pub struct Spawner {
    requests: mpsc::Sender<Request>,
}

impl Spawner {
    /// Starts a forking thread.
    pub fn start() -> io::Result<Self> {
        let (requests, mut inbox) = mpsc::channel::<Request>(WAITING);
        std::thread::Builder::new().name("spawner".into()).spawn(move || {
            while let Some(Request { mut command, runtime, reply }) = inbox.blocking_recv() {
                let _entered = runtime.enter();
                // If nobody waits for the answer any more, the child in it is dropped and thereby killed.
                let _ = reply.send(command.spawn());
            }
        })?;
        Ok(Self { requests })
    }

    /// The one of this process, alive until the process ends.
    pub fn global() -> &'static Self {
        static GLOBAL: OnceLock<Spawner> = OnceLock::new();
        GLOBAL.get_or_init(|| Spawner::start().expect("a process that cannot start one thread cannot work"))
    }

    /// Starts the child in a process group of its own. It is killed when the returned value is dropped.
    pub async fn spawn(&self, launch: &Launch) -> io::Result<Child> {
        let (reply, answer) = oneshot::channel();
        let request = Request { command: launch.command()?, runtime: Handle::current(), reply };
        let gone = || io::Error::other("the spawner thread has ended");
        self.requests.send(request).await.map_err(|_| gone())?;
        let program = launch.program.display();
        answer.await.map_err(|_| gone())?.map_err(|e| io::Error::new(e.kind(), format!("cannot start {program}: {e}")))
    }
}

/// Asks a child to end by `signal`, kills it if it still lives after `patience`, and returns how it ended.
pub async fn end(child: &mut Child, signal: Signal, patience: Duration) -> io::Result<ExitStatus> {
    if let Some(pid) = child.id() {
        // It may have ended by itself meanwhile; the wait below tells.
        let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
    }
    match tokio::time::timeout(patience, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            child.start_kill()?;
            child.wait().await
        }
    }
}

/// Ends and reaps a child from a destructor, where nothing can be awaited: by `signal`, and after 2 s by `SIGKILL`.
pub(super) fn end_now(child: &mut Child, signal: Signal) {
    for signal in [signal, Signal::SIGKILL] {
        let Some(pid) = child.id() else { return };
        // It may have ended by itself meanwhile; the next look tells.
        let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        for _ in 0..1000 {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    tracing::warn!(pid = child.id(), "a killed server has not ended yet");
}

/// The `setpriv` of util-linux, if it is on PATH and knows parent-death signals (that of busybox does not).
fn setpriv() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let probe = || {
        let path = super::programs::on_path("setpriv", &super::process_env)?;
        let output = std_command(&path).arg("--help").stdin(Stdio::null()).output().ok()?;
        String::from_utf8_lossy(&output.stdout).contains("--pdeathsig").then_some(path)
    };
    FOUND.get_or_init(probe).as_deref()
}

#[expect(clippy::disallowed_methods, reason = "this module is where the launcher starts processes")]
fn command(program: &OsString) -> Command {
    Command::new(program)
}

#[expect(clippy::disallowed_methods, reason = "this module is where the launcher starts processes")]
fn std_command(program: &Path) -> std::process::Command {
    std::process::Command::new(program)
}
