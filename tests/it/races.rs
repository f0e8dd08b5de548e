//! Two schedulers at one store: every pair of transitions, interleaved, ends as one after the other would.

pub mod bench;
mod contest;
mod outcome;
mod plant;
mod scene;
mod stage;
mod store;
mod world;

use bench::Bench;
use contest::{MANY_WRITERS, ONE_WRITER, Pair, Schedule, Tally, cross, lose_answer, pairs, race};
use plant::Plant;
use scene::{Ask, Move};
use world::World;

use crate::harness::postgres::Postgres;

/// Where runs meet others, or have not come far.
const OTHERS: [World; 11] = [
    World::Open,
    World::Scheduled,
    World::Unborn,
    World::Contended,
    World::Queued,
    World::Superseding,
    World::Rivals,
    World::Session,
    World::Parent,
    World::Family,
    World::Lost,
];

/// Each planted fault with two moves that bring it to light.
const PLANTS: [(Plant, World, [Move; 2]); 10] = [
    (Plant::TrustedCandidates, World::Open, [Move::Claim, Move::Claim]),
    (Plant::StaleLoad, World::Open, [Move::Claim, Move::Kill]),
    (Plant::UnlockedLoad, World::Wide, [Move::Claim, Move::Renew]),
    (Plant::UnlockedKeys, World::Unborn, [Move::Accept, Move::Accept]),
    (Plant::UnlockedSlots, World::Contended, [Move::Claim, Move::ClaimThere]),
    (Plant::UnlockedMembers, World::Rivals, [Move::AcceptOther, Move::AcceptOther]),
    (Plant::UngatedTombstones, World::Unborn, [Move::AcceptAgain, Move::Kill]),
    (Plant::EarlyClock, World::Wide, [Move::Timer, Move::Finished]),
    (Plant::LostCommit, World::Open, [Move::Kill, Move::Accept]),
    (Plant::LostOutbox, World::Open, [Move::Kill, Move::Accept]),
];

/// Races everything that may happen in some worlds, with itself and everything else.
async fn race_all(bench: &Bench, worlds: &[World], schedules: &[Schedule]) -> Tally {
    let mut tally = Tally::default();
    let mut found = Vec::new();
    for pair in worlds.iter().flat_map(|world| pairs(*world)) {
        match race(bench, pair, schedules, Plant::Nothing).await {
            Ok(raced) => tally.add(raced),
            Err(error) => found.push(error),
        }
    }
    println!("{worlds:?}: {tally:?}");
    assert!(found.is_empty(), "{} pairs end as they cannot:\n{}", found.len(), found.join("\n"));
    // Who waits for the other from the first is not held where it should be; if that were the rule, nothing would be raced.
    assert!(tally.held * 4 > tally.races * 3, "{tally:?}");
    tally
}

/// Covers C3, I1, I5.
#[tokio::test(flavor = "multi_thread")]
async fn transitions_of_a_run_with_open_steps_are_as_if_one_came_after_the_other() {
    let server = Postgres::shared().await;
    let tally = race_all(&Bench::postgres(&server).await, &[World::Wide], &MANY_WRITERS).await;
    assert_eq!(tally.pairs, 45);
}

/// Covers C3, I1, I5.
#[tokio::test(flavor = "multi_thread")]
async fn transitions_that_end_a_run_are_as_if_one_came_after_the_other() {
    let server = Postgres::shared().await;
    let tally = race_all(&Bench::postgres(&server).await, &[World::Running], &MANY_WRITERS).await;
    assert_eq!(tally.pairs, 45);
}

/// Covers C3, I1, I5, A5.
#[tokio::test(flavor = "multi_thread")]
async fn runs_that_share_something_are_as_if_one_came_after_the_other() {
    let server = Postgres::shared().await;
    race_all(&Bench::postgres(&server).await, &OTHERS, &MANY_WRITERS).await;
}

/// Each holds a run that the other one turns out to need: by a hello, a janitor's question or a concurrency key.
#[tokio::test(flavor = "multi_thread")]
async fn two_schedulers_never_wait_for_each_other() {
    let server = Postgres::shared().await;
    let bench = Bench::postgres(&server).await;
    for (world, what) in [(World::Running, Move::Hello), (World::Running, Move::Workspaces), (World::Superseding, Move::AcceptOther)] {
        let scenes = world.prepare(&bench, 2).await;
        let ask = |own: usize, other: usize| Ask::all([scenes[own].ask(Move::Renew, 0, true), scenes[other].ask(what, own, true)]);
        let told = cross(&bench, &scenes[0], &[ask(0, 1), ask(1, 0)]).await.unwrap();
        assert_eq!(told.map(|told| (told.answers.len(), told.again)), [(2, 0), (2, 0)], "{world:?}: {what:?}");
        let ends = scenes.iter().flat_map(|scene| scene.runs.iter().map(|run| scene.kill(*run, 1).into()));
        bench.ask(&Ask::all(ends)).await.unwrap();
        bench.clock.pass(60);
    }
}

/// Covers C3, I1, I5.
#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_store_takes_one_after_the_other() {
    let bench = Bench::sqlite().await;
    let tally = race_all(&bench, &[World::Wide, World::Running], &ONE_WRITER).await;
    assert_eq!(tally.pairs, 90);
    race_all(&bench, &OTHERS, &ONE_WRITER[1..]).await;
}

/// Covers I1, A5.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_again_after_a_lost_answer_is_told_the_same() {
    let bench = Bench::sqlite().await;
    let mut found = Vec::new();
    for world in [World::Wide, World::Running].into_iter().chain(OTHERS) {
        for what in world.moves() {
            found.extend(lose_answer(&bench, world, *what, Plant::Nothing).await.err());
        }
    }
    assert!(found.is_empty(), "{} answers are not given again as they should:\n{}", found.len(), found.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_planted_fault_of_the_store_is_found() {
    let server = Postgres::shared().await;
    let bench = Bench::postgres(&server).await;
    let mut survivors = Vec::new();
    for (plant, world, moves) in PLANTS {
        match race(&bench, Pair { world, moves }, &MANY_WRITERS, plant).await {
            Ok(_) => survivors.push(plant),
            Err(found) => println!("{plant:?}: {}", found.lines().next().unwrap_or_default()),
        }
    }
    for (plant, world, what) in
        [(Plant::ForgottenClaims, World::Open, Move::Claim), (Plant::ForgottenReceipts, World::Unborn, Move::AcceptMessage)]
    {
        match lose_answer(&bench, world, what, plant).await {
            Ok(()) => survivors.push(plant),
            Err(found) => println!("{plant:?}: {}", found.lines().next().unwrap_or_default()),
        }
    }
    assert_eq!(survivors, [], "faults that nothing finds");
}
