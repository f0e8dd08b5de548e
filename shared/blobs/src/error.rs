//! What can go wrong with a blob, told apart by what the caller should do.

use std::path::PathBuf;

use crate::Digest;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the blob store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store has no such blob.
    #[error("blob {digest} not found")]
    NotFound {
        /// The blob asked for.
        digest: Digest,
    },
    /// The store answered, but not now: unreachable, full, overloaded. Trying again may help.
    #[error("blob store cannot {action}: {source}")]
    Transient {
        /// What was tried.
        action: &'static str,
        /// The store's answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store refuses, and will refuse again: rights, configuration, an impossible range.
    #[error("blob store refused to {action}: {source}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The store's answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The stored bytes do not match their name.
    #[error("blob {digest} is damaged: its bytes have digest {found}")]
    Damaged {
        /// The blob asked for.
        digest: Digest,
        /// Digest of what the store returned.
        found: Digest,
    },
    /// A file of the caller could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file changed while it was being stored; nothing was stored.
    #[error("{} changed while it was being stored", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Not a digest.
    #[error("invalid digest `{text}`, expected sha256:<64 hex digits>")]
    InvalidDigest {
        /// What was given.
        text: String,
    },
    /// The address names no store that this build can open.
    #[error("cannot open blob store `{url}`: {detail}")]
    Address {
        /// What was given.
        url: String,
        /// Why not, and what works.
        detail: String,
    },
}

impl Error {
    /// True if there is no such blob.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// True if the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. })
    }

    pub(crate) fn store(action: &'static str, digest: &Digest, source: object_store::Error) -> Self {
        use object_store::Error as Store;
        match source {
            Store::NotFound { .. } => Self::NotFound { digest: *digest },
            Store::Generic { .. } | Store::JoinError { .. } => Self::Transient { action, source: source.into() },
            _ => Self::Refused { action, source: source.into() },
        }
    }
}
