//! The one error of the store, by what a caller can do about it.

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine cannot be reached, or was lost before or during the operation; a commit may have happened.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// Another transaction has a lock that this one needs, and it does not wait for it, or no longer.
    #[error("another transaction has what is needed: {0}")]
    Busy(String),
    /// The engine asked for the transaction to be tried again: deadlock, serialisation.
    #[error("the transaction has to be tried again: {0}")]
    Retry(String),
    /// Another scheduler holds the single-writer lock of an embedded store.
    #[error("another scheduler uses this store: {0}")]
    Locked(String),
    /// A stored value does not fit, or a guard refused a write: a fault of Hopyard or of a hand-made change.
    #[error("the store refused: {0}")]
    Refused(String),
    /// The schema is missing, older or newer than this build.
    #[error("the schema does not fit: {0}")]
    Schema(String),
    /// The URL or a setting is not valid.
    #[error("the store's URL is not valid: {0}")]
    Url(String),
}

impl Error {
    /// Whether the same operation may succeed later without anybody's help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Busy(_) | Self::Retry(_))
    }
}
