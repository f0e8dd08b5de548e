//! The janitor of a machine: looks, asks, keeps what was lost, removes, reports.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use hopyard_contract::AttemptId;
use hopyard_contract::message::{ReclaimOrder, Report, Reports, WorkspaceRemoved, WorkspaceSaved, WorkspacesQuery, WorkspacesReply};
use hopyard_contract::usage::Usage;
use hopyard_scheduler::request::{Answer, Request};

use crate::bugs::Bug;
use crate::bus::{Body, StreamId};
use crate::clockwork::{First, MS, Micros, ProcessId, S, either};
use crate::host::{Control, Host};
use crate::world::World;

/// Between passes.
pub(crate) const PASS: Micros = 60 * S;
/// Until a pass without an answer is tried again.
const SOON: Micros = 5 * S;
/// Until a ticket whose workspace could not be removed comes again.
const AGAIN: Micros = 60 * S;
/// How often and how far apart the commit of saved work is asked for.
const CONFIRM: (u32, Micros) = (20, 250 * MS);

struct Janitor {
    world: Rc<World>,
    index: usize,
    process: ProcessId,
}

/// Starts a janitor.
pub(crate) fn start(world: &Rc<World>, index: usize) {
    let process = world.janitors[index];
    world.clock.start(process);
    let own = Janitor { world: world.clone(), index, process };
    world.clock.spawn(process, async move {
        let mut due = own.world.now();
        loop {
            let wait = (due - own.world.now()).max(0);
            match either(own.world.bus.fetch(process, StreamId::Gc(index), 64), own.world.clock.sleep(wait)).await {
                First::Left(tickets) => {
                    let ids: BTreeSet<String> =
                        tickets.iter().filter_map(|ticket| if let Body::Gc(id) = &ticket.body { Some(id.clone()) } else { None }).collect();
                    let failed = own.pass(Some(&ids)).await;
                    for ticket in tickets {
                        let bad = match (&failed, &ticket.body) {
                            (Some(failed), Body::Gc(id)) => failed.contains(id),
                            _ => true,
                        };
                        if bad {
                            own.world.bus.again(process, &ticket, AGAIN);
                        } else {
                            own.world.bus.ack(process, &ticket);
                        }
                    }
                }
                First::Right(()) => {
                    let pause = if own.pass(None).await.is_some() { PASS } else { SOON };
                    due = own.world.now() + pause;
                }
            }
        }
    });
}

impl Janitor {
    fn host(&self) -> &Host {
        &self.world.hosts[self.index]
    }

    /// One pass, over some workspaces or all; the ids that could not be removed, or nothing when nobody answered.
    async fn pass(&self, only: Option<&BTreeSet<String>>) -> Option<BTreeSet<String>> {
        let world = &self.world;
        let wanted = |id: &String| only.is_none_or(|only| only.contains(id));
        let disk: BTreeMap<String, String> = {
            let workspaces = self.host().workspaces.borrow();
            let temporary = workspaces.iter().filter(|(key, _)| !key.starts_with("session-"));
            temporary.map(|(key, directory)| (directory.owner.clone(), key.clone())).filter(|(id, _)| wanted(id)).collect()
        };
        let mut names: BTreeSet<String> = disk.keys().cloned().collect();
        names.extend(only.into_iter().flatten().cloned());
        let mut reply = self.ask(names.into_iter().collect(), only.is_some()).await?;
        let missing: Vec<String> = std::mem::take(&mut reply.missing).into_iter().filter(|id| !disk.contains_key(id)).collect();
        if !missing.is_empty() {
            let more = self.ask(missing, true).await?;
            reply.reclaimable.extend(more.reclaimable);
        }
        if world.has(Bug::NeverDeletes) {
            return Some(BTreeSet::new());
        }
        let mut going = reply.reclaimable;
        let order = |id: &String| ReclaimOrder { id: id.clone(), url: None, lost: Vec::new() };
        if world.has(Bug::DeletesKept) {
            going.extend(reply.keep.iter().filter(|id| disk.contains_key(*id)).map(order));
        }
        if world.has(Bug::DeletesByAge) {
            let old = |key: &String| self.host().workspaces.borrow().get(key).is_some_and(|d| world.now() - d.made_at > 5 * S);
            going.extend(disk.iter().filter(|(_, key)| old(key)).map(|(id, _)| order(id)));
        }
        let mut failed = BTreeSet::new();
        for order in going {
            if self.remove(&order, disk.get(&order.id)).await.is_none() {
                failed.insert(order.id);
            }
        }
        Some(failed)
    }

