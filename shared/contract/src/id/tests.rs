//! Facts about identifiers.

use super::*;

#[test]
fn a_run_id_has_one_written_form() {
    let id = RunId::mint();
    let text = id.to_string();
    assert_eq!(text.parse(), Ok(id));
    for other in [text.to_uppercase(), text.replace('-', ""), format!("{{{text}}}"), format!("urn:uuid:{text}")] {
        assert_eq!(other.parse::<RunId>(), Err(NotARunId), "{other}");
    }
    assert_eq!("00000000-0000-0000-0000-000000000000".parse::<RunId>(), Err(NotARunId));
    assert_eq!("0b8f0a3e-9a3c-4a52-8f4b-6a0f53a3b1c2".parse::<RunId>(), Err(NotARunId), "version 4");
}

/// Covers A9.
#[test]
fn ten_million_ids_minted_on_eight_threads_are_distinct() {
    const EACH: usize = 1_250_000;
    let threads: Vec<_> = (0..8).map(|_| std::thread::spawn(|| (0..EACH).map(|_| RunId::mint().as_uuid()).collect::<Vec<_>>())).collect();
    let mut minted: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    assert_eq!(minted.len(), 8 * EACH);
    minted.sort_unstable();
    let twice = minted.windows(2).find(|pair| pair[0] == pair[1]);
    assert_eq!(twice, None);
}

#[test]
fn a_redelivered_bus_message_gives_the_same_ids() {
    let first = RunId::of_bus_message(1_700_000_000_123_456_789, 42, 0);
    assert_eq!(first, RunId::of_bus_message(1_700_000_000_123_456_789, 42, 0));
    assert_eq!(first.unix_millis(), 1_700_000_000_123);
    assert_ne!(first, RunId::of_bus_message(1_700_000_000_123_456_789, 42, 1));
    assert_ne!(first, RunId::of_bus_message(1_700_000_000_123_456_790, 42, 0));
    assert_ne!(first, RunId::of_bus_message(1_700_000_000_123_456_789, 43, 0));
    assert_eq!(first.to_string().parse(), Ok(first));
}

#[test]
fn names_are_safe_subject_tokens() {
    for good in ["a", "fix-bug", "0_1", &"a".repeat(64)] {
        assert!(good.parse::<Name>().is_ok(), "{good}");
    }
    for bad in [".", "..", "-x", "a/b", "a\\b", "CON", "a.", "*", ">", "a.b", "а", "Ａ", "a b", "a\n", "\u{202e}"] {
        assert_eq!(bad.parse::<Name>(), Err(NotAName::Pattern), "{bad:?}");
    }
    assert_eq!("".parse::<Name>(), Err(NotAName::Length));
    assert_eq!("a".repeat(65).parse::<Name>(), Err(NotAName::Length));
}
