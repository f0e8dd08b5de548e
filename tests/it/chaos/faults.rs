//! Faults: each has a name and a counter, begins at one instant and is healed at another.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::FutureExt as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::clients::World;
use super::measure::{Loss, Span};
use crate::harness::Harness;
use crate::harness::dice::Dice;
use crate::harness::link::Mode;

/// What ends a fault.
#[derive(Debug)]
enum Heal {
    Launch(String),
    Thaw(String),
    Open(String),
    Clock(String, DateTime<Utc>),
    StartBus,
    ThawServer(Pid),
    StartDatabase,
    EmptyVolume(PathBuf),
}

/// The faults of a run of chaos.
#[derive(Debug)]
pub struct Faults {
    dice: Dice,
    /// What is not well at the moment, with when and how it shall be.
    ill: BTreeMap<String, (Instant, Heal)>,
    /// How often each fault was made.
    pub made: BTreeMap<String, usize>,
    /// When the bus lost messages.
    pub bus_lost: Vec<Duration>,
    /// When a database was killed or the bus wiped, for those who measure how long it takes to get well.
    pub measured: Vec<(Loss, DateTime<Utc>)>,
    /// From when to when the bus, the database or every scheduler was away, or every door.
    pub away: Vec<Span>,
    /// From when to when the clock of some service was wrong.
    pub shifted: Vec<Span>,
    /// Executors that were killed, and when.
    pub executors_killed: Vec<(String, DateTime<Utc>)>,
    /// Services that ended by themselves, with the end of their log.
    pub ended: Vec<String>,
    /// How many times as long as usual it takes from one fault to the next.
    pub calm: u32,
    /// The faults to make, when not all: kinds, or kinds of one service, such as `kill-executor`.
    pub only: Option<BTreeSet<String>>,
    /// The executable of another version: services start as either.
    pub other: Option<PathBuf>,
    /// How often services were started again as this version, and as the other.
    pub started_as: [usize; 2],
    draining: BTreeSet<String>,
    away_since: Option<DateTime<Utc>>,
    bus_copy: Option<PathBuf>,
    volumes: Vec<PathBuf>,
}

/// Kinds of faults by how often they come.
const MIX: &[(&str, usize)] = &[
    ("kill", 20),
    ("stop", 20),
    ("drain", 8),
    ("reset", 16),
    ("slow", 6),
    ("half-open", 6),
    ("one-way", 6),
    ("refused", 4),
    ("cut-at-commit", 10),
    ("kill-bus", 4),
    ("stop-bus", 4),
    ("wipe-bus", 1),
    ("restore-bus", 1),
    ("kill-database", 3),
    ("stop-database", 4),
    ("disk-full", 4),
    ("clock", 6),
];

impl Faults {
    /// No fault yet.
    pub fn new(seed: u64, volumes: Vec<PathBuf>) -> Self {
        Self {
            dice: Dice::new(seed, 0),
            ill: BTreeMap::new(),
            made: BTreeMap::new(),
            bus_lost: Vec::new(),
            measured: Vec::new(),
            away: Vec::new(),
            shifted: Vec::new(),
            executors_killed: Vec::new(),
            ended: Vec::new(),
            calm: 1,
            only: None,
            other: None,
            started_as: [0; 2],
            draining: BTreeSet::new(),
            away_since: None,
            bus_copy: None,
            volumes,
        }
    }

    /// How many faults were made.
    pub fn total(&self) -> usize {
        self.made.values().sum()
    }

    /// Time until the next fault.
    pub fn pause(&mut self) -> Duration {
        self.dice.span(100, 1_100) * self.calm
    }

    /// How long a fault lasts: mostly short, now and then long.
    fn span(&mut self) -> Duration {
        if self.dice.one_in(12) { self.dice.span(2_000, 10_000) } else { self.dice.span(200, 1_500) }
    }

