//! How a step is started, and what happens when it cannot be.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use hopyard_contract::log::Stream;
use hopyard_executor::process::control::{self, Command, Report};
use hopyard_executor::process::{EXIT_FILE, ExitKind, environment, exit_facts};

use nix::sys::signal::Signal;

use crate::bench::{Bench, PATIENCE, spawn_shim};

pub(crate) async fn an_exit_code_is_told() {
    for code in [0, 3, 255] {
        let bench = Bench::new();
        let facts = bench.run(&["sh", "-c", &format!("exit {code}")]).await;
        assert_eq!((facts.kind, facts.code, facts.signal), (ExitKind::Exited, Some(code), None));
        assert_eq!(facts.succeeded(), code == 0);
        assert!(facts.started_at.unwrap() <= facts.finished_at);
        assert_eq!(exit_facts(&bench.spool_dir()).unwrap().unwrap().code, Some(code));
        let text = std::fs::read_to_string(bench.spool_dir().join(EXIT_FILE)).unwrap();
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        let at = file["finished_at"].as_str().unwrap();
        assert!(at.len() == "2026-01-31T12:00:00.000000Z".len() && at.ends_with('Z'), "{at}");
    }
}

pub(crate) async fn a_signal_is_told() {
    let bench = Bench::new();
    let facts = bench.run(&["sh", "-c", "kill -SEGV $$"]).await;
    assert_eq!((facts.kind, facts.code, facts.signal), (ExitKind::Signaled, None, Some(11)));
    assert_eq!(facts.signal_name().as_deref(), Some("SIGSEGV"));
    let bench = Bench::new();
    let facts = bench.run(&["sh", "-c", "kill -40 $$"]).await;
    assert_eq!((facts.kind, facts.code, facts.signal), (ExitKind::Signaled, None, None));
}

pub(crate) async fn the_environment_is_exactly_the_built_one() {
    let mut bench = Bench::new();
    let values =
        [("EQUALS", "a=b=c"), ("SPACES", "  two  words "), ("LINES", "one\ntwo\n"), ("UTF8", "gr\u{fc}\u{df} \u{1f98a}"), ("EMPTY", "")];
    bench.declared = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let facts = bench.run(&["env", "-0"]).await;
    assert!(facts.succeeded(), "{facts:?}");
    let text = String::from_utf8(bench.log(Stream::Stdout)).unwrap();
    let pairs = text.split_terminator('\0').map(|pair| pair.split_once('=').unwrap());
    let seen: BTreeMap<_, _> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(seen, bench.spec(&["env"]).step.env);
    assert_eq!(seen[environment::ATTEMPT], bench.attempt);
}

pub(crate) async fn no_signal_is_blocked() {
    let bench = Bench::new();
    let facts = bench.run(&["cat", "/proc/self/status"]).await;
    assert!(facts.succeeded(), "{facts:?}");
    let status = String::from_utf8(bench.log(Stream::Stdout)).unwrap();
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!(mask("SigBlk:"), 0);
    let pipe = 1 << (Signal::SIGPIPE as u32 - 1);
    assert_eq!(mask("SigIgn:") & pipe, 0);
}

pub(crate) async fn standard_input_is_empty() {
    let bench = Bench::new();
    let facts = bench.run(&["sh", "-c", "cat; readlink /proc/self/fd/0; ls /proc/self/fd"]).await;
    assert!(facts.succeeded(), "{facts:?}");
    // Nothing of the shim is open in the step: its own three, and the directory that `ls` reads.
    assert_eq!(String::from_utf8(bench.log(Stream::Stdout)).unwrap(), "/dev/null\n0\n1\n2\n3\n");
}

pub(crate) async fn a_missing_program_names_the_searched_path() {
    let bench = Bench::new();
    let process = bench.spawn(&["no-such-program"]).await;
    let facts = bench.end_of(&process).await;
    assert_eq!((facts.kind, facts.code, facts.started_at), (ExitKind::SpawnFailed, None, None));
    let expected = format!("program no-such-program not found, searched {}", environment::DEFAULT_PATH);
    assert_eq!(facts.error.as_deref(), Some(expected.as_str()));
    assert!(bench.system_log().contains(&expected));
    assert_eq!(process.started().await, None);
}

