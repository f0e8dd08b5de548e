//! One attempt, from its grant to exactly one `finished`: a straight line that ends the same way on panic, kill,
//! timeout and lease loss.

mod outcome;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use futures::FutureExt as _;
use hopyard_contract::message::{Finished, Grant, Outcome, Report, Started};
use hopyard_contract::plan::Work;
use hopyard_contract::status::FailureCode;
use hopyard_runtime::clock::BootInstant;

use self::outcome::outcome;
use crate::asker::Asker;
use crate::files::{PRIVATE, write_private};
use crate::live::Attempt;
use crate::process::{ExitFacts, ExitKind, Lease, Limits, ProcessSpec, StepProcess, StepSpec, environment, outputs};
use crate::prompts::PromptError;
use crate::spools::{self, FINISHED_FILE, QUESTION_FILE};
use crate::workspaces::{self, Author, Kept, OpenError, Ready};
use crate::{Executor, agent, choose, deliver, instruments, llm, logs, replay};

/// Why an agent that may read only fails.
const READ_ONLY: &str = "the agent may only read and changed files; what it changed is in the snapshot of the attempt";
/// What a step hands to those that need it.
pub(crate) type Outputs = BTreeMap<String, String>;

/// A result that nobody settles is published again.
const REPEAT: Duration = Duration::from_secs(5);

/// Carries an attempt out in a task of its own.
pub(crate) fn start(executor: &Arc<Executor>, grant: Grant, live: Arc<Attempt>) {
    let own = executor.clone();
    executor.ctx.tasks.spawn_part("attempt", async move {
        let dir = own.spools.dir(&grant.attempt);
        let line = AssertUnwindSafe(own.carry_out(&grant, &live, &dir)).catch_unwind().await;
        let finished = match line {
            Ok(finished) => finished,
            Err(_) => own.after_panic(&grant, &dir).await?,
        };
        live.close();
        own.live.free_slot();
        own.reporter.ring();
        own.report_until_settled(finished, &live, &dir).await;
        hopyard_runtime::failpoint!("executor.spool.removed");
        own.live.leave(&grant.attempt);
        Ok(())
    });
}

/// A result without a process.
fn ended(grant: &Grant, outcome: Outcome) -> Finished {
    Finished::new(grant.attempt.clone(), grant.token, outcome, Utc::now())
}

pub(crate) fn failed(code: FailureCode, message: String) -> Outcome {
    Outcome::Failed { code, message }
}

impl Executor {
    /// Makes the attempt's spool directory and keeps the grant in it.
    async fn prepare(&self, grant: &Grant) -> anyhow::Result<()> {
        let script = match &grant.work {
            Work::Shell(script) => Some(script.clone()),
            _ => None,
        };
        let (spools, attempt, grant) = (self.spools.clone(), grant.attempt.clone(), serde_json::to_vec(grant)?);
        tokio::task::spawn_blocking(move || spools.take(&attempt, &grant, script.as_deref())).await?
    }

