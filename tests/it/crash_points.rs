//! Crash points: under load, every service dies at every named point, comes back, and nothing is lost or doubled.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use hopyard_runtime::failpoint::POINTS;
use tokio_util::sync::CancellationToken;

use crate::chaos::clients::World;
use crate::chaos::journal::Journal;
use crate::chaos::tally::tally;
use crate::chaos::workload::Places;
use crate::harness::wait::{holds, within};
use crate::harness::{Engine, Harness, Setup};

/// Longest time until every point was reached.
const ALL_REACHED: Duration = Duration::from_secs(100);
/// How long a service stays away: an executor for longer than a lease, so that others have to notice, and the scheduler for long
/// enough that somebody submits meanwhile.
const AWAY: [(&str, Duration); 2] = [("executor-2", Duration::from_secs(5)), ("scheduler-1", Duration::from_millis(700))];

/// Time between kills beside the points; an executor that comes back gets to work in between.
const BETWEEN_KILLS: Duration = Duration::from_secs(9);

/// The service in whose processes a point lies.
fn service_of(point: &str) -> &str {
    match point.split('.').next().unwrap_or_default() {
        "outbox" => "scheduler",
        "shim" => "executor",
        service => service,
    }
}

/// The pass at which a point acts: the first where a process comes by once, later where it does all the time.
fn pass_of(point: &str) -> u32 {
    let often = ["scheduler.batch", "scheduler.transaction", "scheduler.runs", "scheduler.inputs", "scheduler.commit", "scheduler.reply"];
    if often.iter().any(|name| point.starts_with(name)) {
        7
    } else if point.starts_with("ingest.accept") {
        3
    } else {
        1
    }
}

fn armed(service: &str) -> String {
    let own = POINTS.iter().filter(|point| service_of(point) == service);
    own.map(|point| format!("{point}=crash:{}", pass_of(point))).collect::<Vec<_>>().join(",")
}

/// Processes that died and when they may come back; what dies of anything but its point is a failure.
async fn revive(harness: &mut Harness, away: &mut BTreeMap<String, Instant>) {
    for (name, status) in harness.gone() {
        assert_eq!(status.signal(), Some(9), "{name} ended by itself: {status}\n{}", harness.service(&name).told());
        let pause = AWAY.iter().find(|(slow, _)| *slow == name).map_or(Duration::ZERO, |(_, pause)| *pause);
        away.insert(name, Instant::now() + pause);
    }
    let back: Vec<String> = away.iter().filter(|(_, at)| **at <= Instant::now()).map(|(name, _)| name.clone()).collect();
    for name in back {
        away.remove(&name);
        harness.service(&name).launch().await;
    }
}

/// Some points lie on the way around a scheduler that is away, or an executor that came back without its spool.
async fn kill_another(harness: &mut Harness, away: &mut BTreeMap<String, Instant>) {
    for (name, pause) in AWAY {
        if away.contains_key(name) {
            continue;
        }
        harness.kill9(name).await;
        away.insert(name.to_owned(), Instant::now() + pause.max(Duration::from_secs(3)));
        if name.starts_with("executor") {
            // Nothing may be there yet.
            std::fs::remove_dir_all(harness.dir().join("data/host-2/spool")).unwrap_or_default();
        }
    }
}

/// Lets every point of every service act once under load, then heals everything and compares.
async fn every_point(store: Engine) {
    let setup = Setup { store, executors: 2, hosts: 2, slots: 6, metrics: true, ..Setup::default() };
    let mut harness = Harness::start(setup).await;
    let repo = harness.repo(&[&[("README", "a repository\n")]]);
    let dir = harness.dir().to_owned();
    let (fired, locks) = (dir.join("fired"), dir.join("locks"));
    for place in [&fired, &locks] {
        std::fs::create_dir(place).unwrap();
    }
    harness.keep_addresses();
    let api = harness.api();
    for service in ["scheduler", "ingest", "executor", "janitor", "metrics"] {
        harness.set(service, "HOPYARD_FAILPOINTS", &armed(service));
        harness.set(service, "HOPYARD_FAILPOINTS_ONCE", &fired.display().to_string());
    }
    harness.restart_all().await;
    let world = World {
        doors: vec![api],
        turns: Default::default(),
        bus: harness.nats.addr(),
        places: Places { dir, repo },
        journal: Journal::begin(),
        stop: CancellationToken::new(),
        crowded: Default::default(),
        seed: 1,
        clients: Default::default(),
    };
    let keeper = async {
        let mut away = BTreeMap::new();
        let mut last_kill = Instant::now();
        let (began, mut quiet_since) = (Instant::now(), None);
        loop {
            revive(&mut harness, &mut away).await;
            let missing = missing(&fired);
            if !missing.is_empty() && last_kill.elapsed() > BETWEEN_KILLS {
                last_kill = Instant::now();
                kill_another(&mut harness, &mut away).await;
            }
            if missing.is_empty() {
                if quiet_since.is_none() {
                    println!("every point was reached within {:?}", began.elapsed());
                }
                world.stop.cancel();
                quiet_since.get_or_insert_with(Instant::now);
            }
            // The clients finish what they have begun, so the services are kept alive until then.
            if quiet_since.is_some() && away.is_empty() && world.is_over() {
                return;
            }
            assert!(
                began.elapsed() < ALL_REACHED || quiet_since.is_some(),
                "{} of {} points were never reached: {missing:?}",
                missing.len(),
                POINTS.len()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    futures::future::join(keeper, world.clients(1)).await;
    harness.all_ready().await;
    within(Duration::from_secs(90), "everything ends", || async {
        let live = world.live().await;
        holds(live == Some(0), format!("{live:?} runs are under way"))
    })
    .await;
    let tally = tally(&world, &[]).await;
    println!("{} points, {} accepted submissions, {} runs", POINTS.len(), tally.accepted, tally.runs);
    assert_eq!(tally.complaints(), "", "{} runs", tally.runs);
    assert!(tally.accepted >= POINTS.len() && tally.followed > 0, "{tally:?}");
    harness.close_after_faults().await;
}

/// Points that no process has reached yet.
fn missing(fired: &Path) -> BTreeSet<&'static str> {
    POINTS.iter().copied().filter(|point| !fired.join(point).exists()).collect()
}

/// Covers A6, I1, I2: the embedded store.
#[tokio::test]
async fn every_service_may_die_at_every_point() {
    every_point(Engine::Sqlite).await;
}

/// Covers A6, I1, I2: PostgreSQL.
#[tokio::test]
async fn every_service_may_die_at_every_point_on_postgres() {
    every_point(Engine::Postgres).await;
}
