//! Writes the spool: collects small reads, keeps head and tail of a log that is too long, and never stops the drain.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use chrono::Utc;

use hopyard_contract::log::Stream;
use hopyard_contract::log::frame::{HEAD_BYTES, Head, MAX_PAYLOAD};
use hopyard_runtime::clock::BootInstant;

/// How much of the end of a log beyond its limit is kept, in bytes.
pub const TAIL_BYTES: usize = 1 << 20;
/// Shortest time from one write to the next, unless there is much: bytes that come after a silence are written at once, and
/// those of a step that talks wait for company.
const COLLECT: Duration = Duration::from_millis(10);
/// Encoded bytes that are written without waiting longer.
const BATCH: usize = 256 * 1024;

/// What became of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of the merged log.
    pub bytes: u64,
    /// Bytes that were drained and not kept.
    pub dropped: u64,
    /// Why the file could not be written on, if so.
    pub error: Option<String>,
}

/// The one writer of a spool file.
#[derive(Debug)]
pub struct SpoolWriter {
    file: File,
    /// Good bytes in the file, frames included.
    file_len: u64,
    /// Payload bytes in the file.
    written: u64,
    /// Payload bytes of the streams that may still go to the head.
    head_left: u64,
    cap: u64,
    /// Bytes of one stream that are still being collected.
    current: Record,
    /// Encoded records that wait for the next write, and when the oldest came.
    batch: Vec<u8>,
    waiting_since: Option<BootInstant>,
    /// The last write that was due.
    flushed: BootInstant,
    tail: VecDeque<Record>,
    tail_bytes: usize,
    dropped: u64,
    error: Option<String>,
}

#[derive(Debug)]
struct Record {
    stream: Stream,
    micros: i64,
    bytes: Vec<u8>,
}

impl SpoolWriter {
    /// Opens the spool; `cap` is the number of output bytes kept from the start.
    ///
    /// # Errors
    /// When the file cannot be opened for appending.
    pub fn open(path: &Path, cap: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let file_len = file.metadata()?.len();
        Ok(Self {
            file,
            file_len,
            written: 0,
            head_left: cap,
            cap,
            current: Record { stream: Stream::Stdout, micros: 0, bytes: Vec::with_capacity(MAX_PAYLOAD) },
            batch: Vec::with_capacity(BATCH + MAX_PAYLOAD),
            waiting_since: None,
            flushed: BootInstant::now().before(COLLECT),
            tail: VecDeque::new(),
            tail_bytes: 0,
            dropped: 0,
            error: None,
        })
    }

    /// Takes bytes in the order of their arrival.
    pub fn push(&mut self, stream: Stream, mut bytes: &[u8], now: BootInstant) {
        self.waiting_since.get_or_insert(now);
        while !bytes.is_empty() {
            if self.current.stream != stream || self.current.bytes.len() == MAX_PAYLOAD {
                self.seal();
            }
            if self.current.bytes.is_empty() {
                self.current.stream = stream;
                self.current.micros = Utc::now().timestamp_micros();
            }
            let (taken, rest) = bytes.split_at(bytes.len().min(MAX_PAYLOAD - self.current.bytes.len()));
            self.current.bytes.extend_from_slice(taken);
            bytes = rest;
        }
        if self.batch.len() >= BATCH {
            self.write_batch();
        }
    }

    /// Adds a line by Hopyard.
    pub fn say(&mut self, text: &str, now: BootInstant) {
        self.push(Stream::System, format!("hopyard: {text}\n").as_bytes(), now);
        self.flush();
    }

    /// When collected bytes are due to be written.
    pub fn flush_at(&self) -> Option<BootInstant> {
        self.waiting_since.map(|since| since.max(self.flushed.after(COLLECT)))
    }

    /// Writes everything collected so far.
    pub fn flush(&mut self) {
        self.seal();
        self.write_batch();
        self.flushed = BootInstant::now();
    }

    /// Payload bytes in the file.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes the kept end of a log that was too long, and closes the spool.
    pub fn finish(mut self) -> Totals {
        self.seal();
        if self.dropped > 0 && self.error.is_none() {
            self.mark(&format!("{} bytes of output were dropped here", self.dropped));
        }
        for record in std::mem::take(&mut self.tail) {
            self.encode(record.stream, record.micros, &record.bytes);
        }
        self.write_batch();
        Totals { bytes: self.written, dropped: self.dropped, error: self.error }
    }

    /// Ends the record being collected and decides where it goes.
    fn seal(&mut self) {
        let mut bytes = std::mem::take(&mut self.current.bytes);
        if bytes.is_empty() {
            self.current.bytes = bytes;
            return;
        }
        let (stream, micros) = (self.current.stream, self.current.micros);
        let head = bytes.len().min(usize::try_from(self.head_left).unwrap_or(usize::MAX));
        if self.error.is_some() {
            self.dropped += bytes.len() as u64;
        } else if stream == Stream::System && self.tail.is_empty() {
            self.encode(stream, micros, &bytes);
        } else {
            self.encode(stream, micros, &bytes[..head]);
            self.head_left -= head as u64;
            self.keep_in_tail(Record { stream, micros, bytes: bytes[head..].to_vec() });
        }
        // The buffer is kept: a step may write gigabytes through it.
        bytes.clear();
        self.current.bytes = bytes;
    }

    fn keep_in_tail(&mut self, record: Record) {
        if record.bytes.is_empty() {
            return;
        }
        self.tail_bytes += record.bytes.len();
        self.tail.push_back(record);
        while self.tail_bytes > TAIL_BYTES {
            let surplus = self.tail_bytes - TAIL_BYTES;
            let Some(oldest) = self.tail.front_mut() else { break };
            let cut = surplus.min(oldest.bytes.len());
            if cut == oldest.bytes.len() {
                self.tail.pop_front();
            } else {
                oldest.bytes.drain(..cut);
            }
            self.tail_bytes -= cut;
            if self.dropped == 0 {
                // Said when it happens, so that who follows the log knows why it stands still.
                self.mark(&format!("log limit of {} bytes reached, of what follows only the last {TAIL_BYTES} bytes are kept", self.cap));
            }
            self.dropped += cut as u64;
        }
    }

    fn mark(&mut self, text: &str) {
        self.encode(Stream::System, Utc::now().timestamp_micros(), format!("hopyard: {text}\n").as_bytes());
    }

    fn encode(&mut self, stream: Stream, micros: i64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.batch.extend_from_slice(&Head { stream, micros, len: bytes.len() }.encode());
        self.batch.extend_from_slice(bytes);
    }

    /// Writes the batch. After an error the file ends with its last whole record and everything later is counted as
    /// dropped: a full disk must not stop the step by a full pipe.
    fn write_batch(&mut self) {
        let mut done = 0;
        while done < self.batch.len() && self.error.is_none() {
            match self.file.write(&self.batch[done..]) {
                Ok(0) => self.error = Some("the spool takes no more bytes".to_owned()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.error = Some(format!("cannot write the spool: {error}")),
            }
        }
        let mut whole = 0;
        while let Ok(Some(frame)) = Head::decode(&self.batch[whole..], 0) {
            let next = whole + HEAD_BYTES + frame.len;
            if next > done {
                self.dropped += frame.len as u64;
            } else {
                self.written += frame.len as u64;
                self.file_len += (HEAD_BYTES + frame.len) as u64;
            }
            whole = next;
        }
        if self.error.is_some() && done > 0 {
            // If even this fails, the reader stops at the torn record all the same.
            self.file.set_len(self.file_len).unwrap_or_default();
        }
        self.batch.clear();
        self.waiting_since = None;
    }
}
