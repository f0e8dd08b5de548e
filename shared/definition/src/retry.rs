//! The fields that steps and `defaults` share: limits of time, pool and retry policy.

use hopyard_contract::Name;
use hopyard_contract::duration::Span;
use hopyard_contract::plan::{Backoff, Retry};
use hopyard_contract::status::FailureCode;

use crate::document::Node;
use crate::reader::{Fields, Reader};

pub(crate) const RETRY_FIELDS: [&str; 3] = ["max_attempts", "backoff", "on"];
pub(crate) const BACKOFF_FIELDS: [&str; 2] = ["initial", "max"];

/// What a step says itself, or takes from `defaults`.
#[derive(Clone, Default)]
pub(crate) struct Limits {
    pub(crate) timeout: Option<Span>,
    pub(crate) idle_timeout: Option<Span>,
    pub(crate) grace: Option<Span>,
    pub(crate) retry: Option<Retry>,
    pub(crate) pool: Option<Name>,
}

/// Reads the shared fields of a step or of `defaults`.
pub(crate) fn limits(reader: &mut Reader, fields: &Fields<'_>, pointer: &str) -> Limits {
    let mut span = |name: &str| fields.get(name).and_then(|n| reader.span(n, &format!("{pointer}/{name}")));
    let (timeout, idle_timeout, grace) = (span("timeout"), span("idle_timeout"), span("grace"));
    let retry = fields.get("retry").and_then(|n| retry(reader, n, &format!("{pointer}/retry")));
    let pool = fields.get("pool").and_then(|n| reader.name(n, &format!("{pointer}/pool")));
    Limits { timeout, idle_timeout, grace, retry, pool }
}

impl Limits {
    /// What is absent is taken from `defaults`; a retry policy is taken whole or not at all.
    pub(crate) fn or(self, defaults: &Self) -> Self {
        Self {
            timeout: self.timeout.or(defaults.timeout),
            idle_timeout: self.idle_timeout.or(defaults.idle_timeout),
            grace: self.grace.or(defaults.grace),
            retry: self.retry.or_else(|| defaults.retry.clone()),
            pool: self.pool.or_else(|| defaults.pool.clone()),
        }
    }
}

fn retry(reader: &mut Reader, node: &Node, pointer: &str) -> Option<Retry> {
    let fields = reader.fields(node, pointer, &RETRY_FIELDS)?;
    let attempts = match fields.get("max_attempts") {
        Some(node) => reader.integer(node, &format!("{pointer}/max_attempts"), 1, 100),
        None => {
            reader.missing(&fields, pointer, "max_attempts");
            None
        }
    };
    let backoff = fields.get("backoff").map_or_else(|| Some(Backoff::default()), |n| backoff(reader, n, &format!("{pointer}/backoff")));
    let on = match fields.get("on") {
        Some(node) => Some(codes(reader, node, &format!("{pointer}/on"))?),
        None => None,
    };
    Some(Retry { max_attempts: u32::try_from(attempts?).ok()?, backoff: backoff?, on })
}

fn backoff(reader: &mut Reader, node: &Node, pointer: &str) -> Option<Backoff> {
    let fields = reader.fields(node, pointer, &BACKOFF_FIELDS)?;
    let mut span = |name: &str, absent: Span| match fields.get(name) {
        Some(node) => reader.span(node, &format!("{pointer}/{name}")),
        None => Some(absent),
    };
    let Backoff { initial, max } = Backoff::default();
    let (initial, max) = (span("initial", initial), span("max", max));
    let (initial, max) = (initial?, max?);
    if initial > max {
        reader.error("range", pointer, format!("`initial` ({initial}) is longer than `max` ({max})"), fields.at());
    }
    Some(Backoff { initial, max })
}

fn codes(reader: &mut Reader, node: &Node, pointer: &str) -> Option<Vec<FailureCode>> {
    let items = reader.list(node, pointer)?;
    if items.is_empty() {
        reader.error("length", pointer, "a list of codes has at least one; leave `on` out to try again after any", node.at);
    }
    let known: Vec<&str> = FailureCode::ALL.iter().map(|c| c.as_str()).collect();
    let mut codes = Vec::new();
    for (index, item) in items.iter().enumerate() {
        codes.extend(reader.word::<FailureCode>(item, &format!("{pointer}/{index}"), &known));
    }
    Some(codes)
}
