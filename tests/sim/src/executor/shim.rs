//! The shim of a step: it runs the process, freezes it when the lease is not renewed, and ends it when it has to.

use std::cell::Cell;
use std::rc::Rc;

use hopyard_contract::AttemptId;

use crate::bugs::Bug;
use crate::clockwork::{First, MS, Mailbox, Micros, S, either};
use crate::host::{Control, Exit, StepProcess};
use crate::world::World;

/// A frozen process is ended after this long.
pub(super) const QUARANTINE: Micros = 600 * S;

/// Starts the process of an attempt on a machine, with what is left of its lease.
pub(super) fn spawn(
    world: &Rc<World>,
    host: usize,
    attempt: &AttemptId,
    generation: u32,
    directory: &str,
    left: Micros,
) -> Rc<StepProcess> {
    let process = Rc::new(StepProcess {
        attempt: attempt.clone(),
        generation,
        directory: directory.to_owned(),
        frozen: Cell::new(false),
        control: Mailbox::default(),
        exit: Mailbox::default(),
    });
    let fate = &world.fate;
    let lasts = if fate.chance(850) { fate.between(20 * MS, 3 * S) } else { fate.between(3 * S, 12 * S) };
    let code = i32::from(fate.chance(180));
    let machine = &world.hosts[host];
    machine.processes.borrow_mut().insert(attempt.clone(), process.clone());
    world.clock.start(machine.process);
    world.checks.borrow_mut().process_runs(world, &process);
    leave_work(world, host, &process, 1);
    let (own, watched) = (world.clone(), process.clone());
    world.clock.spawn(machine.process, async move {
        let exit = watch(&own, &watched, lasts, code, left).await;
        if exit != Exit::Ended {
            leave_work(&own, host, &watched, 2);
        }
        own.hosts[host].processes.borrow_mut().remove(&watched.attempt);
        own.note("process_ended", u64::from(watched.attempt.n), || format!("{} {exit:?}", watched.attempt));
        if exit == Exit::Code(0) {
            own.journal.borrow_mut().done.insert(watched.attempt.clone());
        }
        watched.exit.send(exit);
    });
    process
}

fn leave_work(world: &World, host: usize, process: &StepProcess, piece: u8) {
    if let Some(directory) = world.hosts[host].workspaces.borrow_mut().get_mut(&process.directory) {
        directory.work.insert((process.attempt.clone(), piece));
    }
}

/// Watches over a process until it has ended.
async fn watch(world: &World, process: &StepProcess, lasts: Micros, code: i32, left: Micros) -> Exit {
    let clock = &world.clock;
    let lease = world.lease();
    let mut to_do = lasts;
    let mut freeze_at = clock.now() + left - lease / 3;
    let mut kill_at = Micros::MAX;
    let mut quarantine_at = Micros::MAX;
    loop {
        let now = clock.now();
        let frozen = process.frozen.get();
        let next = if frozen { kill_at.min(quarantine_at) } else { (now + to_do).min(freeze_at).min(kill_at) };
        let heard = either(process.control.recv(), clock.sleep((next - now).min(3600 * S))).await;
        if !frozen {
            to_do -= clock.now() - now;
        }
        match heard {
            First::Left(Control::Renew(left)) => {
                freeze_at = clock.now() + left - lease / 3;
                if process.frozen.get() && freeze_at > clock.now() {
                    process.frozen.set(false);
                    quarantine_at = Micros::MAX;
                    world.checks.borrow_mut().process_runs(world, process);
                }
            }
            First::Left(Control::Kill { force }) => {
                let grace = if force { 0 } else { world.fate.between(0, 400 * MS) };
                kill_at = kill_at.min(clock.now() + grace);
            }
            First::Left(Control::Eof) => kill_at = kill_at.min(clock.now() + world.fate.between(1, 50 * MS)),
            First::Right(()) => {}
        }
        let now = clock.now();
        if now >= kill_at.min(quarantine_at) {
            return Exit::Ended;
        }
        if !process.frozen.get() && to_do <= 0 {
            return Exit::Code(code);
        }
        if !process.frozen.get() && now >= freeze_at && !world.has(Bug::NoFreeze) {
            world.note("frozen", u64::from(process.attempt.n), || process.attempt.to_string());
            process.frozen.set(true);
            quarantine_at = now + QUARANTINE;
        } else if now >= freeze_at {
            freeze_at = Micros::MAX;
        }
    }
}
