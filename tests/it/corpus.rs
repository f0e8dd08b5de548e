//! Every decoder over the kept corpus, and over all that can be made of it by cutting and changing a little.

use std::path::PathBuf;

use crate::{decoders, decoders_of_the_door};

/// The kept inputs of a decoder.
fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|entry| entry.unwrap().path()).map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Covers the rule that every crash found by fuzzing becomes a file: each is read again by its decoder.
#[test]
fn every_decoder_keeps_its_promises_on_the_corpus() {
    let mut total = 0;
    for (name, decode) in decoders::ALL.iter().chain(decoders_of_the_door::ALL) {
        let kept = corpus(name);
        assert!(!kept.is_empty(), "{name} has no corpus");
        total += kept.len();
        for (path, bytes) in kept {
            let read = std::panic::catch_unwind(|| decode(&bytes));
            assert!(read.is_ok(), "{} breaks a promise of {name}", path.display());
            // Cut in the middle, and with one byte more or another one, at places spread over the text.
            let places = (0..bytes.len()).step_by((bytes.len() / 16).max(1));
            for place in places {
                let mut changed = bytes.clone();
                changed[place] ^= 0x11;
                decode(&bytes[..place]);
                decode(&changed);
                changed.insert(place, b'"');
                decode(&changed);
            }
        }
    }
    assert!(total < 300, "{total} files: a corpus of this size belongs to the fuzzer's own folder");
}
