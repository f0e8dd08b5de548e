//! Clients of both doors: they submit, repeat, cancel and read, and write down what they were told.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use chrono::TimeDelta;
use hopyard_contract::RunId;
use hopyard_contract::submit::{AfterPolicy, RunRequest, VerdictStatus};

use crate::bus::{Body, Cmd, StreamId};
use crate::clockwork::{MS, Mailbox, Micros, S, within};
use crate::door::{Ask, Question, Said};
use crate::plans::Workflow;
use crate::world::{World, low};

/// A client gives up on an answer after this long.
const PATIENCE: Micros = 8 * S;

struct Clients {
    world: Rc<World>,
    /// Runs that somebody was told about.
    known: RefCell<Vec<RunId>>,
    numbers: Cell<u32>,
}

/// Starts the clients of a world; they stop with the storm.
pub(crate) fn start(world: &Rc<World>) {
    world.clock.start(world.clients);
    let clients = Rc::new(Clients { world: world.clone(), known: RefCell::default(), numbers: Cell::new(0) });
    for _ in 0..world.weather.submissions {
        let at = world.fate.between(0, world.weather.storm);
        let own = clients.clone();
        world.clock.spawn(world.clients, async move {
            own.world.clock.sleep(at).await;
            match own.world.fate.index(100) {
                0..55 => own.submit(1).await,
                55..70 => own.submit(2 + own.world.fate.index(3)).await,
                _ => own.publish().await,
            }
        });
    }
    for _ in 0..world.weather.submissions / 2 {
        let at = world.fate.between(world.weather.storm / 10, world.weather.storm);
        let own = clients.clone();
        world.clock.spawn(world.clients, async move {
            own.world.clock.sleep(at).await;
            own.cancel().await;
        });
    }
}

impl Clients {
    fn request(&self, key: Option<String>, workflow: &Workflow) -> RunRequest {
        let fate = &self.world.fate;
        self.numbers.set(self.numbers.get() + 1);
        let mut request: RunRequest = serde_json::from_value(serde_json::json!({
            "workflow": workflow.plan.name, "priority": fate.index(4), "labels": {"body": self.numbers.get().to_string()},
            "repo": {"url": "https://example.org/a.git", "ref": "main"},
        }))
        .expect("the request is valid");
        request.idempotency_key = key;
        if workflow.session {
            request.session = Some(hopyard_contract::Name::literal("nightly"));
        }
        let known = self.known.borrow();
        if !known.is_empty() && fate.chance(200) {
            request.after = vec![*fate.pick(&known)];
            if fate.chance(300) {
                request.after.push(*fate.pick(&known));
            }
            request.after_policy = *fate.pick(&[AfterPolicy::Skip, AfterPolicy::Fail, AfterPolicy::RunAnyway]);
        }
        if fate.chance(100) {
            request.start_at = Some(crate::world::instant(self.world.now() + fate.between(-S, 8 * S)) + TimeDelta::zero());
        }
        request
    }

    /// Asks a door; `None` when it cannot be reached or does not answer.
    async fn ask(&self, ask: Ask) -> Option<Said> {
        let world = &self.world;
        let (process, questions) = world.fate.pick(&world.doors).clone();
        world.clock.sleep(world.fate.between(100, 2 * MS)).await;
        if !world.clock.alive(process) {
            return None;
        }
        let answer = Mailbox::default();
        questions.send(Question { ask, answer: answer.clone() });
        within(&world.clock, PATIENCE, answer.recv()).await
    }

    fn workflow(&self) -> Workflow {
        self.world.fate.pick(&self.world.workflows).clone()
    }

