//! What is looked at with every commit: each changed run as it was and as it is.

use hopyard_contract::event::{Event, EventType};
use hopyard_contract::run::{Attempt, Run};
use hopyard_contract::status::{AttemptStatus, RunStatus};
use hopyard_contract::{AttemptId, RunId};

use super::{Bounds, Checks};
use crate::clockwork::{Micros, S};
use crate::scheduler::LONGEST;
use crate::store::RunRecord;
use crate::world::{EPOCH, World, low};

fn at(time: chrono::DateTime<chrono::Utc>) -> Micros {
    time.timestamp_micros() - EPOCH
}

impl Checks {
    /// Looks at the runs that a scheduler's commit has changed.
    pub(crate) fn look_at_commit(&mut self, world: &World, scheduler: usize, changed: &[RunId]) {
        for id in changed {
            let Some(next) = world.store.committed(|tables| tables.runs.get(id).cloned()) else {
                self.found(world, "I1 nothing committed is lost", || format!("{id} is gone"));
                continue;
            };
            let before = self.seen.insert(*id, next.clone());
            let told = before.as_ref().map_or(0, |before| before.pages.len());
            for event in next.pages.iter().skip(told).flat_map(|page| page.iter()) {
                let step = || event.step.as_ref().map_or_else(String::new, |step| format!("{step}.{}", event.attempt.unwrap_or_default()));
                world.note("event", low(*id) ^ event.seq, || format!("{id} {} {} {}", event.seq, event.kind.as_str(), step()));
                self.look_at_event(world, scheduler, *id, event);
            }
            if let Some(before) = &before {
                self.compare(world, before, &next);
            }
            self.look_at_attempts(world, before.as_deref(), &next);
            self.look_at_failures(world, &next);
            self.look_at_slots(world, &next.run);
            if next.run.status.is_final() && before.is_none_or(|before| !before.run.status.is_final()) {
                self.on_end(world, &next);
            }
        }
    }

    fn look_at_event(&mut self, world: &World, scheduler: usize, run: RunId, event: &Event) {
        let expired = event.kind == EventType::AttemptLost && event.data.get("cause").is_some_and(|cause| cause == "lease_ended");
        if !expired {
            return;
        }
        if let (Some(step), Some(n)) = (&event.step, event.attempt) {
            let id = AttemptId { run, step: step.clone(), n };
            let at_work = world.hosts.iter().any(|host| host.processes.borrow().get(&id).is_some_and(|process| !process.frozen.get()));
            self.hold(world, !at_work, "I2 nothing works without a lease", || format!("{id} is given up, and its process goes on"));
        }
        let process = world.schedulers[scheduler];
        let awake = world.awake_since.borrow().get(&process).copied().unwrap_or_default();
        let well_for = world.now() - awake.max(world.bus.connected_since(process));
        self.hold(world, well_for >= world.lease(), "I11 leases are judged only after a lease of good health", || {
            format!("{run} {:?}.{:?} by scheduler {scheduler}, which has been well for {well_for} us", event.step, event.attempt)
        });
    }

    /// What may not change.
    fn compare(&mut self, world: &World, before: &RunRecord, next: &RunRecord) {
        let id = next.run.id;
        if before.run.status.is_final() {
            let frozen = |run: &Run| Run { event_seq: 0, late_usage: None, ..run.clone() };
            let same = frozen(&before.run) == frozen(&next.run) && before.steps == next.steps;
            self.hold(world, same, "I3 an end is immutable", || format!("{id} was {}, is {}", before.run.status, next.run.status));
        }
        let killed = before.run.kill.is_none() || next.run.kill.is_some();
        self.hold(world, killed, "I6 a cancel wins", || format!("the kill of {id} is gone"));
        let grew = next.run.generation >= before.run.generation;
        self.hold(world, grew, "I12 numbers only grow", || format!("the workspace number of {id} fell"));
        let moved = next.run.executor.is_some() && before.run.executor != next.run.executor;
        self.hold(world, !moved || next.run.generation > before.run.generation, "I12 numbers only grow", || {
            format!("{id} moved to {:?} with the workspace number {}", next.run.executor, next.run.generation)
        });
        for slot in before.run.slots.iter().filter(|slot| slot.held && next.run.finished_at.is_none()) {
            let kept = next.run.slots.iter().any(|s| s.key == slot.key && s.held);
            self.hold(world, kept, "I15 a slot is held until the end", || format!("{id} gave {} back", slot.key));
        }
        for (step, old) in next.steps.iter().zip(&before.steps) {
            let grew = step.attempt >= old.attempt && step.failures >= old.failures && step.lost >= old.lost;
            self.hold(world, grew, "I12 numbers only grow", || format!("a count of step {} of {id} fell", step.id));
        }
        for old in &before.attempts {
            let Some(new) = next.attempts.iter().find(|a| a.n == old.n && a.step == old.step) else {
                self.found(world, "I12 numbers only grow", || format!("attempt {id}.{}.{} is gone", old.step, old.n));
                continue;
            };
            self.compare_attempt(world, id, old, new);
        }
    }

