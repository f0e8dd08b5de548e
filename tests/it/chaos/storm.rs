//! Chaos: clients of all doors go on while services, servers, connections and disks fail by chance; then everything is healed
//! and compared with what was promised.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hopyard::servers::process_env;
use tokio_util::sync::CancellationToken;

use super::clients::World;
use super::faults::{Faults, copy_tree};
use super::journal::{Cancel, Journal};
use super::measure::{Loss, Span, Times, first_work, gross_and_net, reclaims, that_lost_an_executor};
use super::tally::{Tally, tally};
use super::workload::Places;
use crate::harness::bus::Bus;
use crate::harness::wait::within;
use crate::harness::{Engine, Harness, Setup};

/// Longest time until all is quiet after everything was healed.
const QUIET: Duration = Duration::from_secs(180);

/// A number that `make chaos` hands over.
fn number(name: &str) -> Option<u64> {
    process_env(name)?.parse().ok()
}

/// Covers A10, B13, I1 to I9: a storm run by hand; `make chaos` makes it as long as wanted, on either engine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_promised_is_lost_in_a_storm() {
    let engine = if process_env("HOPYARD_CHAOS_STORE").as_deref() == Some("postgres") { Engine::Postgres } else { Engine::Sqlite };
    let seconds = number("HOPYARD_CHAOS_SECONDS").unwrap_or(15);
    storm(engine, number("HOPYARD_CHAOS_SEED").unwrap_or(7), Duration::from_secs(seconds)).await;
}

