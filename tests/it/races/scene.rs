//! One race's own runs, and the requests that can be made about them.

use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::message::{
    Accept, Claim, Finished, Hello, KillRun, NewRun, Outcome, Pin, ReceiptHead, Renew, Renewal, Report, Reports, Started, Submission,
    SubmissionItem, WorkspaceRemoved, WorkspaceSaved, WorkspacesQuery,
};
use hopyard_contract::status::FailureCode;
use hopyard_contract::usage::{Tokens, Usage};
use hopyard_contract::{AttemptId, Name, RunId};
use hopyard_scheduler::request::Request;
use serde_json::{Value, json};
use uuid::Uuid;

/// Something that may happen to a run, by the word that failures name it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// An executor claims whatever it may.
    Claim,
    /// The leased attempt's process runs.
    Started,
    /// The lease shall go on.
    Renew,
    /// The attempt is over.
    Finished,
    /// Somebody ends the run.
    Kill,
    /// The clock is looked at by a scheduler that may judge leases.
    Expire,
    /// The clock is looked at by one that may not: backoffs, starts, limits, ends of others.
    Timer,
    /// A submission: of the same id, or of the same key under another.
    Accept,
    /// The same submission, twice on its way.
    AcceptAgain,
    /// A submission of a run of its own, with what the others share.
    AcceptOther,
    /// A run that waits for the first.
    AcceptChild,
    /// A submission of a key that has made the first run, by another id that somebody was told.
    AcceptPromised,
    /// A submission from the command stream.
    AcceptMessage,
    /// The first workspace resolved a ref.
    Pin,
    /// A claim from the other pool.
    ClaimThere,
    /// The second run is ended.
    KillOther,
    /// An executor says who it is, and that it has nothing.
    Hello,
    /// A janitor asks.
    Workspaces,
    /// A janitor kept what was lost.
    Saved,
    /// A workspace is gone.
    Removed,
}

impl Move {
    /// The nine transitions of a run.
    pub const NINE: [Self; 9] =
        [Self::Claim, Self::Started, Self::Renew, Self::Finished, Self::Kill, Self::Expire, Self::Timer, Self::Accept, Self::Pin];

    /// Which run it names and therefore locks before anything else, if that is there.
    pub fn locks(self) -> Option<usize> {
        match self {
            Self::Started | Self::Renew | Self::Finished | Self::Kill | Self::Pin | Self::Saved | Self::Removed => Some(0),
            Self::KillOther => Some(1),
            _ => None,
        }
    }

    /// Whether it passes by what others have locked, and is made again later.
    pub fn skips(self) -> bool {
        matches!(self, Self::Claim | Self::ClaimThere | Self::Expire | Self::Timer)
    }
}

/// What one transaction is asked for, and asked for again until it is answered.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    pub requests: Vec<Request>,
    /// Whether the clock is looked at.
    pub due: bool,
    /// Whether leases may be judged then.
    pub judges: bool,
}

impl Ask {
    /// A look at the clock.
    pub fn look(judges: bool) -> Self {
        Self { requests: Vec::new(), due: true, judges }
    }

    /// What several ask for, as one.
    pub fn all(asks: impl IntoIterator<Item = Self>) -> Self {
        asks.into_iter().fold(Self::default(), |mut all, ask| {
            all.requests.extend(ask.requests);
            Self { due: all.due || ask.due, judges: all.judges || ask.judges, ..all }
        })
    }
}

impl From<Request> for Ask {
    fn from(request: Request) -> Self {
        Self { requests: vec![request], ..Self::default() }
    }
}

/// A race's names, runs and leases.
pub struct Scene {
    pub namespace: Name,
    pub pools: [Name; 2],
    pub host: Name,
    pub number: u64,
    pub key: String,
    /// Runs that there are, or may be.
    pub runs: Vec<RunId>,
    pub plan: (Name, String),
    pub base: DateTime<Utc>,
    /// Attempts that were granted, with their tokens; reports are about the first.
    pub leases: Vec<(AttemptId, Uuid)>,
    /// Ids of claims: of either contestant, of either when it comes back, and of whoever came before them.
    pub claims: [Uuid; 5],
    /// Fields of requests beside those that every scene has.
    pub extra: Value,
}

/// Executors by contestant; they may be one.
const EXECUTORS: [&str; 2] = ["e1", "e2"];

