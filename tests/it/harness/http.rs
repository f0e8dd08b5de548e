//! A small HTTP/1.1 client that sends exactly what a test says, and a reader of event streams.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Longest wait for an answer; the API itself holds one for at most 60 s.
const LIMIT: Duration = Duration::from_secs(90);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The same answer if it has this status, else a failure that shows it.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// A problem with this status and code, whose request id also stands in the header.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Value {
        let problem = self.json();
        assert_eq!((self.status, problem["code"].as_str()), (status, Some(code)), "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("https://hopyard.dev/problems/{code}"));
        assert_eq!(self.header("x-request-id"), problem["request_id"].as_str());
        problem
    }
}

/// Sends a request and reads the whole answer.
///
/// # Errors
/// When nobody listens or the connection ends early.
pub async fn send(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<Answer> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n");
    let named = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    if (!body.is_empty() || method != "GET") && !named("content-length") && !named("transfer-encoding") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    raw(addr, &[head.as_bytes(), body].concat()).await
}

/// Sends bytes as they are and reads the answer to them.
///
/// # Errors
/// As [`send`].
pub async fn raw(addr: SocketAddr, bytes: &[u8]) -> std::io::Result<Answer> {
    let exchange = async {
        let (reader, mut writer) = TcpStream::connect(addr).await?.into_split();
        // A door may answer and close before it has read everything.
        let _ = writer.write_all(bytes).await;
        let mut reader = Body::open(BufReader::new(reader)).await?;
        let mut body = Vec::new();
        while let Some(piece) = reader.piece().await? {
            body.extend(piece);
        }
        Ok(Answer { status: reader.status, headers: reader.headers, body })
    };
    tokio::time::timeout(LIMIT, exchange).await.unwrap_or_else(|_| Err(std::io::Error::other("no answer in time")))
}

/// A connection that is kept for one request after the other.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<tokio::net::tcp::OwnedReadHalf>,
    writer: tokio::net::tcp::OwnedWriteHalf,
    addr: SocketAddr,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn open(addr: SocketAddr) -> std::io::Result<Self> {
        let (reader, writer) = TcpStream::connect(addr).await?.into_split();
        Ok(Self { reader: BufReader::new(reader), writer, addr })
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// When the connection ends before the answer does.
    pub async fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<Answer> {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{lines}\r\n", self.addr, body.len());
        let exchange = async {
            self.writer.write_all(&[head.as_bytes(), body].concat()).await?;
            let mut reader = Body::open(&mut self.reader).await?;
            let mut body = Vec::new();
            while let Some(piece) = reader.piece().await? {
                body.extend(piece);
            }
            Ok(Answer { status: reader.status, headers: reader.headers, body })
        };
        tokio::time::timeout(LIMIT, exchange).await.unwrap_or_else(|_| Err(std::io::Error::other("no answer in time")))
    }
}

/// The body of an answer, piece by piece.
#[derive(Debug)]
struct Body<R> {
    status: u16,
    headers: Vec<(String, String)>,
    reader: R,
    chunked: bool,
    left: Option<usize>,
}

impl<R: AsyncBufRead + Unpin> Body<R> {
    async fn open(mut reader: R) -> std::io::Result<Self> {
        let first = line(&mut reader).await?;
        let status = first
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .ok_or_else(|| std::io::Error::other(format!("no status line: {first:?}")))?;
        let mut headers = Vec::new();
        loop {
            let text = line(&mut reader).await?;
            let Some((name, value)) = text.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let value = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let chunked = value("transfer-encoding") == Some("chunked");
        let left = value("content-length").and_then(|v| v.parse().ok());
        Ok(Self { status, headers, reader, chunked, left })
    }

    async fn piece(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        if !self.chunked {
            let mut bytes = Vec::new();
            match self.left.take() {
                Some(0) => return Ok(None),
                Some(length) => {
                    bytes.resize(length, 0);
                    self.reader.read_exact(&mut bytes).await?;
                    self.left = Some(0);
                }
                None => drop(self.reader.read_to_end(&mut bytes).await?),
            }
            return Ok((!bytes.is_empty()).then_some(bytes));
        }
        let size = line(&mut self.reader).await?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16)
            .map_err(|_| std::io::Error::other("a chunk without its size"))?;
        let mut bytes = vec![0; size + 2];
        self.reader.read_exact(&mut bytes).await?;
        bytes.truncate(size);
        Ok((size > 0).then_some(bytes))
    }
}

async fn line(reader: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    if reader.read_until(b'\n', &mut bytes).await? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// One event of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Its `id:`, if it has one.
    pub id: Option<String>,
    /// Its `event:`.
    pub event: String,
    /// Its `data:`.
    pub data: Value,
}

/// An open event stream.
#[derive(Debug)]
pub struct Frames {
    body: Body<BufReader<tokio::net::tcp::OwnedReadHalf>>,
    text: Vec<u8>,
}

impl Frames {
    /// Opens a stream, after `last` if there is one.
    pub async fn open(addr: SocketAddr, path: &str, last: Option<&str>) -> Self {
        Self::connect(addr, path, last).await.unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// As [`Frames::open`], where it may fail.
    ///
    /// # Errors
    /// When nobody listens, or the answer is none of a stream.
    pub async fn connect(addr: SocketAddr, path: &str, last: Option<&str>) -> std::io::Result<Self> {
        let (reader, mut writer) = TcpStream::connect(addr).await?.into_split();
        let resume = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let head = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nAccept: text/event-stream\r\n{resume}\r\n");
        writer.write_all(head.as_bytes()).await?;
        // The half for writing stays open for as long as the reader does.
        writer.forget();
        let body = Body::open(BufReader::new(reader)).await?;
        if body.status != 200 {
            return Err(std::io::Error::other(format!("status {}", body.status)));
        }
        Ok(Self { body, text: Vec::new() })
    }

    /// The next event; `None` when the stream ends. Comments are passed over.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(end) = self.text.windows(2).position(|w| w == b"\n\n") {
                let block: Vec<u8> = self.text.drain(..end + 2).collect();
                if let Some(frame) = parse(&String::from_utf8(block).expect("streams are UTF-8")) {
                    return Some(frame);
                }
                continue;
            }
            let piece = tokio::time::timeout(LIMIT, self.body.piece()).await.expect("a stream says something every 15 s");
            self.text.extend(piece.ok()??);
        }
    }

    /// All events up to and without `end`.
    pub async fn rest(mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            if frame.event == "end" {
                return frames;
            }
            frames.push(frame);
        }
        panic!("the stream ended without an end; so far {} frames", frames.len());
    }
}

fn parse(block: &str) -> Option<Frame> {
    let value = |name: &str| block.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned));
    let event = value("event")?;
    let data = serde_json::from_str(&value("data")?).expect("data is JSON on one line");
    Some(Frame { id: value("id"), event, data })
}
