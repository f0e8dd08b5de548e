//! A finished log, read out of its blob piece by piece; memory does not grow with its length.

use bytes::{Buf as _, Bytes};
use hopyard_blobs::{Blobs, Digest};
use hopyard_contract::log::frame::{Decoder, Piece};
use hopyard_contract::run::BlobRef;
use zstd::stream::raw::{Decoder as Zstd, Operation as _};

use crate::problem::{Answer, Refusal};
use crate::read::results;

/// Compressed bytes read at once.
const READ: u64 = 256 * 1024;
/// Bytes unpacked at once.
const UNPACK: usize = 128 * 1024;

/// A log in a blob, read from its start.
pub(super) struct StoredLog {
    blobs: Blobs,
    digest: Digest,
    size: u64,
    read: u64,
    input: Bytes,
    zstd: Zstd<'static>,
    unpacked: Vec<u8>,
    /// Whether the decoder may hold more than fitted into the last buffer.
    more: bool,
    records: Decoder,
}

impl StoredLog {
    /// Opens it.
    ///
    /// # Errors
    /// 503 when the blob store does not have it or does not answer.
    pub(super) async fn open(blobs: Blobs, blob: &BlobRef) -> Answer<Self> {
        let digest: Digest = blob.digest.parse().map_err(|e| results::unreadable(&e))?;
        let size = blobs.size(&digest).await.map_err(|e| results::unreadable(&e))?;
        let zstd = Zstd::new().map_err(|e| damaged(&digest, &e))?;
        Ok(Self {
            blobs,
            digest,
            size,
            read: 0,
            input: Bytes::new(),
            zstd,
            unpacked: vec![0; UNPACK],
            more: false,
            records: Decoder::default(),
        })
    }

    /// The next piece; `None` at the end.
    pub(super) async fn next_piece(&mut self) -> Answer<Option<Piece>> {
        loop {
            if let Some(piece) = self.records.next_piece().map_err(|e| damaged(&self.digest, &e))? {
                return Ok(Some(piece));
            }
            if self.input.is_empty() && !self.more {
                if self.read >= self.size {
                    self.records.finish().map_err(|e| damaged(&self.digest, &e))?;
                    return Ok(None);
                }
                let range = self.read..self.read + READ;
                self.input = self.blobs.get_range(&self.digest, range).await.map_err(|e| results::unreadable(&e))?;
                self.read += self.input.len() as u64;
                if self.input.is_empty() {
                    return Err(damaged(&self.digest, &"it is shorter than it was"));
                }
            }
            let status = self.zstd.run_on_buffers(&self.input, &mut self.unpacked).map_err(|e| damaged(&self.digest, &e))?;
            self.input.advance(status.bytes_read);
            self.more = status.bytes_written == self.unpacked.len();
            self.records.push(&self.unpacked[..status.bytes_written]);
        }
    }
}

fn damaged(digest: &Digest, error: &dyn std::fmt::Display) -> Refusal {
    tracing::error!(%digest, %error, "a stored log is damaged");
    Refusal::new(503, "log_damaged", "the stored log cannot be read; see the log of the door")
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use hopyard_contract::log::Stream;
    use hopyard_contract::log::frame::encode;

    async fn store(bytes: Vec<u8>) -> (tempfile::TempDir, Blobs, BlobRef) {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path().to_str().unwrap()).unwrap();
        let blob = blobs.put_bytes(bytes.into()).await.unwrap();
        (dir, blobs, BlobRef { digest: blob.digest.to_string(), size: blob.size })
    }

    #[tokio::test]
    async fn a_log_longer_than_any_buffer_comes_back_whole() {
        // Random text does not shrink much, zeros shrink to almost nothing: both borders of the buffers are crossed.
        let mut log = Vec::new();
        let mut seed = 1u64;
        for _ in 0..700_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            log.push((seed >> 33) as u8);
        }
        log.extend(std::iter::repeat_n(0, 3_000_000));
        let mut records = Vec::new();
        for (i, bytes) in log.chunks(50_000).enumerate() {
            encode(if i % 2 == 0 { Stream::Stdout } else { Stream::Stderr }, DateTime::UNIX_EPOCH, bytes, &mut records);
        }
        let (_dir, blobs, blob) = store(zstd::encode_all(records.as_slice(), 1).unwrap()).await;
        let mut stored = StoredLog::open(blobs, &blob).await.unwrap();
        let mut found = Vec::new();
        while let Some(piece) = stored.next_piece().await.unwrap() {
            assert_eq!(piece.offset, found.len() as u64);
            found.extend(piece.bytes);
        }
        assert!(found == log);
    }

    #[tokio::test]
    async fn an_empty_log_has_no_pieces_and_a_cut_one_says_so() {
        let (_dir, blobs, blob) = store(zstd::encode_all(&[][..], 1).unwrap()).await;
        assert_eq!(StoredLog::open(blobs, &blob).await.unwrap().next_piece().await.unwrap(), None);
        let mut records = Vec::new();
        encode(Stream::Stdout, DateTime::UNIX_EPOCH, b"text", &mut records);
        records.pop();
        let (_dir, blobs, blob) = store(zstd::encode_all(records.as_slice(), 1).unwrap()).await;
        let refusal = StoredLog::open(blobs, &blob).await.unwrap().next_piece().await.unwrap_err();
        assert_eq!(refusal.0.code, "log_damaged");
    }

    #[tokio::test]
    async fn a_blob_that_is_not_there_is_told() {
        let (_dir, blobs, _) = store(vec![1]).await;
        let absent = BlobRef { digest: Digest::of(b"absent").to_string(), size: 6 };
        let refusal = StoredLog::open(blobs, &absent).await.err().unwrap();
        assert_eq!((refusal.0.status, refusal.0.code.as_str()), (503, "blob_unavailable"));
    }
}
