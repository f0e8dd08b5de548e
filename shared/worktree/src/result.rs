//! Handing a run's work over: as a commit, a branch, a bundle file or a push.

use std::fs;
use std::path::Path;

use git2::Oid;

use crate::location::Location;
use crate::mirror::{Mirror, key};
use crate::resolve::check_commit;
use crate::{Error, Result, private, trash};

/// Git's name for "no commit".
const ABSENT: &str = "0000000000000000000000000000000000000000";

/// What a push did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcome {
    /// The branch was made.
    Created,
    /// The branch was moved.
    Updated,
    /// The branch was there already, e.g. from an earlier try whose answer was lost.
    UpToDate,
}

/// Full name of a branch; refuses what git would refuse and names that read as options.
pub(crate) fn branch_ref(branch: &str) -> Result<String> {
    let name = format!("refs/heads/{branch}");
    if branch.is_empty() || branch.starts_with('-') || branch == "HEAD" || !git2::Reference::is_valid_name(&name) {
        return Err(Error::Invalid { what: "branch", value: branch.to_owned() });
    }
    Ok(name)
}

impl Mirror {
    /// Makes a commit of `tree` with the service as committer; returns its id.
    pub(crate) async fn commit(&self, tree: &str, parents: &[&str], message: &str, author: &str) -> Result<String> {
        let (name, mail) = match author.trim().strip_suffix('>').and_then(|author| author.rsplit_once('<')) {
            Some((name, mail)) => (name.trim(), mail.trim()),
            None => (author.trim(), ""),
        };
        let or = |text: &str, other: &str| {
            if text.is_empty() { other.to_owned() } else { text.to_owned() }
        };
        let parents = parents.iter().flat_map(|parent| ["-p", parent]);
        self.git("commit-tree")
            .env("GIT_AUTHOR_NAME", or(name, "Hopyard"))
            .env("GIT_AUTHOR_EMAIL", or(mail, "hopyard@localhost"))
            .env("GIT_COMMITTER_NAME", "Hopyard")
            .env("GIT_COMMITTER_EMAIL", "hopyard@localhost")
            .args(["commit-tree", tree])
            .args(parents)
            .args(["-F", "-"])
            .stdin(message.as_bytes().to_vec())
            .line()
            .await
    }

    /// Sets `branch` in the mirror to `commit`, wherever it was: the branch follows the work of the latest attempt.
    ///
    /// # Errors
    /// When git refuses the name or the commit is missing.
    pub async fn point_branch(&self, branch: &str, commit: &str) -> Result<()> {
        let name = branch_ref(branch)?;
        check_commit(commit)?;
        self.git("update-ref").args(["update-ref", &name, commit]).ok().await.map(drop)
    }

    /// Sets `branch` in the mirror to `commit`, from `expected` (`None`: it must not exist yet).
    /// A branch that is at `commit` already is a success.
    ///
    /// # Errors
    /// [`Error::BranchMoved`] if the branch is anywhere else.
    pub async fn set_branch(&self, branch: &str, commit: &str, expected: Option<&str>) -> Result<()> {
        let name = branch_ref(branch)?;
        check_commit(commit)?;
        let current = self.look_up(vec![name.clone()]).await?;
        if current.as_deref() == Some(commit) {
            return Ok(());
        }
        let old = expected.unwrap_or(ABSENT);
        if current.as_deref() == expected {
            match self.git("update-ref").args(["update-ref", &name, commit, old]).ok().await {
                Ok(_) => return Ok(()),
                // Another call was faster; whether it wanted the same is read below.
                Err(Error::Git { detail, .. }) if detail.contains("cannot lock ref") => {}
                Err(error) => return Err(error),
            }
        }
        let found = self.look_up(vec![name]).await?;
        if found.as_deref() == Some(commit) { Ok(()) } else { Err(moved(branch, found.as_deref(), expected)) }
    }

