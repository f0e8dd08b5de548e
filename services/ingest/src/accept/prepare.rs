//! From a body to what is handed over: read, key, plan, inputs, run id.

use std::collections::{BTreeSet, HashMap};

use hopyard_contract::message::{NewRun, Recordings, Submission, SubmissionItem};
use hopyard_contract::plan::{Step, Work, WorkspaceMode};
use hopyard_contract::submit::RunRequest;
use hopyard_contract::{FieldError, Name, RunId, json};
use hopyard_runtime::bus::encode;
use serde_json::Value;

use super::definition::{Resolved, Unresolved};
use super::request::{self, Form, Item, MAX_KEY};
use super::{Key, Origin, fields, replay};
use crate::door::Door;
use crate::problem::Refusal;

/// A body that has been read and checked.
#[derive(Debug)]
pub struct Prepared {
    /// What is handed over.
    pub submission: Submission,
    /// Bytes of each item.
    pub(super) sizes: Vec<usize>,
    /// Pools that its steps ask for.
    pub(super) pools: BTreeSet<Name>,
}

/// Why a body could not be prepared.
#[derive(Debug)]
pub enum Unprepared {
    /// The body as a whole is wrong.
    Invalid(Vec<FieldError>),
    /// Something is away; nothing was sent, and sending it again is safe.
    Unavailable(Refusal),
}

/// Reads and checks a body.
///
/// # Errors
/// [`Unprepared`].
pub async fn prepare(door: &Door, origin: &Origin, body: &Value, form: Form) -> Result<Prepared, Unprepared> {
    let mut items = request::body(body, form).map_err(Unprepared::Invalid)?;
    merge_keys(&mut items, origin.key.as_ref());
    let mut plans = Plans { door, namespace: &origin.namespace, named: HashMap::new(), inline: HashMap::new() };
    let mut prepared = Prepared::empty(origin);
    for (index, item) in items.into_iter().enumerate() {
        let made = match item {
            Ok(request) => match named(&mut plans, &request).await {
                Ok((resolved, recordings)) => prepared.assemble(origin, index, request, &resolved).map(|run| NewRun { recordings, ..run }),
                Err(Unresolved::Invalid(errors)) => Err(errors),
                Err(Unresolved::Unavailable(refusal)) => return Err(Unprepared::Unavailable(refusal)),
            },
            Err(errors) => Err(errors),
        };
        prepared.push(made, door.batcher.room());
    }
    prepared.fitting(door.batcher.room())
}

/// What a request names: its plan, and what it plays.
async fn named(plans: &mut Plans<'_>, request: &RunRequest) -> Result<(Resolved, Recordings), Unresolved> {
    let resolved = plans.of(request).await?;
    let recordings = match request.rerun_of.filter(|_| request.replay) {
        Some(run) => replay::recorded_of(plans.door, plans.namespace, run).await?,
        None => Recordings::new(),
    };
    Ok((resolved, recordings))
}

/// Prepares one run whose plan is known already: a re-run.
pub fn prepare_known(door: &Door, origin: &Origin, request: RunRequest, resolved: &Resolved, recordings: Recordings) -> Prepared {
    let mut items = vec![Ok(request)];
    merge_keys(&mut items, origin.key.as_ref());
    let mut prepared = Prepared::empty(origin);
    for item in items {
        let made = item.and_then(|request| prepared.assemble(origin, 0, request, resolved));
        let made = made.map(|run| NewRun { recordings: recordings.clone(), ..run });
        prepared.push(made, door.batcher.room());
    }
    prepared
}

/// Gives items the key that came beside the body.
fn merge_keys(items: &mut [Item], key: Option<&Key>) {
    let Some(key) = key else { return };
    let many = items.len() > 1;
    for (index, item) in items.iter_mut().enumerate() {
        let Ok(request) = item else { continue };
        let (Key::Explicit(text) | Key::Hint(text)) = key;
        // Each run of a body needs a key of its own.
        let beside = if many { format!("{text}#{index}") } else { text.clone() };
        let error = match &request.idempotency_key {
            Some(inside) if matches!(key, Key::Explicit(_)) && !many && *inside != beside => {
                FieldError::new("idempotency_key_mismatch", "/idempotency_key", "the key in the header and the key in the body differ")
            }
            Some(_) => continue,
            None => match fields::check_line(&beside, 1, MAX_KEY) {
                Ok(()) => {
                    request.idempotency_key = Some(beside);
                    continue;
                }
                // A client library's message id is no promise of anything.
                Err(_) if matches!(key, Key::Hint(_)) => continue,
                Err((code, detail)) => FieldError::new(code, "/idempotency_key", format!("as an idempotency key: {detail}")),
            },
        };
        *item = Err(vec![error]);
    }
}

/// Plans of one body: each workflow is read once.
struct Plans<'a> {
    door: &'a Door,
    namespace: &'a Name,
    named: HashMap<Name, Result<Resolved, Vec<FieldError>>>,
    inline: HashMap<String, Result<Resolved, Vec<FieldError>>>,
}

