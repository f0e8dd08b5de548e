//! The source tree and what cargo says about it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use hopyard::servers::process_env;
use serde_json::Value;

use crate::harness::programs;

/// The root of the repository.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap())
}

/// A path as a reader of a message knows it.
pub fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The text of a file.
pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", shown(path)))
}

/// Files of the repository whose name ends with one of these, without what builds and runs leave behind.
pub fn files(endings: &[&str]) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().unwrap().is_file() {
                found.push(entry.path());
            } else if entry.file_type().unwrap().is_dir() && !["target", ".git", ".hopyard", "node_modules"].contains(&name.as_str()) {
                walk(&entry.path(), found);
            }
        }
    }
    let mut found = Vec::new();
    walk(root(), &mut found);
    found.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        endings.iter().any(|e| name == *e || name.ends_with(&format!(".{e}")))
    });
    found.sort();
    found
}

/// What `cargo metadata` says.
pub fn metadata() -> &'static Value {
    static METADATA: OnceLock<Value> = OnceLock::new();
    METADATA.get_or_init(|| {
        let cargo = process_env("CARGO").unwrap_or_else(|| "cargo".to_owned());
        let kept: Vec<(&str, String)> =
            ["HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"].into_iter().filter_map(|n| Some((n, process_env(n)?))).collect();
        let env: Vec<(&str, &str)> = kept.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let output =
            programs::run(cargo, &["metadata", "--offline", "--locked", "--format-version", "1", "--filter-platform", HOST], root(), &env);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    })
}

/// The platform whose packages are looked at: others need not be downloaded.
const HOST: &str = if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" };

/// Packages of the resolved graph.
pub fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    let used: BTreeSet<&str> = metadata["resolve"]["nodes"].as_array().unwrap().iter().filter_map(|n| n["id"].as_str()).collect();
    metadata["packages"].as_array().unwrap().iter().filter(move |p| p["id"].as_str().is_some_and(|id| used.contains(id)))
}

/// Crates of the project by name without the prefix, with everything they name.
pub fn project(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let own = metadata["packages"].as_array().unwrap().iter().filter(|p| p["source"].is_null());
    own.map(|package| {
        let name = package["name"].as_str().unwrap();
        let dependencies = package["dependencies"].as_array().unwrap().iter().map(|d| d["name"].as_str().unwrap().to_owned());
        (name.strip_prefix("hopyard-").unwrap_or(name).to_owned(), dependencies.collect())
    })
    .collect()
}
