//! Plain scalars by the YAML 1.2 core schema: `null`, `true` and `false`, numbers; everything else, `yes` too, is a text.

use super::Kind;

/// What a plain scalar means; `None` for `.inf` and `.nan`, which JSON has no words for.
pub(crate) fn resolve(text: &str) -> Option<Kind> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" => Kind::Bool(true),
        "false" | "False" | "FALSE" => Kind::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return None,
        _ if matches!(text.trim_start_matches(['-', '+']), ".inf" | ".Inf" | ".INF") => return None,
        _ if is_number(text) => Kind::Number(text.to_owned()),
        _ => Kind::Text(text.to_owned()),
    })
}

fn is_number(text: &str) -> bool {
    if let Some(digits) = text.strip_prefix("0o") {
        return !digits.is_empty() && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|e| {
            let e = e.strip_prefix(['-', '+']).unwrap_or(e);
            !e.is_empty() && digits(e)
        })
}

/// The integer that a number's text is, if it is one and fits.
pub(crate) fn to_integer(text: &str) -> Option<i128> {
    if let Some(digits) = text.strip_prefix("0o") {
        return i128::from_str_radix(digits, 8).ok();
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return i128::from_str_radix(digits, 16).ok();
    }
    text.parse().ok()
}

/// Whether a number is written without fraction and exponent.
pub(crate) fn is_integer(text: &str) -> bool {
    text.starts_with("0x") || !text.contains(['.', 'e', 'E'])
}

/// The number for JSON; `None` when an integer has more than 64 bits or a fraction is too large.
pub(crate) fn to_number(text: &str) -> Option<serde_json::Number> {
    if is_integer(text) {
        let value = to_integer(text)?;
        return i64::try_from(value).map(Into::into).or_else(|_| u64::try_from(value).map(Into::into)).ok();
    }
    serde_json::Number::from_f64(text.parse().ok()?)
}

/// A decimal number without its exponent, digit for digit: `1e-6` is `0.000001`, which is how JSON writers put small amounts.
pub(crate) fn without_exponent(text: &str) -> Option<String> {
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else {
        return Some(text.to_owned());
    };
    let exponent = exponent.parse::<i32>().ok().filter(|e| (-12..=12).contains(e))?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let point = i32::try_from(whole.len()).ok()? + exponent;
    let digits = format!("{whole}{fraction}");
    let shifted = match usize::try_from(point) {
        Ok(point) if point >= digits.len() => format!("{digits:0<point$}"),
        Ok(0) => format!("0.{digits}"),
        Ok(point) => format!("{}.{}", &digits[..point], &digits[point..]),
        Err(_) => format!("0.{}{digits}", "0".repeat(usize::try_from(-point).ok()?)),
    };
    Some(shifted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        for text in ["0", "-1", "+12", "007", "0o17", "0xFf", "1.5", ".5", "1.", "-1.5e+3", "6E-2", "18446744073709551616"] {
            assert_eq!(resolve(text), Some(Kind::Number(text.to_owned())), "{text}");
        }
        for text in [
            "yes",
            "no",
            "on",
            "off",
            "y",
            "1_000",
            "1.2.3",
            "0b1",
            "0o8",
            "0x",
            "-",
            ".",
            "+.",
            "1e",
            "e3",
            "12:30:45",
            "2024-01-01",
            "nUll",
            "tRue",
            "-0x1",
        ] {
            assert_eq!(resolve(text), Some(Kind::Text(text.to_owned())), "{text}");
        }
        for text in [".inf", "-.inf", "+.INF", ".nan"] {
            assert_eq!(resolve(text), None, "{text}");
        }
        assert_eq!((resolve("~"), resolve(""), resolve("TRUE")), (Some(Kind::Null), Some(Kind::Null), Some(Kind::Bool(true))));
    }

    #[test]
    fn numbers_are_exact_or_refused() {
        let number = |text| to_number(text).map(|n| n.to_string());
        for (text, written) in [
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("9007199254740993", "9007199254740993"),
            ("007", "7"),
            ("0x10", "16"),
            ("0o17", "15"),
            ("+3", "3"),
            ("2.50", "2.5"),
            (".5", "0.5"),
            ("1e3", "1000.0"),
        ] {
            assert_eq!(number(text).as_deref(), Some(written), "{text}");
        }
        for text in ["18446744073709551616", "-9223372036854775809", "1e400"] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn exponents_only_move_the_point() {
        for (text, plain) in [
            ("2.50", "2.50"),
            ("1e-6", "0.000001"),
            ("2.5e1", "25"),
            ("2.5E+3", "2500"),
            ("12.5e-1", "1.25"),
            ("12.5e-2", "0.125"),
            ("1e0", "1"),
        ] {
            assert_eq!(without_exponent(text).as_deref(), Some(plain), "{text}");
        }
        for text in ["1e13", "1e-13", "1e99999999999"] {
            assert_eq!(without_exponent(text), None, "{text}");
        }
    }
}
