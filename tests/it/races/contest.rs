//! Two requests at once, held and let go in every order, against the same two one after the other.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Notify;

use super::bench::{Bench, Told, carry_out};
use super::outcome::{Outcome, Records, end, same_but_repeated};
use super::plant::Plant;
use super::scene::{Ask, Move, Scene};
use super::stage::{Doing, Point, Stage};
use super::store::StagedStore;
use super::world::World;

/// Two moves in a world.
#[derive(Clone, Copy)]
pub struct Pair {
    pub world: World,
    pub moves: [Move; 2],
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:?} and {:?}", self.world, self.moves[0], self.moves[1])
    }
}

/// Where one is held while the other begins, and where the other is held while the one goes on; `None`: nowhere.
pub type Schedule = [Option<Point>; 2];

/// On a store with many writers. Other points add nothing but the same orders again: no planted fault needs one.
pub const MANY_WRITERS: [Schedule; 3] = [
    // Both have locked what they may, and either may now want what the other has.
    [Some(Point::Locked), Some(Point::Locked)],
    // The clock has been read, and everything happens after that.
    [Some(Point::Timed), None],
    // All is read and decided, and changes before it is written.
    [Some(Point::Writing), None],
];

/// On a store with one writer: whoever is held keeps the other from beginning, unless it is over and does not know. Then it
/// asks again after the other.
pub const ONE_WRITER: [Schedule; 2] = [[Some(Point::Writing), None], [Some(Point::Answering), None]];

/// What has been raced.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub pairs: usize,
    pub races: usize,
    /// Races in which whoever should be held was.
    pub held: usize,
    /// Transactions that were made again.
    pub again: usize,
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.pairs += other.pairs;
        self.races += other.races;
        self.held += other.held;
        self.again += other.again;
    }
}

/// All pairs of a world's moves, those of a move with itself among them.
pub fn pairs(world: World) -> impl Iterator<Item = Pair> {
    let moves = world.moves();
    let with_later = move |n: usize| moves[n..].iter().map(move |second| Pair { world, moves: [moves[n], *second] });
    (0..moves.len()).flat_map(with_later)
}

/// A race that was run: who was held first and where, and what both were told.
struct Run<'a> {
    scene: &'a Scene,
    held: Option<(usize, Schedule)>,
    told: Result<[Vec<Told>; 2], String>,
}

/// Races a pair at all schedules, either one being held first; what cannot be is the error.
pub async fn race(bench: &Bench, pair: Pair, schedules: &[Schedule], plant: Plant) -> Result<Tally, String> {
    let [one, other] = pair.moves;
    let either = if one == other { 1 } else { 2 };
    // Two that lock the same run before anything else come one after the other, wherever one is held from then on.
    let same = pair.world.has_its_runs() && one.locks().is_some_and(|run| other.locks() == Some(run));
    let tells = |schedule: &&Schedule| !(same && matches!(schedule[0], Some(Point::Timed | Point::Writing)));
    let schedules: Vec<Schedule> = schedules.iter().filter(tells).copied().collect();
    let scenes = pair.world.prepare(bench, 2 + either * schedules.len()).await;
    let (alone, contested) = scenes.split_at(2);
    let mut runs = vec![serial(bench, pair, &alone[0], [0, 1]).await, serial(bench, pair, &alone[1], [1, 0]).await];
    let mut tally = Tally { pairs: 1, ..Tally::default() };
    let all = (0..either).flat_map(|first| schedules.iter().map(move |schedule| (first, *schedule)));
    for (scene, (first, schedule)) in contested.iter().zip(all) {
        let (held, run) = once(bench, pair, first, schedule, plant, scene).await;
        tally.races += 1;
        tally.held += usize::from(held);
        tally.again += run.told.iter().flatten().flatten().map(|told| told.again).sum::<usize>();
        runs.push(run);
    }
    come_back(bench, pair, &mut runs).await?;
    judge(bench, pair, runs).await.map(|()| tally)
}

