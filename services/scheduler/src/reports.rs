//! Reports as they come from their stream: read one by one, and what cannot be read is set aside as a dead letter.

use std::time::Duration;

use hopyard_contract::Name;
use hopyard_contract::message::{Report, Reports};
use hopyard_runtime::bus::encode;
use hopyard_runtime::consume::Delivery;
use hopyard_runtime::{Bus, dead_letters};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The reports of a message as they travel: one that a newer version has made does not cost the others.
#[derive(Deserialize, Serialize)]
struct Loose {
    v: u32,
    from: Name,
    reports: Vec<Value>,
}

/// Reads reports one by one, and sets those aside that cannot be read; `None` when that has to be tried again.
pub(crate) async fn read(bus: &Bus, delivery: &Delivery) -> serde_json::Result<Option<Reports>> {
    if let Ok(reports) = serde_json::from_slice(&delivery.body) {
        return Ok(Some(reports));
    }
    let Loose { v, from, reports } = serde_json::from_slice(&delivery.body)?;
    let mut known = Vec::with_capacity(reports.len());
    for (index, report) in reports.into_iter().enumerate() {
        match Report::deserialize(&report) {
            Ok(report) => known.push(report),
            Err(error) => {
                let alone = encode(&Loose { v, from: from.clone(), reports: vec![report] });
                if !store(bus, delivery, &alone, &format!(":{index}"), "undecodable", &error.to_string()).await {
                    return Ok(None);
                }
            }
        }
    }
    Ok(Some(Reports { v, from, reports: known }))
}

/// Sets a message aside as a dead letter and acknowledges it once that is stored.
pub(crate) async fn set_aside(bus: &Bus, delivery: &Delivery, code: &str, detail: &str) {
    if store(bus, delivery, &delivery.body, "", code, detail).await {
        delivery.ack().await;
    }
}

/// Stores a dead letter; if that fails the message comes again.
async fn store(bus: &Bus, delivery: &Delivery, body: &[u8], part: &str, code: &str, detail: &str) -> bool {
    match dead_letters::set_aside_part(bus, delivery, body, part, code, detail).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "a dead letter could not be stored");
            delivery.later(Duration::from_secs(5)).await;
            false
        }
    }
}
