//! A plain NATS client on a TCP connection, as somebody without any library of ours would write it.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Longest wait for a message.
const LIMIT: Duration = Duration::from_secs(30);
/// A message that waits is delivered again after 30 s at the latest; what no reader is given for twice as long is none.
pub const SILENCE: TimeDelta = TimeDelta::seconds(65);

/// A message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Subject.
    pub subject: String,
    /// Raw headers; empty when there are none.
    pub headers: String,
    /// Payload.
    pub body: Vec<u8>,
}

impl Message {
    /// The payload as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{}: {e}: {}", self.subject, String::from_utf8_lossy(&self.body)))
    }
}

/// One connection.
#[derive(Debug)]
pub struct Bus {
    stream: BufReader<TcpStream>,
    waiting: VecDeque<Message>,
    subscriptions: u32,
}

impl Bus {
    /// Connects.
    pub async fn connect(addr: SocketAddr) -> Self {
        Self::open(addr).await.expect("nats-server listens")
    }

    /// As [`Bus::connect`], where it may fail.
    ///
    /// # Errors
    /// When nobody listens, or it is no nats-server.
    pub async fn open(addr: SocketAddr) -> Result<Self> {
        let mut stream = BufReader::new(TcpStream::connect(addr).await?);
        let mut info = String::new();
        stream.read_line(&mut info).await?;
        if !info.starts_with("INFO ") {
            return Err(Error::other(format!("no greeting of a nats-server: {info}")));
        }
        let mut bus = Self { stream, waiting: VecDeque::new(), subscriptions: 0 };
        bus.write(b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\n").await?;
        bus.seen().await?;
        Ok(bus)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.get_mut().write_all(bytes).await
    }

    /// Returns when the server has seen everything so far.
    async fn seen(&mut self) -> Result<()> {
        self.write(b"PING\r\n").await?;
        while self.step().await? != "PONG" {}
        Ok(())
    }

    /// Subscribes; returns when messages from now on arrive.
    pub async fn subscribe(&mut self, subject: &str) {
        self.listen(subject).await.expect("nats-server answers");
    }

    async fn listen(&mut self, subject: &str) -> Result<()> {
        self.subscriptions += 1;
        let line = format!("SUB {subject} {}\r\n", self.subscriptions);
        self.write(line.as_bytes()).await?;
        self.seen().await
    }

    async fn publish_to(&mut self, subject: &str, reply: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<()> {
        let mut bytes = if headers.is_empty() {
            format!("PUB {subject} {reply} {}\r\n", body.len()).into_bytes()
        } else {
            let lines: String = headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
            let block = format!("NATS/1.0\r\n{lines}\r\n");
            let head = format!("HPUB {subject} {reply} {} {}\r\n", block.len(), block.len() + body.len());
            [head.as_bytes(), block.as_bytes()].concat()
        };
        bytes.extend(body);
        bytes.extend(b"\r\n");
        self.write(&bytes).await
    }

    /// Publishes without asking for an answer; returns when the server has it.
    pub async fn publish(&mut self, subject: &str, body: &[u8]) {
        self.publish_to(subject, "", &[], body).await.expect("nats-server takes it");
        self.seen().await.expect("nats-server answers");
    }

    /// Sends a request and waits for its answer; with no one listening, the answer is empty and its headers say so.
    pub async fn request(&mut self, subject: &str, headers: &[(&str, &str)], body: &[u8]) -> Message {
        let answer = tokio::time::timeout(LIMIT, self.ask(subject, headers, body)).await.expect("an answer within 30 s");
        answer.unwrap_or_else(|e| panic!("{subject}: {e}"))
    }

    /// As [`Bus::request`], where it may fail.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn ask(&mut self, subject: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Message> {
        let inbox = format!("_INBOX.{}", uuid());
        self.listen(&inbox).await?;
        self.publish_to(subject, &inbox, headers, body).await?;
        self.arrived(|s| s == inbox).await
    }

    /// Publishes into a stream and returns the sequence it got.
    pub async fn store(&mut self, subject: &str, headers: &[(&str, &str)], body: &[u8]) -> u64 {
        let ack = self.request(subject, headers, body).await.json();
        ack["seq"].as_u64().unwrap_or_else(|| panic!("no acknowledgement for {subject}: {ack}"))
    }

    /// The next message whose subject fits; others wait for their own turn.
    pub async fn next_on(&mut self, fits: impl Fn(&str) -> bool) -> Message {
        tokio::time::timeout(LIMIT, self.arrived(fits)).await.expect("a message within 30 s").expect("nats-server is gone")
    }

    async fn arrived(&mut self, fits: impl Fn(&str) -> bool) -> Result<Message> {
        if let Some(at) = self.waiting.iter().position(|m| fits(&m.subject)) {
            return Ok(self.waiting.remove(at).expect("it was just found"));
        }
        loop {
            let before = self.waiting.len();
            self.step().await?;
            if self.waiting.len() > before && fits(&self.waiting[before].subject) {
                return Ok(self.waiting.remove(before).expect("it was just added"));
            }
        }
    }

    /// Reads one protocol line; messages go to those that wait.
    async fn step(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let size =
            |word: Option<&&str>| word.and_then(|w| w.parse::<usize>().ok()).ok_or_else(|| Error::other("a message without its size"));
        let line = line.trim_end().to_owned();
        let words: Vec<&str> = line.split(' ').filter(|w| !w.is_empty()).collect();
        match words.as_slice() {
            ["PING"] => self.write(b"PONG\r\n").await?,
            ["MSG", subject, _, rest @ ..] => {
                let total = size(rest.last())?;
                let body = self.payload(total).await?;
                self.waiting.push_back(Message { subject: (*subject).to_owned(), headers: String::new(), body });
            }
            ["HMSG", subject, _, rest @ ..] => {
                let (head, total) = (size(rest.iter().rev().nth(1))?, size(rest.last())?);
                let mut all = self.payload(total).await?;
                let body = all.split_off(head);
                self.waiting.push_back(Message {
                    subject: (*subject).to_owned(),
                    headers: String::from_utf8_lossy(&all).into_owned(),
                    body,
                });
            }
            ["-ERR", ..] => return Err(Error::other(format!("nats-server refuses: {line}"))),
            _ => {}
        }
        Ok(line)
    }

    async fn payload(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes).await?;
        bytes.truncate(length);
        Ok(bytes)
    }

