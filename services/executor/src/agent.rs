//! Agent steps: a program works in the run's workspace, and what it says is read while it does.
//!
//! What it says is an account of its work, never an order: it decides the outcome, turns, tools and, without a gateway, tokens
//! and money. Whatever it is silent about is found out from its process.

mod adapter;
mod claude;
mod codex;
mod conversation;
mod ending;
mod event;
mod gemini;
mod generic;
mod lines;
mod opencode;
mod record;
mod tally;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{anyhow, ensure};
use chrono::{DateTime, Utc};
use hopyard_contract::Usage;
use hopyard_contract::log::Stream;
use hopyard_contract::message::Grant;
use hopyard_contract::plan::{AgentCli, AgentSpec, GatewayUse, Permissions, agent_cli, agent_turns};
use hopyard_contract::usage::Tokens;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::adapter::{Launch, Order, Parser};
use self::conversation::{Conversation, make_place};
use self::event::AgentEnd;
use self::lines::Lines;
use self::record::Record;
use self::tally::Tally;
use crate::attempt::Command;
use crate::files::{PRIVATE, write_private};
use crate::live::Attempt;
use crate::metered::Metered;
use crate::prices::Prices;
use crate::process::{SPOOL_FILE, SpoolReader, StepProcess, outputs};
use crate::prompts;
use crate::spools::{HOME, QUESTION_FILE};
use crate::{Executor, instruments};

/// Time that a program has to end by itself after it said that it is done: some never do.
const AFTER_THE_END: Duration = Duration::from_secs(10);
/// Why a process is ended that had that time.
const DONE: &str = "agent_done";
/// Silence after which an agent is taken to hang, unless its step says otherwise.
const IDLE_TIMEOUT_MS: u64 = 15 * 60 * 1000;
/// File of a spool directory with what its agent began with.
const START_FILE: &str = "agent.json";

/// The agent of one attempt, as far as it was heard.
pub(crate) struct Agent {
    cli: AgentCli,
    spec: AgentSpec,
    prices: Arc<Prices>,
    dir: PathBuf,
    /// Its home; beside the work, so that the conversation can be gone on with, if there is a repository.
    home: PathBuf,
    /// What it goes on with.
    before: Option<Conversation>,
    heard: Mutex<Heard>,
    /// Its gateway, if it has one.
    metered: Option<Metered>,
    /// Cancelled when it can ask its models no more, and would go on.
    stopped: CancellationToken,
    /// Whether its program only plays what another one said: it used nothing, and waits for no provider.
    replays: bool,
}

/// What an agent began with; kept in its spool.
#[derive(Debug, Serialize, Deserialize)]
struct Start {
    home: PathBuf,
    before: Option<Conversation>,
}

