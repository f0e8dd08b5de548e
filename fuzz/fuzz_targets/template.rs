//! See `decoders::template`.
#![no_main]

#[allow(dead_code, reason = "a target uses one of them")]
#[path = "../decoders.rs"]
mod decoders;

libfuzzer_sys::fuzz_target!(|data: &[u8]| decoders::template(data));
