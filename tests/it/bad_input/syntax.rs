//! Bodies that are no JSON, or JSON with a trap that a library passes over.

use super::table::Row;

const SYNTAX: &str = "json_syntax";

/// Rows of this topic.
pub fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (class, body) in TEXTS {
        rows.push(Row::body(*class, *body, 400, SYNTAX, ""));
    }
    for (class, body) in BYTES {
        rows.push(Row::body(*class, *body, 400, SYNTAX, ""));
    }
    for (class, body, pointer) in [
        (9, r#"{"workflow":"a","workflow":"b"}"#, "/workflow"),
        (9, r#"{"v":1,"v":1}"#, "/v"),
        (9, r#"{"workflow":"a","work\u0066low":"a"}"#, "/workflow"),
        (9, r#"{"nmae":1,"nmae":1}"#, "/nmae"),
        (9, r#"{"repo":{"url":"https://h/a","url":"https://h/b"}}"#, "/repo/url"),
        (9, r#"{"":1,"":2}"#, "/"),
        (10, r#"{"workflow":"a","inputs":{"x":1,"x":2}}"#, "/inputs/x"),
        (10, r#"{"workflow":"a","labels":{"t":"1","t":"1"}}"#, "/labels/t"),
        (10, r#"{"workflow":"a","inputs":{"x":[{"a/b":1,"a/b":2}]}}"#, "/inputs/x/0/a~1b"),
        (10, r#"{"definition":{"env":{"A":"1","A":"2"}}}"#, "/definition/env/A"),
    ] {
        rows.push(Row::body(class, body, 400, "duplicate_key", pointer));
    }
    let nested = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
    for text in [
        nested("[", "]", 65),
        nested("{\"a\":", "}", 65),
        nested("[", "]", 128),
        nested("[{\"a\":", "}]", 64),
        nested("{\"a\":", "}", 100_000),
        "[".repeat(100_000),
        format!("{{\"workflow\":\"a\",\"inputs\":{}}}", nested("[", "]", 64)),
    ] {
        rows.push(Row::body(12, text, 400, "too_deep", ""));
    }
    for (class, body, pointer) in [
        (19, r#"{"priority":1e400}"#, "/priority"),
        (19, r#"{"priority":-1e400}"#, "/priority"),
        (20, r#"{"inputs":{"x":1e200000}}"#, "/inputs/x"),
        (20, r#"{"inputs":{"x":[0,1e309]}}"#, "/inputs/x/1"),
        (20, "1e999", ""),
    ] {
        rows.push(Row::body(class, body, 400, "number_range", pointer));
    }
    // A number with more digits than a float can have is none.
    let digits = "9".repeat(400);
    rows.push(Row::body(19, format!(r#"{{"priority":{digits}}}"#), 400, "number_range", "/priority"));
    for (body, pointer) in [
        (r#"{"workflow":"a\u0000"}"#, "/workflow"),
        (r#"{"inputs":{"x":"\u0000"}}"#, "/inputs/x"),
        (r#"{"inputs":{"x":["a","b\u0000c"]}}"#, "/inputs/x/1"),
        (r#"{"labels":{"a":"\u0000"}}"#, "/labels/a"),
        (r#"{"definition":"version: 1\u0000"}"#, "/definition"),
    ] {
        rows.push(Row::body(29, body, 422, "control_char", pointer));
    }
    rows.push(Row::body(29, r#"{"inputs":{"\u0000":1}}"#, 422, "control_char", "/inputs/\u{0}"));
    rows
}

/// Texts that are no JSON.
const TEXTS: &[(u8, &str)] = &[
    (1, ""),
    (1, " "),
    (1, "\r\n\t"),
    (2, "{"),
    (2, "["),
    (2, "\""),
    (2, "tru"),
    (2, "-"),
    (2, r#"{"workflow""#),
    (2, r#"{"workflow":"#),
    (2, r#"{"workflow":"x"#),
    (2, r#"{"workflow":"x","#),
    (2, r#"{"workflow":"x\"#),
    (2, r#"{"inputs":{"a":[1,2"#),
    (3, "{} x"),
    (3, "{}{}"),
    (3, "{},"),
    (3, "null null"),
    (3, "{}]"),
    (3, "1 2"),
    (3, "{'workflow':'x'}"),
    (3, "{workflow:1}"),
    (3, r#"{"workflow":"x",}"#),
    (3, r#"{"after":[1,]}"#),
    (3, r#"{"after":[,1]}"#),
    (3, "{} // a comment"),
    (3, "/* a comment */ {}"),
    (3, r#"{"workflow" "x"}"#),
    (3, "workflow: x"),
    (3, "<run/>"),
    (3, "workflow=x&priority=1"),
    (4, "\u{feff}{}"),
    (4, "\u{feff}"),
    (18, r#"{"priority":NaN}"#),
    (18, r#"{"priority":Infinity}"#),
    (18, r#"{"priority":-Infinity}"#),
    (18, r#"{"priority":undefined}"#),
    (18, "nan"),
    (24, r#"{"priority":01}"#),
    (24, r#"{"priority":-01}"#),
    (24, r#"{"priority":+1}"#),
    (24, r#"{"priority":1.}"#),
    (24, r#"{"priority":.5}"#),
    (24, r#"{"priority":0x10}"#),
    (24, r#"{"priority":1_000}"#),
    (24, r#"{"priority":1e}"#),
    (24, r#"{"priority":--1}"#),
    (24, r#"{"priority":1e+}"#),
    (30, "{\"workflow\":\"a\0\"}"),
    (30, "{\"workflow\":\"a\nb\"}"),
    (30, "{\"workflow\":\"a\tb\"}"),
    (30, "\0"),
    (31, r#"{"workflow":"\ud800"}"#),
    (31, r#"{"workflow":"\udc00"}"#),
    (31, r#"{"workflow":"\ud800\u0041"}"#),
    (31, r#"{"inputs":{"\ud83d":1}}"#),
    (31, r#"{"workflow":"\x41"}"#),
    (31, r#"{"workflow":"\u12"}"#),
];

/// Bytes that are no UTF-8.
const BYTES: &[(u8, &[u8])] = &[
    (5, b"{\0}\0"),
    (5, b"\0{\0}"),
    (5, b"\xff\xfe{\0}\0"),
    (5, b"\xfe\xff\0{\0}"),
    (5, b"{\0\0\0}\0\0\0"),
    (6, b"{\"workflow\":\"\xff\"}"),
    (6, b"{\"workflow\":\"\xc0\x80\"}"),
    (6, b"{\"workflow\":\"\xe2\x82\"}"),
    (6, b"{\"workflow\":\"\xed\xa0\x80\"}"),
    (6, b"{\"workflow\":\"\xf5\x80\x80\x80\"}"),
    (6, b"{\"work\xfflow\":1}"),
    (6, b"\x80"),
];