    async fn ask(&self, found: Vec<String>, only_found: bool) -> Option<WorkspacesReply> {
        let query = WorkspacesQuery { host: self.host().name.clone(), found, only_found };
        match self.world.bus.call(self.process, Request::Workspaces(query)).await {
            Ok(Answer::Workspaces(reply)) => Some(reply),
            _ => None,
        }
    }

    /// Keeps what was lost, then removes the directory; `None` when it has to stay.
    async fn remove(&self, order: &ReclaimOrder, key: Option<&String>) -> Option<()> {
        let world = &self.world;
        // Nothing is at this place: a directory of that name elsewhere on the machine is a session's, which goes on.
        let session = self.host().workspaces.borrow().iter().any(|(k, d)| k.starts_with("session-") && d.owner == order.id);
        if key.is_none() && session {
            return Some(());
        }
        if !order.lost.is_empty() && !world.has(Bug::DeletesBeforeSave) {
            self.save(order, key).await?;
        }
        world.clock.sleep(world.fate.between(MS, 100 * MS)).await;
        if let Some(key) = key {
            world.checks.borrow_mut().directory_goes(world, self.index, key);
            self.host().workspaces.borrow_mut().remove(key);
        }
        world.note("removed", 0, || order.id.clone());
        if world.has(Bug::RemovalNotReported) {
            return Some(());
        }
        let removed = WorkspaceRemoved { id: order.id.clone(), host: self.host().name.clone(), bytes: 1, reason: "finished".to_owned() };
        // If it cannot be said, the next pass finds the workspace absent and says so again.
        self.report(Report::WorkspaceRemoved(removed)).await;
        Some(())
    }

    async fn save(&self, order: &ReclaimOrder, key: Option<&String>) -> Option<()> {
        let mut awaited: Vec<AttemptId> = Vec::new();
        for attempt in &order.lost {
            loop {
                let process = self.host().processes.borrow().get(attempt).cloned();
                let Some(process) = process else { break };
                process.control.send(Control::Kill { force: true });
                self.world.clock.sleep(MS).await;
            }
            self.world.clock.sleep(self.world.fate.between(5 * MS, 200 * MS)).await;
            let snapshot = key.and_then(|key| self.world.snapshot(self.index, key));
            if snapshot.is_some() {
                awaited.push(attempt.clone());
            }
            let saved =
                WorkspaceSaved { attempt: attempt.clone(), snapshot, bundle: None, log: None, log_bytes: 0, usage: Usage::default() };
            self.report(Report::WorkspaceSaved(saved)).await?;
        }
        if awaited.is_empty() {
            return Some(());
        }
        for _ in 0..CONFIRM.0 {
            let reply = self.ask(vec![order.id.clone()], true).await?;
            let open = reply.reclaimable.iter().find(|open| open.id == order.id)?;
            if !awaited.iter().any(|attempt| open.lost.contains(attempt)) {
                return Some(());
            }
            self.world.clock.sleep(CONFIRM.1).await;
        }
        None
    }

    async fn report(&self, report: Report) -> Option<()> {
        let from = format!("janitor-{}", self.index).parse().ok()?;
        let body = Rc::new(Reports { v: 1, from, reports: vec![report] });
        let mut pause = 100 * MS;
        for _ in 0..6 {
            if self.world.bus.publish(self.process, StreamId::Result, Body::Reports(body.clone())).await.is_ok() {
                return Some(());
            }
            self.world.clock.sleep(pause).await;
            pause *= 2;
        }
        None
    }
}
