//! Identifiers: UUIDv7 run ids, attempt names and the validated names that may become subject tokens.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use uuid::Uuid;

mod workspace;

pub use workspace::{NotAWorkspace, WorkspaceId};

/// Identifier of one run: a UUIDv7, written in canonical lower case and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(transparent)]
pub struct RunId(Uuid);

/// Why a text is no [`RunId`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a run id: a run id is a UUIDv7 in canonical lower case")]
pub struct NotARunId;

impl RunId {
    /// Mints a new id from the process clock and its random source.
    pub fn mint() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id of item `item` of a bus message: the stream's time in the id, the rest from a hash of time, sequence and item,
    /// so that a redelivery of the same message gives the same id.
    pub fn of_bus_message(stream_time_ns: i64, sequence: u64, item: u32) -> Self {
        let mut hash = Sha256::new();
        hash.update(stream_time_ns.to_be_bytes());
        hash.update(sequence.to_be_bytes());
        hash.update(item.to_be_bytes());
        let digest = hash.finalize();
        let mut random = [0u8; 10];
        random.copy_from_slice(&digest[..10]);
        let millis = u64::try_from(stream_time_ns / 1_000_000).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// Wraps a UUID read back from the store.
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The UUID, for the store.
    pub fn as_uuid(&self) -> Uuid {
        self.0
    }

    /// The instant in the id, in milliseconds since 1970: when the run was submitted.
    pub fn unix_millis(&self) -> i64 {
        let b = self.0.as_bytes();
        i64::from_be_bytes([0, 0, b[0], b[1], b[2], b[3], b[4], b[5]])
    }

    /// The smallest id that carries `at` or a later instant; `created_after` and `created_before` become ranges of ids with it.
    pub fn floor_of(at: DateTime<Utc>) -> Self {
        let millis = u64::try_from(at.timestamp_millis().max(0)).unwrap_or(0);
        let mut bytes = [0u8; 16];
        bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RunId {
    type Err = NotARunId;

    fn from_str(text: &str) -> Result<Self, NotARunId> {
        let uuid = Uuid::try_parse(text).map_err(|_| NotARunId)?;
        // The uuid crate also reads braces, URNs, upper case and the form without hyphens; ids have one form here.
        if uuid.get_version_num() != 7 || uuid.hyphenated().to_string() != text {
            return Err(NotARunId);
        }
        Ok(Self(uuid))
    }
}

impl Serialize for RunId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One try of a step: `<run>.<step>.<attempt>`, the name used in logs, refs, directories and process environments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct AttemptId {
    /// The run.
    pub run: RunId,
    /// The step's id within the plan.
    pub step: Name,
    /// Number of the attempt, from 1; it only grows and is the fence.
    pub n: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.run, self.step, self.n)
    }
}

/// A name that may become a subject token, a directory or a ref: `[a-z0-9_-]{1,64}`, not starting with `-`.
///
/// Namespaces, workflows, steps, pools, executors, hosts and sessions all use it.
// A state of a run holds a dozen, and copies of it share them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(transparent)]
pub struct Name(#[schemars(with = "String", regex(pattern = r"^[a-z0-9_][a-z0-9_-]{0,63}$"))] Arc<str>);

/// Why a text is no [`Name`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotAName {
    /// Nothing, or more than 64 characters.
    #[error("a name has 1 to 64 characters")]
    Length,
    /// A character outside of the set.
    #[error("a name has only the characters a-z, 0-9, `_` and `-`, and does not start with `-`")]
    Pattern,
}

impl Name {
    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name known when the program is written.
    ///
    /// # Panics
    /// When the text is no name; only for literals.
    pub fn literal(text: &'static str) -> Self {
        text.parse().expect("the literal is a valid name")
    }

    /// The namespace of everything that names none.
    pub fn default_namespace() -> Self {
        Self("default".into())
    }

    /// The pool of every step that asks for none.
    pub fn default_pool() -> Self {
        Self("default".into())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        if text.is_empty() || text.len() > 64 {
            return Err(NotAName::Length);
        }
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if text.starts_with('-') || !text.bytes().all(allowed) {
            return Err(NotAName::Pattern);
        }
        Ok(Self(text.into()))
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests;
