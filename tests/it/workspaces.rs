//! Workspaces: one per run, isolated, kept as a branch, a diff and a bundle in every end, and gone afterwards.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::api::{on_repo, step_of};
use crate::harness::leftovers::{workspaces, worktrees};
use crate::harness::programs::git;
use crate::harness::wait::{eventually, holds};
use crate::harness::{Harness, Setup};

/// Covers A8, D16, H1, H3, H4 and H5: runs that one executor has at the same time see nothing of each other.
#[tokio::test]
async fn sixty_four_runs_of_one_repository_have_a_worktree_each() {
    const RUNS: usize = 64;
    let mut harness = Harness::start(Setup { slots: 64, lease: "20s", renew: "2s", ..Setup::default() }).await;
    let repo = harness.repo(&[&[("README", "a repository\n")]]);
    let meeting = harness.dir().join("meeting");
    std::fs::create_dir(&meeting).unwrap();
    // Nobody leaves before all are there: they exist at the same time.
    let script = format!(
        "touch {0}/$HOPYARD_RUN_ID; until [ $(ls {0} | wc -l) -ge {RUNS} ]; do sleep 0.2; done; pwd; echo $HOPYARD_RUN_ID > own; test $(ls | wc -l) = 2",
        meeting.display()
    );
    let request = on_repo(&repo, json!([{ "id": "main", "shell": script }]));
    let answer = harness.http("POST", "/api/v1/runs/batch", json!({ "runs": vec![request; RUNS] })).await.expect(200).json();
    let runs: Vec<String> = answer["items"].as_array().unwrap().iter().map(|i| i["run_id"].as_str().unwrap().to_owned()).collect();
    let mut places = BTreeSet::new();
    for run in &runs {
        let state = harness.wait_completed(run).await;
        let place = harness.stdout(run, "main").await.trim().to_owned();
        assert_eq!(step_of(&state, "main")["attempts"][0]["workspace"], json!(place));
        places.insert(place);
        assert_eq!(state["result"]["files"], json!([{ "path": "own", "status": "added", "insertions": 1, "deletions": 0 }]), "{state:#}");
    }
    assert_eq!(places.len(), RUNS);
    harness.close().await;
}

/// Covers H12, H14, H15: what a run made is a branch with its name in it, a diff, a list of files and a bundle anyone can fetch.
#[tokio::test]
async fn the_work_comes_back_as_a_branch_a_diff_and_a_bundle() {
    let mut harness = Harness::start(Setup::default()).await;
    let repo = harness.repo(&[&[("keep", "same\n"), ("change", "one\ntwo\n"), ("gone", "x\n")]]);
    let base = git(&repo, &["rev-parse", "HEAD"]);
    let request = on_repo(
        &repo,
        json!([
            { "id": "edit", "shell": "echo three >> change; rm gone; mkdir -p new; echo fresh > 'new/ä file'; git status --short | wc -l" },
            { "id": "check", "needs": ["edit"], "shell": "test -e 'new/ä file' && ! test -e gone" },
        ]),
    );
    let run = harness.submit(request).await;
    let state = harness.wait_completed(&run).await;
    let result = &state["result"];
    assert_eq!((&state["repo"]["commit"], &result["base"]), (&json!(base), &json!(base)), "{state:#}");
    assert_eq!(result["branch"], format!("hopyard/test/{run}"));
    let files: Vec<_> =
        result["files"].as_array().unwrap().iter().map(|f| (f["path"].as_str().unwrap(), f["status"].as_str().unwrap())).collect();
    assert_eq!(files, [("change", "modified"), ("gone", "deleted"), ("new/ä file", "added")]);
    assert_eq!((&result["insertions"], &result["deletions"]), (&json!(2), &json!(1)));
    assert_eq!(harness.get(&format!("/api/v1/runs/{run}/result")).await, *result);

    let bundle = harness.http("GET", &format!("/api/v1/runs/{run}/bundle"), Value::Null).await.expect(200);
    assert_eq!(bundle.header("content-type"), Some("application/x-git-bundle"));
    let file = harness.dir().join("run.bundle");
    std::fs::write(&file, &bundle.body).unwrap();
    let branch = result["branch"].as_str().unwrap();
    git(&repo, &["fetch", "-q", &file.display().to_string(), &format!("+refs/heads/{branch}:refs/heads/{branch}")]);
    assert_eq!(git(&repo, &["rev-parse", branch]), result["head"].as_str().unwrap());
    assert_eq!(git(&repo, &["merge-base", branch, "main"]), base);
    let message = git(&repo, &["log", "-1", "--format=%B", branch]);
    assert!(message.contains(&run) && message.contains("test"), "{message}");

    let diff = harness.http("GET", &format!("/api/v1/runs/{run}/diff"), Value::Null).await.expect(200);
    let patch = harness.dir().join("run.patch");
    std::fs::write(&patch, &diff.body).unwrap();
    git(&repo, &["apply", "--index", &patch.display().to_string()]);
    assert_eq!(git(&repo, &["write-tree"]), git(&repo, &["rev-parse", &format!("{branch}^{{tree}}")]), "the diff makes the same tree");
    assert_eq!(git(&repo, &["rev-parse", "HEAD"]), base, "the source itself is not touched");
    harness.close().await;
}

