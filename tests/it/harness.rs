//! A whole stack of a test's own: private servers, real services as processes, and the proof at the end that nothing is left.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use hopyard::servers::{NatsOptions, NatsServer, PostgresServer, find_program, process_env};
use nix::sys::signal::Signal;
use tempfile::TempDir;

pub mod api;
pub mod bus;
pub mod dice;
pub mod gauges;
pub mod http;
pub mod leftovers;
pub mod link;
pub mod postgres;
pub mod process;
pub mod programs;
pub mod provider;
pub mod volume;
pub mod wait;

use bus::Bus;
use link::Link;
use postgres::Postgres;
use process::{Process, last};
use volume::Volume;

/// Longest time until the last of many faults is made good: the time of an unacknowledged message, and a pass of a janitor.
const HEALED: Duration = Duration::from_secs(100);

/// Log of the nats-server, beside those of the services.
const BUS_LOG: &str = "logs/nats.log";

/// Engine of a stack's store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// Embedded.
    #[default]
    Sqlite,
    /// A fresh database on the shared server.
    Postgres,
}

/// What a stack is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Store.
    pub store: Engine,
    /// Schedulers; SQLite allows one.
    pub schedulers: usize,
    /// Executors, `executor-1` and so on; they are spread over the hosts.
    pub executors: usize,
    /// Hosts, each with a disk and a janitor of its own.
    pub hosts: usize,
    /// Doors.
    pub doors: usize,
    /// Slots of each executor.
    pub slots: u32,
    /// Length of a lease.
    pub lease: &'static str,
    /// Time between renewals.
    pub renew: &'static str,
    /// Time between TERM and KILL.
    pub grace: &'static str,
    /// Whether each host has its janitor.
    pub janitors: bool,
    /// Whether the metrics service runs.
    pub metrics: bool,
    /// URL of a store that the test brings along, instead of one of `store`.
    pub own_store: Option<String>,
    /// Whether every service has ways of its own to the servers, which a test may disturb, and PostgreSQL is the stack's own.
    pub links: bool,
    /// Whether bus, store, blobs and the first host have small volumes of their own.
    pub volumes: bool,
    /// Whether the wall clock of every service may be set, where libfaketime is there.
    pub clocks: bool,
    /// Further settings of all services.
    pub settings: Vec<(&'static str, String)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            store: Engine::Sqlite,
            schedulers: 1,
            executors: 1,
            hosts: 1,
            doors: 1,
            slots: 4,
            lease: "3s",
            renew: "1s",
            grace: "1s",
            janitors: true,
            metrics: false,
            own_store: None,
            links: false,
            volumes: false,
            clocks: false,
            settings: Vec::new(),
        }
    }
}

impl Setup {
    /// The default stack on an engine.
    pub fn on(store: Engine) -> Self {
        Self { store, ..Self::default() }
    }
}

/// A running stack. It ends with [`Harness::close`]; dropping it without is a failure.
#[derive(Debug)]
pub struct Harness {
    /// The private nats-server.
    pub nats: NatsServer,
    /// URL of the store.
    pub store_url: String,
    /// The PostgreSQL that is the stack's own, if it has one.
    pub postgres: Option<PostgresServer>,
    /// Ways of services to the bus and to the database, by `<service>.<server>`.
    pub links: BTreeMap<String, Link>,
    /// Volumes that can be filled, if it has any.
    pub volumes: Vec<Volume>,
    setup: Setup,
    processes: Vec<Process>,
    dir: PathBuf,
    repositories: usize,
    closed: bool,
    // Last, so that the server and the folder go after what uses them.
    _postgres: Option<Arc<Postgres>>,
    _temp: TempDir,
}

