//! Sample repositories.

use std::path::Path;

use anyhow::Result;
use hopyard_contract::repository::RepoSpec;

use crate::client::repository::{git, resolve};

/// Makes a repository with so many files of some 700 bytes, fifty in a folder.
///
/// # Errors
/// When git fails, or there is no room.
pub(super) async fn sample(dir: &Path, files: u32) -> Result<RepoSpec> {
    for n in 0..files {
        let folder = dir.join(format!("folder-{}", n / 50));
        if n.is_multiple_of(50) {
            std::fs::create_dir_all(&folder)?;
        }
        std::fs::write(folder.join(format!("file-{n}.txt")), format!("line of file {n}\n").repeat(40))?;
    }
    git(dir, &["init", "--quiet"]).await?;
    git(dir, &["add", "."]).await?;
    let message = format!("{files} files");
    git(dir, &["-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "--quiet", "-m", &message]).await?;
    let dir = dir.canonicalize()?;
    resolve(&dir.display().to_string(), None).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_sample_repository_has_as_many_files_as_were_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let spec = sample(&dir.path().join("r"), 120).await.unwrap();
        let files = git(Path::new(&spec.url), &["ls-tree", "-r", "--name-only", "HEAD"]).await.unwrap();
        assert_eq!(files.lines().count(), 120);
    }
}