/// One after the other.
async fn serial<'a>(bench: &Bench, pair: Pair, scene: &'a Scene, order: [usize; 2]) -> Run<'a> {
    let asks = asks(scene, pair);
    let tell = async {
        let mut told = [Vec::new(), Vec::new()];
        for who in order {
            let store = bench.staged(who, Arc::new(Stage::new(None)), Plant::Nothing, scene);
            told[who].push(carry_out(&store, &asks[who]).await?);
        }
        Ok(told)
    };
    Run { scene, held: None, told: tell.await }
}

/// Whoever passes by what others have locked comes back for it, after every race.
async fn come_back(bench: &Bench, pair: Pair, runs: &mut [Run<'_>]) -> Result<(), String> {
    for (who, what) in pair.moves.into_iter().enumerate().filter(|(_, what)| what.skips()) {
        let again = Ask::all(runs.iter().map(|run| run.scene.ask_again(what, who, pair.world.has_one_executor())));
        let told = bench.ask(&again).await?;
        let mut answers = told.answers.into_iter();
        for run in runs.iter_mut() {
            let answers = answers.next().into_iter().collect();
            let effects = told.effects.iter().filter(|(id, _)| run.scene.runs.contains(id)).cloned().collect();
            if let Ok(before) = &mut run.told {
                before[who].push(Told { answers, effects, again: 0 });
            }
        }
    }
    Ok(())
}

/// The first is held, then the second; then the first goes on to its end, and the second. Says whether both were held.
async fn once<'a>(bench: &Bench, pair: Pair, first: usize, schedule: Schedule, plant: Plant, scene: &'a Scene) -> (bool, Run<'a>) {
    let stages = [0, 1].map(|who| Arc::new(Stage::new(schedule[usize::from(who != first)])));
    let stores = [0, 1].map(|who| bench.staged(who, stages[who].clone(), plant, scene));
    let told = meet(bench, &stores, &asks(scene, pair), first).await.map(|told| told.map(|told| vec![told]));
    let held = stages[first].was_held() && (schedule[1].is_none() || stages[1 - first].was_held());
    (held, Run { scene, held: Some((first, schedule)), told })
}

/// What two that have locked their first runs are told, whatever runs of the other's they want then.
pub async fn cross(bench: &Bench, scene: &Scene, asks: &[Ask; 2]) -> Result<[Told; 2], String> {
    let stores = [0, 1].map(|who| bench.staged(who, Arc::new(Stage::new(Some(Point::Locked))), Plant::Nothing, scene));
    meet(bench, &stores, asks, 0).await
}

async fn meet(bench: &Bench, stores: &[StagedStore; 2], asks: &[Ask; 2], first: usize) -> Result<[Told; 2], String> {
    let [one, other] = [&*stores[first].stage, &*stores[1 - first].stage];
    let other_may_begin = Notify::new();
    let contestant = async |who: usize| {
        if who != first {
            other_may_begin.notified().await;
        }
        carry_out(&stores[who], &asks[who]).await
    };
    one.now_doing(Doing::Beginning);
    let direct = async {
        bench.quiet([one, other]).await;
        other.now_doing(Doing::Beginning);
        other_may_begin.notify_one();
        bench.quiet([one, other]).await;
        one.let_go();
        bench.quiet([one, other]).await;
        other.let_go();
    };
    let (told, their_told, ()) = tokio::join!(contestant(0), contestant(1), direct);
    Ok([told?, their_told?])
}

