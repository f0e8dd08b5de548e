//! Whoever makes the trouble: crashes, pauses, cuts, outages, wipes and clocks that are set, until the storm is over.

use std::rc::Rc;

use crate::clockwork::{MS, Micros, ProcessId, S};
use crate::world::World;
use crate::{door, executor, janitor, scheduler};

/// Starts everybody, and the trouble.
pub(crate) fn start(world: &Rc<World>) {
    everybody(world).for_each(|who| who.start(world));
    world.clock.start(world.chaos);
    world.bus.set_trouble(world.weather.bus);
    world.store.set_trouble(world.weather.store);
    if world.weather.calm() {
        world.calm_since.set(Some(0));
        return;
    }
    let own = world.clone();
    world.clock.spawn(world.chaos, async move {
        loop {
            let pause = own.fate.between(own.weather.between_faults / 3, own.weather.between_faults * 2);
            own.clock.sleep(pause).await;
            trouble(&own);
        }
    });
}

/// Ends all trouble: everybody is up, connected and awake from now on.
pub(crate) fn heal(world: &Rc<World>) {
    world.clock.kill(world.chaos);
    world.bus.set_trouble(crate::bus::Trouble::default());
    world.store.set_trouble(crate::store::Trouble::default());
    world.store.set_down(false);
    world.bus.set_up(true);
    // One executor of several may never come back; its machine and its janitor do.
    if !world.weather.calm() && world.executors.len() > 1 && world.fate.chance(250) {
        let index = world.fate.index(world.executors.len());
        world.gone.set(Some(index));
        Who::Executor(index).crash(world);
        world.note("gone", index as u64, || format!("executor {index}"));
    }
    for who in everybody(world).filter(|who| world.gone.get().is_none_or(|gone| *who != Who::Executor(gone))) {
        world.bus.cut(who.process(world), false);
        if !world.clock.alive(who.process(world)) {
            who.start(world);
        } else if world.clock.paused(who.process(world)) {
            who.resume(world);
        }
    }
    if world.calm_since.get().is_none() {
        world.calm_since.set(Some(world.now()));
    }
    world.note("healed", 0, String::new);
}

/// A process that trouble may come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Scheduler(usize),
    Door(usize),
    Executor(usize),
    Janitor(usize),
}

fn everybody(world: &World) -> impl Iterator<Item = Who> + use<> {
    let schedulers = (0..world.schedulers.len()).map(Who::Scheduler);
    let doors = (0..world.doors.len()).map(Who::Door);
    let executors = (0..world.executors.len()).map(Who::Executor);
    let janitors = (0..world.janitors.len()).map(Who::Janitor);
    schedulers.chain(doors).chain(executors).chain(janitors)
}

impl Who {
    fn process(self, world: &World) -> ProcessId {
        match self {
            Self::Scheduler(index) => world.schedulers[index],
            Self::Door(index) => world.doors[index].0,
            Self::Executor(index) => world.executors[index],
            Self::Janitor(index) => world.janitors[index],
        }
    }

    fn start(self, world: &Rc<World>) {
        match self {
            Self::Scheduler(index) => scheduler::start(world, index),
            Self::Door(index) => door::start(world, index),
            Self::Executor(index) => executor::start(world, index),
            Self::Janitor(index) => janitor::start(world, index),
        }
    }

    fn crash(self, world: &World) {
        let process = self.process(world);
        world.clock.kill(process);
        world.bus.leave(process);
        if let Self::Executor(index) = self {
            world.hosts[index].executor_gone();
        }
    }

    /// A pause shorter than a third of a lease is no gap in anybody's health.
    fn resume(self, world: &World) {
        let process = self.process(world);
        world.clock.resume(process);
        let stopped = world.paused_at.borrow_mut().remove(&process).map_or(0, |at| world.now() - at);
        if stopped > world.lease() / 3 {
            world.awake_since.borrow_mut().insert(process, world.now());
        }
    }
}