impl Harness {
    /// Starts a stack and returns when every service is ready.
    pub async fn start(setup: Setup) -> Self {
        let temp = tempfile::Builder::new().prefix("hopyard-it-").tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap();
        for part in ["logs", "repositories", "data", "bus"] {
            std::fs::create_dir(dir.join(part)).unwrap();
        }
        let places = ["bus", "store", "blobs", "data/host-1"].iter().filter(|_| setup.volumes);
        let volumes = places.map(|place| Volume::at(dir.join(place))).collect();
        let program = find_program("nats-server", "HOPYARD_NATS_SERVER", &process_env).unwrap();
        let nats = NatsServer::start(NatsOptions { program, data_dir: dir.join("bus"), addr: None, log_file: Some(dir.join(BUS_LOG)) })
            .await
            .unwrap();
        let (mut shared, mut own) = (None, None);
        let store_url = match setup.store {
            _ if setup.own_store.is_some() => setup.own_store.clone().unwrap_or_default(),
            Engine::Sqlite => format!("sqlite:{}", dir.join("store").display()),
            Engine::Postgres if setup.links => postgres::new_database(own.insert(postgres::server().await)).await,
            Engine::Postgres => shared.insert(Postgres::shared().await).database().await,
        };
        let mut harness = Self {
            nats,
            store_url,
            postgres: own,
            links: BTreeMap::new(),
            volumes,
            setup,
            processes: Vec::new(),
            dir,
            repositories: 0,
            closed: false,
            _postgres: shared,
            _temp: temp,
        };
        harness.plan();
        for process in &mut harness.processes {
            process.launch().await;
        }
        for process in &mut harness.processes {
            process.ready().await;
        }
        harness
    }

    fn plan(&mut self) {
        let setup = self.setup.clone();
        let host = |i: usize| format!("host-{}", i % setup.hosts + 1);
        for i in 1..=setup.schedulers {
            self.add(&format!("scheduler-{i}"), "scheduler", "host-0");
        }
        for i in 1..=setup.doors {
            self.add(&format!("ingest-{i}"), "ingest", "host-0");
        }
        for i in (0..setup.hosts).filter(|_| setup.janitors) {
            self.add(&format!("janitor-{}", i + 1), "janitor", &host(i));
        }
        for i in 0..setup.executors {
            self.add(&format!("executor-{}", i + 1), "executor", &host(i));
        }
        if setup.metrics {
            self.add("metrics", "metrics", "host-0");
        }
    }