struct Heard {
    lines: Lines,
    parser: Parser,
    tally: Tally,
    /// Replies of models that files of its home tell of.
    replies: usize,
    /// What it said last, for whoever asks why it was silent then.
    last: Option<(DateTime<Utc>, &'static str)>,
}

/// Makes everything ready for an agent: its gateway, its files, and how it is started.
///
/// # Errors
/// When its spool cannot be written, no gateway can be opened, or a value of its step is not valid.
pub(crate) async fn ready(
    executor: &Executor,
    grant: &Grant,
    live: &Arc<Attempt>,
    dir: &Path,
    workspace: &Path,
    spec: &AgentSpec,
) -> anyhow::Result<(Command, Agent)> {
    let mut spec = prompts::of_agent(spec.clone(), workspace)?;
    let max_turns = spec.max_turns.as_deref().map(agent_turns).transpose().map_err(|error| anyhow!(error))?;
    let cli = agent_cli(&spec.cli)?;
    let chosen = match spec.gateway {
        Some(GatewayUse::Off) => None,
        wanted => {
            let chosen = match adapter::wire(cli) {
                Some(wire) => executor.providers.choose(wire, spec.model.as_deref()),
                None => spec
                    .model
                    .as_deref()
                    .and_then(|model| executor.providers.of_model(model).ok())
                    .map(|(provider, model)| (provider, Some(model))),
            };
            ensure!(
                chosen.is_some() || wanted.is_none(),
                "no provider of this executor speaks what {cli} speaks; name one in `[providers.NAME]` of its settings"
            );
            chosen.map(|(provider, model)| (provider, model.map(str::to_owned)))
        }
    };
    let (metered, entry) = match chosen {
        None => (None, None),
        Some((provider, model)) => {
            spec.model = model;
            let (metered, entry) = Metered::open(executor, live, dir, provider).await?;
            (Some(metered), Some(entry))
        }
    };
    let kept = Conversation::home(workspace, &grant.attempt.step);
    if let Some(home) = kept.as_deref().filter(|_| !spec.resume) {
        conversation::forget(home)?;
    }
    let before = kept.as_deref().and_then(|home| Conversation::read(home, cli));
    let home = kept.unwrap_or_else(|| dir.join(HOME));
    let own_program = executor.settings.program.display().to_string();
    let order = Order {
        own_program: &own_program,
        script: spec.script.as_deref(),
        model: spec.model.as_deref(),
        max_turns,
        command: &spec.command,
        resume_args: &spec.resume_args,
        permissions: spec.permissions,
        resume: before.as_ref().map(|before| before.session.as_str()),
        gateway: entry.as_ref(),
        root: nix::unistd::geteuid().is_root(),
    };
    let Launch { argv, env, files } = adapter::launch(cli, &order);
    for (path, text) in files {
        let file = make_place(&home, Path::new(&path))?;
        write_private(&file, text.as_bytes(), PRIVATE).await?;
    }
    let start = Start { home: home.clone(), before: before.clone() };
    write_private(&dir.join(START_FILE), &serde_json::to_vec(&start)?, PRIVATE).await?;
    let prompt = dir.join("prompt");
    write_private(&prompt, spec.prompt.as_bytes(), PRIVATE).await?;
    let mut declared = grant.env.clone();
    declared.extend(env);
    let stopped = metered.as_ref().map(|metered| metered.stop().token().clone()).unwrap_or_default();
    let agent = Agent { metered, stopped, ..Agent::new(cli, spec, executor.prices.clone(), dir, start) };
    let command = Command { argv, env: declared, home: Some(home), input: Some(prompt), idle_timeout_ms: Some(IDLE_TIMEOUT_MS) };
    Ok((command, agent))
}

impl Agent {
    fn new(cli: AgentCli, spec: AgentSpec, prices: Arc<Prices>, dir: &Path, start: Start) -> Self {
        let mut tally = Tally::default();
        if let Some(before) = start.before.as_ref().filter(|_| adapter::sums_up_conversations(cli)) {
            tally.begin_after(before.tokens);
        }
        let heard = Heard { lines: Lines::default(), parser: Parser::of(cli, &spec.map), tally, replies: 0, last: None };
        Self {
            cli,
            spec,
            prices,
            dir: dir.to_owned(),
            home: start.home,
            before: start.before,
            heard: Mutex::new(heard),
            metered: None,
            stopped: CancellationToken::new(),
            replays: false,
        }
    }

    /// One whose lines are played: it asks no model, and has no conversation to go on with.
    ///
    /// # Errors
    /// When a value of its step is not valid.
    pub(crate) fn played(executor: &Executor, dir: &Path, spec: &AgentSpec) -> anyhow::Result<Self> {
        let start = Start { home: dir.join(HOME), before: None };
        Ok(Self::new(agent_cli(&spec.cli)?, spec.clone(), executor.prices.clone(), dir, start).that_replays())
    }

    pub(crate) fn that_replays(self) -> Self {
        Self { replays: true, ..self }
    }

