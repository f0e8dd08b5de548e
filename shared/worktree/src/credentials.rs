//! Access tokens per host, handed to git through an askpass script, never in a URL or an argument.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::git::Call;
use crate::location::Location;
use crate::{Error, Result};

/// Answers only for the host the token belongs to: a redirect to another host gets nothing.
const ASKPASS: &str = r#"#!/bin/sh
case "$1" in
"Username for '$HOPYARD_GIT_ORIGIN'"*) printf '%s\n' "$HOPYARD_GIT_USER" ;;
"Password for '$HOPYARD_GIT_SCHEME://"*"@$HOPYARD_GIT_HOST'"*) printf '%s\n' "$HOPYARD_GIT_TOKEN" ;;
*) exit 1 ;;
esac
"#;

/// Where a token comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// The token itself, e.g. from the environment.
    Value(String),
    /// A file read at each use, so that a rotated token is picked up; surrounding white space is cut.
    File(PathBuf),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Value(***)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl Token {
    /// Reads a `token_from` setting: `env:NAME` (looked up with `lookup`) or `file:PATH`.
    pub fn parse(text: &str, lookup: impl FnOnce(&str) -> Option<String>) -> Result<Self> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => lookup(name)
                .filter(|value| !value.trim().is_empty())
                .map(|value| Self::Value(value.trim().to_owned()))
                .ok_or_else(|| Error::Invalid { what: "token_from, the variable is not set:", value: text.to_owned() }),
            Some(("file", path)) if Path::new(path).is_absolute() => Ok(Self::File(PathBuf::from(path))),
            _ => Err(Error::Invalid { what: "token_from, use env:NAME or file:/PATH:", value: text.to_owned() }),
        }
    }

    fn read(&self) -> Result<String> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::File(path) => {
                fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(|source| Error::io("read token file", path, source))
            }
        }
    }
}

/// The account used for one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Host, with port if the URL has one: `github.com`, `git.example.com:8443`.
    pub host: String,
    /// User name; most forges take any, `x-access-token` is usual.
    pub user: String,
    /// The token sent as password.
    pub token: Token,
}

/// All credentials of a process and the script that hands them over.
#[derive(Debug)]
pub(crate) struct Credentials {
    script: PathBuf,
    list: Vec<Credential>,
}

impl Credentials {
    /// Writes the askpass script (0700) into `dir`; it holds no secret.
    pub(crate) fn install(dir: &Path, list: Vec<Credential>) -> Result<Self> {
        let script = dir.join("askpass");
        let fresh = dir.join(format!("askpass.{}", std::process::id()));
        let write = || {
            let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o700).open(&fresh)?;
            file.write_all(ASKPASS.as_bytes())?;
            file.set_permissions(fs::Permissions::from_mode(0o700))?;
            drop(file);
            fs::rename(&fresh, &script)
        };
        write().map_err(|source| Error::io("write askpass script", &script, source))?;
        Ok(Self { script, list })
    }

    /// Adds what a network call to `location` needs: its one protocol and, if there is one, its account.
    pub(crate) fn apply(&self, call: Call, location: &Location) -> Result<Call> {
        let call = call
            .env("GIT_ALLOW_PROTOCOL", location.scheme())
            .env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
            .env("GIT_ASKPASS", &self.script);
        let Some(host) = location.host() else {
            return Ok(call);
        };
        let scheme = location.scheme();
        // A token is never sent in the clear or to ssh.
        let known = self.list.iter().find(|one| scheme == "https" && one.host.eq_ignore_ascii_case(host));
        let Some(credential) = known else {
            return Ok(call);
        };
        let token = credential.token.read()?;
        Ok(call
            .env("HOPYARD_GIT_SCHEME", scheme)
            .env("HOPYARD_GIT_HOST", host)
            .env("HOPYARD_GIT_ORIGIN", format!("{scheme}://{host}"))
            .env("HOPYARD_GIT_USER", &credential.user)
            .env("HOPYARD_GIT_TOKEN", &token)
            .secret(&token))
    }
}

#[cfg(test)]
mod tests;
