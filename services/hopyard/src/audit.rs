//! `hopyard audit`: whether what this deployment has recorded can be true, checked on the live system without changing it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use hopyard_contract::audit::Check;
use hopyard_runtime::{Bus, Config};
use hopyard_store::Store;

use crate::client::inputs;
use crate::client::output::{self, Format};
use crate::exit::{Exit, Failure};

mod blobs;
mod counters;
mod disk;
mod intake;
mod report;
mod runs;
mod upkeep;

use report::{Question, Report};

/// How long the bus may take to answer.
const BUS_WITHIN: Duration = Duration::from_secs(3);
/// Length of a lease if no setting says otherwise, in ms.
const LEASE_MS: u64 = 20_000;

/// What to check, and where it is.
#[derive(Clone, Debug, Default, Args)]
pub struct AuditArgs {
    /// Only runs that were submitted, were open or had an event since: a duration such as 1h, or an RFC 3339 time
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Store of the schedulers (HOPYARD_STORE_URL)
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Bus (HOPYARD_NATS_URL)
    #[arg(long, value_name = "URL")]
    pub nats_url: Option<String>,
    /// Directory or URL of the blob store (HOPYARD_BLOBS)
    #[arg(long, value_name = "URL")]
    pub blobs: Option<String>,
    /// Data directory of executors on this host, which is looked through as well; may be repeated
    #[arg(long = "data-dir", value_name = "DIR")]
    pub data_dirs: Vec<PathBuf>,
    /// Nothing is at work, and janitors have had their pass: nothing may be left over, and counters must be exact
    #[arg(long, visible_alias = "strict")]
    pub quiesced: bool,
    /// Reads every blob and compares it with its digest
    #[arg(long)]
    pub deep: bool,
    /// Most violations that are shown of each check
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub show: usize,
}

/// What every part of an audit needs to know.
pub(crate) struct Scope {
    /// Only what happened since.
    since: Option<DateTime<Utc>>,
    /// How late something may be.
    overdue: TimeDelta,
    quiesced: bool,
    deep: bool,
}

impl AuditArgs {
    fn settings(&self) -> [(&'static str, Option<String>); 3] {
        [("STORE_URL", self.store.clone()), ("NATS_URL", self.nats_url.clone()), ("BLOBS", self.blobs.clone())]
    }
}

/// Checks everything that can be reached and says what was found.
///
/// # Errors
/// When the command line or a setting is not valid.
pub async fn run(format: Format, args: &AuditArgs) -> Result<Exit> {
    let config = Config::load(&args.settings())?;
    let now = Utc::now();
    let scope = Scope {
        since: args.since.as_deref().map(|text| inputs::since(text, now)).transpose()?,
        // A scheduler that has just come back judges leases only after a whole lease, and looks every second.
        overdue: config.span("LEASE", LEASE_MS)?.delta() * 2 + TimeDelta::seconds(10),
        quiesced: args.quiesced,
        deep: args.deep,
    };
    if let Some(dir) = args.data_dirs.iter().find(|dir| !dir.is_dir()) {
        return Err(Failure::usage(format!("{} is no directory", dir.display())));
    }
    let mut report = Report::new(now, scope.since, args.show);
    // The bus is asked first: what it calls settled must be in the store when that is read.
    let bus = Bus::connect(&config, "hopyard-audit", BUS_WITHIN).await;
    let progress = match &bus {
        Ok(bus) => intake::progress(bus).await,
        Err(error) => Err(anyhow::anyhow!("{error:#}")),
    };
    match open(&config).await {
        Err(error) => {
            let why = format!("the store cannot be read: {error:#}");
            report.unreachable(&why);
            Check::ALL.iter().for_each(|check| report.broke_off(&Question::of(*check), &why));
            report::QUESTIONS.iter().for_each(|question| report.broke_off(question, &why));
        }
        Ok(store) => {
            let reader = store.auditor();
            let mut counts = counters::Counts::default();
            let mut blobs = blobs::Blobs::open(&config, &mut report, scope.deep);
            runs::check(reader.as_ref(), &scope, &mut report, &mut blobs, &mut counts).await;
            intake::check(reader.as_ref(), store.reader().as_ref(), &scope, bus.as_ref().ok(), progress, &mut report).await;
            upkeep::check(reader.as_ref(), store.reader().as_ref(), &scope, &mut report).await;
            counters::check(store.metrics().as_ref(), &scope, &counts, &mut report).await;
            disk::check(reader.as_ref(), &args.data_dirs, &scope, &mut report).await;
        }
    }
    output::bytes(report.told(format).as_bytes());
    output::progress(&report.summary());
    Ok(report.exit())
}

/// Opens the store for reading; one that is not there is not made.
async fn open(config: &Config) -> Result<Store> {
    let url = config.store_url();
    if let Some(dir) = url.strip_prefix("sqlite:")
        && !std::path::Path::new(dir.trim_start_matches("//")).join("runs.db").is_file()
    {
        anyhow::bail!("{url} holds no store");
    }
    let store = Store::open(&url).await?;
    store.reader().schema().await?;
    Ok(store)
}
