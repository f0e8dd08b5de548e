//! Starts the command of a step: program found, output on pipes, environment and group of its own.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStderr, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use chrono::{DateTime, Utc};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::SigSet;
use nix::unistd::Pid;

use super::watched_signals;
use crate::process::cgroup::StepCgroup;
use crate::process::environment::{self, ATTEMPT};
use crate::process::spec::StepSpec;
use hopyard_runtime::clock::BootInstant;

/// Size of the output pipes where the kernel grants it; a step then waits less often for the shim.
const PIPE_BYTES: i32 = 256 * 1024;
/// For how long a program that somebody has open for writing is tried again, and how often.
const BUSY: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(2);

/// A command that runs.
pub(super) struct Running {
    pub(super) pid: Pid,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
    pub(super) cgroup: Option<StepCgroup>,
    /// Why the requested cgroup is not used.
    pub(super) cgroup_error: Option<String>,
    pub(super) started: BootInstant,
    pub(super) started_at: DateTime<Utc>,
}

/// Starts the command, or says in one sentence why it cannot be.
pub(super) fn start(spec: &StepSpec, cgroup: Option<&Path>) -> Result<Running, String> {
    if !spec.cwd.is_dir() {
        return Err(format!("working directory {} does not exist", spec.cwd.display()));
    }
    let path = spec.env.get("PATH").map_or(environment::DEFAULT_PATH, String::as_str);
    let asked = spec.argv.first().map_or("", String::as_str);
    let program = environment::resolve(asked, path, &spec.cwd).map_err(|error| error.to_string())?;

    let input = match &spec.input {
        Some(file) => File::open(file).map(Stdio::from).map_err(|error| format!("the input {} cannot be read: {error}", file.display()))?,
        None => Stdio::null(),
    };

    #[expect(clippy::disallowed_methods, reason = "the one place where the command of a step is started")]
    let mut command = Command::new(&program);
    command
        .arg0(asked)
        .args(&spec.argv[1..])
        .env_clear()
        .envs(&spec.env)
        .env(ATTEMPT, &spec.attempt)
        .current_dir(&spec.cwd)
        .process_group(0)
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());

    let (mut cgroup, mut cgroup_error) = match cgroup.map(StepCgroup::enter) {
        Some(Ok(group)) => (Some(group), None),
        Some(Err(error)) => (None, Some(error.to_string())),
        None => (None, None),
    };
    let spawned = with_all_signals(|| unless_busy(|| command.spawn()));
    if let Some(group) = &cgroup
        && let Err(error) = group.leave()
    {
        // Still inside: a kill of the group would kill the shim, so the tree is ended by its parentage instead.
        cgroup_error = Some(error.to_string());
        cgroup = None;
    }
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            if let Some(group) = &cgroup {
                group.remove();
            }
            return Err(format!("cannot start {}: {error}", program.display()));
        }
    };
    let stdout = child.stdout.take().expect("standard output is a pipe");
    let stderr = child.stderr.take().expect("standard error is a pipe");
    // The child handle is let go: the shim reaps all its children itself, adopted ones too.
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("process ids fit 31 bits"));
    Ok(Running { pid, stdout, stderr, cgroup, cgroup_error, started: BootInstant::now(), started_at: Utc::now() })
}

/// Tries again while a program is open for writing: whoever wrote it may have forked at that moment, and the child holds the
/// file open until it enters its own program.
fn unless_busy<T>(mut start: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let began = BootInstant::now();
    loop {
        match start() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && began.elapsed() < BUSY => thread::sleep(AGAIN),
            started => return started,
        }
    }
}

/// Starts a process while no signal is blocked: the mask is inherited, and a shell that cannot get SIGCHLD waits for
/// ever. A SIGCHLD that is missed meanwhile is made good by the first look of the watch.
fn with_all_signals<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    SigSet::empty().thread_set_mask()?;
    let started = start();
    watched_signals().thread_set_mask()?;
    started
}

impl Running {
    /// Makes reads of the pipes return at once, and the pipes larger where that is allowed.
    pub(super) fn open_pipes(&self) -> nix::Result<()> {
        fcntl(&self.stdout, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        fcntl(&self.stderr, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // Refused beyond the user's share of pipe memory; the smaller pipe works as well.
        fcntl(&self.stdout, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)).unwrap_or_default();
        fcntl(&self.stderr, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)).unwrap_or_default();
        Ok(())
    }
}
