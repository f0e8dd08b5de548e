//! The private servers against the real programs: they start, answer, restart, and leave no process behind.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::family::{children, lives};
use super::{Launch, NatsOptions, NatsServer, PgOptions, PostgresServer, Spawner, Streams};
use super::{find_postgres, find_program, port_holder, process_env};

fn folder() -> TempDir {
    tempfile::tempdir().expect("temporary folder")
}

async fn nats(data: &Path, addr: Option<SocketAddr>) -> anyhow::Result<NatsServer> {
    let program = find_program("nats-server", "HOPYARD_NATS_SERVER", &process_env)?;
    NatsServer::start(NatsOptions { program, data_dir: data.into(), addr, log_file: None }).await
}

async fn postgres() -> PostgresServer {
    let bin_dir = find_postgres(&process_env).unwrap();
    PostgresServer::start(PgOptions { bin_dir, ..PgOptions::default() }).await.unwrap()
}

fn is_gone(pid: u32) -> bool {
    kill(Pid::from_raw(pid.cast_signed()), None) == Err(Errno::ESRCH)
}

/// One request of the NATS text protocol, and the payload of its answer.
async fn request(addr: SocketAddr, subject: &str, body: &str) -> String {
    let talk = async {
        let mut stream = BufReader::new(TcpStream::connect(addr).await.unwrap());
        let length = body.len();
        let text = format!("CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB {subject} answer {length}\r\n{body}\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut line = String::new();
        while !line.starts_with("MSG answer") {
            line.clear();
            assert!(stream.read_line(&mut line).await.unwrap() > 0, "the server closed the connection");
        }
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        line
    };
    timeout(Duration::from_secs(10), talk).await.expect("an answer")
}

/// Opens a session as the superuser and returns what the server sends until it is ready for a query.
async fn session(server: &PostgresServer, settings: &str) -> Result<Vec<u8>, String> {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.map_err(|e| e.to_string())?;
    let parameters = format!("user\0hopyard\0database\0postgres\0{settings}\0");
    let mut startup = (u32::try_from(parameters.len()).unwrap() + 8).to_be_bytes().to_vec();
    startup.extend(196_608u32.to_be_bytes());
    startup.extend(parameters.as_bytes());
    stream.write_all(&startup).await.unwrap();
    let mut all = Vec::new();
    // ReadyForQuery: type Z, length 5, status I.
    while !all.ends_with(b"Z\0\0\0\x05I") {
        if stream.read_buf(&mut all).await.unwrap() == 0 {
            return Err(String::from_utf8_lossy(&all).into_owned());
        }
    }
    Ok(all)
}

#[tokio::test]
async fn nats_answers_keeps_streams_over_a_kill_and_loses_them_when_wiped() {
    let data = folder();
    let mut server = nats(data.path(), None).await.unwrap();
    let (addr, first) = (server.addr(), server.pid().unwrap());
    assert!(addr.ip().is_loopback() && ![0, 4222].contains(&addr.port()), "{addr}");
    assert_eq!(server.url(), format!("nats://{addr}"));
    let made =
        request(addr, "$JS.API.STREAM.CREATE.S", r#"{"name":"S","subjects":["s.>"],"storage":"file","max_bytes":10737418240}"#).await;
    assert!(made.contains(r#""created""#), "{made}");

    server.restart_same_port().await.unwrap();
    assert!(is_gone(first));
    assert_eq!(server.addr(), addr);
    let kept = request(addr, "$JS.API.STREAM.INFO.S", "").await;
    assert!(kept.contains(r#""created""#), "{kept}");

    server.wipe().await.unwrap();
    assert_eq!(server.pid(), None);
    server.restart_same_port().await.unwrap();
    let lost = request(addr, "$JS.API.STREAM.INFO.S", "").await;
    assert!(lost.contains("stream not found"), "{lost}");

    let last = server.pid().unwrap();
    server.stop().await.unwrap();
    assert!(is_gone(last));
    assert_eq!(TcpStream::connect(addr).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert!(server.exited().await.unwrap().is_none());
}

#[tokio::test]
async fn nats_dies_with_its_value_and_its_end_is_seen() {
    let data = folder();
    let mut server = nats(data.path(), None).await.unwrap();
    let first = server.pid().unwrap();
    kill(Pid::from_raw(first.cast_signed()), Signal::SIGKILL).unwrap();
    let status = timeout(Duration::from_secs(10), server.exited()).await.unwrap().unwrap().unwrap();
    assert!(!status.success(), "{status}");

    server.restart_same_port().await.unwrap();
    let second = server.pid().unwrap();
    drop(server);
    assert!(is_gone(first) && is_gone(second));
}

#[tokio::test]
async fn a_taken_address_names_its_holder() {
    let data = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let error = format!("{:#}", nats(data.path(), Some(addr)).await.unwrap_err());
    assert!(error.contains(&addr.to_string()), "{error}");
    if cfg!(target_os = "linux") {
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
        drop(taken);
        assert_eq!(port_holder(addr), None);
    }
}

#[tokio::test]
async fn a_program_that_ends_at_once_is_an_error_with_its_output() {
    let data = folder();
    let options = NatsOptions { program: "/bin/cat".into(), data_dir: data.path().into(), addr: None, log_file: None };
    let error = format!("{:#}", NatsServer::start(options).await.unwrap_err());
    assert!(error.contains("ended while starting") && error.contains("cat:"), "{error}");
}

#[tokio::test]
async fn postgres_serves_as_an_ordinary_user_and_survives_a_crash() {
    let mut server = postgres().await;
    let (first, port, run_dir) = (server.pid().unwrap(), server.port(), server.run_dir().to_path_buf());
    let owner = fs::metadata(format!("/proc/{first}")).map(|meta| meta.uid());
    if let Ok(owner) = owner {
        assert_ne!(owner, 0, "postgres runs as root");
        assert!(geteuid().is_root() || owner == geteuid().as_raw());
    }
    // The zone is what database clients ask for, and needs the zone files.
    let welcome = session(&server, "TimeZone\0UTC\0").await.unwrap();
    assert!(String::from_utf8_lossy(&welcome).contains("TimeZone\0UTC"), "{welcome:?}");
    assert_eq!(server.admin_url(), format!("postgres://hopyard@127.0.0.1:{port}/postgres"));

    let family = children(first);
    server.kill().await.unwrap();
    assert!(is_gone(first) && !family.iter().any(|pid| lives(*pid)), "{family:?}");
    assert!(session(&server, "").await.is_err());

    server.restart().await.unwrap();
    assert_eq!(server.port(), port);
    session(&server, "TimeZone\0Europe/Berlin\0").await.unwrap();
    server.stop().await.unwrap();
    server.restart().await.unwrap();
    let last = server.pid().unwrap();
    let family = children(last);
    assert!(!cfg!(target_os = "linux") || !family.is_empty());
    drop(server);
    assert!(is_gone(last) && !family.iter().any(|pid| lives(*pid)), "{family:?}");
    assert!(!run_dir.exists());
}

/// The end of the forking thread is, for its children, the death of their parent.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn children_die_with_the_thread_that_forked_them() {
    let spawner = Spawner::start().unwrap();
    let launch = Launch::new("/bin/sh").args(["-c", "echo ready; exec sleep 600"]).streams(Streams::Piped);
    let mut child = spawner.spawn(&launch).await.unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
    assert_eq!(line, "ready\n");
    assert!(child.try_wait().unwrap().is_none());
    drop(spawner);
    let status = timeout(Duration::from_secs(10), child.wait()).await.expect("killed with its parent").unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
}

#[test]
fn programs_come_from_variable_then_tools_then_path() {
    let tools = folder();
    let place = |path: &str| {
        let path = tools.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy("/bin/sh", &path).unwrap();
        path
    };
    let (unpacked, on_path) = (place("tools/thing/bin/thing"), place("path/thing"));
    let text = |path: &Path| path.to_str().unwrap().to_string();
    let look = |variables: &[(&str, &Path)]| {
        let variables: Vec<_> = variables.iter().map(|(name, path)| (name.to_string(), text(path))).collect();
        find_program("thing", "THING", &move |name| variables.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()))
    };
    let (tools_dir, path_dir, none) = (tools.path().join("tools"), on_path.parent().unwrap(), PathBuf::from("/nowhere"));
    assert_eq!(look(&[("THING", &on_path), ("HOPYARD_TOOLS_DIR", &tools_dir)]).unwrap(), on_path);
    assert_eq!(look(&[("HOPYARD_TOOLS_DIR", &tools_dir), ("PATH", path_dir)]).unwrap(), unpacked);
    assert_eq!(look(&[("HOPYARD_TOOLS_DIR", &none), ("PATH", path_dir)]).unwrap(), on_path);

    let wrong = look(&[("THING", &none), ("PATH", path_dir)]).unwrap_err().to_string();
    assert_eq!(wrong, "THING names no executable file: /nowhere");
    let missing = look(&[("HOPYARD_TOOLS_DIR", &none), ("PATH", &none)]).unwrap_err().to_string();
    assert!(missing.contains("looked at THING, /nowhere/thing/bin/thing, PATH") && missing.contains("scripts/bootstrap"), "{missing}");
}
