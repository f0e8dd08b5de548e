//! Reports as they come from their stream: read one by one, and what cannot be read is set aside as a dead letter.

use std::time::Duration;

use base64::Engine as _;
use chrono::Utc;
use hopyard_contract::message::{DeadLetter, Report, Reports};
use hopyard_contract::{Name, subject, topology};
use hopyard_runtime::Bus;
use hopyard_runtime::bus::encode;
use hopyard_runtime::consume::Delivery;
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
                let letter = letter(delivery, "undecodable", &error.to_string(), &alone);
                if !store(bus, delivery, &letter, &format!(":{index}")).await {
                    return Ok(None);
                }
            }
        }
    }
    Ok(Some(Reports { v, from, reports: known }))
}

/// Sets a message aside as a dead letter and acknowledges it once that is stored.
pub(crate) async fn set_aside(bus: &Bus, delivery: &Delivery, code: &str, detail: &str) {
    if store(bus, delivery, &letter(delivery, code, detail, &delivery.body), "").await {
        delivery.ack().await;
    }
}

fn letter(delivery: &Delivery, code: &str, detail: &str, body: &[u8]) -> DeadLetter {
    DeadLetter {
        v: 1,
        stream: topology::RESULT.name.to_owned(),
        subject: delivery.subject.clone(),
        seq: delivery.sequence,
        code: code.to_owned(),
        detail: detail.to_owned(),
        attempts: delivery.deliveries,
        body: base64::engine::general_purpose::STANDARD.encode(body),
        at: Utc::now(),
    }
}

/// Stores a dead letter; if that fails the message comes again.
async fn store(bus: &Bus, delivery: &Delivery, letter: &DeadLetter, part: &str) -> bool {
    let id = format!("{}:{}:{}{part}", topology::RESULT.name, delivery.sequence, delivery.time_ns());
    match bus.publish_stored(&subject::dlq(topology::RESULT.name), Some(&id), encode(letter)).await {
        Ok(_) => {
            tracing::warn!(
                code = letter.code,
                detail = letter.detail,
                subject = delivery.subject,
                sequence = delivery.sequence,
                "a message was set aside"
            );
            true
        }
        Err(error) => {
            tracing::warn!(%error, "a dead letter could not be stored");
            delivery.later(Duration::from_secs(5)).await;
            false
        }
    }
}
