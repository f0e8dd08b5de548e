//! The shim's loop: drains both pipes, reaps, keeps the deadlines, listens to the executor, until nothing is left.

pub(super) mod crowd;
mod holding;
mod reaping;

use std::collections::{BTreeSet, HashSet};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use super::hold::Hold;
use super::ladder::{Cause, Ladder};
use super::link::Link;
use super::start::Running;
use crate::process::control::Report;
use crate::process::exit::{ExitFacts, ExitKind};
use crate::process::spec::{Limits, StepSpec};
use crate::process::spool::SpoolWriter;
use crowd::Crowd;
use hopyard_contract::log::Stream;
use hopyard_contract::log::frame::MAX_PAYLOAD;
use hopyard_runtime::clock::BootInstant;

/// How long the pipes of a tree that is gone may stay open.
const LEAK_AFTER: Duration = Duration::from_secs(2);
/// How often at most the executor is told that the spool has grown.
const HINT_EVERY: Duration = Duration::from_millis(5);
/// Longest sleep: the kernel's timeout does not count while the machine sleeps, the deadlines do.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// Reads of one pipe in a row before the other has its turn.
const READS: usize = 8;

pub(super) struct Watch<'a> {
    limits: Limits,
    running: Running,
    link: &'a mut Link,
    signals: SignalFd,
    spool: &'a mut SpoolWriter,
    ladder: Ladder,
    crowd: Crowd,
    hold: Hold,
    /// Processes that were stopped by the shim, parents first.
    stopped: Vec<i32>,
    buffer: Vec<u8>,
    stdout_open: bool,
    stderr_open: bool,
    last_output: BootInstant,
    ended: Option<Ended>,
    /// When the last process of the tree was reaped.
    gone: Option<BootInstant>,
    terminated: BTreeSet<i32>,
    killing_since: Option<BootInstant>,
    stuck: Vec<i32>,
    left_over: HashSet<i32>,
    hinted: u64,
    hinted_at: BootInstant,
}

/// How the command ended.
#[derive(Clone, Copy)]
struct Ended {
    code: Option<i32>,
    signal: Option<i32>,
    core: bool,
}

