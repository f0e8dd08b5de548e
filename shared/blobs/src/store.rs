//! Reading and writing blobs; every write is whole or not there.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart};
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Blob, Digest, Error, Result};

/// Bytes read or sent at once.
const CHUNK: usize = 256 * 1024;
/// Files up to this size are sent in one request; also the size of a part of a larger one.
const PART: usize = 8 * 1024 * 1024;
/// Parts under way at a time: bounds the memory of one upload to four parts.
const PARTS_UNDER_WAY: usize = 3;

/// A store of blobs; clones are cheap.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    address: Arc<str>,
    directory: Arc<Path>,
}

impl Blobs {
    /// Opens a store: `file:///dir` or a plain path, made if it is missing.
    ///
    /// # Errors
    /// [`Error::Address`] for any other scheme, [`Error::File`] if the directory cannot be made.
    pub fn open(url: &str) -> Result<Self> {
        let address = |detail: &str| Error::Address { url: url.to_owned(), detail: detail.to_owned() };
        let path = match url.split_once("://") {
            Some(("file", path)) if path.starts_with('/') => path,
            Some(("file", _)) => return Err(address("a file address starts with file:///")),
            Some(("s3" | "s3a", _)) => {
                return Err(address("s3 is not built in, use a directory on a shared volume (file:///dir)"));
            }
            Some(_) => return Err(address("unknown scheme, use file:///dir or a path")),
            None if url.is_empty() => return Err(address("it is empty")),
            None => url,
        };
        let dir = PathBuf::from(path);
        std::fs::create_dir_all(&dir).map_err(|source| Error::File { action: "create", path: dir.clone(), source })?;
        // A blob that was reported must survive a power cut: files and directories are synced.
        let store = LocalFileSystem::new_with_prefix(&dir).map_err(|source| address(&source.to_string()))?.with_fsync(true);
        Ok(Self { store: Arc::new(store), address: url.into(), directory: dir.into() })
    }

    /// The address it was opened with.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The directory that holds the blobs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Stores `bytes`; nothing is sent if they are there already.
    pub async fn put_bytes(&self, bytes: Bytes) -> Result<Blob> {
        let digest = Digest::of(&bytes);
        let size = bytes.len() as u64;
        if !self.holds(&digest, size).await? {
            self.put(&digest, bytes).await?;
        }
        Ok(Blob { digest, size })
    }

    /// Stores a file in pieces, without holding it in memory; nothing is sent if it is there already.
    ///
    /// # Errors
    /// [`Error::Changed`] if the file is written to meanwhile.
    pub async fn put_file(&self, path: &Path) -> Result<Blob> {
        let blob = hash_file(path).await?;
        if self.holds(&blob.digest, blob.size).await? {
            return Ok(blob);
        }
        let mut file = open(path).await?;
        if blob.size <= PART as u64 {
            let mut bytes = Vec::with_capacity(usize::try_from(blob.size).unwrap_or(PART));
            file.read_to_end(&mut bytes).await.map_err(|source| read_failed(path, source))?;
            if Digest::of(&bytes) != blob.digest {
                return Err(Error::Changed { path: path.to_owned() });
            }
            self.put(&blob.digest, bytes.into()).await?;
        } else {
            self.put_parts(&blob.digest, file, path).await?;
        }
        Ok(blob)
    }

    /// The whole blob, checked against its digest.
    pub async fn get(&self, digest: &Digest) -> Result<Bytes> {
        let read = async { self.store.get(&digest.path()).await?.bytes().await };
        let bytes = read.await.map_err(|source| Error::store("read", digest, source))?;
        check(digest, Digest::of(&bytes))?;
        Ok(bytes)
    }

    /// Part of a blob; a range that reaches beyond the end is cut, one that starts there is empty.
    pub async fn get_range(&self, digest: &Digest, range: Range<u64>) -> Result<Bytes> {
        let size = self.size(digest).await?;
        let range = range.start.min(size)..range.end.min(size);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let read = self.store.get_range(&digest.path(), range).await;
        read.map_err(|source| Error::store("read", digest, source))
    }

