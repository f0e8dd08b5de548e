//! The askpass script answers for its own host only; settings are read as written.

use std::ffi::OsString;
use std::time::Duration;

use super::*;
use crate::git::Git;

fn git() -> Git {
    Git::new(OsString::from("/usr/bin:/bin"), "/dev/null".into(), Duration::from_secs(20))
}

/// Asks git itself for the password of `url`, as a fetch would.
async fn fill(credentials: &Credentials, of: &str, host: &str) -> (i32, String) {
    let location = Location::parse(of).expect("valid");
    let call = git().call("credential").args(["credential", "fill"]);
    let call = call.stdin(format!("protocol=https\nhost={host}\n\n").into_bytes());
    let output = credentials.apply(call, &location).expect("token").run().await.expect("git runs");
    (output.code, String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn a_token_is_handed_to_its_own_host_only() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("token");
    fs::write(&file, "s3cret\n").expect("token file");
    let token = Token::parse(&format!("file:{}", file.display()), |_| None).expect("valid");
    let list = vec![Credential { host: "git.example.com".into(), user: "x-access-token".into(), token }];
    let credentials = Credentials::install(dir.path(), list).expect("installed");

    let (code, answer) = fill(&credentials, "https://git.example.com/a/b", "git.example.com").await;
    assert_eq!(code, 0);
    assert!(answer.contains("username=x-access-token\npassword=s3cret\n"), "{answer}");

    let (code, answer) = fill(&credentials, "https://git.example.com/a/b", "evil.example.com").await;
    assert_ne!(code, 0, "another host must get nothing");
    assert!(!answer.contains("s3cret"));

    let (code, answer) = fill(&credentials, "https://other.example.com/a/b", "git.example.com").await;
    assert_ne!(code, 0, "a call for another repository must carry no token");
    assert!(!answer.contains("s3cret"));
}

#[test]
fn token_settings_are_read() {
    let env = |name: &str| (name == "GIT_TOKEN").then(|| " abc ".to_owned());
    assert_eq!(Token::parse("env:GIT_TOKEN", env).expect("set"), Token::Value("abc".into()));
    assert!(Token::parse("env:OTHER", env).is_err());
    assert!(Token::parse("file:relative", env).is_err());
    assert!(Token::parse("ghp_plain", env).is_err());
    assert_eq!(format!("{:?}", Token::Value("abc".into())), "Value(***)");
}
