//! Numbers that do not fit, or are of another kind than they look.

use super::table::Row;

/// Rows of this topic.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (class, number, code) in [
        (21, "-1", "range"),
        (21, "-9223372036854775808", "range"),
        (22, "-0", "type"),
        (22, "-0.0", "type"),
        (23, "1.0", "type"),
        (23, "1e3", "type"),
        (23, "1E0", "type"),
        (23, "0.5", "type"),
        (23, "1e-3", "type"),
        (26, "4", "range"),
        (26, "4294967296", "range"),
        (26, "9007199254740993", "range"),
        (26, "9223372036854775808", "range"),
        (26, "18446744073709551615", "range"),
        (26, "18446744073709551616", "range"),
        (26, "-18446744073709551616", "range"),
        (26, "340282366920938463463374607431768211456", "range"),
    ] {
        rows.push(Row::run(class, format!(r#""priority":{number}"#), code, "/priority"));
    }
    for (class, fields, code, pointer) in [
        (21, r#""v":0"#, "range", "/v"),
        (26, r#""v":2"#, "range", "/v"),
        (26, r#""v":4294967297"#, "range", "/v"),
        (23, r#""v":1.0"#, "type", "/v"),
        (21, r#""budget":{"turns":0}"#, "range", "/budget/turns"),
        (21, r#""budget":{"turns":-1}"#, "range", "/budget/turns"),
        (26, r#""budget":{"turns":1000000001}"#, "range", "/budget/turns"),
        (23, r#""budget":{"turns":1.5}"#, "type", "/budget/turns"),
        (21, r#""budget":{"cost_usd":-1}"#, "range", "/budget/cost_usd"),
        (21, r#""budget":{"cost_usd":"-0.01"}"#, "range", "/budget/cost_usd"),
        (26, r#""budget":{"cost_usd":1000001}"#, "range", "/budget/cost_usd"),
        (26, r#""budget":{"cost_usd":0.1234567}"#, "range", "/budget/cost_usd"),
        (26, r#""budget":{"cost_usd":"1e3"}"#, "range", "/budget/cost_usd"),
        (26, r#""budget":{"cost_usd":"NaN"}"#, "range", "/budget/cost_usd"),
        (26, r#""budget":{"cost_usd":"1,50"}"#, "range", "/budget/cost_usd"),
        (26, r#""budget":{"cost_usd":" 1"}"#, "range", "/budget/cost_usd"),
        (26, r#""budget":{"cost_usd":"+1"}"#, "range", "/budget/cost_usd"),
        (21, r#""budget":{"cost_microusd":-1}"#, "range", "/budget/cost_microusd"),
        (26, r#""budget":{"cost_microusd":1000000000001}"#, "range", "/budget/cost_microusd"),
        (23, r#""budget":{"cost_microusd":0.5}"#, "type", "/budget/cost_microusd"),
        (28, r#""budget":{"time":"0s"}"#, "range", "/budget/time"),
        (28, r#""budget":{"time":"367d"}"#, "range", "/budget/time"),
        (28, r#""budget":{"time":"999999999d"}"#, "range", "/budget/time"),
        (28, r#""budget":{"time":"9999999999s"}"#, "pattern", "/budget/time"),
        (28, r#""budget":{"time":"1 h"}"#, "pattern", "/budget/time"),
        (28, r#""budget":{"time":"+1h"}"#, "pattern", "/budget/time"),
        (28, r#""budget":{"time":"-1h"}"#, "pattern", "/budget/time"),
        (28, r#""budget":{"time":"1.5h"}"#, "pattern", "/budget/time"),
        (28, r#""budget":{"time":"1h30m"}"#, "pattern", "/budget/time"),
        (28, r#""budget":{"time":"PT1H"}"#, "pattern", "/budget/time"),
        (28, r#""budget":{"time":"1H"}"#, "pattern", "/budget/time"),
        (28, r#""budget":{"time":"٣s"}"#, "pattern", "/budget/time"),
        (28, r#""budget":{"time":""}"#, "pattern", "/budget/time"),
        // Values of inputs are checked by the schema of the workflow; what was given is not repeated.
        (25, r#""inputs":{"n":"5"}"#, "invalid_input", "/inputs/n"),
        (23, r#""inputs":{"n":1.5}"#, "invalid_input", "/inputs/n"),
        (26, r#""inputs":{"n":18446744073709551616}"#, "invalid_input", "/inputs/n"),
        (26, r#""inputs":{"n":-9223372036854775809}"#, "invalid_input", "/inputs/n"),
        (26, r#""inputs":{"n":1e30}"#, "invalid_input", "/inputs/n"),
        (25, r#""inputs":{"n":null}"#, "invalid_input", "/inputs/n"),
        (25, r#""inputs":{"n":[1]}"#, "invalid_input", "/inputs/n"),
        (11, r#""inputs":{"m":1}"#, "unknown_input", "/inputs/m"),
        (25, r#""inputs":{"text":7}"#, "invalid_input", "/inputs/text"),
        (33, r#""inputs":{"short":"123456789"}"#, "invalid_input", "/inputs/short"),
        (25, r#""inputs":{"free":[]}"#, "invalid_input", "/inputs/free"),
        (25, r#""inputs":{"free":{"k":1}}"#, "invalid_input", "/inputs/free/k"),
    ] {
        rows.push(Row::run(class, fields, code, pointer));
    }
    rows
}
