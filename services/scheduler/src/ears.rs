//! What the scheduler hears: requests, and reports from their stream.

use std::sync::Arc;

use hopyard_contract::message::{Drain, MESSAGE_VERSION, PutDefinition, RpcError, SchedulerStatus, StatusQuery};
use hopyard_contract::subject::{self, Verb};
use hopyard_contract::topology;
use hopyard_runtime::consume::Consumer;
use hopyard_runtime::rpc::{Incoming, Listener};
use hopyard_runtime::{Bus, Context, bounds};
use hopyard_store::runs::RunStore;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::inbox::{self, From, Inbox, Work};
use crate::outbox::Outbox;
use crate::reports;
use crate::request::Request;

/// Most reports messages in one batch.
const BATCH: usize = 256;
/// Definitions that are being stored at once: each is a transaction of its own.
const STORING: usize = 512;
/// Name of the set of them on `/metrics`.
const DEFINITIONS: &str = "definitions";

/// Starts to listen.
pub(crate) async fn start(ctx: &Context, store: Arc<dyn RunStore>, inbox: Inbox, outbox: Outbox) -> anyhow::Result<()> {
    let mut listener = Listener::open(&ctx.bus).await?;
    let (stop, drain, to_loop) = (ctx.tasks.stopping().clone(), ctx.tasks.draining().clone(), inbox.clone());
    let (bus, id, tasks) = (ctx.bus.clone(), ctx.id.clone(), ctx.tasks.clone());
    let storing = Arc::new(Semaphore::new(STORING));
    let shown = storing.clone();
    bounds::show(DEFINITIONS, STORING, move || STORING - shown.available_permits());
    ctx.tasks.spawn("requests", async move {
        let mut leaving = false;
        loop {
            let incoming = tokio::select! {
                incoming = listener.next() => incoming,
                () = drain.cancelled(), if !leaving => {
                    // Whatever was delivered already is answered; the next requests go to another scheduler, or to none.
                    leaving = true;
                    listener.leave().await;
                    continue;
                }
                () = stop.cancelled() => None,
            };
            let Some(incoming) = incoming else { break };
            match incoming.verb {
                // Immutable by hash and alone in their table: no need to wait for a batch.
                Verb::PutDefinition => match storing.clone().try_acquire_owned() {
                    Ok(place) => {
                        let store = store.clone();
                        tasks.spawn_part("put-definition", async move {
                            on_put_definition(store.as_ref(), &incoming).await;
                            drop(place);
                            Ok(())
                        });
                    }
                    Err(_) => {
                        bounds::overflow(DEFINITIONS);
                        incoming.answer::<()>(Err(busy())).await;
                    }
                },
                Verb::Status => {
                    let answer = incoming.read::<StatusQuery>().map(|_| SchedulerStatus {
                        id: id.clone(),
                        outbox_ms: outbox.age_ms(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                    });
                    incoming.answer(answer).await;
                }
                Verb::Drain => on_drain(&bus, &incoming).await,
                Verb::Accept => hand_over(&to_loop, incoming, Request::Accept).await,
                Verb::Claim => hand_over(&to_loop, incoming, Request::Claim).await,
                Verb::Renew => hand_over(&to_loop, incoming, Request::Renew).await,
                Verb::Pin => hand_over(&to_loop, incoming, Request::Pin).await,
                Verb::Kill => hand_over(&to_loop, incoming, Request::Kill).await,
                Verb::Answer => hand_over(&to_loop, incoming, Request::Answer).await,
                Verb::Resume => hand_over(&to_loop, incoming, Request::Resume).await,
                Verb::Hello => hand_over(&to_loop, incoming, Request::Hello).await,
                Verb::Workspaces => hand_over(&to_loop, incoming, Request::Workspaces).await,
            }
        }
        Ok(())
    });

    let mut stream = Consumer::new(ctx.bus.clone(), ctx.topology, topology::scheduler(), BATCH);
    stream.ensure().await?;
    let (drain, bus) = (ctx.tasks.draining().clone(), ctx.bus.clone());
    ctx.tasks.spawn("reports", async move {
        while let Some(batch) = stream.next_until(&drain).await {
            hopyard_runtime::failpoint!("scheduler.reports.taken");
            for delivery in batch {
                match reports::read(&bus, &delivery).await {
                    Ok(Some(body)) if body.v > MESSAGE_VERSION => {
                        let detail = format!("the message has version {}, this build reads {MESSAGE_VERSION}", body.v);
                        reports::set_aside(&bus, &delivery, "unknown_version", &detail).await;
                    }
                    Ok(Some(body)) => {
                        if inbox.send(Work { request: Request::Reports(body), from: From::Stream(Box::new(delivery)) }).await.is_err() {
                            return Ok(());
                        }
                    }
                    // It comes again.
                    Ok(None) => {}
                    Err(error) => reports::set_aside(&bus, &delivery, "undecodable", &error.to_string()).await,
                }
            }
        }
        Ok(())
    });
    Ok(())
}

async fn hand_over<T: DeserializeOwned>(inbox: &Inbox, incoming: Incoming, request: fn(T) -> Request) {
    match incoming.read::<T>() {
        Ok(body) => {
            // A full inbox is answered at once, so that the asker can tell and try another scheduler.
            if let Err(full) = inbox.try_send(Work { request: request(body), from: From::Asker(Box::new(incoming)) }) {
                bounds::overflow(inbox::QUEUE);
                full.into_inner().refuse(&busy()).await;
            }
        }
        Err(error) => incoming.answer::<()>(Err(error)).await,
    }
}

/// The answer to whoever comes when there is no room: another scheduler, or a later moment, may have some.
fn busy() -> RpcError {
    RpcError { code: "busy".to_owned(), detail: "the scheduler has too much to do".to_owned() }
}

async fn on_put_definition(store: &dyn RunStore, incoming: &Incoming) {
    let answer = match incoming.read::<PutDefinition>() {
        Ok(put) => store.put_definition(&put).await.map_err(|e| RpcError { code: "store_unavailable".to_owned(), detail: e.to_string() }),
        Err(error) => Err(error),
    };
    hopyard_runtime::failpoint!("scheduler.definition.stored");
    incoming.answer(answer).await;
}

async fn on_drain(bus: &Bus, incoming: &Incoming) {
    match incoming.read::<Drain>() {
        Ok(drain) => {
            bus.tell(&subject::ctl(&drain.executor), &hopyard_contract::message::Control::Drain).await;
            incoming.answer(Ok(())).await;
        }
        Err(error) => incoming.answer::<()>(Err(error)).await,
    }
}
