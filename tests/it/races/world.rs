//! The situations that requests meet in.

use chrono::TimeDelta;
use hopyard_contract::Name;
use hopyard_contract::message::{Outcome, Report};
use hopyard_contract::status::FailureCode;
use hopyard_scheduler::request::Answer;
use serde_json::{Value, json};

use super::bench::Bench;
use super::scene::{Ask, Move, Scene, reports};

/// How far a scene has come when the race begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// Three steps side by side: one is leased and its lease ran out, one waits out a backoff that has passed, one is claimable.
    Wide,
    /// The one step runs; its lease ran out and the run's time is over.
    Running,
    /// The one step is claimable and bound to nobody.
    Open,
    /// The start has passed, and nobody has looked.
    Scheduled,
    /// Nothing has been accepted.
    Unborn,
    /// Two runs in two pools want one slot.
    Contended,
    /// One of them holds it, and its lease ran out.
    Queued,
    /// One runs, and whoever comes cancels it.
    Superseding,
    /// Nothing has been accepted, and whoever comes cancels who came before.
    Rivals,
    /// Two runs in two pools go on with one session's workspace.
    Session,
    /// A run that others wait for runs; its lease ran out.
    Parent,
    /// The same, and one that waits is there.
    Family,
    /// The one attempt was lost after its start, and its run has ended.
    Lost,
}

impl World {
    /// What may happen in it.
    pub fn moves(self) -> &'static [Move] {
        use Move::*;
        match self {
            Self::Wide | Self::Running => &Move::NINE,
            Self::Open => &[Claim, Kill, Accept, Hello, AcceptPromised, KillOther],
            Self::Scheduled => &[Claim, Kill, Timer, Accept],
            Self::Unborn => &[Accept, AcceptAgain, AcceptMessage, Kill, Claim],
            Self::Contended => &[Claim, ClaimThere, Kill],
            Self::Queued => &[ClaimThere, Finished, Kill, KillOther, Expire],
            Self::Superseding => &[AcceptOther, Claim, Finished, Kill, Expire],
            Self::Rivals => &[AcceptOther, Claim],
            Self::Session => &[Claim, ClaimThere, Kill],
            Self::Parent => &[AcceptChild, Finished, Kill, Expire],
            Self::Family => &[Finished, Kill, KillOther, Expire],
            Self::Lost => &[Saved, Removed, Workspaces, Finished, Renew],
        }
    }

    /// Whether the clock is looked at once more before the end is judged: what follows then is part of it.
    pub fn settles(self) -> bool {
        matches!(self, Self::Parent | Self::Family)
    }

    /// Whether every run that is named in it is there.
    pub fn has_its_runs(self) -> bool {
        !matches!(self, Self::Open | Self::Unborn | Self::Rivals)
    }

    /// Whether both contestants are one executor: others may not claim what is bound to it.
    pub fn has_one_executor(self) -> bool {
        !matches!(self, Self::Open | Self::Contended | Self::Scheduled)
    }

    /// The plan, by name, and what runs ask for beside it.
    fn plan(self) -> (&'static str, Value) {
        match self {
            Self::Wide => ("wide", json!({})),
            Self::Running => ("limited", json!({})),
            Self::Contended | Self::Queued => ("queue", json!({})),
            Self::Superseding | Self::Rivals => ("cancel_older", json!({})),
            Self::Session => ("session", json!({"session": "nightly"})),
            _ => ("single", json!({})),
        }
    }

    /// Makes scenes and brings them to where their races begin, all at once.
    pub async fn prepare(self, bench: &Bench, number: usize) -> Vec<Scene> {
        let (plan, extra) = self.plan();
        let mut scenes = bench.scenes(number, plan, &extra);
        for scene in scenes.iter_mut().filter(|_| self == Self::Scheduled) {
            let start_at = hopyard_contract::time::format(scene.base + TimeDelta::seconds(30));
            scene.extra = json!({"start_at": start_at});
        }
        // The run of a session that goes before the others leaves its workspace.
        let first = if self == Self::Session { 2 } else { 0 };
        if !matches!(self, Self::Unborn | Self::Rivals) {
            all(bench, &scenes, |scene| scene.accept(scene.runs[first], scene.keyed())).await;
        }
        if matches!(self, Self::Contended | Self::Queued) {
            all(bench, &scenes, |scene| scene.accept(scene.runs[1], json!({}))).await;
        }
        match self {
            Self::Open | Self::Scheduled | Self::Unborn | Self::Rivals | Self::Contended => {}
            Self::Queued => lease(bench, &mut scenes, 1).await,
            Self::Wide => {
                // The first step stays leased; the second fails and waits.
                lease(bench, &mut scenes, 2).await;
                let failed = Outcome::Failed { code: FailureCode::ExitCode, message: "again".to_owned() };
                all(bench, &scenes, |scene| reports(vec![Report::Finished(scene.ended(scene.leases[1].clone(), failed.clone(), 3))])).await;
            }
            Self::Session => {
                lease(bench, &mut scenes, 1).await;
                let done = |scene: &Scene| reports(vec![Report::Finished(scene.ended(scene.leases[0].clone(), Outcome::Completed, 1))]);
                all(bench, &scenes, done).await;
                for run in [0, 1] {
                    all(bench, &scenes, |scene| scene.accept(scene.runs[run], json!({}))).await;
                }
            }
            Self::Running | Self::Superseding | Self::Parent | Self::Family | Self::Lost => {
                lease(bench, &mut scenes, 1).await;
                all(bench, &scenes, |scene| scene.ask(Move::Started, 0, true)).await;
            }
        }
        if self == Self::Family {
            all(bench, &scenes, |scene| scene.ask(Move::AcceptChild, 0, true)).await;
        }
        bench.clock.pass(60);
        if self == Self::Lost {
            all(bench, &scenes, |scene| scene.ask(Move::Kill, 0, true)).await;
            // A lease that ran out unseen is looked at after a second.
            bench.clock.pass(2);
            bench.ask(&Ask::look(true)).await.unwrap();
            bench.clock.pass(60);
        }
        scenes
    }
}

/// Makes a request in every scene.
async fn all(bench: &Bench, scenes: &[Scene], ask: impl Fn(&Scene) -> Ask) -> Vec<Answer> {
    bench.ask(&Ask::all(scenes.iter().map(ask))).await.unwrap().answers
}

/// Lets the first executor claim in the first pool.
async fn lease(bench: &Bench, scenes: &mut [Scene], free: u32) {
    let claim = |scene: &Scene| scene.claim(Name::literal("e1"), scene.claims[4], 0, free).into();
    let answers = all(bench, scenes, claim).await;
    for (scene, answer) in scenes.iter_mut().zip(answers) {
        let Answer::Claim(reply) = answer else { panic!("a claim is answered by {answer:?}") };
        scene.leases = reply.grants.into_iter().map(|grant| (grant.attempt, grant.token)).collect();
        assert_eq!(scene.leases.len(), free as usize, "everything is leased");
    }
}
