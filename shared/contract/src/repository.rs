//! Repositories in requests: which URLs and refs are allowed to reach a git command.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::problem::FieldError;

/// A repository as a request names it.
// As the request that it is part of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RepoSpec {
    /// `https://host/path`, `ssh://host/path`, `user@host:path` or, where the executor allows it, an absolute path.
    pub url: String,
    /// Branch, tag, full ref name or commit; the repository's HEAD if absent.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

impl RepoSpec {
    /// Everything that is wrong with it, by pointer below `/repo`.
    pub fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Err((code, detail)) = check_url(&self.url) {
            errors.push(FieldError::new(code, "/repo/url", detail));
        }
        if let Some(reference) = &self.reference
            && let Err(detail) = check_ref(reference)
        {
            errors.push(FieldError::new("ref", "/repo/ref", detail));
        }
        errors
    }
}

type UrlProblem = (&'static str, String);

/// Checks the form of a repository URL. Whether an executor may use it is the executor's own allow-list.
///
/// # Errors
/// Code and sentence; the URL itself is not repeated, because it may hold a credential.
pub fn check_url(url: &str) -> Result<(), UrlProblem> {
    let fail = |code, detail: &str| Err((code, detail.to_owned()));
    if url.is_empty() || url.len() > 2048 {
        return fail("length", "a repository URL has 1 to 2048 characters");
    }
    if url.chars().any(|c| c.is_control() || c.is_whitespace() || is_bidi(c)) {
        return fail("control_char", "a repository URL has no spaces and no control characters");
    }
    if url.starts_with('-') {
        return fail("pattern", "a repository URL does not start with `-`");
    }
    if url.starts_with('/') {
        return if url.split('/').any(|part| part == "..") { fail("pattern", "a repository path has no `..`") } else { Ok(()) };
    }
    if let Some((scheme, rest)) = url.split_once("://") {
        return match scheme {
            "https" | "ssh" => check_authority(scheme, rest),
            _ => fail("scheme", "a repository URL starts with https:// or ssh://, or is user@host:path or an absolute path"),
        };
    }
    if url.contains("::") {
        return fail("scheme", "transport helpers are not allowed");
    }
    // The scp-like form user@host:path.
    match url.split_once(':') {
        Some((place, path)) if !place.contains('/') && !path.is_empty() && place.contains('@') => {
            let host = place.rsplit_once('@').map_or(place, |(_, host)| host);
            if path.split('/').any(|part| part == "..") {
                return fail("pattern", "a repository path has no `..`");
            }
            if is_host(host) && !path.starts_with('-') { Ok(()) } else { fail("host", "the host is not valid") }
        }
        _ => fail("scheme", "a repository URL starts with https:// or ssh://, or is user@host:path or an absolute path"),
    }
}

fn check_authority(scheme: &str, rest: &str) -> Result<(), UrlProblem> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host_port) = authority.rsplit_once('@').map_or((None, authority), |(u, h)| (Some(u), h));
    if let Some(user) = user
        && (scheme == "https" || user.contains(':'))
    {
        return Err(("credentials_in_url", "credentials do not belong in a repository URL".to_owned()));
    }
    let (host, port) = match host_port.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && !host_port.ends_with(']') => (host, Some(port)),
        _ => (host_port, None),
    };
    if let Some(port) = port {
        // Rust's own reading takes a plus sign before the digits.
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        let allowed = digits && port.parse::<u16>().is_ok_and(|p| p != 0 && !(scheme == "https" && p == 22));
        if !allowed {
            return Err(("port", "the port is not valid".to_owned()));
        }
    }
    if scheme == "https" && is_private(host) {
        return Err(("address", "the host is a private or local address".to_owned()));
    }
    if !is_host(host) || user.is_some_and(|u| u.starts_with('-')) {
        return Err(("host", "the host is not valid".to_owned()));
    }
    if path.is_empty() || path.split('/').any(|part| part == "..") {
        return Err(("pattern", "the URL has no path, or one with `..`".to_owned()));
    }
    Ok(())
}

fn is_host(host: &str) -> bool {
    let label = |l: &str| !l.is_empty() && !l.starts_with('-') && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    !host.is_empty() && host.len() <= 253 && host.split('.').all(label)
}

