//! The git command: the one place of this crate that starts a process.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Error, Result};

/// Oldest git whose `merge-tree --write-tree` exists.
pub(crate) const OLDEST: Version = Version { major: 2, minor: 38, patch: 0 };

/// How long git may clean up its lock files after a polite signal.
const GRACE: Duration = Duration::from_secs(2);

/// Configuration no repository can override: nothing a tree or a config holds may run here.
const TRUSTED: [&str; 10] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "protocol.file.allow=user",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
    "commit.gpgsign=false",
    "submodule.recurse=false",
    "safe.directory=*",
];

/// A git version, compared field by field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number, 0 if absent.
    pub patch: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Version {
    /// Reads the answer of `git --version`; vendors append words (`2.39.5 (Apple Git-154)`).
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number = text.trim().strip_prefix("git version ")?.split([' ', '-']).next()?;
        let mut parts = number.split('.').map(|part| part.parse::<u32>().ok());
        let major = parts.next()??;
        let minor = parts.next()??;
        let patch = parts.next().flatten().unwrap_or(0);
        Some(Self { major, minor, patch })
    }
}

/// Starts git with a built environment; clones are cheap.
#[derive(Debug, Clone)]
pub(crate) struct Git {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    search_path: OsString,
    config: PathBuf,
    timeout: Duration,
}

/// What a finished git said.
#[derive(Debug)]
pub(crate) struct Output {
    /// Exit code, -1 if a signal ended it.
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    /// Standard error, secrets masked, trimmed.
    pub(crate) stderr: String,
}

impl Git {
    /// `config` is the only configuration file git reads beside the mirror's own; `timeout` bounds each call.
    pub(crate) fn new(search_path: OsString, config: PathBuf, timeout: Duration) -> Self {
        Self { inner: Arc::new(Inner { search_path, config, timeout }) }
    }

    /// A call without a repository.
    pub(crate) fn call(&self, what: &'static str) -> Call {
        Call { git: self.clone(), what, args: Vec::new(), env: Vec::new(), dir: None, stdin: None, secrets: Vec::new() }
    }

    /// A call on one git directory, never discovered from the working directory.
    pub(crate) fn at(&self, git_dir: &Path, what: &'static str) -> Call {
        self.call(what).env("GIT_DIR", git_dir).dir(git_dir)
    }

    /// The version of the command, or why there is none.
    pub(crate) async fn version(&self) -> Result<Version> {
        let output = self.call("--version").arg("--version").run().await?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        match Version::parse(&text) {
            Some(version) if version >= OLDEST => Ok(version),
            _ => Err(Error::OldGit { wanted: OLDEST.to_string(), found: text }),
        }
    }
}

/// One prepared git call.
#[derive(Debug)]
pub(crate) struct Call {
    git: Git,
    what: &'static str,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
    secrets: Vec<String>,
}

impl Call {
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub(crate) fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    pub(crate) fn stdin(mut self, bytes: Vec<u8>) -> Self {
        self.stdin = Some(bytes);
        self
    }

    /// A text that must not appear in an error.
    pub(crate) fn secret(mut self, secret: &str) -> Self {
        if !secret.is_empty() {
            self.secrets.push(secret.to_owned());
        }
        self
    }

    /// Runs git; an exit code other than 0 is an [`Error::Git`].
    pub(crate) async fn ok(self) -> Result<Vec<u8>> {
        let what = self.what;
        let output = self.run().await?;
        if output.code == 0 { Ok(output.stdout) } else { Err(output.failed(what)) }
    }

    /// Runs git and returns its first output line as text.
    pub(crate) async fn line(self) -> Result<String> {
        let stdout = self.ok().await?;
        Ok(String::from_utf8_lossy(&stdout).lines().next().unwrap_or_default().trim().to_owned())
    }

    /// Runs git to its end or the time limit; the exit code is the caller's to judge.
    pub(crate) async fn run(self) -> Result<Output> {
        let what = self.what;
        let limit = self.git.inner.timeout;
        let secrets = self.secrets.clone();
        let stdin = self.stdin.clone();
        let mut child = self.command().spawn().map_err(|source| Error::io("start git from the search path", Path::new("git"), source))?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let mut input = child.stdin.take();
        let mut out = child.stdout.take();
        let mut err = child.stderr.take();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());