    /// Makes a fault by chance.
    pub async fn make(&mut self, harness: &mut Harness, world: &World) {
        let kinds: Vec<_> = MIX
            .iter()
            .filter(|(kind, _)| self.wants(kind, None) || harness.names().iter().any(|name| self.wants(kind, Some(name))))
            .collect();
        assert!(!kinds.is_empty(), "no fault is called {:?}", self.only);
        let mut at = self.dice.below(kinds.iter().map(|(_, weight)| weight).sum());
        for (kind, weight) in kinds {
            if at < *weight {
                return self.make_one(kind, harness, world).await;
            }
            at -= weight;
        }
    }

    fn wants(&self, kind: &str, name: Option<&str>) -> bool {
        let of_service = |name: &str| format!("{kind}-{}", name.split('-').next().unwrap_or_default());
        let Some(only) = &self.only else { return true };
        only.contains(kind) || name.is_some_and(|name| only.contains(&of_service(name)))
    }

    /// Lets every second service start again as the other version, if there is one.
    pub async fn mix_versions(&mut self, harness: &mut Harness) {
        let Some(other) = &self.other else { return };
        for name in harness.names().into_iter().step_by(2) {
            let service = harness.service(&name);
            service.stop().await;
            service.run_as(Some(other.clone()));
            service.start().await;
        }
    }

    /// Starts a service, as either version.
    async fn launch(&mut self, name: &str, harness: &mut Harness) {
        let service = harness.service(name);
        if let Some(other) = &self.other {
            let other = Some(other.clone()).filter(|_| self.dice.one_in(2));
            self.started_as[usize::from(other.is_some())] += 1;
            service.run_as(other);
        }
        service.launch().await;
    }

    async fn make_one(&mut self, kind: &'static str, harness: &mut Harness, world: &World) {
        let span = self.span();
        let until = Instant::now() + span;
        let name = match kind {
            "kill" | "stop" | "drain" => {
                let names: Vec<String> =
                    harness.names().into_iter().filter(|n| !self.ill.contains_key(n) && self.wants(kind, Some(n))).collect();
                if names.is_empty() {
                    return;
                }
                let name = self.dice.pick(&names).clone();
                self.on_service(kind, &name, until, harness).await;
                format!("{kind} {}", name.split('-').next().unwrap_or_default())
            }
            "kill-bus" | "stop-bus" | "wipe-bus" | "restore-bus" => {
                if self.ill.contains_key("bus") || (kind == "restore-bus" && self.bus_copy.is_none()) {
                    return;
                }
                self.on_bus(kind, until, harness, world).await;
                kind.to_owned()
            }
            "kill-database" | "stop-database" => {
                let Some(server) = harness.postgres.as_mut().filter(|_| !self.ill.contains_key("database")) else { return };
                let heal = if kind == "kill-database" {
                    server.kill().await.unwrap();
                    self.measured.push((Loss::Database, Utc::now()));
                    Heal::StartDatabase
                } else {
                    let pid = Pid::from_raw(server.pid().expect("it runs").cast_signed());
                    freeze_tree(pid, Signal::SIGSTOP);
                    Heal::ThawServer(pid)
                };
                self.ill.insert("database".to_owned(), (until, heal));
                kind.to_owned()
            }
            "disk-full" => {
                let volumes: Vec<PathBuf> =
                    self.volumes.iter().filter(|v| !self.ill.contains_key(&v.display().to_string())).cloned().collect();
                if volumes.is_empty() {
                    return;
                }
                let volume = self.dice.pick(&volumes).clone();
                fill(&volume);
                let name = volume.file_name().unwrap_or_default().to_string_lossy().into_owned();
                self.ill.insert(volume.display().to_string(), (until, Heal::EmptyVolume(volume)));
                format!("{kind} {name}")
            }
            "clock" => {
                let free = |name: &String| !self.ill.contains_key(&format!("{name}.clock"));
                let names: Vec<String> = harness.names().into_iter().filter(free).collect();
                if names.is_empty() || !harness.has_clocks() {
                    return;
                }
                let name = self.dice.pick(&names).clone();
                let (span, ahead) = (self.dice.span(5_000, 7_200_000).as_secs().cast_signed(), self.dice.one_in(2));
                harness.set_clock(&name, if ahead { span } else { -span });
                self.ill.insert(format!("{name}.clock"), (until, Heal::Clock(name.clone(), Utc::now())));
                let way = if ahead { "forwards" } else { "backwards" };
                format!("clock {way} {}", name.split('-').next().unwrap_or_default())
            }
            _ => {
                let wanted = |name: &&String| kind != "cut-at-commit" || name.ends_with(".database");
                let links: Vec<String> = harness.links.keys().filter(wanted).filter(|n| !self.ill.contains_key(*n)).cloned().collect();
                if links.is_empty() {
                    return;
                }
                let name = self.dice.pick(&links).clone();
                self.on_link(kind, &name, until, harness);
                format!("{kind} {}", name.rsplit('.').next().unwrap_or_default())
            }
        };
        world.journal.note("fault", &name, serde_json::json!({ "ms": u64::try_from(span.as_millis()).unwrap_or(0) }));
        *self.made.entry(name).or_default() += 1;
    }