    /// The agent of an attempt that nobody carries on, from what its spool kept; `None` when it was never started.
    pub(crate) fn from_spool(spec: AgentSpec, prices: Arc<Prices>, dir: &Path) -> Option<Self> {
        let start = std::fs::read(dir.join(START_FILE)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let start = start.unwrap_or_else(|| Start { home: dir.join(HOME), before: None });
        let mut agent = Self::new(agent_cli(&spec.cli).ok()?, spec, prices, dir, start);
        let read = SpoolReader::open(&dir.join(SPOOL_FILE)).and_then(|mut spool| {
            while let Some(piece) = spool.next_piece()? {
                agent.hear(piece.stream, &piece.bytes, piece.at);
            }
            Ok(())
        });
        if let Err(error) = read {
            tracing::warn!(%error, dir = %dir.display(), "what an agent said could not be read again");
        }
        agent.read_home();
        agent.metered = Metered::left(dir);
        Some(agent)
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens until the process has ended, and tells what was used; a program that goes on after it said that it is done is ended.
    pub(crate) async fn listen(&self, process: &StepProcess, live: &Attempt) -> anyhow::Result<()> {
        let mut tail = process.output(0)?;
        let mut end_at = None;
        let mut paid = self.metered.as_ref().map(Metered::watch);
        let mut allowance = live.allowance();
        loop {
            tokio::select! {
                () = changed(&mut paid) => live.used(self.usage()),
                // Nobody stands between it and its models, so that what it spent is noticed only now.
                Ok(()) = allowance.changed(), if self.metered.is_none() => {
                    if allowance.borrow_and_update().is_some_and(|allowed| allowed.spent) && self.ended().is_none() {
                        self.stopped.cancel();
                        process.kill(DONE, false);
                    }
                }
                piece = tail.next() => {
                    let Some(piece) = piece? else { return Ok(()) };
                    if self.hear(piece.stream, &piece.bytes, piece.at) {
                        live.used(self.usage());
                    }
                    if end_at.is_none() && self.ended().is_some() {
                        end_at = Some(Instant::now() + AFTER_THE_END);
                    }
                }
                // It is told in an answer that it will not try again; if it does not end, it is ended.
                () = self.stopped.cancelled(), if end_at.is_none() => end_at = Some(Instant::now() + AFTER_THE_END),
                () = until(end_at) => {
                    tracing::info!(attempt = %live.id, "the agent said that it is done and went on: it is ended");
                    process.kill(DONE, false);
                    // Once is enough: the shim sees to the rest.
                    end_at = Some(Instant::now() + Duration::from_secs(24 * 3600));
                }
            }
        }
    }

    /// Takes in what came; whether that said anything.
    fn hear(&self, stream: Stream, bytes: &[u8], at: DateTime<Utc>) -> bool {
        if stream != Stream::Stdout {
            return false;
        }
        let heard = &mut *self.heard();
        let lines = heard.lines.feed(bytes);
        for line in &lines {
            for event in heard.parser.parse(line) {
                heard.tally.note(&event, at);
                heard.last = Some((at, event.name()));
            }
        }
        !lines.is_empty()
    }

    fn ended(&self) -> Option<AgentEnd> {
        self.heard().tally.ended().cloned()
    }

    /// What was used so far.
    pub(crate) fn usage(&self) -> Usage {
        self.usage_of(&self.heard().tally)
    }

    /// The gateway knows tokens and money, the program turns and tools; each is asked for what it knows.
    fn usage_of(&self, tally: &Tally) -> Usage {
        let told = tally.usage(&self.prices, self.spec.model.as_deref(), Utc::now());
        match &self.metered {
            None if self.replays => Usage { turns: told.turns, tool_calls: told.tool_calls, ..Usage::default() },
            None => told,
            Some(metered) => {
                let paid = metered.usage();
                let turns = if told.turns == 0 { paid.turns } else { told.turns };
                Usage { turns, tool_calls: told.tool_calls, ..paid }
            }
        }
    }

    /// Takes in what a program tells in files of its home only.
    fn read_home(&self) {
        if self.cli != AgentCli::Codex {
            return;
        }
        // The files of a conversation tell what came before as well.
        let known = self.before.as_ref().map_or(0, |before| before.replies);
        match codex::read_rollouts(&self.home) {
            Ok(replies) => {
                let heard = &mut *self.heard();
                heard.replies = replies.len();
                replies.iter().skip(known).flatten().for_each(|event| heard.tally.note(event, Utc::now()));
            }
            Err(error) => tracing::warn!(%error, "the sessions of an agent cannot be read; its turns are not counted"),
        }
    }

    /// Keeps the conversation if it is gone on with, else nothing of it.
    fn keep_conversation(&self) {
        let in_spool = self.home.starts_with(&self.dir);
        let asks = || outputs::question(&self.dir.join(QUESTION_FILE)).is_ok_and(|question| question.is_some());
        if !in_spool && !self.spec.resume && self.limit().is_none() && !asks() {
            if let Err(error) = conversation::forget(&self.home) {
                tracing::warn!(error = format!("{error:#}"), "the home of an agent is left");
            }
            return;
        }
        let heard = self.heard();
        let Some(session) = heard.tally.session().filter(|_| !in_spool) else { return };
        let before = self.before.as_ref().map(|before| before.tokens).unwrap_or_default();
        let tokens = heard.tally.told().map_or(before, |told| told.tokens);
        let conversation = Conversation { cli: self.cli, session: session.to_owned(), tokens, replies: heard.replies };
        if let Err(error) = conversation.keep(&self.home) {
            tracing::warn!(error = format!("{error:#}"), "the conversation with an agent is not kept");
        }
    }

    /// No call of a model is made any more; returns when the last one is written down.
    pub(crate) async fn close(&self) {
        self.read_home();
        self.keep_conversation();
        if let Some(metered) = &self.metered {
            metered.close().await;
        }
    }

    /// The record of the attempt; `None` when nothing was heard of the agent.
    ///
    /// # Errors
    /// When the ledger of its calls cannot be read.
    pub(crate) fn record(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let calls = self.metered.as_ref().map(Metered::calls).transpose()?;
        let heard = self.heard();
        if heard.last.is_none() && calls.is_none() {
            return Ok(None);
        }
        let (cli, model, usage) = (self.cli, self.spec.model.as_deref(), self.usage_of(&heard.tally));
        let record = Record::of(&heard.tally, cli, model, usage, self.prices.version(), calls.as_deref());
        Ok(Some(serde_json::to_vec(&record)?))
    }

    /// How what the program tells of tokens and money differs from what its gateway counted; nothing is decided by it.
    pub(crate) fn difference(&self) -> Option<String> {
        let metered = self.metered.as_ref()?;
        let told = self.heard().tally.told_of_this_attempt()?;
        let counted = metered.usage();
        let mut differs = Vec::new();
        if told.tokens != counted.tokens {
            differs.push(("tokens", format!("{}, {} were counted", words_of(told.tokens), words_of(counted.tokens))));
        }
        if let (Some(own), Some(ours)) = (told.cost_microusd, counted.cost_microusd)
            && own != ours
        {
            differs.push(("cost", format!("{own} millionths of a dollar, {ours} were counted")));
        }
        for (what, _) in &differs {
            instruments::differences().with_label_values(&[self.cli.as_str(), what]).inc();
        }
        let words: Vec<String> = differs.into_iter().map(|(_, words)| words).collect();
        (!words.is_empty()).then(|| format!("{} tells of {}", self.cli, words.join(", and of ")))
    }

    /// Whether it may change nothing.
    pub(crate) fn only_reads(&self) -> bool {
        self.spec.permissions == Permissions::Read
    }
}

/// Tokens by kind, for a sentence.
fn words_of(tokens: Tokens) -> String {
    let Tokens { input, output, cache_read, cache_write } = tokens;
    format!("{input} tokens in, {output} out, {cache_read} from and {cache_write} to a cache")
}

/// Waits for the next call that was paid for.
async fn changed(paid: &mut Option<watch::Receiver<Usage>>) {
    let Some(receiver) = paid else { return std::future::pending().await };
    if receiver.changed().await.is_err() {
        *paid = None;
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