impl Scene {
    /// A request as the contestant `who` makes it.
    pub fn ask(&self, what: Move, who: usize, one_executor: bool) -> Ask {
        let executor = Name::literal(EXECUTORS[if one_executor { 0 } else { who }]);
        match what {
            Move::Claim => self.claim(executor, self.claims[who], 0, 8).into(),
            Move::ClaimThere => self.claim(executor, self.claims[who], 1, 8).into(),
            Move::Started => reports(vec![Report::Started(self.started())]),
            Move::Renew => self.renew(who),
            Move::Finished => reports(vec![Report::Finished(self.finished(who))]),
            Move::Kill => self.kill(self.runs[0], who).into(),
            Move::KillOther => self.kill(self.runs[1], who).into(),
            Move::Expire => Ask::look(true),
            Move::Timer => Ask::look(false),
            Move::Accept => self.accept(self.runs[who], self.keyed()),
            Move::AcceptAgain => self.accept(self.runs[0], self.keyed()),
            Move::AcceptOther => self.accept(self.runs[1 + who], json!({})),
            Move::AcceptChild => self.accept(self.runs[1], json!({"after": [self.runs[0]]})),
            Move::AcceptPromised => self.submission(self.runs[1], self.keyed(), None, true),
            Move::AcceptMessage => self.submission(self.runs[0], self.keyed(), Some(self.receipt()), false),
            Move::Pin => {
                let (attempt, token) = self.lease();
                Request::Pin(Pin { attempt, token, commit: ["1", "2"][who].repeat(40) }).into()
            }
            Move::Hello => Request::Hello(Hello {
                executor,
                incarnation: self.claims[4],
                host: self.host.clone(),
                pool: self.pools[0].clone(),
                slots: 4,
                version: "1".to_owned(),
                draining: false,
                workspaces: Vec::new(),
            })
            .into(),
            Move::Workspaces => {
                let found = vec![format!("{}-g1", self.runs[0])];
                Request::Workspaces(WorkspacesQuery { host: self.host.clone(), found, only_found: false }).into()
            }
            Move::Saved => reports(vec![Report::WorkspaceSaved(WorkspaceSaved {
                attempt: self.lease().0,
                snapshot: Some("5".repeat(40)),
                bundle: None,
                log: None,
                log_bytes: 5,
                usage: Usage::default(),
            })]),
            Move::Removed => reports(vec![Report::WorkspaceRemoved(WorkspaceRemoved {
                id: format!("{}-g1", self.runs[0]),
                host: self.host.clone(),
                bytes: 9,
                reason: "reclaimed".to_owned(),
            })]),
        }
    }

    /// The same once more: a claim that comes back is a new one.
    pub fn ask_again(&self, what: Move, who: usize, one_executor: bool) -> Ask {
        let mut ask = self.ask(what, who, one_executor);
        for request in &mut ask.requests {
            if let Request::Claim(claim) = request {
                claim.claim_id = self.claims[2 + who];
            }
        }
        ask
    }

    /// What makes a submission one of the scene's key.
    pub fn keyed(&self) -> Value {
        json!({"idempotency_key": self.key})
    }

    fn lease(&self) -> (AttemptId, Uuid) {
        self.leases.first().cloned().expect("the scene has a lease")
    }

    pub fn claim(&self, executor: Name, claim_id: Uuid, pool: usize, free: u32) -> Request {
        Request::Claim(Claim { claim_id, executor, host: self.host.clone(), pool: self.pools[pool].clone(), free })
    }

    pub fn kill(&self, run: RunId, who: usize) -> Request {
        let by = ["ada", "bob"][who].to_owned();
        Request::Kill(KillRun { namespace: self.namespace.clone(), run, by, reason: None, force: who == 1 })
    }

    fn started(&self) -> Started {
        let (attempt, token) = self.lease();
        Started { attempt, token, pid: 7, workspace: "/w/1".to_owned(), before: Some("b".repeat(40)), at: self.base }
    }

    /// The first says that it went well, the second that it went badly.
    fn finished(&self, who: usize) -> Finished {
        let failed = Outcome::Failed { code: FailureCode::ExitCode, message: "ended with 1".to_owned() };
        self.ended(self.lease(), [Outcome::Completed, failed][who].clone(), 100)
    }

    /// The end of a leased attempt.
    pub fn ended(&self, (attempt, token): (AttemptId, Uuid), outcome: Outcome, used: u64) -> Finished {
        Finished {
            pid: Some(7),
            workspace: Some("/w/1".to_owned()),
            started_at: Some(self.base),
            exit_code: Some(0),
            usage: usage(used),
            log_bytes: used,
            snapshot: Some("c".repeat(40)),
            ..Finished::new(attempt, token, outcome, self.base + TimeDelta::days(1))
        }
    }

    fn renew(&self, who: usize) -> Ask {
        let (attempt, token) = self.lease();
        let lease = Renewal { attempt, token, usage: usage(10 + who as u64), log_bytes: 1 };
        Request::Renew(Renew { executor: Name::literal(EXECUTORS[0]), leases: vec![lease] }).into()
    }

    pub fn accept(&self, run_id: RunId, with: Value) -> Ask {
        self.submission(run_id, with, None, false)
    }

    fn submission(&self, run_id: RunId, with: Value, receipt: Option<ReceiptHead>, promised: bool) -> Ask {
        let new = NewRun {
            run_id,
            request: self.request(run_id, with),
            workflow: self.plan.0.clone(),
            definition_hash: self.plan.0.to_string(),
            plan_hash: self.plan.1.clone(),
            request_hash: "r".to_owned(),
            recordings: Default::default(),
            traceparent: None,
        };
        let items = vec![SubmissionItem::Run(Box::new(new))];
        let submission = Submission { namespace: self.namespace.clone(), receipt, promised, received_at: self.base, items };
        Request::Accept(Accept { submissions: vec![submission] }).into()
    }

    fn request(&self, run: RunId, with: Value) -> hopyard_contract::submit::RunRequest {
        // The second run of a scene is in the second pool.
        let pool = &self.pools[usize::from(run == self.runs[1])];
        let mut request = json!({"pool": pool});
        for fields in [&self.extra, &with] {
            request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        }
        serde_json::from_value(request).unwrap()
    }

    /// The place in the command stream of the scene's one message.
    pub fn receipt(&self) -> ReceiptHead {
        ReceiptHead { seq: 1 + self.number, time_ns: self.base.timestamp_nanos_opt().unwrap() }
    }
}

/// Reports of the first executor.
pub fn reports(reports: Vec<Report>) -> Ask {
    Request::Reports(Reports { v: 1, from: Name::literal(EXECUTORS[0]), reports }).into()
}

fn usage(n: u64) -> Usage {
    Usage { cost_microusd: Some(n), tokens: Tokens { input: n, output: n, cache_read: 0, cache_write: 0 }, turns: n, tool_calls: n }
}
