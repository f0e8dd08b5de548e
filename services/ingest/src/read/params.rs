//! Query parameters: each is known, given at most once unless it is a list, and read by one rule for its kind.

use axum::extract::{FromRequestParts, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::Name;
use hopyard_contract::id::NotAName;
use hopyard_contract::time;

use crate::problem::{Answer, Refusal};

/// Most items of a page.
pub(crate) const MAX_LIMIT: u32 = 200;
/// Items of a page when the request names no number.
pub(crate) const DEFAULT_LIMIT: u32 = 50;
/// Longest value of a parameter in bytes.
const MAX_VALUE: usize = 1024;
/// Longest range of time that one request may span.
const MAX_RANGE_DAYS: i64 = 36_500;

/// One end of a range of time, if it is given.
pub(crate) type Bound = Option<DateTime<Utc>>;

/// The decoded query of a request.
#[derive(Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        Self::of_uri(&parts.uri)
    }
}

impl Params {
    fn of_uri(uri: &Uri) -> Answer<Self> {
        match Query::<Vec<(String, String)>>::try_from_uri(uri) {
            Ok(Query(pairs)) => Ok(Self(pairs)),
            Err(error) => Err(Refusal::new(400, "bad_query", format!("the query cannot be read: {error}"))),
        }
    }

    /// Reads the text after the question mark.
    ///
    /// # Errors
    /// 400 `bad_query` for what is no query.
    pub fn of_query(query: &str) -> Answer<Self> {
        let uri: Uri = format!("/?{query}").parse().map_err(|_| Refusal::new(400, "bad_query", "the query cannot be read"))?;
        Self::of_uri(&uri)
    }

    /// Refuses what is neither among `single` nor among `lists`, and what is given twice but no list.
    pub(crate) fn allow(&self, single: &[&str], lists: &[&str]) -> Answer<()> {
        for (i, (name, value)) in self.0.iter().enumerate() {
            let list = lists.contains(&name.as_str());
            if !list && !single.contains(&name.as_str()) {
                let known = [single, lists].concat();
                let hint = if known.is_empty() { "there are none here".to_owned() } else { format!("known here: {}", known.join(", ")) };
                let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
                return Err(Refusal::field(400, "unknown_parameter", "", format!("the parameter `{shown}` is not known; {hint}")));
            }
            if !list && self.0[..i].iter().any(|(n, _)| n == name) {
                return Err(bad(name, 400, "repeated_parameter", "is given more than once"));
            }
            if value.chars().any(char::is_control) {
                return Err(bad(name, 422, "control_char", "has a control character"));
            }
            if value.len() > MAX_VALUE {
                return Err(bad(name, 422, "length", "is longer than 1024 bytes"));
            }
        }
        Ok(())
    }