        let work = async {
            let feed = async {
                if let (Some(pipe), Some(bytes)) = (input.as_mut(), stdin.as_ref()) {
                    // Git may end before it has read everything; its exit code tells why.
                    let _ = pipe.write_all(bytes).await;
                    let _ = pipe.shutdown().await;
                }
                drop(input.take());
            };
            let read_out = async {
                if let Some(pipe) = out.as_mut() {
                    pipe.read_to_end(&mut stdout).await?;
                }
                Ok::<_, std::io::Error>(())
            };
            let read_err = async {
                if let Some(pipe) = err.as_mut() {
                    pipe.read_to_end(&mut stderr).await?;
                }
                Ok::<_, std::io::Error>(())
            };
            let ((), read_out, read_err, status) = tokio::join!(feed, read_out, read_err, child.wait());
            read_out.and(read_err).and(status)
        };
        let ended = tokio::time::timeout(limit, work).await;
        match ended {
            Ok(Ok(status)) => {
                Ok(Output { code: status.code().unwrap_or(-1), stdout, stderr: mask(String::from_utf8_lossy(&stderr).trim(), &secrets) })
            }
            Ok(Err(source)) => Err(Error::io("read from git", Path::new("git"), source)),
            Err(_) => {
                // A polite end first: git removes its lock files on SIGTERM and leaves them on SIGKILL.
                if let Some(group) = group {
                    let _ = killpg(group, Signal::SIGTERM);
                    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
                        let _ = killpg(group, Signal::SIGKILL);
                        let _ = child.wait().await;
                    }
                }
                Err(Error::Timeout { what: what.to_owned(), limit })
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the one place of this crate that starts a process")]
    fn command(self) -> tokio::process::Command {
        let inner = &self.git.inner;
        let mut command = tokio::process::Command::new("git");
        command
            .env_clear()
            .env("PATH", &inner.search_path)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", &inner.config)
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            // A later git may start with other formats, which the in-process reads do not know.
            .env("GIT_DEFAULT_HASH", "sha1")
            .env("GIT_DEFAULT_REF_FORMAT", "files")
            .env("GIT_ALLOW_PROTOCOL", "none")
            .env("LC_ALL", "C")
            .envs(self.env);
        for setting in TRUSTED {
            command.arg("-c").arg(setting);
        }
        command
            .args(self.args)
            .current_dir(self.dir.as_deref().unwrap_or(Path::new("/")))
            .stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command
    }
}

impl Output {
    /// The error of a call that should have succeeded.
    pub(crate) fn failed(self, what: &str) -> Error {
        let detail = if self.stderr.is_empty() { format!("exit code {}", self.code) } else { self.stderr };
        Error::Git { what: what.to_owned(), detail }
    }
}

/// Replaces every secret by asterisks.
pub(crate) fn mask(text: &str, secrets: &[String]) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_vendors_are_read() {
        let version = |text| Version::parse(text).map(|version| version.to_string());
        assert_eq!(version("git version 2.47.3").as_deref(), Some("2.47.3"));
        assert_eq!(version("git version 2.39.5 (Apple Git-154)").as_deref(), Some("2.39.5"));
        assert_eq!(version("git version 2.45.0-rc1").as_deref(), Some("2.45.0"));
        assert_eq!(version("git version 2.38").as_deref(), Some("2.38.0"));
        assert_eq!(version("no git here"), None);
        assert!(Version::parse("git version 2.37.9").is_some_and(|version| version < OLDEST));
    }

    #[test]
    fn secrets_are_masked() {
        let secrets = vec!["s3cret".to_owned()];
        assert_eq!(mask("fatal: s3cret at s3cret", &secrets), "fatal: *** at ***");
    }

    #[tokio::test]
    async fn a_call_that_hangs_is_ended() {
        let git = Git::new("/usr/bin:/bin".into(), "/dev/null".into(), Duration::from_millis(300));
        // An alias that sleeps stands for a remote that never answers.
        let error = git.call("fetch").args(["-c", "alias.hang=!sleep 600", "hang"]).run().await.expect_err("must not end by itself");
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
        assert!(error.is_transient());
    }
}
