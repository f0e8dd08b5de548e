//! What models cost: a pinned table, or a file of the operator's in its place; money is exact to a millionth of a dollar a call.

use std::path::Path;

use anyhow::Context as _;
use chrono::{DateTime, NaiveDate, Utc};
use hopyard_contract::money::parse_microusd;
use hopyard_contract::usage::Tokens;
use serde::Deserialize;

/// The table that this build has.
const PINNED: &str = include_str!("prices.toml");

/// Prices by model and date.
#[derive(Debug)]
pub(crate) struct Prices {
    version: String,
    models: Vec<Price>,
}

/// The price of some models from a day on, in millionths of a dollar per million tokens.
#[derive(Debug)]
struct Price {
    model: String,
    from: NaiveDate,
    input: u64,
    output: u64,
    cache_read: u64,
    cache_write: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    price: Vec<Row>,
}

/// A row of the file: dollars per million tokens, as texts, so that no binary fraction comes between.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    model: String,
    from: NaiveDate,
    input: String,
    output: String,
    cache_read: Option<String>,
    cache_write: Option<String>,
    /// Where it was read; for people.
    #[serde(rename = "source")]
    _source: Option<String>,
}

impl Prices {
    /// The pinned table, or the file at this path.
    ///
    /// # Errors
    /// When the file cannot be read or is no table of prices; the words name the row.
    pub(crate) fn open(file: Option<&Path>) -> anyhow::Result<Self> {
        match file {
            None => Self::parse(PINNED).context("the pinned prices"),
            Some(file) => {
                let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
                Self::parse(&text).with_context(|| format!("{} is no table of prices", file.display()))
            }
        }
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let file: File = toml::from_str(text)?;
        let models = file.price.into_iter().map(price).collect::<anyhow::Result<_>>()?;
        Ok(Self { version: file.version, models })
    }

    /// Which table it is; kept beside every cost.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// The cost of a call in millionths of a dollar, rounded once; `None` for a model without a price on that day.
    pub(crate) fn cost(&self, model: &str, tokens: Tokens, at: DateTime<Utc>) -> Option<u64> {
        let day = at.date_naive();
        let fits = self.models.iter().filter(|price| price.from <= day && matches(&price.model, model));
        // The narrowest pattern counts, and of one pattern the latest day.
        let price = fits.max_by_key(|price| (price.model.len(), price.from))?;
        let kinds = [
            (tokens.input, price.input),
            (tokens.output, price.output),
            (tokens.cache_read, price.cache_read),
            (tokens.cache_write, price.cache_write),
        ];
        let sum: u128 = kinds.iter().map(|(tokens, price)| u128::from(*tokens) * u128::from(*price)).sum();
        u64::try_from((sum + 500_000) / 1_000_000).ok()
    }
}

fn price(row: Row) -> anyhow::Result<Price> {
    let amount = |field: &str, text: &str| parse_microusd(text).with_context(|| format!("`{field}` of {}: {text}", row.model));
    let input = amount("input", &row.input)?;
    Ok(Price {
        input,
        output: amount("output", &row.output)?,
        // Without a price of its own, a cached token costs what any other one does.
        cache_read: row.cache_read.as_deref().map_or(Ok(input), |text| amount("cache_read", text))?,
        cache_write: row.cache_write.as_deref().map_or(Ok(input), |text| amount("cache_write", text))?,
        from: row.from,
        model: row.model,
    })
}

/// Whether a model has this name; a `*` at the end of a pattern stands for any dates and variants.
fn matches(pattern: &str, model: &str) -> bool {
    // Some ask through a proxy for `provider/model`.
    let model = model.rsplit_once('/').map_or(model, |(_, model)| model);
    match pattern.strip_suffix('*') {
        Some(start) => model.starts_with(start),
        None => model == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(input: u64, output: u64, cache_read: u64, cache_write: u64) -> Tokens {
        Tokens { input, output, cache_read, cache_write }
    }

    fn on(day: &str) -> DateTime<Utc> {
        format!("{day}T12:00:00Z").parse().unwrap()
    }

    #[test]
    fn the_pinned_table_is_sound_and_prices_what_a_provider_billed() {
        let prices = Prices::open(None).unwrap();
        assert!(!prices.version().is_empty());
        let asked =
            [("claude-sonnet-4-5", tokens(2400, 120, 1600, 600)), ("anthropic/claude-sonnet-4-5-20250929", tokens(2400, 120, 1600, 600))];
        for (model, tokens) in asked {
            assert_eq!(prices.cost(model, tokens, on("2026-11-20")), Some(11_730), "{model}");
        }
        assert_eq!(prices.cost("a-model-of-tomorrow", tokens(1, 1, 0, 0), on("2026-11-20")), None, "unknown is not 0");
        assert_eq!(prices.cost("claude-sonnet-4-5", tokens(1, 1, 0, 0), on("2020-01-01")), None, "not sold yet");
    }

    #[test]
    fn the_narrowest_pattern_counts_and_the_latest_price_of_it() {
        let row = |model: &str, from: &str, input: &str| {
            format!("[[price]]\nmodel = \"{model}\"\nfrom = \"{from}\"\ninput = \"{input}\"\noutput = \"0\"\n")
        };
        let rows = [
            row("m*", "2026-01-01", "9"),
            row("m-big*", "2026-01-01", "2"),
            row("m-big*", "2026-06-01", "1.5"),
            row("other", "2026-01-01", "0.000001"),
        ];
        let prices = Prices::parse(&format!("version = \"t\"\n{}", rows.concat())).unwrap();
        let million = tokens(1_000_000, 0, 0, 0);
        assert_eq!(prices.cost("m-small", million, on("2026-07-01")), Some(9_000_000));
        assert_eq!(prices.cost("m-big-1", million, on("2026-05-31")), Some(2_000_000));
        assert_eq!(prices.cost("m-big-1", million, on("2026-06-01")), Some(1_500_000));
        assert_eq!(
            prices.cost("m-big-1", tokens(0, 0, 1_000_000, 0), on("2026-06-01")),
            Some(1_500_000),
            "a cached token costs what any does"
        );
        assert_eq!(prices.cost("other", tokens(499_999, 0, 0, 0), on("2026-06-01")), Some(0), "rounded once");
        assert_eq!(prices.cost("other", tokens(500_000, 0, 0, 0), on("2026-06-01")), Some(1));
        assert!(
            Prices::parse("version = \"t\"\n[[price]]\nmodel = \"m\"\nfrom = \"2026-01-01\"\ninput = \"1e3\"\noutput = \"0\"\n").is_err()
        );
    }
}
