//! Requests to the schedulers: first one of them, then all; whoever answers first.

use std::rc::Rc;

use hopyard_contract::message::RpcError;
use hopyard_scheduler::request::{Answer, Request};

use super::Bus;
use crate::clockwork::{Mailbox, ProcessId, S, within};

/// Why a request was not answered with what was asked for.
#[derive(Clone, Debug)]
pub(crate) enum CallError {
    /// Nobody listened: it was surely not done.
    Nobody,
    /// It may or may not have been done.
    Unknown,
    /// A scheduler refused it.
    Refused,
}

/// A request as a scheduler hears it.
#[derive(Clone)]
pub(crate) struct Heard {
    /// What is asked.
    pub(crate) request: Rc<Request>,
    asker: ProcessId,
    answers: Mailbox<Result<Answer, RpcError>>,
}

impl Bus {
    /// Listens to requests.
    pub(crate) fn listen(&self, process: ProcessId) -> Mailbox<Heard> {
        let mailbox = Mailbox::default();
        self.0.state.borrow_mut().ears.insert(process, mailbox.clone());
        mailbox
    }

    /// Asks the schedulers: the first second one of them, then all of them.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) async fn call(&self, from: ProcessId, request: Request) -> Result<Answer, CallError> {
        let request = Rc::new(request);
        let mut maybe_done = false;
        for all in [false, true] {
            let ears: Vec<(ProcessId, Mailbox<Heard>)> = {
                let state = self.0.state.borrow();
                state.ears.iter().filter(|(to, _)| !state.cut.contains(to)).map(|(to, ears)| (*to, ears.clone())).collect()
            };
            if self.connected(from) && ears.is_empty() {
                self.0.clock.sleep(self.0.fate.between(200, 2000)).await;
                continue;
            }
            let answers = Mailbox::default();
            let chosen = self.0.fate.index(ears.len());
            for (index, (to, ears)) in ears.into_iter().enumerate() {
                if all || index == chosen {
                    let heard = Heard { request: request.clone(), asker: from, answers: answers.clone() };
                    self.carry(from, Some(to), move || ears.send(heard.clone()));
                }
            }
            match within(&self.0.clock, S, answers.recv()).await {
                Some(Ok(answer)) => return Ok(answer),
                Some(Err(_)) => return Err(CallError::Refused),
                None => maybe_done = true,
            }
        }
        Err(if maybe_done { CallError::Unknown } else { CallError::Nobody })
    }

    /// Answers a request.
    pub(crate) fn answer(&self, from: ProcessId, heard: &Heard, answer: Result<Answer, RpcError>) {
        let answers = heard.answers.clone();
        self.carry(from, Some(heard.asker), move || answers.send(answer.clone()));
    }
}
