//! The door: takes submissions and cancels, hands them to a scheduler, else to the bus, and never says more than it knows.

use std::rc::Rc;

use hopyard_contract::message::{Accept, KillReply, KillRun, NewRun, ReceiptHead, Submission, SubmissionItem};
use hopyard_contract::submit::{RunRequest, Verdict};
use hopyard_contract::{Name, RunId};
use hopyard_scheduler::request::{Answer, Request};

use crate::bugs::Bug;
use crate::bus::{Body, CallError, Cmd, Delivery, PublishError, StreamId};
use crate::clockwork::{MS, Mailbox, Micros, ProcessId, S};
use crate::plans::Workflow;
use crate::world::World;

/// How long a submission waits for a lost connection to come back.
const RECONNECT: Micros = 2 * S;

/// A request by HTTP.
#[derive(Clone)]
pub(crate) struct Question {
    /// What is asked for.
    pub(crate) ask: Ask,
    /// Where the answer goes.
    pub(crate) answer: Mailbox<Said>,
}

/// What is asked for by HTTP.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// Runs.
    Submit(Vec<RunRequest>),
    /// The end of a run.
    Cancel(RunId),
}

/// What a door says.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    /// A verdict per run, committed.
    Decided(Vec<Verdict>),
    /// Only the bus has it.
    OnTheBus(Vec<RunId>, (u64, i64)),
    /// Surely nothing was done; these ids were minted in vain.
    NotAccepted(Vec<RunId>),
    /// It may or may not have been done.
    Unknown,
    /// The cancel is committed.
    Cancelled,
    /// The bus has the cancel.
    CancelOnTheBus,
    /// The run had ended.
    AlreadyFinal,
    /// There is no such run.
    NoSuchRun,
}

#[derive(Clone)]
struct Door {
    world: Rc<World>,
    process: ProcessId,
}

/// Starts a door.
pub(crate) fn start(world: &Rc<World>, index: usize) {
    let (process, questions) = world.doors[index].clone();
    world.clock.start(process);
    questions.clear();
    let door = Door { world: world.clone(), process };
    let own = door.clone();
    world.clock.spawn(process, async move {
        loop {
            let question = questions.recv().await;
            let own = own.clone();
            let clock = own.world.clock.clone();
            clock.spawn(process, async move {
                let said = match question.ask {
                    Ask::Submit(requests) => own.submit(requests).await,
                    Ask::Cancel(run) => own.cancel(run).await,
                };
                question.answer.send(said);
            });
        }
    });
    world.clock.spawn(process, async move {
        loop {
            for delivery in door.world.bus.fetch(process, StreamId::Cmd, 512).await {
                let own = door.clone();
                door.world.clock.spawn(process, async move { own.on_command(delivery).await });
            }
        }
    });
}

impl Door {
    fn new_run(&self, run_id: RunId, request: &RunRequest) -> NewRun {
        let workflow = self.workflow(request);
        // As sent: labels tell bodies apart here.
        let request_hash = format!("{:?}", (&request.workflow, &request.labels, &request.after, &request.session));
        NewRun {
            run_id,
            request: request.clone(),
            workflow: workflow.plan.name.clone(),
            definition_hash: workflow.plan.name.to_string(),
            plan_hash: workflow.hash.clone(),
            request_hash,
            recordings: Default::default(),
            traceparent: None,
        }
    }

    fn workflow(&self, request: &RunRequest) -> &Workflow {
        let named = self.world.workflows.iter().find(|w| Some(&w.plan.name) == request.workflow.as_ref());
        named.unwrap_or(&self.world.workflows[0])
    }

    async fn submit(&self, requests: Vec<RunRequest>) -> Said {
        let world = &self.world;
        let deadline = world.now() + RECONNECT;
        let ids: Vec<RunId> = requests.iter().map(|_| world.mint(self.process)).collect();
        while !world.bus.connected(self.process) {
            if world.now() >= deadline {
                return Said::NotAccepted(ids);
            }
            world.clock.sleep(20 * MS).await;
        }
        let items = ids.iter().zip(&requests).map(|(id, request)| SubmissionItem::Run(Box::new(self.new_run(*id, request)))).collect();
        let received_at = world.wall(self.process);
        let mut submission = Submission { namespace: world.namespace.clone(), receipt: None, promised: false, received_at, items };
        let error = match self.accept(submission.clone()).await {
            Ok(verdicts) => return Said::Decided(verdicts),
            Err(error) => error,
        };
        if world.has(Bug::CreatedOnTimeout) {
            return Said::Decided(ids.into_iter().map(Verdict::accepted).collect());
        }
        if world.has(Bug::NewIdPerTry) {
            submission.items.iter_mut().for_each(|item| {
                if let SubmissionItem::Run(new) = item {
                    new.run_id = world.mint(self.process);
                }
            });
        }
        let body = Body::Cmd(Rc::new(Cmd::Accept(submission)));
        match world.bus.publish(self.process, StreamId::Cmd, body).await {
            Ok(place) => Said::OnTheBus(ids, place),
            Err(_) if world.has(Bug::AcceptedWithoutBus) => Said::OnTheBus(ids, (0, 0)),
            Err(PublishError::Refused) if matches!(error, CallError::Nobody) => Said::NotAccepted(ids),
            Err(_) => Said::Unknown,
        }
    }

