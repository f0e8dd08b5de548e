//! The private git directory inside a workspace: its own refs and config, objects borrowed from the mirror.

use std::fs::{self, File};
use std::path::Path;

use crate::{Error, Result};

/// Branch that is checked out inside a workspace.
pub(crate) const BRANCH: &str = "work";

/// Steps may commit without configuring anything.
const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\
\tlogallrefupdates = true\n[user]\n\tname = Hopyard\n\temail = hopyard@localhost\n[gc]\n\tauto = 0\n";

/// Writes a git directory at `dir` whose `branch` is at `commit`, reading objects from `mirror`.
///
/// Plain files of the oldest repository format: no process is started, and nothing that exists is read.
pub(crate) fn write(dir: &Path, mirror: &Path, branch: &str, commit: &str, index: Option<&Path>) -> Result<()> {
    let put = |name: &str, text: String| {
        let path = dir.join(name);
        fs::write(&path, text).map_err(|source| Error::io("write", &path, source))
    };
    let branch_ref = format!("refs/heads/{branch}");
    let branch_dir = Path::new(&branch_ref).parent().unwrap_or(Path::new("refs/heads")).to_owned();
    for sub in ["objects/info", "objects/pack", "refs/tags", "info"].map(Path::new).into_iter().chain([&*branch_dir]) {
        let path = dir.join(sub);
        fs::create_dir_all(&path).map_err(|source| Error::io("create", &path, source))?;
    }
    put("config", CONFIG.to_owned())?;
    put("objects/info/alternates", format!("{}\n", mirror.join("objects").display()))?;
    put(&branch_ref, format!("{commit}\n"))?;
    // Without the borders of a shallow history, `git log` would fail at them.
    let shallow = mirror.join("shallow");
    if shallow.exists() {
        fs::copy(&shallow, dir.join("shallow")).map_err(|source| Error::io("copy", &shallow, source))?;
    }
    if let Some(index) = index.filter(|index| index.exists()) {
        copy_index(index, &dir.join("index"))?;
    }
    // Written last: a directory with HEAD is complete.
    put("HEAD", format!("ref: {branch_ref}\n"))
}

/// Copies an index with its time of change.
///
/// Git may compare times by the second only. A file that was changed in the second in which it was checked out may thus have the size
/// and times that the index knows; git looks into it only if the index is no younger than that second. Beside a copy with a
/// time of its own the change would be lost.
pub(crate) fn copy_index(from: &Path, to: &Path) -> Result<()> {
    let copy = || {
        fs::copy(from, to)?;
        File::options().write(true).open(to)?.set_modified(fs::metadata(from)?.modified()?)
    };
    copy().map_err(|source| Error::io("copy", from, source))
}

/// True if [`write`] ran to its end here.
pub(crate) fn is_complete(dir: &Path) -> bool {
    dir.symlink_metadata().is_ok_and(|meta| meta.is_dir()) && dir.join("HEAD").exists()
}
