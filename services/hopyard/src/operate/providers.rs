//! `hopyard providers`: which providers of models an executor with these settings has, and whether they answer.

use anyhow::Result;
use clap::Subcommand;
use hopyard_executor::ask_provider;
use hopyard_runtime::Config;
use serde_json::{Value, json};

use super::prices::{self, PricesArgs};
use crate::client::output::{self, Column, Format, field};
use crate::exit::Exit;

/// What can be done with providers.
#[derive(Debug, Subcommand)]
pub enum ProvidersCommand {
    /// Lists the providers of the settings file
    #[command(after_help = "Example:\n  hopyard providers list")]
    List,
    /// Asks a provider for one token: are address, key and model right?
    #[command(after_help = "Example:\n  hopyard providers test anthropic --model claude-sonnet-4-5")]
    Test {
        /// Name of the provider
        name: String,
        /// Model to ask
        #[arg(long, value_name = "MODEL")]
        model: String,
    },
    /// Prints a public list of prices as a table for `HOPYARD_PRICES`
    #[command(
        after_help = "Example:\n  hopyard providers prices model_prices_and_context_window.json --model claude- --model gpt- > prices.toml"
    )]
    Prices(PricesArgs),
}

const LISTED: [Column; 6] = [
    ("NAME", |v| field(v, "/name")),
    ("WIRE", |v| field(v, "/wire")),
    ("ADDRESS", |v| field(v, "/base_url")),
    ("KEY", |v| field(v, "/key_from")),
    ("CALLS/MIN", |v| field(v, "/rpm")),
    ("AT ONCE", |v| field(v, "/concurrency")),
];
const ANSWERED: [Column; 5] = [
    ("PROVIDER", |v| field(v, "/provider")),
    ("MODEL", |v| field(v, "/model")),
    ("STATUS", |v| field(v, "/status")),
    ("MS", |v| field(v, "/took_ms")),
    ("ERROR", |v| field(v, "/error")),
];

/// Lists or asks; exit code 1 when the provider refuses.
///
/// # Errors
/// When there is no such provider, or it does not answer.
pub async fn run(config: &Config, format: Format, command: &ProvidersCommand) -> Result<Exit> {
    let (items, columns, exit): (Vec<Value>, &[Column], Exit) = match command {
        ProvidersCommand::List => {
            let row = |(name, p): (&String, &hopyard_runtime::config::ProviderSettings)| json!({ "name": name, "wire": p.wire, "base_url": p.base_url, "key_from": p.key_from, "rpm": p.rpm, "tpm": p.tpm, "concurrency": p.concurrency });
            (config.providers.iter().map(row).collect(), &LISTED, Exit::Done)
        }
        ProvidersCommand::Prices(args) => return prices::run(args),
        ProvidersCommand::Test { name, model } => {
            let answer = ask_provider(config, name, model).await?;
            let exit = if answer.status == 200 { Exit::Done } else { Exit::Failed };
            (vec![serde_json::to_value(&answer)?], &ANSWERED, exit)
        }
    };
    output::bytes(output::page(format, &json!({ "items": items }), columns).as_bytes());
    Ok(exit)
}