async fn storm(store: Engine, seed: u64, length: Duration) {
    let volumes = process_env("HOPYARD_CHAOS_VOLUMES").is_some();
    // An embedded store has one scheduler.
    let schedulers = if store == Engine::Postgres { 2 } else { 1 };
    let setup = Setup {
        store,
        schedulers,
        executors: 3,
        hosts: 2,
        doors: 2,
        slots: 16,
        metrics: true,
        links: true,
        volumes,
        clocks: true,
        ..Setup::default()
    };
    let mut harness = Harness::start(setup).await;
    let repo = harness.repo(&[&[("README", "a repository\n")]]);
    let dir = harness.dir().to_owned();
    std::fs::create_dir(dir.join("locks")).unwrap();
    harness.keep_addresses();
    let world = World {
        doors: harness.doors(),
        turns: Default::default(),
        bus: harness.nats.addr(),
        places: Places { dir: dir.clone(), repo },
        journal: Journal::begin(),
        stop: CancellationToken::new(),
        crowded: Default::default(),
        seed,
        clients: Default::default(),
    };
    let mut faults = Faults::new(seed, harness.volumes.iter().map(|v| v.path().to_owned()).collect());
    faults.calm = process_env("HOPYARD_CHAOS_CALM").map_or(1, |text| text.parse().unwrap());
    faults.only = process_env("HOPYARD_CHAOS_FAULTS").map(|text| text.split(',').map(str::to_owned).collect());
    faults.other = process_env("HOPYARD_CHAOS_OTHER").map(Into::into);
    faults.mix_versions(&mut harness).await;
    let weather = async {
        let began = Instant::now();
        let mut next = began + Duration::from_secs(2);
        let mut probes = FuturesUnordered::new();
        let mut first = Vec::new();
        while began.elapsed() < length {
            faults.heal(&mut harness, false).await;
            if Instant::now() >= next {
                faults.make(&mut harness, &world).await;
                next = Instant::now() + faults.pause();
            }
            for (loss, since) in faults.measured.drain(..) {
                let op = format!("probe-{}", world.journal.now().as_micros());
                let world = &world;
                probes.push(async move {
                    let until = first_work(world, op, loss).await;
                    world.journal.note("measured", loss.text(), serde_json::json!({ "ms": (until - since).num_milliseconds() }));
                    (loss, (since, until))
                });
            }
            tokio::select! {
                Some(done) = probes.next(), if !probes.is_empty() => first.push(done),
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
        world.stop.cancel();
        // What was told to drain just before has to end first, and is started again then.
        while !world.is_over() || !probes.is_empty() || !faults.are_healed() {
            faults.heal(&mut harness, true).await;
            tokio::select! {
                Some(done) = probes.next(), if !probes.is_empty() => first.push(done),
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
        first
    };
    let (first, ()) = futures::future::join(weather, world.clients(4)).await;
    harness.all_ready().await;
    let healed = Instant::now();
    within(QUIET, "everything ends", || async {
        // A command whose acknowledgement or delivery was lost comes again only after a while, and may be a run then.
        let mut bus = Bus::connect(world.bus).await;
        let waiting = bus.unsettled("HOPYARD_CMD", "ingest").await;
        let live = world.live().await;
        if (&waiting, live) == (&Ok(0), Some(0)) {
            return Ok(());
        }
        Err(format!("{waiting:?} commands wait, {live:?} runs are under way: {}", bus.told("HOPYARD_CMD", "ingest").await))
    })
    .await;
    println!("quiet {:.1} s after everything was healed", healed.elapsed().as_secs_f64());
    let tally = tally(&world, &faults.bus_lost).await;
    let lines = table(&world, &faults, &tally, &first);
    println!("{lines}");
    if let Some(file) = process_env("HOPYARD_CHAOS_JOURNAL") {
        world.journal.save(Path::new(&file)).unwrap();
        copy_tree(&dir.join("logs"), &Path::new(&file).with_extension("logs"));
    }
    for text in &faults.ended {
        println!("ended by itself: {text}");
    }
    assert_eq!(tally.complaints(), "", "seed {seed}\n{lines}");
    assert!(faults.total() > 0 && tally.accepted > 0, "{lines}");
    harness.close_after_faults().await;
    println!("no process, workspace, message or row is left over, and the audit finds nothing");
}

/// What happened, for people.
fn table(world: &World, faults: &Faults, tally: &Tally, first: &[(Loss, Span)]) -> String {
    let mut lines = vec![format!("{:<42} {:>8}", "fault", "times")];
    lines.extend(faults.made.iter().map(|(name, times)| format!("{name:<42} {times:>8}")));
    lines.push(format!("{:<42} {:>8}", "all faults", faults.total()));
    for (what, count) in [
        ("accepted submissions", tally.accepted),
        ("runs", tally.runs),
        ("event streams followed to their end", tally.followed),
        ("lost with the bus, as their 202 said", tally.lost_with_bus),
        ("services that ended by themselves", faults.ended.len()),
        ("starts as this version, beside another", faults.started_as[0]),
        ("starts as the other version", faults.started_as[1]),
    ] {
        lines.push(format!("{what:<42} {count:>8}"));
    }
    for kind in ["lost", "doubled", "changed", "gaps", "usage", "cancels", "answers", "refused"] {
        lines.push(format!("{kind:<42} {:>8}", tally.wrong.get(kind).map_or(0, Vec::len)));
    }
    let seen = world.journal.seen();
    let gone = |counts: &dyn Fn(&Cancel) -> bool| {
        Times::of(seen.cancels.iter().filter(|cancel| cancel.committed && counts(cancel)).filter_map(|cancel| cancel.gone_after))
    };
    let bereft = that_lost_an_executor(&tally.details);
    let after = |wanted: Loss| -> Vec<Span> { first.iter().filter(|(loss, _)| *loss == wanted).map(|(_, span)| *span).collect() };
    let mut row = |what: &str, times: Times| lines.push(format!("{what:<48} {times}"));
    row("submit → answer", Times::of(seen.answers.iter().copied()));
    row("cancel → gone", gone(&|_| true));
    row("… of runs that lost no executor", gone(&|cancel| !bereft.contains(cancel.run.as_str())));
    // With a journal, these are the ones to look up.
    let slow = seen.cancels.iter().filter_map(|c| Some((c, c.gone_after.filter(|after| c.committed && after.as_secs() >= 30)?)));
    slow.for_each(|(cancel, after)| println!("gone {:.1} s after its cancel: {}", after.as_secs_f64(), cancel.run));
    // Begins and ends of attempts are told by the executors' clocks.
    let told_well = |(from, to): &Span| from <= to && !faults.shifted.iter().any(|(since, until)| from <= until && since <= to);
    let reclaimed = reclaims(&tally.details, &faults.executors_killed).into_iter().filter(told_well).collect();
    for (what, spans) in
        [("executor death → next attempt", reclaimed), (Loss::Bus.text(), after(Loss::Bus)), (Loss::Database.text(), after(Loss::Database))]
    {
        let [gross, net] = gross_and_net(&spans, &faults.away);
        row(what, gross);
        row("… without what takes everything away", net);
    }
    lines.join("\n")
}
