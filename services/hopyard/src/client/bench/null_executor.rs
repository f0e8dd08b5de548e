//! Executors that carry nothing out: they claim, renew and report over the bus as real ones do, and every attempt completes at
//! once. What is left to measure is everything but the work.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::Utc;
use hopyard_contract::message::{
    Claim, ClaimReply, Control, Finished, Grant, Hello, HelloReply, MESSAGE_VERSION, Outcome, Renew, RenewReply, Renewal, Report, Reports,
};
use hopyard_contract::subject::{self, Verb};
use hopyard_contract::{AttemptId, Name, Usage, topology};
use hopyard_runtime::bus::{self, encode};
use hopyard_runtime::consume::Consumer;
use hopyard_runtime::tasks::Tasks;
use hopyard_runtime::topology::Topology;
use hopyard_runtime::{Bus, Config, rpc};
use tokio::sync::Notify;
use uuid::Uuid;

/// Slots of each, and most attempts of a claim: more are not granted at once.
const SLOTS: u32 = 64;
/// Time after which it claims unasked.
const EVERY: Duration = Duration::from_secs(1);

/// Some of them, at work until [`NullExecutors::stop`].
pub(super) struct NullExecutors {
    tasks: Tasks,
}

/// One of them.
struct Null {
    bus: Bus,
    id: Name,
    pool: Name,
    /// Attempts whose results are not committed yet, with the secrets of their leases.
    held: Mutex<HashMap<AttemptId, Uuid>>,
    ring: Notify,
}

impl NullExecutors {
    /// Starts `count` of them on a bus.
    ///
    /// # Errors
    /// When the bus or the scheduler does not answer.
    pub(super) async fn start(nats_url: &str, count: u32) -> Result<Self> {
        let config = Config::load(&[("NATS_URL", Some(nats_url.to_owned()))])?;
        let tasks = Tasks::default();
        for n in 1..=count {
            let id: Name = format!("null-{n}").parse().context("the name of an executor")?;
            let bus = Bus::connect(&config, id.as_str(), bus::START).await?;
            let null = Null { bus, id, pool: Name::default_pool(), held: Mutex::default(), ring: Notify::new() };
            Arc::new(null).start(&tasks, Topology::from_config(&config)?).await?;
        }
        Ok(Self { tasks })
    }

    /// Ends them, and returns when nothing of them is left.
    ///
    /// # Errors
    /// When one of them gave up before.
    pub(super) async fn stop(self) -> Result<()> {
        self.tasks.stopping().cancel();
        self.tasks.finished().await;
        anyhow::ensure!(!self.tasks.failed().is_cancelled(), "an executor of the bench gave up; its log says why");
        Ok(())
    }
}

impl Null {
    async fn start(self: Arc<Self>, tasks: &Tasks, topology: Topology) -> Result<()> {
        let mut orders = self.bus.subscribe(&subject::ctl(&self.id)).await?;
        let mut tickets = Consumer::new(self.bus.clone(), topology, topology::executors(&self.pool), 1);
        let pace = self.hello().await?;
        let (own, stop) = (self.clone(), tasks.stopping().clone());
        tasks.spawn("null-orders", async move {
            while let Some(Some(message)) = stop.run_until_cancelled(orders.next()).await {
                own.on_order(&message.body);
            }
            Ok(())
        });
        let (own, stop) = (self.clone(), tasks.stopping().clone());
        tasks.spawn("null-tickets", async move {
            while let Some(ticket) = stop.run_until_cancelled(tickets.one()).await {
                ticket.ack().await;
                own.ring.notify_one();
            }
            Ok(())
        });
        let (own, stop) = (self.clone(), tasks.stopping().clone());
        tasks.spawn("null-leases", async move {
            while stop.run_until_cancelled(tokio::time::sleep(Duration::from_millis(pace.renew_ms))).await.is_some() {
                own.renew().await?;
            }
            Ok(())
        });
        let (stop, parts) = (tasks.stopping().clone(), tasks.clone());
        tasks.spawn("null-claims", async move { stop.run_until_cancelled(self.claim_for_ever(&parts)).await.unwrap_or(Ok(())) });
        Ok(())
    }

    async fn hello(&self) -> Result<HelloReply> {
        let hello = Hello {
            executor: self.id.clone(),
            incarnation: Uuid::new_v4(),
            host: self.id.clone(),
            pool: self.pool.clone(),
            slots: SLOTS,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            workspaces: Vec::new(),
            draining: false,
        };
        Ok(rpc::call(&self.bus, Verb::Hello, &hello).await?)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<AttemptId, Uuid>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_order(&self, body: &[u8]) {
        match serde_json::from_slice(body) {
            Ok(Control::Settled { attempts }) => {
                let mut held = self.held();
                attempts.iter().for_each(|attempt| {
                    held.remove(attempt);
                });
            }
            Ok(Control::Ring) => self.ring.notify_one(),
            // Nobody kills runs of a bench or drains it, and what cannot be read is for later versions.
            Ok(Control::Kill { .. } | Control::Drain) | Err(_) => {}
        }
    }

    async fn renew(&self) -> Result<()> {
        let renewal = |(attempt, token): (&AttemptId, &Uuid)| Renewal {
            attempt: attempt.clone(),
            token: *token,
            usage: Usage::default(),
            log_bytes: 0,
        };
        let leases: Vec<Renewal> = self.held().iter().map(renewal).collect();
        if leases.is_empty() {
            return Ok(());
        }
        let _: RenewReply = rpc::call(&self.bus, Verb::Renew, &Renew { executor: self.id.clone(), leases }).await?;
        Ok(())
    }

    async fn claim_for_ever(self: &Arc<Self>, parts: &Tasks) -> Result<()> {
        loop {
            let claim =
                Claim { claim_id: Uuid::new_v4(), executor: self.id.clone(), host: self.id.clone(), pool: self.pool.clone(), free: SLOTS };
            let reply: ClaimReply = rpc::call(&self.bus, Verb::Claim, &claim).await?;
            if !reply.grants.is_empty() {
                self.held().extend(reply.grants.iter().map(|grant| (grant.attempt.clone(), grant.token)));
                let own = self.clone();
                // Claims go on while the bus stores the results of the one before.
                parts.spawn_part("null-results", async move { own.finish(&reply.grants).await });
            }
            if !reply.more {
                // A ring that is missed costs no more than a claim does.
                let _ = tokio::time::timeout(EVERY, self.ring.notified()).await;
            }
        }
    }

    async fn finish(&self, grants: &[Grant]) -> Result<()> {
        let now = Utc::now();
        let finished = |grant: &Grant| Finished {
            started_at: Some(now),
            exit_code: Some(0),
            ..Finished::new(grant.attempt.clone(), grant.token, Outcome::Completed, now)
        };
        let reports = grants.iter().map(|grant| Report::Finished(finished(grant))).collect();
        let body = encode(&Reports { v: MESSAGE_VERSION, from: self.id.clone(), reports });
        self.bus.publish_stored(&subject::result(&self.id), None, body).await?;
        Ok(())
    }
}
