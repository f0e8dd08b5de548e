//! Everything that travels on the bus between services, and what clients read from it.

use std::fmt::Debug;

use hopyard_contract::log::BusChunk;
use hopyard_contract::message::*;
use hopyard_contract::problem::Problem;
use hopyard_contract::submit::{Receipt, SubmittedBatch};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What is read of a message, written again, is read as the same message.
fn stable<T: Serialize + DeserializeOwned + Debug + PartialEq>(body: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(body) else { return };
    let written = serde_json::to_vec(&message).expect("messages have string keys and no failing serializers");
    let again: T = serde_json::from_slice(&written).expect("what was written is read");
    assert_eq!(again, message);
    assert_eq!(serde_json::to_vec(&again).expect("as before"), written);
}

/// Checks of one kind of message each.
const KINDS: &[fn(&[u8])] = &[
    stable::<Accept>,
    stable::<Submission>,
    stable::<AcceptReply>,
    stable::<PutDefinition>,
    stable::<PutDefinitionReply>,
    stable::<Claim>,
    stable::<ClaimReply>,
    stable::<Renew>,
    stable::<RenewReply>,
    stable::<Control>,
    stable::<Pin>,
    stable::<PinReply>,
    stable::<KillRun>,
    stable::<KillReply>,
    stable::<Reports>,
    stable::<WorkspacesQuery>,
    stable::<WorkspacesReply>,
    stable::<Hello>,
    stable::<HelloReply>,
    stable::<Beat>,
    stable::<Drain>,
    stable::<StatusQuery>,
    stable::<SchedulerStatus>,
    stable::<Ticket>,
    stable::<GcTicket>,
    stable::<DeadLetter>,
    stable::<RpcAnswer<AcceptReply>>,
    stable::<RpcAnswer<ClaimReply>>,
    stable::<Receipt>,
    stable::<SubmittedBatch>,
    stable::<BusChunk>,
    stable::<Problem>,
];

/// The first byte names the kind (`@` is the first, then in the order of ASCII), the rest is the body.
pub fn any(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    KINDS[usize::from(kind.wrapping_sub(b'@')) % KINDS.len()](body);
}