/// Covers H13 and B8: failed and killed runs keep their work, and a run that changed nothing says so.
#[tokio::test]
async fn work_is_kept_in_every_end() {
    let mut harness = Harness::start(Setup::default()).await;
    let repo = harness.repo(&[&[("a", "1\n")]]);
    let failed = harness.submit(on_repo(&repo, json!([{ "id": "main", "shell": "echo part > partial; exit 1" }]))).await;
    let killed =
        harness.submit(on_repo(&repo, json!([{ "id": "main", "shell": "echo part > partial; echo ready; exec sleep 600" }]))).await;
    let idle = harness.submit(on_repo(&repo, json!([{ "id": "main", "shell": "true" }]))).await;
    harness.http("GET", &format!("/api/v1/runs/{killed}/diff"), Value::Null).await.problem(409, "not_final");
    harness.wait_running(&killed, "main").await;
    eventually("the step has written", || async {
        let log = harness.log_so_far(&killed, "main").await;
        holds(log.contains("ready"), log)
    })
    .await;
    harness.cancel(&killed, Value::Null).await.expect(202);
    for (run, status) in [(&failed, "failed"), (&killed, "killed")] {
        let state = harness.wait_final(run).await;
        assert_eq!((&state["status"], &state["result"]["files"][0]["path"]), (&json!(status), &json!("partial")), "{state:#}");
        let diff = harness.http("GET", &format!("/api/v1/runs/{run}/diff"), Value::Null).await.expect(200).text();
        assert!(diff.contains("+part"), "{diff}");
    }
    let state = harness.wait_completed(&idle).await;
    assert_eq!(state["result"]["files"], json!([]), "{state:#}");
    assert_eq!(harness.http("GET", &format!("/api/v1/runs/{idle}/diff"), Value::Null).await.expect(200).body, b"");
    harness.http("GET", &format!("/api/v1/runs/{idle}/bundle"), Value::Null).await.problem(404, "no_changes");
    harness.close().await;
}

