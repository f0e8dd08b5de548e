//! One attempt, from its grant to exactly one `finished`, and what a restarted executor makes of its predecessor's.

use std::rc::Rc;

use chrono::TimeDelta;
use hopyard_contract::AttemptId;
use hopyard_contract::id::WorkspaceId;
use hopyard_contract::message::{Finished, Grant, Outcome, Pin, PinReply, Report, Started};
use hopyard_contract::plan::{Work, WorkspaceMode};
use hopyard_contract::run::{BlobRef, GitResult};
use hopyard_contract::status::{FailureCode, PausedReason};
use hopyard_scheduler::request::{Answer, Request};

use super::leases::used;
use super::live::Live;
use super::{Executor, shim};
use crate::bugs::Bug;
use crate::clockwork::{MS, Micros, S, within};
use crate::host::{Control, Directory, Exit, Spool};
use crate::world::low;

/// How long a provider's limit lasts.
const LIMIT: TimeDelta = TimeDelta::seconds(5);

/// Whether it is a provider's limit that ends an attempt badly; of some runs, so that others fail for good.
fn limited(attempt: &AttemptId) -> bool {
    (attempt.run.as_uuid().as_u128() + u128::from(attempt.n)).is_multiple_of(4)
}

/// A result that nobody settles is published again.
pub(crate) const REPEAT: Micros = 5 * S;

impl Executor {
    /// Carries an attempt out in a task of its own.
    pub(super) fn carry_out(self: &Rc<Self>, grant: Grant, live: Rc<Live>) {
        let own = self.clone();
        self.world.clock.spawn(self.process, async move {
            let finished = own.line(&grant, &live).await;
            own.free_slot();
            own.report_until_settled(finished, &live).await;
            own.leave(&grant.attempt);
        });
    }

    async fn line(&self, grant: &Grant, live: &Rc<Live>) -> Finished {
        let (world, fate) = (&self.world, &self.world.fate);
        world.note("granted", low(grant.attempt.run), || format!("{} to {}", grant.attempt, self.name));
        self.host().spools.borrow_mut().insert(grant.attempt.clone(), Spool { grant: grant.clone(), finished: None });
        if live.kill.borrow().is_some() && !world.has(Bug::StartsAfterKill) {
            return self.ended(grant, Outcome::Killed);
        }
        if world.has(Bug::StartedBeforeProcess) {
            self.say_started(grant);
        }
        world.clock.sleep(fate.between(5 * MS, 300 * MS)).await;
        if let Err(finished) = self.open(grant).await {
            return *finished;
        }
        if let Err(outcome) = self.relied_on(live).await {
            return self.close(grant, live, false, outcome).await;
        }
        let killed = live.kill.borrow().is_some();
        world.checks.borrow_mut().hold(world, !killed, "I6 what was killed never starts", || grant.attempt.to_string());
        let process = shim::spawn(world, self.index, &grant.attempt, grant.workspace.generation, &directory(grant), live.left(world));
        live.attach(world, &process);
        let began = world.now();
        world.clock.sleep(fate.between(MS, 20 * MS)).await;
        self.say_started(grant);
        let exit = loop {
            if let Some(exit) = within(&world.clock, 500 * MS, process.exit.recv()).await {
                break exit;
            }
            live.used.set(cost(world.now() - began));
        };
        live.used.set(cost(world.now() - began));
        let outcome = match exit {
            Exit::Code(0) => Outcome::Completed,
            // Some of what goes wrong is a provider's limit.
            Exit::Code(_) if limited(&grant.attempt) => {
                let until = world.wall(self.process) + LIMIT;
                Outcome::Limited { reason: PausedReason::UsageLimit, until, message: "no calls are taken".to_owned() }
            }
            Exit::Code(_) => Outcome::Failed { code: FailureCode::ExitCode, message: "ended with 1".to_owned() },
            Exit::Ended if live.kill.borrow().is_some() => Outcome::Killed,
            Exit::Ended => Outcome::HandedBack,
        };
        self.close(grant, live, true, outcome).await
    }

    /// Waits until the lease can be relied on: nothing has run yet that could be held still.
    async fn relied_on(&self, live: &Live) -> Result<(), Outcome> {
        let (world, began) = (&self.world, self.world.now());
        loop {
            if live.kill.borrow().is_some() && !world.has(Bug::StartsAfterKill) {
                return Err(Outcome::Killed);
            }
            if live.left(world) > world.lease() / 3 || world.has(Bug::NoFreeze) {
                return Ok(());
            }
            if (live.stale.get() && !world.has(Bug::RefusalIgnored)) || world.now() - began > shim::QUARANTINE {
                return Err(Outcome::HandedBack);
            }
            world.clock.sleep(100 * MS).await;
        }
    }

    /// Makes the directory, or finds it; the first one pins the commit.
    async fn open(&self, grant: &Grant) -> Result<(), Box<Finished>> {
        let (world, key) = (&self.world, directory(grant));
        if grant.workspace.mode == WorkspaceMode::None {
            return Ok(());
        }
        let owner = workspace(grant);
        if let Work::BestOf(spec) = &grant.work {
            let kept = spec.chosen.as_ref().is_some_and(|chosen| world.commits.borrow().contains_key(&chosen.work.commit));
            world
                .checks
                .borrow_mut()
                .hold(world, kept, "I7 the work that was chosen is kept", || format!("{}: {:?}", grant.attempt, spec.chosen));
        }
        if let Some(there) = self.host().workspaces.borrow_mut().get_mut(&key) {
            there.owner = owner;
            return Ok(());
        }
        if grant.workspace.commit.is_none() {
            let pin = Pin { attempt: grant.attempt.clone(), token: grant.token, commit: format!("base-{}", world.number()) };
            match world.bus.call(self.process, Request::Pin(pin)).await {
                Ok(Answer::Pin(PinReply::Pinned(_))) => {}
                Ok(_) => return Err(Box::new(self.ended(grant, Outcome::HandedBack))),
                Err(_) => {
                    let outcome = Outcome::Failed { code: FailureCode::WorkspaceError, message: "not pinned".to_owned() };
                    return Err(Box::new(self.ended(grant, outcome)));
                }
            }
        }
        let made = Directory { owner, made_at: world.now(), ..Directory::default() };
        // Another attempt of the run may have made it meanwhile.
        self.host().workspaces.borrow_mut().entry(key).or_insert(made);
        Ok(())
    }

