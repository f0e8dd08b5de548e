//! A part of a log, put together from pieces that may overlap or repeat.

use hopyard_contract::log::Stream;
use hopyard_contract::log::frame::Piece;

/// Collects the bytes from one position on, up to a number of them.
#[derive(Debug)]
pub(super) struct Window {
    next: u64,
    limit: usize,
    only: Option<Stream>,
    bytes: Vec<u8>,
    untouched: bool,
    lost_until: Option<u64>,
}

impl Window {
    /// Bytes at and after `from`, at most `limit`, of one stream or of all.
    pub(super) fn new(from: u64, limit: usize, only: Option<Stream>) -> Self {
        Self { next: from, limit, only, bytes: Vec::new(), untouched: true, lost_until: None }
    }

    /// Takes a piece; false if no more are needed.
    pub(super) fn take(&mut self, piece: Piece) -> bool {
        let Some(piece) = piece.starting_at(self.next) else { return true };
        if piece.offset > self.next {
            // Bytes after a hole would pass for the bytes that follow; only at the very start can it be told apart.
            if !self.untouched {
                return false;
            }
            self.next = piece.offset;
            self.lost_until = Some(piece.offset);
        }
        self.untouched = false;
        if self.only.is_some_and(|only| only != piece.stream) {
            self.next = piece.end();
            return true;
        }
        let free = self.limit - self.bytes.len();
        if free == 0 {
            return false;
        }
        let taken = piece.bytes.len().min(free);
        self.bytes.extend_from_slice(&piece.bytes[..taken]);
        self.next = piece.offset + taken as u64;
        taken == piece.bytes.len()
    }

    /// Position after the last byte that was looked at.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Position of the first byte, if those before it could not be had.
    pub(super) fn lost_until(&self) -> Option<u64> {
        self.lost_until
    }

    /// The bytes.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Stream::{Stderr, Stdout};

    fn piece(offset: u64, stream: Stream, text: &str) -> Piece {
        Piece { offset, stream, at: chrono::DateTime::UNIX_EPOCH, bytes: text.as_bytes().to_vec() }
    }

    fn log() -> Vec<Piece> {
        vec![piece(0, Stdout, "one\n"), piece(4, Stderr, "two\n"), piece(8, Stdout, "three\n")]
    }

    fn read(mut window: Window, pieces: Vec<Piece>) -> (String, u64, bool) {
        let all = pieces.into_iter().all(|p| window.take(p));
        let next = window.next();
        (String::from_utf8(window.into_bytes()).unwrap(), next, all)
    }

    #[test]
    fn every_part_of_a_log_can_be_cut_out() {
        let whole = "one\ntwo\nthree\n";
        for from in 0..=whole.len() {
            for limit in 1..=whole.len() + 1 {
                let to = whole.len().min(from + limit);
                let (text, next, _) = read(Window::new(from as u64, limit, None), log());
                assert_eq!((text.as_str(), next), (&whole[from..to], to as u64), "{from} {limit}");
            }
        }
        assert_eq!(read(Window::new(99, 10, None), log()), (String::new(), 99, true));
    }

    #[test]
    fn the_end_is_reached_only_with_the_last_byte() {
        assert!(read(Window::new(0, 14, None), log()).2);
        assert!(!read(Window::new(0, 13, None), log()).2);
    }

    #[test]
    fn a_stream_keeps_the_offsets_of_the_whole() {
        assert_eq!(read(Window::new(0, 100, Some(Stderr)), log()), ("two\n".to_owned(), 14, true));
        assert_eq!(read(Window::new(0, 5, Some(Stdout)), log()), ("one\nt".to_owned(), 9, false));
        assert_eq!(read(Window::new(9, 100, Some(Stdout)), log()), ("hree\n".to_owned(), 14, true));
    }

    #[test]
    fn repeats_and_overlaps_count_once() {
        let pieces =
            vec![piece(0, Stdout, "abc"), piece(0, Stdout, "abc"), piece(1, Stdout, "bcde"), piece(2, Stdout, "cd"), piece(5, Stdout, "f")];
        assert_eq!(read(Window::new(0, 100, None), pieces), ("abcdef".to_owned(), 6, true));
    }

    #[test]
    fn nothing_is_joined_over_a_hole() {
        let pieces = vec![piece(0, Stdout, "abc"), piece(9, Stdout, "z")];
        assert_eq!(read(Window::new(0, 100, None), pieces), ("abc".to_owned(), 3, false));
        let mut window = Window::new(2, 100, None);
        assert!(window.take(piece(9, Stdout, "z")));
        assert_eq!((window.lost_until(), window.next()), (Some(9), 10));
    }
}
