//! The proof that a stack has nothing left over: no unended run, no unsettled message, no process, no workspace.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hopyard_store::Store;

use super::bus::{Bus, SILENCE};
use super::programs::git;
use super::wait::{holds, within};

/// Processes of attempts whose workspace or output lies below `dir`, as `pid: attempt`.
pub fn step_processes(dir: &Path) -> Vec<String> {
    let place = dir.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(bytes) = std::fs::read(entry.path().join("environ")) else { continue };
        let vars: Vec<String> = bytes.split(|b| *b == 0).map(|v| String::from_utf8_lossy(v).into_owned()).collect();
        let attempt = vars.iter().find_map(|v| v.strip_prefix("HOPYARD_ATTEMPT="));
        let ours = vars.iter().any(|v| v.starts_with("HOPYARD_OUTPUT=") && v.contains(&place));
        if let Some(attempt) = attempt.filter(|_| ours) {
            found.push(format!("{name}: {attempt}"));
        }
    }
    found
}

/// As [`step_processes`], without those that are stopped.
pub fn running_step_processes(dir: &Path) -> Vec<String> {
    let stopped = |process: &String| {
        let pid = process.split(':').next().unwrap_or_default();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 'Z', 'X']))
    };
    step_processes(dir).into_iter().filter(|process| !stopped(process)).collect()
}

/// Temporary workspaces below the data directories of hosts.
pub fn workspaces(hosts: &[PathBuf]) -> Vec<PathBuf> {
    entries(hosts).into_iter().filter(|path| path.is_dir()).collect()
}

/// Temporary workspaces and what executors note beside them.
fn entries(hosts: &[PathBuf]) -> Vec<PathBuf> {
    let list = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect::<Vec<_>>();
    hosts.iter().flat_map(|host| list(&host.join("workspaces"))).flat_map(|executor| list(&executor)).collect()
}

/// Worktrees that the mirrors of hosts know of, but for those of persistent sessions.
pub fn worktrees(hosts: &[PathBuf]) -> Vec<String> {
    let mut found = Vec::new();
    for host in hosts {
        for mirror in mirrors(&host.join("mirrors")) {
            let list = git(&mirror, &["worktree", "list", "--porcelain"]);
            let own = mirror.display().to_string();
            let others =
                list.lines().filter_map(|l| l.strip_prefix("worktree ")).filter(|path| *path != own && !path.contains("/sessions/"));
            found.extend(others.map(str::to_owned));
        }
    }
    found
}

/// Bare repositories below a directory, at any depth.
pub fn mirrors(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir()) {
        if path.join("HEAD").is_file() && path.join("objects").is_dir() {
            found.push(path);
        } else {
            found.extend(mirrors(&path));
        }
    }
    found
}

/// Waits until nothing is left, each thing for at most `limit`, and fails with what stays.
pub async fn none(limit: Duration, store: &str, bus: std::net::SocketAddr, dir: &Path, hosts: &[PathBuf]) {
    let reader = Store::open(store).await.unwrap().reader();
    within(limit, "every run ends", || async {
        let live = reader.live_counts().await.map_err(|e| e.to_string())?;
        holds(live.iter().all(|(_, _, n)| *n == 0), format!("{live:?}"))
    })
    .await;
    let mut client = Bus::connect(bus).await;
    for (stream, durable) in [("HOPYARD_CMD", "ingest"), ("HOPYARD_RESULT", "scheduler")] {
        // What the server forgot to drop is told from what is under way by a silence, which begins with the last message.
        let deadline = std::time::Instant::now() + limit + SILENCE.to_std().unwrap_or_default();
        loop {
            let unsettled = client.unsettled(stream, durable).await;
            if unsettled == Ok(0) {
                break;
            }
            if std::time::Instant::now() >= deadline {
                panic!("{stream} is not settled: {unsettled:?}: {}", client.told(stream, durable).await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    within(limit, "the outbox is empty", || async {
        let age = reader.outbox_age_ms().await.map_err(|e| e.to_string())?;
        holds(age == 0, format!("the oldest row is {age} ms old"))
    })
    .await;
    within(limit, "no step has a process", || async {
        let processes = step_processes(dir);
        holds(processes.is_empty(), format!("{processes:?}"))
    })
    .await;
    within(limit, "no workspace is left", || async {
        let (directories, worktrees) = (entries(hosts), worktrees(hosts));
        holds(directories.is_empty() && worktrees.is_empty(), format!("{directories:?} {worktrees:?}"))
    })
    .await;
}
