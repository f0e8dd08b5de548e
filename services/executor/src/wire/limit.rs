//! How long a provider that takes no calls wants to be left alone: by its headers, else by the body of its refusal.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use crate::json::{at, items, number, text};

/// What is said of a quota that is used up: it is not filled again soon, and nobody tells when.
const QUOTA: Duration = Duration::from_secs(3600);

/// Whether a status says that a call may be made later.
pub(crate) fn is_later(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 503 | 529)
}

/// The pause that a refusal with such a status asks for; `None` when it asks for none.
pub(crate) fn pause(headers: &HeaderMap, body: &[u8], now: DateTime<Utc>) -> Option<Duration> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // Of a subscription: the window that is used up is told apart from the pause of one call.
    if header("anthropic-ratelimit-unified-status") == Some("rejected")
        && let Some(reset) = header("anthropic-ratelimit-unified-reset").and_then(|reset| reset.parse().ok())
    {
        return until(reset, now);
    }
    if let Some(ms) = header("retry-after-ms").and_then(|ms| ms.parse().ok()) {
        return Some(Duration::from_millis(ms));
    }
    if let Some(after) = header("retry-after") {
        if let Ok(seconds) = after.parse::<f64>() {
            return Duration::try_from_secs_f64(seconds).ok();
        }
        if let Ok(date) = DateTime::parse_from_rfc2822(after) {
            return (date.to_utc() - now).to_std().ok();
        }
    }
    of_body(&serde_json::from_slice(body).ok()?, now)
}

fn of_body(body: &Value, now: DateTime<Utc>) -> Option<Duration> {
    // ChatGPT's plans.
    if let Some(seconds) = number(body, &["error", "resets_in_seconds"]) {
        return Some(Duration::from_secs(seconds));
    }
    if let Some(reset) = number(body, &["error", "resets_at"]) {
        return until(i64::try_from(reset).ok()?, now);
    }
    // Google's APIs: `{"@type": "…RetryInfo", "retryDelay": "34.07s"}`.
    let delay = items(body, &["error", "details"]).iter().find_map(|detail| text(detail, &["retryDelay"]));
    if let Some(seconds) = delay.and_then(|delay| delay.trim_end_matches('s').parse().ok()) {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let code = at(body, &["error", "code"]).and_then(Value::as_str);
    (code == Some("insufficient_quota")).then_some(QUOTA)
}

/// Seconds since 1970, from now on; a moment that has passed asks for nothing.
fn until(reset: i64, now: DateTime<Utc>) -> Option<Duration> {
    let left = DateTime::from_timestamp(reset, 0)? - now;
    left.max(TimeDelta::zero()).to_std().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Headers and body of a refusal, and the milliseconds that it asks for.
    type Refusal<'a> = (&'a [(&'static str, &'static str)], Value, Option<u64>);

    #[test]
    fn a_pause_is_read_from_whatever_tells_it() {
        let now = DateTime::from_timestamp(1_760_000_000, 0).unwrap();
        let rejected = [("anthropic-ratelimit-unified-status", "rejected"), ("anthropic-ratelimit-unified-reset", "1760018000")];
        let cases: [Refusal<'_>; 10] = [
            (&[("retry-after-ms", "1500")], json!({}), Some(1500)),
            (&[("retry-after", "2.5")], json!({}), Some(2500)),
            (&[("retry-after", "Thu, 09 Oct 2025 08:54:20 GMT")], json!({}), Some(60_000)),
            (&[("retry-after", "-3")], json!({}), None),
            (&rejected, json!({}), Some(18_000_000)),
            (&[], json!({ "error": { "type": "usage_limit_reached", "resets_in_seconds": 7200 } }), Some(7_200_000)),
            (&[], json!({ "error": { "resets_at": 1_760_000_100 } }), Some(100_000)),
            (&[], json!({ "error": { "details": [{ "retryDelay": "34.5s" }] } }), Some(34_500)),
            (&[], json!({ "error": { "code": "insufficient_quota" } }), Some(3_600_000)),
            (&[], json!({ "error": { "message": "slow down" } }), None),
        ];
        for (headers, body, expected) in cases {
            let map = headers.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect();
            let found = pause(&map, body.to_string().as_bytes(), now);
            assert_eq!(found, expected.map(Duration::from_millis), "{headers:?} {body}");
        }
    }
}
