//! What the machine can do at best: the limits that figures are told against.

use std::collections::VecDeque;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use hopyard_contract::{Name, RunId, subject};
use hopyard_runtime::{Bus, Config, bus};

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

/// Messages of 300 bytes that the bus stores in a second, 256 under way.
pub(super) async fn stored_per_s(nats_url: &str) -> Result<f64> {
    let config = Config::load(&[("NATS_URL", Some(nats_url.to_owned()))])?;
    let bus = Bus::connect(&config, "bench", bus::START).await?;
    // The stream of logs drops its oldest by itself, and nothing reads this one.
    let subject = subject::log(&Name::literal("bench"), RunId::mint());
    let body = Bytes::from(vec![b'x'; 300]);
    let (start, mut count, mut under_way) = (Instant::now(), 0u64, VecDeque::new());
    while start.elapsed() < FOR {
        under_way.push_back(bus.publish(&subject, None, None, body.clone()).await);
        if under_way.len() > 256
            && let Some(oldest) = under_way.pop_front()
        {
            oldest.stored().await?;
            count += 1;
        }
    }
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