    async fn submit(self: &Rc<Self>, count: usize) {
        let fate = &self.world.fate;
        let keyed = fate.chance(500);
        let key = keyed.then(|| format!("key-{}", fate.between(0, 4)));
        // A batch is mostly many times the same.
        let same = fate.chance(700).then(|| self.workflow());
        let requests: Vec<RunRequest> = (0..count)
            .map(|index| {
                let key = key.as_ref().map(|key| if count > 1 { format!("{key}#{index}") } else { key.clone() });
                self.request(key, same.as_ref().unwrap_or(&self.workflow()))
            })
            .collect();
        if keyed && fate.chance(400) {
            // Somebody else sends the very same at the same time.
            let (own, requests) = (self.clone(), requests.clone());
            self.world.clock.spawn(self.world.clients, async move {
                let said = own.ask(Ask::Submit(requests.clone())).await;
                own.note_submitted(&requests, said);
            });
        }
        let repeats = if keyed { 4 } else { 1 };
        for _ in 0..repeats {
            let said = self.ask(Ask::Submit(requests.clone())).await;
            let definite = self.note_submitted(&requests, said);
            // A repeat of what was answered is the same submission.
            if definite && !(keyed && fate.chance(150)) {
                return;
            }
            self.world.clock.sleep(fate.between(200 * MS, 3 * S)).await;
        }
    }

    fn note_submitted(&self, requests: &[RunRequest], said: Option<Said>) -> bool {
        let world = &self.world;
        let mut journal = world.journal.borrow_mut();
        match said {
            Some(Said::Decided(verdicts)) => {
                for (request, verdict) in requests.iter().zip(verdicts) {
                    journal.answered(match verdict.status {
                        VerdictStatus::Accepted => "accepted",
                        VerdictStatus::Duplicate => "duplicate",
                        VerdictStatus::Rejected => "rejected",
                    });
                    let Some(run) = verdict.run_id else { continue };
                    world.note("told_committed", low(run), || format!("{run} {:?}", verdict.status));
                    journal.committed.entry(run).or_insert(world.now());
                    self.known.borrow_mut().push(run);
                    if let Some(key) = &request.idempotency_key {
                        journal.by_key.entry(key.clone()).or_default().insert((request.labels["body"].clone(), run));
                    }
                    // Read your writes: it is there from now on.
                    world.checks.borrow_mut().readable(world, run);
                }
                true
            }
            Some(Said::OnTheBus(runs, place)) => {
                journal.answered("on_the_bus");
                world.note("told_on_the_bus", place.0, || format!("{runs:?} at {place:?}"));
                self.known.borrow_mut().extend(runs.iter().copied().filter(|_| requests.iter().all(|r| r.idempotency_key.is_none())));
                if requests.iter().any(|r| !r.after.is_empty()) {
                    journal.conditional.extend(runs.iter().copied());
                }
                journal.on_the_bus.push((runs, place));
                true
            }
            Some(Said::NotAccepted(runs)) => {
                journal.answered("not_accepted");
                journal.refused.extend(runs);
                false
            }
            _ => {
                journal.answered("unknown");
                false
            }
        }
    }

    async fn publish(&self) {
        let world = &self.world;
        let key = world.fate.chance(300).then(|| format!("key-{}", world.fate.between(0, 4)));
        let requests = vec![self.request(key, &self.workflow())];
        let body = Body::Cmd(Rc::new(Cmd::Submit(world.namespace.clone(), requests)));
        if let Ok(place) = world.bus.publish(world.clients, StreamId::Cmd, body).await {
            let mut journal = world.journal.borrow_mut();
            journal.answered("published");
            world.note("published", place.0, || format!("{place:?}"));
            journal.published.push(place);
            self.known.borrow_mut().push(RunId::of_bus_message(place.1, place.0, 0));
        }
    }

    async fn cancel(&self) {
        let world = &self.world;
        let known = self.known.borrow().clone();
        if known.is_empty() {
            return;
        }
        let run = known[known.len() - 1 - world.fate.index(known.len().min(4))];
        let said = self.ask(Ask::Cancel(run)).await;
        world.note("cancelled", low(run), || format!("{run}: {said:?}"));
        let mut journal = world.journal.borrow_mut();
        match said {
            Some(Said::Cancelled) => {
                journal.answered("cancelled");
                journal.cancelled.entry(run).or_insert(world.now());
            }
            Some(Said::AlreadyFinal) => journal.answered("already_final"),
            _ => journal.answered("cancel_unknown"),
        }
    }
}
