//! Supervised tasks: one that panics or fails is logged, counted and ends the process, so that nothing dies unseen.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::instruments::task_failures;

/// The tasks of a process and its two stages of stopping.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    drain: CancellationToken,
    stop: CancellationToken,
    failed: CancellationToken,
}

impl Tasks {
    /// Spawns a task that the process cannot do without: when it panics or returns an error, the process stops.
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let failed = self.failed.clone();
        self.watched(name, task, move || failed.cancel())
    }

    /// Spawns a piece of work whose failure concerns only itself; it is still logged and counted.
    pub fn spawn_part<F>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.watched(name, task, || ())
    }

    #[expect(clippy::disallowed_methods, reason = "this is the place where tasks are spawned")]
    fn watched<F>(&self, name: &'static str, task: F, on_failure: impl FnOnce() + Send + 'static) -> JoinHandle<()>
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let watched = async move {
            let error = match AssertUnwindSafe(task).catch_unwind().await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => format!("{error:#}"),
                Err(panic) => panic_text(panic.as_ref()),
            };
            task_failures().with_label_values(&[name]).inc();
            tracing::error!(task = name, error, "a task failed");
            on_failure();
        };
        tokio::spawn(self.tracker.track_future(watched))
    }

    /// The same tasks for a part of the process that drains later than the rest: when `drain` is cancelled.
    #[must_use]
    pub fn draining_at(&self, drain: CancellationToken) -> Self {
        Self { drain, ..self.clone() }
    }

    /// Cancelled when the process shall finish what it has and take nothing new.
    pub fn draining(&self) -> &CancellationToken {
        &self.drain
    }

    /// Cancelled when the process shall end now.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// Cancelled when a task failed that the process cannot do without.
    pub fn failed(&self) -> &CancellationToken {
        &self.failed
    }

    /// Waits until every task has ended.
    pub async fn finished(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.unwrap_or_else(|| "without a text".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_seen() {
        let tasks = Tasks::default();
        tasks.spawn("test-panics", async { panic!("on purpose") });
        tasks.failed().cancelled().await;
        assert_eq!(task_failures().with_label_values(&["test-panics"]).get(), 1);
        tasks.finished().await;
    }
}