    async fn accept(&self, submission: Submission) -> Result<Vec<Verdict>, CallError> {
        let request = Request::Accept(Accept { submissions: vec![submission] });
        match self.world.bus.call(self.process, request).await {
            Ok(Answer::Accept(reply)) => reply.submissions.into_iter().next().ok_or(CallError::Unknown),
            Ok(_) => Err(CallError::Unknown),
            Err(error) => Err(error),
        }
    }

    async fn kill(&self, run: RunId) -> Result<KillReply, CallError> {
        let ask = KillRun { namespace: self.world.namespace.clone(), run, by: "someone".to_owned(), reason: None, force: false };
        match self.world.bus.call(self.process, Request::Kill(ask)).await? {
            Answer::Kill(reply) => Ok(reply),
            _ => Err(CallError::Unknown),
        }
    }

    async fn cancel(&self, run: RunId) -> Said {
        match self.kill(run).await {
            Ok(KillReply::Requested | KillReply::Repeated | KillReply::Tombstone) => Said::Cancelled,
            Ok(KillReply::AlreadyFinal) => Said::AlreadyFinal,
            Ok(KillReply::Unknown) => Said::NoSuchRun,
            Err(_) => {
                let body = Body::Cmd(Rc::new(Cmd::Cancel(self.world.namespace.clone(), run)));
                match self.world.bus.publish(self.process, StreamId::Cmd, body).await {
                    Ok(_) => Said::CancelOnTheBus,
                    Err(_) => Said::Unknown,
                }
            }
        }
    }

    async fn on_command(&self, delivery: Delivery) {
        let Body::Cmd(command) = &delivery.body else { return };
        if self.world.has(Bug::CommandAckedEarly) {
            self.world.bus.ack(self.process, &delivery);
        }
        let outcome = match &**command {
            Cmd::Submit(namespace, requests) => self.on_submit(&delivery, namespace, requests).await,
            Cmd::Accept(submission) => {
                let promised = !self.world.has(Bug::AliasForgotten);
                let head = self.with_receipt(&delivery, &submission.namespace, submission.items.clone());
                self.accept(Submission { promised, ..head }).await.map(drop)
            }
            Cmd::Cancel(namespace, run) => self.on_cancel(&delivery, namespace, *run).await,
        };
        match outcome {
            Ok(()) => self.world.bus.ack(self.process, &delivery),
            Err(_) => {
                let seconds = 1i64 << delivery.deliveries.saturating_sub(1).min(5);
                self.world.bus.again(self.process, &delivery, seconds.min(30) * S);
            }
        }
    }

    async fn on_submit(&self, delivery: &Delivery, namespace: &Name, requests: &[RunRequest]) -> Result<(), CallError> {
        let id = |item: u32| {
            if self.world.has(Bug::NewIdPerTry) {
                self.world.mint(self.process)
            } else {
                RunId::of_bus_message(delivery.time_ns, delivery.seq, item)
            }
        };
        let items = (0u32..).zip(requests).map(|(item, request)| SubmissionItem::Run(Box::new(self.new_run(id(item), request)))).collect();
        self.accept(self.with_receipt(delivery, namespace, items)).await.map(drop)
    }

    async fn on_cancel(&self, delivery: &Delivery, namespace: &Name, run: RunId) -> Result<(), CallError> {
        let item = match self.kill(run).await? {
            KillReply::Requested | KillReply::Repeated | KillReply::Tombstone => SubmissionItem::Done(Verdict::accepted(run)),
            KillReply::AlreadyFinal | KillReply::Unknown => SubmissionItem::Rejected(Vec::new()),
        };
        self.accept(self.with_receipt(delivery, namespace, vec![item])).await.map(drop)
    }

    fn with_receipt(&self, delivery: &Delivery, namespace: &Name, items: Vec<SubmissionItem>) -> Submission {
        let receipt = Some(ReceiptHead { seq: delivery.seq, time_ns: delivery.time_ns });
        let received_at = chrono::DateTime::from_timestamp_nanos(delivery.time_ns);
        Submission { namespace: namespace.clone(), receipt, promised: false, received_at, items }
    }
}
