//! `hopyard fake-provider`: a provider of models that answers from a script, on the wires that real ones speak.
//!
//! With it gateways, prices and budgets can be tried without a key or a bill: what it says it served, in the answers and in its
//! journal, is what every surface of Hopyard has to show.

mod script;
mod serve;
mod wires;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;

use crate::client::output;
use crate::exit::{Exit, Failure};

/// How the fake provider is started.
#[derive(Debug, Args)]
pub struct FakeProviderArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Script of JSON lines, one for each reply of a conversation; without one every reply is a short text
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// File that a line is added to for every call
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Key that callers have to present; any will do without one
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

/// Serves until it is interrupted; prints its address as one line of JSON when it can be asked.
///
/// # Errors
/// When the script is none, or the address cannot be had.
pub async fn run(args: &FakeProviderArgs) -> Result<Exit> {
    let replies = match &args.script {
        None => Vec::new(),
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
            script::parse(&text).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?
        }
    };
    let journal = args.journal.as_ref().map(|file| {
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(file);
        opened.with_context(|| format!("{} cannot be written", file.display()))
    });
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("{} cannot be listened on", args.listen))?;
    let url = format!("http://{}", listener.local_addr()?);
    output::bytes(format!("{}\n", json!({ "url": url })).as_bytes());
    let provider = Arc::new(serve::Provider::new(replies, args.key.clone(), journal.transpose()?));
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    axum::serve(listener, serve::router(provider)).with_graceful_shutdown(stop).await.context("the provider ended")?;
    Ok(Exit::Done)
}
