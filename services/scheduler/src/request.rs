//! What is asked of the scheduler, and what it answers.

use hopyard_contract::message::{
    Accept, AcceptReply, AnswerReply, AnswerStep, Claim, ClaimReply, Hello, HelloReply, KillReply, KillRun, Pin, PinReply, Renew,
    RenewReply, Reports, ResumeReply, ResumeRun, WorkspacesQuery, WorkspacesReply,
};

/// One thing to be decided and committed.
#[derive(Clone, Debug)]
pub enum Request {
    /// Submissions.
    Accept(Accept),
    /// An executor has free slots.
    Claim(Claim),
    /// Leases shall go on.
    Renew(Renew),
    /// The first workspace resolved a ref.
    Pin(Pin),
    /// Someone ends a run.
    Kill(KillRun),
    /// Someone answers the question of a step.
    Answer(AnswerStep),
    /// Someone lets a paused run go on.
    Resume(ResumeRun),
    /// An executor says who it is.
    Hello(Hello),
    /// A janitor asks what may go.
    Workspaces(WorkspacesQuery),
    /// Reports of executors and janitors; answered with an acknowledgement.
    Reports(Reports),
}

impl Request {
    /// Its name, as counted.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Accept(_) => "accept",
            Self::Claim(_) => "claim",
            Self::Renew(_) => "renew",
            Self::Pin(_) => "pin",
            Self::Kill(_) => "kill",
            Self::Answer(_) => "answer",
            Self::Resume(_) => "resume",
            Self::Hello(_) => "hello",
            Self::Workspaces(_) => "workspaces",
            Self::Reports(_) => "reports",
        }
    }
}

/// The answer to one request, given after the commit.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To `accept`.
    Accept(AcceptReply),
    /// To `claim`.
    Claim(ClaimReply),
    /// To `renew`.
    Renew(RenewReply),
    /// To `pin`.
    Pin(PinReply),
    /// To `kill`.
    Kill(KillReply),
    /// To `answer`.
    Answer(AnswerReply),
    /// To `resume`.
    Resume(ResumeReply),
    /// To `hello`.
    Hello(HelloReply),
    /// To `workspaces`.
    Workspaces(WorkspacesReply),
    /// Reports are acknowledged.
    Done,
}
