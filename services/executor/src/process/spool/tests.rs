//! The spool: order, limits, offsets, damage.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use hopyard_contract::log::Stream;
use hopyard_contract::log::frame::{Head, MAX_PAYLOAD, Piece};

use super::*;
use hopyard_runtime::clock::BootInstant;

struct Spool {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn spool() -> Spool {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.spool");
    Spool { _dir: dir, path }
}

fn bytes_of(path: &std::path::Path, stream: Stream) -> Vec<u8> {
    let chunks = SpoolReader::open(path).unwrap().records().map(Result::unwrap);
    chunks.filter(|chunk| chunk.stream == stream).flat_map(|chunk| chunk.bytes).collect()
}

#[test]
fn records_keep_arrival_order_and_any_offset_can_be_read() {
    let spool = spool();
    let mut writer = SpoolWriter::open(&spool.path, 1 << 20).unwrap();
    let now = BootInstant::now();
    for (stream, text) in [(Stream::Stdout, "ab"), (Stream::Stdout, "c"), (Stream::Stderr, "de"), (Stream::Stdout, "f")] {
        writer.push(stream, text.as_bytes(), now);
    }
    assert_eq!(writer.written(), 0);
    assert!(writer.flush_at().is_some());
    writer.flush();
    assert_eq!((writer.written(), writer.flush_at()), (6, None));
    let read = |from| {
        let chunks = SpoolReader::open_at(&spool.path, from).unwrap().records().map(Result::unwrap);
        chunks.map(|chunk| (chunk.offset, chunk.stream, String::from_utf8(chunk.bytes).unwrap())).collect::<Vec<_>>()
    };
    let whole = [(0, Stream::Stdout, "abc".to_owned()), (3, Stream::Stderr, "de".to_owned()), (5, Stream::Stdout, "f".to_owned())];
    assert_eq!(read(0), whole);
    assert_eq!(read(3), whole[1..]);
    assert_eq!(read(4), [(4, Stream::Stderr, "e".to_owned()), whole[2].clone()]);
    assert_eq!(read(6), []);
    assert_eq!(writer.finish(), Totals { bytes: 6, dropped: 0, error: None });
}

#[test]
fn a_reader_goes_on_where_the_file_grows_and_waits_for_whole_records() {
    let spool = spool();
    let now = BootInstant::now();
    let mut writer = SpoolWriter::open(&spool.path, 1 << 20).unwrap();
    let mut reader = SpoolReader::open(&spool.path).unwrap();
    assert_eq!(reader.next_piece().unwrap(), None);
    writer.push(Stream::Stdout, b"one", now);
    writer.flush();
    assert_eq!(reader.next_piece().unwrap().unwrap().bytes, b"one");
    // A record whose end is still missing, byte by byte.
    let torn = [&Head { stream: Stream::Stderr, micros: 1_000_000, len: 3 }.encode()[..], b"two"].concat();
    let mut file = OpenOptions::new().append(true).open(&spool.path).unwrap();
    for byte in &torn[..torn.len() - 1] {
        file.write_all(&[*byte]).unwrap();
        assert_eq!(reader.next_piece().unwrap(), None);
    }
    let torn_at = std::fs::metadata(&spool.path).unwrap().len() - (torn.len() - 1) as u64;
    assert_eq!(SpoolReader::open(&spool.path).unwrap().whole().unwrap(), torn_at);
    file.write_all(&torn[torn.len() - 1..]).unwrap();
    let chunk = reader.next_piece().unwrap().unwrap();
    assert_eq!((chunk.offset, chunk.stream, chunk.bytes.as_slice(), chunk.at.timestamp()), (3, Stream::Stderr, &b"two"[..], 1));
    assert_eq!(reader.offset(), 6);
}

#[test]
fn large_writes_are_split_and_merged_again() {
    let spool = spool();
    let mut writer = SpoolWriter::open(&spool.path, 10 << 20).unwrap();
    let data: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 7) as u8).collect();
    writer.push(Stream::Stdout, &data, BootInstant::now());
    assert_eq!(writer.finish().bytes, data.len() as u64);
    assert!(SpoolReader::open(&spool.path).unwrap().records().all(|chunk| chunk.unwrap().bytes.len() <= MAX_PAYLOAD));
    let pieces: Vec<_> = SpoolReader::open(&spool.path).unwrap().records().map(Result::unwrap).collect();
    assert!(pieces.iter().flat_map(|piece| &piece.bytes).eq(&data));
    assert_eq!(pieces.last().map(Piece::end), Some(data.len() as u64));
    assert_eq!(SpoolReader::open(&spool.path).unwrap().end().unwrap(), data.len() as u64);
}

#[test]
fn a_log_that_is_a_little_too_long_is_kept_whole() {
    let spool = spool();
    let mut writer = SpoolWriter::open(&spool.path, 1000).unwrap();
    let data = vec![b'x'; 1000 + TAIL_BYTES];
    writer.push(Stream::Stderr, &data, BootInstant::now());
    assert_eq!(writer.finish(), Totals { bytes: data.len() as u64, dropped: 0, error: None });
    assert!(bytes_of(&spool.path, Stream::Stderr) == data);
    assert!(bytes_of(&spool.path, Stream::System).is_empty());
}

#[test]
fn a_log_that_is_much_too_long_keeps_head_and_tail_and_says_what_is_missing() {
    let spool = spool();
    let cap = 100_001;
    let mut writer = SpoolWriter::open(&spool.path, cap).unwrap();
    let data: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    for piece in data.chunks(7_777) {
        writer.push(Stream::Stdout, piece, BootInstant::now());
    }
    let totals = writer.finish();
    let dropped = data.len() - cap as usize - TAIL_BYTES;
    assert_eq!((totals.dropped, totals.error), (dropped as u64, None));
    let expected = [&data[..cap as usize], &data[data.len() - TAIL_BYTES..]].concat();
    assert!(bytes_of(&spool.path, Stream::Stdout) == expected);
    let system = String::from_utf8(bytes_of(&spool.path, Stream::System)).unwrap();
    assert!(system.contains("log limit of 100001 bytes reached"), "{system}");
    assert!(system.contains(&format!("{dropped} bytes of output were dropped here")), "{system}");
    assert_eq!(totals.bytes as usize, expected.len() + system.len());
}

#[test]
fn a_full_disk_ends_the_log_and_counts_the_rest() {
    // Every write to this device fails with "no space left".
    let mut writer = SpoolWriter::open("/dev/full".as_ref(), 1 << 20).unwrap();
    writer.push(Stream::Stdout, b"lost", BootInstant::now());
    writer.flush();
    writer.push(Stream::Stdout, b"lost too", BootInstant::now());
    let totals = writer.finish();
    assert_eq!((totals.bytes, totals.dropped), (0, 12));
    assert!(totals.error.unwrap().starts_with("cannot write the spool: "));
}

#[test]
fn a_file_that_is_no_spool_is_refused() {
    let spool = spool();
    std::fs::write(&spool.path, "this is plain text, not frames").unwrap();
    let error = SpoolReader::open(&spool.path).unwrap().next_piece().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
}
