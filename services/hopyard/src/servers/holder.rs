//! Names the process that holds a TCP port, so that "address in use" says by whom.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

/// The listener on this port as `name (pid 123)`. `None` if there is none, or it is hidden from us (other user, no `/proc`).
pub fn port_holder(addr: SocketAddr) -> Option<String> {
    let mut inodes = HashSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        inodes.extend(text.lines().skip(1).filter_map(|line| listening_inode(line, addr.port())));
    }
    if inodes.is_empty() {
        return None;
    }
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        let holds = files.flatten().filter_map(|file| fs::read_link(file.path()).ok()).any(|link| holds_one(&link, &inodes));
        if holds {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

/// The socket inode of a line of `/proc/net/tcp` that listens on `port` (columns: number, local, remote, state, …, inode).
fn listening_inode(line: &str, port: u16) -> Option<String> {
    const LISTEN: &str = "0A";
    let columns: Vec<_> = line.split_whitespace().collect();
    let local = u16::from_str_radix(columns.get(1)?.rsplit(':').next()?, 16).ok()?;
    (local == port && columns.get(3) == Some(&LISTEN)).then(|| columns.get(9).map(ToString::to_string))?
}

fn holds_one(link: &Path, inodes: &HashSet<String>) -> bool {
    let inode = link.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']'));
    inode.is_some_and(|inode| inodes.contains(inode))
}
