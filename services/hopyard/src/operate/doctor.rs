//! `hopyard doctor`: what this machine and this deployment lack, each with the command that helps.

use std::ffi::OsString;
use std::path::Path;

use hopyard_executor::process::environment::resolve;
use hopyard_runtime::Bus;
use hopyard_runtime::Config;
use hopyard_runtime::topology::Topology;
use hopyard_store::Store;
use serde_json::{Value, json};

use super::BUS_WITHIN;
use crate::client::output::{self, Column, Format, field};
use crate::client::{Api, repository};
use crate::exit::Exit;
use crate::servers::{Launch, Spawner, Streams, find_postgres, find_program, process_env};

/// The oldest git that can do what workspaces need.
const GIT: (u32, u32) = (2, 38);

/// Longest wait for the version of a program.
const VERSION_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// One thing that was looked at.
struct Finding {
    what: &'static str,
    /// Whether it is as it should be; `None` for what only some need.
    good: Option<bool>,
    text: String,
    fix: Option<String>,
}

impl Finding {
    fn good(what: &'static str, text: impl Into<String>) -> Self {
        Self { what, good: Some(true), text: text.into(), fix: None }
    }

    fn bad(what: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what, good: Some(false), text: text.into(), fix: Some(fix.into()) }
    }

    fn optional(mut self) -> Self {
        if self.good == Some(false) {
            self.good = None;
        }
        self
    }

    fn value(&self) -> Value {
        let state = match self.good {
            Some(true) => "ok",
            Some(false) => "problem",
            None => "optional",
        };
        json!({"what": self.what, "state": state, "text": self.text, "fix": self.fix})
    }
}

const COLUMNS: [Column; 4] = [
    ("WHAT", |v| field(v, "/what")),
    ("STATE", |v| field(v, "/state")),
    ("FOUND", |v| field(v, "/text")),
    ("WHAT HELPS", |v| field(v, "/fix")),
];

/// Looks at everything and prints what it finds; exit code 1 if something is missing.
pub async fn run(config: &Config, api: &Api, format: Format) -> Exit {
    let mut findings = vec![git().await, nats_server(), postgres(), store(config).await];
    findings.extend(bus(config).await);
    findings.extend(agents(config).await);
    findings.push(health(api).await);
    let items: Vec<_> = findings.iter().map(Finding::value).collect();
    output::bytes(output::page(format, &json!({"items": items}), &COLUMNS).as_bytes());
    if findings.iter().any(|f| f.good == Some(false)) { Exit::Failed } else { Exit::Done }
}

async fn git() -> Finding {
    let fix = format!("install git {}.{} or later", GIT.0, GIT.1);
    match repository::git(Path::new("."), &["--version"]).await {
        Err(error) => Finding::bad("git", format!("{error:#}"), fix),
        Ok(text) if version(&text).is_some_and(|version| version >= GIT) => Finding::good("git", text),
        Ok(text) => Finding::bad("git", format!("{text} is too old"), fix),
    }
}

/// Major and minor number in `git version 2.39.5 (…)`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_whitespace().nth(2)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn nats_server() -> Finding {
    match find_program("nats-server", "HOPYARD_NATS_SERVER", &process_env) {
        Ok(path) => Finding::good("nats-server", path.display().to_string()),
        // Whoever has a bus elsewhere needs none here.
        Err(error) => Finding::bad("nats-server", error.to_string(), "scripts/bootstrap demo (for `hopyard dev` and the demo)").optional(),
    }
}

fn postgres() -> Finding {
    match find_postgres(&process_env) {
        Ok(path) => Finding::good("postgres", path.display().to_string()),
        Err(error) => Finding::bad("postgres", error.to_string(), "scripts/bootstrap test (for the tests)").optional(),
    }
}

/// Which agents an executor with these settings would find.
/// Coding agents on the path of steps, with the version that each tells.
async fn agents(config: &Config) -> Vec<Finding> {
    let path = config.text("STEP_PATH", &process_env("PATH").unwrap_or_default());
    let mut findings = Vec::new();
    for cli in ["claude", "codex", "opencode", "gemini"] {
        findings.push(match resolve(cli, &path, Path::new("/")) {
            Ok(found) => {
                let version = version_of(&found, &path).await.unwrap_or_else(|| "which tells no version".to_owned());
                Finding::good(cli, format!("{}, {version}", found.display()))
            }
            Err(error) => Finding::bad(cli, error.to_string(), "install it where executors run, or set HOPYARD_STEP_PATH").optional(),
        });
    }
    findings
}