    async fn on_service(&mut self, kind: &str, name: &str, until: Instant, harness: &mut Harness) {
        let heal = match kind {
            "kill" => {
                if name.starts_with("executor") {
                    self.executors_killed.push((name.to_owned(), Utc::now()));
                }
                // If it was about to end by itself, it does not any more.
                self.draining.remove(name);
                harness.kill9(name).await;
                Heal::Launch(name.to_owned())
            }
            "stop" => {
                harness.freeze(name);
                Heal::Thaw(name.to_owned())
            }
            _ => {
                harness.service(name).signal(Signal::SIGTERM);
                self.draining.insert(name.to_owned());
                // It ends when it has finished; then it is started again.
                return;
            }
        };
        self.ill.insert(name.to_owned(), (until, heal));
    }

    async fn on_bus(&mut self, kind: &str, until: Instant, harness: &mut Harness, world: &World) {
        let copy = harness.dir().join("bus-copy");
        let store = harness.dir().join("bus/nats");
        match kind {
            "kill-bus" => {
                harness.nats.kill().await.unwrap();
                // A copy of a server that is not running is one that a backup would have.
                if self.bus_copy.is_none() || self.dice.one_in(2) {
                    std::fs::remove_dir_all(&copy).unwrap_or_default();
                    copy_tree(&store, &copy);
                    self.bus_copy = Some(copy);
                }
            }
            "stop-bus" => {
                let pid = Pid::from_raw(harness.nats.pid().expect("it runs").cast_signed());
                kill(pid, Signal::SIGSTOP).unwrap();
                self.ill.insert("bus".to_owned(), (until, Heal::ThawServer(pid)));
                return;
            }
            "wipe-bus" => {
                harness.nats.wipe().await.unwrap();
                self.bus_lost.push(world.journal.now());
                self.measured.push((Loss::Bus, Utc::now()));
            }
            _ => {
                harness.nats.wipe().await.unwrap();
                copy_tree(&copy, &store);
                self.bus_lost.push(world.journal.now());
            }
        }
        self.ill.insert("bus".to_owned(), (until, Heal::StartBus));
    }

    fn on_link(&mut self, kind: &str, name: &str, until: Instant, harness: &Harness) {
        let link = &harness.links[name];
        let mode = match kind {
            "reset" => return link.reset(),
            "slow" => Mode::Slow(self.dice.span(20, 400)),
            "half-open" => Mode::Silent,
            "one-way" if self.dice.one_in(2) => Mode::OnlyForth,
            "one-way" => Mode::OnlyBack,
            "refused" => Mode::Refused,
            _ => Mode::CutAtCommit { forwarded: self.dice.one_in(2) },
        };
        link.set(mode);
        self.ill.insert(name.to_owned(), (until, Heal::Open(name.to_owned())));
    }

    /// Whether everything is as it was before the first of them.
    pub fn are_healed(&self) -> bool {
        self.ill.is_empty() && self.draining.is_empty()
    }

