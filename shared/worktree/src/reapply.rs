//! The change of one commit, made again on other files.

use crate::Result;
use crate::resolve::check_commit;
use crate::workspace::Workspace;

impl Workspace {
    /// Changes the files as `commit` had changed those of its first parent; nothing is recorded.
    ///
    /// # Errors
    /// [`crate::Error::Git`] with git's words when the change does not fit: then no file has changed.
    pub async fn reapply(&self, commit: &str) -> Result<()> {
        check_commit(commit)?;
        self.check_directory()?;
        let index = self.temporary_index()?;
        let parent = format!("{commit}^");
        let diff = ["diff", "--binary", "--full-index", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames"];
        let patch = self.git("diff", &index).args(diff).args([parent.as_str(), commit, "--"]).ok().await?;
        if patch.is_empty() {
            return Ok(());
        }
        self.git("apply", &index).args(["apply", "--whitespace=nowarn", "-"]).stdin(patch).ok().await.map(drop)
    }
}
