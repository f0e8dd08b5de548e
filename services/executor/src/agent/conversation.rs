//! The conversation of a step with its agent: kept beside the work, so that a retry or a later run of the session goes on with it.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use hopyard_contract::Name;
use hopyard_contract::plan::AgentCli;
use hopyard_contract::usage::Tokens;
use serde::{Deserialize, Serialize};

/// Below the private git directory of a workspace: git does not look there, and it stays and goes with the workspace.
const PLACE: &str = ".git/hopyard-home";
/// File in the home with what is known of the conversation.
const FILE: &str = ".hopyard-conversation.json";
/// Longest id of a conversation.
const LONGEST_ID: usize = 128;

/// A conversation that can be gone on with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Conversation {
    pub(super) cli: AgentCli,
    /// Id by which the program resumes it.
    pub(super) session: String,
    /// What the program has told of all of it so far.
    #[serde(default)]
    pub(super) tokens: Tokens,
    /// Replies of models in the files of its home so far.
    #[serde(default)]
    pub(super) replies: usize,
}

impl Conversation {
    /// The home of a step's agent that outlives an attempt; `None` without a repository, where nothing does.
    pub(super) fn home(workspace: &Path, step: &Name) -> Option<PathBuf> {
        workspace.join(".git").symlink_metadata().is_ok_and(|meta| meta.is_dir()).then(|| workspace.join(PLACE).join(step.as_str()))
    }

    /// The conversation of a home with this program; `None` when there is none that can be gone on with.
    ///
    /// The agent can write there too, and the id becomes an argument of a program: only what looks like one is taken.
    pub(super) fn read(home: &Path, cli: AgentCli) -> Option<Self> {
        let kept: Self = serde_json::from_slice(&std::fs::read(home.join(FILE)).ok()?).ok()?;
        let plain = |id: &str| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        let is_id = |id: &str| !id.is_empty() && id.len() <= LONGEST_ID && !id.starts_with('-') && plain(id);
        (kept.cli == cli && is_id(&kept.session)).then_some(kept)
    }

    /// Keeps it for whoever goes on with it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn keep(&self, home: &Path) -> anyhow::Result<()> {
        let (file, aside) = (home.join(FILE), home.join(format!("{FILE}.part")));
        // A link in its place would lead elsewhere.
        std::fs::remove_file(&aside).or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
        std::fs::write(&aside, serde_json::to_vec(self)?).with_context(|| format!("{} cannot be written", aside.display()))?;
        std::fs::rename(&aside, &file).with_context(|| format!("{} cannot be written", file.display()))
    }
}

/// Removes what an earlier attempt left in a home: this one begins anew.
///
/// # Errors
/// When it cannot be removed, or an agent has put a link in the place of the folder that homes are in.
pub(super) fn forget(home: &Path) -> anyhow::Result<()> {
    if let Some(place) = home.parent()
        && place.symlink_metadata().is_ok_and(|meta| !meta.is_dir())
    {
        bail!("{} is no directory", place.display());
    }
    match std::fs::remove_dir_all(home) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", home.display()))
        }
        _ => Ok(()),
    }
}

/// Makes the directory of a file below a home; what the agent has put in its way, such as a link, is an error.
///
/// # Errors
/// When a part of the path is no directory, or cannot be made.
pub(super) fn make_place(home: &Path, path: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(home).with_context(|| format!("{} cannot be made", home.display()))?;
    let mut place = home.to_owned();
    let parts: Vec<Component<'_>> = path.components().collect();
    let Some((file, dirs)) = parts.split_last() else { bail!("a file has a name") };
    for dir in dirs {
        place.push(dir);
        match place.symlink_metadata() {
            Ok(meta) => ensure!(meta.is_dir(), "{} is no directory", place.display()),
            Err(_) => std::fs::create_dir(&place).with_context(|| format!("{} cannot be made", place.display()))?,
        }
    }
    place.push(file);
    if place.symlink_metadata().is_ok_and(|meta| !meta.is_file()) {
        bail!("{} is no file", place.display());
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(session: &str) -> Conversation {
        Conversation { cli: AgentCli::Claude, session: session.to_owned(), tokens: Tokens::default(), replies: 3 }
    }

    #[test]
    fn a_conversation_is_kept_for_the_same_program_alone() {
        let home = tempfile::tempdir().unwrap();
        let kept = conversation("606baa63-9b78-4a84-bf3c-3854df43fc7b");
        kept.keep(home.path()).unwrap();
        assert_eq!(Conversation::read(home.path(), AgentCli::Claude), Some(kept));
        assert_eq!(Conversation::read(home.path(), AgentCli::Codex), None);
    }

    #[test]
    fn an_id_that_is_none_is_not_taken() {
        let home = tempfile::tempdir().unwrap();
        for odd in ["", "--dangerously-skip-permissions", "a b", "a;b", &"x".repeat(200)] {
            conversation(odd).keep(home.path()).unwrap();
            assert_eq!(Conversation::read(home.path(), AgentCli::Claude), None, "{odd}");
        }
        std::fs::write(home.path().join(FILE), "{").unwrap();
        assert_eq!(Conversation::read(home.path(), AgentCli::Claude), None);
    }

    #[test]
    fn a_home_is_forgotten_and_nothing_behind_a_link() {
        let (work, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let homes = work.path().join("homes");
        std::fs::create_dir_all(homes.join("fix/.claude")).unwrap();
        forget(&homes.join("fix")).unwrap();
        forget(&homes.join("fix")).unwrap();
        assert!(!homes.join("fix").exists());
        std::fs::remove_dir(&homes).unwrap();
        std::fs::create_dir(elsewhere.path().join("fix")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), &homes).unwrap();
        assert!(forget(&homes.join("fix")).unwrap_err().to_string().ends_with("is no directory"));
        assert!(elsewhere.path().join("fix").exists());
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let home = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), home.path().join(".codex")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join("x"), home.path().join("file")).unwrap();
        assert!(make_place(home.path(), Path::new(".codex/config.toml")).unwrap_err().to_string().ends_with("is no directory"));
        assert!(make_place(home.path(), Path::new("file")).unwrap_err().to_string().ends_with("is no file"));
        assert_eq!(make_place(home.path(), Path::new("a/b")).unwrap(), home.path().join("a/b"));
    }
}
