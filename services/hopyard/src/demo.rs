//! `hopyard demo`: one real run on the repository that it stands in, on a private stack, from nothing to a branch.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use hopyard_contract::RunId;
use hopyard_contract::view::RunView;
use hopyard_worktree::{Mirrors, Settings};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::client::follow::{Line, Narrator, Want, follow};
use crate::client::summary::summary;
use crate::client::{Api, output, repository};
use crate::dev;
use crate::dev::private::PrivateStack;
use crate::exit::{Exit, Failure};

/// What the demo works on.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Wiped at the start, kept at the end
    #[arg(long, value_name = "DIR", default_value = "./.hopyard/demo")]
    pub data_dir: PathBuf,
    /// Workflow; `examples/demo.yaml` of the checkout if absent
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Runs the demo and leaves nothing running.
///
/// # Errors
/// When the stack does not start or the run cannot be submitted; how the run ended is the exit code.
pub async fn run(args: &DemoArgs) -> Result<Exit> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let spec = repository::resolve(".", None).await?;
    let file = args.file.clone().unwrap_or_else(|| Path::new(&spec.url).join("examples/demo.yaml"));
    let definition =
        std::fs::read_to_string(&file).map_err(|e| Failure::usage(format!("the workflow {} cannot be read: {e}", file.display())))?;
    wipe(&args.data_dir)?;
    say("starting a private bus and the five services …");
    let settings = [("HOPYARD_REPO_ALLOW", spec.url.clone())];
    let stack = tokio::select! {
        stack = PrivateStack::start(&args.data_dir, &[], &settings) => stack?,
        _ = terminate.recv() => return Ok(Exit::Interrupted),
        _ = interrupt.recv() => return Ok(Exit::Interrupted),
    };
    say(&format!("ready: {}", stack.at.url));
    let body = json!({"v": 1, "definition": definition, "repo": spec});
    let outcome = tokio::select! {
        outcome = straight_line(&stack.at.url, &body) => outcome,
        _ = terminate.recv() => Err(Failure::Interrupted.into()),
        _ = interrupt.recv() => Err(Failure::Interrupted.into()),
    };
    // Whatever happened, nothing stays behind.
    let stopped = stack.stop().await;
    let run = outcome?;
    stopped?;
    say("");
    for line in summary(&run) {
        say(&line);
    }
    say(&format!("data     {}", args.data_dir.display()));
    if let Some(command) = see(&args.data_dir, &run)? {
        say(&format!("see it   {command}"));
    }
    Ok(Exit::of_status(run.status))
}

fn say(line: &str) {
    output::data(line);
}

/// Submits, and tells what happens until the run has ended.
async fn straight_line(url: &str, body: &Value) -> Result<RunView> {
    let api = Api::new(url, None, None)?;
    let answer = api.post("/runs", body, HeaderMap::new()).await?;
    let run: RunId = output::field(&answer, "/run_id").parse().context("the server's answer names no run")?;
    let mut narrator = Narrator::default();
    follow(&api, run, Want { logs: true }, |item| {
        for line in narrator.tell(item) {
            match line {
                Line::Log(text) => say(&format!("  {text}")),
                Line::Progress(text) => say(&format!("• {text}")),
            }
        }
    })
    .await
}

/// Empties the data directory, unless a stack uses it or it is not ours.
fn wipe(data: &Path) -> Result<()> {
    if !data.exists() {
        return Ok(());
    }
    let entries = || std::fs::read_dir(data).with_context(|| format!("cannot list {}", data.display()));
    // A directory that no stack has ever used may be anything.
    if !data.join("lock").exists() && entries()?.next().is_some() {
        bail!("{} holds files that are not of a stack: name another --data-dir", data.display());
    }
    let _lock = dev::lock(data)?;
    for entry in entries()? {
        let path = entry?.path();
        let kind = path.symlink_metadata()?.file_type();
        let removed = if kind.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// The command that shows the run's branch in the mirror, where it stays after everything has ended.
fn see(data: &Path, run: &RunView) -> Result<Option<String>> {
    let Some(repo) = &run.repo else { return Ok(None) };
    let Some(git) = run.result.as_ref().and_then(|result| result.git.as_ref()) else { return Ok(None) };
    let mirrors = Mirrors::open(data.to_owned(), Settings::default()).context("cannot look at the mirrors")?;
    let mirror = mirrors.existing()?.into_iter().find(|mirror| mirror.repo() == repo.url);
    let mirror = mirror.with_context(|| format!("there is no mirror of {} in {}", repo.url, data.display()))?;
    let name = mirror.dir().file_name().unwrap_or_default().to_owned();
    let dir = data.join("mirrors").join(name);
    Ok(Some(format!("git --git-dir {} log --oneline -3 {}", quoted(&dir.display().to_string()), quoted(&git.branch))))
}

/// A word that a shell reads as it is.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+@:,".contains(c));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_data_directory_that_nobody_uses_is_wiped() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("demo");
        wipe(&data).unwrap();
        std::fs::create_dir_all(data.join("mirrors/a")).unwrap();
        assert!(wipe(&data).unwrap_err().to_string().contains("name another --data-dir"));
        let held = dev::lock(&data).unwrap();
        assert!(wipe(&data).is_err() && data.join("mirrors").exists());
        drop(held);
        wipe(&data).unwrap();
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
    }

    #[test]
    fn the_example_is_a_valid_workflow() {
        for name in ["demo", "hello"] {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../examples/{name}.yaml"));
            let text = std::fs::read_to_string(&file).unwrap();
            let definition = hopyard_definition::parse(&text, Some(name)).unwrap_or_else(|errors| panic!("{errors:?}"));
            assert_eq!(definition.plan.name.as_str(), name);
        }
    }

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(quoted("./.hopyard/demo/a.git"), "./.hopyard/demo/a.git");
        assert_eq!(quoted("it's here"), r"'it'\''s here'");
    }
}
