//! Small readings of JSON that others write: whatever is missing or of another type is absent, never an error.

use hopyard_contract::usage::Tokens;
use serde_json::Value;

/// A text below a path of fields.
pub(crate) fn text(value: &Value, path: &[&str]) -> Option<String> {
    at(value, path)?.as_str().map(str::to_owned)
}

/// A count: not negative and below 10^12, since more is no count of tokens or milliseconds; a fraction is cut off.
pub(crate) fn number(value: &Value, path: &[&str]) -> Option<u64> {
    let number = at(value, path)?;
    let whole = number.as_u64().or_else(|| number.as_f64().filter(|n| (0.0..1e12).contains(n)).map(|n| n as u64));
    whole.filter(|n| *n < 1_000_000_000_000)
}

/// The items of a list; none if there is no list.
pub(crate) fn items<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The value below a path of fields.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, field| value.get(field))
}

/// US dollars as a JSON number, in millionths, rounded to the nearest; programs write binary fractions like 0.011729999999999999.
pub(crate) fn microusd(value: &Value, path: &[&str]) -> Option<u64> {
    let dollars = at(value, path)?.as_f64().filter(|n| (0.0..1e6).contains(n))?;
    Some((dollars * 1e6).round() as u64)
}

/// Tokens from fields of these names, in the order input, output, cache read, cache write; `None` when there is none of them.
pub(crate) fn tokens(value: &Value, names: [&str; 4]) -> Option<Tokens> {
    let [input, output, cache_read, cache_write] = names.map(|name| number(value, &[name]));
    input.or(output).or(cache_read).or(cache_write)?;
    let or_none = Option::unwrap_or_default;
    Some(Tokens { input: or_none(input), output: or_none(output), cache_read: or_none(cache_read), cache_write: or_none(cache_write) })
}