    async fn carry_out(self: &Arc<Self>, grant: &Grant, live: &Arc<Attempt>, dir: &Path) -> Finished {
        if let Err(error) = self.prepare(grant).await {
            return ended(grant, failed(disk_code(&error), format!("{error:#}")));
        }
        hopyard_runtime::failpoint!("executor.grant.kept");
        if live.standing().borrow().kill.is_some() {
            return ended(grant, Outcome::Killed);
        }
        self.live.end_earlier(&grant.attempt).await;
        let began = BootInstant::now();
        let ready = match self.workspaces.open(grant, &dir.join(spools::WORK), &self.blobs).await {
            Ok(ready) => ready,
            Err(OpenError::Stale) => return ended(grant, Outcome::HandedBack),
            Err(OpenError::Failed(error)) => return ended(grant, failed(FailureCode::WorkspaceError, format!("{error:#}"))),
        };
        hopyard_runtime::failpoint!("executor.workspace.made");
        instruments::workspace_seconds().with_label_values(&[workspaces::kind(&grant.workspace)]).observe(began.elapsed().as_secs_f64());
        match &grant.work {
            Work::Shell(script) => self.run(grant, live, dir, &ready, Ok((shell(grant, dir, script), None))).await,
            Work::Agent(spec) => {
                let ready_to_go = agent::ready(self, grant, live, dir, &ready.path, spec).await;
                self.run(grant, live, dir, &ready, ready_to_go.map(|(command, agent)| (command, Some(Asker::Agent(Box::new(agent)))))).await
            }
            Work::Llm(spec) => {
                let ready_to_go = llm::ready(self, grant, live, dir, &ready.path, spec).await;
                self.run(grant, live, dir, &ready, ready_to_go.map(|(command, llm)| (command, Some(Asker::Llm(Box::new(llm)))))).await
            }
            Work::Replay(recorded) => {
                let command = replay::ready(self, grant, dir, &ready, recorded).await;
                let mut finished = self.run(grant, live, dir, &ready, command).await;
                replay::complete(&mut finished, recorded);
                finished
            }
            Work::Approval(_) => ended(grant, failed(FailureCode::EngineError, "an approval is no executor's work".to_owned())),
            Work::BestOf(spec) => {
                let taken_over = choose::take_over(self, grant, live, &ready, spec);
                self.by_itself(grant, dir, &ready, taken_over).await
            }
            Work::Deliver(deliver) => {
                let delivered = deliver::deliver(self, grant, live, &ready, deliver);
                self.by_itself(grant, dir, &ready, delivered).await
            }
        }
    }

    /// Work without a process of its own: the executor is the process.
    async fn by_itself(&self, grant: &Grant, dir: &Path, ready: &Ready, work: impl Future<Output = Result<Outputs, Outcome>>) -> Finished {
        let (pid, started_at) = (std::process::id(), Utc::now());
        self.report_started(grant, ready, pid).await;
        let (outcome, outputs) = match work.await {
            Ok(outputs) => (Outcome::Completed, outputs),
            Err(outcome) => (outcome, Outputs::new()),
        };
        let mut finished = self.close(grant, dir, ready, None, outcome).await;
        finished.pid = Some(pid);
        finished.workspace = Some(ready.path.display().to_string());
        finished.started_at = Some(started_at);
        if finished.outcome == Outcome::Completed {
            finished.outputs = outputs;
        }
        finished
    }

    /// After a fault of our own: as after a restart, nothing of the attempt goes on, and what it made is kept.
    async fn after_panic(&self, grant: &Grant, dir: &Path) -> anyhow::Result<Finished> {
        tracing::error!(attempt = %grant.attempt, "an attempt panicked");
        crate::recover::end_leftovers(grant.attempt.to_string()).await?;
        let outcome = failed(FailureCode::EngineError, "the executor panicked; its log has more".to_owned());
        match AssertUnwindSafe(self.lost(grant, dir)).catch_unwind().await {
            Ok(finished) => Ok(Finished { outcome, ..finished }),
            // What was made stays in its workspace, from which a janitor saves it.
            Err(_) => Ok(ended(grant, outcome)),
        }
    }

