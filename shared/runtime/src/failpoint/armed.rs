//! What is armed in this process, and what happens at a point.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, raise};

use super::POINTS;
use crate::config::environment;

/// Variable with the armed points.
const POINTS_VARIABLE: &str = "HOPYARD_FAILPOINTS";
/// Variable with the directory that makes each point act once.
const ONCE_VARIABLE: &str = "HOPYARD_FAILPOINTS_ONCE";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Crash,
    Panic,
    Error,
    Delay(Duration),
}

#[derive(Debug)]
struct Armed {
    name: String,
    action: Action,
    /// The pass that acts.
    at: u64,
    /// Whether later ones act too.
    on: bool,
    passes: AtomicU64,
}

#[derive(Debug, Default)]
struct All {
    points: Vec<Armed>,
    once: Option<PathBuf>,
}

/// Refuses settings that arm what there is not.
///
/// # Errors
/// When a name, an action or a count is not known.
pub fn check() -> anyhow::Result<()> {
    read(&environment(POINTS_VARIABLE).unwrap_or_default()).with_context(|| POINTS_VARIABLE.to_owned()).map(drop)
}

/// The variables as this process has them.
pub(super) fn settings() -> Vec<(&'static str, String)> {
    [POINTS_VARIABLE, ONCE_VARIABLE].into_iter().filter_map(|name| Some((name, environment(name)?))).collect()
}

/// A thread passes a point that cannot fail.
pub fn pass(name: &'static str) {
    // Only a point that is written as one that can fail is armed with an error.
    drop(try_pass(name));
}

/// A thread passes a point that can fail.
///
/// # Errors
/// When it is armed with `error`.
pub fn try_pass(name: &'static str) -> std::io::Result<()> {
    static ALL: OnceLock<All> = OnceLock::new();
    let all = ALL.get_or_init(|| All {
        // Services have refused bad settings at their start; a shim takes them for nothing.
        points: read(&environment(POINTS_VARIABLE).unwrap_or_default()).unwrap_or_default(),
        once: environment(ONCE_VARIABLE).map(PathBuf::from),
    });
    let Some(action) = all.acts(name) else { return Ok(()) };
    eprintln!("failpoint {name}: {action:?}");
    match action {
        Action::Crash => {
            raise(Signal::SIGKILL).expect("a process may kill itself");
            // The signal is on its way.
            loop {
                std::thread::park();
            }
        }
        Action::Panic => panic!("failpoint {name}"),
        Action::Error => Err(std::io::Error::new(std::io::ErrorKind::StorageFull, format!("failpoint {name}: no space left on device"))),
        Action::Delay(span) => {
            std::thread::sleep(span);
            Ok(())
        }
    }
}

impl All {
    /// What this pass does.
    fn acts(&self, name: &str) -> Option<Action> {
        let point = self.points.iter().find(|p| p.name == name)?;
        let pass = point.passes.fetch_add(1, Ordering::Relaxed) + 1;
        if pass < point.at || (pass > point.at && !point.on && self.once.is_none()) {
            return None;
        }
        let first =
            self.once.as_ref().is_none_or(|dir| std::fs::OpenOptions::new().write(true).create_new(true).open(dir.join(name)).is_ok());
        first.then_some(point.action)
    }
}

fn read(text: &str) -> anyhow::Result<Vec<Armed>> {
    text.split(',').filter(|part| !part.is_empty()).map(|part| one(part).with_context(|| format!("`{part}`"))).collect()
}

fn one(part: &str) -> anyhow::Result<Armed> {
    let (name, rest) = part.split_once('=').context("a point and its action are joined by `=`")?;
    if !POINTS.contains(&name) {
        bail!("there is no such point");
    }
    let (action, at) = rest.split_once(':').unwrap_or((rest, "1"));
    let (at, on) = at.strip_suffix('+').map_or((at, false), |at| (at, true));
    let action = match action {
        "crash" => Action::Crash,
        "panic" => Action::Panic,
        "error" => Action::Error,
        other => {
            let ms = other.strip_prefix("delay(").and_then(|r| r.strip_suffix(')')).context("there is no such action")?;
            Action::Delay(Duration::from_millis(ms.parse().context("a delay is a number of milliseconds")?))
        }
    };
    Ok(Armed { name: name.to_owned(), action, at: at.parse().context("a pass is a number")?, on, passes: AtomicU64::new(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, once: Option<PathBuf>) -> All {
        All { points: read(text).unwrap(), once }
    }

    #[test]
    fn a_point_acts_at_its_pass_and_after_it_only_if_told_so() {
        let all = all("scheduler.commit.before=crash:2,scheduler.commit.after=error:2+,executor.spawned=delay(7)", None);
        let passes = |name: &str| (0..4).map(|_| all.acts(name)).collect::<Vec<_>>();
        assert_eq!(passes("scheduler.commit.before"), [None, Some(Action::Crash), None, None]);
        assert_eq!(passes("scheduler.commit.after"), [None, Some(Action::Error), Some(Action::Error), Some(Action::Error)]);
        assert_eq!(passes("executor.spawned"), [Some(Action::Delay(Duration::from_millis(7))), None, None, None]);
        assert_eq!(passes("janitor.asked"), [None; 4]);
    }

    #[test]
    fn a_point_acts_once_among_all_that_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let process = || all("executor.spawned=crash:2", Some(dir.path().to_owned()));
        let (one, two) = (process(), process());
        assert_eq!((one.acts("executor.spawned"), two.acts("executor.spawned")), (None, None));
        assert_eq!((one.acts("executor.spawned"), two.acts("executor.spawned")), (Some(Action::Crash), None));
        assert!(dir.path().join("executor.spawned").exists());
    }

    #[test]
    fn what_there_is_not_is_refused() {
        for text in
            ["nowhere=crash", "executor.spawned", "executor.spawned=explode", "executor.spawned=crash:x", "executor.spawned=delay(x)"]
        {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(text), "{error}");
        }
    }
}
