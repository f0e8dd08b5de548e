//! One pass of the janitor from the command line: `hopyard janitor --once` and `hopyard workspaces prune`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use hopyard_contract::duration::Span;
use hopyard_janitor::{Action, Options, Report};
use hopyard_runtime::{Bus, Config};
use serde_json::{Value, json};

use crate::client::output::{self, Column, Format, field};
use crate::exit::{Exit, Failure};
use crate::service::ServiceFlags;

/// How long the bus may take to answer.
const BUS_WITHIN: Duration = Duration::from_secs(3);

/// The janitor as a service, or one pass of it.
#[derive(Clone, Debug, Default, Args)]
pub struct JanitorArgs {
    /// Settings of the service
    #[command(flatten)]
    pub flags: ServiceFlags,
    /// One pass over the disk of this host, then an end; exit code 1 if something could not be removed
    #[arg(long)]
    pub once: bool,
    /// With --once: only say what would go, and why
    #[arg(long, requires = "once")]
    pub dry_run: bool,
}

/// What to free, and where it is.
#[derive(Clone, Debug, Default, Args)]
pub struct PruneArgs {
    /// Only say what would go, and why
    #[arg(long)]
    pub dry_run: bool,
    /// Age after which a workspace that no scheduler knows goes [HOPYARD_MAX_AGE; 48h]
    #[arg(long, value_name = "DURATION")]
    pub max_age: Option<Span>,
    /// The executors' data directory (HOPYARD_DATA_DIR)
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The executors' name of this host (HOPYARD_HOST_ID)
    #[arg(long, value_name = "NAME")]
    pub host_id: Option<String>,
    /// Bus (HOPYARD_NATS_URL)
    #[arg(long, value_name = "URL")]
    pub nats_url: Option<String>,
    /// Directory or URL of the blob store (HOPYARD_BLOBS)
    #[arg(long, value_name = "URL")]
    pub blobs: Option<String>,
}

impl PruneArgs {
    fn settings(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("MAX_AGE", self.max_age.map(|age| age.to_string())),
            ("DATA_DIR", self.data_dir.as_ref().map(|dir| dir.display().to_string())),
            ("HOST_ID", self.host_id.clone()),
            ("NATS_URL", self.nats_url.clone()),
            ("BLOBS", self.blobs.clone()),
        ]
    }
}

/// `hopyard janitor --once`.
///
/// # Errors
/// As `pass`.
pub async fn janitor(format: Format, args: &JanitorArgs) -> Result<Exit> {
    pass(format, &Config::load(&args.flags.settings())?, args.dry_run).await
}

/// `hopyard workspaces prune`.
///
/// # Errors
/// As `pass`.
pub async fn prune(format: Format, args: &PruneArgs) -> Result<Exit> {
    pass(format, &Config::load(&args.settings())?, args.dry_run).await
}

/// One pass, and what it did.
///
/// # Errors
/// When the data directory is not there, the bus or the schedulers do not answer, or git is missing: then nothing was removed.
async fn pass(format: Format, config: &Config, dry_run: bool) -> Result<Exit> {
    let data = config.data_dir();
    // A pass would make it, find nothing, and take every workspace of this host for deleted by hand.
    if !data.join("workspaces").is_dir() {
        return Err(Failure::usage(format!(
            "{} is no data directory of an executor; --data-dir or HOPYARD_DATA_DIR says where it is on this host",
            data.display()
        )));
    }
    let bus = Bus::connect(config, "hopyard-prune", BUS_WITHIN).await?;
    let report = hopyard_janitor::once(&bus, config, Options { dry_run, max_age: None }).await?;
    let value = serde_json::to_value(&report)?;
    output::bytes(told(format, &value, dry_run).as_bytes());
    if format == Format::Table {
        output::progress(&summary(&report, dry_run));
    }
    Ok(if report.failed.is_empty() { Exit::Done } else { Exit::Failed })
}

