//! One world: its clock, its dice, its store, its bus, its machines, and everybody who lives in it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use chrono::{DateTime, Utc};
use hopyard_contract::{Name, RunId};
use hopyard_scheduler::settings::Settings;
use hopyard_store::runs::RunStore as _;

use crate::bugs::Bug;
use crate::bus::Bus;
use crate::checks::Checks;
use crate::clockwork::{Clockwork, Mailbox, Micros, ProcessId};
use crate::door::Question;
use crate::fate::Fate;
use crate::host::{Host, Piece};
use crate::journal::Journal;
use crate::plans::{self, Workflow};
use crate::store::SimStore;
use crate::weather::Weather;

/// The instant at which every world begins, in microseconds since 1970.
pub(crate) const EPOCH: Micros = 1_767_225_600_000_000;

/// What everybody in a world shares.
pub(crate) struct World {
    /// Virtual time and processes.
    pub(crate) clock: Clockwork,
    /// Dice and record.
    pub(crate) fate: Rc<Fate>,
    /// The store.
    pub(crate) store: SimStore,
    /// The bus.
    pub(crate) bus: Bus,
    /// Leases, as the schedulers are set.
    pub(crate) settings: Settings,
    /// What this world is like.
    pub(crate) weather: Weather,
    /// Its planted bug.
    pub(crate) bug: Option<Bug>,
    /// Workflows that clients submit.
    pub(crate) workflows: Vec<Workflow>,
    /// The one namespace.
    pub(crate) namespace: Name,
    /// Schedulers.
    pub(crate) schedulers: Vec<ProcessId>,
    /// Doors and where they listen.
    pub(crate) doors: Vec<(ProcessId, Mailbox<Question>)>,
    /// Machines.
    pub(crate) hosts: Vec<Host>,
    /// Executors, one per machine.
    pub(crate) executors: Vec<ProcessId>,
    /// Janitors, one per machine.
    pub(crate) janitors: Vec<ProcessId>,
    /// Clients, who are never in trouble themselves.
    pub(crate) clients: ProcessId,
    /// Whoever makes the trouble.
    pub(crate) chaos: ProcessId,
    /// What clients were told and what processes did.
    pub(crate) journal: RefCell<Journal>,
    /// What has to hold.
    pub(crate) checks: RefCell<Checks>,
    /// Commits of workspaces that are kept off the machines, with the work in them.
    pub(crate) commits: RefCell<BTreeMap<String, BTreeSet<Piece>>>,
    /// How far wall clocks are off.
    pub(crate) skew: RefCell<BTreeMap<ProcessId, Micros>>,
    /// Since when each scheduler has been awake.
    pub(crate) awake_since: RefCell<BTreeMap<ProcessId, Micros>>,
    /// Since when processes have been paused.
    pub(crate) paused_at: RefCell<BTreeMap<ProcessId, Micros>>,
    /// The executor that never comes back.
    pub(crate) gone: Cell<Option<usize>>,
    /// Since when there has been no more trouble.
    pub(crate) calm_since: Cell<Option<Micros>>,
    /// Numbers for commits of workspaces and process ids.
    pub(crate) numbers: Cell<u32>,
}

