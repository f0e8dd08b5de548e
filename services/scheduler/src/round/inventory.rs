//! What the inventory says is on a host and a janitor did not find there.

use std::collections::HashSet;

use hopyard_contract::message::WorkspacesQuery;
use hopyard_contract::run::{RunState, WorkspaceRow, WorkspaceStatus};
use hopyard_store::Error as StoreError;

use super::Round;

/// Most rows of one status that are looked at; the next pass of the janitor sees the rest.
const LOOK_AT: u32 = 1000;

impl Round<'_> {
    /// Workspaces of the host that are not among those found. The janitor asks about each by name before it does anything, so
    /// committed data is enough here.
    pub(super) async fn missing(&mut self, query: &WorkspacesQuery) -> Result<Vec<String>, StoreError> {
        let found: HashSet<&str> = query.found.iter().map(String::as_str).collect();
        let mut rows = Vec::new();
        for status in [WorkspaceStatus::Reclaimable, WorkspaceStatus::Kept, WorkspaceStatus::Active] {
            let listed = self.desk.store.workspaces(Some(&query.host), status, LOOK_AT).await?;
            rows.extend(listed.into_iter().filter(|row| !found.contains(row.id.as_str()) && was_made(row)));
        }
        self.see(rows.iter().filter(|row| is_active(row)).map(|row| row.run_id)).await?;
        Ok(rows
            .into_iter()
            .filter(|row| !is_active(row) || self.seen(row.run_id).is_some_and(|s| !is_lived_in(row, s)))
            .map(|row| row.id)
            .collect())
    }
}

fn is_active(row: &WorkspaceRow) -> bool {
    row.status == WorkspaceStatus::Active
}

/// Whether the row stands for a directory of its own: a session's lives elsewhere, and an active one without a path has not
/// been made yet.
fn was_made(row: &WorkspaceRow) -> bool {
    row.session.is_none() && (!is_active(row) || !row.path.is_empty())
}

/// Whether an attempt is at work there, or about to be: then its executor knows better.
fn is_lived_in(row: &WorkspaceRow, state: &RunState) -> bool {
    state.live().any(|attempt| attempt.generation == row.generation)
}

#[cfg(test)]
mod tests {
    use hopyard_contract::{Name, RunId};

    use super::*;

    fn row(status: WorkspaceStatus, path: &str, session: Option<&str>) -> WorkspaceRow {
        let run: RunId = "01977c60-d400-7000-8000-000000000001".parse().unwrap();
        WorkspaceRow {
            id: format!("{run}-g1"),
            run_id: run,
            namespace: Name::default_namespace(),
            generation: 1,
            executor: Name::literal("e1"),
            host: Name::literal("h1"),
            path: path.to_owned(),
            repo: None,
            session: session.map(|s| s.parse().unwrap()),
            status,
            created_at: chrono::DateTime::UNIX_EPOCH,
            removed_at: None,
            bytes: None,
        }
    }

    #[test]
    fn only_directories_that_were_made_are_missed() {
        use WorkspaceStatus::{Active, Kept, Reclaimable};
        for (status, path, session, missed) in [
            (Active, "/d/workspaces/e1/r-g1", None, true),
            (Active, "", None, false),
            (Active, "/d/sessions/e1/s", Some("s"), false),
            (Reclaimable, "/d/workspaces/e1/r-g1", None, true),
            // The run ended before its executor said where it is, or whether it is there at all.
            (Reclaimable, "", None, true),
            (Reclaimable, "/d/sessions/e1/s", Some("s"), false),
            (Kept, "/d/sessions/e1/s", Some("s"), false),
        ] {
            assert_eq!(was_made(&row(status, path, session)), missed, "{status:?} {path} {session:?}");
        }
    }
}
