//! `hopyard dev`: a private bus, the embedded store and the five services as child processes, until told to stop.

pub mod child;
pub mod log;
pub mod private;
pub mod stack;
mod supervise;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use hopyard_runtime::Config;
use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{SignalKind, signal};

use crate::client::output;
use crate::client::repository::toplevel;
use crate::exit::{Exit, Failure};
use stack::Stack;

/// Port of the API.
const HTTP_ADDR: &str = "127.0.0.1:8733";
/// Port of the bus.
const NATS_ADDR: &str = "127.0.0.1:8732";
/// First of the admin ports.
const ADMIN_PORT: u16 = 8740;

/// What the stack is made of.
#[derive(Clone, Debug, Args)]
pub struct DevArgs {
    /// Everything the stack keeps on disk
    #[arg(long, value_name = "DIR", default_value = "./.hopyard/dev")]
    pub data_dir: PathBuf,
    /// Address of the API; port 0 is a free one, and then the admin ports are free ones too
    #[arg(long, value_name = "ADDR", default_value = HTTP_ADDR)]
    pub http_addr: SocketAddr,
    /// Address of the bus, on the loopback interface; port 0 is a free one
    #[arg(long, value_name = "ADDR", default_value = NATS_ADDR)]
    pub nats_addr: SocketAddr,
    /// First of the admin ports; 0 for free ones
    #[arg(long, value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// How many executors
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub executors: u32,
    /// Store instead of the embedded one, postgres://…
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// When ready, print one line of JSON with URLs and process ids: the global `--json`
    #[arg(skip)]
    pub json: bool,
}

impl DevArgs {
    /// The admin port of a service: `offset` is its place in the row ingest, scheduler, executor-1, metrics, janitor.
    fn admin_addr(&self, offset: u16) -> SocketAddr {
        let free = self.http_addr.port() == 0;
        let base = self.admin_port.unwrap_or(if free { 0 } else { ADMIN_PORT });
        let port = if base == 0 { 0 } else { base.saturating_add(offset) };
        SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), port)
    }
}

/// Runs the stack until SIGTERM or SIGINT; the second signal ends it without draining.
///
/// # Errors
/// When the stack cannot be started; the text carries the log of what failed.
pub async fn run(args: &DevArgs) -> Result<Exit> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    if !args.nats_addr.ip().is_loopback() {
        return Err(Failure::usage(format!(
            "the bus of a development stack has no passwords, so it listens on the loopback interface only, not on {}",
            args.nats_addr
        )));
    }
    std::fs::create_dir_all(&args.data_dir).with_context(|| format!("cannot make {}", args.data_dir.display()))?;
    let data = args.data_dir.canonicalize().with_context(|| format!("cannot resolve {}", args.data_dir.display()))?;
    let _lock = lock(&data)?;
    let config = Config::load(&[])?;
    let allow = match config.get("REPO_ALLOW") {
        Some(list) => Some(list.to_owned()),
        None => toplevel(".".as_ref()).await.ok().map(|path| path.display().to_string()),
    };

    let mut stack = Stack::new(data, args.clone(), config, allow)?;
    let started = tokio::select! {
        result = stack.start() => Some(result),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    match started {
        Some(Ok(())) => {}
        Some(Err(error)) => {
            stack.kill().await;
            return Err(error);
        }
        None => {
            stack.kill().await;
            return Ok(Exit::Done);
        }
    }
    announce(args, &stack);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    if !args.json {
        output::progress("stopping: runs at work are handed back, everything is kept; once more ends it at once");
    }
    tokio::select! {
        () = stack.drain() => {}
        _ = terminate.recv() => stack.kill().await,
        _ = interrupt.recv() => stack.kill().await,
    }
    Ok(Exit::Done)
}

fn announce(args: &DevArgs, stack: &Stack) {
    let state = stack.board().state();
    if args.json {
        output::data(&state.to_string());
        return;
    }
    let text = |pointer: &str| output::field(&state, pointer);
    let mut rows = vec![
        vec!["API".to_owned(), text("/url")],
        vec!["bus".to_owned(), text("/nats_url")],
        vec!["data".to_owned(), args.data_dir.display().to_string()],
        vec!["logs".to_owned(), args.data_dir.join("logs").display().to_string()],
    ];
    for (name, url) in state["admin"].as_object().into_iter().flatten() {
        rows.push(vec![name.clone(), url.as_str().unwrap_or_default().to_owned()]);
    }
    output::data(&format!("ready\n{}", output::align(&rows).trim_end()));
    let url = if text("/url") == "http://127.0.0.1:8733" { String::new() } else { format!(" --url {}", text("/url")) };
    output::data(&format!("try it: hopyard{url} run -f examples/hello.yaml --follow"));
}

/// Keeps a second stack out of the same data directory.
pub(crate) fn lock(data: &std::path::Path) -> Result<Flock<std::fs::File>> {
    let path = data.join("lock");
    let file = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| anyhow::anyhow!("another stack uses {}: {e}", data.display()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: DevArgs,
    }

    #[test]
    fn free_ports_come_with_a_free_api_port() {
        let ports = |line: &[&str]| {
            let args = Line::parse_from(line).args;
            [0, 1, 4].map(|offset| args.admin_addr(offset).port())
        };
        assert_eq!(ports(&["dev"]), [8740, 8741, 8744]);
        assert_eq!(ports(&["dev", "--http-addr", "127.0.0.1:0"]), [0, 0, 0]);
        assert_eq!(ports(&["dev", "--http-addr", "127.0.0.1:0", "--admin-port", "9000"]), [9000, 9001, 9004]);
    }

    #[test]
    fn a_data_directory_has_one_stack() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        assert!(lock(dir.path()).unwrap_err().to_string().contains("another stack uses"));
        drop(held);
        assert!(lock(dir.path()).is_ok());
    }
}
