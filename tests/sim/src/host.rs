//! A machine: what survives its processes — workspaces, spools and the step processes that run on it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use hopyard_contract::message::{Finished, Grant};
use hopyard_contract::{AttemptId, Name};

use crate::clockwork::{Mailbox, Micros, ProcessId};

/// A piece of work: what an attempt left in a directory, at its start (1) and at its end (2).
pub(crate) type Piece = (AttemptId, u8);

/// A machine with its disk.
pub(crate) struct Host {
    /// Name.
    pub(crate) name: Name,
    /// The process number that step processes live in; nothing ever happens to it.
    pub(crate) process: ProcessId,
    /// Directories by `<run>-g<k>`, or by session.
    pub(crate) workspaces: RefCell<BTreeMap<String, Directory>>,
    /// Spool directories.
    pub(crate) spools: RefCell<BTreeMap<AttemptId, Spool>>,
    /// Step processes that have not ended.
    pub(crate) processes: RefCell<BTreeMap<AttemptId, Rc<StepProcess>>>,
}

/// A workspace directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    /// `<run>-g<k>` that uses it now.
    pub(crate) owner: String,
    /// Work in it.
    pub(crate) work: BTreeSet<Piece>,
    /// Last snapshot.
    pub(crate) head: Option<String>,
    /// When it was made.
    pub(crate) made_at: Micros,
}

/// A spool directory.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    /// The grant, kept for a restarted executor.
    pub(crate) grant: Grant,
    /// The result, until it is settled.
    pub(crate) finished: Option<Finished>,
}

/// The process of an attempt, with the shim that watches over it.
pub(crate) struct StepProcess {
    /// Attempt.
    pub(crate) attempt: AttemptId,
    /// Workspace generation; 0 without one.
    pub(crate) generation: u32,
    /// Key of its directory.
    pub(crate) directory: String,
    /// Stopped, because its lease was not renewed.
    pub(crate) frozen: Cell<bool>,
    /// What the executor says to it.
    pub(crate) control: Mailbox<Control>,
    /// How it ended.
    pub(crate) exit: Mailbox<Exit>,
}

/// What the executor says to a shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// The lease has this much left.
    Renew(Micros),
    /// End it; by force without grace.
    Kill {
        /// Without grace.
        force: bool,
    },
    /// The executor is gone.
    Eof,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By itself.
    Code(i32),
    /// By a kill or a lost lease.
    Ended,
}

impl Host {
    /// A machine with an empty disk.
    pub(crate) fn new(name: Name, process: ProcessId) -> Self {
        Self { name, process, workspaces: RefCell::default(), spools: RefCell::default(), processes: RefCell::default() }
    }

    /// Tells every process that its executor is gone.
    pub(crate) fn executor_gone(&self) {
        for process in self.processes.borrow().values() {
            process.control.send(Control::Eof);
        }
    }

    /// The disk is lost.
    pub(crate) fn lose_disk(&self) {
        self.workspaces.borrow_mut().clear();
        self.spools.borrow_mut().clear();
    }
}