    fn say_started(&self, grant: &Grant) {
        let pid = self.world.number();
        let workspace = format!("/data/{}", directory(grant));
        let at = self.world.wall(self.process);
        self.reports.send(Report::Started(Started {
            attempt: grant.attempt.clone(),
            token: grant.token,
            pid,
            workspace,
            before: None,
            at,
        }));
    }

    /// Keeps the work, whatever the outcome; only then is the attempt over.
    async fn close(&self, grant: &Grant, live: &Live, ran: bool, outcome: Outcome) -> Finished {
        let world = &self.world;
        world.clock.sleep(world.fate.between(5 * MS, 200 * MS)).await;
        let killed = matches!(outcome, Outcome::Killed | Outcome::HandedBack);
        let mut finished = self.ended(grant, outcome);
        if ran {
            finished.pid = Some(world.number());
            finished.workspace = Some(format!("/data/{}", directory(grant)));
        }
        finished.usage = used(live.used.get());
        if !(killed && world.has(Bug::SnapshotSkipped)) {
            self.keep(grant, &mut finished);
        }
        world.journal.borrow_mut().used.insert(grant.attempt.clone(), live.used.get());
        finished
    }

    /// A commit of the directory, uploaded.
    fn keep(&self, grant: &Grant, finished: &mut Finished) {
        let Some(commit) = self.world.snapshot(self.index, &directory(grant)) else { return };
        let digest = format!("sha256:{commit}");
        finished.snapshot = Some(commit.clone());
        finished.result = Some(GitResult {
            base: "base".to_owned(),
            head: commit,
            branch: grant.workspace.branch.clone(),
            files: Vec::new(),
            insertions: 0,
            deletions: 0,
            patch: None,
            bundle: Some(BlobRef { digest, size: 1 }),
        });
    }

    fn ended(&self, grant: &Grant, outcome: Outcome) -> Finished {
        let at = self.world.wall(self.process);
        Finished { usage: used(0), ..Finished::new(grant.attempt.clone(), grant.token, outcome, at) }
    }

    async fn report_until_settled(&self, finished: Finished, live: &Live) {
        let (world, id) = (&self.world, &finished.attempt);
        world.note("finished", low(id.run), || format!("{id}: {:?}", finished.outcome));
        if !matches!(finished.outcome, Outcome::Completed | Outcome::Failed { .. }) {
            world.journal.borrow_mut().given_up.insert(id.clone());
        }
        if let Some(spool) = self.host().spools.borrow_mut().get_mut(id) {
            spool.finished = Some(finished.clone());
        }
        loop {
            self.reports.send(Report::Finished(finished.clone()));
            let over = async {
                while !live.settled.get() && !live.stale.get() {
                    live.changed.recv().await;
                }
            };
            if within(&world.clock, REPEAT, over).await.is_some() {
                break;
            }
        }
        self.host().spools.borrow_mut().remove(id);
    }

    /// Ends what the process before has left, and reports it.
    pub(super) fn recover(self: &Rc<Self>) {
        let world = &self.world;
        for process in self.host().processes.borrow().values() {
            process.control.send(Control::Kill { force: true });
        }
        let left: Vec<(AttemptId, Spool)> = self.host().spools.borrow().iter().map(|(id, spool)| (id.clone(), spool.clone())).collect();
        for (id, spool) in left {
            let own = self.clone();
            world.clock.spawn(self.process, async move {
                while own.host().processes.borrow().contains_key(&id) {
                    own.world.clock.sleep(MS).await;
                }
                let finished = match spool.finished {
                    Some(finished) => finished,
                    None => own.lost(&spool.grant).await,
                };
                let Some(live) = own.enter(&spool.grant, own.world.now()) else { return };
                own.free_slot();
                own.report_until_settled(finished, &live).await;
                own.leave(&spool.grant.attempt);
            });
        }
    }

    async fn lost(&self, grant: &Grant) -> Finished {
        self.world.clock.sleep(self.world.fate.between(5 * MS, 200 * MS)).await;
        let outcome = if self.world.has(Bug::CompletedOnRecovery) { Outcome::Completed } else { Outcome::Lost };
        let mut finished = self.ended(grant, outcome);
        self.keep(grant, &mut finished);
        finished
    }
}

/// The key of an attempt's directory on its machine.
fn directory(grant: &Grant) -> String {
    match &grant.workspace.session {
        Some(session) => format!("session-{session}"),
        None => workspace(grant),
    }
}

/// The name of an attempt's workspace.
fn workspace(grant: &Grant) -> String {
    WorkspaceId { run: grant.attempt.run, generation: grant.workspace.generation, variant: grant.workspace.variant.clone() }.to_string()
}

fn cost(lasted: Micros) -> u64 {
    u64::try_from(lasted / (100 * MS)).unwrap_or_default() + 1
}
