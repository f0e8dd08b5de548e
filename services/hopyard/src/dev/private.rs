//! A stack of one's own for the length of a command: `hopyard dev` as a child process, on free ports.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hopyard_runtime::tasks::Tasks;
use nix::sys::signal::Signal;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

use crate::client::output;
use crate::servers::{Launch, Spawner, Streams, end};

/// Longer than a service may take to drain.
const STOP_WITHIN: Duration = Duration::from_secs(180);

/// What the stack says when it is ready.
#[derive(Clone, Debug, Deserialize)]
pub struct Announcement {
    /// API.
    pub url: String,
    /// Bus.
    pub nats_url: String,
}

/// A running stack; dropping it kills it.
#[derive(Debug)]
pub struct PrivateStack {
    child: Child,
    tasks: Tasks,
    /// Where it is.
    pub at: Announcement,
}

impl PrivateStack {
    /// Starts the stack in a data directory, with further arguments of `hopyard dev` and further settings, and returns when it
    /// is ready.
    ///
    /// # Errors
    /// When it does not start; why stands on standard error by then.
    pub async fn start(data: &Path, further: &[String], settings: &[(&str, String)]) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this executable")?;
        let args = ["dev", "--json", "--http-addr", "127.0.0.1:0", "--nats-addr", "127.0.0.1:0", "--data-dir"];
        let mut launch = Launch::new(program).args(args).args([data]).args(further).streams(Streams::Piped);
        // Killed outright, it could not end its services in order.
        launch.on_parent_death = Signal::SIGTERM;
        for (name, value) in settings {
            launch = launch.env(*name, value);
        }
        let mut child = Spawner::global().spawn(&launch).await?;
        let tasks = Tasks::default();
        let errors = child.stderr.take().context("the stack has no standard error")?;
        tasks.spawn_part("stack-errors", async move {
            let mut lines = BufReader::new(errors).lines();
            while let Some(line) = lines.next_line().await? {
                output::progress(&line);
            }
            Ok(())
        });
        let out = child.stdout.take().context("the stack has no standard output")?;
        let mut lines = BufReader::new(out).lines();
        let Some(line) = lines.next_line().await? else {
            let status = child.wait().await?;
            // Its last words may still be on their way.
            let _ = tokio::time::timeout(Duration::from_secs(2), tasks.finished()).await;
            bail!("the stack did not start ({})", super::child::ended(status));
        };
        let at = serde_json::from_str(&line).with_context(|| format!("the stack said `{line}`"))?;
        Ok(Self { child, tasks, at })
    }

    /// The process that its services are children of; 0 when it has ended.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Drains the stack and returns when nothing of it is left.
    ///
    /// # Errors
    /// When it did not end well.
    pub async fn stop(mut self) -> Result<()> {
        let status = end(&mut self.child, Signal::SIGTERM, STOP_WITHIN).await.context("cannot stop the stack")?;
        self.tasks.finished().await;
        if !status.success() {
            bail!("the stack {}", super::child::ended(status));
        }
        Ok(())
    }
}