impl World {
    /// A world in which nobody runs yet.
    pub(crate) fn new(seed: u64, weather: Weather, bug: Option<Bug>, trace: bool) -> Rc<Self> {
        let fate = Rc::new(Fate::new(seed, trace));
        let clock = Clockwork::default();
        let store = SimStore::new(instant(0), fate.seed(), bug);
        let bus = Bus::new(clock.clone(), fate.clone());
        if bug == Some(Bug::AckOutlivesBus) {
            bus.let_acks_outlive();
        }
        let processes = |count: usize| (0..count).map(|_| clock.process()).collect::<Vec<_>>();
        let schedulers = processes(weather.schedulers);
        let doors = processes(weather.doors).into_iter().map(|process| (process, Mailbox::default())).collect();
        let (executors, janitors) = (processes(weather.executors), processes(weather.executors));
        let hosts = (0..weather.executors).map(|index| Host::new(name("host", index), clock.process())).collect();
        let (clients, chaos) = (clock.process(), clock.process());
        let settings = weather.settings;
        let namespace = Name::default_namespace();
        let workflows = plans::all();
        for workflow in &workflows {
            let put = workflow.put(&namespace);
            let mut put = Box::pin(store.put_definition(&put));
            assert!(crate::clockwork::poll_once(put.as_mut()).is_ready(), "nothing is in the way yet");
        }
        Rc::new(Self {
            clock,
            fate,
            store,
            bus,
            settings,
            weather,
            bug,
            workflows,
            namespace,
            schedulers,
            doors,
            hosts,
            executors,
            janitors,
            clients,
            chaos,
            journal: RefCell::default(),
            checks: RefCell::default(),
            commits: RefCell::default(),
            skew: RefCell::default(),
            awake_since: RefCell::default(),
            paused_at: RefCell::default(),
            gone: Cell::new(None),
            calm_since: Cell::new(None),
            numbers: Cell::new(0),
        })
    }

    /// Whether this world has the bug.
    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Micros {
        self.clock.now()
    }

    /// The wall clock of a process.
    pub(crate) fn wall(&self, process: ProcessId) -> DateTime<Utc> {
        instant(self.now() + self.skew.borrow().get(&process).copied().unwrap_or_default())
    }

    /// The next number.
    pub(crate) fn number(&self) -> u32 {
        self.numbers.set(self.numbers.get() + 1);
        self.numbers.get()
    }

    /// A run id, minted by a process.
    pub(crate) fn mint(&self, process: ProcessId) -> RunId {
        let millis = u64::try_from(self.wall(process).timestamp_millis()).unwrap_or_default();
        RunId::from_uuid(uuid::Builder::from_unix_timestamp_millis(millis, &self.fate.bytes()).into_uuid())
    }

    /// A random id for a claim.
    pub(crate) fn uuid(&self) -> uuid::Uuid {
        uuid::Builder::from_random_bytes(self.fate.bytes()).into_uuid()
    }

    /// Notes that something happened.
    pub(crate) fn note(&self, what: &'static str, about: u64, say: impl FnOnce() -> String) {
        self.fate.note(self.now(), what, about, say);
    }

    /// Length of a lease.
    pub(crate) fn lease(&self) -> Micros {
        i64::try_from(self.settings.lease.millis()).unwrap_or_default() * 1000
    }

    /// A commit of what is in a directory of a machine, kept elsewhere; nothing if it is not there.
    pub(crate) fn snapshot(&self, host: usize, key: &str) -> Option<String> {
        let mut workspaces = self.hosts[host].workspaces.borrow_mut();
        let directory = workspaces.get_mut(key)?;
        let commit = format!("commit-{}", self.number());
        directory.head = Some(commit.clone());
        self.commits.borrow_mut().insert(commit.clone(), directory.work.clone());
        Some(commit)
    }

    /// Looks at what a scheduler has just committed.
    pub(crate) fn look_at_commits(&self, scheduler: usize) {
        let changed = self.store.take_changed();
        if !changed.is_empty() {
            self.checks.borrow_mut().look_at_commit(self, scheduler, &changed);
        }
    }

    /// The name of an executor.
    pub(crate) fn executor_name(&self, index: usize) -> Name {
        name("exec", index)
    }
}

/// An instant of the world as a time.
pub(crate) fn instant(at: Micros) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(EPOCH + at).unwrap_or_default()
}

fn name(kind: &str, index: usize) -> Name {
    format!("{kind}-{index}").parse().expect("a short word and a number are a name")
}

/// A number for the hash, from an id.
pub(crate) fn low(id: RunId) -> u64 {
    id.as_uuid().as_u128() as u64
}