    /// Runs a command from its start to the end of its whole tree; what asks models is listened to meanwhile.
    async fn run(
        self: &Arc<Self>,
        grant: &Grant,
        live: &Arc<Attempt>,
        dir: &Path,
        ready: &Ready,
        command: anyhow::Result<(Command, Option<Asker>)>,
    ) -> Finished {
        // Nothing has run yet that could be held still.
        if let Err(outcome) = live.relied_on(self.settings.freeze_limit).await {
            return self.close(grant, dir, ready, None, outcome).await;
        }
        let spawned = async {
            let (command, asker) = command?;
            anyhow::Ok((self.spawn(grant, live, dir, ready, command).await?, asker.map(Arc::new)))
        };
        let (process, asker) = match spawned.await {
            Ok(spawned) => spawned,
            Err(error) => {
                let code = setup_code(&error);
                return self.close(grant, dir, ready, None, failed(code, format!("{error:#}"))).await;
            }
        };
        hopyard_runtime::failpoint!("executor.spawned");
        live.attach(process.clone());
        let (bus, namespace, id, tail) = (self.ctx.bus.clone(), grant.namespace.clone(), grant.attempt.clone(), process.clone());
        let shipping = self.ctx.tasks.spawn_part("logs", logs::ship(bus, namespace, id, tail));
        let listening = asker.clone().map(|asker| {
            let (process, live) = (process.clone(), live.clone());
            self.ctx.tasks.spawn_part("asker", async move { asker.listen(&process, &live).await })
        });
        if let Some(pid) = process.started().await.and_then(|pid| u32::try_from(pid).ok()) {
            self.report_started(grant, ready, pid).await;
            hopyard_runtime::failpoint!("executor.started.sent");
        }
        let exit = process.wait().await;
        hopyard_runtime::failpoint!("executor.process.ended");
        // The live tail is a courtesy; what the log says for good comes from the spool.
        if tokio::time::timeout(Duration::from_secs(5), shipping).await.is_err() {
            tracing::warn!(attempt = %grant.attempt, "the live log could not be sent in time");
        }
        // It reads from the spool, so that it is at the end soon after the process is.
        if let Some(listening) = listening {
            listening.await.unwrap_or_default();
        }
        let mut finished = match exit {
            Ok(facts) => {
                let plain = outcome(&facts, live, grant);
                let outcome = match &asker {
                    Some(asker) => asker.outcome(&facts, plain),
                    None => plain,
                };
                self.close(grant, dir, ready, Some((facts, process)), outcome).await
            }
            Err(error) => self.close(grant, dir, ready, None, failed(FailureCode::EngineError, format!("{error:#}"))).await,
        };
        if let Some(asker) = asker {
            asker.close().await;
            finished.usage = asker.usage();
            finished.note = asker.difference();
            if finished.outcome == Outcome::Completed {
                finished.outputs.extend(asker.outputs());
                // Whatever its program made of what it was told: it may look only.
                if asker.only_reads() && finished.snapshot != finished.before {
                    finished.outcome = failed(FailureCode::PolicyDenied, READ_ONLY.to_owned());
                }
            }
            finished.record = self.until_stored(grant, || asker.keep_record(&self.blobs)).await.unwrap_or_default();
        }
        if finished.outcome == Outcome::Completed {
            finished.outcome = match outputs::question(&dir.join(QUESTION_FILE)) {
                Ok(None) => Outcome::Completed,
                Ok(Some(question)) => Outcome::Asked { question },
                Err(error) => failed(FailureCode::InvalidOutput, format!("the question of the step cannot be taken: {error}")),
            };
        }
        finished
    }

    /// The attempt is at work, in this process or in one of its own.
    pub(crate) async fn report_started(&self, grant: &Grant, ready: &Ready, pid: u32) {
        let (workspace, before) = (ready.path.display().to_string(), ready.before.clone());
        let started = Started { attempt: grant.attempt.clone(), token: grant.token, pid, workspace, before, at: Utc::now() };
        self.reporter.report(Report::Started(started)).await;
    }

    /// Starts the shim with the step's command, environment and limits.
    async fn spawn(&self, grant: &Grant, live: &Attempt, dir: &Path, ready: &Ready, command: Command) -> anyhow::Result<StepProcess> {
        let attempt = grant.attempt.to_string();
        let text = |path: PathBuf| path.display().to_string();
        let env = environment::build(
            &environment::Identity {
                run: &grant.attempt.run.to_string(),
                step: grant.attempt.step.as_str(),
                attempt: &attempt,
                workflow: grant.workflow.as_str(),
                workspace: &ready.path.display().to_string(),
                output: &text(dir.join(spools::OUTPUT_FILE)),
                question: &text(dir.join(QUESTION_FILE)),
                answer: grant.answer.as_deref(),
                home: &text(command.home.unwrap_or_else(|| dir.join(spools::HOME))),
                tmp: &text(dir.join(spools::TMP)),
            },
            Some(&self.settings.path),
            &command.env,
        )?;
        let lease = live.lease();
        let limits = Limits {
            grace_ms: grant.grace_ms.unwrap_or_else(|| u64::try_from(self.settings.grace.as_millis()).unwrap_or(10_000)),
            timeout_ms: grant.timeout_ms,
            idle_timeout_ms: grant.idle_timeout_ms.or(command.idle_timeout_ms),
            log_cap_bytes: self.settings.log_cap,
            processes: self.settings.step_processes,
            lease: Some(Lease::new(lease.length(), lease.left())),
            freeze_limit_ms: u64::try_from(self.settings.freeze_limit.as_millis()).unwrap_or(u64::MAX),
        };
        let step = StepSpec { attempt, argv: command.argv, env, cwd: ready.path.clone(), input: command.input, limits };
        let spec = ProcessSpec { dir: dir.to_owned(), cgroup: None, step };
        let (process, supervision) = StepProcess::spawn(&self.nursery, spec).await?;
        self.ctx.tasks.spawn_part("supervision", async move {
            supervision.await;
            Ok(())
        });
        Ok(process)
    }

