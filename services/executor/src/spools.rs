//! Spool directories: one of each attempt, with the home, the files and the log of its step.
//!
//! Making and deleting a dozen of files and directories is what a short step would cost most. So what nobody touched is left
//! for the next attempt, and the executor's own files are written over. Whatever a step has put into its directory, or changed
//! there, is deleted as ever.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use hopyard_contract::AttemptId;

use crate::files::{PRIVATE, write_over};
use crate::process::{EXIT_FILE, SHIM_ERRORS, SPOOL_FILE};

/// The grant, for a restarted executor. Without it nothing has begun.
pub(crate) const GRANT_FILE: &str = "grant.json";
/// The result, until it is settled.
pub(crate) const FINISHED_FILE: &str = "finished.json";
/// What the shell runs.
pub(crate) const SCRIPT_FILE: &str = "script";
/// Takes the outputs of the step.
pub(crate) const OUTPUT_FILE: &str = "output";
/// Takes a question of the step to a person.
pub(crate) const QUESTION_FILE: &str = "ask";
/// Home of the step, unless it has another.
pub(crate) const HOME: &str = "home";
/// Where the step may write what nobody needs.
pub(crate) const TMP: &str = "tmp";
/// Workspace of a step that has none else.
pub(crate) const WORK: &str = "work";

/// Directory of those that wait for an attempt; no attempt has a name like that.
const BLANK: &str = ".blank";
/// Kept while they are as they were made: empty.
const EMPTY_DIRS: [&str; 3] = [HOME, TMP, WORK];
/// The same.
const EMPTY_FILES: [&str; 3] = [OUTPUT_FILE, SPOOL_FILE, SHIM_ERRORS];
/// Written over, with their modes.
const OWN_FILES: [(&str, u32); 4] = [(GRANT_FILE, PRIVATE), (FINISHED_FILE, PRIVATE), (EXIT_FILE, PRIVATE), (SCRIPT_FILE, EXECUTABLE)];
/// Mode of the script: some name their interpreter.
const EXECUTABLE: u32 = 0o700;
/// What stands in a file that has nothing to say. Not nothing: some file systems write a file to the disk at once that was cut to
/// nothing and filled again.
const NOTHING: &[u8] = b"\n";

/// The spool directories of an executor.
#[derive(Debug)]
pub(crate) struct Spools {
    root: PathBuf,
    /// How many wait at most.
    keep: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Those that wait.
    blank: Vec<PathBuf>,
    /// What the empty files and directories of those in use looked like.
    made: HashMap<PathBuf, HashMap<&'static str, Stamp>>,
    /// Names given so far.
    count: u64,
}

/// How to see that nobody has touched something: each change of it, or of what is in it, changes its time.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    mode: u32,
    links: u64,
    size: u64,
    changed: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(meta: &Metadata) -> Self {
        Self { inode: meta.ino(), mode: meta.mode(), links: meta.nlink(), size: meta.size(), changed: (meta.ctime(), meta.ctime_nsec()) }
    }
}

