//! Joins submissions that wait at the same time into few calls; an idle door adds no delay.

use std::sync::Arc;
use std::time::Duration;

use hopyard_contract::message::{AcceptReply, Submission};
use hopyard_contract::subject::Verb;
use hopyard_contract::submit::Verdict;
use hopyard_runtime::rpc::{self, CallError};
use hopyard_runtime::tasks::Tasks;
use hopyard_runtime::{Bus, bounds};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::instruments::accepts;

/// Most runs of one call.
const MAX_ITEMS: usize = 500;
/// Calls under way at once: one is on its way while the schedulers work on the other.
const IN_FLIGHT: usize = 2;
/// Name of the queue on `/metrics`.
const QUEUE: &str = "accept";
/// Submissions that may wait; beyond it the door says that it is overloaded.
const WAITING: usize = 2048;
/// Longest wait for a place among them.
const PATIENCE: Duration = Duration::from_secs(1);
/// Kept free in a message for its envelope and headers.
const MARGIN: usize = 64 * 1024;

/// Why there are no verdicts.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unanswered {
    /// Nothing was sent: nobody listens.
    #[error("no scheduler listens")]
    Nobody,
    /// Nothing was sent: too many submissions wait already.
    #[error("too many submissions wait")]
    Overloaded,
    /// A scheduler could not read it; sending it again would not help.
    #[error("a scheduler could not read it: {0}")]
    Unreadable(String),
    /// It may or may not have been done.
    #[error("{0}")]
    Unknown(String),
}

/// Hands submissions to the schedulers; cheap to clone.
#[derive(Clone, Debug)]
pub struct Batcher {
    sender: mpsc::Sender<Waiting>,
    bus: Bus,
}

#[derive(Debug)]
struct Waiting {
    submission: Arc<Submission>,
    size: usize,
    answer: oneshot::Sender<Result<Vec<Verdict>, Unanswered>>,
}

/// The message `Accept`, without a copy of what it holds.
#[derive(Serialize)]
struct Accept<'a> {
    submissions: Vec<&'a Submission>,
}

impl Batcher {
    /// Starts the task that joins and sends.
    pub fn start(bus: &Bus, tasks: &Tasks) -> Self {
        let (sender, waiting) = bounds::channel(QUEUE, WAITING);
        let stop = tasks.stopping().clone();
        let (own_bus, own_tasks) = (bus.clone(), tasks.clone());
        tasks.spawn("accept-batches", async move {
            stop.run_until_cancelled(join_for_ever(own_bus, own_tasks, waiting)).await;
            Ok(())
        });
        Self { sender, bus: bus.clone() }
    }

    /// Most bytes of submissions in one message.
    pub fn room(&self) -> usize {
        self.bus.max_payload().saturating_sub(MARGIN).max(MARGIN)
    }

    /// Hands over one submission of `size` bytes and waits for its verdicts, one per item.
    ///
    /// # Errors
    /// [`Unanswered`], by whether it may have been done.
    pub async fn accept(&self, submission: Arc<Submission>, size: usize) -> Result<Vec<Verdict>, Unanswered> {
        let (answer, verdicts) = oneshot::channel();
        let items = submission.items.len();
        let place = match tokio::time::timeout(PATIENCE, self.sender.reserve()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) | Err(_) => {
                bounds::overflow(QUEUE);
                return Err(Unanswered::Overloaded);
            }
        };
        place.send(Waiting { submission, size, answer });
        match verdicts.await {
            Ok(Ok(verdicts)) if verdicts.len() != items => Err(Unanswered::Unknown("the answer does not fit the submission".to_owned())),
            Ok(answer) => answer,
            Err(_) => Err(Unanswered::Unknown("the hand-over was interrupted".to_owned())),
        }
    }
}

async fn join_for_ever(bus: Bus, tasks: Tasks, mut waiting: mpsc::Receiver<Waiting>) {
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut left_over = None;
    loop {
        let first = match left_over.take() {
            Some(first) => first,
            None => match waiting.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        // Whatever arrives while both calls are under way travels together in the next one.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let room = bus.max_payload().saturating_sub(MARGIN).max(MARGIN);
        let (mut items, mut bytes) = (first.submission.items.len(), first.size);
        let mut batch = vec![first];
        while let Ok(next) = waiting.try_recv() {
            items += next.submission.items.len();
            bytes += next.size;
            if items > MAX_ITEMS || bytes > room {
                left_over = Some(next);
                break;
            }
            batch.push(next);
        }
        let bus = bus.clone();
        tasks.spawn_part("accept-call", async move {
            let answers = call(&bus, &batch).await;
            drop(slot);
            for (waiting, answer) in batch.into_iter().zip(answers) {
                // Whoever asked may have gone away; the run is committed all the same.
                waiting.answer.send(answer).ok();
            }
            Ok(())
        });
    }
}

async fn call(bus: &Bus, batch: &[Waiting]) -> Vec<Result<Vec<Verdict>, Unanswered>> {
    let request = Accept { submissions: batch.iter().map(|w| &*w.submission).collect() };
    hopyard_runtime::failpoint!("ingest.accept.before_rpc");
    let error = match rpc::call::<_, AcceptReply>(bus, Verb::Accept, &request).await {
        Ok(reply) if reply.submissions.len() == batch.len() => {
            hopyard_runtime::failpoint!("ingest.accept.answered");
            accepts().with_label_values(&["answered"]).inc();
            return reply.submissions.into_iter().map(Ok).collect();
        }
        Ok(_) => Unanswered::Unknown("the answer does not fit the request".to_owned()),
        Err(CallError::Nobody) => Unanswered::Nobody,
        Err(CallError::Refused(error)) if error.code == "bad_request" => Unanswered::Unreadable(error.detail),
        Err(error) => Unanswered::Unknown(error.to_string()),
    };
    let outcome = match &error {
        Unanswered::Nobody => "nobody",
        Unanswered::Unreadable(_) => "unreadable",
        _ => "unknown",
    };
    accepts().with_label_values(&[outcome]).inc();
    tracing::warn!(%error, submissions = batch.len(), "submissions could not be handed over");
    vec![Err(error); batch.len()]
}
