//! The private git directory inside a workspace: its own refs and config, objects borrowed from the mirror.

use std::fs;
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
        fs::copy(index, dir.join("index")).map_err(|source| Error::io("copy", index, source))?;
    }
    // Written last: a directory with HEAD is complete.
    put("HEAD", format!("ref: {branch_ref}\n"))
}

/// True if [`write`] ran to its end here.
pub(crate) fn is_complete(dir: &Path) -> bool {
    dir.symlink_metadata().is_ok_and(|meta| meta.is_dir()) && dir.join("HEAD").exists()
}
