//! Followers of event streams: whatever breaks, they resume after the last id they saw, and nothing may be missing or come twice.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::clients::World;
use crate::harness::api::is_final;
use crate::harness::dice::Dice;
use crate::harness::http::Frames;

/// Longest silence of an open stream; a comment comes every 15 s.
const SILENCE: Duration = Duration::from_secs(20);
/// Longest that one run is followed.
const LONGEST: Duration = Duration::from_secs(120);

/// Follows one run after the other until it is time to stop.
pub async fn follow_for_ever(world: &World, lane: u64) {
    let mut dice = Dice::new(world.seed, lane);
    while world.pause(dice.span(100, 600)).await {
        if let Some(run) = world.known_run(&mut dice) {
            follow(world, &run).await;
        }
    }
}

/// Follows a run to its end.
async fn follow(world: &World, run: &str) {
    let path = format!("/api/v1/runs/{run}/events");
    let (mut last, limit) = (0u64, Instant::now() + LONGEST);
    while Instant::now() < limit {
        let after = last.to_string();
        let resume = (last > 0).then_some(after.as_str());
        let open = tokio::time::timeout(SILENCE, Frames::connect(world.door(), &path, resume)).await;
        let Ok(Ok(mut frames)) = open else {
            // The run may only be on the bus yet, or the door is away.
            tokio::time::sleep(Duration::from_millis(200)).await;
            if world.stop.is_cancelled() && last == 0 {
                return;
            }
            continue;
        };
        while let Ok(Some(frame)) = tokio::time::timeout(SILENCE, frames.next()).await {
            if frame.event == "end" {
                world.journal.seen().followed += 1;
                return;
            }
            let number: u64 = frame.id.as_deref().and_then(|id| id.parse().ok()).unwrap_or(0);
            if number != last + 1 || frame.data["seq"] != number {
                world.journal.violation(format!("gap: the stream of {run} went from {last} to {number}"));
                return;
            }
            last = number;
        }
    }
    // Through enough trouble a run takes longer than that; one that has ended has a stream that ends.
    let state = world.http("GET", &format!("/api/v1/runs/{run}"), &[], &Value::Null).await.map(|answer| answer.json());
    if state.is_some_and(|state| is_final(&state)) {
        world.journal.violation(format!("stream: {run} has ended and could not be followed to its end, last event {last}"));
    }
}