pub(crate) async fn a_missing_interpreter_and_directory_are_named() {
    let bench = Bench::new();
    let script = bench.work().join("script");
    std::fs::write(&script, "#!/no/such/shell\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let facts = bench.run(&["./script"]).await;
    assert_eq!(facts.kind, ExitKind::SpawnFailed);
    assert!(facts.error.unwrap().starts_with("interpreter /no/such/shell of script "));

    let bench = Bench::new();
    std::fs::remove_dir(bench.work()).unwrap();
    let facts = bench.run(&["true"]).await;
    assert_eq!(facts.kind, ExitKind::SpawnFailed);
    assert_eq!(facts.error.unwrap(), format!("working directory {} does not exist", bench.work().display()));

    let bench = Bench::new();
    let facts = bench.run(&["sh", "-c", "exit 0", "a\0b"]).await;
    assert_eq!(facts.kind, ExitKind::SpawnFailed);
    assert!(facts.error.unwrap().starts_with("cannot start "));
}

pub(crate) async fn a_kill_that_comes_first_starts_nothing() {
    let bench = Bench::new();
    let spec = Command::Spec(Box::new(bench.spec(&["sh", "-c", "touch started"]).step));
    let kill = Command::Kill { reason: "operator".to_owned(), force: false };
    let (mut shim, ours) = spawn_shim(&bench, &[control::line(&spec), control::line(&kill)].concat()).await;
    assert!(shim.wait().await.unwrap().1.success());
    let facts = exit_facts(&bench.spool_dir()).unwrap().unwrap();
    assert_eq!((facts.kind, facts.started_at), (ExitKind::Killed, None));
    assert_eq!(facts.reason.as_deref(), Some("operator"));
    assert!(!bench.work().join("started").exists());
    let said: Report = serde_json::from_str(&std::io::read_to_string(ours).unwrap()).unwrap();
    assert_eq!(said, Report::Exited(Box::new(facts)));
}

pub(crate) async fn a_kill_right_after_the_spawn_ends_as_killed() {
    let bench = Bench::new();
    let process = bench.shell("exec sleep 1000").await;
    process.kill("operator", false);
    let facts = bench.end_of(&process).await;
    assert_eq!((facts.kind, facts.reason.as_deref()), (ExitKind::Killed, Some("operator")));
}

pub(crate) async fn an_executor_that_vanishes_first_starts_nothing() {
    let bench = Bench::new();
    let (mut shim, ours) = spawn_shim(&bench, b"").await;
    drop(ours);
    assert!(shim.wait().await.unwrap().1.success());
    assert!(exit_facts(&bench.spool_dir()).unwrap().is_none());
}

pub(crate) async fn a_cgroup_is_used_or_its_refusal_is_said() {
    // Where the hierarchy is mounted and writable the real thing runs; a plain directory shows the refusal everywhere.
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let mut places = vec![(std::env::temp_dir(), false)];
    places.extend(roots.into_iter().filter(|root| root.join("cgroup.procs").exists()).map(|root| (root.to_owned(), true)));
    for (place, real) in places {
        let mut bench = Bench::new();
        let group = place.join(format!("hopyard-{}", bench.attempt));
        // A hierarchy that may only be read is a refusal too.
        let real = std::fs::create_dir(&group).is_ok() && real;
        bench.cgroup = Some(group.clone());
        let process =
            bench.shell("trap '' TERM; cat /proc/self/cgroup; (setsid sh -c \"trap '' TERM; exec sleep 1000\" &); exec sleep 1000").await;
        crate::bench::wait_for_output(&process, ":/").await;
        process.kill("operator", false);
        let facts = tokio::time::timeout(PATIENCE, bench.end_of(&process)).await.unwrap();
        assert_eq!(facts.kind, ExitKind::Killed);
        let inside = String::from_utf8(bench.log(Stream::Stdout)).unwrap().contains(&format!("hopyard-{}/step", bench.attempt));
        let refused = bench.system_log().contains("the cgroup of the step is not used: ");
        assert_eq!((inside, refused), (real, !real));
        assert!(!group.exists(), "the group is removed");
    }
}

/// A script may be held open for writing by a child that was forked while it was written, until that enters its own program.
pub(crate) async fn a_script_that_is_held_open_for_a_moment_starts_all_the_same() {
    let bench = Bench::new();
    let script = bench.work().join("script");
    std::fs::write(&script, "#!/bin/sh\nexit 6\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let held = std::fs::OpenOptions::new().append(true).open(&script).unwrap();
    let process = bench.spawn(&[script.to_str().unwrap()]).await;
    let let_go = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(held);
    };
    let (pid, ()) = tokio::join!(process.started(), let_go);
    assert!(pid.is_some());
    assert_eq!(bench.end_of(&process).await.code, Some(6));
}
