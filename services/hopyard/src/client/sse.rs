//! Server-sent events: the parser, and a subscription that resumes where it was cut off.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Result;
use reqwest::Response;
use tokio::time::{Instant, sleep, timeout};

use super::Api;
use crate::exit::Failure;

/// The server sends a comment every 15 s; a connection that is silent for three times as long is dead.
const SILENCE: Duration = Duration::from_secs(45);
/// How long a server may be away before following it is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// One event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Position to resume from, if the stream has sent one so far.
    pub id: Option<String>,
    /// Type; `message` if the server names none.
    pub event: String,
    /// Data, lines joined by `\n`.
    pub data: String,
}

/// Turns bytes into frames, whatever the cuts between the pieces.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    after_cr: bool,
    started: bool,
    id: Option<String>,
    event: String,
    data: Option<String>,
}

impl Parser {
    /// Takes a piece and returns the frames that it completes.
    pub fn feed(&mut self, piece: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        for &byte in piece {
            // `\r\n` is one end of line, and may be cut in two.
            let second_half = std::mem::take(&mut self.after_cr) && byte == b'\n';
            match byte {
                _ if second_half => {}
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    frames.extend(self.on_line(&String::from_utf8_lossy(&line)));
                }
                _ => self.line.push(byte),
            }
        }
        frames
    }

    fn on_line(&mut self, line: &str) -> Option<Frame> {
        let line = if std::mem::replace(&mut self.started, true) { line } else { line.trim_start_matches('\u{feff}') };
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            // Without data there is no event, but its id counts.
            let data = self.data.take()?;
            let event = if event.is_empty() { "message".to_owned() } else { event };
            return Some(Frame { id: self.id.clone(), event, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "event" => self.event = value.to_owned(),
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            // Comments have an empty field name; `retry` is ours to choose.
            _ => {}
        }
        None
    }
}

/// What a subscription has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// An event.
    Frame(Frame),
    /// The server closed the stream without an `end`; the next call connects again.
    Closed,
}

/// A stream of events that survives lost connections and restarts of the server.
#[derive(Debug)]
pub struct Subscription {
    api: Api,
    path: String,
    last_id: Option<String>,
    open: Option<(Response, Parser)>,
    ready: VecDeque<Frame>,
    failures: u32,
    away_since: Option<Instant>,
}

impl Subscription {
    /// A subscription to a path of the API, from its beginning; nothing is sent yet.
    pub fn new(api: Api, path: String) -> Self {
        Self { api, path, last_id: None, open: None, ready: VecDeque::new(), failures: 0, away_since: None }
    }

    /// The next event; waits for it, however often the connection is lost meanwhile.
    ///
    /// # Errors
    /// [`Failure::Refused`] when the server refuses the stream, [`Failure::Unreachable`] when it stays away for a minute.
    pub async fn next(&mut self) -> Result<Signal> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                self.last_id.clone_from(&frame.id);
                return Ok(Signal::Frame(frame));
            }
            let Some((response, parser)) = &mut self.open else {
                self.connect().await?;
                continue;
            };
            match timeout(SILENCE, response.chunk()).await {
                Ok(Ok(Some(piece))) => {
                    let frames = parser.feed(&piece);
                    if !frames.is_empty() {
                        self.failures = 0;
                    }
                    self.ready.extend(frames);
                }
                Ok(Ok(None)) => {
                    self.open = None;
                    self.failures += 1;
                    return Ok(Signal::Closed);
                }
                Ok(Err(_)) | Err(_) => {
                    self.open = None;
                    self.failures += 1;
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<()> {
        if self.failures > 0 {
            sleep(Duration::from_millis(100u64 << self.failures.min(5))).await;
        }
        match self.api.stream(&self.path, self.last_id.as_deref()).await {
            Ok(response) => {
                self.open = Some((response, Parser { id: self.last_id.clone(), ..Parser::default() }));
                self.away_since = None;
                Ok(())
            }
            Err(error) => {
                let away = match error.downcast_ref::<Failure>() {
                    Some(Failure::Unreachable { .. }) => true,
                    Some(Failure::Refused(problem)) => problem.status == 429 || problem.status >= 500,
                    _ => false,
                };
                let since = *self.away_since.get_or_insert_with(Instant::now);
                if !away || since.elapsed() > PATIENCE {
                    return Err(error);
                }
                self.failures += 1;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    fn frame(id: Option<&str>, event: &str, data: &str) -> Frame {
        Frame { id: id.map(str::to_owned), event: event.into(), data: data.into() }
    }

    const STREAM: &str = "\u{feff}: hello\nid: 1\nevent: run.accepted\ndata: {\"a\":1}\n\n:\n\rdata:two\r\ndata: lines\r\n\r\nid\nevent: x\n\nevent: end\ndata\n\nid: 9\ndata: cut";

    #[test]
    fn frames_do_not_depend_on_the_cuts() {
        let wanted = [frame(Some("1"), "run.accepted", "{\"a\":1}"), frame(Some("1"), "message", "two\nlines"), frame(Some(""), "end", "")];
        for size in [1, 2, 3, 7, STREAM.len()] {
            let mut parser = Parser::default();
            let frames: Vec<_> = STREAM.as_bytes().chunks(size).flat_map(|piece| parser.feed(piece)).collect();
            assert_eq!(frames, wanted, "pieces of {size}");
        }
    }

    /// Serves each connection one prepared body and returns the `last-event-id` that each asked with.
    async fn serve(listener: TcpListener, bodies: &[&str]) -> Vec<Option<String>> {
        let mut asked = Vec::new();
        for body in bodies {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut id = None;
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                if let Some(value) = line.strip_prefix("last-event-id:") {
                    id = Some(value.trim().to_owned());
                }
                if line == "\r\n" {
                    break;
                }
            }
            asked.push(id);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
        asked
    }

    #[tokio::test]
    async fn a_lost_stream_resumes_after_the_last_whole_event() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut subscription = Subscription::new(Api::new(&url, None, None).unwrap(), "/runs/x/events".into());
        let read = async {
            let mut seen = Vec::new();
            loop {
                let signal = subscription.next().await.unwrap();
                let last = matches!(&signal, Signal::Frame(frame) if frame.event == "end");
                seen.push(signal);
                if last {
                    return seen;
                }
            }
        };
        let bodies = ["id: 1\ndata: a\n\nid: 2\ndata: b", "id: 2\ndata: b\n\nevent: end\ndata: {}\n\n"];
        let (seen, asked) = tokio::join!(read, serve(listener, &bodies));
        assert_eq!(asked, [None, Some("1".to_owned())]);
        let wanted = [
            Signal::Frame(frame(Some("1"), "message", "a")),
            Signal::Closed,
            Signal::Frame(frame(Some("2"), "message", "b")),
            Signal::Frame(frame(Some("2"), "end", "{}")),
        ];
        assert_eq!(seen, wanted);
    }
}
