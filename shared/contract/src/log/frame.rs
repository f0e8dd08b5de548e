//! The form of a stored log: records of one stream each, in order of arrival, before compression.
//!
//! A record is a head of 13 bytes, little endian (stream 1 byte: 1 stdout, 2 stderr, 3 system; microseconds since 1970
//! 8 bytes; payload length 4 bytes), and its payload. Offsets count payload bytes only.

use chrono::{DateTime, Utc};

use super::Stream;

/// Bytes of a record before its payload.
pub const HEAD_BYTES: usize = 13;
/// Largest payload of one record in bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// Why bytes are no stored log.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum NotALog {
    /// A head that no writer makes.
    #[error("no log record at offset {offset}: stream {stream}, length {len}")]
    Head {
        /// Position in the merged log.
        offset: u64,
        /// Code of the stream as found.
        stream: u8,
        /// Length as found.
        len: usize,
    },
    /// The bytes end within a record.
    #[error("the log ends within a record at offset {offset}")]
    Cut {
        /// Position in the merged log.
        offset: u64,
    },
}

/// Bytes of one stream at their place in the merged log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Position of the first byte in the merged log.
    pub offset: u64,
    /// Where the bytes came from.
    pub stream: Stream,
    /// When the first of the bytes arrived.
    pub at: DateTime<Utc>,
    /// The bytes as they were written.
    pub bytes: Vec<u8>,
}

impl Piece {
    /// Position in the merged log after the last byte.
    pub fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }

    /// What lies at or after `from`; `None` if nothing does.
    #[must_use]
    pub fn starting_at(mut self, from: u64) -> Option<Self> {
        if self.end() <= from {
            return None;
        }
        if self.offset < from {
            let skip = usize::try_from(from - self.offset).ok()?;
            self.bytes.drain(..skip);
            self.offset = from;
        }
        Some(self)
    }
}

/// A record without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Where the bytes came from.
    pub stream: Stream,
    /// When the first of the bytes arrived, in microseconds since 1970.
    pub micros: i64,
    /// Bytes of the payload, at most [`MAX_PAYLOAD`].
    pub len: usize,
}

impl Head {
    /// The written form.
    pub fn encode(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[0] = code(self.stream);
        bytes[1..9].copy_from_slice(&self.micros.to_le_bytes());
        let len = u32::try_from(self.len).expect("a payload is at most 64 KiB");
        bytes[9..].copy_from_slice(&len.to_le_bytes());
        bytes
    }

    /// Reads the head at the start of `bytes`; `None` if there are too few. `offset` is named in the error only.
    ///
    /// # Errors
    /// [`NotALog::Head`].
    pub fn decode(bytes: &[u8], offset: u64) -> Result<Option<Self>, NotALog> {
        let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let micros = i64::from_le_bytes(head[1..9].try_into().expect("eight of thirteen bytes"));
        let len = u32::from_le_bytes(head[9..].try_into().expect("four of thirteen bytes")) as usize;
        match stream(head[0]) {
            Some(stream) if len <= MAX_PAYLOAD => Ok(Some(Self { stream, micros, len })),
            _ => Err(NotALog::Head { offset, stream: head[0], len }),
        }
    }

    /// When the first of the bytes arrived.
    pub fn at(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.micros).unwrap_or_default()
    }
}

/// Appends `bytes` as records; more than [`MAX_PAYLOAD`] bytes become several, none becomes none.
pub fn encode(stream: Stream, at: DateTime<Utc>, bytes: &[u8], out: &mut Vec<u8>) {
    for payload in bytes.chunks(MAX_PAYLOAD) {
        out.extend_from_slice(&Head { stream, micros: at.timestamp_micros(), len: payload.len() }.encode());
        out.extend_from_slice(payload);
    }
}

/// Reads records from bytes that come in any pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    offset: u64,
}