const PLANNED: [Column; 6] = [
    ("ACTION", |v| field(v, "/action")),
    ("REASON", |v| field(v, "/reason")),
    ("AGE", |v| v.pointer("/age_s").and_then(Value::as_u64).map(|s| output::duration(s.saturating_mul(1000))).unwrap_or_default()),
    ("BYTES", |v| field(v, "/bytes")),
    ("ID", |v| field(v, "/id")),
    ("PATH", |v| field(v, "/path")),
];

const DONE: [Column; 5] = [
    ("DONE", |v| field(v, "/done")),
    ("REASON", |v| field(v, "/reason")),
    ("BYTES", |v| field(v, "/bytes")),
    ("ID", |v| field(v, "/id")),
    ("PATH", |v| field(v, "/path")),
];

/// The report in the chosen format: everything as a document, line by line what went or would go.
fn told(format: Format, report: &Value, dry_run: bool) -> String {
    let part = |name: &str| report.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let (items, columns): (Vec<Value>, &[Column]) = if dry_run {
        (part("planned"), &PLANNED)
    } else {
        let done = |item: Value, what: &str| {
            let mut item = item;
            item["done"] = what.into();
            item
        };
        let removed = part("removed").into_iter().map(|item| done(item, "removed"));
        // The error stands where the reason would.
        let failed = part("failed").into_iter().map(|item| {
            let reason = item["error"].clone();
            let mut item = done(item, "failed");
            item["reason"] = reason;
            item
        });
        (removed.chain(failed).collect(), &DONE)
    };
    match format {
        Format::Table | Format::Jsonl => output::page(format, &json!({"items": items}), columns),
        Format::Json | Format::Yaml => output::document(format, report).unwrap_or_default(),
    }
}

fn summary(report: &Report, dry_run: bool) -> String {
    if dry_run {
        let going: Vec<_> = report.planned.iter().filter(|planned| planned.action == Action::Remove).collect();
        let bytes: u64 = going.iter().filter_map(|planned| planned.bytes).sum();
        return format!("{} of {} workspaces would go, {bytes} bytes; nothing was changed", going.len(), report.planned.len());
    }
    format!("{} removed, {} failed, {} bytes freed", report.removed.len(), report.failed.len(), report.bytes_freed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Value {
        json!({
            "planned": [{"id": "r-g1", "path": "/d/workspaces/e/r-g1", "action": "remove", "reason": "finished", "age_s": 90, "bytes": 4096}],
            "removed": [{"id": "r-g1", "path": "/d/workspaces/e/r-g1", "bytes": 4096, "reason": "finished"}],
            "failed": [{"id": "s-g1", "error": "the bundle cannot be made"}],
            "bytes_freed": 4096
        })
    }

    #[test]
    fn a_dry_run_tells_the_plan_and_a_pass_what_it_did() {
        assert_eq!(
            told(Format::Table, &report(), true),
            "ACTION  REASON    AGE       BYTES  ID    PATH\nremove  finished  1 m 30 s  4096   r-g1  /d/workspaces/e/r-g1\n"
        );
        let done = told(Format::Table, &report(), false);
        assert!(done.contains("removed  finished") && done.contains("failed   the bundle cannot be made"), "{done}");
        assert_eq!(told(Format::Jsonl, &report(), false).lines().count(), 2);
        assert_eq!(serde_json::from_str::<Value>(&told(Format::Json, &report(), true)).unwrap(), report());
    }

    #[tokio::test]
    async fn a_directory_that_no_executor_uses_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let args = PruneArgs { data_dir: Some(dir.path().join("typo")), max_age: Some(Span::from_millis(1500)), ..PruneArgs::default() };
        assert_eq!(args.settings()[0], ("MAX_AGE", Some("1500ms".to_owned())));
        let error = prune(Format::Table, &args).await.unwrap_err();
        assert_eq!(Exit::of_error(&error), Exit::Usage);
        assert!(!dir.path().join("typo").exists());
    }
}