/// Covers H2 and H7: a named session keeps its directory from run to run, over restarts, and no sweep takes it.
#[tokio::test]
async fn a_session_keeps_its_workspace() {
    let mut harness = Harness::start(Setup { settings: vec![("SWEEP", "1s".into()), ("MAX_AGE", "1s".into())], ..Setup::default() }).await;
    let repo = harness.repo(&[&[("a", "1\n")]]);
    let request = |script: &str| {
        let mut request = on_repo(&repo, json!([{ "id": "main", "shell": script }]));
        request["definition"]["workspace"] = json!({ "mode": "persistent" });
        request["session"] = json!("builder");
        request
    };
    let first = harness.submit(request("echo once > made; echo cache > .git-ignored-not; pwd")).await;
    harness.wait_completed(&first).await;
    let place = harness.stdout(&first, "main").await;
    harness.stop_service("executor-1").await;
    harness.start_service("executor-1").await;
    let second = harness.submit(request("cat made; pwd")).await;
    harness.wait_completed(&second).await;
    assert_eq!(harness.stdout(&second, "main").await, format!("once\n{place}"));
    let kept = harness.get("/api/v1/workspaces").await;
    assert!(kept["items"].as_array().is_some_and(|i| i.iter().any(|w| w["session"] == "builder" && w["status"] == "kept")), "{kept:#}");
    assert!(std::path::Path::new(place.trim()).is_dir());
    harness.close().await;
}

/// Covers H6, H8 and H10: what nobody owns goes, also what was deleted by hand, and git knows nothing of it afterwards.
#[tokio::test]
async fn what_was_deleted_by_hand_leaves_no_trace() {
    let mut harness = Harness::start(Setup::default()).await;
    let repo = harness.repo(&[&[("a", "1\n")]]);
    let gate = harness.dir().join("gate");
    let run = harness
        .submit(on_repo(&repo, json!([{ "id": "main", "shell": format!("until [ -e {} ]; do sleep 0.05; done", gate.display()) }])))
        .await;
    harness.wait_running(&run, "main").await;
    assert_eq!((workspaces(&harness.hosts()).len(), worktrees(&harness.hosts()).len()), (1, 1));
    harness.stop_service("janitor-1").await;
    std::fs::write(&gate, "").unwrap();
    harness.wait_completed(&run).await;
    for workspace in workspaces(&harness.hosts()) {
        std::fs::remove_dir_all(workspace).unwrap();
    }
    harness.start_service("janitor-1").await;
    // Closing waits until git's own list is clean.
    harness.close().await;
}

/// Covers X6: the first run of a large repository writes its files, and those to come find them written.
#[tokio::test]
async fn later_runs_of_a_large_repository_find_their_files_written() {
    let mut harness = Harness::start(Setup::default()).await;
    let files: Vec<(String, String)> = (0..600).map(|n| (format!("part{}/{n}", n % 9), format!("{n}\n"))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let repo = harness.repo(&[&files]);
    let request = on_repo(
        &repo,
        json!([{ "id": "main", "shell": "test $(ls -R | grep -c '^[0-9]') = 600 && git status --short && echo new > new" }]),
    );
    let made = async |how: &str| harness.metric("executor-1", &format!("hopyard_workspaces_made_total{{how=\"{how}\"}}")).await;
    let first = harness.submit(request.clone()).await;
    harness.wait_completed(&first).await;
    assert_eq!((made("plain").await, made("warm").await), (1.0, 0.0));
    eventually("checkouts wait", || async {
        let waiting = harness.hosts().iter().map(|host| warm_checkouts(host)).sum::<usize>();
        holds(waiting == 2, format!("{waiting} wait"))
    })
    .await;
    let second = harness.submit(request).await;
    let state = harness.wait_completed(&second).await;
    assert_eq!((made("plain").await, made("warm").await), (1.0, 1.0));
    assert_eq!(harness.stdout(&second, "main").await, "", "nothing is there but what the commit has");
    assert_eq!(state["result"]["files"], json!([{ "path": "new", "status": "added", "insertions": 1, "deletions": 0 }]));
    harness.close().await;
}

/// Checkouts that wait on a host.
fn warm_checkouts(host: &Path) -> usize {
    let below = |dir: PathBuf| std::fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    let pools = below(host.join("mirrors")).filter(|path| path.extension().is_some_and(|end| end == "warm"));
    pools.flat_map(below).filter(|path| path.is_dir()).count()
}
