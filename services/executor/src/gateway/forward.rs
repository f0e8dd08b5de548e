//! One call: allowed, passed on with the real key, and metered while its answer passes by.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use chrono::Utc;
use futures::StreamExt as _;
use hopyard_contract::calls::CallRecord;
use hopyard_runtime::clock::BootInstant;
use serde_json::Value;

use super::purse::Empty;
use super::route::Route;
use super::{Session, purse, refusal};
use crate::instruments::{self, OpenCall};
use crate::limit::Limit;
use crate::wire::{Meter, Wire, chat, limit};

/// Most bytes of a request: a context of a million tokens is far below it.
const MOST: usize = 64 << 20;
/// Most bytes of a refusal that are passed on.
const MOST_OF_REFUSAL: usize = 1 << 20;

/// Headers that belong to one connection, to the agent's token, or to a body that may be changed here.
const OWN: [HeaderName; 8] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::AUTHORIZATION,
    // An answer that is packed cannot be read while it passes by.
    header::ACCEPT_ENCODING,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

/// Passes a request on and its answer back.
pub(super) async fn call(session: Arc<Session>, route: Route, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MOST).await else {
        return refusal::bad_body(route.wire, "the request is longer than 64 MiB, or broke off");
    };
    let (body, model) = match prepared(&route, body) {
        Ok(prepared) => prepared,
        Err(detail) => return refusal::bad_body(route.wire, &detail),
    };
    // A step that is held still makes no calls; one that is over gets no more.
    if session.live.relied_on(session.freeze_limit).await.is_err() {
        return refusal::step_is_over(route.wire);
    }
    if route.metered
        && let Err(empty) = purse::allowed(&session, &model).await
    {
        return match empty {
            Empty::Own(words) => {
                session.stop.over_budget();
                refusal::over_budget(route.wire, &words)
            }
            Empty::Shared(limit) => limited(&session, route.wire, limit),
        };
    }
    // It is held until the answer has passed by.
    let place = match session.provider.place().await {
        Ok(place) => place,
        Err(limit) => return limited(&session, route.wire, limit),
    };
    let began = BootInstant::now();
    let open = route.metered.then(|| OpenCall::begin(&session.provider.name));
    let record = CallRecord {
        at: Utc::now(),
        provider: session.provider.name.clone(),
        model,
        status: None,
        tokens: None,
        cost_microusd: None,
        prices: session.prices.version().to_owned(),
        first_byte_ms: None,
        took_ms: 0,
        stop: None,
        error: None,
        whole: false,
    };
    let path = without_key(&route.path);
    let url = format!("{}{path}", session.provider.base_url);
    let sent = match session.provider.key() {
        Ok(key) => {
            let headers = passed_on(&parts.headers, route.wire, key.as_deref());
            session.provider.http.request(parts.method, url).headers(headers).body(body).send().await.map_err(|error| error.to_string())
        }
        Err(error) => Err(format!("the provider's key cannot be read: {error}")),
    };
    let answer = match sent {
        Ok(answer) => answer,
        Err(error) => {
            let took_ms = millis(began.elapsed());
            if route.metered {
                settle(&session, CallRecord { error: Some(error.clone()), took_ms, ..record });
            }
            return refusal::unreachable(route.wire, &error);
        }
    };
    let status = answer.status();
    let mut response = Response::builder().status(status);
    for (name, value) in answer.headers() {
        if !OWN.contains(name) {
            response = response.header(name, value);
        }
    }
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let meter = Meter::new(route.wire, kind);
    let record = CallRecord { status: Some(status.as_u16()), first_byte_ms: Some(millis(began.elapsed())), ..record };
    let metering =
        route.metered.then(|| Metering { session: session.clone(), meter: Some(meter), record: Some(record), began, _open: open });
    if limit::is_later(status) {
        return refused(&session, route.wire, answer, metering, response).await;
    }
    let pieces = futures::stream::unfold((answer.bytes_stream(), metering, place), |(mut pieces, mut metering, place)| async move {
        let piece = pieces.next().await?;
        if let (Ok(bytes), Some(metering)) = (&piece, &mut metering) {
            metering.feed(bytes);
        }
        Some((piece, (pieces, metering, place)))
    });
    response.body(Body::from_stream(pieces)).unwrap_or_else(|_| Response::new(Body::empty()))
}

