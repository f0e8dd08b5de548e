//! One service as a child process: its environment, its start, and where it turned out to listen.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Result, bail};
use hopyard_runtime::Config;
use hopyard_runtime::config::environment;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use super::log::{self, Ready};
use crate::servers::{Launch, Spawner, Streams, port_holder};

const READY_WITHIN: Duration = Duration::from_secs(60);

/// What all children of a stack share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The executable: this one.
    pub program: PathBuf,
    /// Data directory, absolute.
    pub data: PathBuf,
    /// Bus.
    pub nats_url: String,
    /// Store.
    pub store_url: String,
    /// Name of the host.
    pub host: String,
    /// Repositories that executors may use; their default if absent.
    pub allow: Option<String>,
    /// Settings that are passed on as they are.
    pub config: Config,
}

/// A service to run.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Name of the process, such as `executor-1`.
    pub name: String,
    /// Subcommand.
    pub service: &'static str,
    /// Address of its admin port; the bound one once it has run, so that it keeps it.
    pub admin: SocketAddr,
    /// Address of the API, for ingest.
    pub http: Option<SocketAddr>,
    /// Where its log goes.
    pub log: PathBuf,
}

/// A started service.
#[derive(Debug)]
pub struct Running {
    /// The process.
    pub child: Child,
    /// Its id.
    pub pid: u32,
    /// Where in its log this start begins.
    pub log_from: u64,
}

/// Settings that a stack decides itself, or that are no business of its services.
const OWN: [&str; 11] =
    ["STORE_URL", "NATS_URL", "NATS_CREDS", "HTTP_ADDR", "ADMIN_ADDR", "DATA_DIR", "ID", "HOST_ID", "URL", "TOKEN", "NAMESPACE"];

impl Spec {
    /// The whole environment of the child. Executors and janitors get no word of the store.
    pub fn environment(&self, shared: &Shared) -> Vec<(String, String)> {
        let mut vars: Vec<(String, String)> = Vec::new();
        let mut set = |name: &str, value: &str| vars.push((format!("HOPYARD_{name}"), value.to_owned()));
        // There is no load balancer that would have to see first that a door closes.
        set("DRAIN_DELAY", "1ms");
        for (name, value) in shared.config.values().filter(|(name, _)| !OWN.contains(name) && *name != "REPO_ALLOW") {
            set(name, value);
        }
        set("NATS_URL", &shared.nats_url);
        set("ADMIN_ADDR", &self.admin.to_string());
        set("DATA_DIR", &shared.data.display().to_string());
        set("HOST_ID", &shared.host);
        set("ID", &self.name);
        if matches!(self.service, "ingest" | "scheduler" | "metrics") {
            set("STORE_URL", &shared.store_url);
        }
        if let Some(http) = self.http {
            set("HTTP_ADDR", &http.to_string());
        }
        if let Some(allow) = &shared.allow {
            set("REPO_ALLOW", allow);
        }
        // Credentials by host may be named by variables, which only executors read.
        let credentials = shared.config.get("GIT_CREDENTIALS").filter(|_| self.service == "executor").unwrap_or_default();
        let named = credentials.split(',').filter_map(|entry| entry.split_once("=env:").map(|(_, name)| name.trim()));
        for name in ["PATH", "HOME", "TMPDIR", "LANG", "RUST_BACKTRACE", "HOPYARD_CONFIG"].into_iter().chain(named) {
            if let Some(value) = environment(name) {
                vars.push((name.to_owned(), value));
            }
        }
        vars
    }

