//! Blobs: bytes kept under their own SHA-256, off the disk of the executor that made them.
//!
//! Executors write logs, patches, bundles and artifacts here before they report; the door reads them. One
//! interface over `object_store`; built in is the directory store (a shared volume in production, a plain
//! directory in development). S3-compatible stores are not built in yet: `object_store`'s usual feature brings
//! aws-lc, and its ring variant needs a TLS provider chosen by the executable.
//!
//! This crate *never* changes or deletes a blob, never hands out bytes that do not match their digest when it
//! reads a whole blob, and never retries: that is the caller's.

mod digest;
mod error;
mod store;

pub use digest::{Blob, Digest};
pub use error::{Error, Result};
pub use store::Blobs;
