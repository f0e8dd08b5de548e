//! A provider of models: the fake one of the executable, with a script, a key and a journal of what it served.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Child;

use serde_json::Value;
use tempfile::TempDir;

use super::programs;

/// The key that only executors may know.
pub const KEY: &str = "canary-key-7f3a9c";

/// A running provider, and the settings file that names it.
#[derive(Debug)]
pub struct Provider {
    child: Child,
    pub url: String,
    dir: TempDir,
}

impl Provider {
    /// Starts one that plays these replies.
    pub fn start(replies: &[Value]) -> Self {
        let dir = tempfile::Builder::new().prefix("hopyard-provider-").tempdir().unwrap();
        let script: String = replies.iter().map(|reply| format!("{reply}\n")).collect();
        std::fs::write(dir.path().join("script.jsonl"), script).unwrap();
        let args = ["fake-provider", "--script", "script.jsonl", "--journal", "journal.jsonl", "--key", KEY];
        let mut child = programs::start(env!("CARGO_BIN_EXE_hopyard"), &args, dir.path());
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output is a pipe");
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let url = serde_json::from_str::<Value>(&line).unwrap()["url"].as_str().unwrap().to_owned();
        Self { child, url, dir }
    }

    /// A settings file with this provider on a wire; `more` are further lines of its table.
    pub fn settings(&self, wire: &str, more: &str) -> PathBuf {
        self.settings_of(&[("stub", wire)], more)
    }

    /// A settings file with this provider under several names, each on a wire.
    pub fn settings_of(&self, providers: &[(&str, &str)], more: &str) -> PathBuf {
        std::fs::write(self.dir.path().join("key"), format!("{KEY}\n")).unwrap();
        let (url, key) = (&self.url, self.dir.path().join("key").display().to_string());
        let table = |(name, wire): &(&str, &str)| {
            format!("[providers.{name}]\nwire = \"{wire}\"\nbase_url = \"{url}\"\nkey_from = \"file:{key}\"\n{more}\n")
        };
        let text: String = providers.iter().map(table).collect();
        let file = self.dir.path().join("hopyard.toml");
        std::fs::write(&file, text).unwrap();
        file
    }

    /// Every call so far, in the order of the answers.
    pub fn calls(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.path().join("journal.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A count over all calls that were answered well.
    pub fn served(&self, field: &str) -> u64 {
        self.calls().iter().filter(|call| call["status"] == 200).map(|call| call[field].as_u64().unwrap()).sum()
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}
