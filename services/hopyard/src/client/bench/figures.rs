//! Figures: how they are made of what was measured, and how they are told.

use serde_json::{Value, json};

/// One figure, and the limit that was measured in the same run, if there is one.
pub(super) fn line(bench: &str, metric: &str, value: f64, unit: &str, limit: Option<f64>) -> Value {
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    let ratio = limit.map(|limit| round(value / limit));
    json!({"bench": bench, "metric": metric, "value": round(value), "unit": unit, "limit": limit.map(round), "ratio": ratio})
}

/// The smallest value that `percent` of the sorted values do not exceed.
pub(super) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// The middle of what the rounds gave.
pub(super) fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    percentile(&rounds, 50)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99)), (100.0, 198.0));
        assert_eq!((percentile(&[7.0], 50), percentile(&[7.0], 99)), (7.0, 7.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn a_figure_is_told_against_its_limit() {
        assert_eq!(
            line("latency", "x_p50", 1.23456, "ms", None).to_string(),
            r#"{"bench":"latency","limit":null,"metric":"x_p50","ratio":null,"unit":"ms","value":1.235}"#
        );
        let line = line("agents", "call_gateway_p50_ms", 3.0, "ms", Some(2.0)).to_string();
        assert_eq!(line, r#"{"bench":"agents","limit":2.0,"metric":"call_gateway_p50_ms","ratio":1.5,"unit":"ms","value":3.0}"#);
    }
}
