//! Follows the heads of requests through the bytes of a connection: where each ends, and whether its body has one length.

use std::collections::VecDeque;

/// A head beyond this is refused by the library, so nothing behind it is looked at.
const MAX_HEAD: usize = 64 * 1024;

/// The heads of one connection so far.
#[derive(Debug)]
pub struct Heads {
    place: Place,
    /// Heads that have ended and that the service has not had: whether their bodies have two lengths.
    waiting: VecDeque<bool>,
}

/// Where in a message the last byte was.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// In a head, with its bytes so far.
    Head(Vec<u8>),
    /// In a body, with so many bytes to come.
    Body(u64),
    /// In a head too large to keep.
    Beyond,
    /// Behind a body without a length: the connection ends with its answer.
    Lost,
}

impl Default for Heads {
    fn default() -> Self {
        Self { place: Place::Head(Vec::new()), waiting: VecDeque::new() }
    }
}

impl Heads {
    /// Takes the next bytes.
    pub fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.place {
                Place::Beyond | Place::Lost => return,
                Place::Body(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= taken as u64;
                    bytes = &bytes[taken..];
                    if *left == 0 {
                        self.place = Place::Head(Vec::new());
                    }
                }
                Place::Head(head) => {
                    let taken = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1);
                    head.extend_from_slice(&bytes[..taken]);
                    bytes = &bytes[taken..];
                    // Empty lines before a request are allowed.
                    if matches!(head.as_slice(), b"\r\n" | b"\n") {
                        head.clear();
                    } else if head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n") {
                        let (unclear, place) = length(head);
                        self.waiting.push_back(unclear);
                        self.place = place;
                    } else if head.len() > MAX_HEAD {
                        self.place = Place::Beyond;
                    }
                }
            }
        }
    }

    /// The next request goes to the service: whether the length of its body is not clear. `None` if no head has ended.
    pub fn take(&mut self) -> Option<bool> {
        self.waiting.pop_front()
    }

    /// Whether a head has begun and not ended.
    pub fn has_begun(&self) -> bool {
        match &self.place {
            Place::Head(head) => !head.is_empty(),
            place => *place == Place::Beyond,
        }
    }

    /// Whether something has come that no service answers.
    pub fn unanswered(&self) -> bool {
        self.has_begun() || !self.waiting.is_empty()
    }
}

/// Whether a head names two lengths, and what follows it.
fn length(head: &[u8]) -> (bool, Place) {
    let text = String::from_utf8_lossy(head);
    let headers = || text.lines().skip(1).filter_map(|line| line.split_once(':'));
    let named = |name: &'static str| headers().filter(move |(n, _)| n.eq_ignore_ascii_case(name));
    let chunked = named("transfer-encoding").next().is_some();
    let place = match named("content-length").next() {
        _ if chunked => Place::Lost,
        None => Place::Head(Vec::new()),
        Some((_, length)) => match length.trim().parse() {
            Ok(0) => Place::Head(Vec::new()),
            Ok(length) => Place::Body(length),
            Err(_) => Place::Lost,
        },
    };
    (chunked && named("content-length").next().is_some(), place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All answers of [`Heads::take`] after these bytes, in pieces of every size.
    fn told(bytes: &[u8]) -> Vec<bool> {
        let mut answers = Vec::new();
        for size in 1..=bytes.len() {
            let mut heads = Heads::default();
            bytes.chunks(size).for_each(|piece| heads.read(piece));
            let told: Vec<bool> = std::iter::from_fn(|| heads.take()).collect();
            assert!(size == 1 || told == answers, "pieces of {size}");
            answers = told;
        }
        answers
    }

    #[test]
    fn a_body_with_two_lengths_is_found_wherever_it_stands() {
        let plain = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        let body = "POST / HTTP/1.1\r\nContent-Length: 40\r\n\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n1234";
        let both = "POST / HTTP/1.1\r\ncontent-LENGTH: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        assert_eq!(told(plain.as_bytes()), [false]);
        assert_eq!(told(both.as_bytes()), [true]);
        assert_eq!(told(chunked.as_bytes()), [false]);
        assert_eq!(told(format!("\r\n{plain}{body}{plain}{both}").as_bytes()), [false, false, false, true]);
        assert_eq!(told(b"GET / HTTP/1.1\nHost: h\n\n"), [false]);
    }

    #[test]
    fn a_head_that_has_begun_is_known() {
        let mut heads = Heads::default();
        assert!(!heads.has_begun() && !heads.unanswered());
        heads.read(b"\r\nGET / HT");
        assert!(heads.has_begun() && heads.unanswered());
        heads.read(b"TP/1.1\r\n\r\n");
        assert!(!heads.has_begun() && heads.unanswered());
        assert_eq!((heads.take(), heads.take()), (Some(false), None));
        assert!(!heads.unanswered());
        heads.read(&vec![b'x'; MAX_HEAD + 1]);
        heads.read(b"\r\n\r\n");
        assert!(heads.has_begun() && heads.take().is_none());
    }
}
