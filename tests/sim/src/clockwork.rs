//! Virtual time: tasks of processes that can be stopped, paused and started, on one thread and in one order.

mod mailbox;
mod waiting;

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

pub(crate) use mailbox::Mailbox;
pub(crate) use waiting::{First, Sleep, either, within};

/// Microseconds of virtual time.
pub(crate) type Micros = i64;
/// One millisecond.
pub(crate) const MS: Micros = 1_000;
/// One second.
pub(crate) const S: Micros = 1_000_000;

/// A process by its number.
pub(crate) type ProcessId = usize;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The scheduler of the simulation; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Clockwork(Rc<Inner>);

#[derive(Default)]
struct Inner {
    now: Cell<Micros>,
    order: Cell<u64>,
    timers: RefCell<BinaryHeap<Reverse<Timer>>>,
    ready: Arc<Mutex<VecDeque<usize>>>,
    tasks: RefCell<Vec<Option<Slot>>>,
    processes: RefCell<Vec<Process>>,
}

struct Slot {
    process: ProcessId,
    /// Absent while it is polled.
    task: Option<Task>,
    waker: Arc<TaskWaker>,
}

#[derive(Default)]
struct Process {
    alive: bool,
    paused: bool,
    /// What became ready while it was paused.
    held: Vec<usize>,
    tasks: Vec<usize>,
}

struct TaskWaker {
    task: usize,
    queued: AtomicBool,
    ready: Arc<Mutex<VecDeque<usize>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.task);
        }
    }
}

struct Timer {
    at: Micros,
    order: u64,
    fire: Fire,
}

enum Fire {
    Wake(Waker),
    Call(Box<dyn FnOnce()>),
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Timer {}
impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl Clockwork {
    /// Time since the start of the world: every process's boot-time clock.
    pub(crate) fn now(&self) -> Micros {
        self.0.now.get()
    }

    /// Adds a process, which is not running yet.
    pub(crate) fn process(&self) -> ProcessId {
        let mut processes = self.0.processes.borrow_mut();
        processes.push(Process::default());
        processes.len() - 1
    }

    /// Lets a process run; it has no tasks yet.
    pub(crate) fn start(&self, process: ProcessId) {
        self.0.processes.borrow_mut()[process].alive = true;
    }

    /// Ends a process: its tasks and all that they hold are gone.
    pub(crate) fn kill(&self, process: ProcessId) {
        let tasks = {
            let mut processes = self.0.processes.borrow_mut();
            let process = &mut processes[process];
            process.alive = false;
            process.paused = false;
            process.held.clear();
            std::mem::take(&mut process.tasks)
        };
        for task in tasks {
            // Dropped outside of the borrow: what a task holds may reach back.
            let slot = self.0.tasks.borrow_mut()[task].take();
            drop(slot);
        }
    }

    /// Stops a process where it stands.
    pub(crate) fn pause(&self, process: ProcessId) {
        self.0.processes.borrow_mut()[process].paused = true;
    }

    /// Lets a paused process go on.
    pub(crate) fn resume(&self, process: ProcessId) {
        let held = {
            let mut processes = self.0.processes.borrow_mut();
            processes[process].paused = false;
            std::mem::take(&mut processes[process].held)
        };
        self.0.ready.lock().unwrap_or_else(PoisonError::into_inner).extend(held);
    }

    /// Whether a process runs; a paused one does.
    pub(crate) fn alive(&self, process: ProcessId) -> bool {
        self.0.processes.borrow()[process].alive
    }

    /// Whether a process is paused.
    pub(crate) fn paused(&self, process: ProcessId) -> bool {
        self.0.processes.borrow()[process].paused
    }

    /// Starts a task of a live process.
    pub(crate) fn spawn(&self, process: ProcessId, task: impl Future<Output = ()> + 'static) {
        if !self.alive(process) {
            return;
        }
        let mut tasks = self.0.tasks.borrow_mut();
        let id = tasks.len();
        let waker = Arc::new(TaskWaker { task: id, queued: AtomicBool::new(false), ready: self.0.ready.clone() });
        tasks.push(Some(Slot { process, task: Some(Box::pin(task)), waker: waker.clone() }));
        self.0.processes.borrow_mut()[process].tasks.push(id);
        waker.wake();
    }

    /// Does something later, whatever becomes of the caller.
    pub(crate) fn later(&self, delay: Micros, call: impl FnOnce() + 'static) {
        self.timer(self.now() + delay, Fire::Call(Box::new(call)));
    }

    /// Waits.
    pub(crate) fn sleep(&self, delay: Micros) -> Sleep {
        Sleep::until(self.clone(), self.now() + delay.max(0))
    }

    fn wake_at(&self, at: Micros, waker: &Waker) {
        self.timer(at, Fire::Wake(waker.clone()));
    }

    fn timer(&self, at: Micros, fire: Fire) {
        let order = self.0.order.get();
        self.0.order.set(order + 1);
        self.0.timers.borrow_mut().push(Reverse(Timer { at, order, fire }));
    }

    /// Runs everything that happens until `end`, or until `stop` says so; `on_time` hears of every new instant.
    pub(crate) fn run(&self, end: Micros, on_time: impl Fn(Micros), stop: impl Fn() -> bool) {
        loop {
            while let Some(task) = self.next_ready() {
                self.poll(task);
            }
            if stop() {
                return;
            }
            let timer = {
                let mut timers = self.0.timers.borrow_mut();
                match timers.peek() {
                    Some(Reverse(timer)) if timer.at <= end => timers.pop().map(|Reverse(timer)| timer),
                    _ => None,
                }
            };
            let Some(timer) = timer else {
                self.0.now.set(end);
                on_time(end);
                return;
            };
            if timer.at > self.now() {
                self.0.now.set(timer.at);
                on_time(timer.at);
            }
            match timer.fire {
                Fire::Wake(waker) => waker.wake(),
                Fire::Call(call) => call(),
            }
        }
    }

    /// Ends everything, so that nothing holds anything any more.
    pub(crate) fn end(&self) {
        let processes = self.0.processes.borrow().len();
        (0..processes).for_each(|process| self.kill(process));
        let timers = std::mem::take(&mut *self.0.timers.borrow_mut());
        drop(timers);
    }

    fn next_ready(&self) -> Option<usize> {
        self.0.ready.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn poll(&self, id: usize) {
        let (task, waker) = {
            let mut tasks = self.0.tasks.borrow_mut();
            let Some(slot) = tasks[id].as_mut() else { return };
            let mut processes = self.0.processes.borrow_mut();
            let process = &mut processes[slot.process];
            if process.paused {
                process.held.push(id);
                return;
            }
            slot.waker.queued.store(false, Ordering::Relaxed);
            (slot.task.take(), slot.waker.clone())
        };
        let Some(mut task) = task else { return };
        let waker = Waker::from(waker);
        let done = task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let mut tasks = self.0.tasks.borrow_mut();
        if done {
            if let Some(slot) = tasks[id].take() {
                self.0.processes.borrow_mut()[slot.process].tasks.retain(|task| *task != id);
            }
            drop(tasks);
            drop(task);
        } else if let Some(slot) = tasks[id].as_mut() {
            slot.task = Some(task);
        } else {
            // It ended its own process.
            drop(tasks);
            drop(task);
        }
    }
}

/// Polls a future once.
pub(crate) fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
