//! The name of a blob: the SHA-256 of its bytes, written `sha256:<64 hex digits>`.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::Error;

const PREFIX: &str = "sha256:";

/// SHA-256 of a blob's bytes; text form `sha256:<hex>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// A blob that is stored: its name and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// Name of the blob.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    pub(crate) fn finish(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// The 64 hex digits without prefix.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Place in the store: `<first two digits>/<rest>`.
    pub(crate) fn path(&self) -> object_store::path::Path {
        let hex = self.hex();
        object_store::path::Path::from_iter([&hex[..2], &hex[2..]])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    /// Reads `sha256:<64 lower-case hex digits>`; nothing else is a digest.
    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::InvalidDigest { text: text.to_owned() };
        let digits = text.strip_prefix(PREFIX).ok_or_else(invalid)?;
        if digits.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| invalid())?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_is_exact() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string(), empty);
        assert_eq!(empty.parse::<Digest>().expect("valid"), digest);
        let place = "e3/b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.path().as_ref(), place);
        for bad in ["", "sha256:", &empty[7..], &empty.to_uppercase(), &format!("{empty}0"), "sha256:../../etc"] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?}");
        }
    }
}
