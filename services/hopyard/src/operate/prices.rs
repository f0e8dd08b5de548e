//! `hopyard providers prices`: a public list of model prices as the table that executors read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use chrono::{NaiveDate, Utc};
use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use crate::client::output;
use crate::exit::{Exit, Failure};

/// Which list, and what of it.
#[derive(Debug, Args)]
pub struct PricesArgs {
    /// List: the JSON file that LiteLLM keeps (`model_prices_and_context_window.json`)
    file: PathBuf,
    /// Only models that begin like this; may be repeated
    #[arg(long = "model", value_name = "START")]
    models: Vec<String>,
    /// First day of the prices; today if absent
    #[arg(long, value_name = "DATE")]
    from: Option<NaiveDate>,
}

/// A model of the list; dollars for one token. What it has besides is not read.
#[derive(Debug, Deserialize)]
struct Listed {
    input_cost_per_token: Option<f64>,
    output_cost_per_token: Option<f64>,
    cache_read_input_token_cost: Option<f64>,
    cache_creation_input_token_cost: Option<f64>,
}

/// Prints the table; entries without a price for a token, such as those of pictures, are left out.
///
/// # Errors
/// [`Failure::Usage`] when the file cannot be read or is no such list, or nothing of it is wanted.
pub(super) fn run(args: &PricesArgs) -> Result<Exit> {
    let text = std::fs::read_to_string(&args.file).map_err(|error| refused(&args.file, &error.to_string()))?;
    let list: BTreeMap<String, Value> = serde_json::from_str(&text).map_err(|error| refused(&args.file, &error.to_string()))?;
    let day = args.from.unwrap_or_else(|| Utc::now().date_naive());
    let mut table = format!("# Made from {} by `hopyard providers prices`.\nversion = \"{day}\"\n", args.file.display());
    let mut count = 0;
    for (model, entry) in &list {
        let wanted = args.models.is_empty() || args.models.iter().any(|start| model.starts_with(start.as_str()));
        // Some entries describe the list itself.
        let Ok(listed) = serde_json::from_value::<Listed>(entry.clone()) else { continue };
        let (Some(input), Some(output)) = (listed.input_cost_per_token.and_then(million), listed.output_cost_per_token.and_then(million))
        else {
            continue;
        };
        if !wanted {
            continue;
        }
        count += 1;
        let _ = write!(
            table,
            "\n[[price]]\nmodel = {}\nfrom = \"{day}\"\ninput = \"{input}\"\noutput = \"{output}\"\n",
            Value::from(model.as_str())
        );
        let cached = [("cache_read", listed.cache_read_input_token_cost), ("cache_write", listed.cache_creation_input_token_cost)];
        for (name, price) in cached.into_iter().filter_map(|(name, price)| Some((name, price.and_then(million)?))) {
            let _ = writeln!(table, "{name} = \"{price}\"");
        }
    }
    if count == 0 {
        return Err(refused(&args.file, "it has no such model with a price for tokens"));
    }
    output::bytes(table.as_bytes());
    output::progress(&format!("{count} models"));
    Ok(Exit::Done)
}

fn refused(file: &Path, words: &str) -> anyhow::Error {
    Failure::usage(format!("{}: {words}", file.display()))
}

/// Dollars for a million tokens, to a millionth, as a decimal text; `None` for what is no price.
fn million(per_token: f64) -> Option<String> {
    let per_million = per_token * 1e6;
    if !(0.0..=1e6).contains(&per_million) {
        return None;
    }
    let text = format!("{per_million:.6}");
    Some(text.trim_end_matches('0').trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_of_a_token_become_exact_prices_of_a_million() {
        for (token, million_of_them) in [(3e-6, "3"), (1.5e-7, "0.15"), (3.75e-6, "3.75"), (0.0, "0"), (2.5e-10, "0.00025")] {
            assert_eq!(million(token).as_deref(), Some(million_of_them));
        }
        assert_eq!((million(-1e-6), million(2.0), million(f64::NAN)), (None, None, None));
    }
}
