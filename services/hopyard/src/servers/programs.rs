//! Finds the programs that `scripts/bootstrap` makes available, and says where it looked when there is none.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

/// A variable of the process environment; unset, empty and non-UTF-8 are `None`. Fits [`find_program`].
#[expect(clippy::disallowed_methods, reason = "program locations are known before the settings of any service are")]
pub fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The executable file of program `name`: what `variable` says, else the tools folder's, else the first on PATH.
///
/// `env` reads the environment ([`process_env`] outside tests).
///
/// # Errors
/// `variable` names no executable file (nothing else is tried then), or there is none anywhere.
pub fn find_program(name: &str, variable: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf> {
    if let Some(path) = env(variable).map(PathBuf::from) {
        if !is_executable(&path) {
            bail!("{variable} names no executable file: {}", path.display());
        }
        return Ok(path);
    }
    let tools: Vec<_> = tools_dirs(env).iter().map(|dir| dir.join(name).join("bin").join(name)).collect();
    if let Some(path) = tools.iter().find(|path| is_executable(path)) {
        return Ok(path.clone());
    }
    on_path(name, env).with_context(|| not_found(name, variable, &tools))
}

/// The folder with `postgres` and `initdb`: `HOPYARD_PG_BIN`, else the tools folder's, else where systems keep it.
///
/// # Errors
/// As [`find_program`].
pub fn find_postgres(env: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf> {
    let variable = "HOPYARD_PG_BIN";
    let complete = |dir: &PathBuf| is_executable(&dir.join("postgres")) && is_executable(&dir.join("initdb"));
    if let Some(dir) = env(variable).map(PathBuf::from) {
        if !complete(&dir) {
            bail!("{variable} names no folder with postgres and initdb: {}", dir.display());
        }
        return Ok(dir);
    }
    let mut candidates: Vec<_> = tools_dirs(env).iter().map(|dir| dir.join("postgresql").join("bin")).collect();
    candidates.extend((15..30).rev().map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"))));
    if let Some(dir) = candidates.iter().find(|dir| complete(dir)) {
        return Ok(dir.clone());
    }
    on_path("postgres", env)
        .and_then(|path| path.parent().map(Path::to_path_buf))
        .filter(complete)
        .with_context(|| not_found("postgres", variable, &candidates))
}

/// Where `scripts/bootstrap` may have unpacked programs, in the order it chooses.
fn tools_dirs(env: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    if let Some(dir) = env("HOPYARD_TOOLS_DIR") {
        return vec![dir.into()];
    }
    let uid = geteuid();
    let mut dirs = Vec::new();
    if uid.is_root() {
        dirs.push(PathBuf::from("/var/cache/hopyard"));
    }
    dirs.extend(env("HOME").map(|home| Path::new(&home).join(".cache/hopyard")));
    let shared = Path::new(&env("TMPDIR").unwrap_or_else(|| "/tmp".into())).join(format!("hopyard-tools-{uid}"));
    // Anyone can make a folder of this name there; only our own may name programs to run.
    if shared.symlink_metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == uid.as_raw()) {
        dirs.push(shared);
    }
    dirs
}

/// The first executable `name` on PATH.
pub(super) fn on_path(name: &str, env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let path = env("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn not_found(name: &str, variable: &str, tried: &[PathBuf]) -> String {
    let tried: Vec<_> = tried.iter().map(|path| path.display().to_string()).collect();
    let purpose = if name == "nats-server" { "demo" } else { "test" };
    format!(
        "{name} not found (looked at {variable}, {}, PATH): run `scripts/bootstrap {purpose}`, which unpacks it without installing anything",
        tried.join(", ")
    )
}