    /// Adds a service to the stack without starting it.
    pub fn add(&mut self, name: &str, service: &'static str, host: &str) {
        let data = self.dir.join("data").join(host);
        std::fs::create_dir_all(&data).unwrap();
        let mut env: Vec<(String, String)> = vec![("HOME".into(), data.display().to_string())];
        let mut set = |name: &str, value: &str| env.push((format!("HOPYARD_{name}"), value.to_owned()));
        let mut way = |server: &str, to: SocketAddr| {
            let link = self.links.entry(format!("{name}.{server}")).or_insert_with(|| Link::to(to));
            link.addr()
        };
        let nats = if self.setup.links { way("bus", self.nats.addr()) } else { self.nats.addr() };
        let store = match &self.postgres {
            Some(server) => {
                let to = SocketAddr::from(([127, 0, 0, 1], server.port()));
                self.store_url.replace(&to.to_string(), &way("database", to).to_string())
            }
            None => self.store_url.clone(),
        };
        set("NATS_URL", &format!("nats://{nats}"));
        set("ADMIN_ADDR", "127.0.0.1:0");
        set("DATA_DIR", &data.display().to_string());
        set("BLOBS", &self.dir.join("blobs").display().to_string());
        set("ID", name);
        set("HOST_ID", host);
        set("LOG", "info,hopyard=debug");
        set("GRACE", self.setup.grace);
        set("DRAIN_DELAY", "1ms");
        match service {
            "ingest" => {
                set("HTTP_ADDR", "127.0.0.1:0");
                // Tests beside this one may keep the disk and the processors busy for longer than an operator would bear.
                set("STORE_WAIT", "30s");
                set("OUTBOX_AGE", "1m");
            }
            "scheduler" => {
                set("LEASE", self.setup.lease);
                set("RENEW", self.setup.renew);
            }
            "executor" => {
                set("SLOTS", &self.setup.slots.to_string());
                set("REPO_ALLOW", &format!("{}/", self.dir.join("repositories").display()));
                set("GIT_FETCH_INTERVAL", "1s");
            }
            _ => {}
        }
        if matches!(service, "ingest" | "scheduler" | "metrics") {
            set("STORE_URL", &store);
        }
        for (name, value) in &self.setup.settings {
            set(name, value);
        }
        if let Some(library) = process_env("HOPYARD_FAKETIME").filter(|_| self.setup.clocks) {
            self.set_clock(name, 0);
            let file = self.dir.join("clocks").join(name).display().to_string();
            // Only what people call the time: the clocks that count from the boot go on as they are.
            let faked = [("LD_PRELOAD", library.as_str()), ("FAKETIME_TIMESTAMP_FILE", &file), ("FAKETIME_NO_CACHE", "1")];
            let real = [("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("DONT_FAKE_MONOTONIC", "1")];
            env.extend(faked.into_iter().chain(real).map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        self.processes.push(Process::new(name, service, env, &self.dir.join("logs")));
    }

    /// Sets the wall clock of a service, running or not, to so many seconds after the machine's.
    pub fn set_clock(&self, name: &str, seconds: i64) {
        let folder = self.dir.join("clocks");
        std::fs::create_dir_all(&folder).unwrap();
        // It is read at any time, so it is never seen half written.
        std::fs::write(folder.join("next"), format!("{seconds:+}")).unwrap();
        std::fs::rename(folder.join("next"), folder.join(name)).unwrap();
    }

    /// Whether [`Harness::set_clock`] has an effect.
    pub fn has_clocks(&self) -> bool {
        self.dir.join("clocks").exists()
    }

    /// Names of all services.
    pub fn names(&self) -> Vec<String> {
        self.processes.iter().map(|p| p.name.clone()).collect()
    }

    /// A service by name.
    pub fn service(&mut self, name: &str) -> &mut Process {
        self.processes.iter_mut().find(|p| p.name == name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    fn door(&self) -> &Process {
        let running = |p: &&Process| p.service == "ingest" && p.pid().is_some();
        self.processes.iter().find(running).expect("a door runs")
    }

    /// Addresses of all doors.
    pub fn doors(&self) -> Vec<SocketAddr> {
        self.processes.iter().filter(|p| p.service == "ingest").map(Process::http).collect()
    }

    /// Address of the first door that runs.
    pub fn api(&self) -> SocketAddr {
        self.door().http()
    }

    /// Ends a service at once.
    pub async fn kill9(&mut self, name: &str) {
        self.service(name).kill9().await;
    }

    /// Starts a service and waits until it is ready.
    pub async fn start_service(&mut self, name: &str) {
        self.service(name).start().await;
    }

    /// Tells a service to drain, and waits until it has ended well.
    pub async fn stop_service(&mut self, name: &str) {
        self.service(name).stop().await;
    }

    /// Stops a service in its tracks.
    pub fn freeze(&mut self, name: &str) {
        self.service(name).signal(Signal::SIGSTOP);
    }

    /// Lets a frozen service go on.
    pub fn thaw(&mut self, name: &str) {
        self.service(name).signal(Signal::SIGCONT);
    }

    /// A variable of the environment of all processes of a service, from their next start on.
    pub fn set(&mut self, service: &str, name: &str, value: &str) {
        for process in self.processes.iter_mut().filter(|p| p.service == service) {
            process.set(name, value);
        }
    }

    /// Lets every service be found where it is now after each start.
    pub fn keep_addresses(&mut self) {
        self.processes.iter_mut().for_each(Process::keep_addresses);
    }

    /// Drains every service and starts it again.
    pub async fn restart_all(&mut self) {
        futures::future::join_all(self.processes.iter_mut().map(Process::stop)).await;
        for process in &mut self.processes {
            process.launch().await;
        }
    }

    /// Services that have ended by themselves since the last call, and how.
    pub fn gone(&mut self) -> Vec<(String, ExitStatus)> {
        self.processes.iter_mut().filter_map(|p| Some((p.name.clone(), p.gone()?))).collect()
    }

    /// Waits until every service is ready.
    pub async fn all_ready(&mut self) {
        for process in &mut self.processes {
            process.ready().await;
        }
    }

    /// A connection of a plain client.
    pub async fn bus(&self) -> Bus {
        Bus::connect(self.nats.addr()).await
    }

    /// Makes a git repository that executors may use, and returns its path.
    pub fn repo(&mut self, commits: &[&[(&str, &str)]]) -> PathBuf {
        self.repositories += 1;
        let path = self.dir.join("repositories").join(format!("r{}", self.repositories));
        programs::repository(&path, commits);
        path
    }

    /// A directory of the test outside of all workspaces.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Data directories of the hosts with executors.
    pub fn hosts(&self) -> Vec<PathBuf> {
        (1..=self.setup.hosts).map(|i| self.dir.join("data").join(format!("host-{i}"))).collect()
    }

    /// The executable, and the settings of a client of this stack.
    pub fn client(&self) -> (PathBuf, Vec<(String, String)>) {
        (env!("CARGO_BIN_EXE_hopyard").into(), vec![("HOPYARD_URL".into(), format!("http://{}", self.api()))])
    }

    /// Waits until nothing is left over, then tells all services to drain; each has to end well.
    pub async fn close(self) {
        self.close_within(wait::PATIENCE).await;
    }

    /// As [`Harness::close`], after so much went wrong that an acknowledgement may have been lost, which heals after 30 s, or a
    /// word to a janitor, which heals with its next pass; and the audit of operators has to find nothing.
    pub async fn close_after_faults(self) {
        leftovers::none(HEALED, &self.store_url, self.nats.addr(), &self.dir, &self.hosts()).await;
        let hosts: Vec<String> = self.hosts().iter().map(|dir| dir.display().to_string()).collect();
        let mut args = vec!["audit".to_owned(), "--json".to_owned()];
        args.extend(hosts.into_iter().flat_map(|dir| ["--data-dir".to_owned(), dir]));
        let settings = [
            ("STORE_URL", self.store_url.clone()),
            ("NATS_URL", self.nats.url()),
            ("BLOBS", self.dir.join("blobs").display().to_string()),
            ("LEASE", self.setup.lease.to_owned()),
        ];
        let env = settings.into_iter().map(|(name, value)| (format!("HOPYARD_{name}"), value)).collect();
        let output = programs::run_beside(env!("CARGO_BIN_EXE_hopyard").into(), args, self.dir.clone(), env).await;
        let words = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the audit ends with {}: {words}", output.status);
        self.close_within(HEALED).await;
    }

    async fn close_within(mut self, limit: Duration) {
        leftovers::none(limit, &self.store_url, self.nats.addr(), &self.dir, &self.hosts()).await;
        // Schedulers last: an executor that has just come back tells them what it found before it ends.
        let (schedulers, others): (Vec<_>, Vec<_>) = self.processes.iter_mut().partition(|p| p.name.starts_with("scheduler"));
        for services in [others, schedulers] {
            futures::future::join_all(services.into_iter().map(Process::stop)).await;
        }
        self.nats.stop().await.unwrap();
        if let Some(postgres) = &mut self.postgres {
            postgres.stop().await.unwrap();
        }
        self.closed = true;
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for process in &self.processes {
                eprintln!("---- {} ----\n{}", process.name, process.told());
            }
            let bus = std::fs::read(self.dir.join(BUS_LOG)).unwrap_or_default();
            eprintln!("---- nats-server ----\n{}", last(&String::from_utf8_lossy(&bus), 30));
        } else {
            assert!(self.closed, "the test ended without harness.close().await");
        }
    }
}
