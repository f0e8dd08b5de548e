//! Times and lists: any offset names the same instant, pages go on where they ended, and what is no time is refused.

use chrono::{DateTime, FixedOffset, SecondsFormat, Utc};
use serde_json::{Value, json};

use crate::harness::api::shell;
use crate::harness::{Harness, Setup};

/// Ids on all pages of a list, newest first.
async fn ids(harness: &Harness, query: &str, limit: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = harness.get(&format!("/api/v1/runs?limit={limit}{query}{cursor}")).await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit && items.iter().all(|i| i.get("steps").is_none()));
        found.extend(items.iter().map(|i| i["id"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

/// Covers F1, F2 and F3.
#[tokio::test]
async fn a_range_means_the_same_in_every_offset() {
    let harness = Harness::start(Setup::default()).await;
    let mut runs = Vec::new();
    for _ in 0..5 {
        let run = harness.submit(shell("true")).await;
        harness.wait_completed(&run).await;
        runs.push(run);
    }
    runs.reverse();
    assert_eq!(ids(&harness, "", 200).await, runs);
    let middle: DateTime<Utc> = harness.run(&runs[2]).await["created_at"].as_str().unwrap().parse().unwrap();
    for minutes in [0, 60, -60, 330, 345, 840, -720, 1, -1439 / 2] {
        let local = middle.with_timezone(&FixedOffset::east_opt(minutes * 60).unwrap()).to_rfc3339_opts(SecondsFormat::Micros, false);
        for text in [local.clone(), local.replace('+', "%2B")] {
            assert_eq!(ids(&harness, &format!("&created_after={text}"), 200).await, runs[..3], "after {text}");
            assert_eq!(ids(&harness, &format!("&created_before={text}"), 200).await, runs[3..], "before {text}");
        }
    }
    let zulu = middle.to_rfc3339_opts(SecondsFormat::Micros, true);
    assert_eq!(ids(&harness, &format!("&created_after={zulu}"), 200).await, runs[..3]);
    for (text, code) in [
        ("2025-06-22T00:00:00", "timezone_required"),
        ("2025-06-22%2000:00:00Z", "time_syntax"),
        ("2025-02-30T00:00:00Z", ""),
        ("2025-06-22T23:59:60Z", "range"),
        ("1750550400", "time_syntax"),
    ] {
        let refused = harness.http("GET", &format!("/api/v1/runs?created_after={text}"), Value::Null).await.expect(422).json();
        assert!(code.is_empty() || refused["code"] == code, "{text}: {refused}");
        assert_eq!(refused["pointer"], "/created_after");
    }
    harness.close().await;
}

/// Covers F4: pages of any size show every run once, also while runs are added, and filters hold on every page.
#[tokio::test]
async fn pages_go_on_where_they_ended() {
    let harness = Harness::start(Setup::default()).await;
    let mut runs = Vec::new();
    for i in 0..7 {
        let mut request = shell(if i % 2 == 0 { "true" } else { "false" });
        request["labels"] = json!({ "half": if i % 2 == 0 { "even" } else { "odd" } });
        runs.push(harness.submit(request).await);
    }
    for run in &runs {
        harness.wait_final(run).await;
    }
    runs.reverse();
    for limit in [1, 2, 3, 7, 200] {
        assert_eq!(ids(&harness, "", limit).await, runs, "{limit}");
    }
    let even: Vec<String> = runs.iter().step_by(2).cloned().collect();
    assert_eq!(ids(&harness, "&label=half=even", 1).await, even);
    assert_eq!(ids(&harness, "&status=completed", 2).await, even);
    assert_eq!(ids(&harness, "&status=success,failed", 2).await, runs, "words of other systems are understood");
    let page = harness.get("/api/v1/runs?limit=2").await;
    let cursor = page["next_cursor"].as_str().unwrap().to_owned();
    harness.wait_completed(&harness.submit(shell("true")).await).await;
    let next = harness.get(&format!("/api/v1/runs?limit=2&cursor={cursor}")).await;
    assert_eq!(next["items"][0]["id"], runs[2], "a run that came meanwhile moves nothing");
    harness.http("GET", &format!("/api/v1/namespaces/other/runs?cursor={cursor}"), Value::Null).await.problem(400, "bad_cursor");
    harness.http("GET", "/api/v1/runs?cursor=AAAA", Value::Null).await.problem(400, "bad_cursor");
    harness.close().await;
}