    /// Writes a blob to `path`, checked; the file appears whole or not at all. Returns its size.
    pub async fn read_to_file(&self, digest: &Digest, path: &Path) -> Result<u64> {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}.part", &digest.hex()[..12]));
        let part = PathBuf::from(name);
        let written = self.stream_to(digest, &part).await;
        let moved = match written {
            Ok(size) => tokio::fs::rename(&part, path).await.map(|()| size).map_err(|source| Error::File {
                action: "write",
                path: path.to_owned(),
                source,
            }),
            Err(error) => Err(error),
        };
        if moved.is_err() {
            // What could not be finished is of no use to anybody.
            let _ = tokio::fs::remove_file(&part).await;
        }
        moved
    }

    /// Reads the blob and compares it with its digest, without holding it in memory; returns its size.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is not what its name says.
    pub async fn verify(&self, digest: &Digest) -> Result<u64> {
        let found = self.store.get(&digest.path()).await;
        let mut stream = found.map_err(|source| Error::store("read", digest, source))?.into_stream();
        let (mut hasher, mut size) = (Sha256::new(), 0);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|source| Error::store("read", digest, source))?;
            hasher.update(&chunk);
            size += chunk.len() as u64;
        }
        check(digest, Digest::finish(hasher))?;
        Ok(size)
    }

    /// True if the blob is stored.
    pub async fn exists(&self, digest: &Digest) -> Result<bool> {
        match self.size(digest).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Length of the blob in bytes.
    pub async fn size(&self, digest: &Digest) -> Result<u64> {
        let meta = self.store.head(&digest.path()).await;
        meta.map(|meta| meta.size).map_err(|source| Error::store("look up", digest, source))
    }

    /// True if the blob is there in full length; anything else is written again.
    async fn holds(&self, digest: &Digest, size: u64) -> Result<bool> {
        match self.size(digest).await {
            Ok(found) => Ok(found == size),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn put(&self, digest: &Digest, bytes: Bytes) -> Result<()> {
        let put = self.store.put(&digest.path(), PutPayload::from_bytes(bytes)).await;
        put.map(drop).map_err(|source| Error::store("write", digest, source))
    }

    async fn put_parts(&self, digest: &Digest, mut file: File, path: &Path) -> Result<()> {
        let failed = |source| Error::store("write", digest, source);
        let upload = self.store.put_multipart(&digest.path()).await.map_err(failed)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        let mut hasher = Sha256::new();
        let outcome = loop {
            let mut chunk = vec![0; CHUNK];
            match file.read(&mut chunk).await {
                Ok(0) if Digest::finish(hasher.clone()) == *digest => break Ok(()),
                Ok(0) => {
                    break Err(Error::Changed { path: path.to_owned() });
                }
                Ok(count) => {
                    chunk.truncate(count);
                    hasher.update(&chunk);
                    if let Err(source) = upload.wait_for_capacity(PARTS_UNDER_WAY).await {
                        break Err(failed(source));
                    }
                    upload.put(chunk.into());
                }
                Err(source) => break Err(read_failed(path, source)),
            }
        };
        match outcome {
            Ok(()) => upload.finish().await.map(drop).map_err(failed),
            Err(error) => {
                // The first error is the one to report.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }

    async fn stream_to(&self, digest: &Digest, part: &Path) -> Result<u64> {
        let failed = |source| Error::File { action: "write", path: part.to_owned(), source };
        let found = self.store.get(&digest.path()).await;
        let mut stream = found.map_err(|source| Error::store("read", digest, source))?.into_stream();
        let mut file = File::create(part).await.map_err(failed)?;
        let (mut hasher, mut size) = (Sha256::new(), 0);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|source| Error::store("read", digest, source))?;
            hasher.update(&chunk);
            size += chunk.len() as u64;
            file.write_all(&chunk).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        check(digest, Digest::finish(hasher))?;
        Ok(size)
    }
}

async fn open(path: &Path) -> Result<File> {
    File::open(path).await.map_err(|source| Error::File { action: "open", path: path.to_owned(), source })
}

fn read_failed(path: &Path, source: std::io::Error) -> Error {
    Error::File { action: "read", path: path.to_owned(), source }
}

async fn hash_file(path: &Path) -> Result<Blob> {
    let mut file = open(path).await?;
    let (mut hasher, mut size) = (Sha256::new(), 0);
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = file.read(&mut chunk).await.map_err(|source| read_failed(path, source))?;
        if count == 0 {
            return Ok(Blob { digest: Digest::finish(hasher), size });
        }
        hasher.update(&chunk[..count]);
        size += count as u64;
    }
}

fn check(digest: &Digest, found: Digest) -> Result<()> {
    if found == *digest { Ok(()) } else { Err(Error::Damaged { digest: *digest, found }) }
}

#[cfg(test)]
mod tests;
