//! What the machine can do at best: the limits that figures are told against.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// How long a limit is measured.
const FOR: Duration = Duration::from_secs(1);
/// A program that does nothing.
const NOTHING: &str = "/bin/true";

/// Processes that this many threads start and wait for in a second.
pub(super) fn spawns_per_s(threads: usize) -> Result<f64> {
    let start = Instant::now();
    let counts: Vec<Result<u64>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| spawn_until(start + FOR))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))).collect()
    });
    let count: u64 = counts.into_iter().sum::<Result<u64>>()?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

fn spawn_until(end: Instant) -> Result<u64> {
    let mut count = 0;
    while Instant::now() < end {
        #[expect(clippy::disallowed_methods, reason = "what is measured is the bare start of a process")]
        let status = std::process::Command::new(NOTHING).stdin(Stdio::null()).stdout(Stdio::null()).status().context(NOTHING)?;
        ensure!(status.success(), "{NOTHING} ended {status}");
        count += 1;
    }
    Ok(count)
}
