//! What can go wrong with a repository or a workspace, in words a user can act on.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of a mirror, a workspace or the git command itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The repository has no such branch, tag, full reference or commit.
    #[error("reference `{reference}` not found in {repo}: {detail}")]
    RefNotFound {
        /// URL or path of the repository.
        repo: String,
        /// The reference as it was asked for (`HEAD` if none was).
        reference: String,
        /// Git's own words.
        detail: String,
    },
    /// The repository could not be read: absent, refused, not a repository, unreachable.
    #[error("repository {repo} is unavailable: {detail}")]
    RepoUnavailable {
        /// URL or path of the repository.
        repo: String,
        /// Git's own words, secrets masked.
        detail: String,
    },
    /// The repository is not covered by the allow list.
    #[error("repository {repo} is not allowed: {detail}")]
    NotAllowed {
        /// URL or path of the repository.
        repo: String,
        /// Which rule refused it.
        detail: String,
    },
    /// No usable git command was found.
    #[error("git {wanted} or newer is needed, found {found}")]
    OldGit {
        /// Oldest version that works.
        wanted: String,
        /// What `git --version` said.
        found: String,
    },
    /// The git command ended with an error.
    #[error("git {what} failed: {detail}")]
    Git {
        /// The verb, e.g. `worktree add`.
        what: String,
        /// Git's own words, secrets masked.
        detail: String,
    },
    /// The git command was ended because it took too long.
    #[error("git {what} took longer than {} s", limit.as_secs())]
    Timeout {
        /// The verb, e.g. `fetch`.
        what: String,
        /// The limit that was passed.
        limit: Duration,
    },
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, e.g. `rename`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The object database could not be read.
    #[error("cannot read {what}: {}", source.message())]
    Read {
        /// What was read.
        what: String,
        /// The library's answer.
        source: git2::Error,
    },
    /// The directory of a workspace is not there any more.
    #[error("workspace {id} has no directory {}", path.display())]
    WorkspaceMissing {
        /// Workspace id.
        id: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// A name, path or value that this crate refuses to hand to git.
    #[error("invalid {what} `{value}`")]
    Invalid {
        /// Which argument.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// A branch is not where the caller expects it; nothing was changed.
    #[error("branch {branch} is at {found}, expected {expected}")]
    BranchMoved {
        /// Branch name without `refs/heads/`.
        branch: String,
        /// Commit found, `absent` if the branch does not exist.
        found: String,
        /// Commit expected, `absent` if it should not exist.
        expected: String,
    },
    /// A background thread of this crate ended abnormally.
    #[error("{what} ended abnormally")]
    Aborted {
        /// What the thread did.
        what: &'static str,
    },
}

/// Words of git, curl and ssh that mean "try again later", not "this is wrong".
const TRANSIENT: [&str; 13] = [
    "could not resolve host",
    "temporary failure in name resolution",
    "timed out",
    "connection refused",
    "connection reset",
    "failed to connect",
    "network is unreachable",
    "no route to host",
    "early eof",
    "the remote end hung up unexpectedly",
    "returned error: 429",
    "returned error: 5",
    "unexpected disconnect",
];

impl Error {
    /// True if the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::RepoUnavailable { detail, .. } | Self::Git { detail, .. } => {
                // A missing path also ends in "the remote end hung up"; its first line says what is wrong.
                let detail = detail.to_lowercase();
                let definite = ["does not appear to be a git repository", "not found", "does not exist"];
                !definite.iter().any(|word| detail.contains(word)) && TRANSIENT.iter().any(|word| detail.contains(word))
            }
            _ => false,
        }
    }

    /// True if the disk or a quota is full.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded),
            Self::Git { detail, .. } | Self::RepoUnavailable { detail, .. } => {
                detail.contains("No space left on device") || detail.contains("Disk quota exceeded")
            }
            _ => false,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn read(what: impl Into<String>, source: git2::Error) -> Self {
        Self::Read { what: what.into(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable(detail: &str) -> Error {
        Error::RepoUnavailable { repo: "https://h/a".into(), detail: detail.into() }
    }

    #[test]
    fn words_that_pass_are_told_from_words_that_stay() {
        for detail in [
            "fatal: unable to access 'https://h/a/': Could not resolve host: h",
            "fatal: unable to access 'https://h/a/': The requested URL returned error: 503",
            "ssh: connect to host h port 22: Connection refused\nfatal: Could not read from remote repository.",
        ] {
            assert!(unavailable(detail).is_transient(), "{detail}");
        }
        for detail in [
            "remote: Repository not found.\nfatal: repository 'https://h/a/' not found",
            "fatal: Authentication failed for 'https://h/a/'",
            "fatal: '/a' does not appear to be a git repository\nfatal: the remote end hung up unexpectedly",
            "fatal: unable to access 'https://h/a/': The requested URL returned error: 403",
        ] {
            assert!(!unavailable(detail).is_transient(), "{detail}");
        }
        assert!(unavailable("fatal: write error: No space left on device").is_disk_full());
        assert!(Error::io("write", Path::new("/x"), ErrorKind::StorageFull.into()).is_disk_full());
        assert!(!unavailable("fatal: other").is_disk_full());
    }
}
