//! A place to run one step in, and proofs that nothing of it is left.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hopyard_contract::log::Stream;
use hopyard_executor::process::environment::{self, Identity};
use hopyard_executor::process::{
    ExitFacts, Limits, Nursery, ProcessSpec, SPOOL_FILE, ShimProcess, SpoolReader, StepProcess, StepSpec, exit_facts, tree,
};
use hopyard_runtime::tasks::Tasks;

/// Longest time anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The argument that makes this executable an executor that can be killed.
pub(crate) const STAND_IN: &str = "executor-stand-in";

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A workspace and a spool directory of one attempt.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) attempt: String,
    pub(crate) declared: BTreeMap<String, String>,
    pub(crate) limits: Limits,
    pub(crate) cgroup: Option<PathBuf>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("work")).unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let attempt = format!("test-{}.step.{number}", std::process::id());
        let limits = Limits { grace_ms: 300, ..Limits::default() };
        Self { dir, attempt, declared: BTreeMap::new(), limits, cgroup: None }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    pub(crate) fn spool_dir(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    pub(crate) fn spec(&self, argv: &[&str]) -> ProcessSpec {
        let (work, out) = (self.work(), self.dir.path().join("out"));
        let identity = Identity {
            run: "run",
            step: "step",
            attempt: &self.attempt,
            workflow: "flow",
            workspace: work.to_str().unwrap(),
            output: out.to_str().unwrap(),
            question: "/ask",
            answer: None,
            home: work.to_str().unwrap(),
            tmp: work.to_str().unwrap(),
        };
        ProcessSpec {
            dir: self.spool_dir(),
            cgroup: self.cgroup.clone(),
            step: StepSpec {
                attempt: self.attempt.clone(),
                argv: argv.iter().map(|&arg| arg.to_owned()).collect(),
                env: environment::build(&identity, None, &self.declared).unwrap(),
                cwd: work,
                input: None,
                limits: self.limits.clone(),
            },
        }
    }

    pub(crate) async fn spawn(&self, argv: &[&str]) -> StepProcess {
        let (process, supervision) = StepProcess::spawn(nursery(), self.spec(argv)).await.unwrap();
        tokio::runtime::Handle::current().spawn(supervision);
        process
    }

    pub(crate) async fn shell(&self, script: &str) -> StepProcess {
        self.spawn(&["sh", "-c", script]).await
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, argv: &[&str]) -> ExitFacts {
        let process = self.spawn(argv).await;
        self.end_of(&process).await
    }

    /// Waits for the end, and proves that nothing is left and that the exit file says the same.
    pub(crate) async fn end_of(&self, process: &StepProcess) -> ExitFacts {
        let facts = tokio::time::timeout(PATIENCE, process.wait()).await.expect("the step ends").unwrap();
        self.assert_nothing_left();
        facts
    }

    /// The end as the exit file tells it, waited for without any handle.
    pub(crate) async fn end_by_file(&self) -> ExitFacts {
        let facts = until(|| exit_facts(&self.spool_dir()).unwrap()).await;
        self.assert_nothing_left();
        facts
    }

    pub(crate) fn assert_nothing_left(&self) {
        let swept = tree::kill_marked(&self.attempt, None).unwrap();
        assert_eq!(swept, tree::Swept::default(), "processes of {} were left", self.attempt);
    }

    /// Everything one stream has in the spool.
    pub(crate) fn log(&self, stream: Stream) -> Vec<u8> {
        let chunks = SpoolReader::open(&self.spool_dir().join(SPOOL_FILE)).unwrap().records().map(Result::unwrap);
        chunks.filter(|chunk| chunk.stream == stream).flat_map(|chunk| chunk.bytes).collect()
    }

    pub(crate) fn system_log(&self) -> String {
        String::from_utf8(self.log(Stream::System)).unwrap()
    }
}

/// Follows the log until `text` was written to standard output.
pub(crate) async fn wait_for_output(process: &StepProcess, text: &str) {
    let mut tail = process.output(0).unwrap();
    let mut seen = Vec::new();
    let wait = async {
        while let Some(chunk) = tail.next().await.unwrap() {
            seen.extend(chunk.bytes);
            if String::from_utf8_lossy(&seen).contains(text) {
                return;
            }
        }
        panic!("the step ended without saying {text:?}, but {:?}", String::from_utf8_lossy(&seen));
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the step says what is waited for");
}

/// Waits for something that another process brings about without telling.
pub(crate) async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An executor in a process of its own: starts `sh -c SCRIPT` and waits for its end.
pub(crate) fn stand_in(args: &[OsString]) -> ExitCode {
    let [dir, attempt, script] = args else { return ExitCode::FAILURE };
    let (dir, script) = (Path::new(dir), script.to_str().unwrap());
    let bench = Bench { attempt: attempt.to_str().unwrap().to_owned(), ..Bench::new() };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let spec = ProcessSpec { dir: dir.to_owned(), ..bench.spec(&["sh", "-c", script]) };
        let (process, supervision) = StepProcess::spawn(nursery(), spec).await.unwrap();
        tokio::runtime::Handle::current().spawn(supervision);
        process.wait().await.unwrap();
    });
    ExitCode::SUCCESS
}

/// Starts [`stand_in`] as a process.
#[expect(clippy::disallowed_methods, reason = "the test kills a whole executor")]
pub(crate) fn spawn_stand_in(bench: &Bench, script: &str) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .arg(STAND_IN)
        .arg(bench.spool_dir())
        .arg(&bench.attempt)
        .arg(script)
        .spawn()
        .unwrap()
}

/// The nursery of all cases.
pub(crate) fn nursery() -> &'static Nursery {
    static NURSERY: OnceLock<Nursery> = OnceLock::new();
    NURSERY.get_or_init(|| Nursery::new(std::env::current_exe().unwrap(), Tasks::default()))
}

/// Starts a bare shim with `said` already on its control socket.
pub(crate) async fn spawn_shim(bench: &Bench, said: &[u8]) -> (ShimProcess, std::os::unix::net::UnixStream) {
    use std::io::Write;
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.write_all(said).unwrap();
    fs::create_dir(bench.spool_dir()).unwrap();
    let shim = nursery().start(&bench.spool_dir(), None, theirs.into()).await.unwrap();
    (shim, ours)
}