/// Whether each race ended as one of the first two did, which were none; then everything is ended.
async fn judge(bench: &Bench, pair: Pair, runs: Vec<Run<'_>>) -> Result<(), String> {
    let mut found = Vec::new();
    let scenes: Vec<&Scene> = runs.iter().map(|run| run.scene).collect();
    if pair.world.settles() {
        bench.ask(&Ask::look(true)).await?;
    }
    let records = Records::read(bench, &scenes).await;
    let mut expected: Vec<Outcome> = Vec::new();
    for (run, records) in runs.into_iter().zip(&records) {
        let mut wrong = records.objections(bench);
        match run.told.map(|told| records.outcome(run.scene, &told)) {
            Err(error) => wrong.push(error),
            Ok(outcome) => match run.held {
                None => expected.push(outcome),
                Some((first, schedule)) => {
                    // Whose answer got lost is told something else when it asks again.
                    let told = |who| who != first || schedule[0] != Some(Point::Answering);
                    let same = |e: &Outcome| {
                        e.facts == outcome.facts && [0, 1].iter().all(|who| !told(*who) || e.told[*who] == outcome.told[*who])
                    };
                    wrong.extend((!expected.iter().any(same)).then(|| difference(&outcome, &expected)));
                }
            },
        }
        let when = run.held.map_or("one after the other".to_owned(), |(first, schedule)| format!("{first} held at {schedule:?}"));
        found.extend(wrong.into_iter().map(|wrong| format!("{when}: {wrong}")));
    }
    found.extend(end(bench, &scenes, &records).await.err());
    if found.is_empty() { Ok(()) } else { Err(format!("{pair}: {}", found.join("\n  "))) }
}

fn asks(scene: &Scene, pair: Pair) -> [Ask; 2] {
    [0, 1].map(|who| scene.ask(pair.moves[who], who, pair.world.has_one_executor()))
}

/// Where an outcome is none of those that could be.
fn difference(outcome: &Outcome, expected: &[Outcome]) -> String {
    let lines = |outcome: &Outcome| -> Vec<String> {
        let all = serde_json::json!({"told": outcome.told, "facts": outcome.facts});
        serde_json::to_string_pretty(&all).unwrap().lines().map(|line| line.trim().to_owned()).collect()
    };
    let ours = lines(outcome);
    let mut text = "the outcome is that of no order".to_owned();
    for (n, theirs) in expected.iter().map(lines).enumerate() {
        let extra: Vec<&String> = ours.iter().filter(|line| !theirs.contains(line)).take(12).collect();
        let lacking: Vec<&String> = theirs.iter().filter(|line| !ours.contains(line)).take(12).collect();
        text.push_str(&format!("\n  against order {n}: has {extra:?}, lacks {lacking:?}"));
    }
    text
}

/// Loses the answer to each move's commit; the move is made again, and has happened once.
pub async fn lose_answer(bench: &Bench, world: World, what: Move, plant: Plant) -> Result<(), String> {
    let scenes = world.prepare(bench, 2).await;
    let mut outcomes = Vec::new();
    let mut found = Vec::new();
    let both: Vec<&Scene> = scenes.iter().collect();
    for (scene, point) in both.iter().zip([None, Some(Point::Answering)]) {
        let stage = Arc::new(Stage::new(point));
        let store = bench.staged(0, stage.clone(), plant, scene);
        let ask = scene.ask(what, 0, world.has_one_executor());
        let direct = async {
            bench.quiet([&stage, &Stage::new(None)]).await;
            stage.let_go();
        };
        stage.now_doing(Doing::Beginning);
        let (told, ()) = tokio::join!(carry_out(&store, &ask), direct);
        let records = Records::read(bench, &[scene]).await.remove(0);
        found.extend(records.objections(bench));
        outcomes.push(records.outcome(scene, &[vec![told?], Vec::new()]));
    }
    if outcomes[0].facts != outcomes[1].facts || !same_but_repeated(what, &outcomes[0].told[0], &outcomes[1].told[0]) {
        found.push(difference(&outcomes[1], &outcomes[..1]));
    }
    found.extend(end(bench, &both, &Records::read(bench, &both).await).await.err());
    if found.is_empty() { Ok(()) } else { Err(format!("{world:?}: {what:?}: {}", found.join("\n  "))) }
}
