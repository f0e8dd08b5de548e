//! What changed between two commits: numbers by file, and the patch.

use std::path::Path;

use git2::{Delta, DiffFindOptions, DiffOptions, Oid, Patch};

use crate::Result;
use crate::mirror::Mirror;
use crate::resolve::check_commit;

/// How a file changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileStatus {
    /// New in the head.
    Added,
    /// Other content or mode.
    Modified,
    /// Not in the head.
    Deleted,
    /// Moved, perhaps with changes.
    Renamed,
    /// File, link or submodule took each other's place.
    Typechange,
}

impl FileStatus {
    /// The word used in results: `added`, `modified`, `deleted`, `renamed`, `typechange`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Modified => "modified",
            Self::Deleted => "deleted",
            Self::Renamed => "renamed",
            Self::Typechange => "typechange",
        }
    }
}

/// One changed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Path in the head (in the base, if deleted); bytes that are not UTF-8 are replaced.
    pub path: String,
    /// Former path of a renamed file.
    pub old_path: Option<String>,
    /// How it changed.
    pub status: FileStatus,
    /// Lines added; 0 for binary files.
    pub insertions: u64,
    /// Lines removed; 0 for binary files.
    pub deletions: u64,
}

/// All changed files between two commits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiffStat {
    /// Changed files in path order.
    pub files: Vec<FileChange>,
    /// Sum over the files.
    pub insertions: u64,
    /// Sum over the files.
    pub deletions: u64,
}

impl Mirror {
    /// Compares two commits (40 hex digits each), renames detected.
    pub async fn diff(&self, base: &str, head: &str) -> Result<DiffStat> {
        check_commit(base)?;
        check_commit(head)?;
        if base == head {
            return Ok(DiffStat::default());
        }
        let (base, head) = (base.to_owned(), head.to_owned());
        self.read("diff", move |repo| {
            let tree = |commit: &str| repo.find_commit(Oid::from_str(commit)?)?.tree();
            let (base, head) = (tree(&base)?, tree(&head)?);
            let mut options = DiffOptions::new();
            options.include_typechange(true);
            let mut diff = repo.diff_tree_to_tree(Some(&base), Some(&head), Some(&mut options))?;
            diff.find_similar(Some(DiffFindOptions::new().renames(true)))?;
            let mut stat = DiffStat::default();
            for (number, delta) in diff.deltas().enumerate() {
                let status = match delta.status() {
                    Delta::Added | Delta::Copied => FileStatus::Added,
                    Delta::Deleted => FileStatus::Deleted,
                    Delta::Renamed => FileStatus::Renamed,
                    Delta::Typechange => FileStatus::Typechange,
                    _ => FileStatus::Modified,
                };
                let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
                let (old, new) = (text(delta.old_file().path_bytes()), text(delta.new_file().path_bytes()));
                // The library shows no lines where a file and a link change places; git counts them.
                let patch = if status == FileStatus::Typechange {
                    let blob = |file: git2::DiffFile<'_>| repo.find_blob(file.id()).ok();
                    // A submodule has no lines to count.
                    match (blob(delta.old_file()), blob(delta.new_file())) {
                        (Some(old), Some(new)) => Some(Patch::from_blobs(&old, None, &new, None, None)?),
                        _ => None,
                    }
                } else {
                    Patch::from_diff(&diff, number)?
                };
                let (insertions, deletions) = match patch {
                    Some(patch) => {
                        let (_, insertions, deletions) = patch.line_stats()?;
                        (insertions as u64, deletions as u64)
                    }
                    None => (0, 0),
                };
                stat.insertions += insertions;
                stat.deletions += deletions;
                let old_path = if status == FileStatus::Renamed { old.clone() } else { None };
                let path = new.or(old).unwrap_or_default();
                stat.files.push(FileChange { path, old_path, status, insertions, deletions });
            }
            stat.files.sort_by(|a, b| a.path.cmp(&b.path));
            Ok(stat)
        })
        .await
    }

    /// Writes the difference of two commits to `out` as a patch that `git apply` takes, binary files included.
    /// Without changes the file is empty.
    pub async fn patch(&self, base: &str, head: &str, out: &Path) -> Result<()> {
        check_commit(base)?;
        check_commit(head)?;
        let mut output = std::ffi::OsString::from("--output=");
        output.push(out);
        self.git("diff")
            .args(["diff", "--binary", "--full-index", "--no-ext-diff", "--no-textconv", "--no-color", "-M"])
            .arg("--submodule=short")
            .arg(output)
            .args([base, head, "--"])
            .ok()
            .await
            .map(drop)
    }
}
