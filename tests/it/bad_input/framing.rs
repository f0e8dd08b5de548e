//! What is wrong below and around a body: heads, lengths, and clients that never come to an end.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::table::Row;

/// Rows whose bytes are sent at once.
pub fn rows() -> Vec<Row> {
    let post = |headers: &str, body: &str| {
        format!("POST /api/v1/runs HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n{headers}\r\n\r\n{body}")
    };
    let get = |line: &str| format!("{line}\r\nHost: h\r\n\r\n");
    let mut rows = Vec::new();
    for (headers, body) in [
        ("Content-Length: 2\r\nContent-Length: 3", "{}x"),
        ("Content-Length: 2, 3", "{}"),
        ("Content-Length: -1", "{}"),
        ("Content-Length: +2", "{}"),
        ("Content-Length: 0x2", "{}"),
        ("Content-Length: x", "{}"),
        ("Content-Length:", "{}"),
        ("Content-Length: 99999999999999999999999", "{}"),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked", "2\r\n{}\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 2", "2\r\n{}\r\n0\r\n\r\n"),
        ("Transfer-Encoding: gzip", "{}"),
        ("Transfer-Encoding: chunked, gzip", "{}"),
        ("Transfer-Encoding: identity", "{}"),
    ] {
        rows.push(Row::raw(15, post(headers, body), 400, "bad_request"));
    }
    for body in ["x\r\n{}\r\n0\r\n\r\n", "-2\r\n{}\r\n0\r\n\r\n", "ffffffffffffffffff\r\n{}", "2\r\n{}x\r\n0\r\n\r\n"] {
        rows.push(Row::raw(15, post("Transfer-Encoding: chunked", body), 400, "bad_request"));
    }
    let many: String = (0..10_000).map(|i| format!("X-{i}: y\r\n")).collect();
    let some: String = (0..150).map(|i| format!("X-{i}: y\r\n")).collect();
    let long = "y".repeat(70_000);
    for text in [
        format!("GET /livez HTTP/1.1\r\nHost: h\r\n{many}\r\n"),
        format!("GET /livez HTTP/1.1\r\nHost: h\r\n{some}\r\n"),
        format!("GET /livez HTTP/1.1\r\nHost: h\r\nX-Long: {long}\r\n\r\n"),
        format!("GET /livez HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\n\r\n", "t".repeat(1024 * 1024)),
    ] {
        rows.push(Row::raw(79, text, 431, "header_too_large"));
    }
    for text in [
        "GET /livez\r\n\r\n".to_owned(),
        get("GET /livez HTTP/0.9"),
        get("GET /livez HTTP/2.0"),
        get("GET /livez HTTP/9.9"),
        get("GET  /livez HTTP/1.1"),
        get("GET /li vez HTTP/1.1"),
        get("GET /livez http/1.1"),
        get("G\u{e9}T /livez HTTP/1.1"),
        get("G@T\0 /livez HTTP/1.1"),
        get(" GET /livez HTTP/1.1"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03 a greeting of TLS\r\n\r\n".to_owned(),
        "GET /livez HTTP/1.1\r\nHost: h\r\nBad Header: x\r\n\r\n".to_owned(),
        "GET /livez HTTP/1.1\r\nHost: h\r\nNo-Colon\r\n\r\n".to_owned(),
        "GET /livez HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n".to_owned(),
        "GET /livez HTTP/1.1\r\nHost: h\r\n folded: x\r\n\r\n".to_owned(),
        "GET /livez HTTP/1.1\r\n: x\r\n\r\n".to_owned(),
    ] {
        rows.push(Row::raw(80, text, 400, "bad_request"));
    }
    rows.push(Row::raw(80, get("CONNECT example.org:443 HTTP/1.1"), 404, "unknown_route"));
    rows.push(Row::raw(80, get("OPTIONS * HTTP/1.1"), 404, "unknown_route"));
    rows.push(Row::raw(80, get("GET http://other.example/api/v1/nothing HTTP/1.1"), 404, "unknown_route"));
    rows.push(Row::raw(80, get("TRACE /livez HTTP/1.1"), 405, "method_not_allowed"));
    // A path between 8 and 64 KiB is 414; beyond that the whole head is too large.
    let far = "x".repeat(66_000);
    rows.push(Row::raw(79, get(&format!("GET /{far} HTTP/1.1")), 431, "header_too_large"));
    rows
}

/// Clients that go on for ever; each has its row, and the door ends it within its own limit.
pub async fn slow(address: std::net::SocketAddr) -> Vec<String> {
    let head = "POST /api/v1/runs HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n";
    let clients = [
        (78, "GET /livez HTTP/1.1\r\nHost: h\r\n".to_owned(), "X"),
        (14, format!("{head}Transfer-Encoding: chunked\r\n\r\n"), "1\r\n \r\n"),
        (14, format!("{head}Content-Length: 1000\r\n\r\n"), " "),
    ];
    let answers = clients.map(|(class, start, more)| async move {
        let answer = drip(address, &start, more).await;
        let (top, body) = answer.split_once("\r\n\r\n").unwrap_or((answer.as_str(), ""));
        let told: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        let good = top.starts_with("HTTP/1.1 408 ") && told["code"] == "request_timeout";
        (!good).then(|| format!("class {class}: 408 was expected: {answer:?}"))
    });
    futures::future::join_all(answers).await.into_iter().flatten().collect()
}

/// Sends a little every second until the door answers, and returns all that it says until it closes.
async fn drip(address: std::net::SocketAddr, start: &str, more: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(start.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let mut answer = Vec::new();
    let writing = async {
        let mut clock = tokio::time::interval(Duration::from_secs(1));
        loop {
            clock.tick().await;
            if writer.write_all(more.as_bytes()).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        read = reader.read_to_end(&mut answer) => drop(read),
        () = writing => {}
        () = tokio::time::sleep(Duration::from_secs(60)) => return "nothing within 60 s".to_owned(),
    }
    String::from_utf8_lossy(&answer).into_owned()
}
