//! Money as users write it: a decimal number of US dollars, parsed exactly to millionths.

/// Why a text is no amount of money.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an amount is a decimal number of US dollars from 0 to 1000000 with at most 6 decimals")]
pub struct NotAnAmount;

/// Parses `2.50` to 2,500,000 millionths of a dollar; no rounding ever happens.
///
/// # Errors
/// [`NotAnAmount`] for signs, exponents, more than six decimals or more than a million dollars.
pub fn parse_microusd(text: &str) -> Result<u64, NotAnAmount> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || whole.len() > 7 || decimals.len() > 6 || !digits(whole) || !digits(decimals) || text.ends_with('.') {
        return Err(NotAnAmount);
    }
    let whole: u64 = whole.parse().map_err(|_| NotAnAmount)?;
    let fraction: u64 = format!("{decimals:0<6}").parse().map_err(|_| NotAnAmount)?;
    let micro = whole * 1_000_000 + fraction;
    if micro > 1_000_000 * 1_000_000 { Err(NotAnAmount) } else { Ok(micro) }
}

/// Writes millionths of a dollar as `$0.00`, with more decimals only when they say something.
pub fn format_microusd(micro: u64) -> String {
    let (whole, fraction) = (micro / 1_000_000, micro % 1_000_000);
    let decimals = format!("{fraction:06}");
    let kept = decimals.trim_end_matches('0').len().max(2);
    format!("${whole}.{}", &decimals[..kept])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        assert_eq!(parse_microusd("2.50"), Ok(2_500_000));
        assert_eq!(parse_microusd("0.1087"), Ok(108_700));
        assert_eq!(parse_microusd("7"), Ok(7_000_000));
        for bad in ["", ".5", "1.", "-1", "1e3", "0.1234567", "1000001", "NaN", "1,5"] {
            assert_eq!(parse_microusd(bad), Err(NotAnAmount), "{bad}");
        }
    }

    #[test]
    fn amounts_are_written_with_at_least_cents() {
        assert_eq!(format_microusd(0), "$0.00");
        assert_eq!(format_microusd(108_700), "$0.1087");
        assert_eq!(format_microusd(2_500_000), "$2.50");
    }
}