fn trouble(world: &Rc<World>) {
    let all: Vec<Who> = everybody(world).collect();
    let who = *world.fate.pick(&all);
    match world.fate.index(100) {
        0..34 => crash(world, who, false),
        34..62 => pause(world, who),
        62..74 => cut(world, who),
        74..80 => outage_of_bus(world),
        80..86 => outage_of_store(world),
        86..89 => {
            world.fate.count("bus_wiped");
            world.note("bus_wiped", 0, String::new);
            world.bus.wipe();
        }
        89..92 => {
            if world.bus.put_back() {
                world.fate.count("bus_restored");
                world.note("bus_restored", 0, String::new);
            } else {
                world.bus.keep_copy();
            }
        }
        92..97 => crash(world, Who::Executor(world.fate.index(world.executors.len())), true),
        _ => {
            world.fate.count("clock_set");
            let by = world.fate.between(-3600 * S, 3600 * S);
            world.note("clock_set", by.unsigned_abs(), || format!("{who:?} by {by} us"));
            world.skew.borrow_mut().insert(who.process(world), by);
        }
    }
}

/// A while: mostly short, sometimes longer than any lease.
fn a_while(world: &World) -> Micros {
    match world.fate.index(10) {
        0..6 => world.fate.between(10 * MS, 2 * S),
        6..9 => world.fate.between(2 * S, 10 * S),
        _ => world.fate.between(10 * S, 45 * S),
    }
}

fn crash(world: &Rc<World>, who: Who, disk: bool) {
    if !world.clock.alive(who.process(world)) {
        return;
    }
    world.fate.count("crash");
    world.note("crash", who.process(world) as u64, || format!("{who:?}"));
    who.crash(world);
    if let (true, Who::Executor(index)) = (disk, who) {
        world.fate.count("disk_lost");
        let gone: Vec<String> = world.hosts[index].workspaces.borrow().keys().cloned().collect();
        world.journal.borrow_mut().disk_lost.extend(gone);
        world.hosts[index].lose_disk();
    }
    let own = world.clone();
    let down = a_while(world);
    world.clock.spawn(world.chaos, async move {
        own.clock.sleep(down).await;
        if !own.clock.alive(who.process(&own)) {
            own.note("start", who.process(&own) as u64, || format!("{who:?}"));
            who.start(&own);
        }
    });
}

fn pause(world: &Rc<World>, who: Who) {
    let process = who.process(world);
    if !world.clock.alive(process) || world.clock.paused(process) {
        return;
    }
    world.fate.count("pause");
    let stopped = a_while(world);
    world.note("pause", process as u64, || format!("{who:?} for {stopped} us"));
    world.clock.pause(process);
    world.paused_at.borrow_mut().insert(process, world.now());
    let own = world.clone();
    world.clock.spawn(world.chaos, async move {
        own.clock.sleep(stopped).await;
        if own.clock.paused(process) {
            own.note("resume", process as u64, || format!("{who:?}"));
            who.resume(&own);
        }
    });
}

fn cut(world: &Rc<World>, who: Who) {
    let process = who.process(world);
    world.fate.count("cut_off");
    let lasts = a_while(world);
    world.note("cut_off", process as u64, || format!("{who:?} for {lasts} us"));
    world.bus.cut(process, true);
    let own = world.clone();
    world.clock.spawn(world.chaos, async move {
        own.clock.sleep(lasts).await;
        own.bus.cut(process, false);
    });
}

fn outage_of_bus(world: &Rc<World>) {
    world.fate.count("bus_outage");
    let lasts = a_while(world);
    world.note("bus_outage", 0, || format!("for {lasts} us"));
    world.bus.set_up(false);
    let own = world.clone();
    world.clock.spawn(world.chaos, async move {
        own.clock.sleep(lasts).await;
        own.bus.set_up(true);
    });
}

fn outage_of_store(world: &Rc<World>) {
    world.fate.count("store_outage");
    let lasts = a_while(world);
    world.note("store_outage", 0, || format!("for {lasts} us"));
    world.store.set_down(true);
    let own = world.clone();
    world.clock.spawn(world.chaos, async move {
        own.clock.sleep(lasts).await;
        own.store.set_down(false);
    });
}