impl Plans<'_> {
    async fn of(&mut self, request: &RunRequest) -> Result<Resolved, Unresolved> {
        let invalid = |known: &Result<Resolved, Vec<FieldError>>| known.clone().map_err(Unresolved::Invalid);
        let (resolved, name, hash) = match (&request.workflow, &request.definition) {
            (Some(name), _) => {
                if let Some(known) = self.named.get(name) {
                    return invalid(known);
                }
                (self.door.definitions.named(&*self.door.reader, &self.door.bus, self.namespace, name).await, Some(name), None)
            }
            (None, Some(value)) => {
                let hash = json::hash(value);
                if let Some(known) = self.inline.get(&hash) {
                    return invalid(known);
                }
                (self.door.definitions.inline(&self.door.bus, self.namespace, value).await, None, Some(hash))
            }
            (None, None) => {
                return Err(Unresolved::Invalid(vec![FieldError::new(
                    "required",
                    "/workflow",
                    "a request names a `workflow` or brings a `definition`",
                )]));
            }
        };
        let known = match resolved {
            Ok(resolved) => Ok(resolved),
            Err(Unresolved::Invalid(errors)) => Err(errors),
            Err(unavailable) => return Err(unavailable),
        };
        if let Some(name) = name {
            self.named.insert(name.clone(), known.clone());
        }
        if let Some(hash) = hash {
            self.inline.insert(hash, known.clone());
        }
        known.map_err(Unresolved::Invalid)
    }
}

impl Prepared {
    fn empty(origin: &Origin) -> Self {
        let submission = Submission {
            namespace: origin.namespace.clone(),
            receipt: origin.receipt.clone(),
            promised: false,
            received_at: origin.received_at,
            items: Vec::new(),
        };
        Self { submission, sizes: Vec::new(), pools: BTreeSet::new() }
    }

    /// A body with a receipt travels whole; inputs with large defaults may make it larger than it was sent.
    fn fitting(self, room: usize) -> Result<Self, Unprepared> {
        let whole = self.submission.receipt.is_some();
        if whole && self.sizes.iter().sum::<usize>() > room { Err(Unprepared::Invalid(vec![too_large()])) } else { Ok(self) }
    }

    fn push(&mut self, made: Result<NewRun, Vec<FieldError>>, room: usize) {
        let mut item = match made {
            Ok(run) => SubmissionItem::Run(Box::new(run)),
            Err(errors) => SubmissionItem::Rejected(errors),
        };
        let mut size = encode(&item).len() + 1;
        if self.submission.receipt.is_none() && size > room {
            item = SubmissionItem::Rejected(vec![too_large()]);
            size = encode(&item).len() + 1;
        }
        self.submission.items.push(item);
        self.sizes.push(size);
    }

    /// Makes the run of a request and its plan.
    fn assemble(&mut self, origin: &Origin, index: usize, mut request: RunRequest, resolved: &Resolved) -> Result<NewRun, Vec<FieldError>> {
        let key = request.idempotency_key.take();
        let request_hash = json::hash(&request);
        request.idempotency_key = key;
        let mut errors = Vec::new();
        match (resolved.plan.workspace.mode, &request.session) {
            // A replay without one leaves that of the recorded run as it is, and keeps nothing.
            (WorkspaceMode::Persistent, None) if request.replay => {}
            (WorkspaceMode::Persistent, None) => {
                errors.push(FieldError::new(
                    "required",
                    "/session",
                    format!("the workflow `{}` has a persistent workspace, so a run names its session", resolved.name),
                ));
            }
            (WorkspaceMode::Temporary | WorkspaceMode::None, Some(_)) => {
                let detail = format!(
                    "the workflow `{}` has no persistent workspace; set `workspace: {{mode: persistent}}` or leave the session out",
                    resolved.name
                );
                errors.push(FieldError::new("no_session", "/session", detail));
            }
            _ => {}
        }
        let takes_over = |step: &Step| matches!(step.work, Work::BestOf(_));
        if request.repo.is_none() && resolved.plan.steps.iter().any(takes_over) {
            let detail =
                format!("the workflow `{}` chooses among the work of variants, and only a repository can hold that", resolved.name);
            errors.push(FieldError::new("required", "/repo", detail));
        }
        match hopyard_definition::bind_inputs(&resolved.plan, &request.inputs) {
            Ok(inputs) => request.inputs = inputs,
            Err(more) => errors.extend(more),
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        request.definition = None;
        request.workflow = Some(resolved.name.clone());
        let run_id = match &origin.receipt {
            Some(head) => RunId::of_bus_message(head.time_ns, head.seq, u32::try_from(index).unwrap_or(u32::MAX)),
            None => RunId::mint(),
        };
        let fallback = request.pool.clone().unwrap_or_else(Name::default_pool);
        self.pools.extend(resolved.plan.steps.iter().map(|step| step.pool.clone().unwrap_or_else(|| fallback.clone())));
        Ok(NewRun {
            run_id,
            request,
            workflow: resolved.name.clone(),
            definition_hash: resolved.definition_hash.clone(),
            plan_hash: resolved.plan_hash.clone(),
            request_hash,
            recordings: Recordings::new(),
            traceparent: Some(origin.traceparent.clone().filter(|t| is_traceparent(t)).unwrap_or_else(|| traceparent_of(run_id))),
        })
    }
}

fn too_large() -> FieldError {
    FieldError::new("too_large", "", "with its inputs filled in the request does not fit in a message; send fewer or smaller ones at once")
}

/// Whether a text is a W3C trace context of version 0.
fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) && part.bytes().any(|b| b != b'0')
    };
    let parts: Vec<&str> = text.split('-').collect();
    matches!(parts.as_slice(), ["00", trace, span, flags] if hex(trace, 32) && hex(span, 16) && flags.len() == 2 && flags.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A trace of its own for a run that came without one; the same for every delivery of the same message.
fn traceparent_of(run: RunId) -> String {
    let hex = run.as_uuid().simple().to_string();
    format!("00-{hex}-{}-01", &hex[16..])
}

#[cfg(test)]
mod tests;
