//! The examples that start a run from other languages, without any library.

use std::path::PathBuf;

use hopyard::servers::process_env;

use crate::harness::programs::run_beside;
use crate::harness::{Harness, Setup};

/// Covers A21: plain NATS from bash and from Python, receipt, verdict and events included.
#[tokio::test]
async fn bash_and_python_publish_runs_over_plain_nats() {
    let harness = Harness::start(Setup::default()).await;
    let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples").canonicalize().unwrap();
    let bus = harness.nats.addr().to_string();
    let script = |name: &str| examples.join(name).display().to_string();
    let python = process_env("HOPYARD_PYTHON").unwrap_or_else(|| "python3".to_owned());
    let calls = [
        (PathBuf::from("bash"), vec![script("publish.sh"), "--follow".into(), bus.clone()]),
        (PathBuf::from(python), vec![script("publish.py"), "--follow".into(), "--nats".into(), bus]),
    ];
    for (program, args) in calls {
        let output = run_beside(program, args, harness.dir().to_owned(), Vec::new()).await;
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        for word in ["accepted", "run.completed"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
    let runs = harness.get("/api/v1/runs?status=completed").await;
    assert_eq!(runs["items"].as_array().map(Vec::len), Some(2), "{runs:#}");
    harness.close().await;
}
