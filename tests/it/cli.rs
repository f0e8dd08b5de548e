//! The command line: what it prints where, and how it ends.

use std::process::Output;

use serde_json::Value;

use crate::harness::api::shell;
use crate::harness::programs::{git, run_beside};
use crate::harness::{Harness, Setup};

async fn hopyard(harness: &Harness, args: &[&str]) -> Output {
    let (program, env) = harness.client();
    run_beside(program, args.iter().map(|a| (*a).to_owned()).collect(), harness.dir().to_owned(), env).await
}

fn data(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// Covers A12 and D22: `--wait` ends with the code of the run's end, and data is alone on standard output.
#[tokio::test]
async fn waiting_for_a_run_ends_with_its_code() {
    let harness = Harness::start(Setup::default()).await;
    let file = |name: &str, script: &str| {
        let text = format!("version: 1\nname: {name}\nworkspace: {{mode: none}}\nsteps:\n  - id: main\n    shell: {script}\n");
        std::fs::write(harness.dir().join(format!("{name}.yaml")), text).unwrap();
    };
    file("good", "echo fine");
    file("bad", "exit 9");
    file("long", "exec sleep 600");
    let good = hopyard(&harness, &["run", "-f", "good.yaml", "--wait", "--json"]).await;
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    let run = data(&good);
    let id = run["id"].as_str().or(run["run_id"].as_str()).expect("the run has an id").to_owned();
    assert_eq!(harness.run(&id).await["status"], "completed");
    assert_eq!(hopyard(&harness, &["run", "-f", "bad.yaml", "--wait"]).await.status.code(), Some(1));
    assert_eq!(hopyard(&harness, &["run", "-f", "nowhere.yaml", "--wait"]).await.status.code(), Some(2));
    assert_eq!(hopyard(&harness, &["run", "nowhere", "--wait"]).await.status.code(), Some(2));
    let log = hopyard(&harness, &["runs", "logs", &id]).await;
    assert_eq!((log.status.code(), String::from_utf8_lossy(&log.stdout).contains("fine")), (Some(0), true), "{log:?}");

    let long = harness.submit(shell("exec sleep 600")).await;
    let cancelled = hopyard(&harness, &["runs", "cancel", &long]).await;
    assert_eq!(cancelled.status.code(), Some(0), "{cancelled:?}");
    harness.wait_final(&long).await;
    let watched = hopyard(&harness, &["runs", "watch", &long]).await;
    assert_eq!(watched.status.code(), Some(3), "{watched:?}");
    let again = hopyard(&harness, &["runs", "cancel", &long]).await;
    assert_ne!(again.status.code(), Some(0), "what has ended cannot be cancelled, and the command says so");

    let (program, _) = harness.client();
    let nobody = vec![("HOPYARD_URL".to_owned(), "http://127.0.0.1:1".to_owned())];
    let unreachable = run_beside(program, vec!["runs".into(), "list".into()], harness.dir().to_owned(), nobody).await;
    assert_eq!(unreachable.status.code(), Some(5), "{unreachable:?}");
    harness.close().await;
}

/// Covers N9: the work of a run comes into a clone as a branch.
#[tokio::test]
async fn checkout_brings_the_branch_into_a_clone() {
    let mut harness = Harness::start(Setup::default()).await;
    let repo = harness.repo(&[&[("a", "1\n")]]);
    let text = "version: 1\nname: edit\nsteps:\n  - id: main\n    shell: echo 2 >> a\n";
    std::fs::write(harness.dir().join("edit.yaml"), text).unwrap();
    let ran = hopyard(&harness, &["run", "-f", "edit.yaml", "--repo", &repo.display().to_string(), "--wait", "--json"]).await;
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let run = data(&ran);
    let id = run["id"].as_str().or(run["run_id"].as_str()).unwrap();
    let (program, env) = harness.client();
    let args = ["runs", "checkout", id, "--branch", "mine"].map(str::to_owned).to_vec();
    let brought = run_beside(program, args, repo.clone(), env).await;
    assert_eq!(brought.status.code(), Some(0), "{brought:?}");
    assert_eq!(git(&repo, &["show", "mine:a"]), "1\n2");
    let diff = hopyard(&harness, &["runs", "diff", id]).await;
    assert!(String::from_utf8_lossy(&diff.stdout).contains("+2"), "{diff:?}");
    harness.close().await;
}
