//! What is on the disk of the host: workspaces of all executors, their records, persistent workspaces, spools.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use serde::Deserialize;

use crate::policy::Found;

/// The disk at one moment.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// Directories among the workspaces, whatever their names.
    pub(crate) workspaces: Vec<Found>,
    /// Records without a directory, by name of the workspace.
    pub(crate) records: Vec<(String, PathBuf)>,
    /// Workspaces that persistent ones are now, as `<run>-g<k>`: never touched.
    pub(crate) sessions: BTreeSet<String>,
    /// Spools by name of the attempt.
    pub(crate) spools: Vec<Found>,
}

/// What an executor remembers beside a git workspace.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Record {
    /// Commit the run started from.
    pub(crate) base: String,
    /// Last snapshot.
    pub(crate) head: String,
    /// `<run>-g<k>` that uses it now.
    #[serde(default)]
    pub(crate) owner: String,
}

impl Disk {
    /// Looks. Directories that do not exist yet hold nothing.
    ///
    /// # Errors
    /// When a directory cannot be listed.
    pub(crate) fn read(data_dir: &Path) -> anyhow::Result<Self> {
        let mut disk = Self::default();
        for executor in directories(&data_dir.join("workspaces"))? {
            let mut records = Vec::new();
            for (name, path, is_dir) in entries(&executor)? {
                match name.strip_suffix(".json") {
                    Some(id) if !is_dir => records.push((id.to_owned(), path)),
                    // Plain files are drafts of records; a link in a workspace's place counts as the workspace.
                    None if is_dir || path.is_symlink() => disk.workspaces.push(found(name, path)),
                    _ => {}
                }
            }
            records.retain(|(id, _)| executor.join(id).symlink_metadata().is_err());
            disk.records.append(&mut records);
        }
        for executor in directories(&data_dir.join("sessions"))? {
            for (name, path, is_dir) in entries(&executor)? {
                if !is_dir && name.ends_with(".json") {
                    disk.sessions.extend(read_record(&path).map(|record| record.owner));
                }
            }
        }
        for executor in directories(&data_dir.join("spool"))? {
            for (name, path, is_dir) in entries(&executor)? {
                if is_dir {
                    disk.spools.push(Found { age: age_of_newest(&path), ..found(name, path) });
                }
            }
        }
        Ok(disk)
    }

    /// The spool of an attempt (`<run>.<step>.<n>`), if it is there.
    pub(crate) fn spool(&self, attempt: &str) -> Option<&Path> {
        self.spools.iter().find(|spool| spool.id == attempt).map(|spool| spool.path.as_path())
    }
}

/// Reads a record; one that is not there or not whole is none.
pub(crate) fn read_record(file: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// The record beside a workspace.
pub(crate) fn record_file(workspace: &Path) -> PathBuf {
    workspace.with_extension("json")
}

/// Free bytes on the volume; 0 when that is not known.
pub(crate) fn free_bytes(dir: &Path) -> u64 {
    nix::sys::statvfs::statvfs(dir).map_or(0, |s| s.blocks_available().saturating_mul(s.fragment_size()))
}

/// Bytes on disk below `root`; what cannot be read counts nothing.
pub(crate) fn bytes(root: &Path) -> u64 {
    let mut waiting = vec![root.to_owned()];
    let mut total = 0;
    while let Some(path) = waiting.pop() {
        let Ok(meta) = path.symlink_metadata() else { continue };
        total += meta.blocks() * 512;
        if meta.is_dir() {
            waiting.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    total
}

fn found(id: String, path: PathBuf) -> Found {
    let age = age(&path);
    Found { id, path, age }
}

/// Time since the last change; a time in the future counts as none.
fn age(path: &Path) -> Duration {
    let changed = path.symlink_metadata().and_then(|meta| meta.modified()).ok();
    changed.and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default()
}

/// Time since the last change of a directory or of a file right in it.
fn age_of_newest(dir: &Path) -> Duration {
    let files = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| age(&entry.path()));
    files.chain([age(dir)]).min().unwrap_or_default()
}

fn directories(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    Ok(entries(dir)?.into_iter().filter(|(_, _, is_dir)| *is_dir).map(|(_, path, _)| path).collect())
}

/// Name, path, and whether it is a directory itself (not by a link).
fn entries(dir: &Path) -> anyhow::Result<Vec<(String, PathBuf, bool)>> {
    let listed = match fs::read_dir(dir) {
        Ok(listed) => listed,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be listed", dir.display())),
    };
    let mut found = Vec::new();
    for entry in listed {
        let entry = entry.with_context(|| format!("{} cannot be listed", dir.display()))?;
        // A name that is no text is none of ours.
        let (Ok(name), Ok(kind)) = (entry.file_name().into_string(), entry.file_type()) else { continue };
        found.push((name, entry.path(), kind.is_dir()));
    }
    found.sort();
    Ok(found)
}