    /// Heals what is due, or everything, and starts again what has ended.
    pub async fn heal(&mut self, harness: &mut Harness, all: bool) {
        for (name, status) in harness.gone() {
            if !self.draining.remove(&name) || !status.success() {
                self.ended.push(format!("{name}: {status}\n{}", harness.service(&name).told()));
            }
            self.ill.insert(name.clone(), (Instant::now(), Heal::Launch(name)));
        }
        let now = Instant::now();
        // A server does not start on a full disk.
        if self.ill.get("bus").is_some_and(|(at, _)| all || *at <= now) {
            for (_, (at, heal)) in self.ill.iter_mut().filter(|(name, _)| name.ends_with("/bus")) {
                *at = now;
                if let Heal::EmptyVolume(volume) = heal {
                    std::fs::remove_file(volume.join(BALLAST)).unwrap_or_default();
                }
            }
        }
        let due: Vec<String> = self.ill.iter().filter(|(_, (at, _))| all || *at <= now).map(|(name, _)| name.clone()).collect();
        for name in due {
            let Some((_, heal)) = self.ill.remove(&name) else { continue };
            match heal {
                Heal::Launch(name) => self.launch(&name, harness).await,
                Heal::Thaw(name) => harness.thaw(&name),
                Heal::Clock(name, since) => {
                    harness.set_clock(&name, 0);
                    self.shifted.push((since, Utc::now()));
                }
                Heal::Open(name) => harness.links[&name].set(Mode::Open),
                Heal::StartBus => harness.nats.restart_same_port().await.unwrap(),
                Heal::ThawServer(pid) => freeze_tree(pid, Signal::SIGCONT),
                Heal::StartDatabase => harness.postgres.as_mut().expect("it was killed").restart().await.unwrap(),
                Heal::EmptyVolume(volume) => {
                    std::fs::remove_file(volume.join(BALLAST)).unwrap_or_default();
                    // A nats-server that could not write acknowledges nothing again until it is started anew, as operators are
                    // told. Nor does one that was stopped meanwhile: letting it go on is not enough then.
                    if volume.ends_with("bus") {
                        match self.ill.get_mut("bus") {
                            Some((_, heal)) => *heal = Heal::StartBus,
                            None => harness.nats.restart_same_port().await.unwrap(),
                        }
                    }
                }
            }
        }
        if !self.ill.contains_key("bus") && matches!(harness.nats.exited().now_or_never(), Some(Ok(Some(_)))) {
            self.ended.push("nats-server ended by itself".to_owned());
            harness.nats.restart_same_port().await.unwrap();
        }
        let all_ill =
            |service: &str| harness.names().iter().filter(|name| name.starts_with(service)).all(|name| self.ill.contains_key(name));
        let away = ["bus", "database"].iter().any(|name| self.ill.contains_key(*name)) || ["scheduler", "ingest"].into_iter().any(all_ill);
        match (away, self.away_since) {
            (true, None) => self.away_since = Some(Utc::now()),
            (false, Some(since)) => {
                self.away.push((since, Utc::now()));
                self.away_since = None;
            }
            _ => {}
        }
    }
}

/// File that takes all the room of a volume.
const BALLAST: &str = "ballast";

/// Takes all the room of a volume.
fn fill(volume: &Path) {
    use std::io::Write as _;
    let Ok(mut file) = std::fs::File::create(volume.join(BALLAST)) else { return };
    for size in [1 << 20, 1 << 12, 1] {
        let piece = vec![0; size];
        while file.write_all(&piece).is_ok() {}
    }
}

/// Signals a process and its children.
fn freeze_tree(pid: Pid, signal: Signal) {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for pid in children.split_whitespace().filter_map(|p| p.parse().ok()).map(Pid::from_raw).chain([pid]) {
        // It may have ended meanwhile.
        kill(pid, signal).unwrap_or_default();
    }
}

/// Copies a folder with everything in it.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}