/// The provider takes the call later: the whole of its refusal says when, and whether the step waits for that.
async fn refused(
    session: &Session,
    wire: Wire,
    answer: reqwest::Response,
    mut metering: Option<Metering>,
    response: axum::http::response::Builder,
) -> Response {
    let headers = answer.headers().clone();
    let mut body = Vec::new();
    let mut pieces = answer.bytes_stream();
    while let Some(Ok(bytes)) = pieces.next().await
        && body.len() + bytes.len() <= MOST_OF_REFUSAL
    {
        body.extend_from_slice(&bytes);
    }
    if let Some(metering) = &mut metering {
        metering.feed(&body);
    }
    let mut meter = Meter::new(wire, "application/json");
    meter.feed(&body);
    let words = meter.end().error.unwrap_or_else(|| "it gives no reason".to_owned());
    let long = limit::pause(&headers, &body, Utc::now()).and_then(|pause| session.provider.quiet(pause, &words));
    match long {
        Some(limit) => limited(session, wire, limit),
        None => response.body(body.into()).unwrap_or_else(|_| Response::new(Body::empty())),
    }
}

/// No call goes through for longer than the step waits.
fn limited(session: &Session, wire: Wire, limit: Limit) -> Response {
    let detail = limit.sentence();
    session.stop.limited(limit);
    refusal::limited(wire, &detail)
}

/// A call whose answer passes by; it is written down when the answer ends or either side goes away.
struct Metering {
    session: Arc<Session>,
    meter: Option<Meter>,
    record: Option<CallRecord>,
    began: BootInstant,
    _open: Option<OpenCall>,
}

impl Metering {
    fn feed(&mut self, bytes: &[u8]) {
        if let Some(meter) = &mut self.meter {
            meter.feed(bytes);
        }
    }
}

impl Drop for Metering {
    fn drop(&mut self) {
        let (Some(meter), Some(record)) = (self.meter.take(), self.record.take()) else { return };
        let call = meter.end();
        let price = |model: &str| call.tokens.and_then(|tokens| self.session.prices.cost(model, tokens, record.at));
        // Some answer by a name that has no price, of a model that was asked by one that has.
        let cost_microusd = call.model.as_deref().and_then(price).or_else(|| price(&record.model));
        let model = call.model.clone().unwrap_or_else(|| record.model.clone());
        settle(
            &self.session,
            CallRecord {
                cost_microusd,
                model,
                tokens: call.tokens,
                stop: call.stop,
                error: call.error,
                whole: call.whole,
                took_ms: millis(self.began.elapsed()),
                ..record
            },
        );
    }
}

fn settle(session: &Session, record: CallRecord) {
    let provider = record.provider.as_str();
    let status = record.status.map_or_else(|| "none".to_owned(), |status| status.to_string());
    instruments::model_calls().with_label_values(&[provider, &status]).inc();
    if let Some(tokens) = record.tokens {
        for (kind, count) in tokens.by_kind() {
            instruments::model_tokens().with_label_values(&[provider, kind]).inc_by(count);
        }
        session.provider.used(tokens.input.saturating_add(tokens.output));
    }
    if let Err(error) = session.ledger.add(&record) {
        tracing::error!(%error, "a model call could not be written down");
    }
}

/// The body as it is passed on, and the model that it asks.
fn prepared(route: &Route, body: Bytes) -> Result<(Bytes, String), String> {
    if route.wire == Wire::Gemini {
        let model = route.path.split(['/', ':', '?']).nth(3).unwrap_or_default();
        return Ok((body, model.to_owned()));
    }
    if body.is_empty() {
        return Ok((body, String::new()));
    }
    let mut request: Value = serde_json::from_slice(&body).map_err(|error| format!("the request is no JSON: {error}"))?;
    let model = request.get("model").and_then(Value::as_str).unwrap_or_default().to_owned();
    if route.wire != Wire::Chat {
        return Ok((body, model));
    }
    chat::ask_for_usage(&mut request);
    let body = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
    Ok((body.into(), model))
}

/// The agent's headers, with the real key in the place of its token.
fn passed_on(theirs: &HeaderMap, wire: Wire, key: Option<&str>) -> HeaderMap {
    let mut headers: HeaderMap = theirs.iter().filter(|(name, _)| !OWN.contains(name)).map(|(n, v)| (n.clone(), v.clone())).collect();
    let Some(key) = key else { return headers };
    let (name, value) = wire.credential(key);
    let name = HeaderName::from_static(name);
    if let Ok(mut value) = HeaderValue::from_str(&value) {
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    headers
}

/// A path without a token in its query.
fn without_key(path: &str) -> String {
    let Some((path, query)) = path.split_once('?') else { return path.to_owned() };
    let kept: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("key=")).collect();
    if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
