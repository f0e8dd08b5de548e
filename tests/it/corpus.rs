//! Every decoder over the kept corpus, and over what becomes of it by cutting, changing and joining at random.
//!
//! `HOPYARD_FUZZ_RUNS` is the number of changed inputs for each decoder, `HOPYARD_FUZZ_SEED` chooses others.

use std::path::PathBuf;

use hopyard::servers::process_env;

use crate::decoders::Decoder;
use crate::{decoders, decoders_of_the_door};

/// Changed inputs for each decoder in every test run.
const RUNS: u64 = 3_000;
/// Longest changed input, in bytes.
const LONGEST: usize = 4096;

/// What grammars are made of.
const TOKENS: &[&str] = &[
    "\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    ": ",
    "- ",
    "\n",
    "\r\n",
    " ",
    "\t",
    "\\u0000",
    "\\ud800",
    "\0",
    "\u{feff}",
    "\u{202e}",
    "é",
    "null",
    "true",
    "-0",
    "1e400",
    "18446744073709551616",
    "9007199254740993",
    "01",
    "0x1",
    ".inf",
    "~",
    "&a ",
    "*a",
    "<<: ",
    "!!str ",
    "? ",
    "|\n",
    "---\n",
    "#",
    "'",
    "${{ ",
    " }}",
    "&&",
    "||",
    "==",
    "!",
    "(",
    ")",
    "inputs.x",
    "steps.a.status",
    "completed()",
    "\"v\":1",
    "..",
    "//",
    "@",
    "%",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "\r\n\r\n",
    "2026-01-31T12:00:00Z",
    "90s",
    "01890a5d-ac96-774b-bcce-b302099a8057",
];

/// All decoders.
fn all() -> impl Iterator<Item = Decoder> {
    decoders::ALL.iter().chain(decoders_of_the_door::ALL).copied()
}

/// The kept inputs of a decoder, in the order of their names.
fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut kept: Vec<_> = entries.map(|entry| entry.unwrap().path()).map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    kept.sort();
    kept
}

/// Covers the rule that every crash found by fuzzing becomes a file: each is read again by its decoder.
#[test]
fn every_decoder_keeps_its_promises_on_the_corpus() {
    let mut total = 0;
    for (name, decode) in all() {
        let kept = corpus(name);
        assert!(!kept.is_empty(), "{name} has no corpus");
        total += kept.len();
        for (path, bytes) in kept {
            let read = std::panic::catch_unwind(|| decode(&bytes));
            assert!(read.is_ok(), "{} breaks a promise of {name}", path.display());
        }
    }
    assert!(total < 300, "{total} files: a corpus of this size belongs to the fuzzer's own folder");
}

/// The same over inputs that nobody has written; one that breaks a promise is printed, and belongs into the corpus.
#[test]
fn every_decoder_keeps_its_promises_on_changed_inputs() {
    let number = |name: &str| process_env(name).and_then(|text| text.parse::<u64>().ok());
    let runs = number("HOPYARD_FUZZ_RUNS").unwrap_or(RUNS);
    let mut broken = Vec::new();
    for (name, decode) in all() {
        let kept: Vec<Vec<u8>> = corpus(name).into_iter().map(|(_, bytes)| bytes).collect();
        let mut chance = Chance(number("HOPYARD_FUZZ_SEED").unwrap_or(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..runs {
            let input = changed(&kept, &mut chance);
            if std::panic::catch_unwind(|| decode(&input)).is_err() {
                broken.push(format!("{name}: {}", input.escape_ascii()));
                break;
            }
        }
        println!("{name}: {runs} inputs");
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Xorshift: the same numbers on every machine.
struct Chance(u64);

impl Chance {
    /// A number below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or(0) % limit
    }

    /// A place in a text, its end included.
    fn place(&mut self, bytes: &[u8]) -> usize {
        self.below(bytes.len() + 1)
    }
}

/// An input of the corpus after one to eight changes.
fn changed(kept: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = kept[chance.below(kept.len())].clone();
    for _ in 0..=chance.below(8) {
        let (from, to) = (chance.place(&bytes), chance.place(&bytes));
        let (from, to) = (from.min(to), from.max(to));
        match chance.below(8) {
            0 if from < bytes.len() => bytes[from] ^= 1 << chance.below(8),
            1 if from < bytes.len() => bytes[from] = chance.below(256) as u8,
            2 => bytes.truncate(from),
            3 => {
                bytes.drain(from..to.min(from + 16));
            }
            4 => {
                let again = bytes[from..to.min(from + 64)].to_vec();
                insert(&mut bytes, from, &again);
            }
            5 => {
                let other = &kept[chance.below(kept.len())];
                bytes.truncate(from);
                bytes.extend_from_slice(&other[chance.place(other)..]);
            }
            _ => insert(&mut bytes, from, TOKENS[chance.below(TOKENS.len())].as_bytes()),
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

fn insert(bytes: &mut Vec<u8>, at: usize, more: &[u8]) {
    let rest = bytes.split_off(at);
    bytes.extend_from_slice(more);
    bytes.extend(rest);
}
