//! Times, in bodies and in queries.

use super::table::Row;

/// Texts that are no instant, and why.
const TIMES: &[(u8, &str, &str)] = &[
    (40, "2025-06-22T00:00:00", "timezone_required"),
    (40, "2025-06-22T00:00:00.123", "timezone_required"),
    (41, "2025-06-22 00:00:00Z", "time_syntax"),
    (41, "2025-06-22t00:00:00Z", "time_syntax"),
    (41, "2025-06-22T00:00:00 Z", "time_syntax"),
    (41, "2025-06-22T00:00:00+0200", "time_syntax"),
    (41, "2025-06-22T00:00:00+02", "time_syntax"),
    (41, "2025-06-22T00:00Z", "time_syntax"),
    (41, "2025-06-22", "time_syntax"),
    (41, "20250622T000000Z", "time_syntax"),
    (41, "Sun, 22 Jun 2025 00:00:00 GMT", "time_syntax"),
    (41, "tomorrow", "time_syntax"),
    (41, "", "time_syntax"),
    (41, "2025-06-22T00:00:00Zx", "time_syntax"),
    (41, "２025-06-22T00:00:00Z", "time_syntax"),
    (41, "2025-06-22T00:00:0éZ", "time_syntax"),
    (42, "2025-06-22T23:59:60Z", "range"),
    (42, "2016-12-31T23:59:60.5Z", "range"),
    (43, "2025-02-30T00:00:00Z", "time_syntax"),
    (43, "2025-13-01T00:00:00Z", "time_syntax"),
    (43, "2025-00-01T00:00:00Z", "time_syntax"),
    (43, "2025-06-22T24:00:00Z", "time_syntax"),
    (43, "2025-06-22T00:60:00Z", "time_syntax"),
    (43, "2025-06-22T00:00:61Z", "time_syntax"),
    (43, "2025-06-22T00:00:00+99:99", "time_syntax"),
    (43, "2023-02-29T00:00:00Z", "time_syntax"),
    (44, "0000-01-01T00:00:00Z", "range"),
    (44, "1969-12-31T23:59:59Z", "range"),
    (44, "2101-01-01T00:00:00Z", "range"),
    (44, "9999-12-31T23:59:59Z", "range"),
    (44, "-0001-01-01T00:00:00Z", "time_syntax"),
    (44, "+262142-01-01T00:00:00Z", "time_syntax"),
];

/// Rows of this topic.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (class, text, code) in TIMES {
        rows.push(Row::run(*class, format!(r#""start_at":{}"#, serde_json::json!(text)), code, "/start_at"));
        if text.is_ascii() {
            let escaped = text.replace('+', "%2B").replace(' ', "%20");
            // In a query a space after the seconds is the plus sign of an offset that nobody escaped.
            if !text.contains("00 Z") {
                rows.push(Row::get(*class, format!("/api/v1/runs?created_after={escaped}"), 422, code).at("/created_after"));
            }
        }
    }
    for (query, pointer) in [
        ("runs?created_after=2026-01-02T00:00:00Z&created_before=2026-01-01T00:00:00Z", "/created_before"),
        ("runs?created_after=1980-01-01T00:00:00Z&created_before=2090-01-01T00:00:00Z", "/created_before"),
        ("usage?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "/to"),
        ("usage?from=1980-01-01T00:00:00Z&to=2090-01-01T00:00:00Z", "/to"),
    ] {
        rows.push(Row::get(47, format!("/api/v1/{query}"), 422, "range").at(pointer));
    }
    rows
}
