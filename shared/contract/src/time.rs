//! Instants: any RFC 3339 offset in, UTC with `Z` and microseconds out, 1970 to 2100.

use chrono::{DateTime, Datelike, SecondsFormat, SubsecRound, Utc};

/// Why a text is no instant.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum NotATime {
    /// A date and time without an offset says no instant.
    #[error("a time needs an offset, such as Z or +02:00")]
    TimezoneRequired,
    /// Not RFC 3339.
    #[error("a time is written as RFC 3339, such as 2026-01-31T12:00:00Z")]
    Syntax,
    /// Before 1970, after 2100, or a leap second.
    #[error("a time lies between 1970 and 2100 and has no leap second")]
    Range,
}

impl NotATime {
    /// The stable code of the problem.
    pub fn code(self) -> &'static str {
        match self {
            Self::TimezoneRequired => "timezone_required",
            Self::Syntax => "time_syntax",
            Self::Range => "range",
        }
    }
}

/// Parses an RFC 3339 time with any offset; digits beyond microseconds are cut off.
///
/// # Errors
/// [`NotATime`], by its kind.
pub fn parse(text: &str) -> Result<DateTime<Utc>, NotATime> {
    let bytes = text.as_bytes();
    // chrono also takes a space or a lower-case `t` for the separator, and keeps second 60; neither is meant here.
    if bytes.len() < 19 || bytes[10] != b'T' || text.len() > 64 {
        return Err(NotATime::Syntax);
    }
    if &bytes[17..19] == b"60" {
        return Err(NotATime::Range);
    }
    match DateTime::parse_from_rfc3339(text) {
        Ok(time) => {
            let time = time.with_timezone(&Utc).trunc_subsecs(6);
            if (1970..=2100).contains(&time.year()) { Ok(time) } else { Err(NotATime::Range) }
        }
        Err(_) if chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").is_ok() => Err(NotATime::TimezoneRequired),
        Err(_) => Err(NotATime::Syntax),
    }
}

/// Writes an instant as every surface shows it: `2026-01-31T12:00:00.000000Z`.
pub fn format(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Serde form of a required instant.
pub mod instant {
    use super::{DateTime, Utc};
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes microseconds and `Z`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format(*at))
    }

    /// Reads any offset.
    ///
    /// # Errors
    /// When the text is no instant.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        super::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Serde form of an optional instant.
pub mod maybe {
    use super::{DateTime, Utc};
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes microseconds and `Z`, or null.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(at: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => serializer.serialize_str(&super::format(*at)),
            None => serializer.serialize_none(),
        }
    }

    /// Reads any offset, or null.
    ///
    /// # Errors
    /// When the text is no instant.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
        let text = Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.map(|t| super::parse(&t).map_err(serde::de::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_wrong_form_has_its_code() {
        for (text, wanted) in [
            ("2025-06-22T00:00:00", NotATime::TimezoneRequired),
            ("2025-06-22 00:00:00Z", NotATime::Syntax),
            ("2025-06-22T23:59:60Z", NotATime::Range),
            ("2025-02-30T00:00:00Z", NotATime::Syntax),
            ("2025-06-22T24:00:00Z", NotATime::Syntax),
            ("2025-06-22T00:00:00+99:99", NotATime::Syntax),
            ("0000-01-01T00:00:00Z", NotATime::Range),
            ("2101-01-01T00:00:00Z", NotATime::Range),
            ("", NotATime::Syntax),
            ("1750550400", NotATime::Syntax),
        ] {
            assert_eq!(parse(text), Err(wanted), "{text}");
        }
    }

    proptest! {
        /// Covers F1.
        #[test]
        fn any_offset_is_utc_arithmetic(secs in 86_400i64..4_000_000_000, micros in 0u32..1_000_000, minutes in -1439i32..=1439) {
            let at = DateTime::from_timestamp(secs, micros * 1000).unwrap();
            let offset = chrono::FixedOffset::east_opt(minutes * 60).unwrap();
            let text = at.with_timezone(&offset).to_rfc3339_opts(SecondsFormat::Nanos, false);
            prop_assert_eq!(parse(&text), Ok(at));
            prop_assert_eq!(parse(&format(at)), Ok(at));
        }
    }
}