    /// Writes a bundle file with `refs/heads/<branch>` at `head` that builds on `base`; false (and no file) if
    /// there is nothing between the two.
    pub async fn bundle(&self, base: &str, head: &str, branch: &str, out: &Path) -> Result<bool> {
        let name = branch_ref(branch)?;
        check_commit(base)?;
        check_commit(head)?;
        if base == head {
            return Ok(false);
        }
        // A throw-away repository holds the branch, so that no branch of the mirror is needed or in the way.
        let dir = self.shared().staging().join(trash::unique());
        private::write(&dir, self.dir(), branch, head, None)?;
        let made = self
            .shared()
            .git
            .at(&dir, "bundle create")
            .args(["bundle", "create", "--quiet"])
            .arg(out)
            .args([name.as_str(), "--not", base])
            .ok()
            .await;
        fs::remove_dir_all(&dir).map_err(|source| Error::io("delete", &dir, source))?;
        match made {
            Ok(_) => Ok(true),
            // The head is an ancestor of the base.
            Err(Error::Git { detail, .. }) if detail.contains("empty bundle") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Pushes `commit` to `branch` of `repo`, only from a state this run is known to have left: absent, an earlier
    /// push of ours, or an ancestor of `commit`. Repeating a push is harmless.
    ///
    /// # Errors
    /// [`Error::BranchMoved`] if somebody else's commits are there.
    pub async fn push(&self, branch: &str, repo: &str, commit: &str) -> Result<PushOutcome> {
        let name = branch_ref(branch)?;
        check_commit(commit)?;
        let location = Location::parse(repo)?;
        location.check_allowed(&self.shared().settings.allow)?;
        let ours = format!("refs/hopyard/pushed/{}/{branch}", key(repo));
        let remote = self.remote_branch(&location, &name).await?;
        if remote.as_deref() == Some(commit) {
            self.git("update-ref").args(["update-ref", &ours, commit]).ok().await?;
            return Ok(PushOutcome::UpToDate);
        }
        if let Some(found) = remote.as_deref() {
            let pushed = self.look_up(vec![ours.clone()]).await?;
            if pushed.as_deref() != Some(found) && !self.is_ancestor(found, commit).await? {
                return Err(moved(branch, Some(found), pushed.as_deref()));
            }
        }
        self.push_from(&location, branch, remote.as_deref(), commit).await?;
        self.git("update-ref").args(["update-ref", &ours, commit]).ok().await?;
        Ok(if remote.is_some() { PushOutcome::Updated } else { PushOutcome::Created })
    }

    /// One push that changes `branch` from `expected` and from nothing else.
    pub(crate) async fn push_from(&self, location: &Location, branch: &str, expected: Option<&str>, commit: &str) -> Result<()> {
        let name = branch_ref(branch)?;
        let call = self
            .git("push")
            .args(["push", "--porcelain", "--no-verify", "--no-signed", "--recurse-submodules=no"])
            .arg(format!("--force-with-lease={name}:{}", expected.unwrap_or_default()))
            .args(["--", location.text()])
            .arg(format!("{commit}:{name}"));
        let output = self.shared().credentials.apply(call, location)?.run().await?;
        if output.code == 0 {
            return Ok(());
        }
        // The verdict by branch is on standard output, the reason of a broken connection on standard error.
        let verdict = String::from_utf8_lossy(&output.stdout).lines().find(|line| line.starts_with('!')).map(str::to_owned);
        match verdict {
            Some(line) if line.contains("stale info") || line.contains("fetch first") => {
                let found = self.remote_branch(location, &name).await?;
                Err(moved(branch, found.as_deref(), expected))
            }
            Some(line) => {
                let detail = format!("{} {}", line.replace('\t', " "), output.stderr);
                Err(Error::Git { what: "push".into(), detail: detail.trim().to_owned() })
            }
            None => Err(output.failed("push")),
        }
    }

    /// Where a branch is at the other side now.
    async fn remote_branch(&self, location: &Location, name: &str) -> Result<Option<String>> {
        let call = self.git("ls-remote").args(["ls-remote", "--refs", "--", location.text(), name]);
        let list = match self.shared().credentials.apply(call, location)?.ok().await {
            Ok(list) => String::from_utf8_lossy(&list).into_owned(),
            Err(Error::Git { detail, .. }) => {
                return Err(Error::RepoUnavailable { repo: location.text().to_owned(), detail });
            }
            Err(error) => return Err(error),
        };
        // The pattern also matches names that merely end like this one.
        let line = list.lines().filter_map(|line| line.split_once('\t')).find(|(_, found)| *found == name);
        Ok(line.map(|(commit, _)| commit.to_owned()))
    }

    /// True if `old` is `new` or in its history; an unknown commit is not.
    ///
    /// # Errors
    /// When the object database cannot be read or `new` is not in it.
    pub async fn is_ancestor(&self, old: &str, new: &str) -> Result<bool> {
        if old == new {
            return Ok(true);
        }
        let (old, new) = (old.to_owned(), new.to_owned());
        self.read("history", move |repo| {
            let (old, new) = (Oid::from_str(&old)?, Oid::from_str(&new)?);
            Ok(repo.odb()?.exists(old) && repo.graph_descendant_of(new, old)?)
        })
        .await
    }
}

fn moved(branch: &str, found: Option<&str>, expected: Option<&str>) -> Error {
    let word = |commit: Option<&str>| commit.unwrap_or("absent").to_owned();
    Error::BranchMoved { branch: branch.to_owned(), found: word(found), expected: word(expected) }
}