/// The first line that a program answers `--version` with, in a home of its own.
async fn version_of(program: &Path, path: &str) -> Option<String> {
    let home = tempfile::tempdir().ok()?;
    let own = home.path().display().to_string();
    let mut launch = Launch::new(program).args([OsString::from("--version")]).env("PATH", path).env("HOME", &own).streams(Streams::Piped);
    launch.dir = Some(home.path().to_owned());
    let child = Spawner::global().spawn(&launch).await.ok()?;
    let answer = tokio::time::timeout(VERSION_WITHIN, child.wait_with_output()).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&answer.stdout);
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| answer.status.success() && !line.is_empty())
}

async fn store(config: &Config) -> Finding {
    let url = config.store_url();
    let shown = without_password(&url);
    if url.strip_prefix("sqlite:").is_some_and(|dir| !Path::new(dir).is_dir()) {
        return Finding::bad(
            "store",
            format!("{shown} does not exist"),
            "hopyard migrate, with HOPYARD_STORE_URL or HOPYARD_DATA_DIR as the services have it",
        );
    }
    let look = async {
        let store = Store::open(&url).await?;
        let pending = store.pending_migrations().await?;
        let schema = if pending.is_empty() { store.reader().schema().await? } else { Vec::new() };
        Ok::<_, hopyard_store::Error>((pending, schema))
    };
    match look.await {
        Err(error) => Finding::bad("store", format!("{shown}: {error}"), "check HOPYARD_STORE_URL, and that the database runs"),
        Ok((pending, _)) if !pending.is_empty() => {
            Finding::bad("store", format!("{shown} lacks {}", pending.join(", ")), "hopyard migrate")
        }
        Ok((_, schema)) => {
            let schema: Vec<_> = schema.iter().map(|(name, version)| format!("{name} {version}")).collect();
            Finding::good("store", format!("{shown}: {}", schema.join(", ")))
        }
    }
}

/// A URL without the password in it.
fn without_password(url: &str) -> String {
    match reqwest::Url::parse(url) {
        Ok(mut parsed) if parsed.password().is_some() => {
            // Fails only for URLs that cannot have one.
            let _ = parsed.set_password(Some("…"));
            parsed.to_string()
        }
        _ => url.to_owned(),
    }
}

async fn bus(config: &Config) -> Vec<Finding> {
    let bus = match Bus::connect(config, "hopyard-doctor", BUS_WITHIN).await {
        Ok(bus) => bus,
        Err(error) => {
            return vec![Finding::bad(
                "bus",
                format!("{error:#}"),
                "start nats-server with JetStream, or `hopyard dev`, and set HOPYARD_NATS_URL",
            )];
        }
    };
    let server = Finding::good("bus", format!("nats-server {}", bus.server_version()));
    let diff = match Topology::from_config(config) {
        Ok(topology) => topology.diff(&bus).await,
        Err(error) => Err(error),
    };
    let streams = match diff {
        Ok(lines) if lines.is_empty() => Finding::good("streams", "as they should be"),
        Ok(lines) => Finding::bad("streams", lines.join("; "), "hopyard topology apply"),
        Err(error) => Finding::bad("streams", format!("{error:#}"), "enable JetStream on the server (`--jetstream`)"),
    };
    vec![server, streams]
}

async fn health(api: &Api) -> Finding {
    match api.get_root("/health").await {
        Ok((status, _)) if status.is_success() => Finding::good("API", api.address()),
        Ok((_, health)) => {
            let parts = health.get("components").and_then(Value::as_object).cloned().unwrap_or_default();
            let bad: Vec<_> = parts
                .iter()
                .filter(|(_, c)| field(c, "/status") != "ok")
                .map(|(name, c)| format!("{name}: {} ({})", field(c, "/text"), field(c, "/code")))
                .collect();
            Finding::bad("API", format!("{}: {}", api.address(), bad.join("; ")), "see the named components' logs")
        }
        Err(error) => Finding::bad("API", format!("{error:#}"), "start `hopyard ingest`, or `hopyard dev`, and set HOPYARD_URL"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_passwords() {
        assert_eq!(version("git version 2.39.5"), Some((2, 39)));
        assert_eq!(version("git version 2.50.1 (Apple Git-155)"), Some((2, 50)));
        assert_eq!(version("git"), None);
        assert_eq!(without_password("postgres://u:secret@h/d"), "postgres://u:%E2%80%A6@h/d");
        assert_eq!(without_password("sqlite:/data/store"), "sqlite:/data/store");
    }

    #[tokio::test]
    async fn a_store_that_is_not_there_names_the_command() {
        let config = Config::load(&[("STORE_URL", Some("sqlite:/does/not/exist".into()))]).unwrap();
        let finding = store(&config).await;
        assert_eq!(finding.good, Some(false));
        assert!(finding.fix.unwrap().starts_with("hopyard migrate"));
        assert_eq!(git().await.good, Some(true));
    }
}