    fn compare_attempt(&mut self, world: &World, run: RunId, old: &Attempt, new: &Attempt) {
        let id = || format!("{run}.{}.{}", new.step, new.n);
        let same = old.token == new.token && old.executor == new.executor && old.generation == new.generation;
        self.hold(world, same, "I12 an attempt is one lease", || format!("{} changed hands", id()));
        let ended = !old.status.is_final() || old.status == new.status;
        self.hold(world, ended, "I3 an end is immutable", || format!("{} was {}, is {}", id(), old.status, new.status));
        let fell = old.usage.cost_microusd > new.usage.cost_microusd;
        self.hold(world, !fell, "I4 usage adds up", || format!("the usage of {} fell from {:?} to {:?}", id(), old.usage, new.usage));
    }

    /// What an attempt is called has to be what its process did.
    fn look_at_attempts(&mut self, world: &World, before: Option<&RunRecord>, next: &RunRecord) {
        for attempt in &next.attempts {
            let old = before.and_then(|before| before.attempts.iter().find(|a| a.n == attempt.n && a.step == attempt.step));
            if old.is_none() {
                self.look_at_lease(world, before, next, attempt);
            }
            if old.is_none_or(|old| old.status != attempt.status) {
                self.look_at_status(world, next.run.id, attempt);
            }
        }
    }

    fn look_at_status(&mut self, world: &World, run: RunId, attempt: &Attempt) {
        let id = AttemptId { run, step: attempt.step.clone(), n: attempt.n };
        let journal = world.journal.borrow();
        let process = attempt.started_at.is_none() || journal.started.contains_key(&id);
        self.hold(world, process, "I10 running means a process", || format!("{id} is {} without one", attempt.status));
        let honest = attempt.status != AttemptStatus::Completed || journal.done.contains(&id);
        self.hold(world, honest, "I9 a result is what a process did", || format!("{id} is completed, and its process did not end well"));
        let early = attempt.status == AttemptStatus::Lost && attempt.finished_at.is_some_and(|ended| ended < attempt.lease_until);
        self.hold(world, !early || journal.given_up.contains(&id), "I11 no lease is taken early", || {
            format!("{id} is lost while its lease lasts")
        });
        let used = journal.used.get(&id).copied().filter(|_| attempt.status.is_final() && attempt.status != AttemptStatus::Lost);
        let told = attempt.usage.cost_microusd.unwrap_or_default();
        self.hold(world, used.is_none_or(|used| told >= used), "I4 usage adds up", || format!("{id} used {used:?}, {told} are recorded"));
    }

    /// A new lease: one at a time, not too early, not too late.
    fn look_at_lease(&mut self, world: &World, before: Option<&RunRecord>, next: &RunRecord, attempt: &Attempt) {
        let id = AttemptId { run: next.run.id, step: attempt.step.clone(), n: attempt.n };
        let live = next.attempts.iter().filter(|a| a.step == attempt.step && !a.status.is_final()).count();
        self.hold(world, live <= 1, "I2 one lease at a time", || format!("{live} of the step of {id} are live"));
        self.hold(world, attempt.n <= 100, "I15 attempts are bounded", || format!("{id} is one too many"));
        self.look_at_retry(world, next, attempt);
        let old = before.and_then(|before| before.steps.iter().find(|step| step.id == attempt.step));
        if let Some(bound) = old.and_then(|step| step.bound_to.as_ref()) {
            self.hold(world, *bound == attempt.executor, "I2 a bound step stays with its executor", || format!("{id}"));
        }
        let claimable = old.and_then(|step| step.claimable_at).map(at);
        if let (Some(calm), Some(claimable)) = (world.calm_since.get(), claimable) {
            // Schedulers know of everybody, and executors have said hello.
            let settled = if calm == 0 { 5 * S } else { calm + 2 * world.lease() + 2 * LONGEST };
            let freed = if next.run.slots.is_empty() { 0 } else { self.slot_freed };
            let waited = at(attempt.leased_at) - claimable.max(settled).max(self.full_until).max(freed);
            let bound = Bounds::of(&world.weather).claim();
            self.hold(world, waited <= bound, "I1 what is claimable is claimed", || {
                format!("{id} waited {waited} us, {bound} are allowed")
            });
        }
    }

