//! Repository URLs and refs.
//!
//! An absolute path is no bad input for the door: whether an executor may use it is the executor's own allow-list, and a
//! repository or ref that is not there ends the run as `workspace_error`.

use serde_json::json;

use super::doors::SECRET;
use super::table::Row;

const URLS: &[(u8, &str, &str)] = &[
    (50, "ext::sh -c id", "control_char"),
    (50, "ext::sh", "scheme"),
    (50, "fd::17", "scheme"),
    (50, "transport::address", "scheme"),
    (51, "file:///etc", "scheme"),
    (51, "FILE:///etc", "scheme"),
    (51, "../x", "scheme"),
    (51, "x", "scheme"),
    (51, "./x", "scheme"),
    (51, "~/x", "scheme"),
    (51, "git://h/x", "scheme"),
    (51, "http://h/x", "scheme"),
    (51, "ftp://h/x", "scheme"),
    (51, "javascript:alert", "scheme"),
    (51, "C:x", "scheme"),
    (51, "h:x", "scheme"),
    (51, "HTTPS://h/x", "scheme"),
    (51, "/a/../b", "pattern"),
    (51, "/..", "pattern"),
    (51, "git@h:../y", "pattern"),
    (51, "git@h:/../y", "pattern"),
    (52, "--upload-pack=x", "pattern"),
    (52, "-oProxyCommand=x", "pattern"),
    (52, "-", "pattern"),
    (53, "ssh://-oProxyCommand=id/x", "host"),
    (53, "ssh://-x@h/x", "host"),
    (53, "ssh://h;id/x", "host"),
    (53, "ssh:///x", "host"),
    (53, "git@-h:x", "host"),
    (53, "git@h:-x", "host"),
    (53, "git@:x", "host"),
    (53, "https://h$(id)/x", "host"),
    (53, "https:///x", "host"),
    (53, "https://a..b/x", "host"),
    (53, "https://h\\@other/x", "credentials_in_url"),
    (53, "https://h", "pattern"),
    (53, "https://h/", "pattern"),
    (53, "https://h/a/../b", "pattern"),
    (54, "https://token@h/x", "credentials_in_url"),
    (54, "https://@h/x", "credentials_in_url"),
    (55, "https://h/\r\nX:1", "control_char"),
    (55, "https://h/a b", "control_char"),
    (55, "https://h/\u{202e}x", "control_char"),
    (55, "https://h/a\u{a0}b", "control_char"),
    (55, "\u{feff}https://h/x", "control_char"),
    (56, "https://169.254.169.254/x", "address"),
    (56, "https://127.0.0.1/x", "address"),
    (56, "https://10.0.0.1/x", "address"),
    (56, "https://192.168.1.1/x", "address"),
    (56, "https://172.16.0.1/x", "address"),
    (56, "https://100.64.0.1/x", "address"),
    (56, "https://0.0.0.0/x", "address"),
    (56, "https://255.255.255.255/x", "address"),
    (56, "https://224.0.0.1/x", "address"),
    (56, "https://0x7f.1/x", "address"),
    (56, "https://0x7f000001/x", "address"),
    (56, "https://0177.0.0.1/x", "address"),
    (56, "https://2130706433/x", "address"),
    (56, "https://127.1/x", "address"),
    (56, "https://127.0.0.1:8443/x", "address"),
    (56, "https://[::1]/x", "address"),
    (56, "https://[::ffff:127.0.0.1]/x", "address"),
    (56, "https://[fd00::1]/x", "address"),
    (56, "https://localhost/x", "address"),
    (56, "https://LOCALHOST/x", "address"),
    (56, "https://a.localhost/x", "address"),
    (57, "https://h:0/x", "port"),
    (57, "https://h:99999/x", "port"),
    (57, "https://h:22/x", "port"),
    (57, "https://h:/x", "port"),
    (57, "https://h:+443/x", "port"),
    (57, "https://h:-1/x", "port"),
    (57, "https://h:0x1bb/x", "port"),
    (57, "ssh://h:0/x", "port"),
    (57, "ssh://h:x/x", "port"),
];

const REFS: &[&str] = &[
    "",
    "-x",
    "--help",
    "a..b",
    "a.lock",
    "a.LOCK",
    "x/a.lock/y",
    "a b",
    "@{1}",
    "@",
    "refs/heads/--x",
    "HEAD^",
    "HEAD~1",
    "a:b",
    "a?",
    "a*",
    "a[b",
    "a\\b",
    "a//b",
    "/a",
    "a/",
    "a.",
    ".a",
    "x/.a",
    "a\u{7}",
    "a\n",
    "a\u{202e}b",
];

/// Rows of this topic.
pub fn rows() -> Vec<Row> {
    let repo = |url: &str, reference: Option<&str>| {
        let mut repo = json!({ "url": url });
        if let Some(reference) = reference {
            repo["ref"] = json!(reference);
        }
        format!(r#""repo":{repo}"#)
    };
    let mut rows: Vec<Row> = URLS.iter().map(|(class, url, code)| Row::run(*class, repo(url, None), code, "/repo/url")).collect();
    rows.push(Row::run(33, repo("", None), "length", "/repo/url"));
    rows.push(Row::run(33, repo(&format!("https://h/{}", "x".repeat(2048)), None), "length", "/repo/url"));
    // The value holds a credential: it is refused and not repeated.
    for url in [format!("https://u:{SECRET}@h/x"), format!("https://{SECRET}@h/x"), format!("ssh://u:{SECRET}@h/x")] {
        rows.push(Row::run(54, repo(&url, None), "credentials_in_url", "/repo/url"));
    }
    rows.extend(REFS.iter().map(|text| Row::run(58, repo("https://h/x", Some(text)), "ref", "/repo/ref")));
    rows.push(Row::run(58, repo("https://h/x", Some(&"x".repeat(300))), "ref", "/repo/ref"));
    rows
}
