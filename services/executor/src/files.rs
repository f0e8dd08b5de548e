//! Files that only the executor's user may read.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use nix::fcntl::OFlag;

/// Mode of most of them.
pub(crate) const PRIVATE: u32 = 0o600;

/// Writes a file on another thread; there need be none yet.
pub(crate) async fn write_private(file: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let (file, bytes) = (file.to_owned(), bytes.to_owned());
    // One turn on another thread, where an asynchronous file takes one for each call.
    let write = move || write_over(&file, &bytes, mode).with_context(|| format!("{} cannot be written", file.display()));
    tokio::task::spawn_blocking(write).await?
}

/// Writes a file, which stays the same one if it is there. Whoever reads it meanwhile, or after an end in the middle of it,
/// finds JSON that is not whole.
///
/// # Errors
/// When it cannot be written, or a link stands in its place.
pub(crate) fn write_over(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(mode).custom_flags(OFlag::O_NOFOLLOW.bits());
    let mut file: File = options.open(path)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)
}
