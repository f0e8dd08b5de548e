//! A private PostgreSQL server.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};
use tempfile::TempDir;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use super::family::{children, kill_all};
use super::nats::log_end;
use super::spawner::{Account, Launch, Spawner, Streams, end, end_now};

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// Immediate shutdown: as quick as `SIGKILL`, but it takes the backends and the shared memory along.
const IMMEDIATE: Signal = Signal::SIGQUIT;
const SUPERUSER: &str = "hopyard";

/// What a [`PostgresServer`] is made of.
#[derive(Clone, Debug, Default)]
pub struct PgOptions {
    /// The folder with `postgres` and `initdb`, version 15 or later.
    pub bin_dir: PathBuf,
    /// The cluster, made if missing and kept on drop; `None` is a temporary one, removed on drop. When we are root it must lie
    /// where an ordinary user can reach it.
    pub data_dir: Option<PathBuf>,
    /// Whether commits reach the disk before they are answered. Off is several times faster and still survives `kill -9` of
    /// the server, but not a power cut.
    pub fsync: bool,
    /// Further server settings, `(name, value)`.
    pub settings: Vec<(String, String)>,
}

/// A running (or, after `stop` or `kill`, stopped) PostgreSQL of our own, as an ordinary user even if we are root. Dropping it
/// kills the server and all its processes.
#[derive(Debug)]
pub struct PostgresServer {
    options: PgOptions,
    data: PathBuf,
    account: Option<Account>,
    port: u16,
    child: Option<Child>,
    // Last, so that the folder goes after the server is gone.
    base: TempDir,
}

impl PostgresServer {
    /// Makes the cluster if need be, starts the server and returns when it takes connections.
    ///
    /// # Errors
    /// `initdb` fails, or the server ends or is not ready within 60 s; the text carries the end of its output.
    pub async fn start(options: PgOptions) -> Result<Self> {
        // The server refuses to run as root.
        let account = geteuid().is_root().then(ordinary_account);
        let base = tempfile::Builder::new().prefix("hopyard-pg-").tempdir().context("cannot make a temporary folder")?;
        let data = options.data_dir.clone().unwrap_or_else(|| base.path().join("data"));
        fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
        for dir in [base.path(), &data] {
            give(dir, account)?;
        }
        let mut server = Self { options, data, account, port: 0, child: None, base };
        if !server.data.join("PG_VERSION").exists() {
            server.initdb().await?;
        }
        server.launch_on_free_port().await?;
        Ok(server)
    }

    /// Connection URL of a database, over loopback, for the superuser, without password.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Connection URL of the maintenance database, for `CREATE DATABASE`.
    pub fn admin_url(&self) -> String {
        self.url("postgres")
    }

    /// Its loopback port; the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// The directory of its unix socket and its log, gone when the server is dropped.
    pub fn run_dir(&self) -> &Path {
        self.base.path()
    }

    /// Ends the server in order (open transactions are rolled back), kills it after 20 s; returns when it is gone.
    pub async fn stop(&mut self) -> Result<()> {
        self.end(Signal::SIGINT).await
    }

