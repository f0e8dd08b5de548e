//! Ids and paths.

use super::table::Row;

/// Forms of a run id that a library would read, and texts that are none.
const IDS: &[(u8, &str)] = &[
    (37, "01890A5D-AC96-774B-BCCE-B302099A8057"),
    (37, "01890a5dac96774bbcceb302099a8057"),
    (37, "{01890a5d-ac96-774b-bcce-b302099a8057}"),
    (37, "urn:uuid:01890a5d-ac96-774b-bcce-b302099a8057"),
    (37, "01890a5d-ac96-474b-bcce-b302099a8057"),
    (37, "01890a5d-ac96-774b-bcce-b302099a805"),
    (37, "01890a5d-ac96-774b-bcce-b302099a80570"),
    (37, " 01890a5d-ac96-774b-bcce-b302099a8057"),
    (37, "x"),
    (37, ""),
    (37, "1"),
    (37, "../../etc/passwd"),
    (38, "00000000-0000-0000-0000-000000000000"),
    (38, "ffffffff-ffff-ffff-ffff-ffffffffffff"),
];

/// Rows of this topic.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (class, id) in IDS {
        rows.push(Row::run(*class, format!(r#""after":["{id}"]"#), "pattern", "/after/0"));
        rows.push(Row::run(*class, format!(r#""rerun_of":"{id}""#), "pattern", "/rerun_of"));
        let escaped = id.replace('{', "%7B").replace('}', "%7D").replace(' ', "%20").replace('/', "%2F");
        if !escaped.is_empty() {
            rows.push(Row::get(*class, format!("/api/v1/runs/{escaped}"), 404, "unknown_run"));
        }
    }
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    rows.push(Row::run(37, format!(r#""after":["{id}","{id}"]"#), "duplicate", "/after/1"));
    // Ids of runs that are not there, or belong to another tenant.
    rows.push(Row::run(38, format!(r#""after":["{id}"]"#), "unknown_run", "/after/0"));
    for tail in ["", "/events", "/explain", "/diff", "/bundle", "/result", "/artifacts", "/artifacts/patch", "/steps/a/attempts/1/logs"] {
        rows.push(Row::get(38, format!("/api/v1/runs/{id}{tail}"), 404, "unknown_run"));
        rows.push(Row::get(38, format!("/api/v1/namespaces/other/runs/{{run}}{tail}"), 404, "unknown_run"));
    }
    for action in ["cancel", "rerun"] {
        rows.push(Row::http(38, "POST", format!("/api/v1/runs/{id}/{action}"), &[], b"", 404, "unknown_run"));
        rows.push(Row::http(38, "POST", format!("/api/v1/namespaces/other/runs/{{run}}/{action}"), &[], b"", 404, "unknown_run"));
        rows.push(Row::http(37, "POST", format!("/api/v1/runs/X/{action}"), &[], b"", 404, "unknown_run"));
    }
    for (path, code) in [
        ("runs/{run}/steps/nope/attempts/1/logs", "unknown_step"),
        ("runs/{run}/steps/a%20b/attempts/1/logs", "unknown_step"),
        ("runs/{run}/steps/main/attempts/1/logs", "unknown_attempt"),
        ("runs/{run}/steps/main/attempts/0/logs", "unknown_attempt"),
        ("runs/{run}/steps/main/attempts/-1/logs", "unknown_attempt"),
        ("runs/{run}/steps/main/attempts/x/logs/stream", "unknown_attempt"),
        ("runs/{run}/steps/main/attempts/99999999999/logs", "unknown_attempt"),
        ("receipts/0", "unknown_receipt"),
        ("receipts/-1", "unknown_receipt"),
        ("receipts/017", "unknown_receipt"),
        ("receipts/999999", "unknown_receipt"),
        ("receipts/18446744073709551616", "unknown_receipt"),
        ("receipts/x", "unknown_receipt"),
        ("dead-letters/0", "unknown_dead_letter"),
        ("dead-letters/x", "unknown_dead_letter"),
        ("dead-letters/99999999", "unknown_dead_letter"),
        ("dead-letters/18446744073709551616", "unknown_dead_letter"),
        ("workflows/nowhere", "unknown_workflow"),
        ("workflows/A", "unknown_workflow"),
        ("workflows/a%2Fb", "unknown_workflow"),
        ("workflows/nowhere/versions", "unknown_workflow"),
        ("workflows/%F0%9F%98%80", "unknown_workflow"),
        ("schemas/nope", "unknown_schema"),
        ("schemas/..%2Frun", "unknown_schema"),
        ("nothing", "unknown_route"),
        ("runs/", "unknown_route"),
        ("runs/../admin", "unknown_route"),
        ("runs/%2e%2e/admin", "unknown_route"),
        ("runs//", "unknown_route"),
        ("namespaces/BAD/runs", "unknown_namespace"),
        ("namespaces/a.b/runs", "unknown_namespace"),
        ("namespaces/*/runs", "unknown_namespace"),
        ("namespaces/%3E/runs", "unknown_namespace"),
        ("namespaces//runs", "unknown_namespace"),
        ("namespaces/default", "unknown_namespace"),
        ("namespaces/default/executors", "unknown_route"),
        ("namespaces/default/nothing", "unknown_route"),
    ] {
        rows.push(Row::get(39, format!("/api/v1/{path}"), 404, code));
    }
    for path in [
        "/",
        "//",
        "//api/v1/runs",
        "/api/v1",
        "/api",
        "/api/v2/runs",
        "/API/V1/RUNS",
        "/.env",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/api/v1/runs%2F",
    ] {
        rows.push(Row::get(39, path, 404, "unknown_route"));
    }
    rows.push(Row::get(39, "/api/v1/runs/%00", 404, "unknown_run"));
    rows.push(Row::get(39, "/api/v1/runs/%0a", 404, "unknown_run"));
    rows.push(Row::get(39, "/api/v1/runs/%ff", 400, "bad_request"));
    rows.push(Row::get(39, "/api/v1/workflows/%c0%80", 400, "bad_request"));
    rows
}
