//! Nothing that was taken in is lost: the command stream against receipts, receipts against runs, keys against runs.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use hopyard_contract::message::DeadLetter;
use hopyard_contract::submit::VerdictStatus;
use hopyard_contract::{Name, RunId, topology};
use hopyard_runtime::Bus;
use hopyard_runtime::stored::{self, Progress};
use hopyard_store::audit::AuditReader;
use hopyard_store::read::Reader;

use super::Scope;
use super::report::{INTAKE, KEYS, Question, Report, VERDICTS};

/// Rows of one read.
const PAGE: u32 = 500;
/// Sequences that are compared at once.
const SPAN: u64 = 10_000;

/// Where the command stream stands; asked before the store is.
pub(crate) async fn progress(bus: &Bus) -> anyhow::Result<Progress> {
    stored::progress(bus, topology::CMD.name, &topology::ingest().durable).await
}

/// Compares what came in with what was recorded.
pub(crate) async fn check(
    audit: &dyn AuditReader,
    reader: &dyn Reader,
    scope: &Scope,
    bus: Option<&Bus>,
    progress: anyhow::Result<Progress>,
    report: &mut Report,
) {
    match (bus, progress) {
        (Some(bus), Ok(progress)) => {
            let outcome = dense(audit, scope, bus, progress, report).await;
            broke_off(report, &INTAKE, outcome);
        }
        (_, Err(error)) => {
            let why = format!("the bus cannot be asked: {error:#}");
            report.unreachable(&why);
            report.broke_off(&INTAKE, &why);
        }
        (None, Ok(_)) => report.broke_off(&INTAKE, "the bus cannot be asked"),
    }
    let outcome = verdicts(audit, reader, scope, report).await;
    broke_off(report, &VERDICTS, outcome);
    let outcome = keys(audit, report).await;
    broke_off(report, &KEYS, outcome);
}

fn broke_off(report: &mut Report, question: &Question, outcome: anyhow::Result<()>) {
    if let Err(error) = outcome {
        let why = format!("{error:#}");
        report.unreachable(&why);
        report.broke_off(question, &why);
    }
}

/// Every sequence that the consumer has settled has a receipt of this stream, or a dead letter. Streams before it are gone
/// with their sequences; a stream that came back from an older copy gives some of them a second time.
async fn dense(audit: &dyn AuditReader, scope: &Scope, bus: &Bus, progress: Progress, report: &mut Report) -> anyhow::Result<()> {
    let since = scope.since.and_then(|at| at.timestamp_nanos_opt()).map_or(progress.made_ns, |ns| ns.max(progress.made_ns));
    let mut next = if scope.since.is_some() {
        // Nothing that was settled since has a lower number than the first receipt; without any there is nothing to compare.
        audit.first_receipt(since).await?.unwrap_or(progress.settled + 1)
    } else {
        1
    };
    let mut missing = BTreeSet::new();
    while next <= progress.settled {
        let end = progress.settled.min(next + SPAN - 1);
        let there: HashSet<u64> = audit.receipt_numbers(next, end, progress.made_ns).await?.into_iter().collect();
        missing.extend((next..=end).filter(|seq| !there.contains(seq)));
        report.looked(&INTAKE, usize::try_from(end - next + 1).unwrap_or(usize::MAX));
        next = end + 1;
    }
    if !missing.is_empty() {
        set_aside(bus, &mut missing).await?;
    }
    for seq in missing {
        report.found(&INTAKE, seq.to_string(), "the message was settled, and there is neither a receipt nor a dead letter");
    }
    Ok(())
}

/// Takes those away that stand among the dead letters.
async fn set_aside(bus: &Bus, missing: &mut BTreeSet<u64>) -> anyhow::Result<()> {
    let mut behind = 0;
    while let Some(kept) =
        stored::first_from(bus, topology::DLQ.name, &hopyard_contract::subject::dlq(topology::CMD.name), behind + 1).await?
    {
        behind = kept.sequence;
        if let Ok(letter) = serde_json::from_slice::<DeadLetter>(&kept.body) {
            missing.remove(&letter.seq);
        }
    }
    Ok(())
}

async fn verdicts(audit: &dyn AuditReader, reader: &dyn Reader, scope: &Scope, report: &mut Report) -> anyhow::Result<()> {
    let since = scope.since.and_then(|at| at.timestamp_nanos_opt()).unwrap_or(i64::MIN);
    let mut behind = (0, i64::MIN);
    loop {
        let page = audit.receipts(behind, PAGE).await?;
        let Some((last, time)) = page.last() else { return Ok(()) };
        behind = (last.seq.unwrap_or(u64::MAX), *time);
        let mut named: BTreeMap<Name, Vec<(RunId, String)>> = BTreeMap::new();
        for (receipt, _) in page.iter().filter(|(receipt, time)| *time >= since && !receipt.cancel) {
            for verdict in receipt.items.iter().filter(|v| v.status != VerdictStatus::Rejected) {
                match verdict.run_id {
                    Some(run) => named.entry(receipt.namespace.clone()).or_default().push((run, receipt.id.clone())),
                    None => report.found(&VERDICTS, &receipt.id, "a verdict that is no rejection names no run"),
                }
            }
        }
        for (namespace, named) in named {
            report.looked(&VERDICTS, named.len());
            let ids: Vec<RunId> = named.iter().map(|(run, _)| *run).collect();
            let known: HashSet<RunId> = reader.statuses(&namespace, &ids).await?.into_iter().map(|(run, _)| run).collect();
            for (run, receipt) in named.into_iter().filter(|(run, _)| !known.contains(run)) {
                report.found(&VERDICTS, run.to_string(), format!("receipt {receipt} of {namespace} names the run, and there is none"));
            }
        }
    }
}

async fn keys(audit: &dyn AuditReader, report: &mut Report) -> anyhow::Result<()> {
    let mut behind: Option<(Name, String)> = None;
    loop {
        let page = audit.keys(behind.as_ref().map(|(namespace, key)| (namespace, key.as_str())), PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        behind = Some((last.namespace.clone(), last.key.clone()));
        report.looked(&KEYS, page.len());
        for key in page.iter().filter(|key| !key.known) {
            report.found(
                &KEYS,
                key.run.to_string(),
                format!("the key `{}` of {} stands for the run, and there is none", key.key, key.namespace),
            );
        }
    }
}
