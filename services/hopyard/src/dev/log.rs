//! What a child writes to its log file: where it listens, and its last words.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;

/// Most of a log that is looked at.
const WINDOW: u64 = 256 * 1024;

/// Where a service listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Its admin port.
    pub admin: SocketAddr,
    /// Its API, if it has one.
    pub http: Option<SocketAddr>,
}

/// The text of a log file from `offset` on, at most its first 256 KiB.
pub fn read_from(path: &Path, offset: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(WINDOW).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    // A file that is not there yet is an empty one.
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// The length of a log file; 0 if there is none.
pub fn length(path: &Path) -> u64 {
    fs::metadata(path).map(|meta| meta.len()).unwrap_or(0)
}

/// What the line `ready` says, once it is there.
pub fn ready(text: &str) -> Option<Ready> {
    let lines = || text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let address = |line: &Value, name: &str| line.get(name)?.as_str()?.trim_start_matches("http://").parse().ok();
    let admin = lines().filter(|line| line.get("message").is_some_and(|m| m == "ready")).find_map(|line| address(&line, "admin"))?;
    Some(Ready { admin, http: lines().find_map(|line| address(&line, "http")) })
}

/// The end of a log for people: what went wrong if it says so, else its last lines.
pub fn last_words(text: &str) -> String {
    let told: Vec<(bool, String)> = text.lines().filter(|line| !line.trim().is_empty()).map(tell).collect();
    let bad: Vec<_> = told.iter().filter(|(bad, _)| *bad).collect();
    let chosen: Vec<_> = if bad.is_empty() { told.iter().collect() } else { bad };
    let from = chosen.len().saturating_sub(10);
    chosen[from..].iter().map(|(_, line)| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// A line, and whether it speaks of trouble. One that is no JSON was not written by a service's log, such as a panic.
fn tell(line: &str) -> (bool, String) {
    let Ok(Value::Object(fields)) = serde_json::from_str::<Value>(line) else { return (true, line.to_owned()) };
    let text = |name: &str| fields.get(name).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).unwrap_or_default();
    let rest = fields.iter().filter(|(name, _)| !["timestamp", "level", "message", "target", "service", "id"].contains(&name.as_str()));
    let rest: String = rest.map(|(name, _)| format!(" {name}={}", text(name))).collect();
    let level = text("level");
    (matches!(level.as_str(), "ERROR" | "WARN"), format!("{level} {}{rest}", text("message")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_from_the_log() {
        let started = r#"{"level":"INFO","message":"the API is open","http":"127.0.0.1:5001"}"#;
        let ready_line = r#"{"level":"INFO","message":"ready","service":"ingest","admin":"127.0.0.1:5000"}"#;
        assert_eq!(ready(started), None);
        let both = ready(&format!("{started}\nnot json\n{ready_line}\n")).unwrap();
        assert_eq!((both.admin.port(), both.http.map(|a| a.port())), (5000, Some(5001)));
        assert_eq!(ready(&format!("{ready_line}\n{{\"mess")).unwrap().http, None);
    }

    #[test]
    fn last_words_are_errors_if_there_are_some() {
        let info = r#"{"level":"INFO","message":"ready"}"#;
        let error = r#"{"level":"ERROR","message":"a task failed","task":"admin","error":"no"}"#;
        assert_eq!(last_words(&format!("{info}\n{error}\n{info}")), "  ERROR a task failed error=no task=admin");
        assert_eq!(last_words(&format!("{info}\nthread 'main' panicked")), "  thread 'main' panicked");
        assert_eq!(last_words(info), "  INFO ready");
    }
}
