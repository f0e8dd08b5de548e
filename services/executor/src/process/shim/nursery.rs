//! The process of the nursery: forks on order, and tells how its children ended.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use fork::{Fork, fork, wait_any_nohang};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, setsid};

use super::{Places, close_inherited, shim_main};
use crate::process::nursery::{Ended, Order};
use crate::process::packets;

/// What a child of the nursery goes on with.
struct Born {
    places: Places,
    control: OwnedFd,
    errors: OwnedFd,
}

/// Runs the nursery, `step-nursery`, with the executor's socket on standard input; it ends when the executor is gone.
///
/// It must be called before the process has a second thread. In a child it returns when nothing of the child's step is left.
pub fn nursery_main() -> ExitCode {
    match run() {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(born)) => match settle_in(born) {
            Ok(places) => shim_main(&places),
            Err(error) => super::cannot_work(&error),
        },
        Err(error) => super::cannot_work(&error),
    }
}

/// Takes the orders of the executor; returns what to become in a child, and nothing when the executor is gone.
fn run() -> io::Result<Option<Born>> {
    close_inherited()?;
    // Away from the executor's session: an interrupt at its terminal is the executor's to deal with.
    setsid()?;
    prctl::set_name(c"hopyard-nursery")?;
    let mask: SigSet = [Signal::SIGCHLD].into_iter().collect();
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let mut children: HashMap<i32, u64> = HashMap::new();
    loop {
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            continue;
        }
        let [ordered, ended] = fds.map(|fd| fd.any().unwrap_or(true));
        if ended {
            while let Ok(Some(_)) = signals.read_signal() {}
            while let Ok(Some((pid, status))) = wait_any_nohang() {
                if let Some(id) = children.remove(&pid) {
                    tell(&socket, &Ended { id, how: Ok((pid, status)) })?;
                }
            }
        }
        if !ordered {
            continue;
        }
        let (packet, descriptors) = packets::receive(&socket)?;
        if packet.is_empty() {
            // The shims see the same on sockets of their own.
            return Ok(None);
        }
        match serde_json::from_slice(&packet)? {
            Order::Kill { id } => {
                // Not reaped yet, so that the number is still its own.
                if let Some(pid) = children.iter().find_map(|(pid, child)| (*child == id).then_some(*pid)) {
                    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or_default();
                }
            }
            Order::Start { id, dir, cgroup } => {
                let Ok([control, errors]) = <[OwnedFd; 2]>::try_from(descriptors) else {
                    tell(&socket, &Ended { id, how: Err("its descriptors did not come along".to_owned()) })?;
                    continue;
                };
                match fork() {
                    Ok(Fork::Child) => return Ok(Some(Born { places: Places { dir, cgroup }, control, errors })),
                    Ok(Fork::Parent(pid)) => drop(children.insert(pid, id)),
                    Err(error) => tell(&socket, &Ended { id, how: Err(error.to_string()) })?,
                }
            }
        }
    }
}

fn tell(socket: &OwnedFd, ended: &Ended) -> io::Result<()> {
    packets::send(socket, &serde_json::to_vec(ended)?, &[])
}

/// Makes the control socket and the error file the standard descriptors of a shim.
fn settle_in(born: Born) -> io::Result<Places> {
    dup2_stdin(&born.control)?;
    dup2_stderr(&born.errors)?;
    Ok(born.places)
}
