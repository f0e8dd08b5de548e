//! What looks odd and is right: it is accepted and comes back as it was sent.

use serde_json::{Value, json};

use crate::harness::Harness;

/// Submits each value, reads it back, and returns the runs.
pub async fn check(harness: &Harness) -> Vec<String> {
    let mut runs = Vec::new();
    let family = "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} é e\u{301} \u{10ffff} \u{430}";
    for (pointer, sent, back) in [
        // Class 27: integers are kept exactly, also beyond the 53 bits of a float.
        ("/inputs/n", json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_993_u64)),
        ("/inputs/n", json!(i64::MIN), json!(i64::MIN)),
        ("/inputs/any", json!(u64::MAX), json!(u64::MAX)),
        ("/inputs/any", json!(0.1), json!(0.1)),
        ("/inputs/any", json!(1e300), json!(1e300)),
        // Class 36: free text is kept byte for byte; line breaks and direction marks are its own business.
        ("/inputs/text", json!(family), json!(family)),
        ("/inputs/text", json!("a\nb\r\n\t\u{1b}[2J\u{202e}"), json!("a\nb\r\n\t\u{1b}[2J\u{202e}")),
        ("/inputs/any", json!({ "</script>": ["\u{2028}", null, true] }), json!({ "</script>": ["\u{2028}", null, true] })),
        ("/labels/a~1b é", json!("\u{1f600}"), json!("\u{1f600}")),
        // Class 45: digits beyond microseconds are cut off; any offset is read.
        ("/start_at", json!("2099-06-22T00:00:00.123456789+02:00"), json!("2099-06-21T22:00:00.123456Z")),
        ("/start_at", json!("2024-02-29T23:59:59-00:00"), json!("2024-02-29T23:59:59.000000Z")),
        // Class 59 and 51: names and paths are read when the run has a workspace.
        ("/repo/ref", json!("refs/heads/main"), json!("refs/heads/main")),
        ("/repo/url", json!("/etc"), json!("/etc")),
    ] {
        let request = request_with(pointer, sent);
        let run = harness.submit(request.clone()).await;
        let told = harness.run(&run).await;
        assert_eq!(told.pointer(pointer), Some(&back), "{request}: {told:#}");
        runs.push(run);
    }
    runs
}

fn request_with(pointer: &str, value: Value) -> Value {
    let mut request = json!({ "workflow": "sample" });
    if pointer.starts_with("/repo") {
        request["repo"] = json!({ "url": "https://example.org/r" });
    }
    let mut place = &mut request;
    for token in pointer.split('/').skip(1) {
        place = &mut place[token.replace("~1", "/").replace("~0", "~")];
    }
    *place = value;
    request
}