    /// Refuses to start on a taken port, and says who has it.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn check_ports(&self) -> Result<()> {
        for addr in [Some(self.admin), self.http].into_iter().flatten().filter(|addr| addr.port() != 0) {
            if let Err(error) = std::net::TcpListener::bind(addr) {
                let holder = port_holder(addr).map(|who| format!(", held by {who}")).unwrap_or_default();
                bail!("{} cannot listen on {addr}{holder}: {error}", self.name);
            }
        }
        Ok(())
    }

    /// Starts the process and returns when it says that it is ready; its ports are then known and kept.
    ///
    /// # Errors
    /// When it ends or is not ready within a minute; the text carries the end of its log.
    pub async fn start(&mut self, shared: &Shared) -> Result<Running> {
        let log_from = log::length(&self.log);
        let mut launch = Launch::new(&shared.program).args([self.service]).only_env().streams(Streams::Append(self.log.clone()));
        for (name, value) in self.environment(shared) {
            launch = launch.env(name, value);
        }
        let mut child = Spawner::global().spawn(&launch).await?;
        let pid = child.id().unwrap_or_default();
        let limit = Instant::now() + READY_WITHIN;
        loop {
            if let Some(Ready { admin, http }) = log::ready(&log::read_from(&self.log, log_from)) {
                self.admin = admin;
                if self.http.is_some() {
                    self.http = http.or(self.http);
                }
                return Ok(Running { child, pid, log_from });
            }
            if let Some(status) = child.try_wait()? {
                bail!("{} {} while starting\n{}", self.name, ended(status), self.last_words(log_from));
            }
            if Instant::now() >= limit {
                bail!("{} is not ready after {} s\n{}", self.name, READY_WITHIN.as_secs(), self.last_words(log_from));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The end of its log since `from`, and where to find the rest.
    pub fn last_words(&self, from: u64) -> String {
        let text = log::read_from(&self.log, from.max(log::length(&self.log).saturating_sub(64 * 1024)));
        format!("{}\n  (whole log: {})", log::last_words(&text), self.log.display())
    }
}

/// How a process ended, as part of a sentence.
pub fn ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Shared {
        let config = Config::load(&[
            ("LEASE", Some("2s".into())),
            ("STORE_URL", Some("postgres://elsewhere".into())),
            ("REPO_ALLOW", Some("/x".into())),
        ])
        .unwrap();
        Shared {
            program: "/bin/false".into(),
            data: "/data".into(),
            nats_url: "nats://127.0.0.1:1".into(),
            store_url: "sqlite:/data/store".into(),
            host: "here".into(),
            allow: Some("/repo".into()),
            config,
        }
    }

    fn spec(service: &'static str) -> Spec {
        Spec { name: format!("{service}-1"), service, admin: ([127, 0, 0, 1], 0).into(), http: None, log: "/nowhere".into() }
    }

    #[test]
    fn only_those_who_may_learn_of_the_store() {
        let value = |service, name: &str| {
            let vars = spec(service).environment(&shared());
            let found: Vec<_> = vars.into_iter().filter(|(n, _)| n == name).map(|(_, value)| value).collect();
            assert!(found.len() < 2, "{name} is given twice");
            found.into_iter().next()
        };
        for service in ["ingest", "scheduler", "metrics"] {
            assert_eq!(value(service, "HOPYARD_STORE_URL").as_deref(), Some("sqlite:/data/store"));
        }
        for service in ["executor", "janitor"] {
            assert_eq!(value(service, "HOPYARD_STORE_URL"), None);
        }
        assert_eq!(value("executor", "HOPYARD_LEASE").as_deref(), Some("2s"));
        assert_eq!(value("executor", "HOPYARD_REPO_ALLOW").as_deref(), Some("/repo"));
        assert_eq!(value("executor", "HOPYARD_ID").as_deref(), Some("executor-1"));
    }

    #[tokio::test]
    async fn a_service_that_ends_at_once_is_an_error_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = Spec { log: dir.path().join("x.log"), ..spec("ingest") };
        let error = spec.start(&Shared { program: "/bin/cat".into(), ..shared() }).await.unwrap_err().to_string();
        assert!(error.starts_with("ingest-1 ended with code 1 while starting") && error.contains("cat: ingest"), "{error}");
    }

    #[test]
    fn a_taken_port_names_its_holder() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let spec = Spec { admin: taken.local_addr().unwrap(), ..spec("metrics") };
        let error = spec.check_ports().unwrap_err().to_string();
        assert!(error.contains("metrics-1 cannot listen on"), "{error}");
        assert!(!cfg!(target_os = "linux") || error.contains(&format!("(pid {})", std::process::id())), "{error}");
    }
}
