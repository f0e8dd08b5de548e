//! Reads a spool from any offset, also while it grows.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use hopyard_contract::log::frame::{HEAD_BYTES, Head, NotALog, Piece};

/// Most bytes of one read.
const READ_BYTES: u64 = 256 * 1024;

/// A position in a spool file.
#[derive(Debug)]
pub struct SpoolReader {
    file: File,
    /// Position in the file after the buffered bytes.
    file_pos: u64,
    buffer: Vec<u8>,
    /// Start of the unread bytes in the buffer.
    start: usize,
    /// Position in the merged log of the next record.
    offset: u64,
    /// Bytes before this position are passed over.
    from: u64,
}

impl SpoolReader {
    /// Opens the spool at its start.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_at(path, 0)
    }

    /// Opens the spool at byte `offset` of the merged log, which may lie beyond its present end.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open_at(path: &Path, offset: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self { file, file_pos: 0, buffer: Vec::new(), start: 0, offset: 0, from: offset })
    }

    /// Position in the merged log of what is read next.
    pub fn offset(&self) -> u64 {
        self.offset.max(self.from)
    }

    /// The next chunk; `None` if no whole record follows yet.
    ///
    /// # Errors
    /// When the file cannot be read, or `InvalidData` when it is no spool.
    pub fn next_piece(&mut self) -> io::Result<Option<Piece>> {
        while let Some((frame, payload)) = self.next_record()? {
            let offset = self.offset;
            self.offset += frame.len as u64;
            if self.offset <= self.from {
                continue;
            }
            let skip = usize::try_from(self.from.saturating_sub(offset)).expect("a skip within a record is small");
            let bytes = self.buffer[payload + skip..payload + frame.len].to_vec();
            return Ok(Some(Piece { offset: offset + skip as u64, stream: frame.stream, at: frame.at(), bytes }));
        }
        Ok(None)
    }

    /// All chunks up to the present end.
    pub fn records(self) -> Records {
        Records(self)
    }

    /// Reads on to the present end and says where that is.
    ///
    /// # Errors
    /// As [`Self::next_piece`].
    pub fn end(mut self) -> io::Result<u64> {
        while let Some((frame, _)) = self.next_record()? {
            self.offset += frame.len as u64;
        }
        Ok(self.offset)
    }

    /// Length of the file up to the last whole record: one that a killed writer left torn does not count.
    ///
    /// # Errors
    /// As [`Self::next_piece`].
    pub fn whole(mut self) -> io::Result<u64> {
        let mut bytes = 0;
        while let Some((head, _)) = self.next_record()? {
            bytes += (HEAD_BYTES + head.len) as u64;
        }
        Ok(bytes)
    }

    /// Takes the next whole record; its payload starts at the returned place in the buffer.
    fn next_record(&mut self) -> io::Result<Option<(Head, usize)>> {
        loop {
            let unread = &self.buffer[self.start..];
            if let Some(frame) = Head::decode(unread, self.offset).map_err(damaged)?
                && unread.len() >= HEAD_BYTES + frame.len
            {
                let payload = self.start + HEAD_BYTES;
                self.start = payload + frame.len;
                return Ok(Some((frame, payload)));
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        // Most logs are short: room is made for what there is.
        let more = self.file.metadata()?.len().saturating_sub(self.file_pos).min(READ_BYTES);
        if more == 0 {
            return Ok(0);
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        let kept = self.buffer.len();
        self.buffer.resize(kept + usize::try_from(more).expect("a read is small"), 0);
        let read = loop {
            match self.file.read_at(&mut self.buffer[kept..], self.file_pos) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(kept + *read.as_ref().unwrap_or(&0));
        let read = read?;
        self.file_pos += read as u64;
        Ok(read)
    }
}

fn damaged(error: NotALog) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The chunks of a spool up to its end at the time of reading.
#[derive(Debug)]
pub struct Records(SpoolReader);

impl Iterator for Records {
    type Item = io::Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_piece().transpose()
    }
}