/// Hosts that are addresses in any of the forms that resolvers accept, or names of this machine.
fn is_private(host: &str) -> bool {
    let lower = host.to_ascii_lowercase();
    if lower == "localhost" || lower.ends_with(".localhost") || lower.starts_with('[') {
        return true;
    }
    // `2130706433`, `0x7f.1` and `127.1` are addresses to a resolver: a host whose last label is a number is one.
    let last = lower.rsplit('.').next().unwrap_or("");
    let number = last.starts_with("0x") || (!last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()));
    if !number {
        return false;
    }
    match lower.parse::<std::net::Ipv4Addr>() {
        Ok(ip) => {
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_broadcast()
                || ip.is_multicast()
                || is_shared(ip)
        }
        Err(_) => true,
    }
}

fn is_shared(ip: std::net::Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 100 && (64..128).contains(&b)
}

fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Whether a text has control, zero-width or direction characters: none of them belongs in a name or a key.
pub fn has_control(text: &str) -> bool {
    text.chars().any(|c| c.is_control() || is_bidi(c))
}

/// Checks a ref by git's own rules for ref names, without revision syntax.
///
/// # Errors
/// One sentence.
pub fn check_ref(reference: &str) -> Result<(), String> {
    let bad = |why: &str| Err(format!("the ref is not valid: {why}"));
    if reference.is_empty() || reference.len() > 255 {
        return bad("it has 1 to 255 characters");
    }
    if reference.starts_with('-') || reference.starts_with('/') || reference.ends_with('/') || reference.ends_with('.') {
        return bad("it does not start with `-` or `/` and does not end with `/` or `.`");
    }
    if reference.contains("..") || reference.contains("@{") || reference.contains("//") || reference == "@" {
        return bad("it has no `..`, `//` or `@{`");
    }
    if reference.chars().any(|c| c.is_control() || is_bidi(c) || " ~^:?*[\\".contains(c)) {
        return bad("it has no spaces, control characters or any of ~ ^ : ? * [ \\");
    }
    if reference.split('/').any(|part| part.starts_with('.') || part.starts_with('-') || part.to_ascii_lowercase().ends_with(".lock")) {
        return bad("no part of it starts with `.` or `-` or ends with `.lock`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_urls_are_answered_exactly() {
        for (url, code) in [
            ("ext::sh -c id", "control_char"),
            ("ext::sh", "scheme"),
            ("file:///etc", "scheme"),
            ("../x", "scheme"),
            ("git://h/x", "scheme"),
            ("http://h/x", "scheme"),
            ("--upload-pack=x", "pattern"),
            ("-oProxyCommand=x", "pattern"),
            ("ssh://-oProxyCommand=id/x", "host"),
            ("https://u:p@h/x", "credentials_in_url"),
            ("https://token@h/x", "credentials_in_url"),
            ("https://h/\r\nX:1", "control_char"),
            ("https://169.254.169.254/x", "address"),
            ("https://0x7f.1/x", "address"),
            ("https://2130706433/x", "address"),
            ("https://[::ffff:127.0.0.1]/x", "address"),
            ("https://127.1/x", "address"),
            ("https://localhost/x", "address"),
            ("https://h:0/x", "port"),
            ("https://h:99999/x", "port"),
            ("https://h:22/x", "port"),
            ("https://h:+443/x", "port"),
            ("javascript:alert", "scheme"),
            ("/a/../b", "pattern"),
            ("z@h:/../y", "pattern"),
            ("", "length"),
        ] {
            assert_eq!(check_url(url).map_err(|(c, _)| c), Err(code), "{url}");
        }
        for url in [
            "https://example.org/a/b.git",
            "ssh://git@example.org:2222/a",
            "git@example.org:a/b.git",
            "/srv/git/a.git",
            "https://8.8.8.8/x",
        ] {
            assert_eq!(check_url(url), Ok(()), "{url}");
        }
    }

    #[test]
    fn refs_follow_git() {
        for bad in [
            "-x",
            "--help",
            "a..b",
            "a.lock",
            "a b",
            "@{1}",
            "refs/heads/--x",
            "HEAD^",
            "a//b",
            "/a",
            "a/",
            ".a",
            "a\u{7}",
            &"x".repeat(300),
        ] {
            assert!(check_ref(bad).is_err(), "{bad}");
        }
        for good in ["main", "refs/heads/main", "v1.0", "feature/x-1", "0123456789abcdef0123456789abcdef01234567", "HEAD"] {
            assert!(check_ref(good).is_ok(), "{good}");
        }
    }
}