    /// The value of a parameter.
    pub(crate) fn one(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// All values of a list.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// `limit`, from 1 to [`MAX_LIMIT`].
    pub(crate) fn limit(&self, default: u32) -> Answer<u32> {
        match self.one("limit") {
            None => Ok(default),
            Some(text) => match number(text) {
                Some(limit) if (1..=u64::from(MAX_LIMIT)).contains(&limit) => Ok(u32::try_from(limit).unwrap_or(MAX_LIMIT)),
                _ => Err(bad("limit", 400, "bad_limit", "is a number from 1 to 200")),
            },
        }
    }

    /// A name.
    pub(crate) fn name(&self, parameter: &str) -> Answer<Option<Name>> {
        self.one(parameter)
            .map(|text| {
                text.parse().map_err(|error: NotAName| {
                    let code = if error == NotAName::Length { "length" } else { "pattern" };
                    Refusal::field(422, code, &pointer(parameter), format!("the parameter `{parameter}`: {error}"))
                })
            })
            .transpose()
    }

    /// An instant.
    pub(crate) fn time(&self, parameter: &str) -> Answer<Option<DateTime<Utc>>> {
        self.one(parameter)
            .map(|text| {
                time::parse(&with_plus(text)).map_err(|error| {
                    Refusal::field(422, error.code(), &pointer(parameter), format!("the parameter `{parameter}`: {error}"))
                })
            })
            .transpose()
    }

    /// Two instants in order, at most 100 years apart.
    pub(crate) fn range(&self, from: &str, to: &str) -> Answer<(Bound, Bound)> {
        let (start, end) = (self.time(from)?, self.time(to)?);
        check_range(start.zip(end), to)?;
        Ok((start, end))
    }
}

/// Refuses a range that ends before it starts, or spans 100 years.
pub(crate) fn check_range(range: Option<(DateTime<Utc>, DateTime<Utc>)>, end: &str) -> Answer<()> {
    match range {
        Some((from, to)) if from > to => Err(bad(end, 422, "range", "lies before the start of the range")),
        Some((from, to)) if to - from >= TimeDelta::days(MAX_RANGE_DAYS) => {
            Err(bad(end, 422, "range", "lies 100 years or more after the start of the range"))
        }
        _ => Ok(()),
    }
}

/// A refusal of one parameter.
pub(crate) fn bad(parameter: &str, status: u16, code: &str, what: &str) -> Refusal {
    Refusal::field(status, code, &pointer(parameter), format!("the parameter `{parameter}` {what}"))
}

/// A plain decimal number: no sign, no space, no leading zero.
pub(crate) fn number(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

fn pointer(parameter: &str) -> String {
    format!("/{parameter}")
}

/// In a query `+` means a space, and hardly anybody escapes the sign of an offset; after the seconds no time has a space.
fn with_plus(text: &str) -> String {
    text.char_indices().map(|(i, c)| if i >= 19 && c == ' ' { '+' } else { c }).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The parameters of a query text.
    pub(crate) fn params(query: &str) -> Params {
        Params::of_query(query).unwrap()
    }

    /// Status and code of a refusal.
    pub(crate) fn told<T: std::fmt::Debug>(answer: Answer<T>) -> (u16, String) {
        let refusal = answer.unwrap_err();
        (refusal.0.status, refusal.0.code)
    }

    #[test]
    fn unknown_repeated_and_unprintable_parameters_are_refused() {
        for (query, wanted) in [
            ("stauts=x", (400, "unknown_parameter")),
            ("limit=1&limit=1", (400, "repeated_parameter")),
            ("limit=%00", (422, "control_char")),
            ("label=a%0Ab", (422, "control_char")),
            (&format!("label={}", "x".repeat(1025)), (422, "length")),
        ] {
            assert_eq!(told(params(query).allow(&["limit"], &["label"])), (wanted.0, wanted.1.to_owned()), "{query}");
        }
        params("limit=1&label=a&label=b").allow(&["limit"], &["label"]).unwrap();
    }

    #[test]
    fn limits_are_plain_numbers_within_bounds() {
        for text in ["0", "201", "-1", "1000000000", "99999999999999999999999", "abc", "", "+5", "05", "1.0", "%20"] {
            assert_eq!(told(params(&format!("limit={text}")).limit(50)), (400, "bad_limit".to_owned()), "{text}");
        }
        assert_eq!(params("limit=200").limit(50).unwrap(), 200);
        assert_eq!(params("").limit(50).unwrap(), 50);
    }

    #[test]
    fn times_have_their_own_codes_and_an_order() {
        for (query, code) in [
            ("a=2025-06-22T00:00:00", "timezone_required"),
            ("a=2025-06-22%2000:00:00Z", "time_syntax"),
            ("a=2025-06-22T23:59:60Z", "range"),
            ("a=1750550400", "time_syntax"),
            ("a=", "time_syntax"),
            ("a=2026-01-02T00:00:00Z&b=2026-01-01T00:00:00Z", "range"),
            ("a=1970-01-01T00:00:00Z&b=2099-01-01T00:00:00Z", "range"),
        ] {
            assert_eq!(told(params(query).range("a", "b")), (422, code.to_owned()), "{query}");
        }
    }

    #[test]
    fn an_unescaped_offset_is_understood() {
        let wanted = time::parse("2026-01-01T10:00:00Z").unwrap();
        for query in ["a=2026-01-01T12:00:00+02:00", "a=2026-01-01T12:00:00%2B02:00", "a=2026-01-01T08:00:00.000-02:00"] {
            assert_eq!(params(query).time("a").unwrap(), Some(wanted), "{query}");
        }
    }
}
