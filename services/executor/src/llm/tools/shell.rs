//! Programs of an allow list, run as they are named: no shell reads the words of a model.

use std::path::Path;
use std::process::Stdio;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{MAX_RESULT, Refusal};

#[derive(Debug, Deserialize)]
pub(super) struct Run {
    command: Vec<String>,
}

/// Runs a program until it and whoever holds its output have ended; the limits of the step are its limits.
pub(super) async fn run(root: &Path, programs: &[String], asked: &Run) -> Result<String, Refusal> {
    let Some((program, args)) = asked.command.split_first() else {
        return Err(Refusal::Failed("the command names no program".to_owned()));
    };
    if !programs.contains(program) {
        return Err(Refusal::Denied(format!("{program:?} may not run here; {} may", programs.join(", "))));
    }
    let told = |error: std::io::Error| Refusal::Failed(format!("{program} cannot run: {error}"));
    #[expect(clippy::disallowed_methods, reason = "a part of a step's own process, below its shim")]
    let mut command = tokio::process::Command::new(program);
    command.args(args).current_dir(root).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().map_err(told)?;
    let (out, err) = tokio::join!(kept(child.stdout.take()), kept(child.stderr.take()));
    let status = child.wait().await.map_err(told)?;
    let mut text = out;
    if !err.is_empty() {
        text = format!("{text}{}[stderr]\n{err}", if text.is_empty() || text.ends_with('\n') { "" } else { "\n" });
    }
    if status.success() { Ok(text) } else { Err(Refusal::Failed(format!("{status}\n{text}"))) }
}

/// What is said, from its end if it is too long: that is where programs say what is wrong.
async fn kept(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let (mut text, mut buffer, mut cut) = (Vec::new(), vec![0; 16 * 1024], false);
    // A pipe that breaks has said all that it will.
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        text.extend_from_slice(&buffer[..read]);
        if text.len() > MAX_RESULT {
            text.drain(..text.len() - MAX_RESULT / 2);
            cut = true;
        }
    }
    let text = String::from_utf8_lossy(&text);
    if cut { format!("[the beginning is left out]\n{text}") } else { text.into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(command: &[&str]) -> Result<String, Refusal> {
        let dir = tempfile::tempdir().unwrap();
        let programs = ["echo".to_owned(), "ls".to_owned(), "seq".to_owned(), "no-such-program".to_owned()];
        run(dir.path(), &programs, &Run { command: command.iter().map(|word| (*word).to_owned()).collect() }).await
    }

    #[tokio::test]
    async fn only_listed_programs_run_and_no_shell_reads_their_arguments() {
        assert_eq!(said(&["echo", "a; rm -rf /", "$HOME", "| cat"]).await.as_deref(), Ok("a; rm -rf / $HOME | cat\n"));
        for denied in [&["sh", "-c", "echo"][..], &["/bin/echo"], &["./echo"], &["echo x"]] {
            assert!(matches!(said(denied).await, Err(Refusal::Denied(_))), "{denied:?}");
        }
        assert!(matches!(said(&[]).await, Err(Refusal::Failed(_))));
        assert!(said(&["no-such-program"]).await.unwrap_err().words().contains("cannot run"));
    }

    #[tokio::test]
    async fn a_failure_tells_its_code_and_a_flood_its_end() {
        let failed = said(&["ls", "nothing-here"]).await.unwrap_err();
        assert!(failed.words().starts_with("exit status: ") && failed.words().contains("nothing-here"), "{failed:?}");
        let flood = said(&["seq", "200000"]).await.unwrap();
        assert!(flood.starts_with("[the beginning is left out]\n") && flood.ends_with("\n200000\n"), "{}", flood.len());
    }
}
