//! Replays: a step plays what was recorded of another one. What it wrote is written again, what it changed is changed again, and no
//! model is asked.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use hopyard_blobs::Digest;
use hopyard_contract::log::Stream;
use hopyard_contract::log::frame::Decoder;
use hopyard_contract::message::{Finished, Grant, Outcome, Recording};
use hopyard_contract::plan::{Replay, Work};

use crate::Executor;
use crate::agent::Agent;
use crate::asker::Asker;
use crate::attempt::{Command, failed};
use crate::workspaces::Ready;

/// Subcommand of this executable that plays.
const COMMAND: &str = "replay-step";

/// Changes the workspace as the recorded attempt had, and makes its words ready to be played.
///
/// # Errors
/// When the change does not fit the files as they are now, or the recording cannot be read.
pub(crate) async fn ready(
    executor: &Executor,
    grant: &Grant,
    dir: &Path,
    ready: &Ready,
    replay: &Replay,
) -> Result<(Command, Option<Asker>)> {
    let recording = &replay.recording;
    if let Some(work) = &recording.work {
        let made = ready.change_again(work, &recording.changes, &executor.blobs).await;
        made.map_err(|error| Misfit(format!("what {} had changed cannot be changed here: {error:#}", recording.attempt)))?;
    }
    let log = dir.join("recorded.log");
    let digest: Digest = recording.log.digest.parse().context("the digest of the recording is not valid")?;
    executor.blobs.read_to_file(&digest, &log).await.context("the recording cannot be read")?;
    let code = recording.exit_code.unwrap_or_default().to_string();
    let argv = vec![executor.settings.program.display().to_string(), COMMAND.to_owned(), log.display().to_string(), code];
    let asker = match &replay.work {
        Work::Agent(spec) => Some(Asker::Agent(Box::new(Agent::played(executor, dir, spec)?))),
        _ => None,
    };
    Ok((Command { argv, env: grant.env.clone(), home: None, input: None, idle_timeout_ms: None }, asker))
}

/// The change of a recording does not fit.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Misfit(String);

/// What only the recording knows: how a question ended, and what the step handed to others.
pub(crate) fn complete(finished: &mut Finished, replay: &Replay) {
    let Recording { failure, outputs, .. } = &replay.recording;
    let ran = matches!(finished.outcome, Outcome::Completed | Outcome::Failed { .. });
    if let Work::Llm(_) = &replay.work
        && ran
    {
        finished.outcome = failure.as_ref().map_or(Outcome::Completed, |failure| failed(failure.code, failure.message.clone()));
    }
    if finished.outcome == Outcome::Completed {
        finished.outputs = outputs.clone();
    }
}

/// Writes what a stored log holds to the standard output and the standard error, as it was written.
///
/// # Errors
/// When it is no log.
pub fn replay_main(log: &Path) -> Result<()> {
    let open = std::fs::File::open(log).with_context(|| format!("{} cannot be read", log.display()))?;
    let mut input = zstd::Decoder::new(open)?;
    let (mut decoder, mut buffer) = (Decoder::default(), vec![0; 64 * 1024]);
    loop {
        let read = std::io::Read::read(&mut input, &mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        decoder.push(&buffer[..read]);
        while let Some(piece) = decoder.next_piece().map_err(|error| anyhow::anyhow!("{} is damaged: {error}", log.display()))? {
            match piece.stream {
                Stream::Stdout => std::io::stdout().write_all(&piece.bytes)?,
                Stream::Stderr => std::io::stderr().write_all(&piece.bytes)?,
                Stream::System => {}
            }
        }
    }
}
