//! `hopyard runs checkout`: a run's branch comes into the user's own repository.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::Api;
use super::output::{self, field};
use super::repository::{git, toplevel};
use super::runs::CheckoutArgs;
use crate::exit::{Exit, Failure};

/// Downloads the run's bundle and fetches it as a branch; the work tree is left alone.
///
/// # Errors
/// As the API's; [`Failure::Usage`] outside of a repository; git's own words when it refuses.
pub async fn run(api: &Api, args: &CheckoutArgs) -> Result<Exit> {
    let top = toplevel(Path::new(".")).await.map_err(|e| Failure::usage(format!("{e:#}")))?;
    let run: Value = api.get(&format!("/runs/{}", args.run), &[]).await?;
    let bundle = match api.bytes(&format!("/runs/{}/bundle", args.run), &[]).await {
        Ok((_, bytes)) => bytes,
        Err(error) => {
            if matches!(error.downcast_ref(), Some(Failure::Refused(problem)) if problem.code == "no_changes") {
                output::progress(&format!("run {} changed nothing, so there is no branch to bring", args.run));
                return Ok(Exit::Done);
            }
            return Err(error);
        }
    };
    let branch = match &args.branch {
        Some(branch) => branch.clone(),
        None => field(&run, "/result/branch"),
    };
    bring(&top, &bundle, &branch).await?;
    output::data(&branch);
    output::progress(&format!("branch {branch} is here: `git switch {branch}`"));
    Ok(Exit::Done)
}

async fn bring(repository: &Path, bundle: &[u8], branch: &str) -> Result<()> {
    git(repository, &["check-ref-format", "--branch", branch])
        .await
        .map_err(|_| Failure::usage(format!("`{branch}` is no name of a branch")))?;
    let dir = tempfile::tempdir().context("cannot make a temporary folder")?;
    let file = dir.path().join("run.bundle");
    std::fs::write(&file, bundle).with_context(|| format!("cannot write {}", file.display()))?;
    let file = file.display().to_string();
    let heads = git(repository, &["bundle", "list-heads", &file]).await?;
    let mut names = heads.lines().filter_map(|line| line.split_once(' ').map(|(_, name)| name));
    let Some(head) = names.clone().find(|name| name.starts_with("refs/heads/")).or_else(|| names.next()) else {
        bail!("the bundle holds no branch");
    };
    // Without `+`: a branch of that name with other work stays as it is.
    git(repository, &["fetch", "--no-tags", "--no-write-fetch-head", &file, &format!("{head}:refs/heads/{branch}")]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn commit(dir: &Path, name: &str) {
        std::fs::write(dir.join(name), name).unwrap();
        git(dir, &["add", name]).await.unwrap();
        git(dir, &["-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "-m", name]).await.unwrap();
    }

    #[tokio::test]
    async fn a_bundle_becomes_a_branch_and_never_overwrites_one() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
        std::fs::create_dir(&ours).unwrap();
        git(&ours, &["init", "--quiet", "--initial-branch", "main"]).await.unwrap();
        commit(&ours, "base").await;
        git(dir.path(), &["clone", "--quiet", "ours", "theirs"]).await.unwrap();
        git(&theirs, &["switch", "--quiet", "-c", "hopyard/t/1"]).await.unwrap();
        commit(&theirs, "work").await;
        git(&theirs, &["bundle", "create", "--quiet", "../b", "main..hopyard/t/1"]).await.unwrap();
        let bundle = std::fs::read(dir.path().join("b")).unwrap();

        bring(&ours, &bundle, "fix").await.unwrap();
        let head = git(&theirs, &["rev-parse", "HEAD"]).await.unwrap();
        assert_eq!(git(&ours, &["rev-parse", "fix"]).await.unwrap(), head);
        assert_eq!(git(&ours, &["status", "--porcelain"]).await.unwrap(), "");

        git(&ours, &["switch", "--quiet", "-c", "mine"]).await.unwrap();
        commit(&ours, "mine").await;
        git(&ours, &["switch", "--quiet", "main"]).await.unwrap();
        let error = bring(&ours, &bundle, "mine").await.unwrap_err();
        assert!(error.to_string().contains("non-fast-forward"), "{error:#}");
        assert!(bring(&ours, &bundle, "../x").await.is_err());
    }
}