#[derive(Default)]
struct Ready {
    signals: bool,
    link: bool,
    stdout: bool,
    stderr: bool,
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        spec: StepSpec,
        running: Running,
        link: &'a mut Link,
        signals: SignalFd,
        spool: &'a mut SpoolWriter,
        ladder: Ladder,
    ) -> io::Result<Self> {
        running.open_pipes()?;
        if let Some(error) = &running.cgroup_error {
            spool.say(&format!("the cgroup of the step is not used: {error}"), running.started);
        }
        let now = running.started;
        Ok(Self {
            crowd: Crowd::new(spec.limits.processes, now),
            hold: Hold::new(Duration::from_millis(spec.limits.freeze_limit_ms)),
            stopped: Vec::new(),
            limits: spec.limits,
            running,
            link,
            signals,
            spool,
            ladder,
            buffer: vec![0; MAX_PAYLOAD],
            stdout_open: true,
            stderr_open: true,
            last_output: now,
            ended: None,
            gone: None,
            terminated: BTreeSet::new(),
            killing_since: None,
            stuck: Vec::new(),
            left_over: HashSet::new(),
            hinted: 0,
            hinted_at: now,
        })
    }

    /// Runs until the tree is gone and its pipes are closed, and says how it ended.
    pub(super) fn run(mut self) -> ExitFacts {
        self.reap(BootInstant::now());
        loop {
            let now = BootInstant::now();
            self.keep_deadlines(now);
            self.keep_crowd(now);
            self.climb(now);
            self.keep_spool(now);
            if self.is_over(now) {
                return self.facts();
            }
            let ready = self.sleep(now);
            if ready.stdout {
                self.drain(Stream::Stdout);
            }
            if ready.stderr {
                self.drain(Stream::Stderr);
            }
            if ready.signals {
                self.on_signals();
            }
            if ready.link {
                self.on_link();
            }
        }
    }

    fn is_over(&self, now: BootInstant) -> bool {
        let Some(gone) = self.gone else { return false };
        !(self.stdout_open || self.stderr_open) || now >= gone.after(LEAK_AFTER)
    }

    fn keep_deadlines(&mut self, now: BootInstant) {
        if self.ended.is_some() || self.ladder.cause().is_some() {
            return;
        }
        self.keep_lease(now);
        if self.hold.is_on() {
            return;
        }
        if self.timeout_at().is_some_and(|at| now >= at) {
            self.end(Cause::Timeout, now, "the step ran into its timeout");
        }
        if self.idle_at().is_some_and(|at| now >= at) {
            self.end(Cause::IdleTimeout, now, "the step wrote nothing until its idle timeout");
        }
    }

    /// Time in which the tree was held still does not count.
    fn timeout_at(&self) -> Option<BootInstant> {
        self.limits.timeout_ms.map(|ms| self.running.started.after(Duration::from_millis(ms)).after(self.hold.spent()))
    }

    fn idle_at(&self) -> Option<BootInstant> {
        self.limits.idle_timeout_ms.map(|ms| self.last_output.after(Duration::from_millis(ms)))
    }

    fn sleep(&self, now: BootInstant) -> Ready {
        let untold = self.hinted < self.spool.written() && !self.link.has_waiting();
        let free = self.ended.is_none() && self.ladder.cause().is_none();
        let counting = free && !self.hold.is_on();
        let due = [
            untold.then(|| self.hinted_at.after(HINT_EVERY)),
            self.timeout_at().filter(|_| counting),
            self.idle_at().filter(|_| counting),
            self.hold.due_at(self.ladder.lease()).filter(|_| free),
            self.gone.map(|gone| gone.after(LEAK_AFTER)),
            self.ladder.due_at().filter(|_| self.gone.is_none()),
            self.spool.flush_at(),
            self.crowd.due_at().filter(|_| free),
        ];
        let due = due.into_iter().flatten().min();
        let span = due.map_or(LONGEST_SLEEP, |at| now.until(at)).min(LONGEST_SLEEP);
        // Rounded up, so that a deadline has passed when the sleep for it is over.
        let millis = u16::try_from(span.as_micros().div_ceil(1000)).expect("a sleep is at most a second");
        self.wait_for(PollTimeout::from(millis))
    }

    fn wait_for(&self, timeout: PollTimeout) -> Ready {
        let (out, err) = (self.running.stdout.as_fd(), self.running.stderr.as_fd());
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let mut link_events = PollFlags::empty();
        link_events.set(PollFlags::POLLIN, self.link.is_open());
        link_events.set(PollFlags::POLLOUT, self.link.has_waiting());
        // Closed descriptors stay out: they would be ready for ever.
        let mut place = |fd, events: PollFlags, wanted: bool| {
            wanted.then(|| {
                fds.push(PollFd::new(fd, events));
                fds.len() - 1
            })
        };
        let link = place(self.link.fd(), link_events, !link_events.is_empty());
        let stdout = place(out, PollFlags::POLLIN, self.stdout_open);
        let stderr = place(err, PollFlags::POLLIN, self.stderr_open);
        if poll(&mut fds, timeout).is_err() {
            // Interrupted: the loop comes back with fresh deadlines.
            return Ready::default();
        }
        let is_ready = |index: usize| fds[index].any().unwrap_or(true);
        Ready {
            signals: is_ready(0),
            link: link.is_some_and(is_ready),
            stdout: stdout.is_some_and(is_ready),
            stderr: stderr.is_some_and(is_ready),
        }
    }

    fn drain(&mut self, stream: Stream) {
        for _ in 0..READS {
            let read = match stream {
                Stream::Stderr => self.running.stderr.read(&mut self.buffer),
                Stream::Stdout | Stream::System => self.running.stdout.read(&mut self.buffer),
            };
            match read {
                Ok(count) if count > 0 => {
                    self.last_output = BootInstant::now();
                    self.spool.push(stream, &self.buffer[..count], self.last_output);
                    if count < self.buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => {
                    match stream {
                        Stream::Stderr => self.stderr_open = false,
                        Stream::Stdout | Stream::System => self.stdout_open = false,
                    }
                    return;
                }
            }
        }
    }

    fn keep_spool(&mut self, now: BootInstant) {
        if self.spool.flush_at().is_some_and(|at| now >= at) {
            self.spool.flush();
        }
        let written = self.spool.written();
        if written > self.hinted && now >= self.hinted_at.after(HINT_EVERY) && !self.link.has_waiting() {
            self.link.send(&Report::Spool { bytes: written });
            self.hinted = written;
            self.hinted_at = now;
        }
    }

    fn end(&mut self, cause: Cause, now: BootInstant, text: &str) {
        if self.ended.is_none() && self.ladder.request(cause, now, false) {
            self.spool.say(text, now);
        }
    }

    fn on_link(&mut self) {
        let now = BootInstant::now();
        self.link.flush();
        let commands = self.link.receive();
        if self.gone.is_some() {
            return;
        }
        for command in commands {
            if self.ladder.on_command(command, now)
                && let Some(Cause::Killed { reason }) = self.ladder.cause()
            {
                self.spool.say(&format!("the step is being killed: {reason}"), now);
            }
        }
        if !self.link.is_open() {
            self.end(Cause::Abandoned, now, "the executor is gone");
        }
    }

    fn facts(mut self) -> ExitFacts {
        let now = BootInstant::now();
        let pipes_leaked = self.stdout_open || self.stderr_open;
        if pipes_leaked {
            self.spool.say("a process outside of the step keeps its output open, which is closed now", now);
        }
        let left_over = u32::try_from(self.left_over.len()).unwrap_or(u32::MAX);
        if left_over > 0 {
            self.spool.say(&format!("{left_over} processes outlived the command and were ended"), now);
        }
        let ended = self.ended.unwrap_or(Ended { code: None, signal: None, core: false });
        let by_itself = if ended.code.is_some() { ExitKind::Exited } else { ExitKind::Signaled };
        let (kind, reason) = match self.ladder.cause() {
            None | Some(Cause::LeftOver) => (by_itself, None),
            Some(cause) => (cause.kind(), cause.reason()),
        };
        let out_of_memory = self.running.cgroup.as_ref().is_some_and(|group| group.out_of_memory());
        if let Some(group) = &self.running.cgroup {
            group.remove();
        }
        ExitFacts {
            code: ended.code,
            signal: ended.signal,
            core: ended.core,
            out_of_memory,
            reason,
            frozen_ms: u64::try_from(self.hold.end(now).as_millis()).unwrap_or(u64::MAX),
            leftover_killed: left_over,
            pipes_leaked,
            ..self.running.facts(kind)
        }
    }
}
