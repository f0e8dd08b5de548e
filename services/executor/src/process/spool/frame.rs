//! The frame of one record: stream (1 byte), microseconds since 1970 (8 bytes), payload length (4 bytes), little endian.

use std::io;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Bytes of a frame before its payload.
pub const FRAME_BYTES: usize = 13;
/// Largest payload of one record in bytes.
pub const MAX_RECORD: usize = 64 * 1024;

/// Where bytes of a log came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output of the step.
    Stdout,
    /// Standard error of the step.
    Stderr,
    /// A line by Hopyard about the step.
    System,
}

impl Stream {
    fn code(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::System => 3,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            3 => Some(Self::System),
            _ => None,
        }
    }
}

/// A piece of the merged log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Position of the first byte in the merged log.
    pub offset: u64,
    /// Where the bytes came from.
    pub stream: Stream,
    /// When the first of the bytes arrived.
    pub at: DateTime<Utc>,
    /// The bytes as they were written, at most [`MAX_RECORD`].
    pub bytes: Vec<u8>,
}

impl Chunk {
    /// Position in the merged log after this chunk.
    pub fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// A frame without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) stream: Stream,
    pub(super) micros: i64,
    pub(super) len: usize,
}

impl Frame {
    pub(super) fn encode(self) -> [u8; FRAME_BYTES] {
        let mut bytes = [0; FRAME_BYTES];
        bytes[0] = self.stream.code();
        bytes[1..9].copy_from_slice(&self.micros.to_le_bytes());
        let len = u32::try_from(self.len).expect("a record is at most 64 KiB");
        bytes[9..].copy_from_slice(&len.to_le_bytes());
        bytes
    }

    /// Reads the frame at the start of `bytes`, `None` if there are too few.
    pub(super) fn decode(bytes: &[u8]) -> io::Result<Option<Self>> {
        let Some(head) = bytes.first_chunk::<FRAME_BYTES>() else { return Ok(None) };
        let (code, rest) = (head[0], &head[1..]);
        let micros = i64::from_le_bytes(*rest.first_chunk().expect("12 bytes hold 8"));
        let len = u32::from_le_bytes(*rest.last_chunk().expect("12 bytes hold 4")) as usize;
        match Stream::from_code(code) {
            Some(stream) if len <= MAX_RECORD => Ok(Some(Self { stream, micros, len })),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("no log frame: stream {code}, length {len}"))),
        }
    }

    pub(super) fn at(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.micros).unwrap_or_default()
    }
}
