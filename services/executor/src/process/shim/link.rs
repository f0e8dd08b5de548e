//! The shim's end of the control socket.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::process::control::{self, Command, Report};
use crate::process::spec::StepSpec;

/// How long the last word may take to leave when the executor does not read.
const LAST_WORD: Duration = Duration::from_secs(2);

/// A line-wise connection to the executor.
pub(super) struct Link {
    socket: UnixStream,
    inbound: Vec<u8>,
    outbound: Vec<u8>,
    open: bool,
}

impl Link {
    pub(super) fn from_stdin() -> io::Result<Self> {
        // The copy closes on exec; descriptor 0 itself is replaced by /dev/null in the command.
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Self { socket, inbound: Vec::new(), outbound: Vec::new(), open: true })
    }

    /// Waits for the first line, the step to run; `None` if the executor went away instead.
    pub(super) fn spec(&mut self) -> io::Result<Option<StepSpec>> {
        let mut chunk = [0; 16 * 1024];
        let command = loop {
            if let Some(command) = self.next_line() {
                break command?;
            }
            match self.socket.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => self.inbound.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        self.socket.set_nonblocking(true)?;
        match command {
            Command::Spec(spec) => Ok(Some(*spec)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the first control message is not the step to run")),
        }
    }

    /// Takes what has arrived; never waits. Afterwards [`Self::is_open`] is false if the executor is gone.
    pub(super) fn receive(&mut self) -> Vec<Command> {
        let mut chunk = [0; 4096];
        while self.open {
            match self.socket.read(&mut chunk) {
                Ok(0) => self.open = false,
                Ok(count) => self.inbound.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.open = false,
            }
        }
        let mut commands = Vec::new();
        while let Some(command) = self.next_line() {
            match command {
                Ok(command) => commands.push(command),
                // An executor that speaks another language cannot hold the lease: treated as gone.
                Err(_) => self.open = false,
            }
        }
        commands
    }

    fn next_line(&mut self) -> Option<io::Result<Command>> {
        let end = self.inbound.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.inbound.drain(..=end).collect();
        Some(serde_json::from_slice(&line).map_err(io::Error::from))
    }

    /// Says something as soon as the socket takes it; never waits.
    pub(super) fn send(&mut self, report: &Report) {
        self.outbound.extend_from_slice(&control::line(report));
        self.flush();
    }

    /// Writes what is waiting as far as the socket takes it.
    pub(super) fn flush(&mut self) {
        while !self.outbound.is_empty() {
            match self.socket.write(&self.outbound) {
                Ok(count) => drop(self.outbound.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The executor is gone, which the reading side sees too.
                Err(_) => self.outbound.clear(),
            }
        }
    }

    /// Says the last word and waits a moment until it has left.
    pub(super) fn finish(&mut self, report: &Report) {
        self.outbound.extend_from_slice(&control::line(report));
        // The exit file already holds the facts, so that a failure here loses nothing.
        if self.socket.set_nonblocking(false).is_ok() && self.socket.set_write_timeout(Some(LAST_WORD)).is_ok() {
            self.socket.write_all(&self.outbound).unwrap_or_default();
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.outbound.is_empty()
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
