//! See `doors::query`.
#![no_main]

#[allow(dead_code, reason = "a target uses one of them")]
#[path = "../doors.rs"]
mod doors;

libfuzzer_sys::fuzz_target!(|data: &[u8]| doors::query(data));
