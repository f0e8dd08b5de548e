//! The disk and the processes of this host against the inventory: nothing without an owner, nothing missing.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hopyard_contract::RunId;
use hopyard_contract::run::{RunState, WorkspaceRow, WorkspaceStatus};
use hopyard_runtime::processes;
use hopyard_store::audit::AuditReader;

use super::Scope;
use super::report::{DISK, PROCESSES, Report};

/// Names that are asked about together.
const PAGE: usize = 200;
/// A spool is settled and removed within this time of its last change.
const SETTLED: Duration = Duration::from_secs(600);
/// At rest nothing is under way any more.
const AT_REST: Duration = Duration::from_secs(15);
/// A process tree is gone within this time of the end of its run.
const GONE: chrono::TimeDelta = chrono::TimeDelta::seconds(30);

/// One thing on the disk that belongs to a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    /// A directory among the workspaces: `<run>-g<k>`.
    Workspace,
    /// A persistent workspace, by the one that uses it now.
    Session,
    /// An entry of a mirror.
    Entry,
    /// What an attempt has written so far.
    Spool,
}

#[derive(Clone, Debug)]
struct Found {
    thing: Thing,
    /// Name: of a workspace, or of an attempt.
    name: String,
    path: PathBuf,
}

/// Looks through the data directories, if any are given.
pub(crate) async fn check(audit: &dyn AuditReader, dirs: &[PathBuf], scope: &Scope, report: &mut Report) {
    if dirs.is_empty() {
        for question in [DISK, PROCESSES] {
            report.broke_off(&question, "--data-dir names the data directory of this host's executors");
        }
        return;
    }
    for dir in dirs {
        let outcome = async {
            let found = list(dir)?;
            report.looked(&DISK, found.len());
            for page in found.chunks(PAGE) {
                owners(audit, page, scope, report).await?;
            }
            present(audit, dir, report).await
        };
        if let Err(error) = outcome.await {
            report.broke_off(&DISK, &format!("{}: {error:#}", dir.display()));
        }
    }
    if let Err(error) = leftovers(audit, report).await {
        report.broke_off(&PROCESSES, &format!("{error:#}"));
    }
}

fn list(dir: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut sessions: BTreeMap<String, String> = BTreeMap::new();
    for executor in entries(&dir.join("workspaces"))? {
        for path in entries(&executor)?.into_iter().filter(|path| path.is_dir()) {
            found.push(Found { thing: Thing::Workspace, name: name(&path), path });
        }
    }
    for executor in entries(&dir.join("sessions"))? {
        for path in entries(&executor)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "json")) {
            let record: serde_json::Value = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
            if let Some(owner) = record.get("owner").and_then(serde_json::Value::as_str) {
                // The entry in the mirror is named after the session's directory.
                sessions.insert(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(), owner.to_owned());
                found.push(Found { thing: Thing::Session, name: owner.to_owned(), path });
            }
        }
    }
    for mirror in mirrors(&dir.join("mirrors"))? {
        for path in entries(&mirror.join("worktrees"))? {
            let owner = sessions.get(&name(&path)).cloned().unwrap_or_else(|| name(&path));
            found.push(Found { thing: Thing::Entry, name: owner, path });
        }
    }
    for executor in entries(&dir.join("spool"))? {
        // Attempts have no such names; what waits for one there is empty.
        for path in entries(&executor)?.into_iter().filter(|path| path.is_dir() && !name(path).starts_with('.')) {
            found.push(Found { thing: Thing::Spool, name: name(&path), path });
        }
    }
    Ok(found)
}

/// Bare repositories below a directory, at any depth.
fn mirrors(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = open.pop() {
        if dir.join("HEAD").is_file() && dir.join("objects").is_dir() {
            found.push(dir);
        } else if dir.is_dir() {
            open.extend(entries(&dir)?);
        }
    }
    Ok(found)
}

