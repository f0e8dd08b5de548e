//! "Did you mean": the nearest known word, when it is near enough to be a slip.

/// ` (did you mean …?)` with the nearest of `known`, or nothing.
pub(crate) fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    // A long word is no slip, and distances cost the product of the lengths.
    if word.len() > 64 {
        return String::new();
    }
    let folded = word.to_ascii_lowercase().replace('-', "_");
    let allowed = 1 + word.len() / 4;
    let nearest = known.into_iter().map(|k| (strsim::damerau_levenshtein(&folded, k), k)).min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((distance, name)) if distance <= allowed && distance < name.len() => format!("; did you mean `{name}`?"),
        _ => String::new(),
    }
}

/// A text from outside, short enough for a sentence.
pub(crate) fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().nth(64).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let known = ["needs", "timeout", "idle_timeout", "shell", "if"];
        assert_eq!(did_you_mean("need", known), "; did you mean `needs`?");
        assert_eq!(did_you_mean("timeuot", known), "; did you mean `timeout`?");
        assert_eq!(did_you_mean("Idle-Timeout", known), "; did you mean `idle_timeout`?");
        for word in ["run", "x", "", "parallel", &"a".repeat(1000)] {
            assert_eq!(did_you_mean(word, known), "", "{word}");
        }
    }

    #[test]
    fn what_is_shown_is_short_and_printable() {
        assert_eq!(short("a\nb"), "a\\nb");
        assert_eq!(short(&"é".repeat(100)).chars().count(), 65);
    }
}