    /// What counts against the retries is what failed, and nothing else.
    fn look_at_failures(&mut self, world: &World, next: &RunRecord) {
        for step in &next.steps {
            let failed = next.attempts.iter().filter(|a| a.step == step.id && counts(a)).count();
            let (run, id) = (next.run.id, &step.id);
            self.hold(world, failed == step.failures as usize, "I12 retries are counted", || {
                format!("{failed} attempts of {run}.{id} failed, {} are counted", step.failures)
            });
        }
    }

    /// Failures are counted and backoffs kept.
    fn look_at_retry(&mut self, world: &World, next: &RunRecord, attempt: &Attempt) {
        let failed: Vec<&Attempt> = {
            let earlier = next.attempts.iter().filter(|a| a.step == attempt.step && a.n < attempt.n);
            earlier.filter(|a| counts(a)).collect()
        };
        let Some(last) = failed.last().filter(|last| last.n + 1 == attempt.n) else { return };
        let plan = world.workflows.iter().find(|workflow| workflow.hash == next.run.plan_hash).map(|workflow| &workflow.plan);
        let retry = plan.and_then(|plan| plan.step(attempt.step.as_str())).and_then(|step| step.retry.as_ref());
        let allowed = retry.map_or(1, |retry| retry.max_attempts);
        let count = u32::try_from(failed.len()).unwrap_or(u32::MAX);
        let id = || format!("{}.{}.{}", next.run.id, attempt.step, attempt.n);
        self.hold(world, count < allowed, "I12 retries are counted", || format!("{} comes after {count} failures of {allowed}", id()));
        let wait = retry.map_or(0, |retry| i64::try_from(retry.backoff.after(count).millis()).unwrap_or_default() * 1000);
        let waited = at(attempt.leased_at) - last.finished_at.map_or(0, at);
        self.hold(world, waited >= wait, "I12 a backoff is kept", || format!("{} comes {waited} us after a failure, not {wait}", id()));
    }

    /// No key has more holders than it allows.
    fn look_at_slots(&mut self, world: &World, run: &Run) {
        for slot in run.slots.iter().filter(|slot| slot.held) {
            let open = self.seen.values().map(|record| &record.run).filter(|run| run.finished_at.is_none());
            let holders = open.filter(|run| run.slots.iter().any(|s| s.key == slot.key && s.held)).count();
            self.hold(world, holders <= slot.limit as usize, "I15 slots are bounded", || format!("{holders} runs hold {}", slot.key));
        }
    }

    fn on_end(&mut self, world: &World, next: &RunRecord) {
        let (run, id) = (&next.run, next.run.id);
        world.note("ended", low(id), || format!("{id} {}", run.status));
        if !run.slots.is_empty() {
            self.slot_freed = world.now();
        }
        let Some(kill) = &run.kill else { return };
        let wins = if kill.failure.is_some() { RunStatus::Failed } else { RunStatus::Killed };
        self.hold(world, run.status == wins, "I6 a cancel wins", || format!("{id} was killed and is {}", run.status));
        if let Some(calm) = world.calm_since.get() {
            let took = world.now() - at(kill.at).max(calm);
            let bound = Bounds::of(&world.weather).kill();
            self.hold(world, took <= bound, "I6 a cancel is quick", || format!("{id} took {took} us, {bound} are allowed"));
        }
    }
}

/// Whether an attempt counts against the retries of its step: one that a limit interrupted does not.
fn counts(attempt: &Attempt) -> bool {
    attempt.status == AttemptStatus::Failed && !attempt.paused
}
