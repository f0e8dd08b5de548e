//! A private nats-server with JetStream.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

use super::holder::port_holder;
use super::spawner::{Launch, Spawner, Streams, end, end_now};

const READY_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(10);
const OLDEST: (u32, u32, u32) = (2, 9, 10);

/// What a [`NatsServer`] is made of.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    /// The nats-server executable, 2.9.10 or later.
    pub program: PathBuf,
    /// Holds `nats/` (the streams, kept over restarts) and `nats.conf`; made if missing.
    pub data_dir: PathBuf,
    /// Where it listens; `None` is a free port of 127.0.0.1, chosen by the server itself.
    pub addr: Option<SocketAddr>,
    /// Its log; `None` is `nats.log` in the data directory.
    pub log_file: Option<PathBuf>,
}

/// A running (or, after `stop` or `kill`, stopped) nats-server of our own. Dropping it kills the server and keeps its data.
#[derive(Debug)]
pub struct NatsServer {
    options: NatsOptions,
    addr: SocketAddr,
    child: Option<Child>,
}

/// The part of the server's first line that we read.
#[derive(Deserialize)]
struct Info {
    server_name: String,
    version: String,
}

impl NatsServer {
    /// Starts the server and returns when it answers.
    ///
    /// # Errors
    /// The address is taken (the text names the holder), the server is too old, ends, or does not answer within 30 s (the
    /// text carries the end of its log).
    pub async fn start(options: NatsOptions) -> Result<Self> {
        if let Some(addr) = options.addr.filter(|addr| addr.port() != 0) {
            // Checked before, for a text that helps; the server itself refuses a taken address as well.
            if let Err(e) = std::net::TcpListener::bind(addr) {
                let holder = port_holder(addr).map(|who| format!(", held by {who}")).unwrap_or_default();
                return Err(e).with_context(|| format!("nats-server cannot listen on {addr}{holder}"));
            }
        }
        let wanted = options.addr.unwrap_or((Ipv4Addr::LOCALHOST, 0).into());
        let mut server = Self { options, addr: wanted, child: None };
        server.launch().await?;
        Ok(server)
    }

    /// Address for clients, `nats://127.0.0.1:PORT`; the same after a restart.
    pub fn url(&self) -> String {
        format!("nats://{}", self.addr)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Waits until the server ends by itself; at once if it is stopped. May be dropped and called again.
    pub async fn exited(&mut self) -> io::Result<Option<ExitStatus>> {
        match &mut self.child {
            Some(child) => child.wait().await.map(Some),
            None => Ok(None),
        }
    }

    /// Asks the server to end, kills it after 10 s, and returns when it is gone.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            end(&mut child, Signal::SIGTERM, STOP_WITHIN).await.context("cannot stop nats-server")?;
        }
        Ok(())
    }

    /// Kills the server (`SIGKILL`) and returns when it is gone.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            end(&mut child, Signal::SIGKILL, STOP_WITHIN).await.context("cannot kill nats-server")?;
        }
        Ok(())
    }

    /// Starts the server again on the address and data it had; kills it first if it runs.
    pub async fn restart_same_port(&mut self) -> Result<()> {
        self.kill().await?;
        self.launch().await
    }

    /// Deletes every stream and consumer by removing the store; kills the server first if it runs.
    pub async fn wipe(&mut self) -> Result<()> {
        self.kill().await?;
        let store = self.store_dir();
        match fs::remove_dir_all(&store) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).with_context(|| format!("cannot remove {}", store.display())),
            _ => Ok(()),
        }
    }

    fn store_dir(&self) -> PathBuf {
        self.options.data_dir.join("nats")
    }

    fn log_file(&self) -> PathBuf {
        self.options.log_file.clone().unwrap_or_else(|| self.options.data_dir.join("nats.log"))
    }

    async fn launch(&mut self) -> Result<()> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        // Tells our server from whatever else may answer on the port.
        let name = format!("hopyard-{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        // A stale ports file must not be read, so each start has a folder of its own.
        let ports = tempfile::Builder::new().prefix("hopyard-nats-").tempdir().context("cannot make a temporary folder")?;
        let config = self.options.data_dir.join("nats.conf");
        fs::create_dir_all(self.store_dir()).with_context(|| format!("cannot make {}", self.store_dir().display()))?;
        fs::write(&config, self.config(&name, ports.path())).with_context(|| format!("cannot write {}", config.display()))?;

        let log = self.log_file();
        let launch = Launch::new(&self.options.program).args(["-c".into(), config.into_os_string()]).streams(Streams::Append(log.clone()));
        let mut child = Spawner::global().spawn(&launch).await?;
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("nats-server ended while starting ({status}): {}", log_end(&log));
            }
            if self.addr.port() == 0
                && let Some(port) = chosen_port(ports.path())
            {
                self.addr.set_port(port);
            }
            if self.addr.port() != 0
                && let Some(info) = ask(self.addr).await
                && info.server_name == name
            {
                check_version(&info.version)?;
                self.child = Some(child);
                return Ok(());
            }
            if Instant::now() > deadline {
                end_now(&mut child, Signal::SIGKILL);
                bail!("nats-server did not answer within {READY_WITHIN:?}: {}", log_end(&log));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Only fields that 2.9.10 knows: the server refuses to start on any other.
    fn config(&self, name: &str, ports: &Path) -> String {
        let quoted = |path: &Path| serde_json::Value::from(path.to_string_lossy()).to_string();
        let port = match self.addr.port() {
            0 => "-1".to_string(),
            port => port.to_string(),
        };
        format!(
            "server_name: {name}\nhost: \"{}\"\nport: {port}\nports_file_dir: {}\nmax_payload: 1MB\n\
             jetstream {{\n  store_dir: {}\n  max_memory_store: 512MB\n  max_file_store: 1TB\n}}\n",
            self.addr.ip(),
            quoted(ports),
            quoted(&self.store_dir()),
        )
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            end_now(child, Signal::SIGKILL);
        }
    }
}

/// The port of the ports file that the server writes when it listens, `{"nats":["nats://127.0.0.1:PORT"],…}`.
fn chosen_port(dir: &Path) -> Option<u16> {
    #[derive(Deserialize)]
    struct Ports {
        nats: Vec<String>,
    }
    let file = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "ports"))?;
    // Half a file is no JSON yet; the next look reads it whole.
    let ports: Ports = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    ports.nats.first()?.rsplit(':').next()?.parse().ok()
}

/// The server's first line, `INFO {…}`.
async fn ask(addr: SocketAddr) -> Option<Info> {
    let answer = async {
        let mut line = String::new();
        BufReader::new(TcpStream::connect(addr).await.ok()?).read_line(&mut line).await.ok()?;
        serde_json::from_str(line.strip_prefix("INFO ")?).ok()
    };
    timeout(Duration::from_secs(2), answer).await.ok().flatten()
}

fn check_version(version: &str) -> Result<()> {
    // `2.10.0-beta.1` counts as 2.10.0.
    let mut parts = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    if (next(), next(), next()) < OLDEST {
        bail!("nats-server {version} is too old: hopyard needs 2.9.10 or later");
    }
    Ok(())
}

/// The last lines of a server's log, for an error text.
pub(super) fn log_end(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(8).collect();
    format!("{} (from {})", lines.into_iter().rev().collect::<Vec<_>>().join("; "), log.display())
}
