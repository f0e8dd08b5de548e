//! One PostgreSQL for all tests that run at the same time, a fresh database for each, and a plain SQL connection.

use std::io::{Error, Result};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};

use hopyard::servers::{PgOptions, PostgresServer, find_postgres, process_env};
use hopyard_contract::RunId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

/// The server, on a runtime of its own: it outlives the test that started it, and goes with the last one that uses it.
#[derive(Debug)]
pub struct Postgres {
    server: Option<PostgresServer>,
    runtime: Option<Runtime>,
}

static SHARED: Mutex<Weak<Postgres>> = Mutex::const_new(Weak::new());

impl Postgres {
    /// The server, started if no test uses one.
    pub async fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().await;
        if let Some(running) = shared.upgrade() {
            return running;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = runtime.spawn(server()).await.unwrap();
        let started = Arc::new(Self { server: Some(server), runtime: Some(runtime) });
        *shared = Arc::downgrade(&started);
        started
    }

    /// Makes an empty database and returns its URL.
    pub async fn database(&self) -> String {
        new_database(self.server.as_ref().expect("the server is there until it is dropped")).await
    }
}

/// A server of a test's own, to stop or to kill: quick, and with room for many.
pub async fn server() -> PostgresServer {
    let options = PgOptions {
        bin_dir: find_postgres(&process_env).unwrap(),
        fsync: false,
        settings: vec![("max_connections".into(), "200".into())],
        ..PgOptions::default()
    };
    PostgresServer::start(options).await.unwrap()
}

/// Makes an empty database on a server and returns its URL.
pub async fn new_database(server: &PostgresServer) -> String {
    let name = format!("t{}", RunId::mint().to_string().replace('-', ""));
    query(server.port(), "postgres", &format!("create database {name}")).await.unwrap();
    server.url(&name)
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.server.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Rows of a statement, each as texts; null is the empty text.
pub async fn rows(url: &str, sql: &str) -> Vec<Vec<String>> {
    let (_, place) = url.rsplit_once(':').expect("a URL of ours has a port");
    let (port, database) = place.split_once('/').expect("a URL of ours names a database");
    query(port.parse().unwrap(), database, sql).await.unwrap()
}

/// Runs one statement with the simple protocol.
async fn query(port: u16, database: &str, sql: &str) -> Result<Vec<Vec<String>>> {
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    let mut hello = 196_608_i32.to_be_bytes().to_vec();
    hello.extend(format!("user\0hopyard\0database\0{database}\0\0").bytes());
    stream.write_all(&[&length(hello.len()), hello.as_slice()].concat()).await?;
    until_ready(&mut stream).await?;
    stream.write_all(&[b"Q".as_slice(), &length(sql.len() + 1), sql.as_bytes(), b"\0"].concat()).await?;
    let rows = until_ready(&mut stream).await?;
    stream.write_all(b"X\0\0\0\x04").await?;
    Ok(rows)
}

fn length(payload: usize) -> [u8; 4] {
    i32::try_from(payload + 4).expect("statements are short").to_be_bytes()
}

async fn until_ready(stream: &mut TcpStream) -> Result<Vec<Vec<String>>> {
    let mut rows = Vec::new();
    loop {
        let kind = stream.read_u8().await?;
        let length = usize::try_from(stream.read_i32().await? - 4).map_err(Error::other)?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        match kind {
            b'Z' => return Ok(rows),
            b'E' => return Err(Error::other(String::from_utf8_lossy(&body).replace('\0', " "))),
            b'D' => rows.push(cells(&body)),
            _ => {}
        }
    }
}

fn cells(body: &[u8]) -> Vec<String> {
    let mut rest = &body[2..];
    let mut cells = Vec::new();
    while let Some((head, tail)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(i32::from_be_bytes(*head)).unwrap_or(0);
        let (cell, next) = tail.split_at(length);
        cells.push(String::from_utf8_lossy(cell).into_owned());
        rest = next;
    }
    cells
}
