//! Merging a run's work into a branch of the source, without any working tree.

use crate::mirror::Mirror;
use crate::resolve::check_commit;
use crate::result::branch_ref;
use crate::{Error, Result};

/// How often a merge starts anew because the target moved in between.
const TRIES: usize = 4;

/// A merge to make.
#[derive(Debug, Clone, Copy)]
pub struct Merge<'a> {
    /// Branch of the source that receives the work, without `refs/heads/`.
    pub target: &'a str,
    /// Commit with the work, 40 hex digits.
    pub head: &'a str,
    /// Message of a merge commit, should one be needed.
    pub message: &'a str,
    /// `Name <mail>` of a merge commit.
    pub author: &'a str,
}

/// What a merge came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergeOutcome {
    /// The target is at `commit` now: the head itself if it followed the target, else a merge commit.
    Merged {
        /// The target's new commit.
        commit: String,
    },
    /// The target held the work already, e.g. from an earlier try whose answer was lost.
    AlreadyMerged {
        /// The target's commit.
        commit: String,
    },
    /// Both sides changed the same places; nothing was written.
    Conflict {
        /// The target's commit.
        target: String,
        /// Paths in conflict.
        paths: Vec<String>,
    },
}

impl Mirror {
    /// Merges `head` into a branch of the source and pushes it, from the commit that was merged with and from
    /// nothing else; starts anew if the branch moved meanwhile. Repeating a merge is harmless.
    ///
    /// # Errors
    /// [`Error::RefNotFound`] if there is no such branch, [`Error::BranchMoved`] if it keeps moving.
    pub async fn merge(&self, merge: Merge<'_>) -> Result<MergeOutcome> {
        let full = branch_ref(merge.target)?;
        check_commit(merge.head)?;
        let mut moved = None;
        for _ in 0..TRIES {
            self.refresh(true).await?;
            let target = self.resolve(Some(&full)).await?;
            if self.is_ancestor(merge.head, &target).await? {
                return Ok(MergeOutcome::AlreadyMerged { commit: target });
            }
            let commit = if self.is_ancestor(&target, merge.head).await? {
                merge.head.to_owned()
            } else {
                match self.merge_trees(&target, merge.head).await? {
                    Ok(tree) => self.commit(&tree, &[&target, merge.head], merge.message, merge.author).await?,
                    Err(paths) => return Ok(MergeOutcome::Conflict { target, paths }),
                }
            };
            match self.push_from(self.location(), merge.target, Some(&target), &commit).await {
                Ok(()) => return Ok(MergeOutcome::Merged { commit }),
                Err(error @ Error::BranchMoved { .. }) => moved = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(moved.expect("the loop ends early unless the branch moved"))
    }

    /// The merged tree, or the paths in conflict.
    async fn merge_trees(&self, ours: &str, theirs: &str) -> Result<Result<String, Vec<String>>> {
        let output =
            self.git("merge-tree").args(["merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", ours, theirs]).run().await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut parts = text.split(['\0', '\n']).filter(|part| !part.is_empty()).map(str::to_owned);
        match (output.code, parts.next()) {
            (0, Some(tree)) => Ok(Ok(tree)),
            (1, Some(_)) => {
                let mut paths: Vec<String> = parts.collect();
                paths.sort();
                paths.dedup();
                Ok(Err(paths))
            }
            _ => Err(output.failed("merge-tree")),
        }
    }
}