    /// Keeps the work and the log, whatever the outcome; only then is the attempt over.
    pub(crate) async fn close(
        &self,
        grant: &Grant,
        dir: &Path,
        ready: &Ready,
        process: Option<(ExitFacts, StepProcess)>,
        outcome: Outcome,
    ) -> Finished {
        let mut finished = ended(grant, outcome);
        finished.before = ready.before.clone();
        let held_too_long = process.as_ref().is_some_and(|(facts, _)| facts.kind == ExitKind::LeaseLost);
        if let Some((facts, process)) = process {
            finished.pid = process.started().await.and_then(|pid| u32::try_from(pid).ok());
            finished.workspace = Some(ready.path.display().to_string());
            finished.started_at = facts.started_at;
            finished.finished_at = facts.finished_at;
            finished.exit_code = facts.code;
            finished.signal = facts.signal;
            finished.log_bytes = facts.log_bytes;
        }
        if finished.outcome == Outcome::Completed {
            match outputs::parse(&dir.join(spools::OUTPUT_FILE)) {
                Ok(values) => finished.outputs = values,
                Err(error) => finished.outcome = failed(FailureCode::InvalidOutput, error.to_string()),
            }
        }
        let author = Author {
            attempt: &grant.attempt,
            workflow: &grant.workflow,
            session: grant.workspace.session.as_ref(),
            branch: &grant.workspace.branch,
            quarantined: held_too_long || self.is_stale(grant),
        };
        match self.keep(grant, ready, &author, dir).await {
            Ok(kept) => {
                finished.snapshot = kept.snapshot;
                finished.result = kept.result;
            }
            Err(error) => {
                tracing::error!(attempt = %grant.attempt, error = format!("{error:#}"), "the work could not be kept");
                if finished.outcome == Outcome::Completed {
                    finished.outcome = failed(FailureCode::WorkspaceError, format!("{error:#}"));
                }
            }
        }
        finished.log = self.until_stored(grant, || logs::store(&self.blobs, dir)).await.unwrap_or_default();
        hopyard_runtime::failpoint!("executor.log.uploaded");
        finished
    }

    /// Whether the attempt is known not to be ours any more.
    fn is_stale(&self, grant: &Grant) -> bool {
        self.live.get(&grant.attempt).is_none_or(|live| live.standing().borrow().stale)
    }

    async fn keep(&self, grant: &Grant, ready: &Ready, author: &Author<'_>, dir: &Path) -> anyhow::Result<Kept> {
        self.until_stored(grant, || ready.keep(author, &self.blobs, dir)).await
    }

