//! What may happen to a directory, and why: a pure function of what is on disk and what a scheduler says.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use hopyard_contract::RunId;
use hopyard_contract::id::WorkspaceId;
use hopyard_contract::message::WorkspacesReply;
use serde::Serialize;

/// A directory among the workspaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its name; `<run>-g<k>` if it is a workspace.
    pub(crate) id: String,
    pub(crate) path: PathBuf,
    /// Since its last change.
    pub(crate) age: Duration,
}

/// What is to be done with a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Name of the directory: `<run>-g<k>` of a workspace.
    pub id: String,
    /// Where it is.
    pub path: PathBuf,
    /// Whether it goes.
    pub action: Action,
    /// Why it goes or stays.
    pub reason: Reason,
    /// Seconds since its last change.
    pub age_s: u64,
    /// Bytes on disk; in dry runs only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// Whether a directory goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It goes.
    Remove,
    /// It stays.
    Keep,
}

/// Why a directory goes or stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Goes: its run has ended or lives elsewhere.
    Finished,
    /// Goes once work and logs of attempts that were lost here are kept.
    Lost,
    /// Goes: the store does not know it, it is old, and no process is in it.
    Orphan,
    /// Is gone already: deleted by hand, or before a crash.
    Absent,
    /// Stays: its run has not ended, or it is persistent.
    Active,
    /// Stays: the store does not know it, but it changed lately.
    Recent,
    /// Stays: the store does not know it, but a process is in it.
    InUse,
    /// Stays: it is no workspace by its name.
    Foreign,
    /// Stays: no scheduler said anything about it.
    Unanswered,
}

impl Reason {
    /// The written form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Lost => "lost",
            Self::Orphan => "orphan",
            Self::Absent => "absent",
            Self::Active => "active",
            Self::Recent => "recent",
            Self::InUse => "in_use",
            Self::Foreign => "foreign",
            Self::Unanswered => "unanswered",
        }
    }

    const fn action(self) -> Action {
        match self {
            Self::Finished | Self::Lost | Self::Orphan | Self::Absent => Action::Remove,
            Self::Active | Self::Recent | Self::InUse | Self::Foreign | Self::Unanswered => Action::Keep,
        }
    }
}

/// The run of a workspace's name; `None` if it is none.
pub(crate) fn run_of(id: &str) -> Option<RunId> {
    id.parse::<WorkspaceId>().ok().map(|id| id.run)
}

/// Decides about each directory. `in_use` names those that live processes are in. What a scheduler wants to keep stays,
/// whatever else is said about it.
pub(crate) fn plan(found: &[Found], reply: &WorkspacesReply, in_use: &BTreeSet<String>, max_age: Duration) -> Vec<Planned> {
    let decide = |found: &Found| {
        let id = &found.id;
        if run_of(id).is_none() {
            Reason::Foreign
        } else if reply.keep.contains(id) {
            Reason::Active
        } else if let Some(order) = reply.reclaimable.iter().find(|order| order.id == *id) {
            if order.lost.is_empty() { Reason::Finished } else { Reason::Lost }
        } else if !reply.unknown.contains(id) {
            Reason::Unanswered
        } else if found.age < max_age {
            Reason::Recent
        } else if in_use.contains(id) {
            Reason::InUse
        } else {
            Reason::Orphan
        }
    };
    let planned = |found: &Found| {
        let reason = decide(found);
        Planned { id: found.id.clone(), path: found.path.clone(), action: reason.action(), reason, age_s: found.age.as_secs(), bytes: None }
    };
    found.iter().map(planned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hopyard_contract::message::ReclaimOrder;

    const ID: &str = "01977c60-d400-7000-8000-000000000001-g2";

    fn found(id: &str, hours: u64) -> Found {
        Found { id: id.to_owned(), path: PathBuf::from("/data/workspaces/e1").join(id), age: Duration::from_secs(hours * 3600) }
    }

    fn order(lost: bool) -> ReclaimOrder {
        let attempt = || serde_json::from_value(serde_json::json!({"run": &ID[..36], "step": "fix", "n": 1})).unwrap();
        ReclaimOrder { id: ID.to_owned(), url: None, lost: if lost { vec![attempt()] } else { Vec::new() } }
    }

    #[test]
    fn each_directory_has_one_fate_and_one_reason() {
        let old = 49;
        let id = || vec![ID.to_owned()];
        let none = WorkspacesReply { reclaimable: Vec::new(), keep: Vec::new(), unknown: Vec::new(), missing: Vec::new() };
        let reclaimable = |lost| WorkspacesReply { reclaimable: vec![order(lost)], ..none.clone() };
        let keep = WorkspacesReply { keep: id(), ..none.clone() };
        let unknown = WorkspacesReply { unknown: id(), ..none.clone() };
        let contradictory = WorkspacesReply { keep: id(), unknown: id(), ..reclaimable(false) };
        let table = [
            (ID, 0, &reclaimable(false), false, Action::Remove, Reason::Finished),
            (ID, 0, &reclaimable(true), false, Action::Remove, Reason::Lost),
            (ID, old, &keep, false, Action::Keep, Reason::Active),
            (ID, old, &contradictory, false, Action::Keep, Reason::Active),
            (ID, 47, &unknown, false, Action::Keep, Reason::Recent),
            (ID, old, &unknown, true, Action::Keep, Reason::InUse),
            (ID, old, &unknown, false, Action::Remove, Reason::Orphan),
            (ID, old, &none, false, Action::Keep, Reason::Unanswered),
            ("my-notes", old, &none, false, Action::Keep, Reason::Foreign),
            (
                "my-notes",
                old,
                &WorkspacesReply { unknown: vec!["my-notes".to_owned()], ..none.clone() },
                false,
                Action::Keep,
                Reason::Foreign,
            ),
        ];
        for (id, hours, reply, in_use, action, reason) in table {
            let in_use = if in_use { BTreeSet::from([id.to_owned()]) } else { BTreeSet::new() };
            let planned = plan(&[found(id, hours)], reply, &in_use, Duration::from_secs(48 * 3600));
            assert_eq!((planned[0].action, planned[0].reason), (action, reason), "{id} after {hours} h");
        }
    }

    #[test]
    fn only_names_of_workspaces_are_taken_for_workspaces() {
        assert!(run_of(ID).is_some());
        for name in [
            "",
            "-g1",
            &ID[..36],
            &ID[..38],
            "x-g1",
            "01977c60-d400-7000-8000-000000000001-g1.json",
            "01977c60-d400-7000-8000-000000000001-g-1",
        ] {
            assert!(run_of(name).is_none(), "{name}");
        }
    }
}
