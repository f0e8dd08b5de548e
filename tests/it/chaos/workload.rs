//! The work that clients submit: short steps of many kinds, each of which says that it ran.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::dice::Dice;

/// Where runs find what they need.
#[derive(Clone, Debug)]
pub struct Places {
    /// Directory that steps may write to, outside of all workspaces.
    pub dir: PathBuf,
    /// A repository.
    pub repo: PathBuf,
}

/// A kind of run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One step that ends at once.
    Short,
    /// Two steps, one after the other, with an output.
    Chain,
    /// A step that fails.
    Failing,
    /// A step that fails the first time.
    Retried,
    /// A step that takes a while, for those who cancel.
    Long,
    /// Work on a repository that becomes a branch.
    Repository,
    /// As [`Kind::Repository`], and it takes a while.
    RepositoryLong,
    /// As [`Kind::Repository`], with a second try after the first has left something behind.
    RepositoryRetried,
    /// As [`Kind::Repository`], pushed at the end.
    Pushed,
    /// In the persistent workspace of a session.
    Session,
}

/// Kinds by how often they come: most runs are short, so that many are under way; the sum is 100.
const MIX: &[(Kind, usize)] = &[
    (Kind::Short, 62),
    (Kind::Chain, 8),
    (Kind::Failing, 5),
    (Kind::Retried, 5),
    (Kind::Long, 8),
    (Kind::Repository, 4),
    (Kind::RepositoryLong, 2),
    (Kind::RepositoryRetried, 2),
    (Kind::Pushed, 2),
    (Kind::Session, 2),
];

impl Kind {
    /// A kind by chance.
    pub fn draw(dice: &mut Dice) -> Self {
        let mut at = dice.below(MIX.iter().map(|(_, weight)| weight).sum());
        for (kind, weight) in MIX {
            if at < *weight {
                return *kind;
            }
            at -= weight;
        }
        Self::Short
    }

    /// A submission of this kind, labelled with its operation.
    pub fn request(self, dice: &mut Dice, places: &Places, op: &str) -> Value {
        let ran = marked(&places.dir);
        let once_failing = "case $HOPYARD_ATTEMPT in *.1) exit 3;; esac";
        let retry = json!({ "max_attempts": 6, "backoff": { "initial": "100ms", "max": "1s" } });
        let write = format!("{ran}\necho $HOPYARD_ATTEMPT >> file.$(({} % 4))", dice.below(4));
        let steps = match self {
            Self::Short => json!([{ "id": "main", "shell": ran }]),
            Self::Chain => json!([
                { "id": "one", "shell": format!("{}\necho made=$HOPYARD_ATTEMPT >> $HOPYARD_OUTPUT", alone(&places.dir)) },
                { "id": "two", "needs": ["one"], "shell": alone(&places.dir), "env": { "MADE": "${{ steps.one.outputs.made }}" } },
            ]),
            Self::Failing => json!([{ "id": "main", "shell": format!("{ran}\nexit 3") }]),
            Self::Retried => json!([{ "id": "main", "shell": format!("{ran}\n{once_failing}"), "retry": retry }]),
            Self::Long => json!([{ "id": "main", "shell": format!("{}\nsleep {}", alone(&places.dir), 1 + dice.below(4)) }]),
            Self::Repository | Self::Pushed | Self::Session => json!([{ "id": "main", "shell": write }]),
            Self::RepositoryLong => json!([{ "id": "main", "shell": format!("{write}\nsleep 2") }]),
            Self::RepositoryRetried => json!([{ "id": "main", "shell": format!("{write}\n{once_failing}"), "retry": retry }]),
        };
        // The short ones are always the same, so that definitions are both new and known to a door.
        let name = if self == Self::Short { "chaos".to_owned() } else { format!("chaos-{}", dice.below(4)) };
        let mut definition = json!({ "version": 1, "name": name, "steps": steps });
        let mut request = json!({ "labels": { "op": op, "kind": format!("{self:?}") } });
        match self {
            Self::Repository | Self::RepositoryLong | Self::RepositoryRetried | Self::Pushed | Self::Session => {
                request["repo"] = json!({ "url": places.repo.display().to_string() });
            }
            _ => definition["workspace"] = json!({ "mode": "none" }),
        }
        match self {
            Self::Pushed => definition["result"] = json!({ "push": true }),
            Self::Session => {
                definition["workspace"] = json!({ "mode": "persistent" });
                request["session"] = json!(format!("session-{}", dice.below(3)));
            }
            _ => {}
        }
        request["definition"] = definition;
        request
    }
}

/// A script that says that its attempt ran.
fn marked(dir: &Path) -> String {
    format!("echo $HOPYARD_ATTEMPT >> {}/ran", dir.display())
}

/// As [`marked`], and it notices another process of its step that goes on. One that is held still has the lock as well, and may
/// be there for longer than its lease.
fn alone(dir: &Path) -> String {
    let place = dir.display();
    let notice = format!(
        "lock={place}/locks/$HOPYARD_RUN_ID.$HOPYARD_STEP\n\
         exec 9> $lock\n\
         if ! flock -n 9; then\n\
           for other in /proc/[0-9]*; do\n\
             if [ $other != /proc/$$ ] && [ \"$(readlink $other/fd/9)\" = $lock ] && ! grep -q ') [TZ] ' $other/stat; then\n\
               echo $HOPYARD_ATTEMPT beside $(tr '\\0' ' ' < $other/cmdline) >> {place}/overlaps\n\
             fi\n\
           done\n\
         fi\n"
    );
    notice + &marked(dir)
}
