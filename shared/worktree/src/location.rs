//! Where a repository is: the parts of a URL or path that decide protocol, host and permission.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A repository's address, split once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    text: String,
    scheme: &'static str,
    host: Option<String>,
    path: Option<PathBuf>,
}

impl Location {
    /// Splits `https://`, `http://`, `ssh://`, `user@host:path`, `file://` and absolute paths; all else is refused.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let invalid = || Error::Invalid { what: "repository", value: text.to_owned() };
        if text.is_empty() || text.starts_with('-') || text.chars().any(char::is_control) {
            return Err(invalid());
        }
        let local = |path: &str| Self { text: text.to_owned(), scheme: "file", host: None, path: Some(PathBuf::from(path)) };
        if text.starts_with('/') {
            return Ok(local(text));
        }
        if let Some(path) = text.strip_prefix("file://") {
            return if path.starts_with('/') { Ok(local(path)) } else { Err(invalid()) };
        }
        let (scheme, rest) = match text.split_once("://") {
            Some(("https", rest)) => ("https", rest),
            Some(("http", rest)) => ("http", rest),
            Some(("ssh", rest)) => ("ssh", rest),
            Some(_) => return Err(invalid()),
            // The short form of ssh; a second colon right behind would be a transport (`ext::`).
            None => match text.split_once(':') {
                Some((host, path)) if !host.contains('/') && host.contains('@') && !path.starts_with(':') => ("ssh", host),
                _ => return Err(invalid()),
            },
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        if host.is_empty() || host.starts_with('-') {
            return Err(invalid());
        }
        Ok(Self { text: text.to_owned(), scheme, host: Some(host.to_lowercase()), path: None })
    }

    /// `https`, `http`, `ssh` or `file`, as git's protocol list names them.
    pub(crate) fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// Host with port, lower case; none for a local repository.
    pub(crate) fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The address as it was given.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Checks the allow list: an empty list admits every https and ssh repository and nothing local;
    /// otherwise an entry must be the address itself or a prefix of it that ends at a `/`.
    pub(crate) fn check_allowed(&self, allow: &[String]) -> Result<()> {
        let refuse = |detail: &str| Err(Error::NotAllowed { repo: self.text.clone(), detail: detail.to_owned() });
        if allow.is_empty() {
            return match self.scheme {
                "https" | "ssh" => Ok(()),
                _ => refuse("local paths and plain http need an entry in the allow list"),
            };
        }
        let folded = self.text.to_lowercase().replace("%2e", ".");
        if folded.split('/').any(|part| part == "..") {
            return refuse("the address contains `..`");
        }
        if let Some(path) = &self.path {
            // A link inside an allowed directory must not lead out of it.
            let real = path.canonicalize().unwrap_or_else(|_| path.clone());
            let covered = allow.iter().any(|entry| {
                let entry = Path::new(entry.strip_prefix("file://").unwrap_or(entry));
                entry.is_absolute() && real.starts_with(entry.canonicalize().unwrap_or_else(|_| entry.to_owned()))
            });
            return if covered { Ok(()) } else { refuse("no entry of the allow list covers it") };
        }
        let covered = allow.iter().any(|entry| match self.text.strip_prefix(entry.as_str()) {
            Some(rest) => rest.is_empty() || rest == ".git" || entry.ends_with(['/', ':']) || rest.starts_with('/'),
            None => false,
        });
        if covered { Ok(()) } else { refuse("no entry of the allow list covers it") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(text: &str, allow: &[&str]) -> bool {
        let allow: Vec<String> = allow.iter().map(|entry| (*entry).to_owned()).collect();
        Location::parse(text).expect("valid").check_allowed(&allow).is_ok()
    }

    #[test]
    fn addresses_are_split() {
        let parts = |text: &str| Location::parse(text).ok().map(|one| (one.scheme(), one.host().map(str::to_owned)));
        let remote = |scheme, host: &str| Some((scheme, Some(host.to_owned())));
        assert_eq!(parts("https://Git.example.com:8443/a/b"), remote("https", "git.example.com:8443"));
        assert_eq!(parts("ssh://git@h/a"), remote("ssh", "h"));
        assert_eq!(parts("git@h.example:a/b.git"), remote("ssh", "h.example"));
        assert_eq!(parts("/srv/repo"), Some(("file", None)));
        assert_eq!(parts("file:///srv/repo"), Some(("file", None)));
        for bad in [
            "",
            "../x",
            "repo",
            "--upload-pack=x",
            "ext::sh -c id",
            "git@h::x",
            "git://h/a",
            "ssh://-oProxyCommand=id/x",
            "file://host/x",
            "https:///x",
            "https://h/\r\nX: 1",
        ] {
            assert_eq!(parts(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_allow_list_ends_at_a_path_part() {
        assert!(allowed("https://h/a/b", &[]));
        assert!(!allowed("/srv/repo", &[]));
        assert!(!allowed("http://h/a", &[]));
        assert!(allowed("https://h/a/b", &["https://h/a"]));
        assert!(allowed("https://h/a.git", &["https://h/a"]));
        assert!(!allowed("https://h/ab", &["https://h/a"]));
        assert!(!allowed("https://h/a/../x", &["https://h/a"]));
        assert!(!allowed("https://h/a/%2E%2e/x", &["https://h/a"]));
        assert!(allowed("http://h/a", &["http://"]));
    }

    #[test]
    fn a_link_does_not_lead_out_of_an_allowed_directory() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
        std::fs::create_dir(&inside).expect("inside");
        std::fs::create_dir(&outside).expect("outside");
        std::os::unix::fs::symlink(&outside, inside.join("link")).expect("link");
        let allow = [inside.to_str().expect("text")];
        assert!(allowed(&format!("{}/repo", allow[0]), &allow));
        assert!(!allowed(&format!("{}/link", allow[0]), &allow));
    }
}
