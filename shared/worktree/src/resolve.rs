//! From a branch, tag, full reference or commit to the one commit a run is pinned to.

use git2::{ErrorCode, Oid, Repository};

use crate::mirror::Mirror;
use crate::{Error, Result};

/// Refuses everything but a full commit id: 40 lower-case hex digits.
pub(crate) fn check_commit(commit: &str) -> Result<()> {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if commit.len() == 40 && commit.bytes().all(hex) { Ok(()) } else { Err(Error::Invalid { what: "commit", value: commit.to_owned() }) }
}

/// What a caller's words may mean.
enum Wanted {
    Commit(String),
    /// Names in the mirror, in order of preference.
    Refs(Vec<String>),
    /// A full name at the source that a usual fetch does not take (`refs/pull/7/head`).
    Other(String),
}

impl Wanted {
    fn of(reference: Option<&str>) -> Self {
        let name = match reference {
            None | Some("" | "HEAD") => return Self::Refs(vec!["refs/hopyard/head/origin".into()]),
            Some(name) => name,
        };
        if name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Self::Commit(name.to_lowercase());
        }
        if let Some(branch) = name.strip_prefix("refs/heads/") {
            return Self::Refs(vec![format!("refs/remotes/origin/{branch}")]);
        }
        if name.starts_with("refs/tags/") {
            return Self::Refs(vec![name.to_owned()]);
        }
        if name.starts_with("refs/") {
            return Self::Other(name.to_owned());
        }
        Self::Refs(vec![format!("refs/remotes/origin/{name}"), format!("refs/tags/{name}")])
    }
}

impl Mirror {
    /// The commit (40 hex digits) that `reference` names at the source; `None` is its `HEAD`.
    ///
    /// `refs/…` is taken as the full name, 40 hex digits as a commit; any other name is a branch first, then a
    /// tag. Fetches if the interval has passed or nothing was found.
    ///
    /// # Errors
    /// [`Error::RefNotFound`] if the source has no such thing, [`Error::RepoUnavailable`] if it cannot be read.
    pub async fn resolve(&self, reference: Option<&str>) -> Result<String> {
        let wanted = Wanted::of(reference);
        let asked = reference.unwrap_or("HEAD");
        match wanted {
            Wanted::Commit(commit) => self.resolve_commit(commit).await,
            Wanted::Other(name) => self.resolve_other(&name).await,
            Wanted::Refs(names) => {
                let fetched = self.refresh(false).await?;
                if let Some(commit) = self.look_up(names.clone()).await? {
                    return Ok(commit);
                }
                if !fetched {
                    self.refresh(true).await?;
                    if let Some(commit) = self.look_up(names).await? {
                        return Ok(commit);
                    }
                }
                Err(self.not_found(asked, format!("couldn't find remote ref {asked}")))
            }
        }
    }

    /// True if the mirror holds this commit.
    pub async fn has_commit(&self, commit: &str) -> Result<bool> {
        let commit = commit.to_owned();
        self.read("commit", move |repo| match Oid::from_str(&commit).and_then(|id| repo.find_commit(id)) {
            Ok(_) => Ok(true),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(false),
            Err(error) => Err(error),
        })
        .await
    }

    async fn resolve_commit(&self, commit: String) -> Result<String> {
        if self.has_commit(&commit).await? {
            return Ok(commit);
        }
        self.refresh(true).await?;
        if self.has_commit(&commit).await? {
            return Ok(commit);
        }
        // In no branch or tag: some servers hand out a commit that is asked for by id.
        let refspec = format!("+{commit}:refs/hopyard/wanted/{commit}");
        let answer = {
            let _guard = self.fetch_lock().hold().await?;
            self.fetch(&[], &[refspec.as_str()]).await
        };
        match answer {
            Ok(()) if self.has_commit(&commit).await? => Ok(commit),
            Ok(()) => Err(self.not_found(&commit, "the object is not a commit".into())),
            Err(error) if error.is_transient() => Err(error),
            Err(Error::RepoUnavailable { detail, .. }) => Err(self.not_found(&commit, detail)),
            Err(error) => Err(error),
        }
    }

    async fn resolve_other(&self, name: &str) -> Result<String> {
        if !git2::Reference::is_valid_name(name) {
            return Err(self.not_found(name, "not a valid reference name".into()));
        }
        let target = format!("refs/hopyard/wanted/{}", crate::mirror::key(name));
        let answer = {
            let _guard = self.fetch_lock().hold().await?;
            self.fetch(&[], &[format!("+{name}:{target}").as_str()]).await
        };
        match answer {
            Ok(()) => match self.look_up(vec![target]).await? {
                Some(commit) => Ok(commit),
                None => Err(self.not_found(name, "it does not name a commit".into())),
            },
            Err(Error::RepoUnavailable { detail, .. }) if detail.contains("couldn't find remote ref") => Err(self.not_found(name, detail)),
            Err(error) => Err(error),
        }
    }

    /// The commit of the first name that exists in the mirror; names are exact, never expressions.
    pub(crate) async fn look_up(&self, names: Vec<String>) -> Result<Option<String>> {
        self.read("references", move |repo| {
            for name in &names {
                match repo.find_reference(name).and_then(|found| found.peel_to_commit()) {
                    Ok(commit) => return Ok(Some(commit.id().to_string())),
                    Err(error) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::InvalidSpec | ErrorCode::Peel) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(None)
        })
        .await
    }

    /// Reads the mirror's object database on a thread of its own.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        what: &'static str,
        read: impl FnOnce(&Repository) -> Result<T, git2::Error> + Send + 'static,
    ) -> Result<T> {
        let dir = self.dir().to_owned();
        tokio::task::spawn_blocking(move || Repository::open_bare(&dir).and_then(|repo| read(&repo)))
            .await
            .map_err(|_| Error::Aborted { what: "reading a mirror" })?
            .map_err(|source| Error::read(format!("{what} of {}", self.repo()), source))
    }

    fn not_found(&self, reference: &str, detail: String) -> Error {
        Error::RefNotFound { repo: self.repo().to_owned(), reference: reference.to_owned(), detail }
    }
}