    /// Tries again while the blob store is away; the lease goes on, and a forced cancel or a lost lease ends it.
    async fn until_stored<T, F: Future<Output = anyhow::Result<T>>>(&self, grant: &Grant, store: impl Fn() -> F) -> anyhow::Result<T> {
        let mut pause = Duration::from_millis(100);
        loop {
            let error = match store().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let transient =
                error.chain().any(|cause| cause.downcast_ref::<hopyard_blobs::Error>().is_some_and(hopyard_blobs::Error::is_transient));
            let given_up = self.live.get(&grant.attempt).is_none_or(|live| {
                let standing = live.standing();
                let standing = standing.borrow();
                standing.stale || standing.kill.as_ref().is_some_and(|k| k.force)
            });
            if !transient || given_up {
                return Err(error);
            }
            tracing::warn!(attempt = %grant.attempt, error = format!("{error:#}"), "saving is tried again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(10));
        }
    }

    /// Publishes the result, again every few seconds, until it is committed or the lease turns out to be over.
    pub(crate) async fn report_until_settled(&self, finished: Finished, live: &Attempt, dir: &Path) {
        let label = match &finished.outcome {
            Outcome::Completed => "completed",
            Outcome::Failed { .. } => "failed",
            Outcome::Limited { .. } => "limited",
            Outcome::Asked { .. } => "asked",
            Outcome::Killed => "killed",
            Outcome::HandedBack => "handed_back",
            Outcome::Lost => "lost",
        };
        instruments::attempts().with_label_values(&[label]).inc();
        tracing::info!(run.id = %finished.attempt.run, step = finished.attempt.step.as_str(), attempt = finished.attempt.n, outcome = label, "attempt finished");
        if let Err(error) = write_private(&dir.join(FINISHED_FILE), &serde_json::to_vec(&finished).unwrap_or_default(), PRIVATE).await {
            tracing::warn!(error = format!("{error:#}"), "the result could not be spooled");
        }
        hopyard_runtime::failpoint!("executor.finished.spooled");
        let mut standing = live.standing();
        let mut repeats = 0u32;
        loop {
            self.reporter.report(Report::Finished(finished.clone())).await;
            hopyard_runtime::failpoint!("executor.finished.sent");
            let over = tokio::time::timeout(REPEAT, standing.wait_for(|s| s.settled || s.stale)).await;
            match over {
                Ok(Ok(standing)) if standing.settled => break,
                // What a stale attempt used and left was reported once: money is never refused.
                Ok(_) => break,
                Err(_) => {
                    repeats += 1;
                    instruments::repeated_reports().with_label_values::<&str>(&[]).inc();
                    tracing::info!(attempt = %finished.attempt, repeats, "the result is published again");
                }
            }
        }
        hopyard_runtime::failpoint!("executor.settled");
        // Settled: nothing of the spool is needed any more; the log is in the blobs.
        let (spools, spool) = (self.spools.clone(), dir.to_owned());
        let gone = tokio::task::spawn_blocking(move || spools.give_back(&spool)).await.map_err(std::io::Error::other).flatten();
        if let Err(error) = gone
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, dir = %dir.display(), "a spool could not be removed");
        }
    }
}

/// Why a step could not be made ready.
fn setup_code(error: &anyhow::Error) -> FailureCode {
    if error.is::<PromptError>() {
        FailureCode::PlanError
    } else if error.is::<replay::Misfit>() {
        FailureCode::WorkspaceError
    } else {
        FailureCode::SetupError
    }
}

/// What the process of a step is started with.
pub(crate) struct Command {
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
    /// Environment beside the one that every step has.
    pub(crate) env: BTreeMap<String, String>,
    /// Its home; a new one of the attempt if absent.
    pub(crate) home: Option<PathBuf>,
    /// File that is its standard input; there is none else.
    pub(crate) input: Option<PathBuf>,
    /// Longest time without output, where the step sets none.
    pub(crate) idle_timeout_ms: Option<u64>,
}

/// A script that names its interpreter is started as a program; any other is one for the shell.
fn shell(grant: &Grant, dir: &Path, script: &str) -> Command {
    let file = dir.join(spools::SCRIPT_FILE).display().to_string();
    let argv = if script.starts_with("#!") { vec![file] } else { vec!["sh".to_owned(), "-e".to_owned(), file] };
    Command { argv, env: grant.env.clone(), home: None, input: None, idle_timeout_ms: None }
}

fn disk_code(error: &anyhow::Error) -> FailureCode {
    let full =
        error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::StorageFull));
    if full { FailureCode::DiskFull } else { FailureCode::SetupError }
}
