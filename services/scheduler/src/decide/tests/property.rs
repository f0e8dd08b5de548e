//! Any plan, any inputs in any order: the invariants hold after each, and every run can be brought to its end.

use std::collections::HashMap;

use chrono::TimeDelta;
use hopyard_contract::message::{Outcome, WorkspaceSaved};
use hopyard_contract::run::WorkspaceStatus;
use hopyard_contract::status::{FailureCode, PendingReason, RunStatus};
use hopyard_contract::usage::Usage;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use uuid::Uuid;

use super::world::*;
use crate::decide::{AnswerAsk, Input, KillAsk, Tick};

/// One thing that may happen; indices are taken modulo what there is.
#[derive(Clone, Debug)]
enum Act {
    Lease { step: Index, executor: bool },
    Started { held: Index },
    Finished { held: Index, outcome: Outcome, pid: bool, cost: u64, wrong_token: bool },
    Renew { held: Index, cost: Option<u64> },
    Pin { held: Index },
    Kill { force: bool },
    Answer { step: Index, approved: bool, text: bool, id: u128 },
    Resume,
    Wait { millis: i64 },
    Tick { may_expire: bool, unbind: bool, parent: Option<RunStatus> },
    Saved { held: Index },
    Removed,
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let codes = vec![FailureCode::ExitCode, FailureCode::Timeout, FailureCode::PolicyDenied, FailureCode::SetupError];
    prop_oneof![
        4 => Just(Outcome::Completed),
        4 => select(codes).prop_map(failed),
        2 => (0..100_000i64).prop_map(|seconds| limited(at(seconds))),
        1 => Just(Outcome::Asked { question: "which?".to_owned() }),
        1 => Just(Outcome::Killed),
        1 => Just(Outcome::HandedBack),
        1 => Just(Outcome::Lost),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let index = any::<Index>;
    let finished = (index(), outcome(), any::<bool>(), 0..50u64, prop::bool::weighted(0.1));
    let parent = prop::option::weighted(0.3, select(RunStatus::ALL));
    let tick = (any::<bool>(), prop::bool::weighted(0.3), parent);
    prop_oneof![
        8 => (index(), any::<bool>()).prop_map(|(step, executor)| Act::Lease { step, executor }),
        5 => index().prop_map(|held| Act::Started { held }),
        6 => finished.prop_map(|(held, outcome, pid, cost, wrong_token)| Act::Finished { held, outcome, pid, cost, wrong_token }),
        3 => (index(), prop::option::weighted(0.9, 0..50u64)).prop_map(|(held, cost)| Act::Renew { held, cost }),
        1 => index().prop_map(|held| Act::Pin { held }),
        1 => any::<bool>().prop_map(|force| Act::Kill { force }),
        4 => (index(), prop::bool::weighted(0.8), prop::bool::weighted(0.8), 0..50u128)
            .prop_map(|(step, approved, text, id)| Act::Answer { step, approved, text, id }),
        1 => Just(Act::Resume),
        // Also backwards: a clock that is set must not break anything.
        5 => prop_oneof![5 => 0..30_000i64, 1 => 30_000..600_000i64, 1 => -3000..0i64].prop_map(|millis| Act::Wait { millis }),
        5 => tick.prop_map(|(may_expire, unbind, parent)| Act::Tick { may_expire, unbind, parent }),
        1 => index().prop_map(|held| Act::Saved { held }),
        1 => Just(Act::Removed),
    ]
}

/// A step of a random plan; needs are a bit set over the steps before it.
fn step() -> impl Strategy<Value = (u8, Option<&'static str>, Option<(u32, bool)>)> {
    let conditions =
        vec!["completed()", "failed()", "always()", "failed() || completed()", "steps.s0.outputs.k == 'v'", "!failed()", "inputs.no"];
    (any::<u8>(), prop::option::of(select(conditions)), prop::option::of((1..4u32, any::<bool>())))
}

fn plan() -> impl Strategy<Value = Value> {
    let modes = vec!["temporary", "persistent", "none"];
    (prop::collection::vec(step(), 1..=6), select(modes), any::<bool>(), any::<bool>()).prop_map(|(steps, mode, timeout, keyed)| {
        let steps: Vec<Value> = steps
            .into_iter()
            .enumerate()
            .map(|(i, (needs, condition, retry))| {
                let needs: Vec<String> = (0..i).filter(|n| needs & (1 << n) != 0).map(|n| format!("s{n}")).collect();
                let mut step = json!({"id": format!("s{i}"), "needs": needs});
                if i == 3 {
                    step["approval"] = json!({"prompt": "go on?"});
                    step["timeout"] = json!("1m");
                }
                if i == 1 && mode == "temporary" {
                    let agent = json!({"cli": "fake", "prompt": "x"});
                    let variants = json!([{"name": "a", "agent": agent}, {"name": "b", "agent": agent}]);
                    step["best_of"] = json!({"variants": variants, "check": "true"});
                }
                if let Some(text) = condition {
                    step["if"] = json!(text);
                }
                if let Some((max_attempts, only_exit)) = retry {
                    step["retry"] = json!({"max_attempts": max_attempts});
                    if only_exit {
                        step["retry"]["on"] = json!(["exit_code"]);
                    }
                }
                step
            })
            .collect();
        let mut plan = json!({"steps": steps, "workspace": {"mode": mode}});
        if timeout {
            plan["timeout"] = json!("2m");
        }
        if keyed {
            plan["concurrency"] = json!({"key": "k"});
        }
        plan
    })
}

fn submission() -> impl Strategy<Value = (bool, Option<i64>, &'static str)> {
    (prop::bool::weighted(0.3), prop::option::weighted(0.3, -10..100i64), select(["skip", "fail", "run_anyway"].as_slice()))
}

fn born(plan: Value, (waits, start, policy): (bool, Option<i64>, &'static str)) -> World {
    let mut request = json!({"session": "s1", "repo": {"url": "https://host/r"}, "after_policy": policy});
    let mut parents = HashMap::new();
    if waits {
        request["after"] = json!([run_id(2)]);
        parents.insert(run_id(2), RunStatus::Running);
    }
    if let Some(seconds) = start {
        request["start_at"] = json!(at(seconds).to_rfc3339());
    }
    World::born(plan, Submission { request, parents, tombstone: None })
}

/// Carries out one act; leases that were granted, ever, are in `helds`.
fn carry_out(world: &mut World, helds: &mut Vec<Held>, act: &Act) {
    let pick = |index: &Index| (!helds.is_empty()).then(|| helds[index.index(helds.len())].clone());
    match act {
        Act::Lease { step, executor } => {
            let step = world.state.steps[step.index(world.state.steps.len())].id.clone();
            let held = world.try_lease(step.as_str(), if *executor { "e1" } else { "e2" });
            helds.extend(held);
        }
        Act::Started { held } => {
            let Some(held) = pick(held) else { return };
            world.started(&held);
        }
        Act::Finished { held, outcome, pid, cost: used, wrong_token } => {
            let Some(mut held) = pick(held) else { return };
            if *wrong_token {
                held.token = Uuid::nil();
            }
            let mut report = finished(&held, outcome.clone(), world.now);
            report.usage = cost(*used);
            report.outputs.insert("k".to_owned(), if used % 2 == 0 { "v" } else { "w" }.to_owned());
            report.result = Some(work("head"));
            if !pid && *outcome != Outcome::Completed {
                report.pid = None;
            }
            world.report(report);
        }
        Act::Renew { held, cost: used } => {
            let Some(held) = pick(held) else { return };
            let mut usage = cost(used.unwrap_or(7));
            usage.cost_microusd = *used;
            world.renew(&held, usage);
        }
        Act::Pin { held } => {
            let Some(held) = pick(held) else { return };
            world.pin(&held, "c0ffee");
        }
        Act::Kill { force } => {
            world.decide(&Input::Kill(KillAsk { by: "ada".to_owned(), reason: None, force: *force }));
        }
        Act::Answer { step, approved, text, id } => {
            let step = world.state.steps[step.index(world.state.steps.len())].id.clone();
            let text = text.then(|| "so".to_owned());
            let ask = AnswerAsk { step, id: Uuid::from_u128(*id), approved: *approved, text, by: "ada".to_owned() };
            world.decide(&Input::Answer(ask));
        }
        Act::Resume => {
            world.decide(&Input::Resume("ada".to_owned()));
        }
        Act::Wait { millis } => {
            world.later(TimeDelta::milliseconds(*millis));
        }
        Act::Tick { may_expire, unbind, parent } => {
            let parents = parent.iter().map(|status| (run_id(2), *status)).filter(|_| !world.state.run.after.is_empty()).collect();
            world.decide(&Input::Tick(Tick { parents, may_expire: *may_expire, unbind: unbind.then_some("the executor is silent") }));
        }
        Act::Saved { held } => {
            let Some(held) = pick(held) else { return };
            let saved = WorkspaceSaved {
                attempt: held.attempt,
                snapshot: Some("s".to_owned()),
                bundle: None,
                log: None,
                log_bytes: 3,
                usage: Usage::default(),
            };
            world.decide(&Input::Saved(saved));
        }
        Act::Removed => {
            let Some(mut row) = world.row.clone() else { return };
            row.status = WorkspaceStatus::Reclaimable;
            world.decide(&Input::Removed(row, "asked for".to_owned()));
        }
    }
}

/// Brings a run to its end as a scheduler and one healthy executor would, driven by the run's own timer and claimable steps
/// alone. `vanish` lets all executors from before stay silent. Panics when nothing would ever wake the run again.
fn bring_to_its_end(world: &mut World, helds: &[Held], vanish: bool) {
    world.now = world.latest;
    if !world.state.run.after_open.is_empty() {
        world.parent(run_id(2), RunStatus::Completed);
    }
    for _ in 0..200 {
        if world.status().is_final() {
            return;
        }
        let live = |held: &&Held| world.state.live().any(|a| a.token == held.token);
        let claimable = world.state.steps.iter().find(|s| {
            let open = s.pending_reason == Some(PendingReason::AwaitingExecutor);
            open && s.claimable_at.is_some_and(|at| at <= world.now) && (!vanish || s.bound_to.as_ref().is_none_or(|e| *e == name("e3")))
        });
        if world.state.timer.is_some_and(|timer| timer <= world.now) {
            let silent = vanish && world.state.run.executor.as_ref().is_some_and(|e| *e != name("e3"));
            world.decide(&Input::Tick(Tick { may_expire: true, unbind: silent.then_some("the executor is silent"), ..Tick::default() }));
        } else if let Some(held) = helds.iter().filter(|_| !vanish).find(live).cloned() {
            world.finish(&held, Outcome::Completed);
        } else if let Some(step) = claimable.cloned() {
            let executor = step.bound_to.unwrap_or(name("e3"));
            let held = world.try_lease(step.id.as_str(), executor.as_str()).expect("a claimable step is granted");
            world.started(&held).finish(&held, Outcome::Completed);
        } else if let Some(step) =
            world.state.steps.iter().find(|s| s.paused_reason.is_some() && s.question.is_some() && s.resume_at.is_none())
        {
            let ask =
                AnswerAsk { step: step.id.clone(), id: Uuid::new_v4(), approved: true, text: Some("so".to_owned()), by: "ada".to_owned() };
            world.decide(&Input::Answer(ask));
        } else {
            let timer = world.state.timer;
            world.now = timer.unwrap_or_else(|| panic!("the run hangs: {:#?}", world.state));
        }
    }
    panic!("the run does not come to its end: {:#?}", world.state);
}

/// Plenty to do at every step of the way; nothing is written to the source tree when one fails, as it prints its input.
fn config() -> ProptestConfig {
    ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_inputs_in_any_order_keep_the_rules_and_leave_a_run_that_can_end(
        plan in plan(),
        submission in submission(),
        acts in prop::collection::vec(act(), 0..60),
        vanish in any::<bool>(),
    ) {
        let mut world = born(plan, submission);
        let mut helds = Vec::new();
        for act in &acts {
            carry_out(&mut world, &mut helds, act);
        }
        bring_to_its_end(&mut world, &helds, vanish);
    }

    #[test]
    fn saying_everything_twice_is_saying_it_once(
        plan in plan(),
        submission in submission(),
        acts in prop::collection::vec(act(), 0..40),
    ) {
        let (mut once, mut twice) = (born(plan.clone(), submission), born(plan, submission));
        let (mut held_once, mut held_twice) = (Vec::new(), Vec::new());
        for act in &acts {
            carry_out(&mut once, &mut held_once, act);
            carry_out(&mut twice, &mut held_twice, act);
            let differs_by_nature = matches!(act, Act::Lease { .. } | Act::Wait { .. } | Act::Tick { .. } | Act::Removed);
            if !differs_by_nature {
                let events = twice.events.len();
                carry_out(&mut twice, &mut held_twice, act);
                prop_assert_eq!(twice.events.len(), events, "{:?} again is no news", act);
            }
            prop_assert_eq!(&once.state, &twice.state, "{:?}", act);
        }
    }
}
