//! The shim: a small process of one thread that owns one step's tree, and outlives neither the tree nor its executor.

mod hold;
mod ladder;
mod link;
mod nursery;
mod start;
mod watch;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{close, setsid};

use super::control::Report;
use super::exit::{self, ExitFacts, ExitKind};
use super::spec::StepSpec;
use super::spool::SpoolWriter;
use super::{EXIT_FILE, SPOOL_FILE};
use hopyard_runtime::clock::BootInstant;
use ladder::{Cause, Ladder};
use link::Link;
use start::Running;
use watch::Watch;

pub use nursery::nursery_main;

/// Exit code of a shim that could not do its work; what was wrong stands on its standard error.
const CANNOT_WORK: u8 = 70;

/// Where the shim works.
struct Places {
    dir: PathBuf,
    cgroup: Option<PathBuf>,
}

/// Runs the shim of a step, the control socket on standard input.
///
/// It returns when nothing of the step is left; the exit facts then stand in `exit.json` of its directory.
fn shim_main(places: &Places) -> ExitCode {
    match run(places) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cannot_work(&error),
    }
}

/// Standard error is a file in the spool directory, from which the executor tells it on; that of a nursery is the executor's.
fn cannot_work(error: &io::Error) -> ExitCode {
    use std::io::Write;
    writeln!(io::stderr(), "cannot work: {error}").unwrap_or_default();
    ExitCode::from(CANNOT_WORK)
}

fn run(places: &Places) -> io::Result<()> {
    close_inherited()?;
    let mut link = Link::from_stdin()?;
    let signals = prepare()?;
    let Some(spec) = link.spec()? else {
        // The executor let go before it said what to run: nothing was started, so nothing is left to tell.
        return Ok(());
    };
    hopyard_runtime::failpoint!("shim.told");
    let mut spool = SpoolWriter::open(&places.dir.join(SPOOL_FILE), spec.limits.log_cap_bytes)?;
    watch::crowd::limit(spec.limits.processes)?;
    let ladder = asked_before_start(&mut link, &spec);
    let mut facts = if let Some(cause) = ladder.cause() {
        ended_unstarted(cause)
    } else {
        match start::start(&spec, places.cgroup.as_deref()) {
            Ok(running) => {
                hopyard_runtime::failpoint!("shim.spawned");
                link.send(&Report::Started { pid: running.pid.as_raw() });
                hopyard_runtime::failpoint!("shim.started.sent");
                let watch = Watch::new(spec, running, &mut link, signals, &mut spool, ladder)?;
                watch.run()
            }
            Err(error) => {
                spool.say(&error, BootInstant::now());
                ExitFacts { error: Some(error), ..ExitFacts::now(ExitKind::SpawnFailed) }
            }
        }
    };
    hopyard_runtime::failpoint!("shim.tree.gone");
    let totals = spool.finish();
    facts.log_bytes = totals.bytes;
    facts.log_dropped_bytes = totals.dropped;
    facts.log_truncated = totals.dropped > 0;
    facts.log_error = totals.error;
    facts.finished_at = chrono::Utc::now();
    exit::write(&places.dir.join(EXIT_FILE), &facts)?;
    hopyard_runtime::failpoint!("shim.exit.written");
    link.finish(&Report::Exited(Box::new(facts)));
    Ok(())
}

/// Closes what was handed down beside the three standard descriptors: the executor opens its files to close on exec,
/// but what it inherited itself would reach the step, and a pipe among it would stay open as long as the step runs.
fn close_inherited() -> io::Result<()> {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // The one that listed them is already closed.
        close(fd).unwrap_or_default();
    }
    Ok(())
}

/// Makes this process the root of whatever the step will start.
fn prepare() -> io::Result<SignalFd> {
    // Away from the executor's session, so that a signal to its group or terminal does not reach the step.
    setsid()?;
    // Orphans of the step become children of the shim, so that none can leave the tree.
    prctl::set_child_subreaper(true)?;
    prctl::set_name(c"hopyard-shim")?;
    // A core dump would be taken for work and end up in the snapshot; a step may raise the limit itself.
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    setrlimit(Resource::RLIMIT_CORE, 0, hard)?;
    let mask = watched_signals();
    mask.thread_block()?;
    Ok(SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

/// The signals that the shim takes from a descriptor instead of being interrupted or ended by them.
fn watched_signals() -> SigSet {
    [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect()
}

/// Takes what the executor said meanwhile: a kill that came first wins over the start.
fn asked_before_start(link: &mut Link, spec: &StepSpec) -> Ladder {
    let mut ladder = Ladder::new(spec.limits.grace(), spec.limits.lease);
    let now = BootInstant::now();
    for command in link.receive() {
        ladder.on_command(command, now);
    }
    if !link.is_open() {
        ladder.request(Cause::Abandoned, now, false);
    }
    if ladder.lease().is_some_and(|lease| now >= lease.overdue_at()) {
        ladder.request(Cause::LeaseLost, now, false);
    }
    ladder
}

fn ended_unstarted(cause: &Cause) -> ExitFacts {
    let error = Some("ended before the command was started".to_owned());
    ExitFacts { reason: cause.reason(), error, ..ExitFacts::now(cause.kind()) }
}

impl Running {
    /// The facts that are known once the command has ended.
    fn facts(&self, kind: ExitKind) -> ExitFacts {
        ExitFacts { started_at: Some(self.started_at), ..ExitFacts::now(kind) }
    }
}
