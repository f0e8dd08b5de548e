//! A TCP connection of a service as a test wants it: whole, slow, silent, one-way, reset, or cut at a commit.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hopyard_runtime::tasks::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything.
    Open,
    /// Everything, each piece late.
    Slow(Duration),
    /// Nothing, and nobody is told: a half-open connection.
    Silent,
    /// Only what the server says.
    OnlyBack,
    /// Only what the client says.
    OnlyForth,
    /// Nothing: connections are reset, and new ones too.
    Refused,
    /// Everything, but the connection of the next commit is reset once, before or after the server has it.
    CutAtCommit {
        /// Whether the server gets the commit.
        forwarded: bool,
    },
}

/// A way from a service to a server.
#[derive(Debug)]
pub struct Link {
    addr: SocketAddr,
    mode: watch::Sender<Mode>,
    connections: Arc<Mutex<CancellationToken>>,
    tasks: Tasks,
}

impl Link {
    /// Opens a way to a server.
    pub fn to(server: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let link = Self { addr, mode: watch::Sender::new(Mode::Open), connections: Arc::default(), tasks: Tasks::default() };
        let (mode, connections, tasks) = (link.mode.clone(), link.connections.clone(), link.tasks.clone());
        link.tasks.spawn_part("link", async move {
            let stop = tasks.stopping().clone();
            while let Some(Ok((client, _))) = stop.run_until_cancelled(listener.accept()).await {
                if *mode.borrow() == Mode::Refused {
                    client.set_zero_linger()?;
                    continue;
                }
                let cut = connections.lock().unwrap_or_else(PoisonError::into_inner).child_token();
                let mode = mode.clone();
                tasks.spawn_part("connection", async move {
                    // A server that is away is told to the client as its own end.
                    let Ok(server) = TcpStream::connect(server).await else { return Ok(client.set_zero_linger()?) };
                    carry(client, server, mode, cut).await;
                    Ok(())
                });
            }
            Ok(())
        });
        link
    }

    /// Where the service connects to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes what passes, for connections that are open as well.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
        if mode == Mode::Refused {
            self.reset();
        }
    }

    /// Resets every open connection.
    pub fn reset(&self) {
        std::mem::take(&mut *self.connections.lock().unwrap_or_else(PoisonError::into_inner)).cancel();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reset();
        self.tasks.stopping().cancel();
    }
}

/// Carries bytes both ways until either side ends or the connection is cut.
async fn carry(client: TcpStream, server: TcpStream, mode: watch::Sender<Mode>, cut: CancellationToken) {
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap_or_default();
    }
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
    let (forth, back) = (Pump { mode: mode.clone(), forth: true }, Pump { mode, forth: false });
    let reset = tokio::select! {
        () = cut.cancelled() => true,
        cut = forth.run(&mut from_client, &mut to_server) => cut,
        cut = back.run(&mut from_server, &mut to_client) => cut,
    };
    if reset {
        to_client.as_ref().set_zero_linger().unwrap_or_default();
    }
}

/// One direction.
struct Pump {
    mode: watch::Sender<Mode>,
    forth: bool,
}

impl Pump {
    /// Carries bytes until a side ends; true if the connection shall be reset.
    async fn run(&self, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) -> bool {
        let mut piece = vec![0; 64 * 1024];
        loop {
            let length = from.read(&mut piece).await.unwrap_or(0);
            if length == 0 {
                return false;
            }
            self.wait_for_leave().await;
            if self.forth && self.cuts_here(&piece[..length]) {
                if let Mode::CutAtCommit { forwarded: true } = self.mode.send_replace(Mode::Open) {
                    to.write_all(&piece[..length]).await.unwrap_or_default();
                    // The server reads it before it sees the end.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                return true;
            }
            if to.write_all(&piece[..length]).await.is_err() {
                return false;
            }
        }
    }

    async fn wait_for_leave(&self) {
        let mut mode = self.mode.subscribe();
        loop {
            let now = *mode.borrow_and_update();
            let passes = match now {
                Mode::Silent => false,
                Mode::OnlyBack => !self.forth,
                Mode::OnlyForth => self.forth,
                Mode::Slow(late) => {
                    tokio::time::sleep(late).await;
                    true
                }
                Mode::Open | Mode::Refused | Mode::CutAtCommit { .. } => true,
            };
            if passes || mode.changed().await.is_err() {
                return;
            }
        }
    }

    fn cuts_here(&self, piece: &[u8]) -> bool {
        matches!(*self.mode.borrow(), Mode::CutAtCommit { .. }) && piece.windows(6).any(|word| word.eq_ignore_ascii_case(b"commit"))
    }
}