/// What a directory holds, in order; one that is not there holds nothing.
fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(listed) => {
            let mut paths: Vec<PathBuf> = listed.map(|entry| entry.map(|e| e.path())).collect::<io::Result<_>>()?;
            paths.sort();
            Ok(paths)
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Everything on the disk needs an owner. What went away since it was listed is no matter.
async fn owners(audit: &dyn AuditReader, page: &[Found], scope: &Scope, report: &mut Report) -> anyhow::Result<()> {
    let names: Vec<String> = page.iter().filter(|f| f.thing != Thing::Spool).map(|f| f.name.clone()).collect();
    let rows: BTreeMap<String, WorkspaceRow> = audit.inventory_of(&names).await?.into_iter().map(|row| (row.id.clone(), row)).collect();
    let runs: BTreeSet<RunId> = page.iter().filter(|f| f.thing == Thing::Spool).filter_map(|f| run_of(&f.name)).collect();
    let states: Vec<RunState> = if runs.is_empty() {
        Vec::new()
    } else {
        audit.histories(&runs.into_iter().collect::<Vec<_>>()).await?.runs.into_iter().map(|(state, _)| state).collect()
    };
    for found in page {
        let why = match found.thing {
            Thing::Spool => ownerless_spool(found, &states, scope),
            _ => ownerless(found, rows.get(&found.name), scope),
        };
        if let Some(why) = why.filter(|_| found.path.symlink_metadata().is_ok()) {
            report.found(&DISK, &found.name, format!("{}: {why}", found.path.display()));
        }
    }
    Ok(())
}

fn ownerless(found: &Found, row: Option<&WorkspaceRow>, scope: &Scope) -> Option<String> {
    let what = match found.thing {
        Thing::Entry => "the worktree entry",
        _ => "the directory",
    };
    match row {
        None => Some(format!("{what} belongs to no recorded workspace")),
        // A session moves its one directory from run to run, and the entry keeps its first name.
        Some(row) if row.status == WorkspaceStatus::Removed && row.session.is_none() => {
            Some(format!("{what} is there, the inventory says removed"))
        }
        Some(row) if row.status == WorkspaceStatus::Reclaimable && scope.quiesced => Some(format!("{what} may go and is still there")),
        Some(_) => None,
    }
}

fn ownerless_spool(found: &Found, states: &[RunState], scope: &Scope) -> Option<String> {
    let patience = if scope.quiesced { AT_REST } else { SETTLED };
    let attempt = run_of(&found.name).and_then(|run| {
        let state = states.iter().find(|s| s.run.id == run)?;
        state.attempts.iter().find(|a| format!("{run}.{}.{}", a.step, a.n) == found.name)
    });
    match attempt {
        None => Some("the spool belongs to no recorded attempt".to_owned()),
        Some(attempt) if attempt.status.is_final() && age(&found.path) > patience => {
            Some(format!("the spool is there, its attempt is {}", attempt.status))
        }
        Some(_) => None,
    }
}

/// A live attempt's directory must be there.
async fn present(audit: &dyn AuditReader, dir: &Path, report: &mut Report) -> anyhow::Result<()> {
    let root = std::path::absolute(dir)?;
    let mut behind = String::new();
    loop {
        let rows = audit.inventory(&behind, 200).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        behind.clone_from(&last.id);
        let gone = |row: &&WorkspaceRow| {
            row.status == WorkspaceStatus::Active && Path::new(&row.path).starts_with(&root) && !Path::new(&row.path).exists()
        };
        let suspects: Vec<WorkspaceRow> = rows.iter().filter(gone).cloned().collect();
        let again = audit.inventory_of(&suspects.iter().map(|row| row.id.clone()).collect::<Vec<_>>()).await?;
        for row in again.into_iter().filter(|row| row.status == WorkspaceStatus::Active) {
            report.found(&DISK, &row.id, format!("{} is not there, and its run is not over", row.path));
        }
    }
}

/// Processes that carry the mark of an attempt whose run has ended.
async fn leftovers(audit: &dyn AuditReader, report: &mut Report) -> anyhow::Result<()> {
    let mut marked: BTreeMap<RunId, Vec<(i32, String)>> = BTreeMap::new();
    for process in processes::all()?.into_iter().filter(|p| !p.zombie) {
        let mark = RefCell::new(None);
        let is_marked = processes::is_marked(process.pid, |attempt| {
            mark.replace(Some(attempt.to_owned()));
            true
        });
        if let Some((attempt, run)) = mark.into_inner().filter(|_| is_marked).and_then(|a| run_of(&a).map(|run| (a, run))) {
            marked.entry(run).or_default().push((process.pid, attempt));
        }
    }
    report.looked(&PROCESSES, marked.values().map(Vec::len).sum());
    let ids: Vec<RunId> = marked.keys().copied().collect();
    for page in ids.chunks(PAGE) {
        let histories = audit.histories(page).await?;
        for (state, _) in &histories.runs {
            let long_over = state.run.finished_at.is_some_and(|at| histories.now - at > GONE);
            for (pid, attempt) in marked.get(&state.run.id).into_iter().flatten().filter(|_| long_over) {
                if processes::is_marked(*pid, |mark| mark == attempt) {
                    report.found(&PROCESSES, attempt, format!("process {pid} lives, its run is {}", state.run.status));
                }
            }
        }
    }
    Ok(())
}

/// The run in `<run>.<step>.<n>`.
fn run_of(attempt: &str) -> Option<RunId> {
    attempt.split('.').next()?.parse().ok()
}

/// Time since the last change of a directory or of a file right in it.
fn age(dir: &Path) -> Duration {
    let inside = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let since = |path: PathBuf| {
        let changed = path.symlink_metadata().and_then(|meta| meta.modified()).ok();
        changed.and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default()
    };
    inside.chain([dir.to_owned()]).map(since).min().unwrap_or_default()
}
