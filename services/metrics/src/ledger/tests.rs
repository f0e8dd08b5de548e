//! Repeats, reorders, restarts: the numbers stay those of the events.

use serde_json::json;

use super::*;
use hopyard_contract::{Name, RunId};

fn instant(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_750_000_000 + seconds, 0).unwrap()
}

fn event(run: RunId, seq: u64, kind: EventType, at: DateTime<Utc>, data: Value) -> Event {
    let Value::Object(data) = data else { panic!("facts are an object") };
    Event {
        v: 1,
        id: format!("{run}:{seq}"),
        run_id: run,
        namespace: Name::default_namespace(),
        seq,
        kind,
        at,
        step: None,
        attempt: None,
        data,
    }
}

/// A run of nine events that begins at an instant and costs a quarter of a dollar.
fn run_of(at: i64) -> Vec<Event> {
    let run = RunId::of_bus_message(instant(at).timestamp_nanos_opt().unwrap(), 1, 0);
    let usage = json!({"cost_microusd": 250_000, "tokens": {"input": 100, "output": 20}, "turns": 1, "tool_calls": 0});
    let facts = [
        (EventType::RunAccepted, json!({"workflow": "fix"})),
        (EventType::StepClaimable, json!({})),
        (EventType::AttemptLeased, json!({})),
        (EventType::AttemptRunning, json!({})),
        (EventType::RunRunning, json!({})),
        (EventType::AttemptCompleted, json!({"duration_ms": 1500})),
        (EventType::StepCompleted, json!({})),
        (EventType::RunCompleted, json!({"workflow": "fix", "duration_ms": 2000, "usage": usage})),
        (EventType::WorkspaceRemoved, json!({})),
    ];
    facts
        .into_iter()
        .zip(1..)
        .map(|((kind, data), seq)| event(run, seq, kind, instant(at) + chrono::TimeDelta::milliseconds(seq as i64 * 100), data))
        .collect()
}

fn ledger() -> Ledger {
    Ledger::restore(Arc::default(), Saved::default())
}

/// Through the written form, as a restart does it.
fn restarted(ledger: &Ledger) -> Ledger {
    let text = serde_json::to_string(&ledger.save()).unwrap();
    Ledger::restore(Arc::default(), serde_json::from_str(&text).unwrap())
}

fn count(ledger: &mut Ledger, events: &[Event]) -> usize {
    events.iter().filter(|event| ledger.count(event)).count()
}

fn finished_runs(ledger: &Ledger) -> u64 {
    ledger.shown().series().value(&RUNS_FINISHED, &["completed", "fix", ""])
}

#[test]
fn repeats_and_any_order_change_no_number() {
    let mut straight = ledger();
    let runs: Vec<Vec<Event>> = (0..20).map(|n| run_of(n * 3)).collect();
    for run in &runs {
        assert_eq!(count(&mut straight, run), 9);
    }
    let mut shuffled = ledger();
    let mut all: Vec<Event> = runs.concat();
    all.extend(all.clone());
    // Stepping by a number without a common factor visits everything in another order.
    for n in 0..all.len() {
        shuffled.count(&all[n * 7 % all.len()]);
    }
    assert_eq!(*straight.shown().series(), *shuffled.shown().series());
    let series = straight.shown().series();
    assert_eq!(series.value(&RUNS_ACCEPTED, &["fix"]), 20);
    assert_eq!(series.value(&COST, &["fix"]), 5_000_000);
    assert_eq!(series.value(&TOKENS, &["input", "fix"]), 2_000);
    assert_eq!(series.value(&ATTEMPTS_FINISHED, &["completed", ""]), 20);
}

#[test]
fn a_restart_counts_what_is_new_and_nothing_twice() {
    let (first, second) = (run_of(0), run_of(10));
    let mut before = ledger();
    count(&mut before, &first);
    count(&mut before, &second[..4]);
    let mut after = restarted(&before);
    // The messages that were not acknowledged come again, and the database is read besides.
    assert_eq!(count(&mut after, &second[2..]), 5);
    assert_eq!(count(&mut after, &[first, second].concat()), 0);
    assert_eq!(finished_runs(&after), 2);
    // A kill before the checkpoint loses only what was counted since: it is counted again, not twice.
    let mut lost = restarted(&before);
    assert_eq!(count(&mut lost, &run_of(20)), 9);
    let mut again = restarted(&before);
    assert_eq!(count(&mut again, &run_of(20)), 9);
    assert_eq!(finished_runs(&again), 2);
}

#[test]
fn runs_below_the_floor_are_forgotten_and_never_counted_again() {
    let mut ledger = ledger();
    assert_eq!(ledger.floor(), DateTime::UNIX_EPOCH);
    for n in 0..100 {
        count(&mut ledger, &run_of(n * 10));
    }
    assert_eq!(ledger.remembered(), 100);
    ledger.read_up_to(instant(1000));
    assert_eq!(ledger.floor(), instant(880));
    assert!(ledger.remembered() <= 13, "{}", ledger.remembered());
    let mut ledger = restarted(&ledger);
    for n in 0..100 {
        assert_eq!(count(&mut ledger, &run_of(n * 10)), 0, "run {n}");
    }
    assert_eq!(finished_runs(&ledger), 100);
    // The floor never goes back.
    ledger.read_up_to(instant(10));
    assert_eq!(ledger.floor(), instant(880));
}

#[test]
fn a_run_that_goes_on_after_being_forgotten_is_counted_on() {
    let mut ledger = ledger();
    let run = run_of(0);
    count(&mut ledger, &run[..5]);
    ledger.read_up_to(instant(5000));
    assert_eq!(ledger.remembered(), 0);
    let late: Vec<Event> = run[5..].iter().map(|e| Event { at: instant(6000), ..e.clone() }).collect();
    assert_eq!(count(&mut ledger, &late), 4);
    assert_eq!(count(&mut ledger, &late), 0);
    assert_eq!(finished_runs(&ledger), 1);
}

#[test]
fn gaps_and_new_streams_are_told_from_repeats() {
    let mut ledger = ledger();
    assert_eq!(ledger.place(40, true), Place::Expected);
    assert_eq!(ledger.place(41, true), Place::Expected);
    assert_eq!(ledger.place(41, false), Place::Expected);
    assert_eq!(ledger.place(45, true), Place::Gap);
    assert_eq!(ledger.place(42, false), Place::Expected);
    let mut ledger = restarted(&ledger);
    assert_eq!(ledger.place(46, true), Place::Expected);
    assert_eq!(ledger.place(1, true), Place::Restarted);
    assert_eq!(ledger.place(2, true), Place::Expected);
}

#[test]
fn an_unknown_cost_is_no_zero() {
    let mut ledger = ledger();
    let run = RunId::of_bus_message(0, 1, 0);
    let usage = json!({"cost_microusd": null, "tokens": {}, "turns": 0, "tool_calls": 0});
    ledger.count(&event(run, 1, EventType::RunFailed, instant(1), json!({"workflow": "fix", "failure_code": "exit_code", "usage": usage})));
    let series = ledger.shown().series();
    assert_eq!(series.value(&RUNS_FINISHED, &["failed", "fix", "exit_code"]), 1);
    assert_eq!(series.value(&COST_UNKNOWN, &["fix"]), 1);
    assert!(!series.rows().iter().any(|row| serde_json::to_string(row).unwrap().contains(COST.name)));
}
