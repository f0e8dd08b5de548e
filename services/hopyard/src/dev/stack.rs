//! The stack as a whole: started in parallel, ready together, drained in the order that loses nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::future::{join_all, try_join_all};
use hopyard_runtime::Config;
use hopyard_runtime::tasks::Tasks;
use hopyard_store::Store;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::DevArgs;
use super::child::{Shared, Spec};
pub use super::supervise::Board;
use super::supervise::{bus, service};
use crate::client::Api;
use crate::servers::{NatsOptions, NatsServer, find_program, process_env};

const READY_WITHIN: Duration = Duration::from_secs(60);

/// The private bus and the services of `hopyard dev`.
#[derive(Debug)]
pub struct Stack {
    args: DevArgs,
    data: PathBuf,
    config: Config,
    allow: Option<String>,
    board: Board,
    tasks: Tasks,
    kill: CancellationToken,
    /// What is running, in the order it is drained.
    stages: Vec<Stage>,
}

/// Processes that are drained together.
#[derive(Debug)]
struct Stage {
    stop: CancellationToken,
    handles: Vec<JoinHandle<()>>,
}

impl Stack {
    /// A stack in an existing, absolute data directory; nothing is started yet.
    ///
    /// # Errors
    /// When the folder for logs cannot be made.
    pub fn new(data: PathBuf, args: DevArgs, config: Config, allow: Option<String>) -> Result<Self> {
        let logs = data.join("logs");
        std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let board = Board::new(data.clone(), String::new());
        Ok(Self { args, data, config, allow, board, tasks: Tasks::default(), kill: CancellationToken::new(), stages: Vec::new() })
    }

    /// Where everything is.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Starts everything and returns when every service and the API say that they are ready.
    ///
    /// # Errors
    /// When something does not start; what was started runs on until [`Stack::kill`].
    pub async fn start(&mut self) -> Result<()> {
        let specs = self.specs();
        for spec in &specs {
            spec.check_ports()?;
        }
        let store_url = self.args.store.clone().unwrap_or_else(|| format!("sqlite:{}", self.data.join("store").display()));
        let migrate = async {
            // A server that has just come back may be at its recovery.
            Store::open_migrated(&store_url, Duration::from_secs(30)).await.map(drop).context("the store cannot be opened")
        };
        let (server, ()) = tokio::try_join!(self.start_bus(), migrate)?;
        self.board = Board::new(self.data.clone(), server.url());
        self.board.set("nats", server.pid().unwrap_or_default(), None);
        let shared = Arc::new(Shared {
            program: std::env::current_exe().context("cannot find this executable")?,
            data: self.data.clone(),
            nats_url: server.url(),
            store_url,
            host: self.config.host()?.to_string(),
            allow: self.allow.clone(),
            config: self.config.clone(),
        });
        let bus_stop = CancellationToken::new();
        let handle = self.supervised("dev-bus", bus(server, self.board.clone(), bus_stop.clone()));
        self.stages.push(Stage { stop: bus_stop, handles: vec![handle] });
        let started = try_join_all(specs.into_iter().map(|mut spec| {
            let shared = shared.clone();
            async move {
                let running = spec.start(&shared).await?;
                anyhow::Ok((spec, running))
            }
        }));
        let started = started.await?;
        let http = started.iter().find_map(|(spec, _)| spec.http).context("the door does not say where it listens")?;
        if http.port() == 0 {
            bail!("the door does not say where it listens");
        }
        self.board.set_url(format!("http://{http}"));
        let admins: Vec<_> = started.iter().map(|(spec, _)| (spec.name.clone(), format!("http://{}", spec.admin))).collect();
        let order = ["ingest", "executor", "scheduler", "metrics", "janitor"];
        let mut stages: Vec<Stage> = order.iter().map(|_| Stage { stop: CancellationToken::new(), handles: Vec::new() }).collect();
        for (spec, running) in started {
            self.board.set(&spec.name, running.pid, Some(format!("http://{}", spec.admin)));
            let place = order.iter().position(|name| *name == spec.service).unwrap_or(0);
            let task = service(spec, running, shared.clone(), self.board.clone(), stages[place].stop.clone());
            let handle = self.supervised("dev-service", task);
            stages[place].handles.push(handle);
        }
        // The bus, started first, goes last.
        stages.append(&mut self.stages);
        self.stages = stages;
        let mut doors = admins;
        doors.push(("the API".to_owned(), format!("http://{http}")));
        try_join_all(doors.iter().map(|(name, url)| ready(name, url))).await?;
        Ok(())
    }

    fn supervised(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let kill = self.kill.clone();
        self.tasks.spawn(name, async move {
            tokio::select! {
                () = task => {}
                // Its process is killed with the value that the task holds.
                () = kill.cancelled() => {}
            }
            Ok(())
        })
    }

    async fn start_bus(&self) -> Result<NatsServer> {
        let program = find_program("nats-server", "HOPYARD_NATS_SERVER", &process_env)?;
        let options = NatsOptions {
            program,
            data_dir: self.data.clone(),
            addr: Some(self.args.nats_addr),
            log_file: Some(self.data.join("logs/nats.log")),
        };
        NatsServer::start(options).await
    }

    fn specs(&self) -> Vec<Spec> {
        let spec = |name: String, service, offset| Spec {
            log: self.data.join("logs").join(format!("{name}.log")),
            name,
            service,
            admin: self.args.admin_addr(offset),
            http: (service == "ingest").then_some(self.args.http_addr),
        };
        let mut specs = vec![
            spec("ingest".into(), "ingest", 0),
            spec("scheduler".into(), "scheduler", 1),
            spec("metrics".into(), "metrics", 3),
            spec("janitor".into(), "janitor", 4),
        ];
        for n in 1..=self.args.executors {
            let mut executor = spec(format!("executor-{n}"), "executor", 2);
            if n > 1 {
                executor.admin.set_port(0);
            }
            specs.push(executor);
        }
        specs
    }

    /// Ends everything in order: no new work, then executors hand theirs back, then what serves them, the bus last.
    pub async fn drain(&mut self) {
        for stage in &mut self.stages {
            stage.stop.cancel();
            join_all(stage.handles.iter_mut().filter(|handle| !handle.is_finished())).await;
        }
        self.tasks.finished().await;
    }

    /// Ends everything at once; what was being started is killed too.
    pub async fn kill(&mut self) {
        self.kill.cancel();
        self.tasks.finished().await;
    }
}

/// Waits until a process can do its part.
async fn ready(name: &str, url: &str) -> Result<()> {
    let api = Api::new(url, None, None)?;
    let limit = Instant::now() + READY_WITHIN;
    loop {
        let said = match api.get_root("/readyz").await {
            Ok((status, _)) if status.is_success() => return Ok(()),
            Ok((_, health)) => health.to_string(),
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() >= limit {
            bail!("{name} is not ready after {} s: {said}", READY_WITHIN.as_secs());
        }
        sleep(Duration::from_millis(25)).await;
    }
}
