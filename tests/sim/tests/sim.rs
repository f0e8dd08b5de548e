//! Lives through worlds: those in which something was found before, one per planted bug, and fresh ones for some seconds.
//!
//! `cargo test -p hopyard-sim --test sim -- [--seconds=N] [--seed=N [--count=N]] [--bug=Name]`. With a seed, that
//! world alone is lived through (or so many from it on), and the end of its history is printed if something must not be.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hopyard_sim::bugs::Bug;
use hopyard_sim::{Outcome, live};

/// Worlds that are lived through for one bug before it counts as not caught.
const PATIENCE: u64 = 4000;
/// Worlds that are lived through twice.
const REPLAYED: u64 = 50;
/// Fresh worlds begin here when no seed is asked for.
const FIRST: u64 = 1_000_000;

struct Options {
    seconds: u64,
    seed: Option<u64>,
    count: u64,
    bug: Option<Bug>,
    lines: usize,
}

fn main() -> ExitCode {
    let mut options = Options { seconds: 10, seed: None, count: 0, bug: None, lines: 120 };
    for argument in std::env::args().skip(1) {
        let (name, value) = argument.split_once('=').unwrap_or((&argument, ""));
        match name {
            "--seconds" => options.seconds = value.parse().unwrap_or(options.seconds),
            "--seed" => options.seed = value.parse().ok(),
            "--count" => options.count = value.parse().unwrap_or(0),
            "--lines" => options.lines = value.parse().unwrap_or(options.lines),
            "--bug" => options.bug = Bug::ALL.iter().copied().find(|bug| format!("{bug:?}") == value),
            // Everything else is for the tests beside this one; a filter that does not name it leaves it out.
            _ if name.starts_with('-') || "sim".contains(name) => {}
            _ => return ExitCode::SUCCESS,
        }
    }
    let fine = match options.seed {
        Some(seed) if options.count == 0 => one(seed, &options),
        Some(_) => fresh(&options),
        _ => kept() & replayed() & planted(&options) & fresh(&options),
    };
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One world, with its history.
fn one(seed: u64, options: &Options) -> bool {
    let outcome = live(seed, options.bug, true);
    println!("seed {seed}: {}", outcome.weather);
    if !outcome.violations.is_empty() {
        let from = outcome.trace.len().saturating_sub(options.lines);
        outcome.trace[from..].iter().for_each(|line| println!("{line}"));
    }
    println!("{} runs, {} faults, {} s, hash {:016x}", outcome.runs, faults(&outcome), outcome.lasted / 1_000_000, outcome.hash);
    outcome.violations.iter().for_each(|v| println!("{:.6} {}: {}", v.at as f64 / 1e6, v.invariant, v.detail));
    outcome.violations.is_empty()
}

fn faults(outcome: &Outcome) -> u64 {
    outcome.faults.values().sum()
}

/// Says what is wrong with a world, and how to see it again.
fn report(seed: u64, bug: Option<Bug>, outcome: &Outcome) {
    let again = bug.map(|bug| format!(" --bug={bug:?}")).unwrap_or_default();
    println!("seed {seed} fails; see it again with: cargo test -p hopyard-sim --locked --test sim -- --seed={seed}{again}");
    outcome.violations.iter().take(4).for_each(|v| println!("    {:.6} {}: {}", v.at as f64 / 1e6, v.invariant, v.detail));
}

/// Seeds in which something was found once.
fn kept_seeds() -> impl Iterator<Item = u64> {
    include_str!("../seeds").lines().filter_map(|line| line.split_whitespace().next()?.parse().ok())
}

/// Worlds in which something was found once have nothing to object to any more.
fn kept() -> bool {
    let mut bad = 0;
    for seed in kept_seeds() {
        let outcome = live(seed, None, false);
        if !outcome.violations.is_empty() {
            report(seed, None, &outcome);
            bad += 1;
        }
    }
    println!("kept: {} seeds, {bad} with violations", kept_seeds().count());
    bad == 0
}

/// The same seed is the same history.
fn replayed() -> bool {
    let differs: Vec<u64> = (0..REPLAYED).filter(|seed| live(*seed, None, false).hash != live(*seed, None, true).hash).collect();
    println!("replayed: {REPLAYED} seeds twice, {} differ {differs:?}", differs.len());
    differs.is_empty()
}

/// Every planted bug is caught: in one of the first worlds, or in one in which something was found before.
fn planted(options: &Options) -> bool {
    let bugs: Vec<Bug> = Bug::ALL.iter().copied().filter(|bug| options.bug.is_none_or(|only| only == *bug)).collect();
    let caught: Mutex<BTreeMap<Bug, (u64, String)>> = Mutex::default();
    let next = AtomicU64::new(0);
    in_two_threads(|| {
        while let Some(bug) = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).ok().and_then(|index| bugs.get(index)) {
            let found = kept_seeds()
                .chain(0..PATIENCE)
                .find_map(|seed| Some((seed, live(seed, Some(*bug), false).violations.first()?.invariant.to_owned())));
            if found.is_none() {
                println!("{bug:?} survives {PATIENCE} seeds");
            }
            if let (Some(found), Ok(mut caught)) = (found, caught.lock()) {
                caught.insert(*bug, found);
            }
        }
    });
    let caught = caught.into_inner().unwrap_or_default();
    println!("{:<26} {:>5}  caught by", "planted bug", "seed");
    for bug in &bugs {
        match caught.get(bug) {
            Some((seed, invariant)) => println!("{:<26} {seed:>5}  {invariant}", format!("{bug:?}")),
            None => println!("{:<26}     -  SURVIVES {PATIENCE} seeds: {}", format!("{bug:?}"), bug.text()),
        }
    }
    println!("planted: {}/{} caught", caught.len(), bugs.len());
    caught.len() == bugs.len()
}

/// Worlds, runs, seconds lived, worlds with violations, and faults by kind.
type Totals = (u64, u64, u64, u64, BTreeMap<&'static str, u64>);

/// Fresh worlds, as many as there is time for.
fn fresh(options: &Options) -> bool {
    let first = options.seed.unwrap_or(FIRST);
    let (next, end) = (AtomicU64::new(first), Instant::now() + Duration::from_secs(options.seconds));
    let began = Instant::now();
    let totals: Mutex<Totals> = Mutex::default();
    in_two_threads(|| {
        while Instant::now() < end || options.count > 0 {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if options.count > 0 && seed >= first + options.count {
                return;
            }
            let outcome = live(seed, options.bug, false);
            let Ok(mut totals) = totals.lock() else { return };
            totals.0 += 1;
            totals.1 += outcome.runs;
            totals.2 += u64::try_from(outcome.lasted / 1_000_000).unwrap_or(0);
            for (name, count) in &outcome.faults {
                *totals.4.entry(name).or_default() += count;
            }
            if !outcome.violations.is_empty() {
                totals.3 += 1;
                if totals.3 <= 10 {
                    report(seed, options.bug, &outcome);
                }
            }
        }
    });
    let (seeds, runs, lived, bad, by_name) = totals.into_inner().unwrap_or_default();
    for (name, count) in &by_name {
        println!("{name:<26} {count:>10}");
    }
    println!(
        "fresh: {seeds} seeds from {first}, {runs} runs, {} faults, {lived} s lived in {:.1} s, {bad} with violations",
        by_name.values().sum::<u64>(),
        began.elapsed().as_secs_f64(),
    );
    bad == 0
}

fn in_two_threads(work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        scope.spawn(&work);
        scope.spawn(&work);
    });
}