    /// Everything that the server says about a stream and a consumer, for a failure.
    pub async fn told(&mut self, stream: &str, durable: &str) -> String {
        let consumer = self.request(&format!("$JS.API.CONSUMER.INFO.{stream}.{durable}"), &[], b"").await.json();
        let stream = self.request(&format!("$JS.API.STREAM.INFO.{stream}"), &[], b"").await.json();
        format!("{consumer}, {}", stream["state"])
    }

    /// Messages that a durable consumer has not settled: waiting and under way. An error while there is no such consumer.
    ///
    /// They are counted in the stream, above what the consumer has seen the end of: nats-server 2.9.10 may keep a message under
    /// way for ever that its stream has lost, after a restart from older data, and may keep one that was acknowledged.
    pub async fn unsettled(&mut self, stream: &str, durable: &str) -> std::result::Result<u64, String> {
        let info = self.request(&format!("$JS.API.CONSUMER.INFO.{stream}.{durable}"), &[], b"").await.json();
        let kept = self.request(&format!("$JS.API.STREAM.INFO.{stream}"), &[], br#"{"deleted_details":true}"#).await.json();
        let state = &kept["state"];
        let (Some(floor), Some(first), Some(last)) =
            (info["ack_floor"]["stream_seq"].as_u64(), state["first_seq"].as_u64(), state["last_seq"].as_u64())
        else {
            return Err(format!("{info} {kept}"));
        };
        let silent = info["delivered"]["last_active"].as_str().and_then(|at| at.parse::<DateTime<Utc>>().ok());
        let asked = info["num_waiting"].as_u64().is_some_and(|readers| readers > 0) && info["num_pending"] == 0;
        if asked && silent.is_some_and(|at| Utc::now() - at > SILENCE) {
            return Ok(0);
        }
        let from = first.max(floor + 1);
        let deleted = state["deleted"].as_array().into_iter().flatten().filter(|seq| seq.as_u64().is_some_and(|seq| seq >= from)).count();
        Ok((last + 1).saturating_sub(from).saturating_sub(deleted as u64))
    }
}

fn uuid() -> String {
    hopyard_contract::RunId::mint().to_string()
}
