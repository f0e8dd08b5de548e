//! Durations as users write them: `90s`, `10m`, `2h`, `1d`, `250ms`; kept in milliseconds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time of at least 1 ms and at most 366 days, written as a number and one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "String", extend("pattern" = r"^[0-9]{1,9}(ms|s|m|h|d)$"))]
pub struct Span(u64);

/// Why a text is no [`Span`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotASpan {
    /// Not a number followed by a unit.
    #[error("a duration is a whole number and a unit: ms, s, m, h or d, such as 90s")]
    Pattern,
    /// Zero, or more than 366 days.
    #[error("a duration lies between 1ms and 366d")]
    Range,
}

const MAX_MILLIS: u64 = 366 * 24 * 3600 * 1000;

impl Span {
    /// A length in milliseconds, held within the allowed range.
    pub fn from_millis(millis: u64) -> Self {
        Self(millis.clamp(1, MAX_MILLIS))
    }

    /// The length in milliseconds.
    pub fn millis(self) -> u64 {
        self.0
    }

    /// The length for timers.
    pub fn std(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// The length for arithmetic on instants.
    pub fn delta(self) -> chrono::TimeDelta {
        chrono::TimeDelta::milliseconds(i64::try_from(self.0).unwrap_or(i64::MAX / 2))
    }
}

impl FromStr for Span {
    type Err = NotASpan;

    fn from_str(text: &str) -> Result<Self, NotASpan> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > 9 {
            return Err(NotASpan::Pattern);
        }
        let number: u64 = text[..digits].parse().map_err(|_| NotASpan::Pattern)?;
        let unit = match &text[digits..] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(NotASpan::Pattern),
        };
        match number.checked_mul(unit) {
            Some(millis) if (1..=MAX_MILLIS).contains(&millis) => Ok(Self(millis)),
            _ => Err(NotASpan::Range),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
            if self.0.is_multiple_of(size) {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        write!(f, "{}ms", self.0)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_back_as_written() {
        for text in ["250ms", "90s", "10m", "2h", "7d"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("60s".parse::<Span>().unwrap().to_string(), "1m");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "s", "10", "1.5s", "-1s", "1 s", "1w", "9999999999s"] {
            assert_eq!(text.parse::<Span>(), Err(NotASpan::Pattern), "{text}");
        }
        for text in ["0s", "367d"] {
            assert_eq!(text.parse::<Span>(), Err(NotASpan::Range), "{text}");
        }
    }
}
