//! The one place of the tests that runs programs: git, the command line, examples.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Runs a program in a directory with nothing but the given environment, and waits for it.
pub fn run(program: impl AsRef<OsStr>, args: &[&str], dir: &Path, env: &[(&str, &str)]) -> Output {
    let mut command = command(program.as_ref());
    command.args(args).current_dir(dir).env_clear().stdin(Stdio::null());
    command.env("PATH", hopyard::servers::process_env("PATH").unwrap_or_default()).env("HOME", dir).env("LANG", "C.UTF-8");
    command.envs(env.iter().copied());
    command.output().unwrap_or_else(|e| panic!("{}: {e}", program.as_ref().display()))
}

/// Starts a program that goes on beside the test; its standard output can be read.
pub fn start(program: impl AsRef<OsStr>, args: &[&str], dir: &Path) -> Child {
    let mut command = command(program.as_ref());
    command.args(args).current_dir(dir).env_clear().env("HOME", dir).stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().unwrap_or_else(|e| panic!("{}: {e}", program.as_ref().display()))
}

/// As [`run`], on a thread that may block, so that servers of the same test go on.
pub async fn run_beside(program: PathBuf, args: Vec<String>, dir: PathBuf, env: Vec<(String, String)>) -> Output {
    let work = move || {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let env: Vec<(&str, &str)> = env.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        run(program, &args, &dir, &env)
    };
    tokio::task::spawn_blocking(work).await.expect("the program was run")
}

/// Output of a git command that must succeed, without the last line break.
pub fn git(dir: &Path, args: &[&str]) -> String {
    let name =
        ["-c", "user.name=A Person", "-c", "user.email=person@example.org", "-c", "init.defaultBranch=main", "-c", "safe.directory=*"];
    let output = run("git", &[&name, args].concat(), dir, &[]);
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// A new repository with one commit per list of files.
pub fn repository(dir: &Path, commits: &[&[(&str, &str)]]) {
    std::fs::create_dir_all(dir).unwrap();
    git(dir, &["init", "-q"]);
    for (i, files) in commits.iter().enumerate() {
        for (name, text) in *files {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().expect("a file lies in a directory")).unwrap();
            std::fs::write(path, text).unwrap();
        }
        git(dir, &["add", "-A"]);
        git(dir, &["commit", "-q", "--allow-empty", "-m", &format!("commit {i}")]);
    }
}

#[expect(clippy::disallowed_methods, reason = "this module is where the tests start programs")]
fn command(program: &OsStr) -> Command {
    Command::new(program)
}