    /// Kills the server and its processes (`SIGKILL`) as a crash would; returns when all are gone.
    pub async fn kill(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL).await
    }

    /// Starts the server again on the port and data it had; kills it first if it runs.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.launch(self.port).await
    }

    async fn end(&mut self, signal: Signal) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let family = child.id().map(children).unwrap_or_default();
        end(&mut child, signal, STOP_WITHIN).await.context("cannot end postgres")?;
        // Backends sit in sessions of their own and outlive a killed parent for a moment, holding its shared memory.
        let deadline = Instant::now() + STOP_WITHIN;
        while !kill_all(&family) {
            if Instant::now() > deadline {
                bail!("processes of postgres outlive it: {family:?}");
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn launch_of(&self, program: &str) -> Launch {
        let mut launch = Launch::new(self.options.bin_dir.join(program)).env("LC_ALL", "C");
        launch.account = self.account;
        // Ours may be one that an ordinary user cannot enter.
        launch.dir = Some(self.base.path().to_path_buf());
        // `TZ` may name a zone the server does not have; GMT0 needs no zone file.
        launch.env("TZ", "GMT0").env("PGTZ", "GMT0")
    }

    async fn initdb(&self) -> Result<()> {
        let mut launch = self.launch_of("initdb").args(["--locale=C", "-E", "UTF8", "--auth=trust", "--no-sync", "--no-instructions"]);
        launch = launch.args(["-U", SUPERUSER, "-D"]).args([&self.data]).streams(Streams::Piped);
        let output = Spawner::global().spawn(&launch).await?.wait_with_output().await.context("cannot wait for initdb")?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            bail!("initdb in {} failed ({}): {}", self.data.display(), output.status, text.trim().replace('\n', "; "));
        }
        // A server that brings its own time zones looks for them here.
        let zones = self.options.bin_dir.join("../root/usr/share/zoneinfo");
        if zones.is_dir() {
            symlink(fs::canonicalize(&zones)?, self.data.join("zoneinfo")).context("cannot link the time zones")?;
        }
        Ok(())
    }

    async fn launch_on_free_port(&mut self) -> Result<()> {
        // The server cannot choose its port itself; between our choice and its start somebody else may take it.
        let mut tries = 0;
        loop {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr())?.port();
            tries += 1;
            match self.launch(port).await {
                Err(e) if tries < 5 && format!("{e:#}").contains("could not create any TCP/IP sockets") => {}
                result => return result,
            }
        }
    }

    async fn launch(&mut self, port: u16) -> Result<()> {
        self.port = port;
        let log = self.base.path().join("postgres.log");
        let _ = fs::remove_file(&log);
        let durable = if self.options.fsync { "on" } else { "off" };
        let mut settings = vec![
            format!("unix_socket_directories={}", self.base.path().display()),
            format!("fsync={durable}"),
            format!("full_page_writes={durable}"),
            "listen_addresses=127.0.0.1".into(),
            "max_connections=200".into(),
            "shared_buffers=64MB".into(),
            // The compiler of queries is not among the unpacked programs, and short queries only lose by it.
            "jit=off".into(),
        ];
        settings.extend(self.options.settings.iter().map(|(name, value)| format!("{name}={value}")));
        let mut launch = self.launch_of("postgres").args(["-D".into(), self.data.clone().into_os_string()]);
        launch = launch.args(["-p".to_string(), port.to_string()]).streams(Streams::Append(log.clone()));
        launch = launch.args(settings.into_iter().flat_map(|setting| ["-c".to_string(), setting]));
        launch.on_parent_death = IMMEDIATE;

        let mut child = Spawner::global().spawn(&launch).await?;
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("postgres ended while starting ({status}): {}", log_end(&log));
            }
            if child.id().is_some_and(|pid| is_ready(&self.data, pid)) {
                self.child = Some(child);
                return Ok(());
            }
            if Instant::now() > deadline {
                end_now(&mut child, IMMEDIATE);
                bail!("postgres was not ready within {READY_WITHIN:?}: {}", log_end(&log));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        let family = child.id().map(children).unwrap_or_default();
        end_now(child, IMMEDIATE);
        for _ in 0..1000 {
            if kill_all(&family) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        tracing::warn!(?family, "processes of postgres outlive it");
    }
}

/// Whom the server runs as when we are root: `nobody`, which every system has.
fn ordinary_account() -> Account {
    let nobody = User::from_name("nobody").ok().flatten();
    nobody.map_or(Account { uid: 65534, gid: 65534 }, |user| Account { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
}

fn give(dir: &Path, account: Option<Account>) -> io::Result<()> {
    account.map_or(Ok(()), |Account { uid, gid }| chown(dir, Some(uid), Some(gid)))
}

/// Whether the server's own status file says so: line 1 its pid, line 8 its state.
fn is_ready(data: &Path, pid: u32) -> bool {
    let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    lines.first() == Some(&pid.to_string().as_str()) && lines.get(7) == Some(&"ready")
}