impl Decoder {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole record; `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`NotALog::Head`].
    pub fn next_piece(&mut self) -> Result<Option<Piece>, NotALog> {
        let unread = &self.buffer[self.start..];
        let Some(head) = Head::decode(unread, self.offset)? else { return Ok(None) };
        let Some(payload) = unread.get(HEAD_BYTES..HEAD_BYTES + head.len) else { return Ok(None) };
        let piece = Piece { offset: self.offset, stream: head.stream, at: head.at(), bytes: payload.to_vec() };
        self.start += HEAD_BYTES + head.len;
        self.offset += head.len as u64;
        Ok(Some(piece))
    }

    /// Says that no more bytes come.
    ///
    /// # Errors
    /// [`NotALog::Cut`] if a record is not whole.
    pub fn finish(&self) -> Result<u64, NotALog> {
        if self.start == self.buffer.len() { Ok(self.offset) } else { Err(NotALog::Cut { offset: self.offset }) }
    }
}

fn code(stream: Stream) -> u8 {
    match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
        Stream::System => 3,
    }
}

fn stream(code: u8) -> Option<Stream> {
    match code {
        1 => Some(Stream::Stdout),
        2 => Some(Stream::Stderr),
        3 => Some(Stream::System),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at() -> DateTime<Utc> {
        DateTime::from_timestamp_micros(1_750_550_400_000_001).unwrap()
    }

    #[test]
    fn the_layout_is_fixed() {
        let mut out = Vec::new();
        encode(Stream::Stderr, at(), b"no\n", &mut out);
        let mut wanted = vec![2];
        wanted.extend_from_slice(&1_750_550_400_000_001i64.to_le_bytes());
        wanted.extend_from_slice(&[3, 0, 0, 0]);
        wanted.extend_from_slice(b"no\n");
        assert_eq!(out, wanted);
    }

    #[test]
    fn other_bytes_are_no_log() {
        let mut decoder = Decoder::default();
        decoder.push(&[9; HEAD_BYTES]);
        assert!(matches!(decoder.next_piece(), Err(NotALog::Head { offset: 0, stream: 9, .. })));
        let mut decoder = Decoder::default();
        decoder.push(&[1, 0]);
        assert_eq!(decoder.next_piece(), Ok(None));
        assert_eq!(decoder.finish(), Err(NotALog::Cut { offset: 0 }));
    }

    #[test]
    fn a_piece_is_cut_at_any_offset() {
        let piece = Piece { offset: 10, stream: Stream::Stdout, at: at(), bytes: b"abcd".to_vec() };
        assert_eq!(piece.clone().starting_at(9).unwrap(), piece);
        let rest = piece.clone().starting_at(12).unwrap();
        assert_eq!((rest.offset, rest.bytes.as_slice(), rest.end()), (12, b"cd".as_slice(), 14));
        assert_eq!(piece.starting_at(14), None);
    }

    proptest! {
        #[test]
        fn records_read_back_from_any_pieces(
            records in prop::collection::vec((0u8..3, prop::collection::vec(any::<u8>(), 1..200)), 0..20),
            step in 1usize..64,
        ) {
            let streams = [Stream::Stdout, Stream::Stderr, Stream::System];
            let mut out = Vec::new();
            for (stream, bytes) in &records {
                encode(streams[usize::from(*stream)], at(), bytes, &mut out);
            }
            let (mut decoder, mut found, mut offset) = (Decoder::default(), Vec::new(), 0);
            for bytes in out.chunks(step) {
                decoder.push(bytes);
                while let Some(piece) = decoder.next_piece().unwrap() {
                    prop_assert_eq!(piece.offset, offset);
                    offset = piece.end();
                    found.push((piece.stream, piece.bytes));
                }
            }
            prop_assert_eq!(decoder.finish(), Ok(offset));
            let wanted: Vec<_> = records.into_iter().map(|(s, b)| (streams[usize::from(s)], b)).collect();
            prop_assert_eq!(found, wanted);
        }
    }
}
