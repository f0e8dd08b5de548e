//! The bytes of a connection between socket and HTTP library: what the library refuses by itself gets the form of every refusal.
//!
//! The library answers a head that it cannot read with a bare status, closes in silence on one that never ends, and passes over a
//! `Content-Length` beside a `Transfer-Encoding`, which two readers of the same bytes may understand differently.

use std::io::{Error, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use hopyard_contract::Problem;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::instruments;
use heads::Heads;

pub mod heads;

/// Most bytes that are read at once.
const PIECE: usize = 16 * 1024;

/// What is known of the heads of a connection; shared by its socket and its service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(Arc<Mutex<Heads>>);

impl Seen {
    fn look<T>(&self, at: impl FnOnce(&mut Heads) -> T) -> T {
        at(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The library hands the next request on: whether the length of its body is not clear.
    pub(crate) fn next_is_unclear(&self) -> bool {
        self.look(Heads::take).unwrap_or(false)
    }
}

/// Mark of a request whose body has two lengths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unclear;

/// A socket that watches heads as they come, and holds back what the library answers by itself.
#[derive(Debug)]
pub(crate) struct Wire {
    io: TokioIo<TcpStream>,
    seen: Seen,
    held_back: Option<u16>,
}

impl Wire {
    /// Watches a socket.
    pub(crate) fn new(stream: TcpStream, seen: Seen) -> Self {
        Self { io: TokioIo::new(stream), seen, held_back: None }
    }

    /// The connection ended with an error: says why, if the client waits for an answer, and closes.
    pub(crate) async fn refuse(self, error: &hyper::Error) {
        let status = match self.held_back {
            Some(status) => status,
            None if error.is_timeout() && self.seen.look(|heads| heads.has_begun()) => 408,
            None if error.is_parse() && self.seen.look(|heads| heads.unanswered()) => 400,
            None => return,
        };
        let (code, detail) = match status {
            408 => ("request_timeout", "the head of the request did not arrive within 10 s"),
            414 => ("url_too_long", "path and query have at most 8 KiB"),
            431 => ("header_too_large", "a request has at most 100 headers and 64 KiB of them"),
            _ => ("bad_request", "the request is not HTTP/1.1, or the length of its body is not clear"),
        };
        instruments::requests().with_label_values(&["other", "unknown", &status.to_string()]).inc();
        let mut stream = self.io.into_inner();
        let answer = answer(status, code, detail);
        // Whoever sends such things may be gone.
        if stream.write_all(answer.as_bytes()).await.is_ok() {
            stream.shutdown().await.ok();
            drain(&mut stream).await;
        }
    }

    /// The status of an answer that the library has made up: every answer of our own carries the id of its request.
    fn own_words(&self, bytes: &[u8]) -> Option<u16> {
        let text = std::str::from_utf8(&bytes[..bytes.len().min(256)]).ok()?;
        let status = text.strip_prefix("HTTP/1.1 4")?.get(..2)?.parse::<u16>().ok()? + 400;
        let ours = text.contains("x-request-id:") || !text.contains("content-length: 0\r\n");
        (!ours && self.seen.look(|heads| heads.unanswered())).then_some(status)
    }
}

fn answer(status: u16, code: &str, detail: &str) -> String {
    let id = Uuid::now_v7();
    let problem = Problem { request_id: id.to_string(), ..Problem::new(status, code, detail) };
    let body = serde_json::to_string(&problem).expect("a problem has string keys and no failing serializers");
    format!(
        "HTTP/1.1 {status} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nx-request-id: {id}\r\nconnection: close\r\n\r\n{body}",
        problem.title,
        body.len()
    )
}

/// A socket that is closed with bytes unread is reset, and the client may lose the answer: reads a little of what still comes.
async fn drain(stream: &mut TcpStream) {
    let mut sink = vec![0; PIECE];
    let reading = async {
        for _ in 0..128 {
            match tokio::io::AsyncReadExt::read(stream, &mut sink).await {
                Ok(1..) => {}
                _ => return,
            }
        }
    };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), reading).await;
}

impl Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut out: ReadBufCursor<'_>) -> Poll<Result<(), Error>> {
        let mut piece = [0; PIECE];
        let mut buffer = ReadBuf::new(&mut piece[..PIECE.min(out.remaining())]);
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer.unfilled()))?;
        let bytes = buffer.filled();
        self.seen.look(|heads| heads.read(bytes));
        out.put_slice(bytes);
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Error>> {
        if let Some(status) = self.own_words(bytes) {
            self.held_back = Some(status);
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<Result<usize, Error>> {
        if let Some(first) = slices.iter().find(|slice| !slice.is_empty())
            && let Some(status) = self.own_words(first)
        {
            self.held_back = Some(status);
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self.held_back {
            // The answer is still to come.
            Some(_) => Poll::Ready(Ok(())),
            None => Pin::new(&mut self.io).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_socket_has_the_form_of_every_problem() {
        let text = answer(431, "header_too_large", "too many");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let problem: Problem = serde_json::from_str(body).unwrap();
        assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())) && head.contains(&problem.request_id), "{head}");
        assert_eq!((problem.status, problem.code.as_str()), (431, "header_too_large"));
    }
}