impl Spools {
    /// Those below `root`, of which at most `keep` wait; none of the process before waits any more.
    ///
    /// # Errors
    /// When the directory cannot be made or cleared.
    pub(crate) fn open(root: PathBuf, keep: usize) -> anyhow::Result<Self> {
        let blank = root.join(BLANK);
        let cleared = match fs::remove_dir_all(&blank) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => fs::create_dir_all(&blank),
        };
        cleared.with_context(|| format!("the directory {} cannot be made", blank.display()))?;
        Ok(Self { root, keep, state: Mutex::default() })
    }

    /// The directory of an attempt.
    pub(crate) fn dir(&self, attempt: &AttemptId) -> PathBuf {
        self.root.join(attempt.to_string())
    }

    /// Directories of attempts of the process before.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(crate) fn left(&self) -> io::Result<Vec<PathBuf>> {
        let paths = fs::read_dir(&self.root)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
        Ok(paths.into_iter().filter(|path| !path.ends_with(BLANK)).collect())
    }

    /// Makes the directory of an attempt, with its grant in it and what a shell is to run; there is all of it or nothing.
    ///
    /// # Errors
    /// When it is there already or cannot be written.
    pub(crate) fn take(&self, attempt: &AttemptId, grant: &[u8], script: Option<&str>) -> anyhow::Result<()> {
        let waiting = self.state().blank.pop();
        let blank = waiting.unwrap_or_else(|| self.name());
        let dir = self.dir(attempt);
        let made = fill(&blank, grant, script).and_then(|stamps| fs::rename(&blank, &dir).map(|()| stamps));
        match made {
            Ok(stamps) => {
                self.state().made.insert(dir, stamps);
                Ok(())
            }
            Err(error) => {
                fs::remove_dir_all(&blank).unwrap_or_default();
                Err(error).with_context(|| format!("the spool directory {} cannot be made", dir.display()))
            }
        }
    }

    /// Deletes the directory of an attempt that is settled, but for what the next one can use.
    ///
    /// # Errors
    /// When something of it cannot be deleted.
    pub(crate) fn give_back(&self, dir: &Path) -> io::Result<()> {
        let stamps = self.state().made.remove(dir);
        let room = self.state().blank.len() < self.keep;
        let of_use = room && stamps.is_some_and(|stamps| clear(dir, &stamps).is_ok());
        if !of_use {
            return fs::remove_dir_all(dir);
        }
        let blank = self.name();
        fs::rename(dir, &blank)?;
        self.state().blank.push(blank);
        Ok(())
    }

    /// A name that none has that waits.
    fn name(&self) -> PathBuf {
        let mut state = self.state();
        state.count += 1;
        self.root.join(BLANK).join(state.count.to_string())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes what is missing, and writes the grant and the script.
fn fill(dir: &Path, grant: &[u8], script: Option<&str>) -> io::Result<HashMap<&'static str, Stamp>> {
    make_dir(dir)?;
    let mut stamps = HashMap::new();
    for name in EMPTY_DIRS {
        let path = dir.join(name);
        make_dir(&path)?;
        stamps.insert(name, Stamp::from(&path.symlink_metadata()?));
    }
    for name in EMPTY_FILES {
        let path = dir.join(name);
        OpenOptions::new().append(true).create(true).mode(PRIVATE).open(&path)?;
        stamps.insert(name, Stamp::from(&path.symlink_metadata()?));
    }
    if let Some(script) = script {
        write_over(&dir.join(SCRIPT_FILE), script.as_bytes(), EXECUTABLE)?;
    }
    write_over(&dir.join(GRANT_FILE), grant, PRIVATE)?;
    Ok(stamps)
}

fn make_dir(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Leaves only what is as it was made, and files of our own with nothing in them.
fn clear(dir: &Path, stamps: &HashMap<&'static str, Stamp>) -> io::Result<()> {
    // First of all it is no attempt's any more.
    write_over(&dir.join(GRANT_FILE), NOTHING, PRIVATE)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (path, name, meta) = (entry.path(), entry.file_name(), entry.metadata()?);
        let own = OWN_FILES.iter().find(|(own, _)| name == *own);
        if let Some((_, mode)) = own
            && meta.is_file()
            && meta.nlink() == 1
            && meta.mode() & 0o7777 == *mode
        {
            write_over(&path, NOTHING, *mode)?;
        } else if !is_untouched(&path, &meta, name.to_str().and_then(|name| stamps.get(name)))? {
            if meta.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
        }
    }
    Ok(())
}

/// Whether something is as it was made. Times alone do not say so: on many machines they go on in steps of some milliseconds.
fn is_untouched(path: &Path, meta: &Metadata, stamp: Option<&Stamp>) -> io::Result<bool> {
    let same = stamp.is_some_and(|stamp| *stamp == Stamp::from(meta));
    Ok(same && if meta.is_dir() { fs::read_dir(path)?.next().is_none() } else { meta.len() == 0 })
}

#[cfg(test)]
mod tests;
