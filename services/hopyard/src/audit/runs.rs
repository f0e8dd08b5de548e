//! Every run with its events, page by page: the memory that an audit takes does not grow with their number.

use std::collections::HashSet;

use chrono::DateTime;
use hopyard_contract::RunId;
use hopyard_contract::audit::{self, Check, Moment};
use hopyard_store::Error;
use hopyard_store::audit::{AuditReader, Histories, Touch};
use uuid::Uuid;

use super::Scope;
use super::blobs::Blobs;
use super::counters::Counts;
use super::report::{BLOBS, COLUMNS, Question, READABLE, Report};

/// Runs that are looked at together.
const PAGE: u32 = 100;
/// Pages of events whose runs are looked up together.
const TOUCHES: u32 = 1000;

/// Where the findings go.
struct Walk<'a> {
    reader: &'a dyn AuditReader,
    scope: &'a Scope,
    report: &'a mut Report,
    blobs: &'a mut Blobs,
    counts: &'a mut Counts,
}

/// Checks runs: all of them, or those that something happened to.
pub(crate) async fn check(reader: &dyn AuditReader, scope: &Scope, report: &mut Report, blobs: &mut Blobs, counts: &mut Counts) {
    let mut walk = Walk { reader, scope, report, blobs, counts };
    if let Err(error) = walk.all().await {
        let why = format!("the store stopped answering: {error}");
        walk.report.unreachable(&why);
        for question in Check::ALL.iter().map(|check| Question::of(*check)).chain([READABLE, COLUMNS, BLOBS]) {
            walk.report.broke_off(&question, &why);
        }
        walk.counts.incomplete = true;
    }
}

impl Walk<'_> {
    async fn all(&mut self) -> Result<(), Error> {
        let first = self.scope.since.map_or_else(|| RunId::floor_of(DateTime::UNIX_EPOCH), RunId::floor_of);
        if self.scope.since.is_some() {
            self.earlier(first).await?;
        }
        let mut from = first;
        loop {
            let ids = self.reader.runs_from(from, PAGE).await?;
            let Some(last) = ids.last() else { return Ok(()) };
            from = after(*last);
            self.page(ids).await?;
        }
    }

    /// Runs that were submitted before: those still open, and those that something has happened to since.
    async fn earlier(&mut self, first: RunId) -> Result<(), Error> {
        let mut seen = HashSet::new();
        let mut from = RunId::floor_of(DateTime::UNIX_EPOCH);
        loop {
            let ids = self.reader.open_runs(from, first, PAGE).await?;
            let Some(last) = ids.last() else { break };
            from = after(*last);
            seen.extend(ids.iter().copied());
            self.page(ids).await?;
        }
        let since = self.scope.since.unwrap_or_default();
        let mut behind = Touch { at: since, run: RunId::from_uuid(Uuid::nil()), first_seq: 0 };
        loop {
            let touched = self.reader.touched(&behind, TOUCHES).await?;
            let Some(last) = touched.last() else { return Ok(()) };
            behind = last.clone();
            let ids: Vec<RunId> = touched.iter().map(|t| t.run).filter(|id| *id < first && seen.insert(*id)).collect();
            for page in ids.chunks(PAGE as usize) {
                self.page(page.to_vec()).await?;
            }
        }
    }

    /// Checks some runs; a page that cannot be read is halved until the culprit is alone.
    async fn page(&mut self, ids: Vec<RunId>) -> Result<(), Error> {
        let mut open = vec![ids];
        while let Some(mut ids) = open.pop() {
            match self.reader.histories(&ids).await {
                Ok(histories) => {
                    self.report.looked(&READABLE, ids.len());
                    self.look(histories).await;
                }
                Err(_) if ids.len() > 1 => {
                    open.push(ids.split_off(ids.len() / 2));
                    open.push(ids);
                }
                Err(Error::Refused(why)) => {
                    self.report.looked(&READABLE, 1);
                    self.report.found(&READABLE, ids[0].to_string(), why);
                    self.counts.incomplete = true;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn look(&mut self, histories: Histories) {
        let Histories { now, runs, differing } = histories;
        self.report.looked(&COLUMNS, runs.len());
        for (run, row) in differing {
            self.report.found(&COLUMNS, run.to_string(), format!("columns and document of the {row} differ"));
        }
        let moment = Moment::new(now, self.scope.overdue);
        for check in Check::ALL {
            self.report.looked(&Question::of(*check), runs.len());
        }
        for (state, events) in &runs {
            for violation in audit::run(state, events, &moment) {
                self.report.violation(violation);
            }
            self.blobs.check(state, events, self.report).await;
            self.counts.add(state, events);
        }
    }
}

/// The next id.
fn after(id: RunId) -> RunId {
    RunId::from_uuid(Uuid::from_u128(id.as_uuid().as_u128().saturating_add(1)))
}
