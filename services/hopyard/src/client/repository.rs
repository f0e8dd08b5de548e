//! The user's own repository: what `--repo .` means, and git commands in it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use hopyard_contract::repository::RepoSpec;

use crate::exit::Failure;
use crate::servers::{Launch, Spawner, Streams};

/// What a git command answered.
#[derive(Debug)]
pub struct Answer {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error, trimmed.
    pub err: String,
}

/// Runs git in a directory, whatever its exit code.
///
/// # Errors
/// When git cannot be started.
pub async fn git_answer(dir: &Path, args: &[&str]) -> Result<Answer> {
    let args = args.iter().map(OsString::from);
    let mut launch = Launch::new("git").args(args).env("LC_ALL", "C").streams(Streams::Piped);
    launch.dir = Some(dir.to_owned());
    let child = Spawner::global().spawn(&launch).await.context("git is needed on this machine")?;
    let output = child.wait_with_output().await.context("git was lost")?;
    let err = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok(Answer { code: output.status.code(), out: output.stdout, err })
}

/// Runs git in a directory and returns its trimmed output.
///
/// # Errors
/// When git cannot be started or fails; with its own words.
pub async fn git(dir: &Path, args: &[&str]) -> Result<String> {
    let answer = git_answer(dir, args).await?;
    if answer.code != Some(0) {
        bail!("git {}: {}", args.first().unwrap_or(&""), if answer.err.is_empty() { "failed without a word" } else { &answer.err });
    }
    Ok(String::from_utf8_lossy(&answer.out).trim().to_owned())
}

/// The absolute path of the checkout (or bare repository) that encloses a directory.
///
/// # Errors
/// When there is none.
pub async fn toplevel(dir: &Path) -> Result<PathBuf> {
    if let Ok(path) = git(dir, &["rev-parse", "--show-toplevel"]).await {
        return Ok(PathBuf::from(path));
    }
    let path =
        git(dir, &["rev-parse", "--absolute-git-dir"]).await.with_context(|| format!("{} is in no git repository", dir.display()))?;
    Ok(PathBuf::from(path))
}

/// The repository of a request: a URL as it is, or a directory as its checkout's path and, without a ref, its present commit.
///
/// # Errors
/// [`Failure::Usage`] when the text is neither, or the checkout has no commit.
pub async fn resolve(text: &str, reference: Option<&str>) -> Result<RepoSpec> {
    let spec = |url: String, reference: Option<String>| RepoSpec { url, reference };
    let reference = reference.map(str::to_owned);
    let dir = Path::new(text);
    if !dir.is_dir() {
        let remote = text.contains("://") || text.split_once(':').is_some_and(|(host, _)| host.contains('@') && !host.contains('/'));
        // A path on the executor's host may not exist here.
        if remote || text.starts_with('/') {
            return Ok(spec(text.to_owned(), reference));
        }
        return Err(Failure::usage(format!("`{text}` is neither a directory nor the URL of a repository")));
    }
    let top = toplevel(dir).await.map_err(|e| Failure::usage(format!("{e:#}")))?;
    let reference = match reference {
        Some(reference) => reference,
        None => git(dir, &["rev-parse", "--verify", "HEAD^{commit}"])
            .await
            .map_err(|e| Failure::usage(format!("{} has no commit yet: {e:#}", top.display())))?,
    };
    Ok(spec(top.display().to_string(), Some(reference)))
}

/// How many paths of a checkout differ from its commit; they are no part of a run.
pub async fn uncommitted(dir: &Path) -> usize {
    let status = git(dir, &["--no-optional-locks", "status", "--porcelain", "--untracked-files=no"]).await;
    status.map(|text| text.lines().count()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn commit(dir: &Path) -> String {
        git(dir, &["init", "--quiet"]).await.unwrap();
        std::fs::write(dir.join("a"), "1").unwrap();
        git(dir, &["add", "a"]).await.unwrap();
        git(dir, &["-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "-m", "first"]).await.unwrap();
        git(dir, &["rev-parse", "HEAD"]).await.unwrap()
    }

    #[tokio::test]
    async fn a_directory_means_its_checkout_at_head() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let text = root.display().to_string();
        let error = resolve(&text, None).await.unwrap_err();
        assert!(error.to_string().contains("is in no git repository"), "{error:#}");
        let head = commit(&root).await;
        std::fs::create_dir(root.join("sub")).unwrap();
        let spec = resolve(&format!("{text}/sub"), None).await.unwrap();
        assert_eq!((spec.url, spec.reference), (text.clone(), Some(head)));
        assert_eq!(resolve(&text, Some("main")).await.unwrap().reference.as_deref(), Some("main"));
        assert_eq!(uncommitted(&root).await, 0);
        std::fs::write(root.join("a"), "2").unwrap();
        assert_eq!(uncommitted(&root).await, 1);
    }

    #[tokio::test]
    async fn urls_and_far_paths_are_left_to_the_executor() {
        for url in ["https://host/a.git", "ssh://git@host/a", "git@host:a/b", "/srv/far/away"] {
            let spec = resolve(url, None).await.unwrap();
            assert_eq!((spec.url.as_str(), spec.reference), (url, None));
        }
        assert!(resolve("no-such-folder", None).await.is_err());
    }
}
